"""DiT as a forecaster: a diffusion transformer between encoder and decoder.

Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (adaLN-Zero),
as Triton's authors use it for a baseline: it does not diffuse, and is always
told the same diffusion step.
"""

import functools
import math

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models import simvp
from stjax.models.layers import checks
from stjax.models.layers.basic import BatchNorm, Conv
from stjax.models.layers.folding import fold_frames, unfold_frames
from stjax.models.translators.attention import SelfAttention
from stjax.models.translators.metaformer import TORCH, Mlp, gelu

POSITIONS = ("sinusoids", "learned")
# Longest wave length over 2 pi, which Vaswani et al. 2017 chose.
_LONGEST = 10_000.0

_xavier = nn.initializers.xavier_uniform()
_normal = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros
linear = functools.partial(nn.Dense, kernel_init=_xavier)
# The norms have no parameters, since scale and shift are made from the step.
Norm = functools.partial(
  nn.LayerNorm, epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False
)


def xavier_patches(key, shape, dtype=jnp.float32) -> jax.Array:
  """Draws the kernel [p, q, I, O] of patches like that of a linear layer."""
  return _xavier(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


def grid_sinusoids(h: int, w: int, features: int) -> np.ndarray:
  """Returns sines and cosines of the columns, then those of the rows.

  Args:
    h: number of rows.
    w: number of columns.
    features: number of waves, a multiple of 4.

  Returns:
    [h w, features] float32, row by row.
  """
  rows, columns = np.divmod(np.arange(h * w), w)
  quarter = features // 4
  frequencies = 1 / _LONGEST ** (np.arange(quarter) / quarter)
  return np.concatenate(
    [
      wave(positions[:, None] * frequencies)
      for positions in (columns, rows)
      for wave in (np.sin, np.cos)
    ],
    axis=1,
  ).astype(np.float32)


def step_sinusoids(step: jax.Array, features: int) -> jax.Array:
  """Maps steps [B] to [B, features] cosines, then sines.

  The last column is 0 if `features` is odd.
  """
  half = features // 2
  frequencies = np.exp(
    -np.float32(math.log(_LONGEST)) * np.arange(half, dtype=np.float32) / half
  )
  angles = step.astype(jnp.float32)[:, None] * frequencies
  waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
  return jnp.pad(waves, ((0, 0), (0, features % 2)))


class StepEmbedding(nn.Module):
  """Embeds a step by two layers after its sines and cosines.

  Attributes:
    features: width of the result.
    waves: number of sines and cosines together.
    dtype: compute dtype.
  """

  features: int
  waves: int = 256
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, step: jax.Array) -> jax.Array:
    """Maps [B] to [B, features]."""
    layer = functools.partial(
      nn.Dense, self.features, kernel_init=_normal, dtype=self.dtype
    )
    x = layer(name="first")(step_sinusoids(step, self.waves))
    return layer(name="second")(nn.silu(x))


def modulations(condition: jax.Array, number: int, dtype: jnp.dtype):
  """Makes `number` arrays [B, 1, D] of a condition [B, D].

  They are zeros before training (adaLN-Zero), so that each block begins as
  the identity.
  """
  layer = nn.Dense(
    number * condition.shape[-1], kernel_init=_zeros, dtype=dtype, name="modulation"
  )
  return jnp.split(layer(nn.silu(condition))[:, None], number, axis=-1)


class DiTBlock(nn.Module):
  """Attention and MLP, which the condition scales, shifts and gates.

  Attributes:
    heads: number of heads, which must divide the width.
    mlp_ratio: hidden width of the MLP over the width.
    dtype: compute dtype.
  """

  heads: int
  mlp_ratio: float = 4.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
    """Maps tokens [B, L, D] to the same shape; condition [B or 1, D]."""
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulations(
      condition, 6, self.dtype
    )
    norm = Norm(dtype=jnp.float32)
    y = norm(x).astype(x.dtype) * (1 + scale_1) + shift_1
    attention = SelfAttention(
      self.heads, dtype=self.dtype, layer=linear, name="attention"
    )
    x = x + gate_1 * attention(y, False)
    y = norm(x).astype(x.dtype) * (1 + scale_2) + shift_2
    mlp = Mlp(
      int(self.mlp_ratio * x.shape[-1]), layer=linear, dtype=self.dtype, name="mlp"
    )
    return x + gate_2 * mlp(y, False)


