"""Point-wise errors against values worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from scoring import scores as scores_of

from stjax import metrics


def _score(forecast, observation, **options):
  return scores_of("physical", forecast[None], observation, **options)


def _fields(seed=0, shape=(12, 2, 7, 9, 2)):
  rng = np.random.default_rng(seed)
  return (
    rng.standard_normal(shape).astype(np.float32),
    rng.standard_normal(shape).astype(np.float32),
  )


def test_errors_of_a_worked_example():
  # Two lead times, two points: errors (1, -3) and (2, 0).
  observation = np.zeros((1, 2, 1, 2, 1), np.float32)
  forecast = np.array([[1, -3], [2, 0]], np.float32).reshape(1, 2, 1, 2, 1)
  scores = _score(forecast, observation)
  np.testing.assert_allclose(scores["mse"].by_lead, [5, 2])
  np.testing.assert_allclose(scores["mae"].by_lead, [2, 1])
  np.testing.assert_allclose(scores["bias"].by_lead, [-1, 1])
  np.testing.assert_allclose(scores["mse"].overall, 3.5)
  np.testing.assert_allclose(scores["bias"].overall, 0)


def test_rmse_is_the_root_of_the_pooled_mean_not_a_mean_of_roots():
  observation = np.zeros((2, 2, 1, 1, 1), np.float32)
  forecast = np.array([1, 3, 5, 7], np.float32).reshape(2, 2, 1, 1, 1)
  scores = _score(forecast, observation, batches=(1, 1))
  np.testing.assert_allclose(scores["rmse"].overall, np.sqrt(84 / 4))
  np.testing.assert_allclose(scores["rmse"].by_lead, np.sqrt([26 / 2, 58 / 2]))


def test_variables_and_lead_times_are_pooled_apart():
  forecast, observation = _fields()
  scores = _score(forecast, observation)
  square = (forecast - observation).astype(np.float64) ** 2
  np.testing.assert_allclose(
    scores["mse"].by_lead_and_variable, square.mean((0, 2, 3)), rtol=1e-6
  )
  np.testing.assert_allclose(
    scores["rmse"].by_variable, np.sqrt(square.mean((0, 1, 2, 3))), rtol=1e-6
  )
  np.testing.assert_allclose(
    scores["rmse"].by_lead, np.sqrt(square.mean((0, 2, 3, 4))), rtol=1e-6
  )


def test_area_weights_weigh_rows_whatever_their_scale():
  observation = np.zeros((1, 1, 2, 3, 1), np.float32)
  forecast = observation.copy()
  forecast[:, :, 0] = 1.0  # Row 0 counts three times as much as row 1.
  rows = ((3.0,) * 3, (1.0,) * 3)
  for area in ((3.0, 1.0), (0.6, 0.2), rows):
    scores = _score(forecast, observation, area_weights=area)
    np.testing.assert_allclose(scores["mse"].overall, 0.75, rtol=1e-6)


def test_an_ensemble_is_scored_by_its_mean():
  observation = np.zeros((1, 1, 7, 7, 1), np.float32)
  forecast = np.stack([observation + 3.0, observation - 1.0])
  scores = scores_of("physical", forecast, observation)
  np.testing.assert_allclose(scores["bias"].overall, 1.0)
  np.testing.assert_allclose(scores["mae"].overall, 1.0)


def test_psnr_uses_the_pooled_mean_square_and_each_variables_own_range():
  forecast, observation = _fields()
  scores = _score(forecast, observation, data_range=(2.0, 5.0))
  square = (forecast - observation).astype(np.float64) ** 2
  expected = 10 * np.log10(np.array([4.0, 25.0]) / square.mean((0, 1, 2, 3)))
  np.testing.assert_allclose(scores["psnr"].by_variable, expected, rtol=1e-6)
  same = _score(forecast, observation, data_range=3.0)
  np.testing.assert_allclose(
    same["psnr"].overall, 10 * np.log10(9.0 / square.mean()), rtol=1e-6
  )


def test_a_perfect_forecast_has_infinite_psnr_and_full_ssim():
  _, observation = _fields()
  scores = _score(observation, observation, data_range=1.0)
  assert scores["psnr"].overall == np.inf
  np.testing.assert_allclose(scores["ssim"].overall, 1.0, rtol=1e-6)


def test_point_data_has_no_ssim():
  forecast, observation = _fields(shape=(2, 3, 11, 1, 1))
  assert "ssim" not in _score(forecast, observation)


def test_float64_totals_keep_six_digits_over_many_batches():
  """Adding 1e-8 to 1 in float32 loses it; the accumulator must not."""
  built = metrics.build(("physical",))
  total = metrics.Accumulator(built)
  zero = np.zeros((2, 1), np.float32)
  names = ("squared", "absolute", "signed", "relative_squared")
  for squared in [1.0] + [1e-8] * 1000:
    sums = {name: zero + np.float32(squared) for name in names}
    total.add({"physical": sums | {"weight": zero + 1}})
  mse = total.compute()["physical"]["mse"].overall
  np.testing.assert_allclose(mse, (1 + 1e-5) / 1001, rtol=1e-9)


def test_bfloat16_forecasts_are_scored_in_float32():
  observation = np.full((1, 1, 8, 8, 1), 0.5, np.float32)
  forecast = jnp.asarray(observation + 0.25, jnp.bfloat16)
  scores = _score(forecast, observation)
  np.testing.assert_allclose(scores["mse"].overall, 0.0625, rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused_in_words():
  built = metrics.build(("physical",))
  field = np.zeros((2, 3, 8, 8, 1), np.float32)
  with pytest.raises(metrics.MetricError, match=r"\[M, B, T, H, W, C\]"):
    metrics.evaluate(built, field, field, field)
  with pytest.raises(metrics.MetricError, match="differ in shape"):
    metrics.evaluate(built, field[None, :, :2], field, field)
  with pytest.raises(metrics.MetricError, match="weight"):
    metrics.evaluate(built, field[None], field, field[:1])
  with pytest.raises(metrics.MetricError, match="area_weights"):
    _score(field, field, area_weights=(1.0, 2.0))


def test_no_batches_is_an_error_that_names_the_split():
  with pytest.raises(metrics.MetricError, match="evaluation.split"):
    metrics.Accumulator(metrics.build(("physical",))).compute()


def test_unknown_names_and_options_are_refused_with_near_ones():
  with pytest.raises(ValueError, match="openstl"):
    metrics.build(("openslt",))
  with pytest.raises(ValueError, match="data_range"):
    metrics.build(("physical",), data_rnge=1.0)
