"""Linear maps of a grid's lowest Fourier modes, one matrix for each mode.

Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential
Equations", section 4. Everything here is computed in float32, whatever the
compute dtype is.
"""

import functools
import itertools
import math
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


def check_modes(
  network: nn.Module, grid: Sequence[int], both_signs: bool = True
) -> None:
  """Raises NetworkError for more modes than a grid has.

  Args:
    network: network with the options modes_h and modes_w.
    grid: (H, W) of the grid.
    both_signs: whether modes_h counts modes of either sign; otherwise, like
      modes_w, it counts those of wave number 0 and above.
  """
  h, w = grid
  most = {"modes_h": h if both_signs else h // 2 + 1, "modes_w": w // 2 + 1}
  for option, number in most.items():
    value = getattr(network, option)
    if value > number:
      raise NetworkError(
        f"model.{option} is {value}, but the grid is {h} x {w}; expected at most "
        f"{number}"
      )


def corner_names(axes: int) -> list[str]:
  """Lists the signs of the modes that each kernel of `map_modes` maps.

  Args:
    axes: number of axes of the grid, at least 2.

  Returns:
    2 ** (axes - 1) names. The sign along the first axis changes fastest, and
    the last axis has no sign.
  """
  signs = itertools.product(("positive", "negative"), repeat=axes - 1)
  return ["_".join(reversed(corner)) for corner in signs]


def real_field(modes: jax.Array, size: int, axis: int) -> jax.Array:
  """Transforms modes 0, 1, ... along an axis back to real values.

  Args:
    modes: complex64, at most size // 2 + 1 of them along the axis.
    size: number of values along the axis of the result.
    axis: number of the axis, not negative.
  """
  # Two modes of real values are real: the mean and, if the size is even, the
  # highest one. The matrices make them complex. Fourier libraries ignore such
  # an imaginary part; it is removed here, so that every backend does.
  alone = (0, size // 2) if size % 2 == 0 else (0,)
  paired = ~np.isin(np.arange(modes.shape[axis]), alone)
  paired = paired.reshape(-1, *(1,) * (modes.ndim - 1 - axis)).astype(np.float32)
  modes = lax.complex(modes.real, modes.imag * paired)
  return jnp.fft.irfft(modes, n=size, axis=axis)


def map_modes(
  x: jax.Array, *kernels: jax.Array, grid: Sequence[int] | None = None
) -> jax.Array:
  """Maps each of the lowest modes of `x` by its matrix; the others become 0.

  Args:
    x: [N, H, W, C_in], or any number of axes of a grid instead of (H, W).
    *kernels: [2, M_h, M_w, C_in, C_out] float32 each, the real and the
      imaginary parts of the matrices. The first has the modes 0 .. M_h - 1
      along H, the second has -M_h .. -1; both have 0 .. M_w - 1 along W. Where
      they overlap (M_h > H / 2), the second counts. More axes have more
      kernels; see `corner_names`.
    grid: the grid of the result; None means that of `x`. A mode keeps its
      amplitude on another grid.

  Returns:
    [N, *grid, C_out] float32.
  """
  sizes = x.shape[1:-1]
  grid = sizes if grid is None else tuple(grid)
  *before, last = range(1, len(sizes) + 1)
  # The transform along the last axis comes first, so that only the modes that
  # are kept need the other transforms.
  spectrum = jnp.fft.rfft(x.astype(jnp.float32), axis=last)
  spectrum = spectrum[..., : kernels[0].shape[last], :]
  for axis in before:
    spectrum = jnp.fft.fft(spectrum, axis=axis)
  y = _map_corners(spectrum, kernels, grid[:-1])
  for axis in before:
    y = jnp.fft.ifft(y, axis=axis)
  y = real_field(y, grid[-1], last)
  return y if grid == sizes else y * (math.prod(grid) / math.prod(sizes))


def _map_corners(
  spectrum: jax.Array, kernels: Sequence[jax.Array], sizes: Sequence[int]
) -> jax.Array:
  """Maps the corners of a spectrum, with zeros between them.

  Args:
    spectrum: [N, ..., C_in] complex64, all modes along each axis but the last.
    kernels: as of `map_modes`.
    sizes: number of modes of the result along each axis but the last.
  """
  if not sizes:
    kernel = lax.complex(kernels[0][0], kernels[0][1])
    return jnp.einsum("n...i,...io->n...o", spectrum, kernel)
  axis, half = len(sizes), len(kernels) // 2
  *others, size = sizes
  cut = functools.partial(lax.slice_in_dim, axis=axis)
  rows, end = kernels[0].shape[axis], spectrum.shape[axis]
  kept = min(rows, size - rows)
  kept_kernels = [cut(kernel, 0, kept) for kernel in kernels[:half]]
  low = _map_corners(cut(spectrum, 0, kept), kept_kernels, others)
  high = _map_corners(cut(spectrum, end - rows, end), kernels[half:], others)
  gap = list(high.shape)
  gap[axis] = size - kept - rows
  return jnp.concatenate([low, jnp.zeros(gap, low.dtype), high], axis=axis)


class SpectralConv(nn.Module):
  """Layer of `map_modes`, with the parameters of `corner_names`.

  Attributes:
    features: output channels.
    modes: (M_h, M_w), the number of modes along H and along W; one number for
      each axis of the grid.
    grid: grid of the result; None means that of the input.
    kernel_init: initialiser of the real and of the imaginary parts; None means
      uniform from 0 to 1 / (C features).
  """

  features: int
  modes: tuple[int, ...]
  grid: tuple[int, ...] | None = None
  kernel_init: Callable[..., jax.Array] | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, *grid, features] float32."""
    channels = x.shape[-1]
    shape = (2, *self.modes, channels, self.features)
    init = self.kernel_init or uniform_from_zero(1 / (channels * self.features))
    kernels = (
      self.param(name, init, shape, jnp.float32)
      for name in corner_names(len(self.modes))
    )
    return map_modes(x, *kernels, grid=self.grid)
