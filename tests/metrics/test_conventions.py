"""The named conventions against plain numpy twins of their definitions."""

import numpy as np
import pytest
from scoring import accumulated, scores

from stjax import metrics


def _fields(seed=0, shape=(12, 2, 8, 9, 1)):
  rng = np.random.default_rng(seed)
  observation = rng.random(shape).astype(np.float32)
  noise = 0.2 * rng.standard_normal(shape)
  return (observation + noise).astype(np.float32), observation


def _score(forecast, observation, **options):
  return scores("openstl", forecast[None], observation, **options)


def test_openstl_errors_are_sums_over_the_frame():
  # Error 1 at one of 8 * 9 points of each frame, 2 in every second sample.
  observation = np.zeros((2, 3, 8, 9, 1), np.float32)
  forecast = observation.copy()
  forecast[0, :, 4, 4] = 1.0
  forecast[1, :, 4, 4] = 2.0
  scores = _score(forecast, observation)
  np.testing.assert_allclose(scores["mse"].overall, 2.5, rtol=1e-6)
  np.testing.assert_allclose(scores["mae"].overall, 1.5, rtol=1e-6)
  np.testing.assert_allclose(scores["rmse"].overall, np.sqrt(2.5), rtol=1e-6)
  np.testing.assert_allclose(scores["mse"].by_lead, [2.5] * 3, rtol=1e-6)
  np.testing.assert_allclose(scores["mse_spatialnorm"].overall, 2.5 / 72, rtol=1e-6)
  np.testing.assert_allclose(
    scores["psnr_255"].overall, 10 * np.log10(255**2 * 72 / 2.5), rtol=1e-6
  )


def test_channels_add_up_in_openstl_errors():
  forecast, observation = _fields(shape=(4, 3, 8, 9, 3))
  scores = _score(forecast, observation)
  error = (forecast - observation).astype(np.float64)
  by_channel = (error**2).mean((0, 1)).sum((0, 1))
  np.testing.assert_allclose(scores["mse"].by_variable, by_channel, 1e-6)
  np.testing.assert_allclose(scores["mse"].overall, by_channel.sum(), 1e-6)
  np.testing.assert_allclose(scores["rmse"].overall, np.sqrt(by_channel.sum()), 1e-6)


def test_picture_scores_clip_the_forecast_and_error_scores_do_not():
  _, observation = _fields()
  observation = np.round(observation)
  beyond = np.where(observation > 0, 1.5, -0.5).astype(np.float32)
  scores = _score(beyond, observation)
  np.testing.assert_allclose(scores["ssim"].overall, 1.0, rtol=1e-5)
  assert scores["psnr"].overall == np.inf
  np.testing.assert_allclose(scores["mse_spatialnorm"].overall, 0.25, rtol=1e-6)


def test_psnr_is_the_mean_over_frames_of_decibels():
  observation = np.zeros((1, 2, 7, 7, 1), np.float32)
  forecast = observation.copy()
  forecast[:, 0], forecast[:, 1] = 0.1, 0.01  # 20 and 40 dB.
  scores = _score(forecast, observation)
  np.testing.assert_allclose(scores["psnr"].by_lead, [20, 40], rtol=1e-6)
  np.testing.assert_allclose(scores["psnr"].overall, 30, rtol=1e-6)


def test_ssim_of_a_constant_frame_is_a_number():
  observation = np.zeros((1, 1, 8, 8, 1), np.float32)
  forecast = _fields(shape=observation.shape)[0]
  assert np.isfinite(_score(forecast, observation)["ssim"].overall)


def test_channel_groups_average_the_scores_of_groups():
  forecast, observation = _fields(shape=(3, 2, 8, 9, 4))
  scores = _score(forecast, observation, spatial_norm=True, channel_names=("t", "r"))
  error = (forecast - observation).astype(np.float64)
  roots = [np.sqrt((e**2).mean()) for e in (error[..., :2], error[..., 2:])]
  np.testing.assert_allclose(scores["rmse_t"].overall, roots[0], rtol=1e-6)
  np.testing.assert_allclose(scores["rmse_r"].overall, roots[1], rtol=1e-6)
  np.testing.assert_allclose(scores["rmse"].overall, np.mean(roots), rtol=1e-6)
  assert "rmse_spatialnorm" not in scores


def test_channels_that_do_not_divide_into_the_groups_are_refused():
  forecast, observation = _fields(shape=(1, 1, 8, 9, 3))
  with pytest.raises(metrics.MetricError, match="3 variables"):
    _score(forecast, observation, channel_names=("t", "r"))


def test_point_data_keeps_the_scores_that_need_no_window():
  forecast, observation = _fields(shape=(2, 3, 11, 1, 1))
  scores = _score(forecast, observation)
  assert "ssim" not in scores and "ssim_range2" not in scores
  assert np.isfinite(scores["psnr"].overall)


def test_ssim_ranges_order_as_their_stabilisers():
  forecast, observation = _fields()
  scores = _score(forecast, observation)
  assert scores["ssim_range2"].overall > scores["ssim_range1"].overall


def test_flat_scalars_are_named_by_convention_and_score():
  forecast, observation = _fields()
  names = ("physical", "openstl")
  total = accumulated(names, forecast[None], observation, data_range=1.0)
  flat = metrics.scalars(total.compute(), "validation/")
  np.testing.assert_allclose(
    flat["validation/openstl/mse"], flat["validation/physical/mse"] * 72, rtol=1e-6
  )
  assert all(isinstance(value, float) for value in flat.values())
