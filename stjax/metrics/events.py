"""Scores of events, which are observations above a threshold.

The forecast probability of an event is the share of the members that have it,
which is one of 0, 1/M, ..., 1. Counting the points, and the events among them,
by that share is enough for the Brier score, the reliability diagram and the
ROC curve, and counts can be added over batches.
"""

from collections.abc import Sequence

import jax
import numpy as np

from stjax.errors import MetricError
from stjax.metrics import ensemble
from stjax.metrics.base import Totals

_GROUPS = 10  # Of a reliability diagram with many members: [0, 0.1), ..., [0.9, 1].


def name(threshold: float) -> str:
  """Returns "gt_30" for the event "greater than 30"."""
  return f"gt_{threshold:g}"


def check_thresholds(thresholds: Sequence[float]) -> None:
  """Refuses thresholds that scores could not be named after.

  Raises:
    MetricError: one is not finite, or two have the same name.
  """
  names = [name(t) for t in thresholds]
  if len(set(names)) < len(names) or not np.isfinite(thresholds).all():
    raise MetricError(
      f"thresholds={tuple(thresholds)} must be finite numbers that differ in six"
      " digits. Change config.evaluation.thresholds."
    )


def totals(fields: ensemble.Ensemble, weight: jax.Array, threshold: float) -> Totals:
  """Counts points and events by the number of members above a threshold.

  Args:
    fields: the ensemble and its observation.
    weight: [B, T, H, W, C].
    threshold: value in the units of the observation; values equal to it are
      not above it.

  Returns:
    "points_gt_<threshold>" and "events_gt_<threshold>", each [T, C, M + 1].
  """
  above = ensemble.exceedances(fields.members, threshold)
  event = fields.observation > threshold
  bins = len(fields.members) + 1
  return {
    f"points_{name(threshold)}": ensemble.histogram(above, above, weight, bins),
    f"events_{name(threshold)}": ensemble.histogram(above, above, weight * event, bins),
  }


def brier(points: np.ndarray, events: np.ndarray) -> np.ndarray:
  """Returns the Brier score [...] as the mean of (p - o)^2; 0 is best.

  Args:
    points: [..., M + 1], number of points by number of members above.
    events: [..., M + 1], number of events among them.

  Source: Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
  """
  share = np.linspace(0, 1, points.shape[-1])
  loss = events * (1 - share) ** 2 + (points - events) * share**2
  return loss.sum(-1) / points.sum(-1)


def reliability(points: np.ndarray, events: np.ndarray) -> dict:
  """Returns the observed frequency against the forecast probability.

  With 10 members or fewer, every probability is a group of its own. Those of
  more members are gathered in 10 groups of equal width: [0, 0.1), ...,
  [0.8, 0.9), [0.9, 1].

  Args:
    points: [..., M + 1], number of points by number of members above.
    events: [..., M + 1], number of events among them.

  Returns:
    "forecast_probability" (mean of the group), "observed_frequency" (NaN in a
    group without points) and "count", each [..., groups].
  """
  number = points.shape[-1]
  share = np.linspace(0, 1, number)
  group = np.arange(number)
  if number > _GROUPS + 1:
    # Whole numbers keep the edges exact: 15 of 50 members belong to [0.3, 0.4).
    group = np.minimum(group * _GROUPS // (number - 1), _GROUPS - 1)
  member = np.eye(group[-1] + 1)[group]  # [M + 1, groups].
  count = points @ member
  with np.errstate(divide="ignore", invalid="ignore"):
    mean = (points * share) @ member / count
    frequency = events @ member / count
  return {
    "forecast_probability": np.where(count > 0, mean, share @ member / member.sum(0)),
    "observed_frequency": frequency,
    "count": count,
  }


def roc(points: np.ndarray, events: np.ndarray) -> dict:
  """Returns the relative operating characteristic: hits against false alarms.

  A warning is given where the forecast probability reaches a level; the curve
  goes over all levels from "never" to "always".

  Args:
    points: [..., M + 1], number of points by number of members above.
    events: [..., M + 1], number of events among them.

  Returns:
    "probability" [M + 2] are the levels, of which the first is above 1 and so
    never reached; "false_alarm_rate" and "hit_rate" are [..., M + 2]; "area"
    [...] is that below the curve by the trapezoidal rule, where 1 is perfect
    and 0.5 is no skill.

  Source: Mason (1982).
  """
  number = points.shape[-1]
  with np.errstate(divide="ignore", invalid="ignore"):
    hits, alarms = (_share_from_the_top(x) for x in (events, points - events))
  steps = np.diff(alarms) * (hits[..., 1:] + hits[..., :-1]) / 2
  return {
    "probability": np.arange(number, -1, -1) / max(number - 1, 1),
    "false_alarm_rate": alarms,
    "hit_rate": hits,
    "area": steps.sum(-1),
  }


def roc_area(points: np.ndarray, events: np.ndarray) -> np.ndarray:
  """Returns the area [...] below the ROC curve.

  It is NaN if there are no events, or if there is nothing else.
  """
  return roc(points, events)["area"]


def _share_from_the_top(counts: np.ndarray) -> np.ndarray:
  """Shares [..., K + 1] of counts [..., K] that the last 0, 1, ..., K hold."""
  sums = np.cumsum(counts[..., ::-1], -1)
  sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], -1)
  return sums / sums[..., -1:]
