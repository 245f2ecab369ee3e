"""Properties that all forecasting networks have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import drawn, shapes_of

from stjax import methods, models

SIMVP = dict(
  spatial_features=8,
  temporal_features=16,
  spatial_depth=2,
  temporal_depth=2,
  mlp_ratio=2.0,
)
FIRST_SIMVP = dict(
  first_version=True,
  translator="incepu",
  inception_kernels=(3, 5),
  inception_groups=2,
  spatial_features=4,
  temporal_features=8,
  temporal_depth=2,
)
RECURRENT = dict(horizon=3, features=8, depth=2, kernel_size=3, patch_size=2)
# By test id: name, options of a small network, and (T, H, W, C) of its input,
# an odd grid if it takes one.
NETWORKS = {
  "cno": (
    "cno",
    dict(features=4, depth=1, neck_blocks=2, lift_features=6),
    (3, 7, 9, 2),
  ),
  "convlstm": ("convlstm", RECURRENT, (3, 6, 10, 2)),
  "convlstm_states": ("convlstm_states", dict(depth=2), (3, 5, 7, 2)),
  "convlstm_states, readout": (
    "convlstm_states",
    dict(depth=2, features=4, horizon=3),
    (3, 5, 7, 2),
  ),
  "dit": (
    "dit",
    dict(spatial_features=4, spatial_depth=2, features=8, depth=2),
    (3, 6, 10, 2),
  ),
  "earthfarseer": (
    "earthfarseer",
    dict(
      spatial_features=4,
      temporal_features=8,
      spatial_depth=2,
      temporal_depth=2,
      mlp_ratio=2.0,
      fourier_features=8,
      fourier_depth=1,
      fourier_mlp_ratio=1.5,
    ),
    (3, 16, 32, 2),
  ),
  "ffno": (
    "ffno",
    dict(
      horizon=3,
      features=6,
      modes_h=3,
      modes_w=4,
      depth=2,
      layer_norm=True,
      readout_features=8,
    ),
    (3, 7, 9, 2),
  ),
  "fno": (
    "fno",
    dict(features=6, modes_h=3, modes_w=3, depth=2, readout_features=8),
    (3, 7, 9, 2),
  ),
  "fourcastnet": (
    "fourcastnet",
    dict(features=8, depth=2, blocks=2, patch_size=(2, 3)),
    (3, 6, 15, 2),
  ),
  "gnot": (
    "gnot",
    dict(features=8, depth=1, heads=2, mlp_ratio=2, mlp_depth=1),
    (3, 5, 7, 2),
  ),
  "kno": ("kno", dict(features=5, modes_h=3, modes_w=3, steps=2), (3, 7, 9, 2)),
  "latent_head": (
    "latent_head",
    dict(
      backbone={"name": "resnet", "features": 4, "blocks": (1,)}, features=4, factor=1
    ),
    (3, 7, 9, 4),
  ),
  "lsm": (
    "lsm",
    dict(features=8, depth=1, patch_size=(3, 1), heads=4, padding=(1, 0)),
    (3, 5, 9, 2),
  ),
  "lsm, transposed": (
    "lsm",
    dict(features=8, depth=2, patch_size=1, bilinear=False),
    (3, 5, 7, 3),
  ),
  "mgno": (
    "mgno",
    dict(depth=2, iterations=((1, 1), (2, 0), (1, 1)), features=4),
    (3, 5, 10, 2),
  ),
  "predrnn": ("predrnn", RECURRENT, (3, 6, 10, 2)),
  "predrnn, norms": ("predrnn", RECURRENT | {"layer_norm": True}, (3, 6, 10, 2)),
  "resnet": ("resnet", dict(features=4, blocks=(1, 2)), (3, 7, 9, 2)),
  **{
    f"simvp, {translator}": ("simvp", SIMVP | {"translator": translator}, (2, 8, 12, 1))
    for translator in ("gsta", "incepu", "poolformer", "uniformer")
  },
  "simvp, first version": ("simvp", FIRST_SIMVP, (3, 4, 12, 2)),
  "triton": ("triton", SIMVP | {"core_first": "conv"}, (3, 6, 10, 2)),
  "unet": ("unet", dict(features=4, depth=1), (3, 7, 9, 2)),
  "unet_strided": ("unet_strided", dict(features=4, depth=3), (3, 8, 16, 2)),
  "uno": (
    "uno",
    dict(horizon=3, features=4, padding=1, instance_norm=True),
    (3, 11, 14, 2),
  ),
}
# A network that forecasts nothing, and whose codes have no slope.
OTHERS = {"vq": ("vq", dict(out_channels=2, features=4, codes=5), (3, 6, 10, 2))}
WITHOUT = {  # Networks that lack an option.
  "out_channels": ("convlstm", "kno", "latent_head", "predrnn", "predrnn, norms"),
  "remat": ("ffno", "kno", "latent_head", "lsm", "lsm, transposed", "uno"),
}
# Those that compile fast enough for the tests that are not slow.
FAST = ("convlstm_states", "fno", "fourcastnet", "kno", "resnet", "unet")


def cases(*names, without=()):
  """Parametrises by network; those that take long to compile are slow."""
  return pytest.mark.parametrize(
    "case",
    [
      pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
      for name in names or NETWORKS
      if name not in without
    ],
  )


every = pytest.mark.parametrize("case", NETWORKS)
imaged = ("cno", "fourcastnet", "lsm", "mgno", "resnet", "unet", "unet_strided")


def build(case, **options):
  name, small, shape = (NETWORKS | OTHERS)[case]
  return models.build(name, **small | options), shape


def inputs(shape, batch=2):
  return jax.random.normal(jax.random.key(0), (batch, *shape))


@pytest.mark.parametrize(
  ("name", "options", "shape", "expected"),
  [
    # Less the unit that nothing calls.
    ("cno", dict(depth=3), (10, 8, 8, 1), 2_667_034 - 9 * 32**2 - 3 * 32),
    # Less OpenSTL's conv_o and conv_last of four cells, which are never used.
    (
      "convlstm",
      dict(horizon=10),
      (10, 64, 64, 1),
      15_083_520 - 4 * (25 * 256 * 128 + 256 * 128),
    ),
    # Less the layers that are never called.
    (
      "ffno",
      dict(horizon=1, out_channels=1),
      (1, 64, 64, 3),
      1_088_449 - 3 * 65 * 64 - (2 * 129 * 64 + 2 * 128),
    ),
    # Every mode has a real and an imaginary part.
    ("fno", {}, (1, 64, 64, 1), 8_413_953 + 4 * 2 * 64**2 * 16**2),
    ("fourcastnet", {"out_channels": 93}, (1, 120, 240, 97), 4_214_016),
    ("kno", {}, (10, 64, 64, 2), 66_154 + 16**4),
    # The original's readout is for one frame.
    ("lsm", {"basis": 12}, (10, 64, 64, 1), 19_188_033 + 9 * 129),
    # Less the weights that are never read.
    ("mgno", {}, (1, 32, 32, 1), 2402 - 6 * 20),
    ("predrnn", dict(horizon=10), (10, 64, 64, 1), 23_838_720),
    ("resnet", {}, (1, 8, 8, 1), 21_114_241),
    (
      "resnet",
      dict(stem=False, project=True, blocks=(3, 4, 4, 3)),
      (10, 8, 8, 1),
      20_316_490,
    ),
    (
      "simvp",
      dict(spatial_features=8, temporal_features=16, spatial_depth=2, temporal_depth=2),
      (10, 64, 64, 1),
      156_233,
    ),
    (
      "simvp",
      dict(first_version=True, translator="incepu", temporal_features=128),
      (10, 64, 64, 2),
      4_728_578,
    ),
    ("triton", {}, (1, 180, 360, 69), 28_066_885),  # Weather.
    ("triton", {"out_channels": 93}, (1, 120, 240, 97), 28_137_565),  # Ocean.
    ("triton", {"core_first": "conv"}, (10, 256, 256, 2), 94_607_362),  # Kuroshio.
    ("triton", {}, (10, 256, 256, 2), 108_171_266),  # Its fine-tuning.
    (  # Turbulence.
      "triton",
      {"spatial_features": 128, "temporal_features": 256},
      (1, 128, 128, 1),
      6_999_553,
    ),
    ("unet", {"frames": "batch"}, (10, 16, 16, 2), 7_702_466),
    ("unet_strided", {}, (10, 32, 32, 1), 24_952_606),
    (
      "uno",
      dict(horizon=1),
      (10, 64, 64, 1),
      15_290_065
      + 2 * 22**2 * 32 * (48 + 96)
      + 2 * 14**2 * 48 * (96 + 192)
      + 2 * 6**2 * 192 * (96 + 192 + 96),
    ),
    *(
      ("simvp", {"translator": translator}, (10, 64, 64, 1), number)
      for translator, number in {
        "incepu": 57_946_113,
        "gsta": 46_769_665,
        "convmixer": 3_919_361,
        "convnext": 37_313_921,
        "hornet": 45_738_305,
        "mlpmixer": 38_192_449,
        "moganet": 46_777_065,
        "poolformer": 37_115_393,
        "swin": 46_105_409,
        "uniformer": 44_834_817,
        "van": 44_520_833,
        "vit": 46_102_273,
        "tau": 44_656_001,
      }.items()
    ),
  ],
)
def test_the_published_networks_have_their_number_of_parameters(
  name, options, shape, expected
):
  params = shapes_of(models.build(name, **options), shape)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("out_channels", [None, 5])
@every
def test_there_are_as_many_frames_as_before_and_the_channels_asked_for(
  case, out_channels
):
  if out_channels and case in WITHOUT["out_channels"]:
    pytest.skip("it forecasts the channels of its input")
  module, shape = build(case, **{"out_channels": out_channels} if out_channels else {})
  y, _ = jax.eval_shape(
    functools.partial(module.init_with_output, train=True),
    jax.random.key(0),
    inputs(shape),
  )
  assert y.shape == (2, *shape[:3], out_channels or shape[3])
  assert y.dtype == jnp.float32


@functools.cache
def gradients(case, remat, train=False):
  """Gradients of the parameters, and whether anything is computed again."""
  options = {} if case in WITHOUT["remat"] else {"remat": remat}
  module, shape = build(case, **options)
  variables, x = drawn(module, shape), inputs(shape)

  def loss(params):
    y, _ = module.apply(
      variables | {"params": params},
      x,
      train,
      rngs={"dropout": jax.random.key(0)},
      mutable=["batch_stats"],
    )
    return jnp.mean(jnp.square(y - 1))

  grad = jax.grad(loss)
  recomputes = "remat" in str(jax.make_jaxpr(grad)(variables["params"]))
  return jax.jit(grad)(variables["params"]), recomputes


@pytest.mark.slow
@every
def test_every_network_can_be_the_agent_of_a_self_training(case):
  module, shape = build(case)
  history, _, _, channels = shape
  grid = {"inputs": shape, "targets": (history, *shape[1:])}
  batch = {name: jnp.zeros((2, *axes)) for name, axes in grid.items()}
  batch |= {"index": jnp.arange(2), "valid": jnp.ones(2, bool)}
  world = methods.build(
    "world_model",
    models.build("vq", out_channels=channels, features=4, depth=1, codes=4),
    horizon=history,
    candidates=2,
  )
  method = methods.build(
    "self_training",
    module,
    {"world": world},
    horizon=history,
    reward="mse",
    candidates=2,
  )
  frozen = {
    "world": {"variables": world.init(jax.random.key(0), batch), "frozen": {}},
    "offset": jnp.zeros(channels),
    "scale": jnp.ones(channels),
  }

  def loss(batch):
    variables = method.init(jax.random.key(0), batch)
    return method.loss(variables, frozen, batch, jax.random.key(1), train=True)

  value, outputs = jax.eval_shape(loss, batch)
  assert value.shape == () and "reward_best" in outputs.scalars


@pytest.mark.slow
@every
def test_every_parameter_gets_a_finite_gradient(case):
  leaves = jax.tree_util.tree_leaves_with_path(gradients(case, False)[0])
  for path, leaf in leaves:
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


@pytest.mark.slow
@pytest.mark.parametrize(
  "case", [name for name in (*NETWORKS, *OTHERS) if name not in WITHOUT["remat"]]
)
def test_recomputing_changes_no_gradient(case):
  # Paths that were dropped must be dropped again, which Triton's blocks do.
  train = case == "triton"
  (plain, recomputed), (again, recomputes) = (
    gradients(case, remat, train) for remat in (False, True)
  )
  assert recomputes and not recomputed
  # A bias before a norm has the gradient 0, but for the rounding of the others.
  rounding = 1e-7 * max(jnp.abs(a).max() for a in jax.tree.leaves(plain))
  for a, b in zip(*map(jax.tree.leaves, (plain, again)), strict=True):
    np.testing.assert_allclose(a, b, atol=max(1e-5 * jnp.abs(a).max(), rounding))


@cases()
def test_bfloat16_is_close_to_float32(case):
  (exact, shape), (rough, _) = build(case), build(case, dtype="bfloat16")
  variables, x = drawn(exact, shape), inputs(shape)
  y, z = (jax.jit(module.apply)(variables, x) for module in (exact, rough))
  assert z.dtype == jnp.float32
  error = jnp.abs(y - z).max() / jnp.abs(y).max()
  assert 0 < error < 0.05
  leaves = jax.tree.leaves(shapes_of(rough, shape))
  assert {leaf.dtype.name for leaf in leaves} == {"float32"}


@cases(*imaged)
@pytest.mark.parametrize("frames", ["channels", "batch"])
def test_frames_are_seen_together_or_each_alone(case, frames):
  module, shape = build(case, frames=frames, out_channels=5)
  x = inputs(shape)
  forecast = jax.jit(functools.partial(module.apply, drawn(module, shape)))
  y = forecast(x)
  assert y.shape == (*x.shape[:-1], 5) and y.dtype == jnp.float32
  change = jnp.abs(forecast(x.at[:, 1].add(1.0)) - y)
  changed = change.max((0, 2, 3, 4)) > 1e-6
  assert changed.tolist() == [frames == "channels", True, frames == "channels"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["cno", "unet"])
def test_training_normalises_by_the_batch_and_keeps_statistics(case):
  module, shape = build(case)
  variables, x = drawn(module, shape), inputs(shape)
  y, updated = jax.jit(
    lambda: module.apply(variables, x, True, mutable=["batch_stats"])
  )()
  old, new = variables["batch_stats"], updated["batch_stats"]
  assert jax.tree.structure(old) == jax.tree.structure(new)
  assert all(
    jnp.abs(a - b).max() > 1e-6
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
  )
  assert jnp.abs(y - jax.jit(module.apply)(variables, x)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
  ("case", "options"),
  [
    ("earthfarseer", {"dropout": 0.5}),
    ("ffno", {"dropout": 0.5}),
    ("fourcastnet", {"dropout": 0.5}),
    ("fourcastnet", {"drop_path": 0.5}),
    ("gnot", {"dropout": 0.5}),
    ("resnet", {"dropout": 0.5}),
    ("simvp, gsta", {"drop_path": 0.9, "dropout": 0.5}),
    ("simvp, gsta", {"drop_path": 0.0}),
    ("triton", {"drop_path": 0.9}),
    ("triton", {"drop_path": 0.0}),
    ("unet_strided", {"dropout": 0.5}),
  ],
)
def test_what_is_dropped_is_dropped_in_training_only(case, options):
  module, shape = build(case, **options)
  variables, x = drawn(module, shape), inputs(shape, batch=4)

  @functools.partial(jax.jit, static_argnums=0)
  def run(train, key):
    return module.apply(
      variables, x, train, rngs={"dropout": key}, mutable=["batch_stats"]
    )[0]

  first, second = jax.random.key(0), jax.random.key(1)
  np.testing.assert_array_equal(run(False, first), run(False, second))
  changes = jnp.abs(run(True, first) - run(True, second)).max()
  assert changes > 1e-3 if any(options.values()) else changes == 0
  jax.eval_shape(module.apply, variables, x)  # It needs no random key.


@pytest.mark.parametrize("padding_mode", ["circular", "zeros"])
@cases(
  "cno",
  "convlstm_states",
  "mgno",
  "resnet",
  "simvp, gsta",
  "simvp, incepu",
  "simvp, poolformer",
  "simvp, uniformer",
  "triton",
  "unet",
  "unet_strided",
  "vq",
)
def test_only_circular_padding_has_no_preferred_place(case, padding_mode):
  # Rolling by multiples of the coarsest cell rolls the forecast.
  module, (frames, *_, channels) = build(case, padding_mode=padding_mode)
  shape = (frames, 8, 16, channels)
  x = inputs(shape)
  forecast = jax.jit(functools.partial(module.apply, drawn(module, shape)))
  step = 8 if case == "unet_strided" else 4
  rolled = forecast(jnp.roll(x, (step, -step), (2, 3)))
  wanted = jnp.roll(forecast(x), (step, -step), (2, 3))
  error = jnp.abs(rolled - wanted).max() / jnp.abs(wanted).max()
  assert error < 1e-5 if padding_mode == "circular" else error > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
  ("case", "one", "other"),
  [
    ("dit", {"time_step": 0}, {"time_step": 411}),
    ("earthfarseer", {"legacy_product": False}, {"legacy_product": True}),
    ("fourcastnet", {"double_skip": False}, {"double_skip": True}),
    ("fourcastnet", {"modes": 0.5}, {"modes": 1.0}),
    ("fourcastnet", {"legacy_modes": False}, {"legacy_modes": True}),
  ],
)
def test_options_without_weights_make_a_difference(case, one, other):
  (first, shape), (second, _) = build(case, **one), build(case, **other)
  variables, x = drawn(first, shape), inputs(shape)
  y, z = (jax.jit(module.apply)(variables, x) for module in (first, second))
  assert jnp.abs(y - z).max() > 1e-3


@pytest.mark.parametrize("case", ["earthfarseer", "gnot"])
@pytest.mark.parametrize("horizon", [2, 7])
def test_the_horizon_may_differ_from_the_history(case, horizon):
  module, shape = build(case, horizon=horizon, out_channels=4)
  y = jax.eval_shape(module.apply, shapes_of(module, shape), jnp.zeros((2, *shape)))
  assert y.shape == (2, horizon, *shape[1:3], 4)


@every
def test_an_input_without_time_is_refused(case):
  module, shape = build(case)
  with pytest.raises(models.NetworkError, match=r"\[B, T, H, W, C\]"):
    shapes_of(module, shape[1:])


@pytest.mark.parametrize(
  ("case", "options", "grid", "message"),
  [
    ("convlstm", {"patch_size": 4}, (6, 8), "6 x 8.*patch_size = 4"),
    ("dit", {}, (5, 6), "5 x 6.*change model.spatial_depth"),
    ("earthfarseer", {}, (8, 12), "8 x 12.*multiples of 8.*pad_to_multiple"),
    ("earthfarseer", {"spatial_depth": 8}, (8, 8), "8 x 8; expected multiples of 16"),
    ("ffno", {}, (9, 5), "model.modes_w is 4.*9 x 5; expected at most 3"),
    ("ffno", {}, (3, 9), "model.modes_h is 3.*3 x 9; expected at most 2"),
    ("fourcastnet", {}, (6, 14), "6 x 14.*model.patch_size = 2 x 3"),
    ("latent_head", {"factor": 4}, (6, 8), "6 x 8.*multiples of model.factor = 4"),
    ("lsm", {}, (8, 10), "4 x 5 after halving 9 x 10 1 times"),
    ("lsm, transposed", {}, (3, 9), "0 x 2 after.*model.depth"),
    (
      "simvp, gsta",
      {"spatial_depth": 4},
      (6, 8),
      "6 x 8; expected multiples of 4.*change model.spatial_depth.*pad",
    ),
    ("triton", {"spatial_depth": 4}, (6, 8), "multiples of 4.*model.spatial_depth"),
    ("unet", {}, (8, 1), "8 x 1; expected at least 2.*lower model.depth"),
    ("unet", {"padding_mode": "circular"}, (8, 5), "multiples of 2.*depth"),
    ("unet_strided", {}, (8, 12), "8 x 12; expected multiples of 8.*depth"),
    ("vq", {}, (6, 9), "6 x 9; expected multiples of 2.*change model.depth"),
    ("uno", {}, (1, 9), "layer 2 .*'standard' has 0 x 2 pixels for.* 1 x 9.*padding"),
    ("uno", {"variant": "p"}, (8, 4), "layer 2 .*'p' has 1 x 0"),
    ("uno", {"modes": ((3, 3),) * 7}, (20, 8), "3 x 3 modes for layer 2.*5 x 2"),
    ("uno", {"modes": ((3, 3),) * 7}, (6, 20), "3 x 3 modes for layer 2.*2 x 5"),
  ],
)
def test_a_grid_that_does_not_fit_is_refused(case, options, grid, message):
  module, _ = build(case, **options)
  with pytest.raises(models.NetworkError, match=message):
    shapes_of(module, (2, *grid, 1))


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("cno", {"features": 5}, "model.features is 5.*even"),
    ("cno", {"depth": 0}, "model.depth is 0"),
    ("cno", {"kernel_size": 4}, "model.kernel_size is 4.*odd"),
    ("convlstm", {"horizon": 0}, "horizon is 0"),
    ("convlstm", {"horizon": 1, "kernel_size": 4}, "odd number"),
    ("convlstm_states", {"kernel_size": (3, 4)}, "kernel_size is"),
    ("convlstm_states", {"features": (3, 4), "depth": 2}, "1 as model.depth"),
    (
      "convlstm_states",
      {"features": (3,), "depth": 2, "horizon": 1},
      "layers, .* 2 as",
    ),
    ("convlstm_states", {"horizon": 0}, "model.horizon is 0"),
    ("convlstm_states", {"padding_mode": "circle"}, "did you mean 'circular"),
    ("dit", {"features": 6}, "features is 6.*multiple of 4"),
    ("dit", {"features": 8, "heads": 3}, "multiple of model.heads = 3"),
    ("dit", {"position": "learnt"}, "did you mean 'learned"),
    ("dit", {"time_step": -1}, "time_step is -1"),
    ("dit", {"spatial_depth": 0}, "spatial_depth is 0"),
    ("earthfarseer", {"fourier_features": 6}, "multiple of model.fourier_blocks = 4"),
    ("earthfarseer", {"fourier_mlp_ratio": 0.5}, "fourier_mlp_ratio is 0.5"),
    ("earthfarseer", {"horizon": 0}, "model.horizon is 0"),
    ("earthfarseer", {"spatial_depth": 3}, "spatial_depth is 3; expected an even"),
    ("ffno", {"horizon": 1, "feed_forward_depth": 0}, "feed_forward_depth is 0"),
    ("ffno", {"horizon": 1, "dropout": 1.0}, "dropout is 1.0"),
    ("ffno", {"horizon": 1, "latent_grid": (8, 0)}, "latent_grid is"),
    ("fno", {"horizon": 0}, "model.horizon is 0"),
    ("fno", {"modes_w": 0}, "model.modes_w is 0"),
    ("fourcastnet", {"features": 24}, "multiple of model.blocks = 16"),
    ("fourcastnet", {"modes": 0}, "modes is 0"),
    ("fourcastnet", {"patch_size": (2, 2, 2)}, "patch_size is"),
    ("fourcastnet", {"drop_path": 1.0}, "drop_path is 1.0"),
    ("gnot", {"activation": "gelo"}, "did you mean 'gelu"),
    ("gnot", {"dropout": 1.0}, "model.dropout is 1.0"),
    ("gnot", {"features": 9, "heads": 2}, "multiple of model.heads = 2"),
    ("gnot", {"horizon": 0}, "model.horizon is 0"),
    ("kno", {"steps": 0}, "model.steps is 0"),
    ("latent_head", {}, "model.backbone=None must name a network"),
    ("latent_head", {"backbone": {"name": "fno"}, "factor": 3}, "factor is 3.*power"),
    ("latent_head", {"backbone": {"name": "fnu"}}, "did you mean 'fno"),
    ("lsm", {"features": 12}, "multiple of model.heads = 8"),
    ("lsm", {"padding": -1}, "padding is -1"),
    ("lsm", {"basis": 0}, "basis is 0"),
    ("mgno", {"iterations": ((0, 1),)}, "iterations is"),
    ("mgno", {"iterations": ()}, "iterations is"),
    ("mgno", {"padding_mode": "circle"}, "did you mean 'circular"),
    ("resnet", {"blocks": (3, 0)}, "model.blocks is"),
    ("resnet", {"blocks": ()}, "model.blocks is"),
    ("resnet", {"dropout": 1.0}, "model.dropout is 1.0"),
    ("simvp", {"translator": "gstaa"}, "did you mean 'gsta"),
    ("simvp", {"spatial_depth": 3}, "spatial_depth is 3; expected an even"),
    ("simvp", {"temporal_depth": 1}, "temporal_depth is 1"),
    ("simvp", {"mlp_ratio": 1.0}, "mlp_ratio is 1.0"),
    ("simvp", {"spatial_features": 7}, "spatial_features is 7"),
    ("simvp", {"dropout": 1.0}, "dropout is 1.0"),
    ("simvp", {"drop_path": 1.5}, "drop_path is 1.5"),
    ("simvp", {"padding_mode": "circle"}, "did you mean 'circular"),
    ("simvp", {"temporal_feature": 8}, "did you mean 'temporal_features"),
    ("simvp", {"first_version": True, "decoder_kernel": 5}, "kernels of 3"),
    ("simvp", {"first_version": True, "spatial_depth": 0}, "at least 1"),
    ("simvp", {"inception_kernels": (4,)}, "inception_kernels is"),
    ("simpv", {}, "did you mean 'simvp"),
    ("triton", {"core_first": "convs"}, "did you mean 'conv"),
    ("triton", {"spatial_depth": 0}, "spatial_depth is 0"),
    ("triton", {"temporal_depth": 1}, "temporal_depth is 1"),
    ("triton", {"spatial_features": 7}, "spatial_features is 7"),
    ("triton", {"drop_path": 1.0}, "drop_path is 1.0"),
    ("triton", {"padding_mode": "circle"}, "did you mean 'circular"),
    ("unet", {"frames": "chanels"}, "model.frames.*did you mean 'channels"),
    ("unet", {"padding_mode": "circle"}, "did you mean 'circular"),
    ("unet", {"out_channels": 0}, "model.out_channels is 0"),
    ("unet_strided", {"features": 6}, "model.features is 6.*multiple of 4"),
    ("unet_strided", {"dropout": -0.1}, "model.dropout is -0.1"),
    ("uno", {"horizon": 0}, "horizon is 0"),
    ("vq", {"codes": 0}, "codes is 0"),
    ("vq", {"features": 3}, "model.features is 3.*multiple of 2"),
    ("vq", {"padding_mode": "circle"}, "did you mean 'circular"),
    ("uno", {"horizon": 1, "variant": "s25"}, "did you mean 's256"),
    ("uno", {"horizon": 1, "features": 1}, "features is 1"),
    ("uno", {"horizon": 1, "factor": 0.01}, "factor is 0.01.*at least 0.0156"),
    ("uno", {"horizon": 1, "modes": ((3, 3),) * 6}, "modes is.*7 pairs"),
    ("uno", {"horizon": 1, "modes": ((3, 0),) * 7}, "modes is.*at least 1"),
    ("uno", {"horizon": 1, "variant": "p", "legacy_crop": True}, "legacy_crop.*'p'"),
  ],
)
def test_wrong_options_are_refused_by_name(name, options, message):
  with pytest.raises(models.NetworkError, match=message):
    models.build(name, **options)
