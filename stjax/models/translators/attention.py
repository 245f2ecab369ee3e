"""Blocks with self-attention: ViT, Swin, Uniformer.

ViT: Dosovitskiy et al. 2021. Swin: Liu et al. 2021. Uniformer: Li et al. 2022.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers.basic import BatchNorm, LayerNorm, truncated_normal
from stjax.models.translators.blocked_attention import attention
from stjax.models.translators.metaformer import (
  HE,
  TORCH,
  Constructor,
  Mixer,
  Mlp,
  TwoBranchBlock,
  depthwise,
  linear,
  pointwise,
)


class SelfAttention(nn.Module):
  """Multi-head self-attention over tokens; the softmax is in float32.

  Attributes:
    heads: number of heads, which must divide the width.
    dropout: rate after the output layer.
    dtype: compute dtype.
    qkv_bias: whether queries, keys and values have biases.
    layer: constructor of the layer that makes queries, keys and values, and of
      the output layer.
  """

  heads: int = 8
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32
  qkv_bias: bool = True
  layer: Constructor = linear

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, bias: jax.Array | None = None
  ) -> jax.Array:
    """Maps tokens [N, L, C] to the same shape.

    Args:
      x: [N, L, C].
      train: whether to use dropout.
      bias: [heads, L, L], added to the logits of (query, key); or None.
    """
    n, length, width = x.shape
    if width % self.heads:
      raise NetworkError(
        f"self-attention has {self.heads} heads, which do not divide its "
        f"width {width}: change model.temporal_features or "
        "model.spatial_features (times the number of frames) to multiples of "
        f"{self.heads}"
      )
    qkv = self.layer(3 * width, use_bias=self.qkv_bias, dtype=self.dtype, name="qkv")(x)
    q, k, v = jnp.moveaxis(
      qkv.reshape(n, length, 3, self.heads, width // self.heads), 2, 0
    )
    if bias is None:
      y = attention(q, k, v)
    else:
      # The blocked attention knows no bias; windows are small enough without.
      y = jax.nn.dot_product_attention(q, k, v, bias=bias[None])
    y = self.layer(width, dtype=self.dtype, name="project")(y.reshape(x.shape))
    return nn.Dropout(self.dropout, deterministic=not train)(y)


class GlobalAttention(Mixer):
  """Self-attention of all pixels.

  Attributes:
    heads: number of heads, which must divide the width.
    qkv_bias: whether queries, keys and values have biases.
  """

  heads: int = 8
  qkv_bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to the same shape."""
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    attend = SelfAttention(
      self.heads, self.dropout, self.dtype, self.qkv_bias, name="attention"
    )
    return attend(tokens, train).reshape(x.shape)


def window_and_shift(h: int, w: int, shifted: bool) -> tuple[int, int]:
  """Returns the side of Swin's windows on an h x w grid, and their shift."""
  window = min(8, 7 if h % 7 == 0 else max(4, h // 16))
  if min(h, w) <= window:
    return min(h, w), 0
  return window, window // 2 if shifted else 0


def relative_position_index(window: int) -> np.ndarray:
  """Returns which row of the table of position biases each pair has.

  Args:
    window: side of the windows.

  Returns:
    [window^2, window^2] by (query, key).
  """
  y, x = np.divmod(np.arange(window**2), window)
  dy = y[:, None] - y[None] + window - 1
  dx = x[:, None] - x[None] + window - 1
  return dy * (2 * window - 1) + dx


class WindowAttention(Mixer):
  """Self-attention within windows, which every second block shifts.

  The shift wraps around, and pixels that meet through it attend to each other,
  as in OpenSTL, which does not pass Swin's mask on.

  Attributes:
    shifted: whether the windows are shifted by half their side.
    heads: number of heads, which must divide the width.
  """

  shifted: bool
  heads: int = 8

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to the same shape."""
    b, h, w, c = x.shape
    window, shift = window_and_shift(h, w, self.shifted)
    if h % window or w % window:
      raise NetworkError(
        f"translator 'swin' has windows of {window} x {window} on a latent "
        f"grid of {h} x {w}; expected multiples of {window}: change "
        "model.spatial_depth, or crop or pad the data"
      )
    table = self.param(
      "position_bias",
      truncated_normal(0.02),
      ((2 * window - 1) ** 2, self.heads),
      jnp.float32,
    )
    bias = table[relative_position_index(window)].transpose(2, 0, 1)
    x = jnp.roll(x, (-shift, -shift), (1, 2))
    x = x.reshape(b, h // window, window, w // window, window, c)
    x = x.swapaxes(2, 3).reshape(-1, window**2, c)
    x = SelfAttention(self.heads, self.dropout, self.dtype, name="attention")(
      x, train, bias.astype(self.dtype)
    )
    x = x.reshape(b, h // window, w // window, window, window, c)
    x = x.swapaxes(2, 3).reshape(b, h, w, c)
    return jnp.roll(x, (shift, shift), (1, 2))


class LocalAffinity(Mixer):
  """Uniformer's mixer of near pixels: convolutions 1x1, depthwise 5x5, 1x1."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    del train
    width = x.shape[-1]
    x = pointwise(width, dtype=self.dtype, name="expand")(x)
    x = depthwise(
      width, 5, padding_mode=self.padding_mode, dtype=self.dtype, name="depthwise"
    )(x)
    return pointwise(width, dtype=self.dtype, name="project")(x)


def vit(index: int, resized: bool) -> Constructor:
  """Returns the block of the vision transformer, without positions."""
  del index, resized
  return functools.partial(TwoBranchBlock, norm=LayerNorm, mixer=GlobalAttention)


def swin(index: int, resized: bool) -> Constructor:
  """Returns the block of the shifted-window transformer."""
  del resized
  mixer = functools.partial(WindowAttention, index % 2 == 1)
  return functools.partial(TwoBranchBlock, norm=LayerNorm, mixer=mixer)


def uniformer(
  index: int, resized: bool, local: bool = True, **attention
) -> Constructor:
  """Returns Uniformer's local block at the ends of the stack, else its global one.

  Args:
    index: number of the block in the stack.
    resized: whether the block changes the width.
    local: whether there are local blocks at all.
    **attention: options of `GlobalAttention`.
  """
  if local and (index == 0 or resized):
    return functools.partial(
      TwoBranchBlock,
      norm=BatchNorm,
      mixer=LocalAffinity,
      mlp=functools.partial(Mlp, layer=pointwise),
      position=HE,
    )
  return functools.partial(
    TwoBranchBlock,
    norm=LayerNorm,
    mixer=functools.partial(GlobalAttention, **attention),
    scale=1e-6,
    position=TORCH,
  )
