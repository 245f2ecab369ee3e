import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import drawn, shapes_of

from stjax import models

SMALL = dict(
  spatial_features=8,
  temporal_features=16,
  spatial_depth=2,
  temporal_depth=3,
  mlp_ratio=2.0,
)
SHAPE = (3, 6, 10, 2)


def build(**options):
  return models.build("triton", **SMALL | options)


@pytest.mark.parametrize("depth", [1, 3])
def test_an_odd_number_of_layers_doubles_as_often_as_it_halves(depth):
  x = jnp.zeros((2, *SHAPE))
  y, _ = jax.eval_shape(
    build(spatial_depth=depth).init_with_output, jax.random.key(0), x
  )
  assert y.shape == x.shape


@pytest.mark.slow
def test_a_pixel_counts_for_all_later_ones_in_every_frame():
  module = build()
  forecast = jax.jit(functools.partial(module.apply, drawn(module, SHAPE)))
  x = jax.random.normal(jax.random.key(0), (1, *SHAPE))
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
  shapes = shapes_of(build(core_first=core_first, temporal_features=width), SHAPE)
  found = shapes.get("batch_stats", {"core": {}})["core"]
  assert sorted(found) == local
  resized = [name for name, x in shapes["params"]["core"].items() if "resize" in x]
  assert resized == ([] if width == 24 else ["block_0", "block_2"])


@pytest.mark.slow
def test_initial_values_are_torchs():
  module = models.build(
    "triton", spatial_features=32, temporal_features=128, temporal_depth=2
  )
  x = jnp.zeros((1, 2, 8, 12, 3))
  params = jax.jit(module.init)(jax.random.key(0), x)["params"]
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


def test_a_width_that_the_heads_do_not_divide_is_refused():
  with pytest.raises(models.NetworkError, match="8 heads.*width 18"):
    shapes_of(build(spatial_features=6), SHAPE)
