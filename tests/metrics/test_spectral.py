"""The convention "spectral": power by wavenumber, and its bands."""

import numpy as np
import pytest
from scoring import accumulated

from stjax import metrics
from stjax.metrics import spectra, spectral

N = 12


def _wave(rows, columns, amplitude=1.0, shape=(N, N), phase=0.0):
  """A cosine [H, W] with so many waves across its height and width."""
  y, x = (2 * np.pi * np.arange(n) / n for n in shape)
  return amplitude * np.cos(rows * y[:, None] + columns * x + phase)


def _fields(*frames):
  """Frames [H, W] as samples of one lead time and variable."""
  return np.stack(frames)[:, None, ..., None].astype(np.float32)


def _accumulated(forecast, observation, weight=None, variables=()):
  batches = (1,) * len(observation)
  return accumulated(
    ("spectral",), forecast, observation, weight, batches, variables=variables
  )


def test_the_bands_are_thirds_of_the_wavenumbers_above_0():
  found = {k: list(range(*v.indices(9))) for k, v in spectral.bands(9).items()}
  assert found == {"low": [1, 2], "mid": [3, 4, 5], "high": [6, 7, 8]}


def test_power_errors_and_ratios_of_waves_by_hand():
  # Of wavenumbers 1, |(3, -4)| = 5 and 6 of 6: low, high, high. The power of
  # a cosine is a quarter of its amplitude's square.
  observation = _wave(1, 0, 2) + _wave(3, -4, 2) + 7
  forecast = _wave(1, 0, 2, phase=np.pi) + _wave(3, -4, 1) + 5
  total = _accumulated(_fields(forecast)[None], _fields(observation))
  scores = {k: v.overall for k, v in total.compute()["spectral"].items()}
  power = total.diagrams()["spectral"]["power_0"]
  np.testing.assert_array_equal(power["wavenumber"], np.arange(1, 7))
  for name, expected in (
    ("observation", [1, 0, 0, 0, 1, 0]),
    ("forecast", [1, 0, 0, 0, 0.25, 0]),
    ("error", [4, 0, 0, 0, 0.25, 0]),  # Of opposite phase, and half as high.
  ):
    np.testing.assert_allclose(power[name], expected, atol=1e-5)
    np.testing.assert_allclose(power[f"{name}_by_lead"], [expected], atol=1e-5)
  assert list(scores) == [
    "log_ratio_low",
    "amplitude_error_low",
    "log_ratio_mid",
    "amplitude_error_mid",
    "log_ratio_high",
    "amplitude_error_high",
    "energy_ratio_high",
  ]
  for name, value in (
    ("log_ratio_low", 0),
    ("amplitude_error_low", 0),  # The phase does not matter here.
    ("log_ratio_high", np.log10(0.25)),
    ("amplitude_error_high", 0.5),
    ("energy_ratio_high", 0.25),
  ):
    np.testing.assert_allclose(scores[name], value, atol=1e-5, err_msg=name)


def test_shells_of_a_square_are_those_of_the_enstrophy():
  fields = np.random.default_rng(0).normal(size=(2, N, N, 3)) + 1
  power = np.abs(np.asarray(spectra.transform(fields))) ** 2 / 2
  np.testing.assert_allclose(
    spectra.shell_sums(power), spectra.shell_enstrophy(fields), rtol=1e-5
  )


def test_on_an_oblong_points_are_as_far_apart_along_both_sides():
  # Two waves over the height of 8 are as long as three over the width of 12.
  for rows, columns in ((2, 0), (0, 3)):
    frame = _wave(rows, columns, 2, shape=(8, 12))[..., None]
    power = np.abs(np.asarray(spectra.transform(frame))) ** 2 / 2
    np.testing.assert_allclose(
      spectra.shell_sums(power)[:, 0], [0, 0, 0, 1, 0, 0, 0], atol=1e-6
    )


def test_samples_are_pooled_and_variables_averaged():
  rng = np.random.default_rng(1)
  observation = rng.normal(size=(3, 2, 8, 9, 2)).astype(np.float32)
  observation *= np.array([1, 1000], np.float32)
  forecast = observation * np.array([0.5, 2], np.float32)
  total = _accumulated(forecast[None], observation, variables=("sst", "t@850"))
  found = total.compute()["spectral"]
  ratio = found["energy_ratio_high"]
  np.testing.assert_allclose(ratio.by_variable, [0.25, 4], rtol=1e-5)
  np.testing.assert_allclose(ratio.by_lead, [2.125, 2.125], rtol=1e-5)
  assert ratio.by_lead_and_variable.shape == (2, 2)
  np.testing.assert_allclose(found["log_ratio_low"].overall, 0, atol=1e-6)
  np.testing.assert_allclose(
    found["amplitude_error_mid"].by_variable, [0.5, 1], rtol=1e-5
  )
  diagrams = total.diagrams()["spectral"]
  assert list(diagrams) == ["power_sst", "power_t_850"]
  expected = spectra.shell_sums(
    (np.abs(np.fft.fft2(observation, axes=(2, 3)) / 72) ** 2 / 2).mean(0)
  )
  np.testing.assert_allclose(
    diagrams["power_sst"]["observation_by_lead"], expected[:, 1:, 0], rtol=1e-4
  )


def test_members_have_spectra_of_their_own():
  observation = _fields(_wave(0, 2))
  forecast = np.stack([observation, -observation])  # Their mean is 0.
  power = _accumulated(forecast, observation).diagrams()["spectral"]["power_0"]
  np.testing.assert_allclose(power["forecast"], power["observation"], atol=1e-6)
  np.testing.assert_allclose(power["error"][1], 0.5, rtol=1e-5)


def test_missing_points_and_padding_add_nothing():
  rng = np.random.default_rng(2)
  observation = rng.normal(5, 1, (2, 1, 8, 8, 1)).astype(np.float32)
  weight = np.ones_like(observation)
  weight[:, :, 2:4, 3:] = 0  # Land,
  weight[1] = 0  # and padding.
  forecast = np.where(weight > 0, observation, np.nan)[None]
  total = _accumulated(forecast, forecast[0], weight)
  scores = total.compute()["spectral"]
  for name in ("low", "mid", "high"):
    assert scores[f"log_ratio_{name}"].overall == 0
    assert scores[f"amplitude_error_{name}"].overall == 0
  one = np.where(weight > 0, observation, observation[0][weight[0] > 0].mean())
  expected = spectra.shell_sums(
    np.abs(np.fft.fft2(one[0, 0], axes=(0, 1)) / 64) ** 2 / 2
  )
  found = total.diagrams()["spectral"]["power_0"]["observation"]
  np.testing.assert_allclose(found, expected[1:, 0], rtol=1e-4)


def test_small_frames_are_refused():
  with pytest.raises(metrics.MetricError, match="6x6.*conventions"):
    _accumulated(np.zeros((1, 1, 1, 5, 9, 1)), np.zeros((1, 1, 5, 9, 1)))


@pytest.mark.parametrize("shape", [(16, 16), (11, 13)])
def test_the_rounding_of_a_constant_field_is_no_power(shape):
  constant = np.full((2, 1, *shape, 1), 280.15, np.float32)
  noise = np.random.default_rng(0).standard_normal(constant.shape, np.float32)
  for forecast, observation in ((noise, constant), (constant, constant)):
    scores = _accumulated(forecast[None], observation).compute()["spectral"]
    for name in ("log_ratio_high", "amplitude_error_high", "energy_ratio_high"):
      assert not np.isfinite(scores[name].overall)
