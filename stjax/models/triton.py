"""Triton: convolutional encoder, self-attention over the coarse grid, decoder.

Wu et al. 2025, arXiv 2505.19432. Encoder and decoder are those of SimVP's first
version; the core between them differs.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models import simvp
from stjax.models.layers import checks
from stjax.models.translators.attention import uniformer
from stjax.models.translators.metaformer import MetaFormer

CORES = ("attention", "conv")


def core_block(core_first: str):
  """Returns the function that a `MetaFormer` gets the blocks of a core from."""
  return functools.partial(uniformer, local=core_first == "conv")


class Triton(nn.Module):
  """Forecasts as many frames as it is shown.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    spatial_features: channels of encoder and decoder, an even number. Times
      the number of frames, they must be a multiple of the 8 heads.
    temporal_features: width of the core between its first and last block, a
      multiple of 8.
    spatial_depth: layers of encoder and of decoder; every second one halves
      the grid.
    temporal_depth: blocks of the core, at least 2.
    core_first: "attention", with which all blocks attend to all pixels of the
      coarse grid, or "conv", with which the first block, and the last if it
      changes the width, mix near pixels only.
    mlp_ratio: hidden width of a block's MLP over its width.
    drop_path: stochastic depth rate of the last block; the first has .01.
      0 turns stochastic depth off everywhere.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: whether the backward pass recomputes the core's blocks.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  spatial_features: int = 256
  temporal_features: int = 512
  spatial_depth: int = 4
  temporal_depth: int = 8
  core_first: str = "attention"
  mlp_ratio: float = 4.0
  drop_path: float = 0.1
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.one_of(self, "core_first", CORES)
    checks.at_least(self, spatial_depth=1)
    simvp.check_options(self)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of
        2 ** (spatial_depth // 2).
      train: whether to use stochastic depth (random stream "dropout") and the
        batch's own statistics.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    core = MetaFormer(
      core_block(self.core_first),
      features=self.temporal_features,
      depth=self.temporal_depth,
      mlp_ratio=self.mlp_ratio,
      drop_path=self.drop_path,
      # The original's rates begin at .01, unless stochastic depth is off.
      legacy_drop_path=self.drop_path > 0,
      remat=self.remat,
      padding_mode=self.padding_mode,
      dtype=jnp.dtype(self.dtype),
      name="core",
    )
    return simvp.through_frame(self, x, functools.partial(core, train=train))
