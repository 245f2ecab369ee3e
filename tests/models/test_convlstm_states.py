import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models


def params_of(channels, **options):
  module = models.build("convlstm_states", **options)
  x = jnp.zeros((1, 2, 4, 6, channels))
  return jax.eval_shape(module.init, jax.random.key(0), x)["params"]["step"]


def test_states_know_only_the_frames_before_them():
  module = models.build("convlstm_states", depth=2)
  x = jax.random.normal(jax.random.key(0), (1, 4, 5, 7, 2))
  variables = jax.jit(module.init)(jax.random.key(1), x)
  forecast = jax.jit(functools.partial(module.apply, variables))
  change = jnp.abs(forecast(x) - forecast(x.at[0, 2].add(1.0)))
  change = change.max((0, 2, 3, 4))
  np.testing.assert_array_equal(change[:2], 0)
  assert (change[2:] > 1e-4).all()
  assert jnp.abs(forecast(100 * x)).max() <= 1


@pytest.mark.parametrize(
  ("features", "expected"),
  [(None, (2, 2, 2)), (5, (5, 5, 2)), ((4, 3), (4, 3, 2)), ([4, 3], (4, 3, 2))],
)
def test_the_layers_have_the_widths_that_are_asked(features, expected):
  params = params_of(2, depth=3, features=features, kernel_size=(3, 5))
  before = 2
  for i, width in enumerate(expected):
    kernel = params[f"layer_{i}"]["gates"]["kernel"]
    assert kernel.shape == (3, 5, before + width, 4 * width)
    before = width


def test_biases_can_be_left_out():
  assert list(params_of(2, use_bias=False)["layer_0"]["gates"]) == ["kernel"]
