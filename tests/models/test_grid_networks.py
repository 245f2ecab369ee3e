"""What FNO, KNO, the U-Nets, ResNet and CNO have in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models

# Options of small networks, and an odd grid where they take one.
SMALL = {
  "cno": (dict(features=4, depth=1, neck_blocks=2, lift_features=6), (7, 9)),
  "fno": (dict(features=6, modes_h=3, modes_w=3, depth=2, readout_features=8), (7, 9)),
  "kno": (dict(features=5, modes_h=3, modes_w=3, steps=2), (7, 9)),
  "resnet": (dict(features=4, blocks=(1, 2)), (7, 9)),
  "unet": (dict(features=4, depth=1), (7, 9)),
  "unet_strided": (dict(features=4, depth=3), (8, 16)),
}
CONVOLVED = ("cno", "resnet", "unet", "unet_strided")
# Those that take longest to compile.
DEEP = ("cno", "unet_strided")
B, T, C = 2, 3, 2

# Each program runs once or twice: compiling it counts, not its speed.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def slow_if_deep(names):
  return [
    pytest.param(name, marks=[pytest.mark.slow] if name in DEEP else [])
    for name in names
  ]


def build(name, **options):
  return models.build(name, **SMALL[name][0] | options)


def inputs(name, seed=0, grid=None):
  shape = (B, T, *(grid or SMALL[name][1]), C)
  return jax.random.normal(jax.random.key(seed), shape)


def shapes_of(module, x):
  return jax.eval_shape(lambda: module.init(jax.random.key(0), x))


def lively(module, x):
  """Variables of which every layer counts, whatever the initial scales."""
  generator = np.random.default_rng(0)

  def draw(path, leaf):
    value = 0.3 * generator.standard_normal(leaf.shape).astype(np.float32)
    positive = path[-1].key in ("var", "scale")
    return jnp.asarray(1 + np.abs(value) if positive else value)

  return jax.tree_util.tree_map_with_path(draw, shapes_of(module, x))


@pytest.mark.parametrize(
  ("name", "options", "shape", "expected"),
  [
    # Every mode has a real and an imaginary part.
    ("fno", {}, (1, 64, 64, 1), 8_413_953 + 4 * 2 * 64**2 * 16**2),
    ("kno", {}, (10, 64, 64, 2), 66_154 + 16**4),
    ("unet", {"frames": "batch"}, (10, 16, 16, 2), 7_702_466),
    ("unet_strided", {}, (10, 32, 32, 1), 24_952_606),
    ("resnet", {}, (1, 8, 8, 1), 21_114_241),
    (
      "resnet",
      dict(stem=False, project=True, blocks=(3, 4, 4, 3)),
      (10, 8, 8, 1),
      20_316_490,
    ),
    # Less the unit that nothing calls.
    ("cno", dict(depth=3), (10, 8, 8, 1), 2_667_034 - 9 * 32**2 - 3 * 32),
  ],
)
def test_the_published_networks_have_their_number_of_parameters(
  name, options, shape, expected
):
  module = models.build(name, **options)
  params = shapes_of(module, jnp.zeros((1, *shape)))["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@functools.cache
def gradients(name, remat):
  module = build(name, **{"remat": remat} if name != "kno" else {})
  x = inputs(name)
  variables = lively(module, x)

  def loss(params):
    y = module.apply(variables | {"params": params}, x)
    assert y.shape == x.shape and y.dtype == jnp.float32
    return jnp.mean(jnp.square(y - 1))

  grad = jax.grad(loss)
  recomputes = "remat" in str(jax.make_jaxpr(grad)(variables["params"]))
  return jit(grad)(variables["params"]), recomputes


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_finite_gradient(name):
  leaves = jax.tree_util.tree_leaves_with_path(gradients(name, False)[0])
  for path, leaf in leaves:
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALL if name != "kno"])
def test_recomputing_changes_no_gradient(name):
  (plain, recomputed), (again, recomputes) = (
    gradients(name, remat) for remat in (False, True)
  )
  assert recomputes and not recomputed
  for a, b in zip(*map(jax.tree.leaves, (plain, again)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * jnp.abs(a).max())


@pytest.mark.parametrize("name", [name for name in SMALL if name != "kno"])
@pytest.mark.parametrize("frames", ["channels", "batch"])
def test_the_forecast_may_have_other_channels_than_the_history(name, frames):
  options = {"frames": frames} if name in CONVOLVED else {}
  module = build(name, out_channels=5, **options)
  x = inputs(name)
  y, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
  assert y.shape == (*x.shape[:-1], 5) and y.dtype == jnp.float32


@pytest.mark.parametrize("name", slow_if_deep(CONVOLVED))
@pytest.mark.parametrize("frames", ["channels", "batch"])
def test_frames_are_seen_together_or_each_alone(name, frames):
  module = build(name, frames=frames)
  x = inputs(name)
  forecast = jit(functools.partial(module.apply, lively(module, x)))
  change = jnp.abs(forecast(x.at[:, 1].add(1.0)) - forecast(x))
  changed = change.max((0, 2, 3, 4)) > 1e-6
  assert changed.tolist() == [frames == "channels", True, frames == "channels"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cno", "unet"])
def test_training_normalises_by_the_batch_and_keeps_statistics(name):
  module = build(name)
  x = inputs(name)
  variables = lively(module, x)
  y, updated = jit(lambda: module.apply(variables, x, True, mutable=["batch_stats"]))()
  old, new = variables["batch_stats"], updated["batch_stats"]
  assert jax.tree.structure(old) == jax.tree.structure(new)
  assert all(
    jnp.abs(a - b).max() > 1e-6
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
  )
  assert jnp.abs(y - jit(module.apply)(variables, x)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "unet_strided"])
def test_dropout_is_on_in_training_only(name):
  module = build(name, dropout=0.5)
  x = inputs(name)
  variables = lively(module, x)

  @functools.partial(jit, static_argnums=0)
  def run(train, key):
    return module.apply(
      variables, x, train, rngs={"dropout": key}, mutable=["batch_stats"]
    )[0]

  first, second = jax.random.key(0), jax.random.key(1)
  np.testing.assert_array_equal(run(False, first), run(False, second))
  assert jnp.abs(run(True, first) - run(True, second)).max() > 1e-3


@pytest.mark.parametrize("name", slow_if_deep(SMALL))
def test_bfloat16_is_close_to_float32(name):
  exact, rough = build(name), build(name, dtype="bfloat16")
  x = inputs(name)
  variables = lively(exact, x)
  y, z = (jit(module.apply)(variables, x) for module in (exact, rough))
  assert z.dtype == jnp.float32
  error = jnp.abs(y - z).max() / jnp.abs(y).max()
  assert 0 < error < 0.05
  leaves = jax.tree.leaves(shapes_of(rough, x))
  assert {leaf.dtype.name for leaf in leaves} == {"float32"}


@pytest.mark.parametrize("padding_mode", ["circular", "zeros"])
@pytest.mark.parametrize("name", slow_if_deep(CONVOLVED))
def test_only_circular_padding_has_no_preferred_place(name, padding_mode):
  # Rolling by multiples of the coarsest cell rolls the forecast.
  module = build(name, padding_mode=padding_mode)
  x = inputs(name, grid=(8, 16))
  forecast = jit(functools.partial(module.apply, lively(module, x)))
  rolled = forecast(jnp.roll(x, (8, -8), (2, 3)))
  wanted = jnp.roll(forecast(x), (8, -8), (2, 3))
  error = jnp.abs(rolled - wanted).max() / jnp.abs(wanted).max()
  assert error < 1e-5 if padding_mode == "circular" else error > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_an_input_without_time_is_refused(name):
  with pytest.raises(models.NetworkError, match=r"\[B, T, H, W, C\]"):
    shapes_of(build(name), jnp.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize(
  ("name", "options", "grid", "message"),
  [
    ("unet_strided", {}, (8, 12), "8 x 12; expected multiples of 8.*depth"),
    ("unet", dict(padding_mode="circular"), (8, 5), "multiples of 2.*depth"),
    ("unet", {}, (8, 1), "8 x 1; expected at least 2.*lower model.depth"),
  ],
)
def test_a_grid_that_cannot_be_halved_is_refused(name, options, grid, message):
  module = build(name, **options)
  with pytest.raises(models.NetworkError, match=message):
    shapes_of(module, inputs(name, grid=grid))


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("cno", dict(features=5), "model.features is 5.*even"),
    ("cno", dict(depth=0), "model.depth is 0"),
    ("cno", dict(kernel_size=4), "model.kernel_size is 4.*odd"),
    ("fno", dict(horizon=0), "model.horizon is 0"),
    ("fno", dict(modes_w=0), "model.modes_w is 0"),
    ("kno", dict(steps=0), "model.steps is 0"),
    ("resnet", dict(blocks=(3, 0)), "model.blocks is"),
    ("resnet", dict(blocks=()), "model.blocks is"),
    ("resnet", dict(dropout=1.0), "model.dropout is 1.0"),
    ("unet", dict(frames="chanels"), "model.frames.*did you mean channels"),
    ("unet", dict(padding_mode="circle"), "did you mean circular"),
    ("unet", dict(out_channels=0), "model.out_channels is 0"),
    ("unet_strided", dict(features=6), "model.features is 6.*multiple of 4"),
    ("unet_strided", dict(dropout=-0.1), "model.dropout is -0.1"),
  ],
)
def test_wrong_options_are_refused_by_name(name, options, message):
  with pytest.raises(models.NetworkError, match=message):
    build(name, **options)


def test_blocks_may_be_a_list():
  module = build("resnet", blocks=[1, 2])
  assert module == build("resnet") and hash(module) == hash(build("resnet"))


def test_a_block_that_changes_the_width_has_a_way_around_it_if_asked():
  x = inputs("resnet")
  for project in (False, True):
    params = shapes_of(build("resnet", project=project), x)["params"]
    found = [name for name, block in params.items() if "around" in block]
    assert found == (["block_1"] if project else [])


def test_the_necks_blocks_can_be_called_last_to_first():
  x = inputs("cno")
  plain, turned = (build("cno", neck_reversed=on) for on in (False, True))
  variables = lively(plain, x)
  y, z = (jit(module.apply)(variables, x) for module in (plain, turned))
  assert jnp.abs(y - z).max() > 1e-3

  def swap(tree):
    names = {"residual_1": "residual_2", "residual_2": "residual_1"}
    return {names.get(key, key): value for key, value in tree.items()}

  swapped = {key: swap(tree) for key, tree in variables.items()}
  np.testing.assert_allclose(jit(turned.apply)(swapped, x), y, rtol=1e-5)
