"""CNO without its resampling: a U-shaped network at full resolution.

Raonic et al. 2023, "Convolutional Neural Operators for robust and accurate
learning of PDEs", in the copies that drop the filters and with them all
changes of resolution.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks, images
from stjax.models.layers.basic import Conv
from stjax.models.layers.conv_unit import ConvUnit, unit_class


class Residual(nn.Module):
  """x + two units, the second without its activation.

  Attributes:
    kernel_size: odd.
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


class CNO(nn.Module):
  """Forecasts as many frames as it is shown, on a grid of any size.

  Level l has features * 2 ** (l - 1) channels; l = 0 .. depth.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    features: channels of level 1, even.
    depth: number of levels after the first.
    blocks: residual blocks before each level's skip.
    neck_blocks: residual blocks of the deepest level.
    lift_features: hidden width of the first and the last map.
    kernel_size: odd.
    batch_norm: whether to normalise.
    neck_reversed: begin with the last of these blocks. The same network, with
      weights that are numbered as those of SFP's copy.
    mix: add a unit that keeps the width to each level on the way up.
    frames: "channels": the history's frames are channels, or "batch": each
      frame of the forecast is made from one frame of the history alone.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: recompute the residual blocks in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  features: int = 32
  depth: int = 4
  blocks: int = 1
  neck_blocks: int = 6
  neck_reversed: bool = False
  lift_features: int = 64
  kernel_size: int = 3
  batch_norm: bool = True
  mix: bool = True
  frames: str = "channels"
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1, depth=1, lift_features=1)
    checks.at_least(self, blocks=0, neck_blocks=0)
    if self.features < 2 or self.features % 2:
      raise NetworkError(f"model.features is {self.features}; expected an even number")
    checks.odd(self, "kernel_size")
    checks.one_of(self, "frames", images.FRAMES)
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()

  def width(self, level: int) -> int:
    """Channels of a level."""
    return self.features * 2**level // 2

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: use the batch's own statistics.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    checks.history(x.shape)
    history = x.shape[1]
    shared = dict(
      kernel_size=self.kernel_size,
      padding_mode=self.padding_mode,
      dtype=jnp.dtype(self.dtype),
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

    out_features = images.image_channels(x, self.frames, self.out_channels)
    x = images.to_images(x, self.frames).astype(shared["dtype"])
    x = through(x, "lift", self.width(0))
    skips = []
    for level in range(self.depth):
      first = level * self.blocks
      # Only the skip is refined, not what goes on.
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
    return images.from_images(through(x, "project", out_features), self.frames, history)
