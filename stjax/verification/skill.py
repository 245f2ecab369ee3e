"""Whether a forecast is better than its baselines, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.labels import lead_labels
from stjax.metrics.base import Score
from stjax.verification import tables

_SCORE = "rmse"
# How many variables are named in the log.
_NAMED = 8


def compare(
  results: tables.Results, *, variables: Sequence[str], lead_times: Sequence
) -> dict[str, Any] | None:
  """Compares the forecast's RMSE with that of the best baseline.

  Args:
    results: the scores by source, of which "forecast" is one.
    variables: [C] names.
    lead_times: [T] timedelta64 or steps.

  Returns:
    For metrics.json: "score"; "ratio", {variable: [T]}, the forecast's RMSE over
    that of the best baseline (NaN where one of them is); and "not_better", a list of
    {"variable", "lead_times", "baseline"}: where the ratio is 1 or more, and which
    baseline is best there most often. None without a baseline or an RMSE by
    variable and lead time.
  """
  for convention, scores in results[tables.FORECAST].items():
    ours = _values(scores)
    theirs = {
      name: _values(by_name[convention])
      for name, by_name in results.items()
      if name != tables.FORECAST and convention in by_name
    }
    theirs = {k: v for k, v in theirs.items() if v is not None}
    if ours is None or not theirs:
      continue
    names = list(theirs)
    # Where a baseline has no value it is not the best one.
    all_of_them = np.stack([np.nan_to_num(v, nan=np.inf) for v in theirs.values()])
    best = all_of_them.min(axis=0)
    first = all_of_them.argmin(axis=0)
    best = np.where(np.isfinite(best), best, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
      ratio = np.where((ours == 0) & (best == 0), 1.0, ours / best)
    labels = np.asarray(lead_labels(lead_times))
    worse = []
    for channel, variable in enumerate(variables):
      leads = np.flatnonzero(ratio[:, channel] >= 1)
      if len(leads):
        found = names[np.bincount(first[leads, channel]).argmax()]
        worse.append(
          {
            "variable": variable,
            "lead_times": labels[leads].tolist(),
            "baseline": found,
          }
        )
    return {
      "score": f"{convention}/{_SCORE}",
      "ratio": dict(zip(variables, ratio.T, strict=True)),
      "not_better": worse,
    }
  return None


def _values(scores: Mapping[str, Score]) -> np.ndarray | None:
  """RMSE by lead time and variable [T, C]."""
  score = scores.get(_SCORE)
  return None if score is None else score.by_lead_and_variable


def sentence(compared: Mapping[str, Any], baselines: Sequence[str]) -> str:
  """Says the outcome of `compare`.

  Args:
    compared: what `compare` returned.
    baselines: their names.
  """
  ratio = np.stack(list(compared["ratio"].values()))
  score = compared["score"].replace("/", " ").replace("rmse", "RMSE")
  others = " and ".join(baselines)
  worse = compared["not_better"]
  known = np.isfinite(ratio)
  if not known.any():
    return f"{score} cannot be compared with {others}: nothing was observed."
  if not worse:
    return (
      f"The forecast beats {others} by {score} for every variable at every lead time"
      f" (RMSE is {ratio[known].min():.2f} to {ratio[known].max():.2f} times that of"
      " the best of them)."
    )
  places = "; ".join(
    f"{one['variable']} at {', '.join(one['lead_times'])} ({one['baseline']})"
    for one in worse[:_NAMED]
  )
  more = f"; and {len(worse) - _NAMED} more variables" if len(worse) > _NAMED else ""
  return (
    f"The forecast does NOT beat the best of {others} by {score} everywhere: not for"
    f" {places}{more}. evaluation/metrics.json has every ratio under 'skill'."
  )
