import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models
from stjax.models.layers import spectral

map_modes = jax.jit(spectral.map_modes, static_argnames="grid")


def draw(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def drawn_for(module, x):
  """Variables of a module, without compiling its initialisers."""
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
  return jax.tree.map(lambda s: 1 + 0.3 * draw(7, *s.shape), shapes)


def in_full_spectrum(x, *kernels, grid=None):
  """The definition, on a whole half space of modes."""
  grid = grid or x.shape[1:-1]
  axes = tuple(range(1, len(grid) + 1))
  *signed, columns = kernels[0].shape[1:-2]
  spectrum = np.fft.rfftn(x, axes=axes, norm="forward")
  shape = (len(x), *grid[:-1], grid[-1] // 2 + 1, kernels[0].shape[-1])
  result = np.zeros(shape, complex)
  for number, kernel in enumerate(kernels):
    # A binary digit of the number is the sign along an axis.
    corner = [
      slice(-rows, None) if number >> axis & 1 else slice(0, rows)
      for axis, rows in enumerate(signed)
    ]
    corner = (slice(None), *corner, slice(0, columns))
    result[corner] = np.einsum(
      "n...i,...io->n...o", spectrum[corner], kernel[0] + 1j * kernel[1]
    )
  return np.fft.irfftn(result, s=grid, axes=axes, norm="forward")


@pytest.mark.parametrize(
  ("grid", "modes"),
  [
    ((9, 7), (3, 2)),
    ((8, 6), (4, 4)),  # All modes.
    ((7, 8), (5, 5)),  # Both halves want the middle rows.
    ((6, 5), (6, 3)),
  ],
)
def test_modes_are_mapped_as_defined(grid, modes):
  x = draw(0, 2, *grid, 3)
  kernels = draw(1, 2, 2, *modes, 3, 4)
  actual = map_modes(x, *kernels)
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(
    actual, in_full_spectrum(x, *kernels), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("grid", [(5, 12), (10, 6), (4, 5)])
def test_the_result_may_have_another_grid(grid):
  x, kernels = draw(0, 2, 8, 9, 3), draw(1, 2, 2, 3, 3, 3, 4)
  actual = map_modes(x, *kernels, grid=grid)
  expected = in_full_spectrum(x, *kernels, grid=grid)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("axes", "count"), [(3, 4), (4, 8)])
def test_a_grid_may_have_more_axes(axes, count):
  sizes, grid = (4, 5, 3, 6)[-axes:], (5, 3, 4, 4)[-axes:]
  x = draw(0, 1, *sizes, 2)
  kernels = draw(1, count, 2, *(2,) * axes, 2, 3)
  actual = map_modes(x, *kernels, grid=grid)
  expected = in_full_spectrum(x, *kernels, grid=grid)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
  names = spectral.corner_names(axes)
  assert len(names) == count
  assert names[1] == "_".join(["negative"] + ["positive"] * (axes - 2))


def test_an_operator_is_the_same_on_a_finer_grid():
  kernels = draw(1, 2, 2, 3, 3, 1, 2)

  def on_grid(h, w):
    y, x = np.meshgrid(np.arange(h) / h, np.arange(w) / w, indexing="ij")
    waves = np.sin(2 * np.pi * (x - y)) + np.cos(2 * np.pi * (2 * x + y)) + 0.3
    return map_modes(waves[None, ..., None], *kernels)

  coarse, fine = on_grid(8, 10), on_grid(16, 20)
  np.testing.assert_allclose(fine[:, ::2, ::2], coarse, atol=1e-5)
  assert np.abs(coarse).max() > 0.1


def test_a_shifted_field_is_mapped_to_a_shifted_one():
  x, kernels = draw(0, 1, 7, 9, 2), draw(1, 2, 2, 3, 3, 2, 2)
  # All modes but the mean along W: its imaginary part is dropped.
  kernels[:, :, :, 0] = 0
  y = map_modes(x, *kernels)
  shifted = map_modes(np.roll(x, (2, 3), (1, 2)), *kernels)
  np.testing.assert_allclose(shifted, np.roll(y, (2, 3), (1, 2)), atol=1e-5)


def test_weights_are_drawn_from_zero_up():
  module = spectral.SpectralConv(5, (6, 7))
  x = jnp.zeros((1, 12, 14, 4))
  params = jax.jit(module.init)(jax.random.key(0), x)["params"]
  for leaf in params.values():
    assert leaf.shape == (2, 6, 7, 4, 5)
    assert 0 <= leaf.min() < 0.01 / 20 and 0.99 / 20 < leaf.max() <= 1 / 20


@pytest.mark.parametrize("name", ["fno", "kno"])
@pytest.mark.parametrize(
  ("grid", "message"),
  [
    ((5, 9), "model.modes_h is 6.*5 x 9.*at most 5"),
    ((9, 6), "model.modes_w is 5.*9 x 6.*at most 4"),
  ],
)
def test_more_modes_than_the_grid_has_are_refused(name, grid, message):
  module = models.build(name, modes_h=6, modes_w=5)
  with pytest.raises(models.NetworkError, match=message):
    module.init(jax.random.key(0), jnp.zeros((1, 2, *grid, 1)))


def test_fno_may_forecast_another_number_of_frames():
  module = models.build("fno", horizon=5, out_channels=1, modes_h=2, modes_w=2)
  y, _ = jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.zeros((2, 3, 6, 5, 4))
  )
  assert y.shape == (2, 5, 6, 5, 1)


def test_fno_knows_rows_from_columns():
  module = models.build(
    "fno", features=4, modes_h=2, modes_w=2, depth=1, readout_features=4
  )
  x = jnp.zeros((1, 1, 6, 6, 1))
  y = jax.jit(module.apply)(drawn_for(module, x), x)
  field = y[0, 0, ..., 0]
  assert np.abs(field - field.T).max() > 1e-3
  assert np.abs(field - field[0]).max() > 1e-3


def test_kno_treats_every_channel_alike():
  module = models.build("kno", features=4, modes_h=2, modes_w=2, steps=2)
  x = draw(0, 1, 3, 6, 5, 2)
  forecast = jax.jit(functools.partial(module.apply, drawn_for(module, x)))
  y = forecast(x)
  assert y.shape == x.shape
  np.testing.assert_allclose(forecast(x[..., ::-1]), y[..., ::-1], atol=1e-6)


@pytest.mark.parametrize("option", ["linear", "batch_norm"])
def test_knos_options_change_the_forecast_not_the_reconstruction(option):
  options = dict(features=4, modes_h=2, modes_w=2, steps=2)
  plain = models.build("kno", linear=True, batch_norm=False, **options)
  other = models.build("kno", **options | {option: option == "batch_norm"})
  x = draw(0, 2, 3, 6, 5, 2)
  variables = drawn_for(other, x)

  def run(module):
    return jax.jit(
      lambda: module.apply(
        variables, x, True, method="forecast_and_reconstruct", mutable=["batch_stats"]
      )[0]
    )()

  (y, back), (z, again) = run(plain), run(other)
  np.testing.assert_array_equal(back, again)
  assert jnp.abs(y - z).max() > 1e-4
