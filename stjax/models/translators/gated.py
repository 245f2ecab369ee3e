"""Blocks gated by large-kernel convolutions: gSTA, VAN, TAU.

gSTA: Tan et al. 2022 (SimVPv2). VAN: Guo et al. 2023, "Visual Attention
Network", eq. 3. TAU: Tan et al. 2023, "Temporal Attention Unit", eqs. 4-7.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.layers.basic import BatchNorm, torch_conv_default
from stjax.models.translators.metaformer import (
  HE,
  TORCH,
  Constructor,
  Init,
  Mixer,
  Mlp,
  TwoBranchBlock,
  depthwise,
  gelu,
  pointwise,
)


class LargeKernelConv(nn.Module):
  """A large kernel, made of depthwise, dilated depthwise and 1x1 convolutions.

  The first one has 2 dilation - 1 taps a side; the second one has
  kernel_size / dilation, made odd.

  Attributes:
    features: channels of the result.
    kernel_size: width of the field of view, which is not kept exactly.
    dilation: dilation of the second convolution.
    weights: initial values of the convolutions, `HE` or `TORCH`.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  kernel_size: int
  dilation: int
  weights: Init
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] to [N, h, w, features]."""
    width = x.shape[-1]
    near = 2 * self.dilation - 1
    far = self.kernel_size // self.dilation
    far += far % 2 - 1
    shared = dict(padding_mode=self.padding_mode, dtype=self.dtype)
    x = depthwise(width, near, self.weights, **shared, name="near")(x)
    x = depthwise(
      width, far, self.weights, dilation=self.dilation, **shared, name="far"
    )(x)
    return pointwise(self.features, self.weights, dtype=self.dtype, name="pointwise")(x)


class Gate(nn.Module):
  """Base of the gates of `GatedAttention`.

  Attributes:
    kernel_size: kernel size of the `LargeKernelConv`.
    dilation: dilation of the `LargeKernelConv`.
    weights: initial values of the convolutions, `HE` or `TORCH`.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  kernel_size: int = 21
  dilation: int = 3
  weights: Init = HE
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  def large_kernel(self, x: jax.Array, features: int) -> jax.Array:
    """Maps [N, h, w, C] to [N, h, w, features]."""
    return LargeKernelConv(
      features,
      self.kernel_size,
      self.dilation,
      self.weights,
      self.padding_mode,
      self.dtype,
      name="context",
    )(x)


class SplitGate(Gate):
  """Gate sigmoid(g) f; f and g are the halves of the large kernel's result."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    f, g = jnp.split(self.large_kernel(x, 2 * x.shape[-1]), 2, axis=-1)
    return nn.sigmoid(g) * f


class ProductGate(Gate):
  """Gate x f; f is the large kernel's result."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    return x * self.large_kernel(x, x.shape[-1])


class TemporalGate(Gate):
  """Gate s x f; s are channel weights made from the mean over the pixels.

  Attributes:
    reduction: the weights' hidden width is width / max(width / reduction, 4),
      which is about `reduction` for wide networks.
  """

  reduction: int = 16

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    width = x.shape[-1]
    hidden = width // max(width // self.reduction, 4)
    layer = functools.partial(
      nn.Dense, use_bias=False, kernel_init=torch_conv_default, dtype=self.dtype
    )
    s = x.astype(jnp.float32).mean((1, 2)).astype(self.dtype)
    s = nn.relu(layer(hidden, name="squeeze")(s))
    s = nn.sigmoid(layer(width, name="excite")(s))
    return s[:, None, None] * self.large_kernel(x, width) * x


class GatedAttention(Mixer):
  """A 1x1 convolution, GELU, the gate, a 1x1 convolution, plus the input.

  It has no dropout: these blocks have it in their MLP only.

  Attributes:
    gate: constructor of the gate.
    weights: initial values of all convolutions, `HE` or `TORCH`.
  """

  gate: Constructor
  weights: Init = HE

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    del train
    layer = functools.partial(pointwise, x.shape[-1], self.weights)
    y = gelu(layer(dtype=self.dtype, name="expand")(x))
    y = self.gate(
      weights=self.weights,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      name="gate",
    )(y)
    return layer(dtype=self.dtype, name="project")(y) + x


def _block(gate: Constructor, weights: Init) -> Constructor:
  return functools.partial(
    TwoBranchBlock,
    norm=BatchNorm,
    mixer=functools.partial(GatedAttention, gate, weights),
    mlp=functools.partial(Mlp, layer=pointwise, depthwise=True),
    scale=1e-2,
  )


def gsta(index: int, resized: bool) -> Constructor:
  """Returns the block of gated spatiotemporal attention."""
  del index, resized
  return _block(SplitGate, HE)


def van(index: int, resized: bool) -> Constructor:
  """Returns the block of the visual attention network."""
  del index, resized
  return _block(ProductGate, HE)


def tau(index: int, resized: bool) -> Constructor:
  """Returns the block of the temporal attention unit."""
  del index, resized
  return _block(TemporalGate, TORCH)
