import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models

B, T_IN, T_OUT, C = 2, 3, 2, 2
SMALL = dict(horizon=T_OUT, features=4, depth=2, blocks=1, groups=2, step_dim=6)


def arguments(grid=(7, 10), seed=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  history = jax.random.normal(keys[0], (B, T_IN, *grid, C))
  noisy, shift = jax.random.normal(keys[1], (2, B, T_OUT, *grid, C))
  return noisy, jnp.array([0, 41]), history, shift


def build(**options):
  return models.build("unet_denoiser", **SMALL | options)


def variables_of(module, grid=(7, 10)):
  """Random parameters, those of the last layer too."""
  shown, fields = models.example_arguments(module, (T_IN, *grid, C))
  shapes = jax.eval_shape(
    lambda key: module.init(key, *shown, **fields), jax.random.key(0)
  )
  generator = np.random.default_rng(1)
  return jax.tree.map(
    lambda s: jnp.asarray(0.2 * generator.standard_normal(s.shape, np.float32)), shapes
  )


def run(module, variables, *given):
  return jax.jit(lambda v, given: module.apply(v, *given))(variables, given)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("grid", "depth"), [((7, 10), 0), ((8, 12), 1), ((7, 10), 2), ((1, 5), 2)]
)
def test_any_grid_keeps_its_size(grid, depth):
  module = build(depth=depth)
  y = run(module, variables_of(module, grid), *arguments(grid))
  assert y.shape == (B, T_OUT, *grid, C) and y.dtype == jnp.float32
  assert jnp.isfinite(y).all()
  assert (jnp.std(y, axis=(0, 1, 2, 3)) > 0.01).all()


@pytest.mark.slow
def test_fresh_parameters_predict_zero():
  module = build()
  init = jax.jit(module.init_with_output)
  y, variables = init(jax.random.key(0), *arguments())
  np.testing.assert_array_equal(y, 0)
  assert jnp.abs(variables["params"]["stem"]["kernel"]).max() > 0


@pytest.mark.slow
def test_every_parameter_gets_a_finite_gradient():
  grid = (4, 6)
  module = build(depth=1, padding_mode="circular", blocks=2)
  variables = variables_of(module, grid)

  def loss(variables):
    y = module.apply(variables, *arguments(grid))
    return jnp.mean(jnp.square(y - 1))

  gradients = jax.jit(jax.grad(loss))(variables)["params"]
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


@pytest.mark.slow
def test_every_argument_matters():
  module = build()
  variables = variables_of(module)
  given = arguments()
  apply = jax.jit(module.apply)
  expected = apply(variables, *given)
  for i, x in enumerate(given):
    changed = (*given[:i], x + 9, *given[i + 1 :])
    assert jnp.abs(apply(variables, *changed) - expected).max() > 1e-3, i


@pytest.mark.slow
def test_examples_do_not_mix():
  module = build()
  variables = variables_of(module)
  expected = run(module, variables, *arguments())
  alone = run(module, variables, *(x[1:] for x in arguments()))
  np.testing.assert_allclose(alone, expected[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_recomputing_the_blocks_changes_nothing():
  plain, remat = (build(depth=0, dropout=0.3, remat=remat) for remat in (False, True))
  variables = variables_of(plain)

  def loss(module):
    rngs = {"dropout": jax.random.key(3)}
    return lambda v: jnp.mean(
      jnp.square(module.apply(v, *arguments(), True, rngs=rngs))
    )

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    jax.jit(jax.grad(loss(remat)))(variables),
    jax.jit(jax.grad(loss(plain)))(variables),
  )


@pytest.mark.slow
def test_bfloat16_is_close():
  module = build(dtype="bfloat16")
  variables = variables_of(module)
  y = run(module, variables, *arguments())
  exact = run(build(), variables, *arguments())
  assert y.dtype == jnp.float32
  error = jnp.abs(y - exact).max() / jnp.abs(exact).max()
  assert 0 < error < 0.1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(features=5), "model.groups"),
    (dict(depth=-1), "model.depth"),
    (dict(blocks=0), "model.blocks"),
    (dict(step_dim=5), "model.step_dim"),
    (dict(dropout=1.0), "model.dropout"),
    (dict(padding_mode="circle"), "circular"),
  ],
)
def test_wrong_options_are_refused_by_name(options, message):
  with pytest.raises(models.NetworkError, match=message):
    build(**options)


def test_a_circular_grid_must_halve_evenly():
  with pytest.raises(models.NetworkError, match="model.depth"):
    build(padding_mode="circular").init(jax.random.key(0), *arguments())
