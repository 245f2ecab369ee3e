"""The interface of metrics: totals that add up, and scores made from them.

A metric turns a batch into totals under jit. Totals are sums and never means,
so those of batches can be added. The scores are computed once, at the end, and
are exact for any batch size and number of devices. A point of weight 0
(missing, or in a row that only fills the last batch) changes nothing, even if
it holds NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from stjax.errors import MetricError

# A flat dict of arrays that can be added. Their axes are [T, C]; histograms
# have bins as a third axis; scores that mix the variables have [T] alone.
Totals = dict[str, Any]

# Curves and histograms by name, each as arrays by name. Arrays of one length
# are the columns of a table, and [] is a number that describes it.
# "<name>_by_lead" [T, length] and "<name>_by_variable" [C, length] hold the
# same columns for each lead time or variable.
Diagrams = dict[str, dict[str, np.ndarray]]


class Score(NamedTuple):
  """One score in float64, pooled in four ways; None if it has no such axis.

  Attributes:
    overall: [], pooled over all lead times and variables.
    by_lead: [T], the score of every lead time, pooled over all variables.
    by_variable: [C], the score of every variable, pooled over all lead times.
    by_lead_and_variable: [T, C], not pooled.
  """

  overall: np.ndarray
  by_lead: np.ndarray | None = None
  by_variable: np.ndarray | None = None
  by_lead_and_variable: np.ndarray | None = None


class Metric(Protocol):
  """A named set of scores of fields in physical units.

  A metric may have a third method, `diagrams(totals) -> Diagrams`, which makes
  curves and histograms from the same totals as `compute`. It may name further
  fields that it needs in the attribute `extra_inputs`; `update` then gets them
  as keyword arguments:
    climatology: [B, T, H, W, C] training mean of the target's calendar cell,
      in physical units.
    threshold: [B, T_in + T, H, W, C] training quantile of the calendar cell of
      each frame, first of the history and then of the target; NaN where there
      is none.
    history: [B, T_in, H, W, C] observed frames before the target; NaN where
      they are missing.
  """

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    """Returns the totals of one batch; it runs under jit.

    Args:
      forecast: [M, B, T, H, W, C] ensemble of forecasts, in physical units.
      observation: [B, T, H, W, C] in the same units.
      weight: [B, T, H, W, C], 0 where a point must not count.

    Returns:
      Float32 arrays, to be added over the batches.
    """

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    """Returns the scores by name, from totals that were added in float64."""


def evaluate(
  metrics: Mapping[str, Metric],
  forecast: jax.Array,
  observation: jax.Array,
  weight: jax.Array,
  **known: jax.Array,
) -> dict[str, Totals]:
  """Returns the totals of every metric for one batch; it runs under jit.

  Args:
    metrics: the metrics by name, as `stjax.metrics.build` returns them.
    forecast: [M, B, T, H, W, C] ensemble of forecasts, in physical units.
    observation: [B, T, H, W, C] in the same units.
    weight: [B, T, H, W, C], 0 where a point must not count; see
      `point_weights`.
    **known: further fields of the batch, by the names that metrics have in
      `extra_inputs`; see `Metric`.

  Raises:
    MetricError: the shapes do not fit, or a metric needs a field that is not
      among `known`.
  """
  if forecast.ndim != 6 or observation.ndim != 5:
    raise MetricError(
      "A forecast must be [M, B, T, H, W, C] and an observation "
      f"[B, T, H, W, C]; got {forecast.shape} and {observation.shape}."
    )
  if forecast.shape[1:] != observation.shape:
    raise MetricError(
      f"The forecast {forecast.shape[1:]} (without its member axis) and the "
      f"observation {observation.shape} differ in shape."
    )
  if weight.shape != observation.shape:
    raise MetricError(
      f"The weight {weight.shape} and the observation {observation.shape} "
      "differ in shape."
    )
  totals = {}
  for name, metric in metrics.items():
    reads = getattr(metric, "extra_inputs", ())
    for field in reads:
      if field not in known:
        raise MetricError(
          f"The convention {name!r} reads {field!r}, which was not given; "
          f"got {sorted(known)}. Set config.data.calendar, or leave "
          f"{name!r} out of config.evaluation.conventions."
        )
    fields = {field: known[field] for field in reads}
    totals[name] = metric.update(forecast, observation, weight, **fields)
  return totals


def point_weights(
  observation: jax.Array,
  *,
  mask: jax.Array | None = None,
  valid: jax.Array | None = None,
) -> jax.Array:
  """Returns weights [B, T, H, W, C] in float32: 1 where a point counts.

  Args:
    observation: [B, T, H, W, C], of which only the shape is read.
    mask: [B, T, H, W, C], True where there is an observation; None means
      everywhere.
    valid: [B], False for rows that only fill the last batch; None means that
      there are none.
  """
  weight = jnp.ones(observation.shape, jnp.float32)
  if mask is not None:
    weight *= mask.astype(jnp.float32)
  if valid is not None:
    weight *= valid.astype(jnp.float32)[:, None, None, None, None]
  return weight


def grid_weights(weights: Sequence | np.ndarray, observation: jax.Array) -> jax.Array:
  """Returns the weights of a grid's cells, [H, 1, 1] or [H, W, 1].

  Args:
    weights: [H] or [H, W], of any scale.
    observation: [B, T, H, W, C], of which only the shape is read.

  Raises:
    MetricError: the weights have another shape, are negative or not finite, or
      are all 0.
  """
  area = np.asarray(weights, np.float32)
  height, width = observation.shape[2:4]
  if area.shape not in ((height,), (height, width)):
    raise MetricError(
      f"area_weights have shape {area.shape}; the grid needs ({height},) "
      f"or ({height}, {width}). Change config.evaluation.area_weights."
    )
  if not np.isfinite(area).all() or (area < 0).any() or not area.any():
    raise MetricError(
      "area_weights must be finite, not negative and not all 0. Change "
      "config.evaluation.area_weights."
    )
  return jnp.asarray(area.reshape(height, -1, 1))


class Accumulator:
  """Adds the totals of many batches on the host, in float64.

  The totals of one batch are float32, with a relative error of about 1e-7.
  Adding thousands of them in float32 would lose digits, which is why the host
  adds them. In a run of several processes the totals must be replicated; every
  process then holds the same sums.
  """

  def __init__(self, metrics: Mapping[str, Metric]):
    self._metrics = dict(metrics)
    self._totals: dict[str, Totals] | None = None

  def add(self, totals: Mapping[str, Totals]) -> None:
    """Adds the totals that `evaluate` returned for one batch."""
    new = jax.tree.map(
      lambda x: np.asarray(x, np.float64), jax.device_get(dict(totals))
    )
    old = self._totals
    self._totals = new if old is None else jax.tree.map(np.add, old, new)

  def compute(self) -> dict[str, dict[str, Score]]:
    """Returns the scores, by metric and by score name.

    Raises:
      MetricError: no batch was added.
    """
    totals = self._added()
    return {
      name: metric.compute(totals[name]) for name, metric in self._metrics.items()
    }

  def diagrams(self) -> dict[str, Diagrams]:
    """Returns the diagrams, by metric, of those metrics that have any.

    Raises:
      MetricError: no batch was added.
    """
    totals = self._added()
    return {
      name: metric.diagrams(totals[name])
      for name, metric in self._metrics.items()
      if hasattr(metric, "diagrams")
    }

  def _added(self) -> dict[str, Totals]:
    if self._totals is None:
      raise MetricError(
        "No batch was scored: the split is empty. Check config.data and "
        "config.evaluation.split."
      )
    return self._totals


def scalars(
  results: Mapping[str, Mapping[str, Score]], prefix: str = ""
) -> dict[str, float]:
  """Flattens results to {"<prefix><metric>/<score>": overall score}."""
  return {
    f"{prefix}{metric}/{name}": float(score.overall)
    for metric, scores in results.items()
    for name, score in scores.items()
  }


def root_ratio(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Returns sqrt(total / weight), such as the rmse from a sum of squares."""
  return np.sqrt(total / weight)


