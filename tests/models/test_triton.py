import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models

SMALL = dict(
  spatial_features=8,
  temporal_features=16,
  spatial_depth=2,
  temporal_depth=3,
  mlp_ratio=2.0,
)
FRAMES, HEIGHT, WIDTH, CHANNELS = 3, 6, 10, 2

# Each program runs once or twice: compiling it counts, not its speed.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def inputs(seed=0, batch=2, shape=(FRAMES, HEIGHT, WIDTH, CHANNELS)):
  return jax.random.normal(jax.random.key(seed), (batch, *shape))


def build(**options):
  return models.build("triton", **SMALL | options)


def shapes_of(module, shape=(FRAMES, HEIGHT, WIDTH, CHANNELS)):
  return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))


def lively(module):
  """Variables of which every block counts, whatever the initial scales."""
  generator = np.random.default_rng(0)

  def draw(path, leaf):
    value = 0.2 * generator.standard_normal(leaf.shape).astype(np.float32)
    return jnp.asarray(1 + value if path[-1].key == "var" else value)

  return jax.tree_util.tree_map_with_path(draw, shapes_of(module))


@pytest.mark.parametrize(
  ("options", "shape", "expected"),
  [
    ({}, (1, 180, 360, 69), 28_066_885),  # Weather.
    ({"out_channels": 93}, (1, 120, 240, 97), 28_137_565),  # Ocean.
    ({"core_first": "conv"}, (10, 256, 256, 2), 94_607_362),  # Kuroshio.
    ({}, (10, 256, 256, 2), 108_171_266),  # Its fine-tuning.
    (  # Turbulence.
      {"spatial_features": 128, "temporal_features": 256},
      (1, 128, 128, 1),
      6_999_553,
    ),
  ],
)
def test_the_published_networks_have_their_number_of_parameters(
  options, shape, expected
):
  params = shapes_of(models.build("triton", **options), shape)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_forecast_may_have_other_channels_than_the_history(depth):
  module = build(out_channels=5, spatial_depth=depth)
  y, _ = jax.eval_shape(
    functools.partial(module.init_with_output, train=True), jax.random.key(0), inputs()
  )
  assert y.shape == (2, FRAMES, HEIGHT, WIDTH, 5)
  assert y.dtype == jnp.float32


@functools.cache
def gradients_of_parameters(remat):
  module = build(core_first="conv", remat=remat)  # Has blocks of both kinds.
  variables = lively(module)

  def loss(params):
    y, _ = module.apply(
      variables | {"params": params},
      inputs(),
      True,
      rngs={"dropout": jax.random.key(0)},
      mutable=["batch_stats"],
    )
    return jnp.mean(jnp.square(y - 1))

  return jit(jax.grad(loss))(variables["params"])


@pytest.mark.slow
def test_every_parameter_gets_a_finite_gradient():
  leaves = jax.tree_util.tree_leaves_with_path(gradients_of_parameters(False))
  for path, leaf in leaves:
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


@pytest.mark.slow
def test_recomputing_blocks_changes_no_gradient():
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    gradients_of_parameters(False),
    gradients_of_parameters(True),
  )


@pytest.mark.slow
def test_a_pixel_counts_for_all_later_ones_in_every_frame():
  module = build()
  forecast = jit(functools.partial(module.apply, lively(module)))
  x = inputs(batch=1)
  change = forecast(x.at[0, 0, 1, 2].add(1.0)) - forecast(x)
  assert (jnp.abs(change).max(-1) > 1e-7).all()


@pytest.mark.parametrize(
  ("core_first", "width", "local"),
  [
    ("attention", 16, []),
    ("conv", 16, ["block_0", "block_2"]),
    ("conv", 24, ["block_0"]),  # The width of three frames: none is resized.
  ],
)
def test_the_ends_of_a_conv_core_mix_near_pixels_only(core_first, width, local):
  shapes = shapes_of(build(core_first=core_first, temporal_features=width))
  found = shapes.get("batch_stats", {"core": {}})["core"]
  assert sorted(found) == local
  resized = [name for name, x in shapes["params"]["core"].items() if "resize" in x]
  assert resized == ([] if width == 24 else ["block_0", "block_2"])


