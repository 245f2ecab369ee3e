import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import drawn

from stjax import models

# Each program runs once, so compiling it counts, not its speed.
QUICK = {"xla_backend_optimization_level": 0}


def build(**options):
  return models.build("uno", **dict(horizon=1, features=4) | options)


@pytest.mark.parametrize(
  ("variant", "grid", "standard"),
  [("standard", (30, 56), 22), ("p", (28, 52), 14), ("s256", (128, 256), 32)],
)
def test_layers_have_the_originals_modes_where_their_grids_do(variant, grid, standard):
  module = build(variant=variant)
  original = list(models.uno.VARIANTS[variant].modes)
  assert module.layer_modes(*grid) == original
  assert original[-1] == (standard, standard)
  for i in (0, 1):
    smaller = list(grid)
    smaller[i] -= 4
    assert module.layer_modes(*smaller) != original


def test_a_small_grid_has_all_its_modes():
  # Layers 2 and 3 share grids of 7 x 5 and of 3 x 2 with the layer before.
  modes = build().layer_modes(14, 10)
  assert modes == [(5, 4), (3, 3), (1, 2), (1, 2), (1, 2), (3, 3), (5, 4)]


def test_grids_follow_the_padded_field():
  sizes = [(18, 21), (12, 14), (6, 7), (6, 7), (12, 14), (18, 21), (24, 28)]
  assert build(padding=2).grids(20, 24) == sizes
  assert build(factor=1, padding=2).grids(20, 24)[0] == (24, 28)
  assert build(variant="p", factor=2).grids(32, 16)[:3] == [(16, 8), (8, 4), (4, 2)]


def test_widths_are_rounded_down():
  assert build(features=5).widths == (7, 15, 30, 30, 15, 7, 5)
  assert build(variant="p", features=5).widths == (10, 20, 40, 40, 20, 10, 5)
  assert build(variant="p", features=5, factor=0.5).widths[0] == 5


@pytest.mark.slow
def test_only_the_released_crop_moves_the_field():
  module = build(padding=3, modes=((2, 2),) * 7)
  released = build(padding=3, modes=((2, 2),) * 7, legacy_crop=True)
  x = jax.random.normal(jax.random.key(0), (1, 2, 10, 13, 2))
  variables = drawn(module, x.shape[1:])
  y, z = (
    jax.jit(network.apply, compiler_options=QUICK)(variables, x)
    for network in (module, released)
  )
  assert y.shape == (1, 1, 10, 13, 2) and z.shape == (1, 1, 13, 16, 2)
  np.testing.assert_array_equal(z[:, :, 3:, 3:], y)


@pytest.mark.parametrize("variant", models.uno.VARIANTS)
def test_every_variant_forecasts_any_number_of_frames(variant):
  module = build(variant=variant, horizon=5, out_channels=3, dtype="bfloat16")
  y, variables = jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.zeros((2, 4, 33, 40, 2))
  )
  assert y.shape == (2, 5, 33, 40, 3) and y.dtype == jnp.float32
  assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
