"""Linear maps of a grid's lowest Fourier modes, one matrix for each mode.

Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential
Equations", section 4. Computed in float32 whatever the compute dtype.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from stjax.errors import NetworkError


def uniform_from_zero(scale: float) -> Callable[..., jax.Array]:
  """Initialiser: uniform in [0, scale), real and imaginary parts alike."""
  return lambda key, shape, dtype=jnp.float32: (
    scale * jax.random.uniform(key, shape, dtype)
  )


def check_modes(network: nn.Module, grid: Sequence[int]) -> None:
  """Raises NetworkError for more modes than a grid has.

  Args:
    network: has the options modes_h and modes_w.
    grid: (H, W).
  """
  h, w = grid
  for option, most in (("modes_h", h), ("modes_w", w // 2 + 1)):
    value = getattr(network, option)
    if value > most:
      raise NetworkError(
        f"model.{option} is {value}, but the grid is {h} x {w}; expected at most {most}"
      )


def map_modes(x: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
  """Maps the lowest modes of `x`, each by its matrix; the others become 0.

  Args:
    x: [N, H, W, C_in].
    positive: [2, M_h, M_w, C_in, C_out] float32, real and imaginary part; for
      the modes 0 .. M_h - 1 along H.
    negative: likewise, for the modes -M_h .. -1. Where both halves overlap,
      M_h > H / 2, it is this one that counts.

  Returns:
    [N, H, W, C_out] float32.
  """
  h, w = x.shape[1:3]
  rows, columns, _, features = positive.shape[1:]
  # Only the columns that are kept are transformed along H.
  spectrum = jnp.fft.rfft(x.astype(jnp.float32), axis=2)[:, :, :columns]
  spectrum = jnp.fft.fft(spectrum, axis=1)

  def product(modes, kernel):
    kernel = lax.complex(kernel[0], kernel[1])
    return jnp.einsum("nhwi,hwio->nhwo", modes, kernel)

  kept = min(rows, h - rows)
  low = product(spectrum[:, :kept], positive[:, :kept])
  high = product(spectrum[:, h - rows :], negative)
  gap = jnp.zeros((x.shape[0], h - kept - rows, columns, features), low.dtype)
  y = jnp.fft.ifft(jnp.concatenate([low, gap, high], axis=1), axis=1)
  # The matrices make the mean along W complex, and the highest mode where W is
  # even: their imaginary parts count for nothing, in every Fourier library.
  alone = (0, w // 2) if w % 2 == 0 else (0,)
  paired = ~np.isin(np.arange(columns), alone)
  y = lax.complex(y.real, y.imag * paired[:, None].astype(np.float32))
  return jnp.fft.irfft(y, n=w, axis=2)


class SpectralConv(nn.Module):
  """`map_modes` with its parameters, "positive" and "negative".

  Attributes:
    features: output channels.
    modes: (M_h, M_w).
  """

  features: int
  modes: tuple[int, int]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, features] float32."""
    channels = x.shape[-1]
    shape = (2, *self.modes, channels, self.features)
    init = uniform_from_zero(1 / (channels * self.features))
    positive, negative = (
      self.param(name, init, shape, jnp.float32) for name in ("positive", "negative")
    )
    return map_modes(x, positive, negative)
