"""ResNet at full resolution (He et al. 2016), as a forecasting baseline."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv
from stjax.models.layers.conv_unit import ConvUnit, leaky_relu, unit_class
from stjax.models.layers.images import ConvolutionalNetwork


class Block(nn.Module):
  """Two units, and a way around them.

  Attributes:
    features: output channels.
    project: whether a convolution leads around units that change the width;
      otherwise such units have no way around.
    kernel_size: odd size of the kernels.
    slope: slope of the leaky ReLUs for negative values.
    dropout: rate after each unit.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  project: bool = False
  kernel_size: int = 3
  slope: float = 0.1
  dropout: float = 0.0
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, features]."""
    shared = dict(padding_mode=self.padding_mode, dtype=self.dtype)
    rates = dict(slope=self.slope, dropout=self.dropout)
    unit = functools.partial(ConvUnit, self.features, self.kernel_size)
    y = unit(**shared, **rates, name="first")(x, train)
    y = unit(**shared, **rates, name="second")(y, train)
    if x.shape[-1] == self.features:
      return y + x
    if not self.project:
      return y
    around = Conv(self.features, self.kernel_size, **shared, name="around")(x)
    return y + leaky_relu(around, self.slope)


class ResNet(ConvolutionalNetwork):
  """Forecasts as many frames as it is shown, on a grid of any size.

  Attributes:
    features: channels of the first stage; each stage doubles them.
    blocks: number of blocks of each stage.
    stem: whether a unit comes before the first block.
    project: whether a convolution leads around blocks that change the width;
      otherwise such blocks have no way around.
    kernel_size: odd size of the kernels.
    slope: slope of the leaky ReLUs for negative values.
    dropout: rate after each unit.
  """

  features: int = 64
  blocks: tuple[int, ...] = (3, 4, 6, 3)
  stem: bool = True
  project: bool = False
  kernel_size: int = 3
  slope: float = 0.1
  dropout: float = 0.5

  def __post_init__(self):
    # JSON gives lists, but modules must be hashable.
    self.blocks = tuple(self.blocks)
    if min(self.blocks, default=0) < 1:
      raise NetworkError(
        f"model.blocks is {self.blocks}; expected the number of blocks of "
        "each stage, at least 1"
      )
    checks.at_least(self, features=1)
    checks.odd(self, "kernel_size")
    checks.rate(self, "dropout")
    super().__post_init__()

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] to [N, H, W, features]."""
    shared = dict(
      kernel_size=self.kernel_size, padding_mode=self.padding_mode, dtype=x.dtype
    )
    rates = dict(slope=self.slope, dropout=self.dropout)
    block = unit_class(self.remat, Block)
    if self.stem:
      x = ConvUnit(self.features, **shared, **rates, name="stem")(x, train)
    widths = [
      self.features * 2**stage
      for stage, count in enumerate(self.blocks)
      for _ in range(count)
    ]
    for i, width in enumerate(widths):
      x = block(width, self.project, **shared, **rates, name=f"block_{i}")(x, train)
    return Conv(features, **shared, name="readout")(x)
