import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models
from stjax.models.dit import Transformer, grid_sinusoids, step_sinusoids

SMALL = dict(spatial_features=4, spatial_depth=2, features=8, depth=1)


def test_positions_tell_columns_before_rows():
  table = grid_sinusoids(3, 5, 8).reshape(3, 5, 8)
  for row in range(3):
    np.testing.assert_allclose(table[row, :, 0], np.sin(range(5)), atol=1e-6)
    slow = np.sin(np.arange(5) / 100)
    np.testing.assert_allclose(table[row, :, 1], slow, atol=1e-6)
  for column in range(5):
    waves = np.cos(range(3))
    np.testing.assert_allclose(table[:, column, 6], waves, atol=1e-6)


def test_an_odd_number_of_waves_ends_with_zeros():
  waves = step_sinusoids(jnp.array([0, 7]), 5)
  np.testing.assert_allclose(waves[0], [1, 1, 0, 0, 0])
  np.testing.assert_allclose(waves[1, 0], np.cos(7), atol=1e-6)
  np.testing.assert_allclose(waves[1, 3], np.sin(0.07), atol=1e-6)


def test_a_fresh_transformer_gives_zeros_and_knows_its_positions():
  module = Transformer(8, 1, 2, patch_size=(2, 1), out_channels=3, position="learned")
  x = jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
  y, variables = jax.jit(module.init_with_output)(jax.random.key(1), x, jnp.array([3]))
  np.testing.assert_array_equal(y, jnp.zeros((2, 4, 3, 3)))
  np.testing.assert_array_equal(
    variables["params"]["position"], grid_sinusoids(2, 3, 8)
  )


@pytest.mark.parametrize("position", ["learned", "sinusoids"])
def test_positions_are_parameters_if_they_are_learned(position):
  module = models.build("dit", position=position, **SMALL)
  x = jnp.zeros((1, 2, 4, 6, 1))
  params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
  assert ("position" in params["transformer"]) == (position == "learned")


def test_a_coarse_grid_that_patches_do_not_tile_is_refused():
  module = models.build("dit", patch_size=(1, 2), **SMALL)
  message = "coarse grid is 2 x 3.*patch_size = 1 x 2"
  with pytest.raises(models.NetworkError, match=message):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, 4, 6, 1)))
