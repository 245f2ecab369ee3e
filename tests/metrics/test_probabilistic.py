"""The conventions "ensemble" and "cost", and other programs' numbers."""

import functools
import math
import operator

import jax
import numpy as np
import pytest
from scoring import accumulated
from scoring import scores as scores_of

from stjax import metrics


def _fields(members=6, shape=(7, 2, 3, 5, 2), seed=0):
  rng = np.random.default_rng(seed)
  observation = rng.normal(20, 4, shape).astype(np.float32)
  noise = rng.normal(0, 3, (members, *shape))
  return (observation + 1 + noise).astype(np.float32), observation


def _score(forecast, observation, **options):
  return scores_of("ensemble", forecast, observation, **options)


def _cost(forecast, observation):
  return scores_of("cost", forecast, observation)


def _point(members, observation):
  """One point as fields, from the values of its members."""
  forecast = np.asarray(members, np.float32).reshape(-1, 1, 1, 1, 1, 1)
  return forecast, np.full((1, 1, 1, 1, 1), observation, np.float32)


def test_the_scores_of_one_point_by_hand():
  # Members 1, 2, 6, observation 4: distances 3, 2, 2; pairs 1, 5, 4; mean 3.
  scores = _score(*_point([2, 6, 1], 4), thresholds=(1.5,))
  expected = {
    "crps": 7 / 3 - 10 / 9,
    "crps_fair": 7 / 3 - 10 / 6,
    "spread": math.sqrt((4 + 1 + 9) / 2),
    "spread_skill": math.sqrt(4 / 3) * math.sqrt(7) / 1,
    "rmse": 1,
    "mae": 1,
    "mae_median": 2,
    "interval_score_90": 5.6 - 1.1,
    "interval_width_90": 5.6 - 1.1,
    "picp_90": 1,
    "picp_95": 1,
    "energy": 7 / 3 - 10 / 9,
    "energy_fair": 7 / 3 - 10 / 6,
    "brier_gt_1.5": 1 / 9,
    "roc_area_gt_1.5": np.nan,  # There was nothing but the event.
  }
  assert list(scores) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(scores[name].overall, value, rtol=1e-6, err_msg=name)


def test_a_single_forecast_has_its_mae_as_crps():
  forecast, observation = _fields(1)
  scores = _score(forecast, observation)
  error = (forecast[0] - observation).astype(np.float64)
  mae = np.abs(error).mean()
  for name in ("crps", "mae", "mae_median"):
    np.testing.assert_allclose(scores[name].overall, mae, rtol=1e-6)
  np.testing.assert_allclose(scores["interval_score_90"].overall, 20 * mae, rtol=1e-6)
  norms = np.sqrt((error**2).sum((2, 3, 4)))
  np.testing.assert_allclose(scores["energy"].overall, norms.mean(), 1e-6)
  for name in ("spread", "spread_skill", "interval_width_90", "picp_90"):
    assert scores[name].overall == 0, name
  assert np.isnan(scores["crps_fair"].overall)
  assert np.isnan(scores["energy_fair"].overall)


@pytest.mark.parametrize("name", ["ensemble", "cost"])
def test_a_forecast_of_nan_has_no_score_at_all(name):
  forecast, observation = _fields()
  forecast[2, 1, 0, 2, 3, 1] = np.nan
  options = {"thresholds": (20.0,)} if name == "ensemble" else {}
  total = accumulated((name,), forecast, observation, **options)
  for key, score in total.compute()[name].items():
    assert np.isnan(score.by_lead[0]), key
    assert np.isfinite(score.by_lead[1]), key
    if score.by_variable is not None:
      assert np.isfinite(score.by_variable[0]), key


