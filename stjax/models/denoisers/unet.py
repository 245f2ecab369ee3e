"""A small conditional U-Net for diffusion over grids.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; the step scales
and shifts the normalised features, as Dhariwal & Nichol 2021. There is no
attention: the deepest level sees far enough in small fields.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers import common as denoisers
from stjax.models.denoisers.common import dense
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, GroupNorm
from stjax.models.layers.folding import fold_frames, unfold_frames


class StepBlock(nn.Module):
  """x + two convolutions, scaled and shifted in between by the step.

  Attributes:
    features: output channels.
    groups: of the norms.
    dropout: rate before the second convolution.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  groups: int
  dropout: float
  padding_mode: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, step: jax.Array, train: bool) -> jax.Array:
    """Maps [B, H, W, C] and the step's [B, F] to [B, H, W, features]."""
    options = dict(padding_mode=self.padding_mode, dtype=self.dtype)
    groups = self.groups
    h = nn.silu(GroupNorm(groups, name="first_norm")(x))
    h = Conv(self.features, 3, **options, name="first")(h)
    scale, shift = jnp.split(
      dense(2 * self.features, step.shape[-1], self.dtype, name="step")(step)[
        :, None, None
      ],
      2,
      axis=-1,
    )
    h = GroupNorm(groups, name="second_norm")(h) * (1 + scale) + shift
    h = nn.Dropout(self.dropout)(nn.silu(h), deterministic=not train)
    h = Conv(self.features, 3, **options, name="second")(h)
    if x.shape[-1] != self.features:
      x = Conv(self.features, 1, dtype=self.dtype, name="skip")(x)
    return x + h


def double(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """Repeats every pixel of [B, h, w, C] to 2 x 2 and cuts to the grid."""
  x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
  return x[:, : grid[0], : grid[1]]


class UNetDenoiser(denoisers.Denoiser):
  """Predicts a diffusion's noise on a grid of any size.

  The frames of noisy field, history and prior_shift are channels. Level l has
  features * 2 ** l channels on a grid halved l times (rounded up).

  Attributes:
    horizon: frames T_out to forecast.
    features: channels of the finest level; a multiple of `groups`.
    depth: how often the grid is halved.
    blocks: blocks of each level, on the way down and on the way up.
    step_dim: features of the step, even.
    groups: of the norms.
    dropout: rate within the blocks.
    padding_mode: "zeros", or "circular" for fields that wrap around (the
      grid must then be a multiple of 2 ** depth).
    remat: recompute the blocks in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  horizon: int
  features: int = 32
  depth: int = 2
  blocks: int = 2
  step_dim: int = 128
  groups: int = 8
  dropout: float = 0.0
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, horizon=1, features=1, depth=0, blocks=1, groups=1)
    checks.multiple_of(self, "features", "groups")
    if self.step_dim < 4 or self.step_dim % 2:
      raise NetworkError(
        f"model.step_dim is {self.step_dim}; expected an even number, at least 4"
      )
    checks.rate(self, "dropout")
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()

  def _stem(self, history_shape):
    """The first layer, and which of its inputs are the history's, and which not.

    The inputs are the frames of noisy field, history and prior_shift, one
    after the other, the channel innermost.
    """
    frames, _, _, channels = history_shape
    known, unknown = frames * channels, self.horizon * channels
    stem = denoisers.SplitLayer(
      self.features,
      known + 2 * unknown,
      (3, 3),
      self.padding_mode,
      jnp.dtype(self.dtype),
      name="stem",
    )
    first, history, last = np.split(
      np.arange(stem.in_features), [unknown, unknown + known]
    )
    return stem, history, np.append(first, last)

  @nn.compact
  def encode(self, history: jax.Array) -> denoisers.Context:
    """Convolves the history [B, T_in, H, W, C], normalised.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    denoisers.check_history(history)
    shape = history.shape[1:]
    factor = 2**self.depth
    if self.padding_mode == "circular" and any(n % factor for n in shape[1:3]):
      raise NetworkError(
        f"the grid is {shape[1]} x {shape[2]}; a circular one must be a multiple"
        f" of {factor} = 2 ** model.depth: lower model.depth (now {self.depth})"
      )
    stem, rows, _ = self._stem(shape)
    return denoisers.Context(stem(fold_frames(history), rows, use_bias=True), shape)

  @nn.compact
  def denoise(
    self,
    noisy: jax.Array,
    step: jax.Array,
    context: denoisers.Context,
    prior_shift: jax.Array,
    train: bool = False,
  ) -> jax.Array:
    """Predicts what the diffusion is parameterised by, e.g. the noise.

    Args:
      noisy: [B, T_out, H, W, C] noisy field.
      step: [B] (or []) integers, indices of the training schedule.
      context: of `encode`.
      prior_shift: [B, T_out, H, W, C], what the diffusion is shifted by; 0: nothing.
      train: use dropout (random stream "dropout").

    Returns:
      [B, T_out, H, W, C] float32; zeros from fresh parameters.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    step = denoisers.check_inputs(
      noisy, step, context.history_shape, prior_shift, self.horizon
    )
    dtype = jnp.dtype(self.dtype)
    options = dict(padding_mode=self.padding_mode, dtype=dtype)
    embedding = denoisers.StepEmbedding(dtype, name="step")(
      denoisers.smooth_sinusoids(step, self.step_dim)
    )
    block_class = nn.remat(StepBlock, static_argnums=(3,)) if self.remat else StepBlock

    def block(x, width, name):
      module = block_class(width, self.groups, self.dropout, **options, name=name)
      return module(x, embedding, train)

    stem, _, rows = self._stem(context.history_shape)
    x = jnp.concatenate([fold_frames(noisy), fold_frames(prior_shift)], axis=-1)
    x = context.arrays + stem(x, rows, use_bias=False)
    widths = [self.features * 2**level for level in range(self.depth + 1)]
    skips = []
    for level, width in enumerate(widths):
      if level:
        x = Conv(width, 3, stride=2, **options, name=f"halve_{level}")(x)
      for i in range(self.blocks):
        x = block(x, width, f"down_{level}_{i}")
      skips.append(x)
    for level in reversed(range(self.depth)):
      skip = skips[level]
      x = double(x, skip.shape[1:3])
      x = Conv(widths[level], 3, **options, name=f"double_{level}")(x)
      x = jnp.concatenate([x, skip], axis=-1)
      for i in range(self.blocks):
        x = block(x, widths[level], f"up_{level}_{i}")
    x = nn.silu(GroupNorm(self.groups, name="norm")(x))
    y = Conv(
      self.horizon * noisy.shape[-1],
      3,
      **options,
      kernel_init=nn.initializers.zeros,
      bias_init=nn.initializers.zeros,
      name="readout",
    )(x)
    return unfold_frames(y, self.horizon).astype(jnp.float32)
