"""The translator of SimVP's first version: a U-Net of Inception blocks.

Gao et al. 2022, "SimVP: Simpler yet Better Video Prediction", section 3.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers.basic import Conv, GroupNorm
from stjax.models.layers.folding import fold_frames, unfold_frames
from stjax.models.translators.metaformer import Translator

KERNELS = (3, 5, 7, 11)


class InceptionBlock(nn.Module):
  """A 1x1 convolution, then the sum of grouped convolutions of several sizes.

  Attributes:
    hidden: channels in between; if they are no multiple of `groups`, there is
      one group only.
    features: channels of the result, a multiple of the groups.
    kernels: sizes of the grouped convolutions.
    groups: number of groups of the convolutions and of their norms.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  hidden: int
  features: int
  kernels: tuple[int, ...] = KERNELS
  groups: int = 8
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] to [N, h, w, features]."""
    groups = 1 if self.hidden % self.groups else self.groups
    if self.features % groups:
      raise NetworkError(
        f"translator 'incepu' splits {self.features} channels into {groups} "
        "groups: change model.temporal_features or model.spatial_features "
        f"(times the number of frames) to multiples of {groups}"
      )
    x = Conv(self.hidden, 1, dtype=self.dtype, name="reduce")(x)
    total = 0
    for i, kernel in enumerate(self.kernels):
      y = Conv(
        self.features,
        kernel,
        groups=groups,
        padding_mode=self.padding_mode,
        dtype=self.dtype,
        name=f"conv_{i}",
      )(x)
      y = GroupNorm(groups, name=f"norm_{i}")(y)
      total = total + nn.leaky_relu(y, 0.2)
    return total


class InceptionUNet(Translator):
  """Inception blocks with skips, all at one resolution, over folded frames.

  It has no dropout and no stochastic depth.

  Attributes:
    features: width (hid_T); the blocks are half as wide inside.
    depth: number of blocks on each side, at least 2.
    mlp_ratio: ignored, as there is no MLP.
    kernels: kernel sizes of the blocks.
    groups: channel groups of the blocks.
  """

  features: int
  depth: int
  mlp_ratio: float = 8.0
  kernels: tuple[int, ...] = KERNELS
  groups: int = 8

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps the latent [B, T, h, w, S] to the same shape."""
    del train
    block = nn.remat(InceptionBlock) if self.remat else InceptionBlock
    y = fold_frames(x)
    width = y.shape[-1]

    def apply(y, features, name):
      return block(
        self.features // 2,
        features,
        self.kernels,
        self.groups,
        padding_mode=self.padding_mode,
        dtype=self.dtype,
        name=name,
      )(y)

    skips = []
    for i in range(self.depth):
      y = apply(y, self.features, f"down_{i}")
      skips.append(y)
    y = apply(skips.pop(), self.features, "up_0")
    for i in range(1, self.depth):
      features = width if i == self.depth - 1 else self.features
      y = apply(jnp.concatenate([y, skips.pop()], -1), features, f"up_{i}")
    return unfold_frames(y, x.shape[1])
