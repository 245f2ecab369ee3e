"""MgNO: layers that act as a multigrid cycle.

He et al. 2024, "MgNO: Efficient Parameterization of Linear Operators via
Multigrid". A layer solves A u = f on ever coarser grids by learned smoothers
S, each of which adds S (f - A u) to u.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, GroupNorm
from stjax.models.layers.images import ConvolutionalNetwork
from stjax.models.layers.upsampling import Spread
from stjax.models.translators.metaformer import gelu


class Smoother(nn.Module):
  """Makes u + S (f - A u), or S f as long as there is no u.

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
  """Brings u to the coarser grid, with R (f - A u) as the new f.

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
  """One multigrid cycle, which is a linear map except for its norms.

  Attributes:
    features: number of channels.
    iterations: (before, after) for each grid, from fine to coarse: the number
      of smoothers on the way down and on the way up. The coarsest grid has
      none on the way up.
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
      # Two taps double an axis to an even length. One tap gives one pixel
      # less, which fits axes of odd length.
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


class MgNO(ConvolutionalNetwork):
  """Forecasts as many frames as it is shown.

  If `padding_mode` is "circular", H and W must be multiples of the coarsest
  cell. `remat` recomputes the cycles. The parameters fit grids that are odd
  and even at the same levels.

  Attributes:
    features: channels within; None means those of the input, as in the
      original, which has only 2402 parameters for one channel. A 1x1
      convolution makes another number of channels.
    depth: number of cycles, each followed by a GELU.
    iterations: (before, after) for each grid, from fine to coarse: the number
      of a cycle's smoothers on the way down and on the way up. Every grid is
      half the one before, rounded up.
    frames: "batch" or "channels"; see `FRAMES`. "batch" is the original.
  """

  frames: str = "batch"
  features: int | None = None
  depth: int = 6
  iterations: Sequence[tuple[int, int]] = ((1, 1),) * 6

  def __post_init__(self):
    checks.at_least(self, features=1, depth=1)
    counts = [tuple(counts) for counts in self.iterations]
    if (
      not counts or any(len(n) != 2 or min(n) < 0 for n in counts) or (counts[0][0] < 1)
    ):
      raise NetworkError(
        f"model.iterations is {self.iterations!r}; expected (before, after) "
        "for each grid, numbers of smoothers, at least one before on the first"
      )
    super().__post_init__()

  def check_grid(self, h: int, w: int) -> None:
    """Raises NetworkError for a circular grid that cannot be halved evenly."""
    factor = 2 ** (len(self.iterations) - 1)
    if self.padding_mode == "circular" and (h % factor or w % factor):
      raise NetworkError(
        f"the grid is {h} x {w}; a circular one must be a multiple of {factor}"
        " = 2 ** (number of grids - 1): shorten model.iterations (now "
        f"{len(self.iterations)} grids)"
      )

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] to [N, H, W, features]."""
    del train
    width = self.features or x.shape[-1]
    if width != x.shape[-1]:
      x = Conv(width, 1, dtype=x.dtype, name="lift")(x)
    cycle_class = nn.remat(Cycle) if self.remat else Cycle
    for i in range(self.depth):
      cycle = cycle_class(
        width, self.iterations, self.padding_mode, x.dtype, name=f"cycle_{i}"
      )
      x = gelu(cycle(x))
    return Conv(features, 1, dtype=x.dtype, name="readout")(x)
