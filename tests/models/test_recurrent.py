import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stjax import models
from stjax.models.recurrent import from_patches, to_patches

NAMES = ("convlstm", "predrnn")
SMALL = dict(features=8, depth=2, kernel_size=3, patch_size=2)
# OpenSTL's unused conv_o and conv_last of four ConvLSTM cells.
UNUSED = 4 * (25 * 256 * 128 + 256 * 128)


def inputs(batch=2, frames=3, height=6, width=10, channels=2):
  shape = (batch, frames, height, width, channels)
  return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize(
  ("name", "expected"), [("convlstm", 15_083_520 - UNUSED), ("predrnn", 23_838_720)]
)
def test_the_published_networks_have_their_number_of_parameters(name, expected):
  module = models.build(name, horizon=10)
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, 10, 64, 64, 1)))
  )
  leaves = jax.tree.leaves(variables["params"])
  assert sum(leaf.size for leaf in leaves) == expected


def test_patches_are_put_back():
  x = inputs()
  patches = to_patches(x, 2)
  assert patches.shape == (2, 3, 3, 5, 8)
  np.testing.assert_array_equal(patches[..., 2:4], x[:, :, ::2, 1::2])
  np.testing.assert_array_equal(from_patches(patches, 2), x)


@pytest.mark.slow
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name, layer_norm):
  module = models.build(name, horizon=4, layer_norm=layer_norm, **SMALL)
  x = inputs()
  variables = jax.jit(module.init)(jax.random.key(1), x)

  def loss(variables):
    y = module.apply(variables, x, True)
    assert y.shape == (2, 4, 6, 10, 2) and y.dtype == jnp.float32
    return jnp.mean(jnp.square(y - x[:, -1:]))

  gradients = jax.jit(jax.grad(loss))(variables)
  for leaf in jax.tree.leaves(gradients):
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_forecast_begins_with_the_shorter_one(name):
  x = inputs()
  short = models.build(name, horizon=2, **SMALL)
  long = models.build(name, horizon=5, **SMALL)
  variables = jax.jit(short.init)(jax.random.key(1), x)
  np.testing.assert_allclose(
    jax.jit(long.apply)(variables, x)[:, :2],
    jax.jit(short.apply)(variables, x),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_recomputing_steps_changes_no_gradient(name):
  x = inputs()
  gradients = []
  for remat in (False, True):
    module = models.build(name, horizon=2, remat=remat, **SMALL)
    variables = jax.jit(module.init)(jax.random.key(1), x)

    def loss(variables, module=module):
      return jnp.mean(jnp.square(module.apply(variables, x)))

    gradients.append(jax.jit(jax.grad(loss))(variables))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), *gradients
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


@pytest.mark.parametrize("name", NAMES)
def test_a_grid_that_the_patches_do_not_tile_is_refused(name):
  module = models.build(name, horizon=1, patch_size=4)
  with pytest.raises(models.NetworkError, match="6 x 8.*patch_size = 4"):
    module.init(jax.random.key(0), jnp.zeros((1, 2, 6, 8, 1)))


@pytest.mark.parametrize(
  ("options", "message"),
  [({"horizon": 0}, "horizon is 0"), ({"kernel_size": 4}, "odd number")],
)
def test_wrong_options_are_refused_by_name(options, message):
  with pytest.raises(models.NetworkError, match=message):
    models.build("convlstm", **{"horizon": 1} | options)
