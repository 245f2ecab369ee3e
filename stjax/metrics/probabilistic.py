"""Conventions for ensembles: "ensemble" of meteorology, and "cost" of CoST.

Either of them can score a single forecast, too (M = 1), whose CRPS is its mae.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stjax.errors import MetricError
from stjax.metrics import deterministic, ensemble, events
from stjax.metrics.base import (
  Diagrams,
  Score,
  Totals,
  grid_weights,
  pooled,
  pooled_bins,
  root_ratio,
)

# Central intervals of the convention "ensemble", in percent: the one that has
# an interval score, and those whose coverage is given.
_SCORED = 90
_COVERED = (90, 95)


def _by_variable(counts: np.ndarray) -> np.ndarray | None:
  """Counts [C, K] from [T, C, K]; None if there is one variable only."""
  return counts.sum(0) if counts.shape[1] > 1 else None


def _shares(counts: np.ndarray) -> np.ndarray:
  with np.errstate(divide="ignore", invalid="ignore"):
    return counts / counts.sum(-1, keepdims=True)


def _histogram(label: str, first: int, counts: np.ndarray) -> dict:
  """Makes a diagram of a histogram from counts [T, C, K].

  Args:
    label: name of the column that numbers the bins.
    first: number of the first bin.
    counts: [T, C, K].
  """
  total = counts.sum((0, 1))
  diagram = {
    label: np.arange(first, first + len(total)),
    "count": total,
    "frequency": _shares(total),
    "frequency_by_lead": _shares(counts.sum(1)),
  }
  by_variable = _by_variable(counts)
  if by_variable is not None:
    diagram["frequency_by_variable"] = _shares(by_variable)
  return diagram


@dataclasses.dataclass(frozen=True, eq=False)
class Ensemble:
  """Proper scores and calibration of an ensemble: convention "ensemble".

  Means go over samples and space (and over lead times and variables if these
  are pooled), weighted by mask and area, in physical units. Scores:
    crps: E|X - y| - E|X - X'| / 2 over the members (Gneiting and Raftery 2007,
      equation 21); with one member it is the mae.
    crps_fair: the same, with only the M (M - 1) pairs of different members. It
      does not depend on M if the members come from one distribution (Ferro
      2014); with one member it is NaN.
    spread: root of the mean unbiased variance of the members; 0 for one member.
    spread_skill: sqrt((M + 1) / M) spread / rmse, which is 1 if members and
      observation come from one distribution (Fortin et al. 2014,
      doi:10.1175/JHM-D-14-0008.1).
    rmse, mae: errors of the mean of the members.
    mae_median: error of their median.
    interval_score_90: score of the interval between the 5 % and 95 % quantiles
      (`ensemble.interval_score`).
    interval_width_90: mean width of that interval.
    picp_90, picp_95: share of observations inside the central interval.
    energy, energy_fair: energy score of whole frames, over their points and
      variables, then the mean over samples (and lead times). It grows with the
      root of the number of points, and has no value by variable.
    brier_gt_<t>, roc_area_gt_<t>: scores of the event "above t" (module
      `events`) for each of `thresholds`.
  Diagrams: rank_histogram; reliability_gt_<t> and roc_gt_<t>.

  Quantiles are linear between members. Pooling over variables of different
  units mixes the units; read such data by variable.

  Attributes:
    thresholds: thresholds of events in physical units, the same for every
      variable.
    area_weights: weights [H] or [H, W] of any scale, or None.
  """

  thresholds: Sequence[float] = ()
  area_weights: Sequence | np.ndarray | None = None

  def __post_init__(self):
    events.check_thresholds(self.thresholds)

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    fields = ensemble.prepare(forecast, observation, weight)
    members, ordered, observation, weight = fields
    if self.area_weights is not None:
      area = grid_weights(self.area_weights, observation)
      grid = jnp.broadcast_to(area, observation.shape[2:])
      # The energy score sums the weights; with the mean 1 it keeps its size.
      weight = weight * (area / grid.mean())

    def total(values):
      return deterministic.sum_points(weight * values)

    totals = deterministic.error_totals(members.mean(0), observation, weight)
    del totals["signed"]
    median = ensemble.quantile(ordered, 0.5)
    absolute, pairs = ensemble.crps_terms(ordered, observation)
    totals |= {
      "absolute_median": total(jnp.abs(median - observation)),
      "members_absolute": total(absolute),
      "pairs": total(pairs),
      "variance": total(ensemble.variance(members)),
    }
    for percent in _COVERED:
      ends = ensemble.central_interval(ordered, percent)
      totals[f"inside_{percent}"] = total(ensemble.inside(*ends, observation))
      if percent == _SCORED:
        loss = ensemble.interval_score(*ends, observation, percent)
        totals |= {
          "interval_score": total(loss),
          "interval_width": total(ends[1] - ends[0]),
        }
    low, high = ensemble.ranks(members, observation)
    totals["ranks"] = ensemble.histogram(low, high, weight, len(members) + 1)
    absolute, pairs = ensemble.energy_terms(members, observation, weight)
    totals |= {
      "energy_absolute": absolute.sum(0),
      "energy_pairs": pairs.sum(0),
      "frames": (weight != 0).any((2, 3, 4)).sum(0).astype(jnp.float32),
    }
    for threshold in self.thresholds:
      totals |= events.totals(fields, weight, threshold)
    return totals

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    count = totals["ranks"].shape[-1] - 1  # Members.
    weight = totals["weight"]

    def without_pairs(number):
      """Returns the function that takes the mean over pairs off a mean error."""

      def finish(absolute, pairs, weight):
        # One member has no pairs, so its fair version is 0 / 0, which is NaN.
        return (absolute - np.divide(pairs, number)) / weight

      return finish

    def ratio(variance, square):
      return np.sqrt((count + 1) / count * variance / square)

    def distances(name, absolute, pairs, number):
      return {
        f"{name}{suffix}": pooled(
          without_pairs(of), totals[absolute], totals[pairs], number
        )
        for suffix, of in (("", count**2), ("_fair", count * (count - 1)))
      }

    scores = distances("crps", "members_absolute", "pairs", weight)
    scores["spread"] = pooled(root_ratio, totals["variance"], weight)
    scores["spread_skill"] = pooled(ratio, totals["variance"], totals["squared"])
    scores["rmse"] = pooled(root_ratio, totals["squared"], weight)
    for name, total in (
      ("mae", "absolute"),
      ("mae_median", "absolute_median"),
      (f"interval_score_{_SCORED}", "interval_score"),
      (f"interval_width_{_SCORED}", "interval_width"),
      *((f"picp_{p}", f"inside_{p}") for p in _COVERED),
    ):
      scores[name] = pooled(np.divide, totals[total], weight)
    scores |= distances("energy", "energy_absolute", "energy_pairs", totals["frames"])
    for threshold in self.thresholds:
      name = events.name(threshold)
      counts = totals[f"points_{name}"], totals[f"events_{name}"]
      scores[f"brier_{name}"] = pooled_bins(events.brier, counts)
      scores[f"roc_area_{name}"] = pooled_bins(events.roc_area, counts)
    return scores

  def diagrams(self, totals: Mapping[str, np.ndarray]) -> Diagrams:
    """Returns the curves and histograms."""
    diagrams = {"rank_histogram": _histogram("rank", 0, totals["ranks"])}
    for threshold in self.thresholds:
      name = events.name(threshold)
      counts = totals[f"points_{name}"], totals[f"events_{name}"]
      whole = [x.sum((0, 1)) for x in counts]
      split = [_by_variable(x) for x in counts]
      for kind, function, shared in (
        ("reliability", events.reliability, ()),
        ("roc", events.roc, ("probability",)),
      ):
        diagram = function(*whole)
        if split[0] is not None:
          diagram |= {
            f"{key}_by_variable": value
            for key, value in function(*split).items()
            if key not in shared
          }
        diagrams[f"{kind}_{name}"] = diagram
    return diagrams


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
  """The numbers that CoST prints: convention "cost".

  They are meant for comparison with its tables (arXiv:2502.11013). The
  definitions are those of its program, and every point weighs the same.
  Missing points drop out of every sum. Scores:
    mae, rmse: errors of the mean of the members.
    mae_single_sample, rmse_single_sample: error of every member by itself, then
      the mean over members.
    crps: mean over the 19 quantiles 0.05, ..., 0.95 of twice the quantile
      loss, summed over all points and divided by the sum of |observation|. It
      has no units, and is not the CRPS of the convention "ensemble".
    crps_sum: the same after members and observation are summed over the
      points of each frame, variable by variable.
    qice: mean over `qice_bins` bins between quantiles of |share of the
      observations in the bin - 1 / bins|. An observation on an edge belongs to
      the bin below, and one outside all members to the nearest bin.
    interval_score: score of the central interval of `interval_percent`.
    picp: share of observations inside the central interval of
      `coverage_percent`, its ends included.
    smape: mean of 2 |m - y| / (|m| + |y|) with m the mean of the members; NaN
      if both are 0 anywhere.
  Diagram: quantile_bins, the shares that qice compares. Quantiles are linear
  between members.

  Attributes:
    qice_bins: number of bins of qice.
    interval_percent: share that the interval of interval_score holds.
    coverage_percent: share that the interval of picp holds.
  """

  qice_bins: int = 10
  interval_percent: float = 90
  coverage_percent: float = 95

  def __post_init__(self):
    if self.qice_bins < 1:
      raise MetricError(f"The option qice_bins={self.qice_bins} must be at least 1.")
    for name in ("interval_percent", "coverage_percent"):
      if not 0 < getattr(self, name) < 100:
        raise MetricError(
          f"The option {name}={getattr(self, name)} must lie between 0 and 100."
        )

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    members, ordered, observation, weight = ensemble.prepare(
      forecast, observation, weight
    )

    def total(values):
      return deterministic.sum_points(
        weight * deterministic.where_counted(weight, values)
      )

    mean = members.mean(0)
    errors = members - observation
    magnitude = jnp.abs(mean) + jnp.abs(observation)
    totals = deterministic.error_totals(mean, observation, weight)
    del totals["signed"]
    squares = (weight * errors**2).sum((1, 3, 4))
    totals |= {
      "members_absolute": total(jnp.abs(errors).mean(0)),
      "members_squared": jnp.moveaxis(squares, 0, -1),
      "relative": total(2 * jnp.abs(mean - observation) / magnitude),
      "quantile_loss": total(_quantile_loss(ordered, observation)),
      "magnitude": total(jnp.abs(observation)),
    }
    totals["interval_score"] = total(
      ensemble.interval_score(
        *ensemble.central_interval(ordered, self.interval_percent),
        observation,
        self.interval_percent,
      )
    )
    totals["inside"] = total(
      ensemble.inside(
        *ensemble.central_interval(ordered, self.coverage_percent), observation
      )
    )
    # The number of quantiles below an observation is its bin, counted from 1.
    edges = sum(
      (observation > ensemble.quantile(ordered, i / self.qice_bins)).astype(jnp.int32)
      for i in range(self.qice_bins + 1)
    )
    position = jnp.clip(edges, 1, self.qice_bins) - 1
    totals["bins"] = ensemble.histogram(position, position, weight, self.qice_bins)
    # crps_sum sums over space first, which leaves fields of one point.
    axes = (-3, -2)
    members = (weight * members).sum(axes, keepdims=True)
    observation = (weight * observation).sum(axes, keepdims=True)
    loss = _quantile_loss(jnp.sort(members, axis=0), observation)
    totals |= {
      "sum_quantile_loss": deterministic.sum_points(loss),
      "sum_magnitude": deterministic.sum_points(jnp.abs(observation)),
    }
    return totals

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    weight = totals["weight"]

    def mean(name, divisor=weight):
      return pooled(np.divide, totals[name], divisor)

    def mean_root(squares, weight):
      return np.sqrt(squares / weight[..., None]).mean(-1)

    def uneven(counts):
      return np.abs(_shares(counts) - 1 / self.qice_bins).mean(-1)

    return {
      "mae": mean("absolute"),
      "rmse": pooled(root_ratio, totals["squared"], weight),
      "mae_single_sample": mean("members_absolute"),
      "rmse_single_sample": pooled_bins(mean_root, [totals["members_squared"]], weight),
      "crps": mean("quantile_loss", totals["magnitude"]),
      "crps_sum": mean("sum_quantile_loss", totals["sum_magnitude"]),
      "qice": pooled_bins(uneven, [totals["bins"]]),
      "interval_score": mean("interval_score"),
      "picp": mean("inside"),
      "smape": mean("relative"),
    }

  def diagrams(self, totals: Mapping[str, np.ndarray]) -> Diagrams:
    """Returns the shares by quantile bin."""
    return {"quantile_bins": _histogram("bin", 1, totals["bins"])}


def _quantile_loss(ordered: jax.Array, observation: jax.Array) -> jax.Array:
  """Returns the mean [...] of twice the quantile losses of 0.05, ..., 0.95."""
  levels = [i / 20 for i in range(1, 20)]
  total = jnp.zeros_like(observation)
  for level in levels:
    forecast = ensemble.quantile(ordered, level)
    total += jnp.abs((forecast - observation) * ((observation <= forecast) - level))
  return 2 * total / len(levels)
