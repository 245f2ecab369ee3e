"""Linear maps of a grid's lowest Fourier modes, one matrix for each mode.

Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential
Equations", section 4. Everything here is computed in float32, whatever the
compute dtype is.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from stjax.errors import NetworkError


def uniform_from_zero(scale: float) -> Callable[..., jax.Array]:
  """Returns an initialiser that draws uniformly from [0, scale).

  Real and imaginary parts are both drawn like this.
  """
  return lambda key, shape, dtype=jnp.float32: (
    scale * jax.random.uniform(key, shape, dtype)
  )


def check_modes(network: nn.Module, grid: Sequence[int]) -> None:
  """Raises NetworkError for more modes than a grid has.

  Args:
    network: network with the options modes_h and modes_w.
    grid: (H, W) of the grid.
  """
  h, w = grid
  for option, most in (("modes_h", h), ("modes_w", w // 2 + 1)):
    value = getattr(network, option)
    if value > most:
      raise NetworkError(
        f"model.{option} is {value}, but the grid is {h} x {w}; expected at most {most}"
      )


def map_modes(x: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
  """Maps each of the lowest modes of `x` by its matrix; the others become 0.

  Args:
    x: [N, H, W, C_in].
    positive: [2, M_h, M_w, C_in, C_out] float32, the real and the imaginary
      parts of the matrices of the modes 0 .. M_h - 1 along H.
    negative: [2, M_h, M_w, C_in, C_out] float32, the same of the modes
      -M_h .. -1. Where both halves overlap (M_h > H / 2), these count.

  Returns:
    [N, H, W, C_out] float32.
  """
  h, w = x.shape[1:3]
  rows, columns, _, features = positive.shape[1:]
  # The transform along W comes first, so that only the columns that are kept
  # need the transform along H.
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
  # Two columns of a real field's spectrum are real after the transform along
  # H: the mean along W and, if W is even, the highest mode. The matrices make
  # them complex. Fourier libraries ignore such an imaginary part; it is removed
  # here, so that every backend does.
  alone = (0, w // 2) if w % 2 == 0 else (0,)
  paired = ~np.isin(np.arange(columns), alone)
  y = lax.complex(y.real, y.imag * paired[:, None].astype(np.float32))
  return jnp.fft.irfft(y, n=w, axis=2)


class SpectralConv(nn.Module):
  """Layer of `map_modes` with the parameters "positive" and "negative".

  Attributes:
    features: output channels.
    modes: (M_h, M_w), the number of modes along H and along W.
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
