"""LSM: a U-Net with a neural spectral block at every level.

Wu et al. 2023, "Solving High-Dimensional PDEs with Latent Spectral Models".
"""

import functools
import math

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers.common import dense
from stjax.models.fno import coordinates
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv
from stjax.models.layers.conv_unit import DoubleConv
from stjax.models.layers.images import ImageNetwork
from stjax.models.layers.upsampling import Spread, interpolate_double
from stjax.models.translators.metaformer import gelu
from stjax.models.unet_forecast import pad_to


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Returns softmax(q k^T) v, not scaled; the softmax is in float32.

  Args:
    q: queries [..., heads, L, D].
    k: keys [..., heads, M, D].
    v: values [..., heads, M, D].

  Returns:
    [..., heads, L, D] in the dtype of `k`.
  """
  logits = jnp.einsum("...ld,...md->...lm", q, k)
  weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(k.dtype)
  return jnp.einsum("...lm,...md->...ld", weights, v)


class SpectralBlock(nn.Module):
  """Adds to each patch what a few tokens make of it (section 3.3).

  Learned tokens read the patch by attention, are mapped by sums of sines and
  cosines of their values, and are read by the patch in turn.

  Attributes:
    tokens: number of tokens of each patch.
    basis: number of sines, and of cosines.
    patch_size: (H, W) of a patch.
    heads: heads of both attentions, which must divide the channels.
    dtype: compute dtype.
  """

  tokens: int = 4
  basis: int = 16
  patch_size: tuple[int, int] = (4, 4)
  heads: int = 8
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to the same shape and dtype."""
    width = x.shape[-1]
    if width % self.heads:
      raise NetworkError(
        f"a spectral block has {self.heads} heads, which do not divide its "
        f"width {width}: change model.features to a multiple of model.heads"
      )
    checks.tiled(x.shape[1:3], self.patch_size, "padded grid")
    head_width = width // self.heads
    read = Conv(2 * width, 1, dtype=self.dtype, name="read")(x)
    # In the original's weights, the channels of keys and values alternate.
    k, v = (self._by_head(y) for y in (read[..., ::2], read[..., 1::2]))
    latent = self.param(
      "latent",
      nn.initializers.uniform(1 / width),
      (self.heads, self.tokens, head_width),
      jnp.float32,
    ).astype(self.dtype)
    tokens = attend(latent, k, v) + latent
    tokens = tokens + self._spectral(tokens)
    q = self._by_head(Conv(width, 1, dtype=self.dtype, name="write")(x))
    p, r = self.patch_size
    return x + einops.rearrange(
      attend(q, tokens, tokens), "b h w n (p r) d -> b (h p) (w r) (n d)", p=p, r=r
    )

  def _by_head(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H patches, W patches, heads, pixels, D]."""
    p, r = self.patch_size
    return einops.rearrange(
      x, "b (h p) (w r) (n d) -> b h w n (p r) d", p=p, r=r, n=self.heads
    )

  def _spectral(self, tokens: jax.Array) -> jax.Array:
    """Sums sines and cosines of the tokens; each channel has its own weights."""
    *_, heads, _, head_width = tokens.shape
    weights = self.param(
      "weights",
      nn.initializers.uniform(1 / (heads * head_width)),
      (heads * head_width, 2 * self.basis),
      jnp.float32,
    ).reshape(heads, head_width, 2, self.basis)
    frequencies = math.pi / self.basis * jnp.arange(self.basis)
    angles = tokens.astype(jnp.float32)[..., None] * frequencies
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -2)
    y = jnp.einsum("...nldsm,ndsm->...nld", waves, weights)
    return y.astype(tokens.dtype)


class LSM(ImageNetwork):
  """Forecasts as many frames as it is shown; the pixels' places are inputs, too.

  Level l has features * 2 ** l channels on a grid halved l times, rounded
  down. The last level has half of that if interpolation doubles the grids.

  Attributes:
    features: channels of the finest level, a multiple of `heads`.
    depth: how often the grid is halved.
    tokens: number of tokens of each patch in a spectral block.
    basis: number of sines, and of cosines, in a spectral block.
    patch_size: pixels of a patch, one number or (H, W); patches must tile the
      grid of every level.
    heads: attention heads of the spectral blocks.
    padding: number of zeros below and to the right of the field, one number or
      (H, W).
    bilinear: whether interpolation doubles the grids; otherwise transposed
      convolutions do.
    readout_features: hidden channels of the readout.
  """

  features: int = 64
  depth: int = 4
  tokens: int = 4
  basis: int = 16
  patch_size: int | tuple[int, int] = 4
  heads: int = 8
  padding: int | tuple[int, int] = 0
  bilinear: bool = True
  readout_features: int = 128

  def __post_init__(self):
    options = ("depth", "tokens", "basis", "heads", "readout_features")
    checks.at_least(self, **dict.fromkeys(options, 1))
    checks.multiple_of(self, "features", "heads")
    checks.pair(self, "patch_size")
    checks.pair(self, "padding", lowest=0)
    super().__post_init__()

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] to [N, H, W, features]."""
    h, w = x.shape[1:3]
    down, right = checks.pair(self, "padding", lowest=0)

    def layer(x, features, name):
      return dense(features, x.shape[-1], x.dtype, name=name)(x)

    place = jnp.broadcast_to(coordinates(h, w), (*x.shape[:-1], 2))
    x = jnp.concatenate([x, place.astype(x.dtype)], axis=-1)
    x = layer(x, self.features, "lift")
    x = jnp.pad(x, ((0, 0), (0, down), (0, right), (0, 0)))
    x = self._levels(x, train)[:, :h, :w]
    x = gelu(layer(x, self.readout_features, "readout_0"))
    return layer(x, features, "readout_1")

  def check_grid(self, h: int, w: int) -> None:
    """Raises NetworkError where patches do not tile the grid of a level."""
    patch = checks.pair(self, "patch_size")
    down, right = checks.pair(self, "padding", lowest=0)
    h, w = h + down, w + right
    for level in range(self.depth + 1):
      rows, columns = h >> level, w >> level
      if not (rows and columns) or rows % patch[0] or columns % patch[1]:
        raise NetworkError(
          f"the grid is {rows} x {columns} after halving {h} x {w} {level} "
          f"times; expected multiples of model.patch_size = {patch[0]} x "
          f"{patch[1]}: change it, model.depth (now {self.depth}) or "
          "model.padding"
        )

  def _levels(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, features] to the same shape by the U-Net."""
    dtype = x.dtype
    # Interpolation keeps the channels, where a transposed convolution halves
    # them, so the levels below have half as many.
    share = 2 if self.bilinear else 1
    widths = [self.features * 2**level for level in range(self.depth + 1)]
    widths[-1] //= share
    patch = checks.pair(self, "patch_size")
    double = functools.partial(DoubleConv, use_bias=False, dtype=dtype)

    def process(x, level):
      return SpectralBlock(
        self.tokens, self.basis, patch, self.heads, dtype, name=f"spectral_{level}"
      )(x)

    skips = []
    for level, width in enumerate(widths):
      if level:
        x = nn.max_pool(x, (2, 2), (2, 2))
      x = double(width, name=f"down_{level}")(x, train)
      skips.append(x)
    x = process(skips.pop(), self.depth)
    for level in reversed(range(self.depth)):
      skip = process(skips[level], level)
      if self.bilinear:
        x = interpolate_double(x)
      else:
        x = Spread(x.shape[-1] // 2, dtype=dtype, name=f"double_{level}")(x)
      x = jnp.concatenate([skip, pad_to(x, skip.shape[1:3])], -1)
      width = widths[level] // share if level else self.features
      hidden = x.shape[-1] // 2 if self.bilinear else width
      x = double(width, hidden, name=f"up_{level}")(x, train)
    return Conv(self.features, 1, dtype=dtype, name="head")(x)
