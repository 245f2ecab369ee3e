"""Metrics: named conventions of scores, computed from totals that add up.

metrics = stjax.metrics.build(("openstl", "physical"), data_range=1.0)
update = jax.jit(functools.partial(stjax.metrics.evaluate, metrics))
scores = stjax.metrics.Accumulator(metrics)
for forecast, observation, weight in batches:  # Physical units.
  scores.add(update(forecast, observation, weight))
scores.compute()["openstl"]["mse"].overall
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from stjax import errors
from stjax.errors import MetricError
from stjax.metrics.base import (
  Accumulator,
  Diagrams,
  Metric,
  Score,
  evaluate,
  point_weights,
  scalars,
)
from stjax.metrics.categorical import Categorical
from stjax.metrics.conventions import OpenSTL, Physical
from stjax.metrics.heatwave import Heatwave
from stjax.metrics.probabilistic import Cost, Ensemble
from stjax.metrics.spectral import Spectral
from stjax.metrics.syncast import Syncast
from stjax.metrics.tke import Tke
from stjax.metrics.weather import Weather

METRICS: dict[str, type] = {
  "physical": Physical,
  "openstl": OpenSTL,
  "categorical": Categorical,
  "ensemble": Ensemble,
  "cost": Cost,
  "weather": Weather,
  "spectral": Spectral,
  "heatwave": Heatwave,
  "syncast": Syncast,
  "tke": Tke,
}

__all__ = (
  "METRICS",
  "Accumulator",
  "Categorical",
  "Cost",
  "Diagrams",
  "Ensemble",
  "Heatwave",
  "Metric",
  "MetricError",
  "OpenSTL",
  "Physical",
  "Score",
  "Spectral",
  "Syncast",
  "Tke",
  "Weather",
  "build",
  "evaluate",
  "point_weights",
  "scalars",
)


def build(conventions: Sequence[str], **options: Any) -> dict[str, Metric]:
  """Builds metrics by name.

  Args:
    conventions: names out of `METRICS`.
    **options: plain values. Each goes to those conventions that have such an
      option: data_range and area_weights (physical), spatial_norm and
      channel_names (openstl), thresholds, scales and area_weights
      (categorical), thresholds and area_weights (ensemble),
      qice_bins, interval_percent and coverage_percent (cost), cell_weights
      (weather), variables (spectral, tke), velocities (tke), quantile,
      min_duration and area_weights (heatwave), dataset, thresholds,
      full_scale and epsilon (syncast).

  Returns:
    The metrics by name, in the order of `conventions`.

  Raises:
    ConfigError: a name or an option is unknown; the message lists near ones.
  """
  where = "evaluation.conventions"
  if isinstance(conventions, str):
    conventions = (conventions,)
  fields = {
    name: [f.name for f in dataclasses.fields(kind)] for name, kind in METRICS.items()
  }
  errors.check_options(
    "metrics", options, {f for names in fields.values() for f in names}
  )
  metrics = {}
  for name in conventions:
    kind = errors.pick(where, name, METRICS)
    metrics[name] = kind(
      **{key: options[key] for key in fields[name] if key in options}
    )
  return metrics
