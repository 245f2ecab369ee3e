"""CoST's scores."""

import functools
import re

import jax
import numpy as np

from golden import registry
from golden.case import Case, NotBuilt, assert_close
from stjax import metrics

# The original's names and ours; a number at the end of a name is an option.
SCORES = {
  "MAE": "mae",
  "RMSE": "rmse",
  "MAE_single_sample_avg": "mae_single_sample",
  "RMSE_single_sample_avg": "rmse_single_sample",
  "CRPS": "crps",
  "CRPS_sum": "crps_sum",
  "QICE": "qice",
  "IS": "interval_score",
  "PICP": "picp",
  "SMAPE": "smape",
}
OPTIONS = {"QICE": "qice_bins", "IS": "interval_percent", "PICP": "coverage_percent"}


def score(
  samples: np.ndarray, target: np.ndarray, options: dict
) -> dict[str, metrics.Score]:
  """Computes the scores of the convention "cost" for the original's arrays.

  Args:
    samples: [N, n, horizon, nodes].
    target: [N, horizon, nodes].
    options: the options of the convention.
  """
  forecast = samples.swapaxes(0, 1)[..., None, None]
  observation = target[..., None, None]
  built = metrics.build(("cost",), **options)
  update = jax.jit(functools.partial(metrics.evaluate, built))
  total = metrics.Accumulator(built)
  total.add(update(forecast, observation, np.ones_like(observation)))
  return total.compute()["cost"]


@registry.runner("cost", "metrics")
def scores(case: Case) -> None:
  """Compares all scores of a case."""
  inputs = case.group("input")
  compute = functools.cache(
    lambda *options: score(inputs["samples"], inputs["target"], dict(options))
  )
  for original, expected in case.group("output").items():
    # metrics_ties holds NaN for SMAPE, but its arrays have a value by the
    # formula: no point has both an observation and a sample mean of 0.
    if np.isnan(expected):
      continue
    name, number = re.fullmatch(r"(.*?)(\d*)", original).groups()
    if name not in SCORES:
      raise NotBuilt(f"score {original}")
    options = ((OPTIONS[name], int(number)),) if number else ()
    found = compute(*options)[SCORES[name]].overall
    assert_close(original, np.float32(found), expected)
