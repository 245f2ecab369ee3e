"""Scores of events, which are values that reach a threshold.

Forecast and observation are compared in a table of four counts: hits, false
alarms, misses and correct rejections. Counts can be added over frames, samples
and batches; the scores are ratios of them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stjax.errors import MetricError
from stjax.metrics import events
from stjax.metrics.base import Score, Totals, grid_weights, pooled_bins

# How a block of points becomes one point.
POOLINGS = ("average", "max")


class Counts(NamedTuple):
  """The four counts, of one shape, and in the order of every formula below."""

  hits: Any
  false_alarms: Any
  misses: Any
  rejections: Any


def csi(a, b, c, d, epsilon=0):
  """Returns hits / (hits + false alarms + misses), the critical success index."""
  del d
  return a / (a + b + c + epsilon)


def far(a, b, c, d, epsilon=0):
  """Returns false alarms / forecast events, the false alarm ratio."""
  del c, d
  return b / (a + b + epsilon)


def pod(a, b, c, d, epsilon=0):
  """Returns hits / observed events, the probability of detection."""
  del b, d
  return a / (a + c + epsilon)


def success_ratio(a, b, c, d, epsilon=0):
  """Returns hits / forecast events, which is 1 - far."""
  del c, d
  return a / (a + b + epsilon)


def frequency_bias(a, b, c, d, epsilon=0):
  """Returns forecast events / observed events."""
  del d
  return (a + b) / (a + c + epsilon)


def hss(a, b, c, d, epsilon=0):
  """Returns the Heidke skill score; 0 is as good as chance.

  Source: Wilks 2011, "Statistical Methods in the Atmospheric Sciences", 8.2.2.
  """
  chance = (a + c) * (c + d) + (a + b) * (b + d)
  return 2 * (a * d - b * c) / (chance + epsilon)


RATIOS: dict[str, Callable] = {
  "csi": csi,
  "far": far,
  "pod": pod,
  "hss": hss,
  "frequency_bias": frequency_bias,
}


def name(threshold: float) -> str:
  """Returns "ge_30" for the event "greater than or equal to 30"."""
  return f"ge_{threshold:g}"


def checked(thresholds: Sequence[float]) -> tuple[float, ...]:
  """Returns thresholds as numbers, of which there must be one at least.

  Raises:
    MetricError: there is none, or they are not finite or too much alike.
  """
  if not len(thresholds):
    raise MetricError(
      "Scores of events need thresholds in physical units. Set"
      " config.evaluation.thresholds."
    )
  events.check_thresholds(thresholds)
  return tuple(float(t) for t in thresholds)


def average(values):
  """Returns the mean [...] over the last axis, NaN left out; NaN if all are."""
  xp = jnp if isinstance(values, jax.Array) else np
  missing = xp.isnan(values)
  return xp.where(missing, 0, values).sum(-1) / (~missing).sum(-1)


def contingency(
  forecast: jax.Array,
  observation: jax.Array,
  weight: jax.Array,
  thresholds: Sequence[float],
) -> Counts:
  """Counts hits, false alarms, misses and rejections in every frame.

  Where one of the two is NaN, neither has an event. Weights that are whole
  numbers (of a type of integers) give exact counts.

  Args:
    forecast: [..., T, H, W, C].
    observation: array that broadcasts to the forecast, in the same units.
    weight: array that broadcasts to the forecast, 0 where a point must not
      count.
    thresholds: K thresholds; a value that equals one has the event.

  Returns:
    Counts [..., T, C, K], the sums of the weights over rows and columns.
  """

  def table(threshold):
    f, o = _events(forecast, observation, threshold)
    cells = (f & o, f & ~o, ~f & o, ~f & ~o)
    # A weight of NaN reaches every cell; XLA would drop it from a product.
    return Counts(*(jnp.where(x, weight, 0 * weight).sum((-3, -2)) for x in cells))

  return Counts(*_over(thresholds, table))


def _over(thresholds, function):
  """Applies a function to each threshold; its arrays [...] become [..., K]."""
  # A loop is compiled once, and holds the events of one threshold at a time.
  results = jax.lax.map(function, jnp.asarray(thresholds, jnp.float32))
  return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), results)


def _events(forecast, observation, threshold):
  """Tells where forecast and observation reach a threshold, both [...]."""
  known = ~(jnp.isnan(forecast) | jnp.isnan(observation))
  return known & (forecast >= threshold), known & (observation >= threshold)


def blocks(
  values: jax.Array, weight: jax.Array, size: int, pooling: str
) -> tuple[jax.Array, jax.Array]:
  """Makes one point of each block of size x size points.

  Blocks do not overlap; rows and columns that fill no block are left out.

  Args:
    values: [..., H, W, C].
    weight: array that broadcasts with them, 0 where a point must not count.
    size: side of a block, in points.
    pooling: "average" or "max" of the points that count.

  Returns:
    Values and weights [..., H // size, W // size, C]. The weight of a block is
    the mean of its points' weights.
  """
  values, weight = (_cut(x, size) for x in jnp.broadcast_arrays(values, weight))
  axes = (-4, -2)
  total = weight.sum(axes)
  if pooling == "max":
    most = jnp.where(weight != 0, values, -jnp.inf).max(axes)
    values = jnp.where(total != 0, most, 0)
  else:
    counted = jnp.where(weight != 0, weight * values, 0).sum(axes)
    values = counted / jnp.where(total != 0, total, 1)
  return values, total / size**2


def _cut(fields: jax.Array, size: int) -> jax.Array:
  """Cuts [..., H, W, C] into blocks [..., H // size, size, W // size, size, C]."""
  *front, h, w, c = fields.shape
  rows, columns = h // size, w // size
  fields = fields[..., : rows * size, : columns * size, :]
  return fields.reshape(*front, rows, size, columns, size, c)


def fractions(
  forecast: jax.Array,
  observation: jax.Array,
  weight: jax.Array,
  thresholds: Sequence[float],
  size: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns the two sums of the fractions skill score of every frame.

  With p and o the shares of the points of a block that have the event, in
  forecast and observation, they are sum p o and sum (p^2 + o^2) over the blocks
  of a frame. The score is 2 sum p o / sum (p^2 + o^2), which equals
  1 - sum (p - o)^2 / sum (p^2 + o^2).

  Args:
    forecast: [..., T, H, W, C].
    observation: array that broadcasts to the forecast, in the same units.
    weight: array that broadcasts to the forecast.
    thresholds: K thresholds.
    size: side of a block, in points; blocks do not overlap.

  Returns:
    Two arrays [..., T, C, K].

  Source: Roberts and Lean 2008, doi:10.1175/2007MWR2123.1 (whose squares
  overlap).
  """

  def terms(threshold):
    (p, area), (o, _) = (
      blocks(x.astype(jnp.float32), weight, size, "average")
      for x in _events(forecast, observation, threshold)
    )
    return (area * p * o).sum((-3, -2)), (area * (p**2 + o**2)).sum((-3, -2))

  return _over(thresholds, terms)


def fss(products, squares, epsilon=0):
  """Returns the fractions skill score of the sums of `fractions`."""
  return 2 * products / (squares + epsilon)


def by_threshold(
  stem: str,
  thresholds: Sequence[float],
  finish: Callable[..., np.ndarray],
  bins: Sequence[np.ndarray],
  *totals: np.ndarray,
) -> Iterator[tuple[str, Score]]:
  """Yields a score by name for each threshold, and their mean as `stem`.

  Args:
    stem: name of the score.
    thresholds: K thresholds.
    finish: function of arrays [..., K] and [...] that returns [..., K].
    bins: totals [T, C, K], the arguments of `finish`.
    *totals: totals [T, C], further arguments.
  """
  yield stem, pooled_bins(lambda *x: average(finish(*x)), bins, *totals)
  for k, threshold in enumerate(thresholds):
    one = pooled_bins(lambda *x, k=k: finish(*x)[..., k], bins, *totals)
    yield f"{stem}_{name(threshold)}", one


@dataclasses.dataclass(frozen=True, eq=False)
class Categorical:
  """Skill at events above thresholds: the convention "categorical".

  An event is a value of at least a threshold. With the hits a, false alarms b,
  misses c and correct rejections d as sums over samples and points, weighted by
  mask and area (and over lead times and variables if these are pooled):
    csi: a / (a + b + c).
    far: b / (a + b), the share of the forecast events that did not happen.
    pod: a / (a + c), the share of the events that were forecast.
    hss: 2 (a d - b c) / ((a + c) (c + d) + (a + b) (b + d)), the Heidke skill
      score; 0 is as good as chance.
    frequency_bias: (a + b) / (a + c); above 1, events are forecast too often.
    pooled_csi_<s>_average, pooled_csi_<s>_max: csi of the mean, or of the
      largest value, of blocks of s x s points, for each of `scales`.
    fss_<s>: the fractions skill score 2 sum p o / sum (p^2 + o^2) with the
      shares p and o of each block of s x s points that have the event.
  "<score>_ge_<t>" is that of one threshold. The name without it is the mean
  over the thresholds; one for which a score is 0 / 0 is left out of it. Each
  member of an ensemble counts as a forecast of its own. None of the scores has
  units.

  Attributes:
    thresholds: thresholds in physical units, the same for every variable.
    scales: sides of the blocks, in points.
    area_weights: weights [H] or [H, W] of any scale, or None.
  """

  thresholds: Sequence[float] = ()
  scales: Sequence[int] = ()
  area_weights: Sequence | np.ndarray | None = None

  def __post_init__(self):
    checked(self.thresholds)
    for size in self.scales:
      check_scale(size)

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    weight = weight.astype(jnp.float32)
    if self.area_weights is not None:
      weight = weight * grid_weights(self.area_weights, observation)
    # Comparisons hide NaN; a weight of NaN shows it.
    broken = jnp.isnan(observation) | jnp.isnan(forecast).any(0)
    weight = jnp.where(broken & (weight != 0), jnp.nan, weight)
    fields = forecast, observation[None], weight[None]

    def total(sums):
      return sums.mean(0).sum(0)

    counts = contingency(*fields, self.thresholds)
    totals = {key: total(sums) for key, sums in counts._asdict().items()}
    for size in self.scales:
      for pooling in POOLINGS:
        counts = pooled_contingency(*fields, self.thresholds, size, pooling)
        for key, sums in counts._asdict().items():
          totals[f"{key}_{size}_{pooling}"] = total(sums)
      products, squares = fractions(*fields, self.thresholds, size)
      totals |= {f"products_{size}": total(products), f"squares_{size}": total(squares)}
    return totals

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    scores = {}
    for stem, ratio in RATIOS.items():
      table = [totals[key] for key in Counts._fields]
      scores |= by_threshold(stem, self.thresholds, ratio, table)
    for size in self.scales:
      for pooling in POOLINGS:
        table = [totals[f"{key}_{size}_{pooling}"] for key in Counts._fields]
        stem = f"pooled_csi_{size}_{pooling}"
        scores |= by_threshold(stem, self.thresholds, csi, table)
      terms = [totals[f"products_{size}"], totals[f"squares_{size}"]]
      scores |= by_threshold(f"fss_{size}", self.thresholds, fss, terms)
    return scores


def pooled_contingency(
  forecast: jax.Array,
  observation: jax.Array,
  weight: jax.Array,
  thresholds: Sequence[float],
  size: int,
  pooling: str,
) -> Counts:
  """Returns `contingency` of fields that are pooled by `blocks`."""
  forecast, area = blocks(forecast, weight, size, pooling)
  observation, _ = blocks(observation, weight, size, pooling)
  return contingency(forecast, observation, area, thresholds)


def check_scale(size: int) -> None:
  """Refuses a side of blocks that is no whole number from 1.

  Raises:
    MetricError: it is not.
  """
  if not isinstance(size, int) or size < 1:
    raise MetricError(f"A scale of {size!r} points must be a whole number from 1.")
