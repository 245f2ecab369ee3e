"""MgNO: layers that act as a multigrid cycle.

He et al. 2024, "MgNO: Efficient Parameterization of Linear Operators via
Multigrid". A layer solves A u = f on ever coarser grids by learned smoothers S,
which add S (f - A u) to u.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks, images
from stjax.models.layers.basic import Conv, GroupNorm
from stjax.models.layers.upsampling import Spread
from stjax.models.translators.metaformer import gelu


class Smoother(nn.Module):
  """u + S (f - A u); S f where there is no u yet.

  Attributes:
    conv: constructor of the 3x3 convolutions.
  """

  conv: functools.partial

  @nn.compact
  def __call__(self, u: jax.Array | None, f: jax.Array) -> jax.Array:
    """Maps u and f [N, h, w, C] to the new u."""
    smooth = self.conv(name="smooth")
    if u is None:
      return smooth(f)
    return u + smooth(f - self.conv(name="operator")(u))


class Restriction(nn.Module):
  """To the coarser grid: u, and R (f - A u) as its f.

  Attributes:
    conv: constructor of the 3x3 convolutions.
  """

  conv: functools.partial

  @nn.compact
  def __call__(self, u: jax.Array, f: jax.Array) -> tuple[jax.Array, ...]:
    """Maps u and f [N, h, w, C] to those on the grid halved, rounded up."""
    halve = functools.partial(self.conv, stride=2, use_bias=False)
    f = halve(name="restrict")(f - self.conv(name="operator")(u))
    return halve(name="project")(u), f


class Cycle(nn.Module):
  """One multigrid cycle, a linear map but for its norms.

  Attributes:
    features: channels.
    iterations: (before, after) of each grid, from fine to coarse: smoothers
      on the way down, and on the way up. The last grid has none of the latter.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  iterations: Sequence[tuple[int, int]]
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, f: jax.Array) -> jax.Array:
    """Maps [N, H, W, features] to the same shape."""
    conv = functools.partial(
      Conv, self.features, 3, padding_mode=self.padding_mode, dtype=self.dtype
    )
    u, levels = None, []
    for level, (before, _) in enumerate(self.iterations):
      if level:
        u, f = Restriction(conv, name=f"down_{level}_0")(u, f)
      for i in range(before):
        number = i + (level > 0)
        u = Smoother(conv, name=f"down_{level}_{number}")(u, f)
      levels.append((u, f))
    for level in reversed(range(len(levels) - 1)):
      fine, f = levels[level]
      # Two taps double an axis; with one, the last zero falls off.
      taps = tuple(
        n - 2 * (m - 1) for n, m in zip(fine.shape[1:3], u.shape[1:3], strict=True)
      )
      coarse = Spread(
        self.features, taps, use_bias=False, dtype=self.dtype, name=f"prolong_{level}"
      )(u)
      u = GroupNorm(1, name=f"norm_{level}")(fine + coarse)
      for i in range(self.iterations[level][1]):
        u = Smoother(conv, name=f"up_{level}_{i}")(u, f)
    return u


class MgNO(nn.Module):
  """Forecasts as many frames as it is shown.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    features: channels within; None means those of the input, as the original
      (which has only 2402 parameters for one channel). Others are made of the
      input by a 1x1 convolution.
    depth: number of cycles, each followed by a GELU.
    iterations: (before, after) of each grid, from fine to coarse: smoothers
      of a cycle on the way down, and on the way up. Every grid is half the
      one before, rounded up.
    frames: "batch": each frame of the forecast is made from one frame of the
      history alone, as the original does, or "channels": the history's frames
      are channels.
    padding_mode: "zeros", or "circular" for fields that wrap around (H and W
      must then be multiples of the coarsest cell).
    remat: recompute the cycles in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  features: int | None = None
  depth: int = 6
  iterations: Sequence[tuple[int, int]] = ((1, 1),) * 6
  frames: str = "batch"
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1, features=1, depth=1)
    checks.one_of(self, "frames", images.FRAMES)
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    counts = [tuple(counts) for counts in self.iterations]
    if (
      not counts or any(len(n) != 2 or min(n) < 0 for n in counts) or (counts[0][0] < 1)
    ):
      raise NetworkError(
        f"model.iterations is {self.iterations!r}; expected (before, after) "
        "for each grid, numbers of smoothers, at least one before on the first"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised. The parameters fit grids that are
        odd and even at the same levels.
      train: no difference; nothing here depends on the mode.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    del train
    checks.history(x.shape)
    history, h, w = x.shape[1:4]
    factor = 2 ** (len(self.iterations) - 1)
    if self.padding_mode == "circular" and (h % factor or w % factor):
      raise NetworkError(
        f"the grid is {h} x {w}; a circular one must be a multiple of {factor}"
        " = 2 ** (number of grids - 1): shorten model.iterations (now "
        f"{len(self.iterations)} grids)"
      )
    dtype = jnp.dtype(self.dtype)
    out_features = images.image_channels(x, self.frames, self.out_channels)
    x = images.to_images(x, self.frames).astype(dtype)
    features = self.features or x.shape[-1]
    if features != x.shape[-1]:
      x = Conv(features, 1, dtype=dtype, name="lift")(x)
    cycle_class = nn.remat(Cycle) if self.remat else Cycle
    for i in range(self.depth):
      cycle = cycle_class(
        features, self.iterations, self.padding_mode, dtype, name=f"cycle_{i}"
      )
      x = gelu(cycle(x))
    y = Conv(out_features, 1, dtype=dtype, name="readout")(x)
    return images.from_images(y, self.frames, history)
