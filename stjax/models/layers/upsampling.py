"""Layers that resize a grid: transposed convolution, interpolation."""

from collections.abc import Sequence

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.models.layers.basic import conv2d, torch_bias_default


def spread(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Transposed convolution of stride 2 whose taps do not overlap.

  Every pixel becomes 2 x 2 pixels, each by its own tap of the kernel. Along an
  axis with one tap, zeros stand between the pixels.

  Args:
    x: [N, H, W, I].
    kernel: [kh, kw, I, O]; kh and kw are 1 or 2.

  Returns:
    [N, 2 (H - 1) + kh, 2 (W - 1) + kw, O] in the dtype of `x`.
  """
  kh, kw, _, features = kernel.shape
  taps = jnp.pad(kernel, ((0, 2 - kh), (0, 2 - kw), (0, 0), (0, 0)))
  taps = einops.rearrange(taps, "a b i o -> 1 1 i (a b o)")
  y = einops.rearrange(
    conv2d(x, taps), "n h w (a b o) -> n (h a) (w b) o", a=2, b=2, o=features
  )
  _, h, w, _ = y.shape
  return y[:, : h - 2 + kh, : w - 2 + kw]


class Spread(nn.Module):
  """Layer of `spread` with torch's initial values.

  Parameters: "kernel" [kh, kw, C_in, features] and "bias" [features], float32.

  Attributes:
    features: output channels.
    kernel_size: (H, W) of the kernel, each 1 or 2.
    use_bias: whether to add a bias.
    dtype: compute and output dtype.
  """

  features: int
  kernel_size: tuple[int, int] = (2, 2)
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C_in] to [N, 2 (H - 1) + kh, 2 (W - 1) + kw, features]."""
    kh, kw = self.kernel_size
    init = torch_bias_default(kh * kw * self.features)
    shape = (kh, kw, x.shape[-1], self.features)
    y = spread(x.astype(self.dtype), self.param("kernel", init, shape, jnp.float32))
    if self.use_bias:
      bias = self.param("bias", init, (self.features,), jnp.float32)
      y = y + bias.astype(y.dtype)
    return y


def interpolate_double(x: jax.Array) -> jax.Array:
  """Doubles a grid by bilinear interpolation that keeps the corner pixels.

  Args:
    x: [N, H, W, C].

  Returns:
    [N, 2 H, 2 W, C] in the dtype of `x`.
  """
  n, h, w, c = x.shape
  # A single row or column has no distance to scale, and is repeated.
  scale = jnp.array([(2 * m - 1) / (m - 1) if m > 1 else 2.0 for m in (h, w)])
  return jax.image.scale_and_translate(
    x,
    (n, 2 * h, 2 * w, c),
    (1, 2),
    scale,
    (1 - scale) / 2 * jnp.array([h > 1, w > 1]),
    "linear",
    antialias=False,
  ).astype(x.dtype)


def bicubic_matrix(size: int, new_size: int) -> np.ndarray:
  """Returns the matrix [new_size, size] of bicubic interpolation along an axis.

  The first and the last value stay where they are, and beyond the ends the
  nearest value counts.

  Source: Keys 1981, eq. 4 with a = -3/4, as torch has it.
  """
  a = -0.75
  rows = np.arange(new_size)
  places = rows * ((size - 1) / max(new_size - 1, 1))
  below = np.floor(places).astype(int)
  matrix = np.zeros((new_size, size))
  for offset in (-1, 0, 1, 2):
    d = np.abs(places - below - offset)
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    columns = np.clip(below + offset, 0, size - 1)
    np.add.at(matrix, (rows, columns), np.where(d <= 1, near, far))
  return matrix.astype(np.float32)


def resize(x: jax.Array, grid: Sequence[int] | None) -> jax.Array:
  """Brings a field to another grid by `bicubic_matrix`, axis by axis.

  Args:
    x: [N, H, W, C].
    grid: (H, W) of the result; None means that of `x`.

  Returns:
    [N, *grid, C] in the dtype of `x`.
  """
  for axis, new_size in enumerate(grid or (), 1):
    if new_size != x.shape[axis]:
      matrix = jnp.asarray(bicubic_matrix(x.shape[axis], new_size), x.dtype)
      x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
  return x