@pytest.mark.slow
def test_initial_values_are_torchs():
  module = models.build(
    "triton", spatial_features=32, temporal_features=128, temporal_depth=2
  )
  shape = (2, 8, 12, 3)
  params = jit(module.init)(jax.random.key(0), jnp.zeros((1, *shape)))["params"]
  core = params["core"]["block_1"]["core"]
  np.testing.assert_array_equal(core["scale_1"], np.float32(1e-6))
  np.testing.assert_array_equal(core["scale_2"], np.float32(1e-6))
  qkv = core["mixer"]["attention"]["qkv"]
  assert np.std(qkv["kernel"]) == pytest.approx(0.02, rel=0.05)
  np.testing.assert_array_equal(qkv["bias"], 0)
  for layer, fan_in in (
    (params["encoder"]["layer_0"]["conv"], 9 * 3),
    (params["encoder"]["layer_1"]["conv"], 9 * 32),
    (params["decoder"]["layer_0"]["conv"], 9 * 32),  # Transposed.
    (params["decoder"]["layer_3"]["conv"], 9 * 64),
    (params["decoder"]["readout"], 32),
    (core["position"], 9),
    (params["core"]["block_1"]["resize"], 128),
  ):
    for leaf in layer.values():
      largest = np.abs(leaf).max() * fan_in**0.5
      assert largest <= 1 and (leaf.size < 64 or largest > 0.9)


def training_passes(module, batch):
  variables, x = lively(module), inputs(batch=batch)
  run = jit(
    lambda key: module.apply(
      variables, x, True, rngs={"dropout": key}, mutable=["batch_stats"]
    )[0]
  )
  return run(jax.random.key(0)), run(jax.random.key(1))


@pytest.mark.slow
def test_stochastic_depth_is_on_unless_it_is_0():
  first, second = training_passes(build(drop_path=0.9), 4)
  assert jnp.abs(first - second).max() > 1e-3
  np.testing.assert_array_equal(*training_passes(build(drop_path=0.0), 2))


@pytest.mark.slow
def test_bfloat16_is_close_to_float32():
  exact, rough = build(), build(dtype="bfloat16")
  variables, x = lively(exact), inputs()
  y, z = (jit(module.apply)(variables, x) for module in (exact, rough))
  assert z.dtype == jnp.float32
  error = jnp.abs(y - z).max() / jnp.abs(y).max()
  assert 0 < error < 0.05
  assert {x.dtype.name for x in jax.tree.leaves(shapes_of(rough))} == {"float32"}


@pytest.mark.slow
@pytest.mark.parametrize("padding_mode", ["circular", "zeros"])
def test_only_circular_padding_has_no_preferred_place(padding_mode):
  # Rolling by multiples of the down-sampling factor (2) rolls the forecast.
  module = build(padding_mode=padding_mode, core_first="conv")
  forecast = jit(functools.partial(module.apply, lively(module)))
  x = inputs(batch=1)
  rolled = forecast(jnp.roll(x, (2, -4), (2, 3)))
  error = jnp.abs(rolled - jnp.roll(forecast(x), (2, -4), (2, 3))).max()
  assert error < 1e-5 if padding_mode == "circular" else error > 1e-3


def test_a_grid_that_cannot_be_halved_is_refused():
  module = build(spatial_depth=4)
  message = "6 x 8; expected multiples of 4.*change model.spatial_depth.*pad"
  with pytest.raises(models.NetworkError, match=message):
    shapes_of(module, (2, 6, 8, 1))
  shapes_of(build(spatial_depth=3), (2, 6, 8, 1))


def test_a_width_that_the_heads_do_not_divide_is_refused():
  with pytest.raises(models.NetworkError, match="8 heads.*width 18"):
    shapes_of(build(spatial_features=6))


def test_an_input_without_time_is_refused():
  with pytest.raises(models.NetworkError, match=r"\[B, T, H, W, C\]"):
    shapes_of(build(), (8, 8, 1))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"core_first": "convs"}, "did you mean conv"),
    ({"spatial_depth": 0}, "spatial_depth is 0"),
    ({"temporal_depth": 1}, "temporal_depth is 1"),
    ({"spatial_features": 7}, "spatial_features is 7"),
    ({"drop_path": 1.0}, "drop_path is 1.0"),
    ({"padding_mode": "circle"}, "did you mean circular"),
  ],
)
def test_wrong_options_are_refused_by_name(options, message):
  with pytest.raises(models.NetworkError, match=message):
    build(**options)
