import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models
from stjax.models.fourcastnet import FourierFilter, kept_modes


def run(module, x):
  return jax.jit(module.init_with_output, static_argnums=2)(jax.random.key(1), x, False)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (5, 7), (1, 8)])
def test_all_modes_are_kept_whatever_the_shape(shape):
  expected = 0, slice(0, shape[0]), shape[1] // 2 + 1
  assert kept_modes(*shape, 1.0) == expected


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_share_keeps_the_lowest_wave_numbers_of_each_axis(share):
  # What a random filter adds to white noise has no other modes than the kept.
  x = jax.random.normal(jax.random.key(0), (1, 9, 14, 4))
  y, _ = run(FourierFilter(2, 0.0, share), x)
  spectrum = np.abs(np.fft.rfft2(y - x, axes=(1, 2))).max((0, 3))
  rows = np.abs(np.fft.fftfreq(9, 1 / 9))[:, None]
  low = (rows < 2) & (np.arange(8) < 4)  # Half of 5, half of 8.
  low |= share == 1
  assert (spectrum[low] > 1e-5).all()
  assert (spectrum[~low] < 1e-5).all()


@pytest.mark.parametrize(
  ("shape", "share", "rows", "columns"),
  [
    ((60, 120), 1.0, slice(0, 60), 31),  # Half of the columns' 61 are lost.
    ((6, 10), 0.5, slice(2, 6), 2),
    ((12, 6), 1.0, slice(0, 12), 4),
    ((6, 6), 1.0, slice(0, 6), 4),  # All.
  ],
)
def test_the_legacy_modes_are_those_of_the_released_code(shape, share, rows, columns):
  assert kept_modes(*shape, share, legacy=True) == (0, rows, columns)


def test_a_share_that_keeps_nothing_is_refused():
  with pytest.raises(models.NetworkError, match="model.modes is 0.1"):
    kept_modes(6, 60, 0.1)


def test_the_filter_is_float32_whatever_it_is_given():
  x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4), jnp.bfloat16)
  y, variables = run(FourierFilter(2, dtype=jnp.bfloat16), x)
  assert y.dtype == jnp.bfloat16
  leaves = jax.tree.leaves(variables)
  assert {leaf.dtype.name for leaf in leaves} == {"float32"}
