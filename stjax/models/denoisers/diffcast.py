"""DiffCast's denoiser: a recurrent encoder of the history and a U-Net of frames.

Yu et al. 2024, "DiffCast" (arXiv 2312.06734), with the gates of Tan et al. 2023,
"Temporal Attention Unit". SynCast (2510.21847) diffuses the forecast itself by it,
without DiffCast's mean forecast.
"""

import functools

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers import common as denoisers
from stjax.models.denoisers.common import dense
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, GroupNorm
from stjax.models.layers.folding import fold_frames, unfold_frames
from stjax.models.translators.blocked_attention import attention
from stjax.models.translators.gated import GatedAttention, TemporalGate
from stjax.models.translators.metaformer import TORCH, gelu

_SMALLEST_NORM = 1e-12


class ChannelNorm(nn.Module):
  """Divides each pixel by the root mean square of its channels.

  Params: "scale" [C].
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., C] to the same shape and dtype; zeros stay zeros."""
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
    x32 = x.astype(jnp.float32)
    # The bound lies inside the root, whose derivative at 0 would be infinite.
    squares = jnp.square(x32).sum(-1, keepdims=True)
    norm = jnp.sqrt(jnp.maximum(squares, _SMALLEST_NORM**2))
    return (x32 / norm * scale * channels**0.5).astype(x.dtype)


class ResidualBlock(nn.Module):
  """x + two convolutions, each with norm and SiLU; the step scales the first norm.

  Attributes:
    features: output channels.
    groups: of the norms.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  groups: int = 8
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, step: jax.Array | None = None) -> jax.Array:
    """Maps [N, H, W, C] and perhaps the step's [N, F] to [N, H, W, features]."""
    conv = functools.partial(
      Conv, self.features, 3, padding_mode=self.padding_mode, dtype=self.dtype
    )
    h = GroupNorm(self.groups, name="first_norm")(conv(name="first")(x))
    if step is not None:
      change = dense(2 * self.features, step.shape[-1], self.dtype, name="step")
      scale, shift = jnp.split(change(nn.silu(step))[:, None, None], 2, axis=-1)
      h = h * (scale + 1) + shift
    h = conv(name="second")(nn.silu(h))
    h = nn.silu(GroupNorm(self.groups, name="second_norm")(h))
    if x.shape[-1] != self.features:
      x = Conv(self.features, 1, dtype=self.dtype, name="skip")(x)
    return x + h


class Attention(nn.Module):
  """Self-attention of all pixels, of normalised channels, added to the input.

  Attributes:
    heads: number of heads.
    head_features: features of each head.
    dtype: compute dtype.
  """

  heads: int = 4
  head_features: int = 32
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to the same shape."""
    n, h, w, channels = x.shape
    y = ChannelNorm(name="norm")(x)
    width = 3 * self.heads * self.head_features
    qkv = Conv(width, 1, use_bias=False, dtype=self.dtype, name="qkv")(y)
    shape = (n, h * w, 3, self.heads, self.head_features)
    y = attention(*jnp.moveaxis(qkv.reshape(shape), 2, 0))
    y = y.reshape(n, h, w, self.heads * self.head_features)
    return x + Conv(channels, 1, dtype=self.dtype, name="project")(y)


class GatedBlock(nn.Module):
  """A large-kernel gate of normalised channels, added to the input.

  Attributes:
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to the same shape."""
    y = ChannelNorm(name="norm")(x)
    gated = GatedAttention(
      TemporalGate,
      TORCH,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      name="gated",
    )
    return x + gated(y, train=False)


class Halve(nn.Module):
  """Halves a grid: a linear layer of its patches of 2 x 2 pixels.

  Attributes:
    features: output channels.
    dtype: compute dtype.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, H / 2, W / 2, features]."""
    conv = Conv(self.features, 2, stride=2, padding=0, dtype=self.dtype, name="conv")
    return conv(x)


class Double(nn.Module):
  """Doubles a grid: repeats each pixel, and convolves.

  Attributes:
    features: output channels.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, 2 H, 2 W, features]."""
    options = dict(padding_mode=self.padding_mode, dtype=self.dtype, name="conv")
    return Conv(self.features, 3, **options)(einops.repeat(x, _REPEAT, p=2, q=2))


_REPEAT = "n h w c -> n (h p) (w q) c"


class GRUCell(nn.Module):
  """One step of a convolutional gated recurrent unit.

  Attributes:
    features: channels of the state.
    kernel_size: odd kernel size of the convolutions.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  kernel_size: int = 3
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps the state [B, h, w, features] and [B, h, w, C] to the new state, twice."""
    options = dict(padding_mode=self.padding_mode, dtype=self.dtype)
    gates = Conv(2 * self.features, self.kernel_size, **options, name="gates")
    both = gates(jnp.concatenate([x, state], axis=-1))
    reset, update = jnp.split(nn.sigmoid(both), 2, axis=-1)
    candidate = Conv(self.features, self.kernel_size, **options, name="candidate")
    new = nn.tanh(candidate(jnp.concatenate([x, reset * state], axis=-1)))
    state = (1 - update) * state + update * new
    return state, state


class ConvGRU(nn.Module):
  """A convolutional gated recurrent unit that reads frames one after another.

  Attributes:
    features: channels of the state, which is 0 at first.
    kernel_size: odd kernel size of the convolutions.
    padding_mode: "zeros" or "circular".
    remat: recompute each step in the backward pass.
    dtype: compute dtype.
  """

  features: int
  kernel_size: int = 3
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, T, h, w, C] to the state after each frame, [B, T, h, w, features]."""
    cell = nn.remat(GRUCell, prevent_cse=False) if self.remat else GRUCell
    scanned = nn.scan(
      cell,
      variable_broadcast="params",
      split_rngs={"params": False},
      in_axes=1,
      out_axes=1,
    )(self.features, self.kernel_size, self.padding_mode, self.dtype, name="cell")
    zeros = jnp.zeros((x.shape[0], *x.shape[2:4], self.features), self.dtype)
    return scanned(zeros, x.astype(self.dtype))[1]


