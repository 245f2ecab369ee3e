"""Blocks that mix pixels by an MLP or by pooling: MLP-Mixer, PoolFormer.

MLP-Mixer: Tolstikhin et al. 2021. PoolFormer: Yu et al. 2022.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.layers.basic import GroupNorm, LayerNorm
from stjax.models.translators.metaformer import (
  NORMAL,
  Constructor,
  Mixer,
  Mlp,
  TwoBranchBlock,
  pointwise,
)


class TokenMlp(Mixer):
  """An MLP over all pixels, the same for each channel.

  Its parameters fit one grid only. The hidden width is half the channels.
  """

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to the same shape."""
    b, h, w, c = x.shape
    tokens = x.reshape(b, h * w, c).swapaxes(1, 2)
    mlp = Mlp(c // 2, dropout=self.dropout, dtype=self.dtype, name="tokens")
    return mlp(tokens, train).swapaxes(1, 2).reshape(x.shape)


class Pooling(Mixer):
  """Mean over the 3x3 neighbours minus the pixel itself.

  With padding by zeros, pixels outside the grid do not count in the mean.
  """

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, h, w, C] to the same shape."""
    del train
    if self.padding_mode == "circular":
      x_padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
      return nn.avg_pool(x_padded, (3, 3)) - x
    pooled = nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)
    return pooled - x


def mlpmixer(index: int, resized: bool) -> Constructor:
  """Returns the block of the MLP-Mixer."""
  del index, resized
  return functools.partial(
    TwoBranchBlock, norm=functools.partial(LayerNorm, eps=1e-6), mixer=TokenMlp
  )


def poolformer(index: int, resized: bool) -> Constructor:
  """Returns the block of the PoolFormer."""
  del index, resized
  return functools.partial(
    TwoBranchBlock,
    norm=functools.partial(GroupNorm, 1),
    mixer=Pooling,
    mlp=functools.partial(Mlp, layer=functools.partial(pointwise, init=NORMAL)),
    scale=1e-5,
  )
