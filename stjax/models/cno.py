"""CNO without its resampling: a U-shaped network at full resolution.

Raonic et al. 2023, "Convolutional Neural Operators for robust and accurate
learning of PDEs", in the copies that drop the filters and with them all
changes of resolution.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv
from stjax.models.layers.conv_unit import ConvUnit, unit_class
from stjax.models.layers.images import ConvolutionalNetwork


class Residual(nn.Module):
  """A residual block: x plus two units, the second without its activation.

  Attributes:
    kernel_size: odd size of the kernels.
    batch_norm: whether to normalise.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  kernel_size: int = 3
  batch_norm: bool = True
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to the same shape."""
    options = dict(
      kernel_size=self.kernel_size,
      batch_norm=self.batch_norm,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
    )
    width = x.shape[-1]
    y = ConvUnit(width, **options, name="first")(x, train)
    return x + ConvUnit(width, slope=None, **options, name="second")(y, train)


class CNO(ConvolutionalNetwork):
  """Forecasts as many frames as it is shown, on a grid of any size.

  Level l = 0 .. depth has features * 2 ** (l - 1) channels. `remat` recomputes
  the residual blocks.

  Attributes:
    features: channels of level 1, an even number.
    depth: number of levels after the first.
    blocks: residual blocks before each level's skip.
    neck_blocks: residual blocks of the deepest level.
    neck_reversed: whether the last of these blocks comes first. The network is
      the same, but its weights are numbered as those of SFP's copy.
    lift_features: hidden width of the first and the last map.
    kernel_size: odd size of the kernels.
    batch_norm: whether to normalise.
    mix: whether each level on the way up has one more unit, which keeps the
      width.
  """

  features: int = 32
  depth: int = 4
  blocks: int = 1
  neck_blocks: int = 6
  neck_reversed: bool = False
  lift_features: int = 64
  kernel_size: int = 3
  batch_norm: bool = True
  mix: bool = True

  def __post_init__(self):
    checks.at_least(self, depth=1, lift_features=1, blocks=0, neck_blocks=0)
    if self.features < 2 or self.features % 2:
      raise NetworkError(f"model.features is {self.features}; expected an even number")
    checks.odd(self, "kernel_size")
    super().__post_init__()

  def width(self, level: int) -> int:
    """Channels of a level."""
    return self.features * 2**level // 2

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] to [N, H, W, features]."""
    shared = dict(
      kernel_size=self.kernel_size, padding_mode=self.padding_mode, dtype=x.dtype
    )
    residual = unit_class(self.remat, Residual)

    def unit(x, width, name, batch_norm=self.batch_norm):
      return ConvUnit(width, batch_norm=batch_norm, **shared, name=name)(x, train)

    def through(x, name, width):
      x = unit(x, self.lift_features, f"{name}_unit", batch_norm=False)
      return Conv(width, **shared, name=name)(x)

    def refine(x, numbers):
      for i in numbers:
        x = residual(batch_norm=self.batch_norm, **shared, name=f"residual_{i}")(
          x, train
        )
      return x

    x = through(x, "lift", self.width(0))
    skips = []
    for level in range(self.depth):
      first = level * self.blocks
      # Only the skip goes through the residual blocks; the way down does not.
      skips.append(refine(x, range(first, first + self.blocks)))
      x = unit(x, self.width(level + 1), f"down_{level}")
    first = self.depth * self.blocks
    neck = range(first, first + self.neck_blocks)
    x = refine(x, reversed(neck) if self.neck_reversed else neck)
    x = unit(x, x.shape[-1], f"bridge_{self.depth}")
    for i, level in enumerate(reversed(range(self.depth))):
      if self.mix:
        x = unit(x, x.shape[-1], f"mix_{i}")
      x = unit(x, self.width(level), f"up_{i}")
      skip = unit(skips[level], self.width(level), f"bridge_{level}")
      x = jnp.concatenate([x, skip], axis=-1)
    return through(x, "project", features)
