"""FNO: the Fourier neural operator on a grid (Li et al. 2021)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.denoisers.common import dense
from stjax.models.layers import checks
from stjax.models.layers.basic import GroupNorm
from stjax.models.layers.folding import fold_frames, unfold_frames
from stjax.models.layers.spectral import SpectralConv, check_modes
from stjax.models.layers.upsampling import resize
from stjax.models.translators.metaformer import gelu


def coordinates(height: int, width: int) -> jax.Array:
  """Returns rows and columns [H, W, 2] from 0 to 1, both ends included."""
  axes = (jnp.linspace(0, 1, size) for size in (height, width))
  return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)


class Layer(nn.Module):
  """A spectral convolution plus a linear map of each pixel.

  Attributes:
    modes: (M_h, M_w), the number of modes along H and along W.
    activate: whether a GELU follows.
    dtype: compute dtype.
    features: output channels; None means those of the input.
    grid: (H, W) of the result; None means that of the input. The second map
      reaches another grid by bicubic interpolation.
    norm: whether each channel of each sample is normalised before the GELU.
    kernel_init: initialiser of the spectral convolution; None means its own.
  """

  modes: tuple[int, int]
  activate: bool
  dtype: jnp.dtype
  features: int | None = None
  grid: tuple[int, int] | None = None
  norm: bool = False
  kernel_init: Callable[..., jax.Array] | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, *grid, features]."""
    features = self.features or x.shape[-1]
    convolve = SpectralConv(
      features, self.modes, self.grid, self.kernel_init, name="spectral"
    )
    pointwise = dense(features, x.shape[-1], self.dtype, name="pointwise")
    y = convolve(x).astype(self.dtype) + resize(pointwise(x), self.grid)
    if self.norm:
      y = GroupNorm(features, name="norm")(y)
    return gelu(y) if self.activate else y


class FNO(nn.Module):
  """Forecasts from all frames of the history, as channels, and from the place.

  The place of each pixel is an input, so the forecast depends on it even if
  the field wraps around.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    horizon: frames of the forecast; None means as many as the history has.
    features: width of the layers.
    modes_h: modes along H of either sign, at most H.
    modes_w: modes along W, at most W // 2 + 1.
    depth: number of layers.
    readout_features: hidden width of the last map.
    remat: whether the backward pass recomputes the layers.
    dtype: compute dtype, which is always float32 between the Fourier
      transforms; parameters and the result stay float32.
  """

  out_channels: int | None = None
  horizon: int | None = None
  features: int = 64
  modes_h: int = 16
  modes_w: int = 16
  depth: int = 4
  readout_features: int = 128
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    options = ("horizon", "features", "modes_h", "modes_w", "depth")
    checks.at_least(self, **dict.fromkeys(options, 1))
    checks.at_least(self, out_channels=1, readout_features=1)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: makes no difference, as nothing here depends on the mode.

    Returns:
      [B, horizon, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    del train
    checks.history(x.shape)
    b, frames, h, w, channels = x.shape
    check_modes(self, (h, w))
    dtype = jnp.dtype(self.dtype)
    horizon = self.horizon or frames
    layer = nn.remat(Layer) if self.remat else Layer
    place = jnp.broadcast_to(coordinates(h, w), (b, h, w, 2))
    x = jnp.concatenate([fold_frames(x), place], axis=-1).astype(dtype)
    x = dense(self.features, x.shape[-1], dtype, name="lift")(x)
    for i in range(self.depth):
      activate = i < self.depth - 1
      modes = (self.modes_h, self.modes_w)
      x = layer(modes, activate, dtype, name=f"layer_{i}")(x)
    x = dense(self.readout_features, self.features, dtype, name="expand")(x)
    out_features = horizon * (self.out_channels or channels)
    y = dense(out_features, self.readout_features, dtype, name="readout")(gelu(x))
    return unfold_frames(y, horizon).astype(jnp.float32)
