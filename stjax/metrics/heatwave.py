"""The convention "heatwave": how well spells of extreme values are forecast."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stjax.errors import MetricError
from stjax.metrics import categorical
from stjax.metrics.base import Score, Totals, grid_weights, pooled


def spells(above: jax.Array, least: int) -> jax.Array:
  """Tells which values belong to a spell of at least `least` frames.

  Args:
    above: bool [..., T, H, W, C]; frames beyond either end count as not above.
    least: number of frames of the shortest spell.

  Returns:
    bool [..., T, H, W, C].
  """
  axis = above.ndim - 4
  length = above.shape[axis]

  def shifted(x, by):
    """Returns x at time t + by, and False where that is beyond the ends."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = (max(-by, 0), max(by, 0))
    start = max(by, 0)
    return jax.lax.slice_in_dim(jnp.pad(x, pad), start, start + length, axis=axis)

  # A frame begins a spell if the `least` frames from it on are all above; it is
  # inside one if any of the `least` frames up to it begins a spell.
  begins = above
  for i in range(1, least):
    begins &= shifted(above, i)
  inside = begins
  for i in range(1, least):
    inside |= shifted(begins, -i)
  return inside


@dataclasses.dataclass(frozen=True, eq=False)
class Heatwave:
  """Skill at spells above a threshold: the convention "heatwave".

  A point is in a heatwave where its value is above the training quantile of
  its calendar cell for at least `min_duration` frames in a row. (Hobday et al.
  2016, doi:10.1016/j.pocean.2015.12.014, take 0.9 and 5 days; unlike there,
  gaps between spells are not closed.) A spell may begin in the history, which
  is observed, both for the forecast and for the observation. Frames beyond the
  target count as not above for both. With the hits a, false alarms b, misses c
  and correct rejections d as shares of the samples and points, weighted by
  mask and area:
    pod: a / (a + c), the share of events that were forecast.
    far: b / (a + b), the share of false alarms among the warnings.
    csi: a / (a + b + c).
    frequency_bias: (a + b) / (a + c); above 1, events are forecast too often.
    sedi: (ln F - ln H - ln(1 - F) + ln(1 - H)) / (ln F + ln H + ln(1 - F) +
      ln(1 - H)) with F = b / (b + d) and H = pod. The symmetric extremal
      dependence index (Ferro and Stephenson 2011,
      doi:10.1175/WAF-D-10-05030.1) keeps its meaning for rare events; it is
      NaN where F or H is 0 or 1.
    base_rate: a + c, the share of events.
  Each is given overall, by lead time, by variable and by both; counts are
  pooled before the ratios. Each member of an ensemble counts as a forecast of
  its own. Points without a threshold do not count.

  Attributes:
    quantile: quantile of the thresholds that `update` is given.
    min_duration: number of frames of the shortest spell.
    area_weights: weights [H] or [H, W] of any scale, or None.
  """

  extra_inputs: ClassVar[tuple[str, ...]] = ("threshold", "history")
  quantile: float = 0.9
  min_duration: int = 1
  area_weights: Sequence | np.ndarray | None = None

  def __post_init__(self):
    if not 0 < self.quantile < 1:
      raise MetricError(
        f"quantile={self.quantile} must lie between 0 and 1. Change "
        "config.evaluation.heatwave.quantile."
      )
    if not isinstance(self.min_duration, int) or self.min_duration < 1:
      raise MetricError(
        f"min_duration={self.min_duration!r} must be a whole number from 1. "
        "Change config.evaluation.heatwave.min_duration."
      )

  def update(
    self,
    forecast: jax.Array,
    observation: jax.Array,
    weight: jax.Array,
    threshold: jax.Array,
    history: jax.Array,
  ) -> Totals:
    frames = threshold.shape[1]
    if self.min_duration > frames:
      raise MetricError(
        f"A heatwave of min_duration={self.min_duration} frames does not fit "
        f"the {frames} frames of history and forecast. Change "
        "config.evaluation.heatwave.min_duration, or raise "
        "config.evaluation.history."
      )
    first = history.shape[1]
    now = threshold[:, first:]
    counted = (weight > 0) & jnp.isfinite(now)
    weight = jnp.where(counted, weight, 0).astype(jnp.float32)
    if self.area_weights is not None:
      weight = weight * grid_weights(self.area_weights, observation)
    before = history > threshold[:, :first]  # A missing value (NaN) is not above.

    def events(fields):
      above = (fields > now) & counted
      past = jnp.broadcast_to(before, (*fields.shape[:-5], *before.shape))
      whole = spells(jnp.concatenate([past, above], -4), self.min_duration)
      return whole[..., first:, :, :, :]

    # The comparison with the threshold hides NaN; a weight of NaN shows it.
    broken = jnp.isnan(observation) | jnp.isnan(forecast).any(0)
    weight = jnp.where(counted & broken, jnp.nan, weight)
    warned = events(forecast.astype(jnp.float32)).mean(0)
    event = events(observation.astype(jnp.float32)).astype(jnp.float32)

    def total(share):
      return (weight * share).sum((0, 2, 3))

    return {
      "hits": total(warned * event),
      "false_alarms": total(warned * (1 - event)),
      "misses": total((1 - warned) * event),
      "rejections": total((1 - warned) * (1 - event)),
    }

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    counts = [totals[name] for name in categorical.Counts._fields]
    formulas = {
      "pod": categorical.pod,
      "far": categorical.far,
      "csi": categorical.csi,
      "frequency_bias": categorical.frequency_bias,
      "sedi": _sedi,
      "base_rate": lambda a, b, c, d: (a + c) / (a + b + c + d),
    }
    return {name: pooled(formula, *counts) for name, formula in formulas.items()}


def _sedi(a, b, c, d):
  alarm, hit = b / (b + d), a / (a + c)
  logs = [np.log(x) for x in (alarm, hit, 1 - alarm, 1 - hit)]
  return (logs[0] - logs[1] - logs[2] + logs[3]) / sum(logs)