class ContextNet(nn.Module):
  """Encodes a history by a recurrent unit at each level of a pyramid.

  Level l has the first, then the last channels of `widths[l : l + 2]`, on a grid
  halved l times.

  Attributes:
    widths: channels in front of each level and behind the last one.
    groups: of the norms.
    padding_mode: "zeros" or "circular".
    remat: recompute the blocks and the recurrent steps in the backward pass.
    dtype: compute dtype.
  """

  widths: tuple[int, ...]
  groups: int = 8
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, history: jax.Array) -> tuple[jax.Array, ...]:
    """Maps [B, T, H, W, C] to the states after its last frame, level by level.

    That of level l is [B, H / 2 ** l, W / 2 ** l, widths[l]].
    """
    frames = history.shape[1]
    options = dict(padding_mode=self.padding_mode, dtype=self.dtype)
    block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
    # A level sees only its own past, so that all else runs on all frames at once.
    x = einops.rearrange(history, "b t h w c -> (b t) h w c")
    x = Conv(self.widths[0], 7, **options, name="stem")(x)
    states = []
    for level, width in enumerate(self.widths[:-1]):
      x = block(width, self.groups, **options, name=f"block_{level}")(x)
      unit = ConvGRU(width, remat=self.remat, **options, name=f"unit_{level}")
      after = unit(einops.rearrange(x, "(b t) h w c -> b t h w c", t=frames))
      states.append(after[:, -1])
      if level < len(self.widths) - 2:
        x = einops.rearrange(after, "b t h w c -> (b t) h w c")
        halve = Halve(self.widths[level + 1], self.dtype, name=f"halve_{level}")
        x = halve(x)
    return tuple(states)


