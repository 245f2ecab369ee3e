import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stjax import models
from stjax.models.recurrent import from_patches, to_patches

NAMES = ("convlstm", "predrnn")


def inputs():
  return jax.random.normal(jax.random.key(0), (2, 3, 6, 10, 2))


def test_patches_are_put_back():
  x = inputs()
  patches = to_patches(x, 2)
  assert patches.shape == (2, 3, 3, 5, 8)
  np.testing.assert_array_equal(patches[..., 2:4], x[:, :, ::2, 1::2])
  np.testing.assert_array_equal(from_patches(patches, 2), x)


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_forecast_begins_with_the_shorter_one(name):
  x = inputs()
  small = dict(features=8, depth=2, kernel_size=3, patch_size=2)
  short, long = (models.build(name, horizon=n, **small) for n in (2, 5))
  variables = jax.jit(short.init)(jax.random.key(1), x)
  np.testing.assert_allclose(
    jax.jit(long.apply)(variables, x)[:, :2],
    jax.jit(short.apply)(variables, x),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_shift_a_pattern(name):
  # A random pattern moves one patch a frame around a torus.
  pattern = jax.random.uniform(jax.random.key(0), (4, 1, 6, 8, 1))
  frames = jnp.concatenate([jnp.roll(pattern, 2 * i, 3) for i in range(5)], axis=1)
  history, target = frames[:, :3], frames[:, 3:]
  module = models.build(
    name,
    horizon=2,
    features=16,
    depth=1,
    kernel_size=3,
    patch_size=2,
    padding_mode="circular",
  )
  variables = module.init(jax.random.key(1), history)
  optimizer = optax.adam(1e-2)

  def loss(variables):
    return jnp.mean(jnp.square(module.apply(variables, history) - target))

  def update(carry, _):
    variables, state = carry
    value, gradient = jax.value_and_grad(loss)(variables)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(variables, updates), state), value

  @jax.jit
  def train(variables):
    carry = variables, optimizer.init(variables)
    return jax.lax.scan(update, carry, length=300)[1]

  losses = train(variables)
  persistence = jnp.mean(jnp.square(history[:, -1:] - target))
  assert losses[-1] < 0.1 * persistence < losses[0]
