import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import methods, models
from stjax.models.denoisers import diffcast

B, T_IN, T_OUT, GRID, C = 2, 3, 2, (4, 6), 2
SMALL = dict(
  horizon=T_OUT, features=4, multipliers=(1,), groups=2, heads=2, head_features=3
)


def arguments(grid=GRID):
  keys = jax.random.split(jax.random.key(0), 2)
  history = jax.random.normal(keys[0], (B, T_IN, *grid, C))
  noisy, shift = jax.random.normal(keys[1], (2, B, T_OUT, *grid, C))
  return noisy, jnp.array([0, 999]), history, shift


def build(**options):
  return models.build("diffcast", **SMALL | options)


@functools.cache
def variables(multipliers=(1,)):
  module = build(multipliers=multipliers)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments()))
  generator = np.random.default_rng(1)

  def draw(leaf):
    value = generator.standard_normal(leaf.shape, np.float32)
    return jnp.asarray(value / np.sqrt(max(leaf.size / leaf.shape[-1], 4)))

  return jax.tree.map(draw, shapes)


class Counted(diffcast.DiffCast):
  """Calls `note` every time that it really encodes."""

  note: Callable[[], None] = None

  def encode(self, history):
    jax.debug.callback(self.note)
    return super().encode(history)


@pytest.mark.slow
def test_a_forecast_encodes_once_for_all_members_and_steps():
  calls = []
  network = Counted(**SMALL, note=lambda: calls.append(1))
  method = methods.build(
    "diffusion",
    network,
    sampling={"name": "ddim", "steps": 3, "spacing": "leading", "member_chunk": 2},
    horizon=T_OUT,
    num_steps=50,
  )
  batch = {"inputs": arguments()[2], "index": jnp.arange(B)}
  forecast = jax.jit(functools.partial(method.forecast, members=4))
  drawn = forecast(variables(), {}, batch, jax.random.key(0))
  assert drawn.shape == (4, B, T_OUT, *GRID, C) and jnp.isfinite(drawn).all()
  jax.effects_barrier()
  assert len(calls) == 1


@pytest.mark.slow
def test_every_argument_matters():
  given = noisy, step, history, shift = arguments()
  two = (1, 2)
  run = jax.jit(functools.partial(build(multipliers=two).apply, variables(two)))
  expected = run(*given)
  assert expected.shape == noisy.shape and expected.dtype == jnp.float32
  for changed in (
    (noisy + 1, step, history, shift),
    (noisy, step + 400, history, shift),
    (noisy, step, history[:, ::-1], shift),
    (noisy, step, history[..., ::-1], shift),
    (noisy, step, history, shift + 1),
  ):
    difference = jnp.abs(run(*changed) - expected).max((1, 2, 3, 4))
    assert (difference > 1e-3).all()


@pytest.mark.parametrize("remat", [False, True])
def test_blocks_and_recurrent_steps_are_recomputed_on_request(remat):
  module = build(remat=remat)

  def loss(variables):
    return jnp.mean(jnp.square(module.apply(variables, *arguments())))

  program = str(jax.make_jaxpr(jax.grad(loss))(variables()))
  # The blocks, the gates and the attention; and those of the context.
  recomputed = program.count("checkpoint[") + program.count("remat2[")
  assert recomputed >= 12 if remat else recomputed == 0


def test_frames_are_the_outer_and_variables_the_inner_channels():
  module = build()
  params = jax.tree.map(jnp.zeros_like, variables())["params"]
  params["unet"]["readout"]["bias"] = jnp.arange(T_OUT * C, dtype=jnp.float32)
  y = jax.jit(module.apply)({"params": params}, *arguments())
  expected = np.arange(T_OUT * C).reshape(T_OUT, 1, 1, C)
  np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))


@pytest.mark.slow
def test_bfloat16_is_close():
  exact, found = (
    jax.jit(build(dtype=dtype).apply)(variables(), *arguments())
    for dtype in ("float32", "bfloat16")
  )
  assert found.dtype == jnp.float32
  assert 0 < jnp.abs(found - exact).max() / jnp.abs(exact).max() < 0.1


def test_a_norm_of_zeros_is_zero_and_has_finite_gradients():
  norm = diffcast.ChannelNorm()
  x = jnp.asarray([[0.0, 0.0], [3.0, 4.0]])
  apply = lambda x: norm.apply({"params": {"scale": jnp.ones(2)}}, x)  # noqa: E731
  root = np.sqrt(2)
  np.testing.assert_allclose(apply(x), [[0, 0], [0.6 * root, 0.8 * root]], rtol=1e-6)
  gradient = jax.grad(lambda x: jnp.square(apply(x)).sum())(x)
  assert jnp.isfinite(gradient).all() and (gradient[0] == 0).all()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(features=5), "model.features is 5.*model.groups"),
    (dict(features=7, groups=7), "even"),
    (dict(features=2, groups=1), "at least 4"),
    (dict(multipliers=()), "model.multipliers"),
    (dict(multipliers=(1, 0)), "model.multipliers"),
    (dict(heads=0), "model.heads"),
    (dict(padding_mode="circle"), "circular"),
  ],
)
def test_wrong_options_are_refused_by_name(options, message):
  with pytest.raises(models.NetworkError, match=message):
    build(**options)


def test_a_grid_that_does_not_halve_is_refused():
  with pytest.raises(
    models.NetworkError, match="6 x 10.*multiples of 4.*pad_to_multiple=4"
  ):
    jax.eval_shape(
      build(multipliers=(1, 2, 2)).init, jax.random.key(0), *arguments((6, 10))
    )


def test_the_horizon_follows_from_the_data():
  options = models.complete(
    "model", "diffcast", {"features": 8}, horizon=18, channels=1, calendar={}
  )
  assert options == {"features": 8, "horizon": 18}
