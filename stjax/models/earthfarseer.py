"""EarthFarseer in SFP's form: convolutions and a Fourier branch, added up.

Wu et al. 2024, "Earthfarsser: Versatile Spatio-Temporal Dynamical Systems
Modeling in One Model". SFP (arXiv 2510.04020) keeps two of its parts: SimVP
with gated spatiotemporal attention, which sees all frames together, and
patches of each frame mixed in Fourier space.
"""

import functools
import math

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers.common import dense
from stjax.models.fourcastnet import EPS, STD, FourierFilter
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, LayerNorm, truncated_normal
from stjax.models.layers.conv_unit import unit_class
from stjax.models.layers.upsampling import Spread
from stjax.models.simvp import SimVP
from stjax.models.translators.metaformer import TwoBranchBlock, gelu

# The Fourier branch doubles its grid three times.
DOUBLINGS = 3
PATCH = 2**DOUBLINGS


def pooling(size: int, bins: int) -> np.ndarray:
  """Makes the matrix of an adaptive average pool.

  Bin i is the mean of the elements floor(i size / bins) up to, and without,
  ceil((i + 1) size / bins); bins may overlap.

  Args:
    size: number of elements.
    bins: number of means.

  Returns:
    [size, bins] float32.
  """
  element, i = np.ogrid[:size, :bins]
  first, stop = i * size // bins, -(-(i + 1) * size // bins)
  inside = (element >= first) & (element < stop)
  return (inside / inside.sum(0)).astype(np.float32)


class PooledMlp(nn.Module):
  """A linear layer and a GELU, then means of neighbouring hidden channels.

  Attributes:
    hidden: hidden width.
    dropout: rate after the activation.
    padding_mode: ignored, as pixels are not mixed.
    dtype: compute dtype.
  """

  hidden: int
  dropout: float = 0.0
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [..., C] to the same shape."""
    width = x.shape[-1]
    y = gelu(dense(self.hidden, width, self.dtype, name="expand")(x))
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return y @ pooling(self.hidden, width).astype(y.dtype)


class FourierBranch(nn.Module):
  """Maps each frame by patches that are mixed in Fourier space.

  Its parameters fit one grid only.

  Attributes:
    out_channels: channels of the result.
    features: width of the blocks, a multiple of `blocks`.
    depth: number of blocks of layers.
    mlp_ratio: hidden width of an MLP over the width.
    blocks: blocks of channels in a Fourier filter.
    legacy_product: see `FourierFilter`.
    dropout: rate inside the MLPs.
    drop_path: stochastic depth rate of the last block; the first has 0.
    remat: whether the backward pass recomputes the blocks.
    dtype: compute dtype.
  """

  out_channels: int
  features: int
  depth: int
  mlp_ratio: float
  blocks: int
  legacy_product: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, out_channels]."""
    x = Conv(
      self.features, PATCH, stride=PATCH, padding=0, dtype=self.dtype, name="patches"
    )(x)
    h, w = x.shape[1:3]
    position = self.param(
      "position", truncated_normal(STD), (h * w, self.features), jnp.float32
    )
    x = x + position.reshape(h, w, self.features).astype(x.dtype)
    norm = functools.partial(LayerNorm, EPS)
    block_class = unit_class(self.remat, TwoBranchBlock)
    for i in range(self.depth):
      x = block_class(
        norm=norm,
        mixer=functools.partial(
          FourierFilter,
          self.blocks,
          threshold=0.0,
          linear_skip=True,
          legacy_product=self.legacy_product,
        ),
        mlp=PooledMlp,
        mlp_ratio=self.mlp_ratio,
        dropout=self.dropout,
        drop_path=self.drop_path * i / max(self.depth - 1, 1),
        dtype=self.dtype,
        name=f"block_{i}",
      )(x, train)
    x = norm(name="norm")(x)
    for i in range(DOUBLINGS):
      # The last one has out_channels, and each one before it four times more.
      width = self.out_channels * 4 ** (DOUBLINGS - 1 - i)
      x = Spread(width, dtype=self.dtype, name=f"double_{i}")(nn.tanh(x) if i else x)
    return x


