"""The stack of blocks that twelve translators share, and its common block.

Yu et al. 2022, "MetaFormer Is Actually What You Need for Vision"; Tan et al.
2023, "OpenSTL: A Comprehensive Benchmark of Spatio-Temporal Predictive
Learning" (MetaVP).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.models.layers.basic import (
  BatchNorm,
  Conv,
  DropPath,
  he_fan_out,
  torch_conv_default,
  truncated_normal,
)
from stjax.models.layers.conv_unit import unit_class
from stjax.models.layers.folding import fold_frames, unfold_frames

Constructor = Callable[..., nn.Module]


class Init(NamedTuple):
  """Initialisers of a convolution; a bias_init of None means torch's default."""

  kernel_init: Callable[..., jax.Array]
  bias_init: Callable[..., jax.Array] | None


# Initial values of He et al., of vision transformers, and of torch.
HE = Init(he_fan_out, nn.initializers.zeros)
NORMAL = Init(truncated_normal(0.02), nn.initializers.zeros)
TORCH = Init(torch_conv_default, None)


def pointwise(features: int, init: Init = HE, **options) -> Conv:
  """Returns a 1x1 convolution; the options are those of `Conv`."""
  return Conv(features, 1, **init._asdict(), **options)


def depthwise(features: int, kernel_size: int, init: Init = HE, **options) -> Conv:
  """Returns a convolution of each channel by itself, with options of `Conv`."""
  return Conv(features, kernel_size, groups=features, **init._asdict(), **options)


linear = functools.partial(nn.Dense, kernel_init=truncated_normal(0.02))


def gelu(x: jax.Array) -> jax.Array:
  """Returns x Phi(x), by the error function (Hendrycks & Gimpel 2016)."""
  return nn.gelu(x, approximate=False)


class Mixer(nn.Module, kw_only=True):
  """Base of the modules that mix pixels inside a block.

  A block hands all of these options to its mixer, which ignores those that it
  has no use for.

  Attributes:
    dropout: rate of the dropout.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  dropout: float = 0.0
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32


class Block(Mixer, kw_only=True):
  """Base of the blocks of a stack, which ignore options that they do not need.

  Attributes:
    mlp_ratio: hidden width of the MLP over the width.
    drop_path: stochastic depth rate.
  """

  mlp_ratio: float = 8.0
  drop_path: float = 0.0


class Translator(Mixer, kw_only=True):
  """Base of the translators, which ignore options that they do not need.

  Attributes:
    drop_path: stochastic depth rate of the last block.
    legacy_drop_path: whether the rates begin at .01; see `drop_path_rates`.
    remat: whether the backward pass recomputes each block, to save memory.
  """

  drop_path: float = 0.0
  legacy_drop_path: bool = False
  remat: bool = False


class Mlp(nn.Module):
  """Two layers over the channels, optionally with more in between.

  Attributes:
    hidden: hidden width.
    layer: constructor of the two layers.
    depthwise: whether a depthwise 3x3 convolution precedes the activation.
    refine: constructor of a module that refines the activated hidden channels.
    dropout: rate after the activation and after the second layer.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  hidden: int
  layer: Constructor = linear
  depthwise: bool = False
  refine: Constructor | None = None
  dropout: float = 0.0
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [..., C] to the same shape."""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    y = self.layer(self.hidden, dtype=self.dtype, name="expand")(x)
    if self.depthwise:
      y = depthwise(
        self.hidden,
        3,
        padding_mode=self.padding_mode,
        dtype=self.dtype,
        name="depthwise",
      )(y)
    y = drop(gelu(y))
    if self.refine is not None:
      y = self.refine(dtype=self.dtype, name="refine")(y)
    y = self.layer(x.shape[-1], dtype=self.dtype, name="project")(y)
    return drop(y)


class TwoBranchBlock(Block):
  """Two residual branches, x + mixer(norm(x)), then x + mlp(norm(x)).

  Each branch has stochastic depth and, if `scale` is given, learned channel
  scales (Touvron et al. 2021, eq. 3).

  Attributes:
    norm: constructor of the norms, called with a name.
    mixer: constructor of the module that mixes pixels.
    mlp: constructor of the module that mixes channels.
    scale: initial value of the channel scales; None means no scales.
    position: initial values of a depthwise 3x3 convolution that is added to
      the input (Li et al. 2022, eq. 2); None means no such convolution.
    first_skip: whether the result of the first branch is added to x; otherwise
      the second branch reads that result alone.
  """

  norm: Constructor
  mixer: Constructor
  mlp: Constructor = Mlp
  scale: float | None = None
  position: Init | None = None
  first_skip: bool = True

  def _normalise(self, name: str, x: jax.Array, train: bool) -> jax.Array:
    module = self.norm(name=name)
    # Only batch statistics depend on the mode.
    return module(x, train) if isinstance(module, BatchNorm) else module(x)

  def _scale(self, name: str, x: jax.Array) -> jax.Array:
    if self.scale is None:
      return x
    init = nn.initializers.constant(self.scale)
    return x * self.param(name, init, x.shape[-1:], jnp.float32).astype(x.dtype)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to the same shape."""
    width = x.shape[-1]
    drop_path = DropPath(self.drop_path)
    shared = dict(
      dropout=self.dropout, padding_mode=self.padding_mode, dtype=self.dtype
    )
    if self.position is not None:
      x = x + depthwise(
        width,
        3,
        self.position,
        padding_mode=self.padding_mode,
        dtype=self.dtype,
        name="position",
      )(x)
    y = self._normalise("norm_1", x, train)
    y = self.mixer(**shared, name="mixer")(y, train)
    y = drop_path(self._scale("scale_1", y), train)
    if self.first_skip:
      x = y = x + y
    y = self._normalise("norm_2", y, train)
    hidden = int(width * self.mlp_ratio)
    y = self.mlp(hidden=hidden, **shared, name="mlp")(y, train)
    return x + drop_path(self._scale("scale_2", y), train)


