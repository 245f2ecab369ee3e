import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import drawn, shapes_of

from stjax import models
from stjax.models.translators.metaformer import drop_path_rates

SMALL = dict(
  spatial_features=8,
  temporal_features=16,
  spatial_depth=2,
  temporal_depth=2,
  mlp_ratio=2.0,
)


@pytest.mark.parametrize(
  ("last", "legacy", "expected"),
  [
    (0.0, False, [0.0, 0.0, 0.0]),
    (0.2, False, [0.0, 0.1, 0.2]),
    (0.0, True, [0.01, 0.005, 0.0]),
  ],
)
def test_stochastic_depth_rises_to_the_last_block(last, legacy, expected):
  np.testing.assert_allclose(drop_path_rates(3, last, legacy), expected)


def test_the_first_frame_counts_for_the_last_forecast():
  module, shape = models.build("simvp", **SMALL), (2, 8, 12, 1)
  x, variables = jax.random.normal(jax.random.key(0), (1, *shape)), drawn(module, shape)
  last = jax.jit(lambda x: module.apply(variables, x)[0, -1])
  change = last(x.at[0, 0, 3, 4].add(1.0)) - last(x)
  assert jnp.abs(change).max() > 1e-6


@pytest.mark.parametrize(
  ("translator", "message"),
  [
    ("vit", "8 heads"),
    ("hornet", "eighths"),
    ("moganet", "eighths"),
    ("incepu", "8 groups"),
  ],
)
def test_widths_that_do_not_divide_are_refused(translator, message):
  # Three frames of 6 channels are 18 wide.
  options = SMALL | dict(spatial_features=6, temporal_depth=3, translator=translator)
  with pytest.raises(models.NetworkError, match=message):
    shapes_of(models.build("simvp", **options), (3, 8, 8, 1))


def test_swin_refuses_a_grid_that_its_windows_do_not_tile():
  module = models.build("simvp", **SMALL, translator="swin")
  with pytest.raises(models.NetworkError, match="windows of 4 x 4.*5 x 8"):
    shapes_of(module, (2, 10, 16, 1))
