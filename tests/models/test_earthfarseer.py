import jax
import numpy as np
import pytest
from networks import drawn

from stjax import models
from stjax.models.earthfarseer import pooling


@pytest.mark.parametrize(
  ("size", "bins", "expected"),
  [
    (4, 2, [[0, 1], [2, 3]]),
    (5, 3, [[0, 1], [1, 2, 3], [3, 4]]),  # Bins that do not divide it overlap.
    (3, 3, [[0], [1], [2]]),
  ],
)
def test_bins_of_an_adaptive_pool_are_means(size, bins, expected):
  found = pooling(size, bins)
  for column, elements in zip(found.T, expected, strict=True):
    assert np.flatnonzero(column).tolist() == elements
    np.testing.assert_allclose(column[elements], 1 / len(elements), rtol=1e-6)


@pytest.mark.slow
def test_a_longer_horizon_goes_on_after_as_many_frames_as_the_history_has():
  options = dict(
    spatial_features=2,
    temporal_features=4,
    spatial_depth=2,
    temporal_depth=2,
    mlp_ratio=2.0,
    fourier_features=4,
    fourier_depth=1,
  )
  whole, part = (models.build("earthfarseer", horizon=n, **options) for n in (6, 4))
  x = jax.random.normal(jax.random.key(0), (1, 3, 8, 8, 1))
  variables = drawn(whole, x.shape[1:])
  y = jax.jit(whole.apply)(variables, x)
  np.testing.assert_allclose(jax.jit(part.apply)(variables, x), y[:, :4], rtol=1e-5)
  # The convolutions' last layer has one channel for the frames 0, 1, 2 and one for
  # the frames 3, 4, 5.
  bias = variables["params"]["convolutions"]["decoder"]["readout"]["bias"]
  variables["params"]["convolutions"]["decoder"]["readout"]["bias"] = bias.at[1].add(1)
  change = np.asarray(jax.jit(whole.apply)(variables, x) - y)
  wanted = np.broadcast_to(np.repeat([0.0, 1.0], 3)[None, :, None, None, None], y.shape)
  np.testing.assert_allclose(change, wanted, atol=1e-4)
