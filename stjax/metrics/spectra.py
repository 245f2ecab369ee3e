"""Spectra of fields by the size of their wavenumber."""

import jax
import jax.numpy as jnp
import numpy as np


def sum_by(index: np.ndarray, values: jax.Array, size: int) -> jax.Array:
  """Sums [..., H, W, C] by index [H, W] to [..., size, C], without index -1."""
  chosen = np.nonzero(index.ravel() >= 0)[0]
  flat = values.reshape(*values.shape[:-3], -1, values.shape[-1])
  empty = jnp.zeros((*flat.shape[:-2], size, flat.shape[-1]), flat.dtype)
  places = index.ravel()[chosen]
  return empty.at[..., places, :].add(flat[..., chosen, :])


def _wavenumbers(h: int, columns: np.ndarray) -> np.ndarray:
  """Returns the sizes [H, columns] of wavenumbers, in waves across the domain."""
  rows = np.fft.fftfreq(h) * h
  return np.hypot(rows[:, None], columns[None])


def shell_enstrophy(vorticity: jax.Array, energy: bool = False) -> jax.Array:
  """Returns the enstrophy |w_k|^2 / 2 or energy |w_k|^2 / (2 k^2) by wavenumber.

  Args:
    vorticity: [..., H, W, C] on a square periodic domain of length 2 pi.
    energy: whether to return the energy; otherwise it is the enstrophy.

  Returns:
    [..., min(H, W) // 2 + 1, C]. Shell k is the sum over the wavenumbers whose
    size rounds to k. All shells together are the mean over the domain, except
    for the corners beyond the last shell. The mean vorticity has no energy.
  """
  h, w = vorticity.shape[-3:-1]
  size = _wavenumbers(h, np.fft.fftfreq(w) * w)
  power = jnp.square(jnp.abs(transform(vorticity))) / 2
  if energy:
    inverse = np.divide(1, size**2, where=size > 0, out=np.zeros_like(size))
    power = power * inverse[..., None]
  shells = min(h, w) // 2 + 1
  index = np.rint(size).astype(int)
  return sum_by(np.where(index < shells, index, -1), power, shells)


def transform(fields: jax.Array) -> jax.Array:
  """Returns the complex amplitudes [..., H, W, C] of the waves of fields.

  They are scaled so that the sum of |amplitude|^2 is the mean of the squared
  field.
  """
  h, w = fields.shape[-3:-1]
  return jnp.fft.fft2(fields, axes=(-3, -2)) / (h * w)


def shell_sums(waves: jax.Array) -> jax.Array:
  """Sums over the waves whose wavenumber rounds to 0, 1, ..., L / 2.

  The wavenumber is in waves across the longer side L = max(H, W), on a plane
  whose points are as far apart along both sides. On a square,
  shell_sums(|transform(x)|^2 / 2) is the result of `shell_enstrophy`.

  Args:
    waves: values [..., H, W, C] of each wave, in the order of `transform`.

  Returns:
    [..., L // 2 + 1, C]; the corners beyond the last shell are left out.
  """
  h, w = waves.shape[-3:-1]
  longer = max(h, w)
  size = longer * np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
  shells = longer // 2 + 1
  index = np.rint(size).astype(int)
  return sum_by(np.where(index < shells, index, -1), waves, shells)


def enstrophy_shares(vorticity: jax.Array) -> jax.Array:
  """Returns shares of the enstrophy at whole wavenumbers, as torch-cfd does.

  They are meant for comparison with its figures only, since they count a column
  once although it stands for a positive and a negative wavenumber, leave out
  most wavenumbers, which fall between the bins, and count a mean vorticity as
  wavenumber 1. For anything else, use `shell_enstrophy`.

  Args:
    vorticity: [..., N, N, C] on a periodic domain of length 2 pi.

  Returns:
    [..., N / 2 - 1, C] for the wavenumbers 1 to N / 2 - 1; their sum is 1.
  """
  n = vorticity.shape[-3]
  size = _wavenumbers(n, np.arange(n // 2 + 1))
  size[0, 0] = 1
  nearest = np.rint(size).astype(int)
  # A bin of torch-cfd reaches this far to either side of its wavenumber.
  inside = np.abs(size - nearest) <= (n // 2 - 2) / (2 * n)
  inside &= nearest < n // 2
  half = jnp.fft.rfftn(vorticity, axes=(-3, -2))
  power = jnp.square(jnp.abs(half))
  index = np.where(inside, nearest - 1, -1)
  total = sum_by(index, power, n // 2 - 1)
  return total / total.sum(-2, keepdims=True)


def error_spectrum(
  forecast: jax.Array, observation: jax.Array, bins: int = 49
) -> jax.Array:
  """Returns amplitudes of the absolute error's Fourier transform by frequency.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    bins: number of equal ranges of the frequency, from 0 to sqrt(1/2) cycles a
      pixel.

  Returns:
    [..., bins, C], the sums of |FFT2(|forecast - observation|)| in each bin.
  """
  h, w = forecast.shape[-3:-1]
  size = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
  edges = np.linspace(0, np.sqrt(0.5), bins + 1)
  # The highest frequency lies on the upper edge of the last bin, and belongs
  # to it.
  index = np.minimum(np.searchsorted(edges, size, "right") - 1, bins - 1)
  error = jnp.abs(forecast - observation)
  return sum_by(index, jnp.abs(jnp.fft.fft2(error, axes=(-3, -2))), bins)