def test_lead_times_and_variables_are_pooled_before_the_root():
  forecast, observation = _fields(5)
  forecast = 20 + (forecast - 20) * np.array([1.0, 3.0], np.float32)
  scores = _score(forecast, observation)
  variance = forecast.astype(np.float64).var(0, ddof=1)
  square = (forecast.astype(np.float64).mean(0) - observation) ** 2
  for field, axes in (
    ("overall", None),
    ("by_lead", (0, 2, 3, 4)),
    ("by_variable", (0, 1, 2, 3)),
    ("by_lead_and_variable", (0, 2, 3)),
  ):
    spread = np.sqrt(variance.mean(axes))
    np.testing.assert_allclose(getattr(scores["spread"], field), spread, rtol=1e-5)
    np.testing.assert_allclose(
      getattr(scores["spread_skill"], field),
      np.sqrt(6 / 5) * spread / np.sqrt(square.mean(axes)),
      rtol=1e-5,
    )
  assert scores["energy"].by_variable is None
  assert scores["energy"].by_lead.shape == (2,)


def test_area_weights_weigh_cells_and_their_scale_does_not_matter():
  forecast, observation = _fields()
  area = np.array([2.0, 0.0, 1.0])
  scores = _score(forecast, observation, area_weights=(2.0, 0.0, 1.0))
  distance = np.abs(forecast - observation).astype(np.float64).mean(0)
  pairs = np.abs(forecast[:, None] - forecast).astype(np.float64).mean((0, 1))
  crps = ((distance - pairs / 2).mean((0, 1, 3, 4)) * area).sum() / 3
  np.testing.assert_allclose(scores["crps"].overall, crps, rtol=1e-5)
  larger = _score(forecast, observation, area_weights=(20.0, 0.0, 10.0))
  for name, score in scores.items():
    np.testing.assert_allclose(
      larger[name].overall, score.overall, rtol=1e-5, err_msg=name
    )