class Sinusoids(nn.Module):
  """Two layers with GELU that follow the sines and cosines of a number.

  Attributes:
    features: number of sines and cosines.
    dtype: compute dtype.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, number: jax.Array) -> jax.Array:
    """Maps [B] to [B, 4 features]."""
    width = 4 * self.features
    x = denoisers.smooth_sinusoids(number, self.features)
    x = gelu(dense(width, self.features, self.dtype, name="first")(x))
    return dense(width, width, self.dtype, name="second")(x)


class FramesUNet(nn.Module):
  """A U-Net over the grid, to which frames are channels.

  Attributes:
    widths: channels in front of each level and behind the last one.
    groups: of the norms.
    heads: heads of the attention at the bottom.
    head_features: features of each of these heads.
    padding_mode: "zeros" or "circular".
    remat: recompute the blocks in the backward pass.
    dtype: compute dtype.
  """

  widths: tuple[int, ...]
  groups: int = 8
  heads: int = 4
  head_features: int = 32
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    noisy: jax.Array,
    step: jax.Array,
    shift: jax.Array,
    context: tuple[jax.Array, ...],
  ) -> jax.Array:
    """Maps frames [B, H, W, F] to the same shape.

    Args:
      noisy: [B, H, W, F].
      step: [B] integers.
      shift: [B, H, W, F], what the noise is centred on.
      context: of `ContextNet`, of the same widths.
    """
    recomputed = nn.remat if self.remat else lambda module: module
    block_class, gated_class = map(recomputed, (ResidualBlock, GatedBlock))
    options = dict(padding_mode=self.padding_mode, dtype=self.dtype)
    # The original also embeds the number of a fragment, which is always 0.
    fragment = Sinusoids(self.widths[0], self.dtype, name="fragment")
    numbers = jnp.zeros(1, step.dtype)
    embedding = Sinusoids(self.widths[0], self.dtype, name="step")(step)
    constant = jnp.broadcast_to(fragment(numbers), embedding.shape)
    embedding = jnp.concatenate([embedding, constant], axis=-1)

    def block(name, width, *parts):
      x = jnp.concatenate(parts, axis=-1)
      return block_class(width, self.groups, **options, name=name)(x, embedding)

    frames = noisy.shape[-1]
    x = jnp.concatenate([shift, noisy], axis=-1)
    first = x = Conv(self.widths[0], 7, **options, name="stem")(x)
    levels = list(zip(self.widths[:-1], self.widths[1:], strict=True))
    last = len(levels) - 1
    skips = []
    for level, (width, wider) in enumerate(levels):
      x = block(f"down_{level}_first", width, x, context[level])
      skips.append(x)
      x = block(f"down_{level}_second", width, x)
      x = gated_class(**options, name=f"down_{level}_gate")(x)
      skips.append(x)
      if level < last:
        x = Halve(wider, self.dtype, name=f"halve_{level}")(x)
      else:
        x = Conv(wider, 3, **options, name="widen")(x)
    x = block("bottom_first", self.widths[-1], x)
    attend = recomputed(Attention)(
      self.heads, self.head_features, self.dtype, name="attention"
    )
    x = block("bottom_second", self.widths[-1], attend(x))
    # Counted from the bottom, as the original's names are.
    for number, (narrower, width) in enumerate(reversed(levels)):
      x = block(f"up_{number}_first", width, x, skips.pop())
      x = block(f"up_{number}_second", width, x, skips.pop())
      x = gated_class(**options, name=f"up_{number}_gate")(x)
      if number < last:
        x = Double(narrower, **options, name=f"double_{number}")(x)
      else:
        x = Conv(narrower, 3, **options, name="narrow")(x)
    x = block("last", self.widths[0], x, first)
    return Conv(frames, 1, dtype=self.dtype, name="readout")(x)


class DiffCast(denoisers.Denoiser):
  """Predicts a diffusion's noise from the noisy frames and the history.

  The history's frames are read one after another, those of the forecast are
  channels of one image, the frame outermost and the variable innermost. The
  original knows one variable, and gets 0 where `prior_shift` goes here. Level l
  has features * multipliers[l - 1] channels (level 0: features) on a grid halved
  l times.

  Attributes:
    horizon: frames T_out to forecast.
    features: channels of the finest level; a multiple of `groups`.
    multipliers: channels behind each level over `features`; one a level.
    groups: of the norms.
    heads: heads of the attention at the coarsest level.
    head_features: features of each of these heads.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: recompute the blocks in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  horizon: int
  features: int = 64
  multipliers: tuple[int, ...] = (1, 2, 4, 8)
  groups: int = 8
  heads: int = 4
  head_features: int = 32
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, horizon=1, features=4, groups=1, heads=1, head_features=1)
    checks.multiple_of(self, "features", "groups")
    if self.features % 2:
      raise NetworkError(f"model.features is {self.features}; expected an even number")
    if not self.multipliers or min(self.multipliers) < 1:
      raise NetworkError(
        f"model.multipliers is {self.multipliers}; expected a number, at least 1, for"
        " each level"
      )
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()

  def setup(self):
    shared = dict(
      widths=(self.features, *(self.features * m for m in self.multipliers)),
      groups=self.groups,
      padding_mode=self.padding_mode,
      remat=self.remat,
      dtype=jnp.dtype(self.dtype),
    )
    self.context = ContextNet(**shared)
    self.unet = FramesUNet(heads=self.heads, head_features=self.head_features, **shared)

  def encode(self, history: jax.Array) -> denoisers.Context:
    """Reads the history [B, T_in, H, W, C], normalised, frame by frame.

    Returns:
      The recurrent states after the last frame, one a level: [B, H / 2 ** l,
      W / 2 ** l, channels of level l].

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    denoisers.check_history(history)
    levels = len(self.multipliers)
    factor = 2 ** (levels - 1)
    _, _, h, w, _ = history.shape
    if h % factor or w % factor:
      raise NetworkError(
        f"the grid is {h} x {w}; the {levels} levels of model.multipliers need"
        f" multiples of {factor}: take fewer levels, crop the data, or pad them"
        f" (--config.method.pad_to_multiple={factor})"
      )
    return denoisers.Context(self.context(history), history.shape[1:])

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
      train: makes no difference, as nothing here depends on the mode.

    Returns:
      [B, T_out, H, W, C] float32.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    del train
    step = denoisers.check_inputs(
      noisy, step, context.history_shape, prior_shift, self.horizon
    )
    y = self.unet(fold_frames(noisy), step, fold_frames(prior_shift), context.arrays)
    return unfold_frames(y, self.horizon).astype(jnp.float32)
