"""Spectra of fields over the size of their wavenumber."""

import jax
import jax.numpy as jnp
import numpy as np


def _sum_by(index: np.ndarray, values: jax.Array, size: int) -> jax.Array:
  """Sums [..., H, W, C] by index [H, W] to [..., size, C]; -1 is left out."""
  chosen = np.nonzero(index.ravel() >= 0)[0]
  flat = values.reshape(*values.shape[:-3], -1, values.shape[-1])
  empty = jnp.zeros((*flat.shape[:-2], size, flat.shape[-1]), flat.dtype)
  places = index.ravel()[chosen]
  return empty.at[..., places, :].add(flat[..., chosen, :])


def _wavenumbers(h: int, columns: np.ndarray) -> np.ndarray:
  """[H, columns] sizes of wavenumbers, in waves across the domain."""
  rows = np.fft.fftfreq(h) * h
  return np.hypot(rows[:, None], columns[None])


def shell_enstrophy(vorticity: jax.Array, energy: bool = False) -> jax.Array:
  """Enstrophy |w_k|^2 / 2, or energy |w_k|^2 / (2 k^2), by wavenumber.

  Args:
    vorticity: [..., H, W, C] on a square periodic domain of length 2 pi.
    energy: of the velocity instead of the vorticity.

  Returns:
    [..., min(H, W) // 2 + 1, C]: shell k sums the wavenumbers whose size
    rounds to k. All shells together are the domain's mean (but for the
    corners beyond the last shell). The mean vorticity has no energy.
  """
  h, w = vorticity.shape[-3:-1]
  size = _wavenumbers(h, np.fft.fftfreq(w) * w)
  power = jnp.square(jnp.abs(transform(vorticity))) / 2
  if energy:
    inverse = np.divide(1, size**2, where=size > 0, out=np.zeros_like(size))
    power = power * inverse[..., None]
  shells = min(h, w) // 2 + 1
  index = np.rint(size).astype(int)
  return _sum_by(np.where(index < shells, index, -1), power, shells)


def transform(fields: jax.Array) -> jax.Array:
  """Amplitudes [..., H, W, C] of the waves of fields, complex.

  Scaled so that the sum of |amplitude|^2 is the mean of the squared field.
  """
  h, w = fields.shape[-3:-1]
  return jnp.fft.fft2(fields, axes=(-3, -2)) / (h * w)


def shell_sums(waves: jax.Array) -> jax.Array:
  """Sums over the waves whose wavenumber rounds to 0, 1, ..., L / 2.

  The wavenumber is in waves across the longer side L = max(H, W), points
  being as far apart along both. On a square it is that of
  `shell_enstrophy`: shell_sums(|transform(x)|^2 / 2) is its result.

  Args:
    waves: [..., H, W, C] of each wave, in the order of `transform`.

  Returns:
    [..., L // 2 + 1, C]; the corners beyond the last shell are left out.
  """
  h, w = waves.shape[-3:-1]
  longer = max(h, w)
  size = longer * np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
  shells = longer // 2 + 1
  index = np.rint(size).astype(int)
  return _sum_by(np.where(index < shells, index, -1), waves, shells)


def enstrophy_shares(vorticity: jax.Array) -> jax.Array:
  """Shares of the enstrophy at whole wavenumbers, as torch-cfd draws them.

  For comparison with its figures only: columns of positive and of negative
  wavenumber are not counted twice, most wavenumbers fall between the bins, and
  a mean vorticity counts as wavenumber 1. Else use `shell_enstrophy`.

  Args:
    vorticity: [..., N, N, C] on a periodic domain of length 2 pi.

  Returns:
    [..., N / 2 - 1, C] for wavenumbers 1 to N / 2 - 1; their sum is 1.
  """
  n = vorticity.shape[-3]
  size = _wavenumbers(n, np.arange(n // 2 + 1))
  size[0, 0] = 1
  nearest = np.rint(size).astype(int)
  # A bin reaches this far to either side.
  inside = np.abs(size - nearest) <= (n // 2 - 2) / (2 * n)
  inside &= nearest < n // 2
  half = jnp.fft.rfftn(vorticity, axes=(-3, -2))
  power = jnp.square(jnp.abs(half))
  index = np.where(inside, nearest - 1, -1)
  total = _sum_by(index, power, n // 2 - 1)
  return total / total.sum(-2, keepdims=True)


def error_spectrum(
  forecast: jax.Array, observation: jax.Array, bins: int = 49
) -> jax.Array:
  """Amplitudes of the absolute error's Fourier transform by frequency.

  Args:
    forecast: [..., H, W, C].
    observation: of the same shape.
    bins: equal ranges of the frequency, 0 to sqrt(1/2) cycles a pixel.

  Returns:
    [..., bins, C]: the sums of |FFT2(|forecast - observation|)| in each bin.
  """
  h, w = forecast.shape[-3:-1]
  size = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
  edges = np.linspace(0, np.sqrt(0.5), bins + 1)
  # The last bin has the corner of the highest frequency as well.
  index = np.minimum(np.searchsorted(edges, size, "right") - 1, bins - 1)
  error = jnp.abs(forecast - observation)
  return _sum_by(index, jnp.abs(jnp.fft.fft2(error, axes=(-3, -2))), bins)
