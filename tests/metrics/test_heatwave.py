"""The convention "heatwave": spells above a threshold."""

import jax
import numpy as np
import pytest
import xarray as xr
from scoring import scores

from stjax import metrics
from stjax.metrics import heatwave


def _series(*values):
  """Values at times [T] of samples as fields [B, T, 1, 1, 1]."""
  return np.asarray(values, np.float32)[:, :, None, None, None]


def _scores(forecast, observation, threshold, history, weight=None, **options):
  known = {"threshold": threshold, "history": history}
  return scores("heatwave", forecast, observation, weight, known=known, **options)


@pytest.mark.parametrize(
  ("least", "expected"),
  [
    (1, [1, 0, 1, 1, 0, 1, 1, 1, 0, 1]),
    (2, [0, 0, 1, 1, 0, 1, 1, 1, 0, 0]),
    (3, [0, 0, 0, 0, 0, 1, 1, 1, 0, 0]),
    (4, [0] * 10),
  ],
)
def test_spells_are_long_enough_runs(least, expected):
  above = _series([1, 0, 1, 1, 0, 1, 1, 1, 0, 1]) > 0
  found = heatwave.spells(jax.numpy.asarray(above), least)
  np.testing.assert_array_equal(found[0, :, 0, 0, 0], expected)


def test_the_scores_of_counted_points_by_hand():
  # Above 0: forecast and observed at one time each: 4 hits, 2 false alarms,
  # 1 miss, 8 rejections.
  observed = [1] * 4 + [0] * 2 + [1] + [0] * 8
  warned = [1] * 4 + [1] * 2 + [0] + [0] * 8
  observation, forecast = (
    2 * np.asarray(x, np.float32).reshape(1, 1, 3, 5, 1) - 1 for x in (observed, warned)
  )
  found = _scores(
    forecast[None],
    observation,
    np.zeros((1, 2, 3, 5, 1), np.float32),
    np.ones((1, 1, 3, 5, 1), np.float32),
  )
  f, h = np.log([2 / 10, 4 / 5])
  g, i = np.log([8 / 10, 1 / 5])
  expected = {
    "pod": 4 / 5,
    "far": 2 / 6,
    "csi": 4 / 7,
    "frequency_bias": 6 / 5,
    "sedi": (f - h - g + i) / (f + h + g + i),
    "base_rate": 5 / 15,
  }
  assert list(found) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name].overall, value, rtol=1e-6)


def test_a_spell_may_begin_in_the_history_and_every_cell_has_its_threshold():
  # Thresholds 5 then 1: the last two frames of the history are above theirs.
  threshold = _series([5, 5, 5, 1, 1, 1])
  history = _series([4, 6, 7])
  observation = _series([2, 0, 2])  # A spell of three ends at once.
  forecast = _series([2, 2, 0])[None]
  found = _scores(forecast, observation, threshold, history, min_duration=3)
  np.testing.assert_array_equal(found["base_rate"].by_lead, [1, 0, 0])
  np.testing.assert_array_equal(found["pod"].by_lead, [1, np.nan, np.nan])
  np.testing.assert_array_equal(found["far"].by_lead, [0, 1, np.nan])
  # Below its own threshold, or missing, a frame ends a spell.
  for frame, value in ((1, 4), (2, np.nan)):
    shorter = history.copy()
    shorter[0, frame] = value
    found = _scores(forecast, observation, threshold, shorter, min_duration=3)
    np.testing.assert_array_equal(found["base_rate"].by_lead, [0, 0, 0])


def test_members_are_forecasts_of_their_own():
  observation = _series([1, -1])
  forecast = np.stack([_series([1, -1]), _series([1, 1]), _series([-1, -1])])
  found = _scores(forecast, observation, _series([0, 0, 0]), _series([0]))
  np.testing.assert_allclose(found["pod"].by_lead[0], 2 / 3, rtol=1e-6)
  np.testing.assert_allclose(found["frequency_bias"].overall, 1, rtol=1e-6)


def test_points_without_weight_or_threshold_do_not_count_and_area_does():
  rng = np.random.default_rng(0)
  observation, forecast = rng.normal(size=(2, 4, 3, 3, 5, 2)).astype("f4")
  threshold = np.zeros((4, 5, 3, 5, 2), np.float32)
  threshold[:, :, 0, 0] = np.nan
  weight = np.ones_like(observation)
  weight[3] = 0
  observation[3] = np.nan
  history = np.zeros((4, 2, 3, 5, 2), np.float32)
  area = np.array([1.0, 2.0, 0.5])
  found = _scores(
    forecast[None], observation, threshold, history, weight, area_weights=tuple(area)
  )
  w = weight * area[:, None, None]
  w[:, :, 0, 0] = 0
  hits = (w * (forecast > 0) * (observation > 0)).sum((0, 2, 3))
  events = (w * (observation > 0)).sum((0, 2, 3))
  np.testing.assert_allclose(
    found["pod"].by_lead_and_variable, hits / events, rtol=1e-5
  )
  np.testing.assert_allclose(
    found["base_rate"].by_lead, events.sum(1) / w.sum((0, 2, 3, 4)), rtol=1e-5
  )
  observation[0, 1, 1, 1, 1] = np.nan  # Counts, but is no number.
  found = _scores(forecast[None], observation, threshold, history, weight)
  assert np.isnan(found["pod"].by_lead_and_variable[1, 1])
  assert np.isfinite(found["pod"].by_lead_and_variable[0]).all()


@pytest.mark.parametrize(
  "options", [{"quantile": 1.0}, {"min_duration": 0}, {"min_duration": 2.5}]
)
def test_options_out_of_range_are_refused(options):
  with pytest.raises(metrics.MetricError, match=f"evaluation.heatwave.{[*options][0]}"):
    metrics.build(("heatwave",), **options)
  with pytest.raises(metrics.MetricError, match="does not fit the 3 frames"):
    _scores(
      _series([1, -1])[None],
      _series([1, -1]),
      _series([0, 0, 0]),
      _series([0]),
      min_duration=4,
    )


def test_scores_agrees_on_the_counts():
  other = pytest.importorskip("scores.categorical")
  rng = np.random.default_rng(3)
  observation, forecast = rng.normal(size=(2, 5, 2, 4, 5, 1)).astype("f4")
  found = _scores(
    forecast[None],
    observation,
    np.full((5, 3, 4, 5, 1), 0.5, np.float32),
    np.zeros((5, 1, 4, 5, 1), np.float32),
  )
  dims = ("sample", "lead", "y", "x", "variable")
  table = other.BinaryContingencyManager(
    xr.DataArray((forecast > 0.5).astype(float), dims=dims),
    xr.DataArray((observation > 0.5).astype(float), dims=dims),
  ).transform(preserve_dims=["lead"])
  for name, method in (
    ("pod", "probability_of_detection"),
    ("far", "false_alarm_ratio"),
    ("csi", "critical_success_index"),
    ("frequency_bias", "frequency_bias"),
    ("sedi", "symmetric_extremal_dependence_index"),
    ("base_rate", "base_rate"),
  ):
    np.testing.assert_allclose(
      found[name].by_lead, getattr(table, method)(), rtol=1e-5, err_msg=name
    )
