"""The convention "weather", beside WeatherBench 2's formulas written out."""

import math

import numpy as np
import pytest
import xarray as xr
from scoring import scores

from stjax import metrics
from stjax.metrics import fields

LATITUDES = np.array([-60.0, -20.0, 20.0, 60.0])
DIMS = ("time", "lead", "latitude", "longitude", "variable")


def _sample(shape=(5, 3, 4, 6, 2), members=1, seed=0):
  """Forecast, observation and climatology: anomalies that have to do."""
  rng = np.random.default_rng(seed)
  climatology = rng.normal(280, 9, shape).astype(np.float32)
  observation = climatology + rng.normal(0, 2, shape).astype(np.float32)
  noise = rng.normal(0.3, 1, (members, *shape)).astype(np.float32)
  forecast = climatology + 0.7 * (observation - climatology) + noise
  return forecast, observation, climatology


def _scores(sample, weight=None, area="cells"):
  forecast, observation, climatology = sample
  weights = tuple(fields.cell_weights(LATITUDES)) if area == "cells" else None
  known = {"climatology": climatology}
  return scores(
    "weather", forecast, observation, weight, known=known, cell_weights=weights
  )


def test_the_scores_of_one_field_by_hand():
  # Anomalies of the forecast 2, 0, 0, 2; of the observation 1, 1, -1, 3.
  forecast = 10 + np.reshape([2.0, 0, 0, 2], (1, 1, 1, 2, 2, 1))
  observation = 10 + np.reshape([1.0, 1, -1, 3], (1, 1, 2, 2, 1))
  expected = {
    "rmse": 1,
    "mae": 1,
    "bias": 0,
    "acc": (2 + 6) / math.sqrt(8 * 12),
    "activity": 1,
    "activity_observation": math.sqrt((0 + 0 + 4 + 4) / 4),
    "mse_skill": 1 - 4 / 12,
  }
  found = _scores((forecast, observation, np.full_like(observation, 10)), area="none")
  assert list(found) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name].overall, value, atol=1e-6, err_msg=name)


def _weatherbench(forecast, observation, climatology):
  """rmse, mae, bias and acc as WeatherBench 2 defines them, by lead time.

  Latitude weights from the bounds of the cells, which end at the poles, over
  their mean; spatial means; then the time mean; the root last.
  """
  bounds = np.deg2rad(np.array([-90.0, -40, 0, 40, 90]))
  area = np.sin(bounds[1:]) - np.sin(bounds[:-1])
  weights = xr.DataArray(area / area.mean(), dims="latitude")

  def mean(x):
    return x.weighted(weights).mean(("latitude", "longitude"))

  f, o, c = (
    xr.DataArray(x.astype(np.float64), dims=DIMS)
    for x in (forecast, observation, climatology)
  )
  acc = mean((f - c) * (o - c)) / np.sqrt(mean((f - c) ** 2) * mean((o - c) ** 2))
  return {
    "rmse": np.sqrt(mean((f - o) ** 2).mean("time")),
    "mae": mean(abs(f - o)).mean("time"),
    "bias": mean(f - o).mean("time"),
    "acc": acc.mean("time"),
  }


def test_they_are_weatherbench_2s():
  forecast, observation, climatology = _sample()
  found = _scores((forecast, observation, climatology))
  expected = _weatherbench(forecast[0], observation, climatology)
  for name, values in expected.items():
    np.testing.assert_allclose(
      found[name].by_lead_and_variable, values, rtol=2e-5, err_msg=name
    )


def test_activity_and_skill_are_those_of_plain_numpy():
  sample = _sample(members=3)
  found = _scores(sample, area="none")
  forecast, observation, climatology = (x.astype(np.float64) for x in sample)
  f, o = forecast.mean(0) - climatology, observation - climatology
  for name, anomaly in (("activity", f), ("activity_observation", o)):
    deviation = np.sqrt(anomaly.var((2, 3)).mean(0))
    np.testing.assert_allclose(found[name].by_lead_and_variable, deviation, rtol=1e-5)
  skill = 1 - ((f - o) ** 2).mean((0, 2, 3)) / (o**2).mean((0, 2, 3))
  np.testing.assert_allclose(found["mse_skill"].by_lead_and_variable, skill, rtol=1e-5)


def test_lead_times_and_variables_are_pooled_as_further_samples():
  forecast, observation, climatology = _sample()
  found = _scores((forecast, observation, climatology), area="none")
  error = (forecast[0] - observation).astype(np.float64)
  for field, axes in (
    ("overall", None),
    ("by_lead", (0, 2, 3, 4)),
    ("by_variable", (0, 1, 2, 3)),
  ):
    rmse = np.sqrt((error**2).mean(axes))
    np.testing.assert_allclose(getattr(found["rmse"], field), rmse, rtol=1e-5)
    np.testing.assert_allclose(
      getattr(found["bias"], field), error.mean(axes), rtol=1e-4
    )


def test_land_weighs_nothing_and_each_field_as_much_as_any_other():
  forecast, observation, climatology = _sample()
  weight = np.ones_like(observation)
  weight[:, :, :, 4:] = 0  # Land,
  weight[0, :, 1:] = 0  # and a field with less observed than the others.
  land = np.where(weight, observation, np.nan)
  found = _scores((forecast, land, climatology), weight, area="none")
  error = np.where(weight, forecast[0] - observation, np.nan)
  mse = np.nanmean(error.astype(np.float64) ** 2, (2, 3)).mean(0)
  np.testing.assert_allclose(
    found["rmse"].by_lead_and_variable, np.sqrt(mse), rtol=1e-5
  )
  pooled = np.sqrt(np.nanmean(error**2, (0, 2, 3)))
  assert np.abs(pooled / np.sqrt(mse) - 1).max() > 1e-3


def test_the_climatology_has_no_skill_and_no_anomaly_to_correlate():
  forecast, observation, climatology = _sample()
  found = _scores((climatology[None], observation, climatology))
  assert found["mse_skill"].overall == 0 and found["activity"].overall == 0
  assert np.isnan(found["acc"].overall)
  perfect = _scores((observation[None], observation, climatology))
  np.testing.assert_allclose(perfect["acc"].by_lead, 1, rtol=1e-5)
  np.testing.assert_allclose(perfect["mse_skill"].by_lead, 1)


def test_the_climatology_must_be_given():
  forecast, observation, _ = _sample()
  built = metrics.build(("weather",))
  with pytest.raises(metrics.MetricError, match="config.data.calendar"):
    metrics.evaluate(built, forecast, observation, np.ones_like(observation))


def test_scores_agrees_on_the_errors():
  other = pytest.importorskip("scores.continuous")
  forecast, observation, climatology = _sample()
  found = _scores((forecast, observation, climatology))
  f, o = (
    xr.DataArray(x.astype(np.float64), dims=DIMS) for x in (forecast[0], observation)
  )
  weights = xr.DataArray(
    fields.cell_weights(LATITUDES).astype(np.float64), dims="latitude"
  )
  keep = {"preserve_dims": ["lead", "variable"], "weights": weights}
  for name, function in (
    ("rmse", other.rmse),
    ("mae", other.mae),
    ("bias", other.additive_bias),
  ):
    np.testing.assert_allclose(
      found[name].by_lead_and_variable, function(f, o, **keep), rtol=1e-4
    )
