"""Blocks of convolutions: ConvMixer, ConvNeXt, HorNet, MogaNet.

ConvMixer: Trockman & Kolter 2022. ConvNeXt: Liu et al. 2022. HorNet: Rao et
al. 2022. MogaNet: Li et al. 2022.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers.basic import BatchNorm, DropPath, LayerNorm
from stjax.models.translators.metaformer import (
  Block,
  Constructor,
  Mixer,
  Mlp,
  TwoBranchBlock,
  depthwise,
  gelu,
  pointwise,
)


class ConvMixerBlock(Block):
  """Block of x + BN(GELU(depthwise(x))), then BN(GELU(1x1(.))).

  It has no MLP, no dropout and no stochastic depth.

  Attributes:
    kernel_size: kernel size of the depthwise convolution.
  """

  kernel_size: int = 11

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to the same shape."""
    y = depthwise(
      x.shape[-1],
      self.kernel_size,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      name="depthwise",
    )(x)
    x = x + BatchNorm(name="norm_1")(gelu(y), train)
    y = pointwise(x.shape[-1], dtype=self.dtype, name="pointwise")(x)
    return BatchNorm(name="norm_2")(gelu(y), train)


class ConvNeXtBlock(Block):
  """Block of x + scale MLP(LN(depthwise 7x7 (x))), without dropout."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to the same shape."""
    width = x.shape[-1]
    y = depthwise(
      width, 7, padding_mode=self.padding_mode, dtype=self.dtype, name="depthwise"
    )(x)
    y = LayerNorm(1e-6, name="norm")(y)
    hidden = int(self.mlp_ratio * width)
    y = Mlp(hidden, pointwise, dtype=self.dtype, name="mlp")(y, train)
    scale = self.param("scale", nn.initializers.constant(1e-6), (width,), jnp.float32)
    return x + DropPath(self.drop_path)(y * scale.astype(y.dtype), train)


class RecursiveGatedConv(Mixer):
  """HorNet's g^n convolution of order 4 (eqs. 3-4)."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    del train
    width = x.shape[-1]
    require_eighths("hornet", width)
    widths = [width // 8, width // 4, width // 2, width]
    y = pointwise(2 * width, dtype=self.dtype, name="expand")(x)
    y, a = jnp.split(y, [widths[0]], axis=-1)
    a = depthwise(
      a.shape[-1], 7, padding_mode=self.padding_mode, dtype=self.dtype, name="depthwise"
    )(a)
    first, *others = jnp.split(
      a, [widths[0], sum(widths[:2]), sum(widths[:3])], axis=-1
    )
    y = y * first
    for i, gate in enumerate(others):
      y = pointwise(widths[i + 1], dtype=self.dtype, name=f"order_{i}")(y)
      y = y * gate
    return pointwise(width, dtype=self.dtype, name="project")(y)


class MultiOrderConv(nn.Module):
  """MogaNet's depthwise convolutions of growing dilation, then 1x1 (eq. 5).

  Attributes:
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    width = x.shape[-1]
    shared = dict(padding_mode=self.padding_mode, dtype=self.dtype)
    middle, wide = 3 * width // 8, 4 * width // 8
    near = width - middle - wide
    x = depthwise(width, 5, **shared, name="near")(x)
    a, b, c = jnp.split(x, [near, near + middle], axis=-1)
    b = depthwise(middle, 5, dilation=2, **shared, name="middle")(b)
    c = depthwise(wide, 7, dilation=3, **shared, name="wide")(c)
    x = jnp.concatenate([a, b, c], axis=-1)
    return pointwise(width, dtype=self.dtype, name="pointwise")(x)


def _channel_field(module: nn.Module, name: str, width: int) -> jax.Array:
  init = nn.initializers.constant(1e-5)
  return module.param(name, init, (width,), jnp.float32).astype(module.dtype)


class GatedAggregation(Mixer):
  """MogaNet's multi-order gated aggregation, plus the input (eqs. 3-6)."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    del train
    width = x.shape[-1]
    require_eighths("moganet", width)
    layer = functools.partial(pointwise, width, dtype=self.dtype)
    y = layer(name="expand")(x)
    mean = y.astype(jnp.float32).mean((1, 2), keepdims=True)
    y = y + _channel_field(self, "sigma", width) * (y - mean.astype(y.dtype))
    y = nn.silu(y)
    gate = layer(name="gate")(y)
    value = MultiOrderConv(self.padding_mode, self.dtype, name="value")(y)
    return layer(name="project")(nn.silu(gate) * nn.silu(value)) + x


class ChannelAggregation(nn.Module):
  """MogaNet's x + sigma (x - GELU(y)), with one channel y made of all (eq. 8).

  Attributes:
    dtype: compute dtype.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    common = gelu(pointwise(1, dtype=self.dtype, name="decompose")(x))
    return x + _channel_field(self, "sigma", x.shape[-1]) * (x - common)


def require_eighths(translator: str, width: int) -> None:
  """Raises NetworkError unless the width is a multiple of 8."""
  if width % 8:
    raise NetworkError(
      f"translator {translator!r} splits its width {width} into eighths: "
      "change model.temporal_features or model.spatial_features (times the "
      "number of frames) to multiples of 8"
    )


def convmixer(index: int, resized: bool) -> Constructor:
  """Returns the block of the ConvMixer."""
  del index, resized
  return ConvMixerBlock


def convnext(index: int, resized: bool) -> Constructor:
  """Returns the block of the ConvNeXt."""
  del index, resized
  return ConvNeXtBlock


def hornet(index: int, resized: bool) -> Constructor:
  """Returns the block of the HorNet, which has no dropout."""
  del index, resized
  return functools.partial(
    TwoBranchBlock,
    norm=functools.partial(LayerNorm, eps=1e-6),
    mixer=RecursiveGatedConv,
    mlp=_without_dropout,
    scale=1e-6,
  )


def _without_dropout(dropout: float, **options) -> Mlp:
  del dropout
  return Mlp(**options)


def moganet(index: int, resized: bool) -> Constructor:
  """Returns the block of the MogaNet."""
  del index, resized
  return functools.partial(
    TwoBranchBlock,
    norm=BatchNorm,
    mixer=GatedAggregation,
    mlp=functools.partial(
      Mlp, layer=pointwise, depthwise=True, refine=ChannelAggregation
    ),
    scale=1e-5,
  )