def _calibrated(members=19, points=40000):
  rng = np.random.default_rng(3)
  shape = (4, 1, points // 4, 1, 1)
  level = rng.normal(0, 5, shape)
  draw = lambda: level + rng.normal(0, 2, shape)
  forecast = np.stack([draw() for _ in range(members)])
  return forecast.astype(np.float32), draw().astype(np.float32)


def test_a_calibrated_ensemble_has_flat_histograms_and_a_ratio_of_1():
  forecast, observation = _calibrated()
  names = ("ensemble", "cost")
  total = accumulated(names, forecast, observation, thresholds=(0.0,))
  scores, diagrams = total.compute(), total.diagrams()
  assert abs(scores["ensemble"]["spread_skill"].overall - 1) < 0.02
  # Quantiles of few members are too near each other, even if calibrated: the
  # outer bins get (0.1 * 18 + 1) / 20 each and the inner ones 0.1 * 18 / 20.
  assert abs(scores["cost"]["qice"].overall - 0.32 / 20) < 0.003
  assert abs(scores["ensemble"]["picp_90"].overall - 0.9 * 18 / 20) < 0.01
  histogram = diagrams["ensemble"]["rank_histogram"]
  assert histogram["rank"].tolist() == list(range(20))
  np.testing.assert_allclose(histogram["frequency"], 0.05, atol=0.006)
  np.testing.assert_allclose(histogram["count"].sum(), 40000)
  assert "frequency_by_variable" not in histogram
  curve = diagrams["ensemble"]["reliability_gt_0"]
  np.testing.assert_allclose(
    curve["observed_frequency"], curve["forecast_probability"], atol=0.04
  )
  # The CRPS of a normal law about its own draws is sigma / sqrt(pi).
  np.testing.assert_allclose(
    scores["ensemble"]["crps_fair"].overall, 2 / math.sqrt(math.pi), rtol=0.02
  )


def test_too_narrow_an_ensemble_is_seen_in_every_measure_of_calibration():
  forecast, observation = _calibrated()
  narrow = forecast.mean(0) + (forecast - forecast.mean(0)) / 2
  names = ("ensemble", "cost")
  total = accumulated(names, narrow, observation)
  scores, diagrams = total.compute(), total.diagrams()
  assert scores["ensemble"]["spread_skill"].overall < 0.55
  assert scores["ensemble"]["picp_90"].overall < 0.7
  assert scores["cost"]["qice"].overall > 0.05
  frequency = diagrams["ensemble"]["rank_histogram"]["frequency"]
  assert frequency[0] > 0.15 and frequency[-1] > 0.15


def test_diagrams_are_given_by_variable_where_there_are_several():
  forecast, observation = _fields()
  total = accumulated(
    ("ensemble", "physical"), forecast, observation, thresholds=(20.0,)
  )
  diagrams = total.diagrams()
  assert list(diagrams) == ["ensemble"]  # "physical" has none.
  diagrams = diagrams["ensemble"]
  assert list(diagrams) == ["rank_histogram", "reliability_gt_20", "roc_gt_20"]
  histogram = diagrams["rank_histogram"]
  assert histogram["frequency_by_variable"].shape == (2, 7)
  assert histogram["frequency_by_lead"].shape == (2, 7)
  curve = diagrams["roc_gt_20"]
  assert curve["hit_rate_by_variable"].shape == (2, 8)
  assert curve["area_by_variable"].shape == (2,)
  np.testing.assert_allclose(
    curve["area_by_variable"], total.compute()["ensemble"]["roc_area_gt_20"].by_variable
  )


def test_the_brier_score_counts_the_members():
  forecast, observation = _fields()
  scores = _score(forecast, observation, thresholds=(20.0, 22.5))
  for threshold in (20.0, 22.5):
    share = (forecast > threshold).mean(0)
    loss = (share - (observation > threshold)) ** 2
    score = scores[f"brier_gt_{threshold:g}"]
    np.testing.assert_allclose(score.overall, loss.mean(), rtol=1e-5)
    np.testing.assert_allclose(
      score.by_lead_and_variable, loss.mean((0, 2, 3)), rtol=1e-5
    )


@pytest.mark.parametrize("thresholds", [(1.0, 1.0), (math.nan,), (math.inf,)])
def test_impossible_thresholds_are_refused(thresholds):
  with pytest.raises(metrics.MetricError, match="evaluation.thresholds"):
    metrics.build(("ensemble",), thresholds=thresholds)


@pytest.mark.parametrize(
  "options", [{"qice_bins": 0}, {"interval_percent": 100}, {"coverage_percent": 0}]
)
def test_impossible_options_of_cost_are_refused(options):
  with pytest.raises(metrics.MetricError, match=[*options][0]):
    metrics.build(("cost",), **options)


def test_the_cost_scores_of_one_point_by_hand():
  # Members 1, 2, 6 and observation 4; see the test of "ensemble".
  scores = _cost(*_point([2, 6, 1], 4))
  levels = np.arange(1, 20) / 20
  quantiles = np.quantile([1, 2, 6], levels)
  loss = 2 * np.abs((quantiles - 4) * ((4 <= quantiles) - levels)).mean()
  expected = {
    "mae": 1,
    "rmse": 1,
    "mae_single_sample": 7 / 3,
    "rmse_single_sample": 7 / 3,
    "crps": loss / 4,
    "crps_sum": loss / 4,
    "qice": (0.9 + 9 * 0.1) / 10,
    "interval_score": 4.5,
    "picp": 1,
    "smape": 2 / 7,
  }
  assert list(scores) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(scores[name].overall, value, rtol=1e-6, err_msg=name)


def test_crps_sum_adds_the_points_of_each_frame_first():
  forecast, observation = _fields()
  scores = _cost(forecast, observation)
  summed = _cost(
    forecast.sum((3, 4), keepdims=True), observation.sum((2, 3), keepdims=True)
  )
  np.testing.assert_allclose(
    scores["crps_sum"].by_lead_and_variable,
    summed["crps"].by_lead_and_variable,
    rtol=1e-4,
  )


def test_smape_has_no_value_where_both_are_0():
  assert np.isnan(_cost(*_point([0.0, 0.0], 0.0))["smape"].overall)


def test_both_conventions_sort_the_members_of_a_batch_once():
  forecast, observation = _fields(8, (2, 3, 5, 4, 1))
  built = metrics.build(("ensemble", "cost"))
  update = jax.jit(functools.partial(metrics.evaluate, built))
  compiled = update.lower(forecast, observation, np.ones_like(observation)).compile()
  sorts = [x for x in compiled.as_text().splitlines() if " sort(" in x]
  whole = "f32[8,2,3,5,4,1]"
  assert sum(whole in x.split(" sort(")[0] for x in sorts) == 1, sorts


def test_properscoring_agrees_on_the_crps_and_the_brier_score():
  other = pytest.importorskip("properscoring")
  forecast, observation = _fields()
  scores = _score(forecast, observation, thresholds=(20.0,))
  crps = other.crps_ensemble(observation, np.moveaxis(forecast, 0, -1))
  np.testing.assert_allclose(scores["crps"].overall, crps.mean(), rtol=1e-5)
  brier = other.threshold_brier_score(
    observation, np.moveaxis(forecast, 0, -1), threshold=20.0
  )
  np.testing.assert_allclose(scores["brier_gt_20"].overall, brier.mean(), rtol=1e-5)


def test_scores_agrees_on_the_crps_the_histogram_and_the_events():
  other = pytest.importorskip("scores").probability
  xr = pytest.importorskip("xarray")
  forecast, observation = _fields()
  observation = np.round(observation)  # Ties with the members.
  forecast = np.round(forecast)
  total = accumulated(("ensemble",), forecast, observation, thresholds=(20.0,))
  scores = total.compute()["ensemble"]
  dims = ("sample", "lead", "y", "x", "variable")
  members = xr.DataArray(forecast.astype(float), dims=("member", *dims))
  truth = xr.DataArray(observation.astype(float), dims=dims)
  for name, method in (("crps", "ecdf"), ("crps_fair", "fair")):
    np.testing.assert_allclose(
      scores[name].by_lead,
      other.crps_for_ensemble(
        members, truth, "member", method=method, preserve_dims=["lead"]
      ),
      rtol=1e-5,
    )
  np.testing.assert_allclose(
    scores["brier_gt_20"].overall,
    other.brier_score_for_ensemble(
      members,
      truth,
      "member",
      20.0,
      fair_correction=False,
      event_threshold_operator=operator.gt,
    ).item(),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    total.diagrams()["ensemble"]["rank_histogram"]["frequency"],
    other.rank_histogram(members, truth, "member"),
    rtol=1e-5,
  )
  curve = other.roc_curve_data(
    (members > 20).mean("member"), (truth > 20).astype(float), np.arange(7) / 6
  )
  np.testing.assert_allclose(
    scores["roc_area_gt_20"].overall, curve.AUC.item(), rtol=1e-5
  )


def test_xskillscore_agrees_on_the_crps_and_the_rank_histogram():
  other = pytest.importorskip("xskillscore")
  xr = pytest.importorskip("xarray")
  forecast, observation = _fields()
  total = accumulated(("ensemble",), forecast, observation)
  dims = ("sample", "lead", "y", "x", "variable")
  members = xr.DataArray(forecast, dims=("member", *dims))
  truth = xr.DataArray(observation, dims=dims)
  np.testing.assert_allclose(
    total.compute()["ensemble"]["crps"].overall,
    other.crps_ensemble(truth, members),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    total.diagrams()["ensemble"]["rank_histogram"]["count"],
    other.rank_histogram(truth, members),
    rtol=1e-5,
  )


def test_torchmetrics_agrees_on_the_crps():
  other = pytest.importorskip("torchmetrics.regression")
  torch = pytest.importorskip("torch")
  forecast, observation = _fields()
  metric = other.ContinuousRankedProbabilityScore()
  value = metric(
    torch.from_numpy(forecast.reshape(len(forecast), -1).T.copy()),
    torch.from_numpy(observation.ravel()),
  )
  np.testing.assert_allclose(
    _score(forecast, observation)["crps"].overall, float(value), rtol=1e-5
  )


def test_scoringrules_agrees_on_both_estimators_of_the_crps():
  other = pytest.importorskip("scoringrules")
  forecast, observation = _fields()
  members = np.moveaxis(forecast, 0, -1).astype(float)
  scores = _score(forecast, observation)
  for name, estimator in (("crps", "nrg"), ("crps_fair", "fair")):
    values = other.crps_ensemble(
      observation.astype(float), members, estimator=estimator
    )
    np.testing.assert_allclose(scores[name].overall, values.mean(), rtol=1e-5)
