import functools

import jax
import jax.numpy as jnp
import pytest

from stjax import models
from stjax.models.lsm import SpectralBlock


def test_patches_do_not_see_each_other():
  module = SpectralBlock(tokens=3, basis=2, patch_size=(2, 3), heads=2)
  x = jax.random.normal(jax.random.key(0), (1, 4, 6, 8))
  variables = jax.jit(module.init)(jax.random.key(1), x)
  forecast = jax.jit(functools.partial(module.apply, variables))
  change = forecast(x.at[0, 2, 4].add(1.0)) - forecast(x)
  change = jnp.abs(change).max(-1)[0]
  assert (change[2:, 3:] > 0).all()
  assert change[:2].max() == change[:, :3].max() == 0


def test_a_width_that_the_heads_do_not_divide_is_refused():
  module = SpectralBlock(heads=3, patch_size=(1, 1))
  with pytest.raises(models.NetworkError, match="3 heads.*width 8"):
    module.init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))


@pytest.mark.parametrize("padding", [0, (3, 2), (0, 2), (3, 0)])
def test_padding_is_cut_off_again_in_each_direction(padding):
  module = models.build("lsm", features=8, depth=1, patch_size=1, padding=padding)
  y, _ = jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.zeros((1, 2, 5, 6, 1))
  )
  assert y.shape == (1, 2, 5, 6, 1)