class ResizedBlock(nn.Module):
  """A block at the input's width, and then a change of width if it is needed.

  Attributes:
    core: constructor of the block.
    features: width of the result.
    dtype: compute dtype.
  """

  core: Constructor
  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to [B, h, w, features]."""
    x = self.core(name="core")(x, train)
    if x.shape[-1] != self.features:
      x = pointwise(self.features, TORCH, dtype=self.dtype, name="resize")(x)
    return x


def drop_path_rates(depth: int, last: float, legacy: bool) -> list[float]:
  """Returns the stochastic depth rates of the blocks, which rise linearly.

  Args:
    depth: number of blocks.
    last: rate of the last block.
    legacy: whether to begin at .01, as OpenSTL does, and not at 0.
  """
  return np.linspace(0.01 if legacy else 0.0, last, depth).tolist()


class MetaFormer(Translator):
  """Stack of blocks over T S channels: the frames are folded into the channels.

  The first block brings the width to `features`, and the last one back.

  Attributes:
    block: function (index of the block, whether it changes the width) that
      returns the block's constructor.
    features: width between the first and the last block.
    depth: number of blocks, at least 2.
    mlp_ratio: hidden width of a block's MLP over its width.
  """

  block: Callable[[int, bool], Constructor]
  features: int
  depth: int
  mlp_ratio: float = 8.0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps the latent [B, T, h, w, S] to the same shape."""
    folded = fold_frames(x)
    width = folded.shape[-1]
    rates = drop_path_rates(self.depth, self.drop_path, self.legacy_drop_path)
    resized = unit_class(self.remat, ResizedBlock)
    for i, rate in enumerate(rates):
      features = width if i == self.depth - 1 else self.features
      core = functools.partial(
        self.block(i, folded.shape[-1] != features),
        mlp_ratio=self.mlp_ratio,
        dropout=self.dropout,
        drop_path=rate,
        padding_mode=self.padding_mode,
        dtype=self.dtype,
      )
      folded = resized(core, features, self.dtype, name=f"block_{i}")(folded, train)
    return unfold_frames(folded, x.shape[1])