def pooled(finish: Callable[..., np.ndarray], *totals: np.ndarray) -> Score:
  """Pools totals over lead times and variables, then applies `finish`.

  Pooling comes first: the rmse over all lead times is the root of the pooled
  mean square and not the mean of the lead times' rmse.

  Args:
    finish: elementwise function of arrays of one shape, such as a ratio.
    *totals: arrays [T, C], or [T] for scores without a variable axis.
  """
  with np.errstate(divide="ignore", invalid="ignore"):
    if totals[0].ndim == 1:
      return Score(
        overall=np.asarray(finish(*(t.sum() for t in totals))), by_lead=finish(*totals)
      )
    return Score(
      overall=np.asarray(finish(*(t.sum() for t in totals))),
      by_lead=finish(*(t.sum(1) for t in totals)),
      by_variable=finish(*(t.sum(0) for t in totals)),
      by_lead_and_variable=finish(*totals),
    )


def pooled_bins(
  finish: Callable[..., np.ndarray], bins: Sequence[np.ndarray], *totals
) -> Score:
  """Pools totals that have bins on a last axis; see `pooled`.

  Args:
    finish: function of arrays [..., K], one for each of `bins`, and of arrays
      [...], one for each of `totals`, that returns [...].
    bins: arrays [T, C, K].
    *totals: arrays [T, C].
  """
  sizes = [x.shape[-1] for x in bins]

  def gather(*flat):
    parts, start = [], 0
    for size in sizes:
      parts.append(np.stack(flat[start : start + size], -1))
      start += size
    return finish(*parts, *flat[start:])

  return pooled(gather, *(x[..., k] for x in bins for k in range(x.shape[-1])), *totals)
