import jax
import jax.numpy as jnp
import pytest

from stjax import models

SMALL = dict(depth=2, iterations=((1, 1), (1, 0)), features=4)


def params_of(shape, **options):
  module = models.build("mgno", **SMALL | options)
  x = jnp.zeros((1, *shape))
  return jax.eval_shape(module.init, jax.random.key(0), x)["params"]


def test_circular_grids_must_be_halved_evenly():
  with pytest.raises(models.NetworkError, match="5 x 6.*multiple of 2"):
    params_of((1, 5, 6, 1), padding_mode="circular")


@pytest.mark.parametrize(
  ("options", "width", "lifted"),
  [
    ({}, 4, True),
    ({"features": None}, 3, False),
    ({"features": None, "frames": "channels"}, 6, False),
  ],
)
def test_the_width_is_the_inputs_unless_another_is_asked(options, width, lifted):
  params = params_of((2, 4, 6, 3), **options)
  assert ("lift" in params) == lifted
  assert params["readout"]["kernel"].shape[2] == width


@pytest.mark.parametrize(("height", "width", "taps"), [(5, 6, (1, 2)), (8, 3, (2, 1))])
def test_prolongations_fit_odd_and_even_grids(height, width, taps):
  params = params_of((1, height, width, 2))
  assert params["cycle_0"]["prolong_0"]["kernel"].shape == (*taps, 4, 4)