class EarthFarseer(nn.Module):
  """Forecasts by SimVP plus a Fourier branch; the parameters fit one grid only.

  H and W must be multiples of 8. The Fourier filters are always computed in
  float32.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    horizon: frames of the forecast; None means as many as the history has.
      Both branches map frame t of the history to the frames t, t + T, t + 2 T,
      ... of the forecast, and what goes beyond the horizon is cut off.
    spatial_features: channels of SimVP's encoder and decoder, an even number.
    temporal_features: width inside SimVP's translator.
    spatial_depth: layers of encoder and of decoder, an even number; every
      second one halves the grid.
    temporal_depth: blocks of the translator, at least 2.
    mlp_ratio: hidden width of the translator's MLPs over their width.
    encoder_kernel: kernel size of the encoder.
    decoder_kernel: kernel size of the decoder.
    fourier_features: width of the Fourier branch, a multiple of
      `fourier_blocks`.
    fourier_depth: blocks of layers of the Fourier branch.
    fourier_mlp_ratio: hidden width of its MLPs over their width.
    fourier_blocks: blocks of channels in its filters.
    legacy_product: whether the filters multiply as in the released code, for
      its weights: the imaginary part of the second layer reads the real part
      of the result where it should read that of the input.
    dropout: rate inside the MLPs of both branches.
    drop_path: stochastic depth rate of the last block of each branch; the
      first has 0.
    padding_mode: "zeros", or "circular" for fields that wrap around, as the
      Fourier branch always does.
    remat: whether the backward pass recomputes the blocks, to save memory.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  horizon: int | None = None
  spatial_features: int = 64
  temporal_features: int = 256
  spatial_depth: int = 4
  temporal_depth: int = 8
  mlp_ratio: float = 8.0
  encoder_kernel: int = 3
  decoder_kernel: int = 3
  fourier_features: int = 256
  fourier_depth: int = 4
  fourier_mlp_ratio: float = 4.0
  fourier_blocks: int = 4
  legacy_product: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    options = ("out_channels", "horizon", "fourier_depth", "fourier_blocks")
    checks.at_least(self, **dict.fromkeys(options, 1))
    checks.at_least(self, fourier_mlp_ratio=1)
    checks.multiple_of(self, "fourier_features", "fourier_blocks")
    self._convolutions(1, parent=None)  # SimVP checks the options that are its own.
    super().__post_init__()

  def _convolutions(self, out_channels: int, **options) -> SimVP:
    return SimVP(
      out_channels=out_channels,
      spatial_features=self.spatial_features,
      temporal_features=self.temporal_features,
      spatial_depth=self.spatial_depth,
      temporal_depth=self.temporal_depth,
      mlp_ratio=self.mlp_ratio,
      dropout=self.dropout,
      drop_path=self.drop_path,
      encoder_kernel=self.encoder_kernel,
      decoder_kernel=self.decoder_kernel,
      padding_mode=self.padding_mode,
      remat=self.remat,
      dtype=self.dtype,
      **options,
    )

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of 8 and of
        2 ** (spatial_depth / 2).
      train: whether to use dropout, stochastic depth (random stream "dropout")
        and the batch's own statistics.

    Returns:
      [B, horizon, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    checks.history(x.shape)
    b, frames, h, w, channels = x.shape
    if h % PATCH or w % PATCH:
      raise NetworkError(
        f"the grid is {h} x {w}; network 'earthfarseer' has patches of {PATCH} x "
        f"{PATCH} and expects multiples of {PATCH}: crop the data, or pad them "
        f"(--config.method.pad_to_multiple={PATCH})"
      )
    horizon = self.horizon or frames
    each = math.ceil(horizon / frames)
    features = each * (self.out_channels or channels)
    dtype = jnp.dtype(self.dtype)
    near = self._convolutions(features, name="convolutions")(x, train)
    far = FourierBranch(
      features,
      self.fourier_features,
      self.fourier_depth,
      self.fourier_mlp_ratio,
      self.fourier_blocks,
      self.legacy_product,
      self.dropout,
      self.drop_path,
      self.remat,
      dtype,
      name="fourier",
    )(x.astype(dtype).reshape(b * frames, h, w, channels), train)
    y = near + far.astype(jnp.float32).reshape(near.shape)
    y = einops.rearrange(y, "b t h w (n c) -> b (n t) h w c", n=each)
    return y[:, :horizon]
