import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stjax.models.layers.upsampling import (
  Spread,
  bicubic_matrix,
  interpolate_double,
  resize,
  spread,
)


@pytest.mark.parametrize("taps", [(2, 2), (1, 2), (1, 1)])
def test_spread_is_a_transposed_convolution(taps):
  kernel = jax.random.normal(jax.random.key(0), (*taps, 3, 2))
  x = jax.random.normal(jax.random.key(1), (2, 3, 4, 3))
  expected = lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    (1, 1),
    [(k - 1, k - 1) for k in taps],
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  y = jax.jit(spread)(x, kernel)
  assert y.shape == (2, 4 + taps[0], 6 + taps[1], 2)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_spread_has_torchs_initial_values():
  x = jnp.zeros((1, 2, 2, 8))
  params = jax.jit(Spread(32).init)(jax.random.key(0), x)["params"]
  bound = (4 * 32) ** -0.5
  for leaf in params.values():
    assert 0.8 * bound < jnp.abs(leaf).max() <= bound


def test_interpolation_leaves_corners_where_they_are():
  rows, columns = np.mgrid[:3, :5].astype(np.float32)
  x = jnp.asarray(np.stack([rows, columns, rows * columns], -1))[None]
  y = jax.jit(interpolate_double)(x)[0]
  np.testing.assert_allclose(y[:, 1, 0], np.linspace(0, 2, 6), atol=1e-6)
  np.testing.assert_allclose(y[4, :, 1], np.linspace(0, 4, 10), atol=1e-5)
  np.testing.assert_allclose(y[-1, -1], [2, 4, 8], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
def test_a_single_row_or_column_is_repeated(shape):
  y = jax.jit(interpolate_double)(jnp.ones((1, *shape, 2), jnp.bfloat16))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y, np.ones((1, 2 * shape[0], 2 * shape[1], 2)))


def test_a_bicubic_curve_goes_through_its_values():
  # Each value stands at every third place of the finer axis.
  matrix = bicubic_matrix(5, 13)
  np.testing.assert_allclose(matrix[::3], np.eye(5), atol=1e-6)
  np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
  # Keys' kernel at distances of 4/3, 1/3, 2/3 and 5/3, for a = -3/4.
  expected = np.array([-1 / 9, 43 / 54, 10 / 27, -1 / 18])
  np.testing.assert_allclose(matrix[4, :4], expected, atol=1e-6)
  # Beyond the end, the nearest value counts.
  np.testing.assert_allclose(matrix[1, 0], expected[:2].sum(), atol=1e-6)


@pytest.mark.parametrize("size", [1, 4])
def test_a_single_value_is_the_first_or_is_repeated(size):
  np.testing.assert_array_equal(bicubic_matrix(size, 1), np.eye(1, size))
  np.testing.assert_allclose(bicubic_matrix(1, size), np.ones((size, 1)), atol=1e-6)


def test_a_field_is_resized_along_each_axis():
  x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
  y = jax.jit(resize, static_argnums=1)(x, (7, 3))
  expected = np.einsum(
    "ph,qw,nhwc->npqc", bicubic_matrix(4, 7), bicubic_matrix(5, 3), x
  )
  np.testing.assert_allclose(y, expected, atol=1e-5)
  assert resize(x, (4, 5)) is x and resize(x, None) is x
  assert resize(x.astype(jnp.bfloat16), (2, 2)).dtype == jnp.bfloat16
