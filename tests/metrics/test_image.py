"""SSIM and PSNR against scikit-image and values worked by hand."""

import jax
import numpy as np
import pytest

from stjax.metrics import MetricError, image


def _frames(seed=0, shape=(3, 11, 14, 2)):
  rng = np.random.default_rng(seed)
  observation = rng.random(shape).astype(np.float32)
  noise = 0.3 * rng.standard_normal(shape)
  return (observation + noise).astype(np.float32), observation


_jitted_ssim = jax.jit(image.ssim, static_argnames="data_range")


def _ssim(forecast, observation, weight=None, **options):
  if weight is None:
    weight = np.ones_like(observation)
  return _jitted_ssim(forecast, observation, weight, **options)


@pytest.mark.parametrize("data_range", [1.0, 2.0, 0.3])
@pytest.mark.parametrize("level", [0.0, 280.0])
def test_ssim_equals_scikit_image(data_range, level):
  metrics = pytest.importorskip("skimage.metrics")
  forecast, observation = (x + np.float32(level) for x in _frames())
  scores, counts = _ssim(forecast, observation, data_range=data_range)
  expected = [
    [
      metrics.structural_similarity(
        observation[n, :, :, c].astype(np.float64),
        forecast[n, :, :, c].astype(np.float64),
        data_range=data_range,
      )
      for c in range(2)
    ]
    for n in range(3)
  ]
  np.testing.assert_allclose(scores, expected, atol=1e-5)
  np.testing.assert_array_equal(counts, 1.0)


def test_the_frame_range_is_that_of_its_observation():
  metrics = pytest.importorskip("skimage.metrics")
  forecast, observation = _frames(1)
  observation = observation * np.array([0.5, 3.0], np.float32)
  scores, _ = _ssim(forecast, observation, data_range="frame")
  for n in range(3):
    for c in range(2):
      truth = observation[n, :, :, c].astype(np.float64)
      expected = metrics.structural_similarity(
        truth,
        forecast[n, :, :, c].astype(np.float64),
        data_range=truth.max() - truth.min(),
      )
      np.testing.assert_allclose(scores[n, c], expected, atol=1e-5)


def test_ssim_of_one_window_by_hand():
  # One 7x7 window: observation 0 but for a 1 in the middle, forecast 0.
  observation = np.zeros((1, 7, 7, 1), np.float32)
  observation[0, 3, 3, 0] = 1.0
  scores, _ = _ssim(np.zeros_like(observation), observation, data_range=1.0)
  mean = 1 / 49
  variance = 49 / 48 * (1 / 49 - mean**2)
  expected = 1e-4 * 9e-4 / ((mean**2 + 1e-4) * (variance + 9e-4))
  np.testing.assert_allclose(scores[0, 0], expected, rtol=1e-5)


def test_a_constant_frame_has_a_defined_ssim():
  constant = np.full((1, 9, 8, 1), 0.5, np.float32)
  same, _ = _ssim(constant, constant, data_range="frame")
  np.testing.assert_allclose(same, 1.0)
  near, _ = _ssim(constant + 0.1, constant, data_range="frame")
  # Joint range 0.1: (2xy + c) / (x^2 + y^2 + c) with c = (0.001)^2.
  np.testing.assert_allclose(near, (0.6 + 1e-6) / (0.25 + 0.36 + 1e-6), rtol=1e-5)


def test_windows_with_a_missing_point_are_left_out():
  forecast, observation = _frames(2, (1, 9, 16, 1))
  weight = np.ones_like(observation)
  weight[0, 4, 0] = 0  # Touches every window whose left edge is column 0.
  whole, _ = _ssim(forecast[:, :, 1:], observation[:, :, 1:], data_range=1.0)
  forecast[0, 4, 0], observation[0, 4, 0] = 1e20, np.nan
  scores, counts = _ssim(forecast, observation, weight, data_range=1.0)
  np.testing.assert_allclose(scores, whole, rtol=1e-5)
  np.testing.assert_array_equal(counts, 1.0)


def test_a_frame_without_a_whole_window_is_not_counted():
  forecast, observation = _frames(3, (1, 8, 8, 1))
  weight = np.ones_like(observation)
  weight[0, 4, 4] = 0
  scores, counts = _ssim(forecast, observation, weight, data_range="frame")
  np.testing.assert_array_equal(counts, 0.0)
  np.testing.assert_array_equal(scores, 0.0)


def test_missing_points_do_not_set_the_frame_range():
  _, observation = _frames(4, (2, 8, 9, 1))
  weight = np.ones_like(observation)
  expected = image.frame_range(observation, observation, weight)
  weight = np.concatenate([weight, np.zeros_like(weight)], axis=2)
  wild = np.concatenate([observation, observation + 50], axis=2)
  np.testing.assert_allclose(image.frame_range(wild, wild, weight), expected)


def test_frames_smaller_than_the_window_are_refused():
  frame = np.zeros((1, 6, 20, 1), np.float32)
  with pytest.raises(MetricError, match="6x20"):
    _ssim(frame, frame)


@pytest.mark.parametrize(
  "data_range", [0.0, -1.0, float("nan"), (1.0, 2.0, 3.0), "max"]
)
def test_impossible_data_ranges_are_refused(data_range):
  forecast, observation = _frames()
  with pytest.raises(MetricError, match="config.evaluation.data_range"):
    _ssim(forecast, observation, data_range=data_range)


def test_frame_psnr_and_snr_by_hand():
  observation = np.full((2, 4, 5, 1), 0.5, np.float32)
  forecast = observation + np.float32(0.1)
  weight = np.ones_like(observation)
  weight[1] = 0
  error, signal, count = image.frame_errors(forecast, observation, weight)
  np.testing.assert_allclose(error, [0.01, 0.0], rtol=1e-6)
  np.testing.assert_allclose(image.frame_psnr(error, count), [20.0, 0.0], rtol=1e-6)
  np.testing.assert_allclose(
    image.frame_snr(error, signal, count), [10 * np.log10(25), 0.0], rtol=1e-6
  )
  np.testing.assert_array_equal(count, [1, 0])


def test_an_exact_frame_has_infinite_psnr_and_a_blank_one_no_snr():
  blank = np.zeros((1, 4, 5, 1), np.float32)
  error, signal, count = image.frame_errors(blank, blank, blank + 1)
  assert image.frame_psnr(error, count)[0] == np.inf
  assert image.frame_snr(error, signal, count)[0] == 0.0
