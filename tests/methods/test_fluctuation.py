"""The fluctuation scale: what is left of a series without its main lines."""

import numpy as np
import pytest

from stjax import errors
from stjax.methods import fluctuation


def by_transforming_back(series, threshold):
  lines = np.fft.fft(series.astype(np.float64), axis=0)
  size = np.abs(lines)
  rest = np.where(size > threshold * size.max(axis=0), 0, lines)
  return np.fft.ifft(rest, axis=0).real.std(axis=0)


@pytest.mark.parametrize("length", [1, 2, 3, 40, 41])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.6, 1.0])
def test_it_is_the_deviation_of_what_is_transformed_back(length, threshold):
  random = np.random.RandomState(0)
  series = random.randn(length, 3, 2, 1) + random.randn(3, 2, 1)
  found = fluctuation.signal_scale(series, threshold)
  assert found.shape == (3, 2, 1) and found.dtype == np.float32
  np.testing.assert_allclose(
    found, by_transforming_back(series, threshold), rtol=1e-5, atol=1e-12
  )


def test_a_pure_cycle_and_a_constant_fluctuate_by_exactly_nothing():
  time = np.arange(96)
  series = np.stack(
    [np.sin(2 * np.pi * time / 24), np.full(96, -0.19), np.zeros(96)], axis=1
  )
  assert (fluctuation.signal_scale(series) == 0).all()


def test_many_nodes_are_done_in_parts(monkeypatch):
  series = np.random.RandomState(0).randn(30, 7, 3)
  whole = fluctuation.signal_scale(series)
  monkeypatch.setattr(fluctuation, "_NODES", 4)
  np.testing.assert_array_equal(fluctuation.signal_scale(series), whole)


def test_missing_values_are_interpolated_over_time():
  series = np.random.RandomState(0).randn(30, 3)
  filled = series.copy()
  filled[4:7, 0] = np.interp([4, 5, 6], [3, 7], series[[3, 7], 0])
  filled[:2, 1] = series[2, 1]
  filled[27:, 1] = series[26, 1]
  filled[:, 2] = 0
  missing = series.copy()
  missing[4:7, 0] = missing[:2, 1] = missing[27:, 1] = missing[:, 2] = np.nan
  found = fluctuation.signal_scale(missing)
  np.testing.assert_array_equal(found, fluctuation.signal_scale(filled))
  assert found[2] == 0 and (found[:2] > 0).all()


@pytest.mark.parametrize(
  ("series", "threshold", "words"),
  [
    (np.ones((3, 2)), 1.5, "threshold=1.5.*method.scale_threshold"),
    (np.ones((0, 2)), 0.1, "at least one frame"),
    (np.array([[1.0], [np.inf]]), 0.1, "infinite.*data.missing"),
  ],
)
def test_what_cannot_be_used_is_named(series, threshold, words):
  with pytest.raises(errors.ConfigError, match=words):
    fluctuation.signal_scale(series, threshold)
