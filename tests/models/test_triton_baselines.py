"""FourCastNet, DiT, LSM, MgNO, ConvLSTM's states, the first SimVP."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models

FIRST_SIMVP = dict(
  first_version=True,
  translator="incepu",
  inception_kernels=(3, 5),
  inception_groups=2,
  spatial_features=4,
  temporal_features=8,
  temporal_depth=2,
)
# By test id: name, options of a small network, (T, H, W, C) of its input.
NETWORKS = {
  "convlstm_states": ("convlstm_states", {"depth": 2}, (3, 5, 7, 2)),
  "dit": (
    "dit",
    dict(spatial_features=4, spatial_depth=2, features=8, depth=2),
    (3, 6, 10, 2),
  ),
  "fourcastnet": (
    "fourcastnet",
    dict(features=8, depth=2, blocks=2, patch_size=(2, 3)),
    (3, 6, 15, 2),
  ),
  "lsm": (
    "lsm",
    dict(features=8, depth=1, patch_size=(3, 1), heads=4, padding=(1, 0)),
    (3, 5, 9, 2),
  ),
  "lsm, transposed": (
    "lsm",
    dict(features=8, depth=2, patch_size=1, bilinear=False),
    (2, 5, 7, 3),
  ),
  "mgno": (
    "mgno",
    dict(depth=2, iterations=((1, 1), (2, 0), (1, 1)), features=4),
    (3, 5, 10, 2),
  ),
  "simvp, first version": ("simvp", FIRST_SIMVP, (3, 4, 12, 2)),
}
# Those that take longest to compile.
LARGE = ("dit", "lsm", "lsm, transposed", "mgno", "simvp, first version")
some_slow = pytest.mark.parametrize(
  "case",
  [
    pytest.param(case, marks=pytest.mark.slow if case in LARGE else ())
    for case in NETWORKS
  ],
)
every = pytest.mark.parametrize("case", NETWORKS)

# Each program runs once or twice: compiling it counts, not its speed.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def build(case, **options):
  name, small, shape = NETWORKS[case]
  return models.build(name, **small | options), shape


def inputs(shape, batch=2):
  return jax.random.normal(jax.random.key(0), (batch, *shape))


def shapes_of(module, shape):
  return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))


def lively(module, shape):
  """Variables of which every layer counts, whatever the initial values."""
  generator = np.random.default_rng(0)

  def draw(path, leaf):
    value = 0.3 * generator.standard_normal(leaf.shape).astype(np.float32)
    return jnp.asarray(1 + value if path[-1].key == "var" else value)

  return jax.tree_util.tree_map_with_path(draw, shapes_of(module, shape))


@pytest.mark.parametrize("out_channels", [None, 5])
@every
def test_there_are_as_many_frames_as_before_on_odd_grids(case, out_channels):
  module, shape = build(case, out_channels=out_channels)
  y, _ = jax.eval_shape(
    functools.partial(module.init_with_output, train=True),
    jax.random.key(0),
    inputs(shape),
  )
  assert y.shape == (2, *shape[:3], out_channels or shape[3])
  assert y.dtype == jnp.float32


@some_slow
def test_bfloat16_is_close_to_float32(case):
  exact, shape = build(case)
  rough, _ = build(case, dtype="bfloat16")
  variables, x = lively(exact, shape), inputs(shape)
  y, z = (jit(module.apply)(variables, x) for module in (exact, rough))
  assert z.dtype == jnp.float32
  error = jnp.abs(y - z).max() / jnp.abs(y).max()
  assert 0 < error < 0.05
  leaves = jax.tree.leaves(shapes_of(rough, shape))
  assert {leaf.dtype.name for leaf in leaves} == {"float32"}


def gradients(module, shape):
  variables, x = lively(module, shape), inputs(shape)

  def loss(params):
    y, _ = module.apply(
      variables | {"params": params}, x, True, mutable=["batch_stats"]
    )
    return jnp.mean(jnp.square(y - 1))

  return jit(jax.grad(loss))(variables["params"])


@pytest.mark.slow
@every
def test_every_parameter_gets_a_finite_gradient(case):
  tree = gradients(*build(case))
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


@pytest.mark.slow
@pytest.mark.parametrize(
  "case", ["convlstm_states", "dit", "fourcastnet", "mgno", "simvp, first version"]
)
def test_recomputing_changes_no_gradient(case):
  module, shape = build(case, remat=False)
  again, _ = build(case, remat=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
    gradients(module, shape),
    gradients(again, shape),
  )


@pytest.mark.slow
@pytest.mark.parametrize("case", ["fourcastnet", "lsm", "mgno"])
@pytest.mark.parametrize("frames", ["channels", "batch"])
def test_frames_are_seen_together_or_each_alone(case, frames):
  module, shape = build(case, frames=frames)
  x = inputs(shape)
  forecast = jit(functools.partial(module.apply, lively(module, shape)))
  change = jnp.abs(forecast(x.at[:, 1].add(1.0)) - forecast(x))
  changed = change.max((0, 2, 3, 4)) > 1e-6
  assert changed.tolist() == [frames == "channels", True, frames == "channels"]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("case", "one", "other"),
  [
    ("dit", {"time_step": 0}, {"time_step": 411}),
    ("fourcastnet", {"double_skip": False}, {"double_skip": True}),
    ("fourcastnet", {"modes": 0.5}, {"modes": 1.0}),
    ("fourcastnet", {"legacy_modes": False}, {"legacy_modes": True}),
  ],
)
def test_options_without_weights_make_a_difference(case, one, other):
  (first, shape), (second, _) = build(case, **one), build(case, **other)
  variables, x = lively(first, shape), inputs(shape)
  y, z = (jit(module.apply)(variables, x) for module in (first, second))
  assert jnp.abs(y - z).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("padding_mode", ["circular", "zeros"])
@pytest.mark.parametrize(("case", "step"), [("mgno", 4), ("convlstm_states", 1)])
def test_only_circular_padding_has_no_preferred_place(case, step, padding_mode):
  # Rolling by multiples of the coarsest cell rolls the forecast.
  module, _ = build(case, padding_mode=padding_mode)
  shape = (2, 8, 12, 2)
  forecast = jit(functools.partial(module.apply, lively(module, shape)))
  x = inputs(shape)
  rolled = forecast(jnp.roll(x, (step, -step), (2, 3)))
  wanted = jnp.roll(forecast(x), (step, -step), (2, 3))
  error = jnp.abs(rolled - wanted).max() / jnp.abs(wanted).max()
  assert error < 1e-5 if padding_mode == "circular" else error > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("option", ["dropout", "drop_path"])
def test_what_fourcastnet_drops_is_dropped_in_training_only(option):
  module, shape = build("fourcastnet", **{option: 0.5})
  variables, x = lively(module, shape), inputs(shape, batch=4)

  @functools.partial(jit, static_argnums=0)
  def run(train, seed):
    return module.apply(variables, x, train, rngs={"dropout": seed})

  seeds = jax.random.key(0), jax.random.key(1)
  first, second = (run(True, seed) for seed in seeds)
  assert jnp.abs(first - second).max() > 1e-3
  np.testing.assert_array_equal(*(run(False, seed) for seed in seeds))


@every
def test_an_input_without_time_is_refused(case):
  module, shape = build(case)
  with pytest.raises(models.NetworkError, match=r"\[B, T, H, W, C\]"):
    shapes_of(module, shape[1:])


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("convlstm_states", {"kernel_size": (3, 4)}, "kernel_size is"),
    ("convlstm_states", {"features": (3, 4), "depth": 2}, "1 as model.depth"),
    ("convlstm_states", {"padding_mode": "circle"}, "did you mean circular"),
    ("dit", {"features": 6}, "features is 6.*multiple of 4"),
    ("dit", {"features": 8, "heads": 3}, "multiple of model.heads = 3"),
    ("dit", {"position": "learnt"}, "did you mean learned"),
    ("dit", {"time_step": -1}, "time_step is -1"),
    ("dit", {"spatial_depth": 0}, "spatial_depth is 0"),
    ("fourcastnet", {"features": 24}, "multiple of model.blocks = 16"),
    ("fourcastnet", {"modes": 0}, "modes is 0"),
    ("fourcastnet", {"patch_size": (2, 2, 2)}, "patch_size is"),
    ("fourcastnet", {"drop_path": 1.0}, "drop_path is 1.0"),
    ("lsm", {"features": 12}, "multiple of model.heads = 8"),
    ("lsm", {"padding": -1}, "padding is -1"),
    ("lsm", {"basis": 0}, "basis is 0"),
    ("mgno", {"iterations": ((0, 1),)}, "iterations is"),
    ("mgno", {"iterations": ()}, "iterations is"),
    ("mgno", {"padding_mode": "circle"}, "did you mean circular"),
    ("simvp", {"first_version": True, "decoder_kernel": 5}, "kernels of 3"),
    ("simvp", {"first_version": True, "spatial_depth": 0}, "at least 1"),
    ("simvp", {"spatial_depth": 3}, "even"),
    ("simvp", {"inception_kernels": (4,)}, "inception_kernels is"),
  ],
)
def test_wrong_options_are_refused_by_name(name, options, message):
  with pytest.raises(models.NetworkError, match=message):
    models.build(name, **options)


@pytest.mark.parametrize(
  ("case", "shape", "message"),
  [
    ("dit", (1, 5, 6, 1), "5 x 6.*change model.spatial_depth"),
    ("fourcastnet", (1, 6, 14, 1), "6 x 14.*model.patch_size = 2 x 3"),
    ("lsm", (1, 8, 10, 1), "4 x 5 after halving 9 x 10 1 times"),
    ("lsm, transposed", (1, 3, 9, 1), "0 x 2 after.*model.depth"),
  ],
)
def test_a_grid_that_does_not_fit_is_refused(case, shape, message):
  module, _ = build(case)
  with pytest.raises(models.NetworkError, match=message):
    shapes_of(module, shape)


@pytest.mark.parametrize(
  ("name", "options", "shape", "expected"),
  [
    ("fourcastnet", {"out_channels": 93}, (1, 120, 240, 97), 4_214_016),
    ("lsm", {"basis": 12}, (10, 64, 64, 1), 19_188_033 + 9 * 129),
    ("mgno", {}, (1, 32, 32, 1), 2402 - 6 * 20),
    (
      "simvp",
      dict(first_version=True, translator="incepu", temporal_features=128),
      (10, 64, 64, 2),
      4_728_578,
    ),
  ],
)
def test_the_published_networks_have_their_number_of_parameters(
  name, options, shape, expected
):
  # LSM's readout was for one frame; MgNO's unread weights are left out.
  params = shapes_of(models.build(name, **options), shape)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