class Transformer(nn.Module):
  """The diffusion transformer, which maps a field and a step to a field.

  Attributes:
    features: width, a multiple of the heads and of 4.
    depth: number of blocks.
    heads: number of attention heads.
    mlp_ratio: hidden width of a block's MLP over the width.
    patch_size: (H, W) of a patch.
    out_channels: channels of the result; None means those of the input.
    position: "sinusoids", or "learned" with these as initial values; a learned
      table fits one grid only.
    remat: whether the backward pass recomputes the blocks.
    dtype: compute dtype.
  """

  features: int = 256
  depth: int = 12
  heads: int = 2
  mlp_ratio: float = 4.0
  patch_size: tuple[int, int] = (1, 1)
  out_channels: int | None = None
  position: str = "sinusoids"
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, step: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] and steps [B or 1] to [B, H, W, C_out].

    The result is 0 before training.
    """
    checks.tiled(x.shape[1:3], self.patch_size, "coarse grid")
    p, q = self.patch_size
    out_channels = self.out_channels or x.shape[-1]
    x = Conv(
      self.features,
      self.patch_size,
      stride=self.patch_size,
      padding=0,
      kernel_init=xavier_patches,
      bias_init=_zeros,
      dtype=self.dtype,
      name="patches",
    )(x)
    h, w = x.shape[1:3]
    position = grid_sinusoids(h, w, self.features)
    if self.position == "learned":
      position = self.param("position", lambda key: jnp.asarray(position))
    x = x.reshape(x.shape[0], h * w, self.features)
    x = x + jnp.asarray(position, x.dtype)
    condition = StepEmbedding(self.features, dtype=self.dtype, name="step")(step)
    block_class = nn.remat(DiTBlock) if self.remat else DiTBlock
    for i in range(self.depth):
      x = block_class(self.heads, self.mlp_ratio, self.dtype, name=f"block_{i}")(
        x, condition
      )
    return FinalLayer((h, w, p, q), out_channels, self.dtype, name="final")(
      x, condition
    )


class FinalLayer(nn.Module):
  """Maps tokens back to pixels.

  Attributes:
    shape: rows and columns of tokens, then rows and columns of a patch.
    features: channels of the result.
    dtype: compute dtype.
  """

  shape: tuple[int, int, int, int]
  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
    """Maps tokens [B, h w, D] to [B, h p, w q, features]."""
    shift, scale = modulations(condition, 2, self.dtype)
    x = Norm(dtype=jnp.float32)(x).astype(x.dtype) * (1 + scale) + shift
    h, w, p, q = self.shape
    x = nn.Dense(
      p * q * self.features, kernel_init=_zeros, dtype=self.dtype, name="linear"
    )(x)
    return einops.rearrange(x, "b (h w) (p q c) -> b (h p) (w q) c", h=h, w=w, p=p, q=q)


class DiT(nn.Module):
  """Forecasts as many frames as it is shown.

  Convolutional encoder and decoder act on each frame. The transformer acts on
  the coarse grid, where the frames are channels.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    spatial_features: channels of encoder and decoder.
    spatial_depth: layers of encoder and of decoder; every second one halves
      the grid.
    features: width of the transformer, a multiple of `heads` and of 4.
    depth: blocks of the transformer.
    heads: number of its attention heads.
    mlp_ratio: hidden width of a block's MLP over the width.
    patch_size: pixels of a patch of the coarse grid, one number or (H, W).
    time_step: diffusion step that the transformer is always told. (The
      original draws one between 0 and 999 when it is built, and does not keep
      it with the weights.)
    position: "sinusoids", or "learned" with these as initial values; a learned
      table fits one grid only.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: whether the backward pass recomputes the transformer's blocks.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  spatial_features: int = 32
  spatial_depth: int = 4
  features: int = 256
  depth: int = 12
  heads: int = 2
  mlp_ratio: float = 4.0
  patch_size: int | tuple[int, int] = 1
  time_step: int = 0
  position: str = "sinusoids"
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1, spatial_features=1, depth=1)
    checks.at_least(self, spatial_depth=1, heads=1, time_step=0)
    checks.multiple_of(self, "features", "heads")
    checks.pair(self, "patch_size")
    checks.one_of(self, "position", POSITIONS)
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    if self.features % 4:
      raise NetworkError(
        f"model.features is {self.features}; expected a multiple of 4 (sines "
        "and cosines of rows and columns)"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of
        2 ** (spatial_depth // 2).
      train: whether to normalise by the batch's own statistics.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    layer = functools.partial(
      simvp.SampledConv,
      shuffle=False,
      initial=TORCH,
      activation=gelu,
      norm_layer=functools.partial(BatchNorm, train=train),
    )
    transformer = Transformer(
      self.features,
      self.depth,
      self.heads,
      self.mlp_ratio,
      checks.pair(self, "patch_size"),
      position=self.position,
      remat=self.remat,
      dtype=jnp.dtype(self.dtype),
      name="transformer",
    )
    step = jnp.full(1, self.time_step)

    def translate(latent):
      y = transformer(fold_frames(latent), step)
      return unfold_frames(y, latent.shape[1])

    encoder = functools.partial(simvp.Encoder, layer=layer)
    decoder = functools.partial(simvp.Decoder, layer=layer, add_skip=False)
    return simvp.through_frame(self, x, translate, encoder, decoder)
