"""ResNet at full resolution (He et al. 2016), as a forecasting baseline."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks, images
from stjax.models.layers.basic import Conv
from stjax.models.layers.conv_unit import ConvUnit, leaky_relu, unit_class


class Block(nn.Module):
  """Two units and a way around them.

  Attributes:
    features: output channels.
    project: let a convolution lead around units that change the width, else
      nothing does.
    kernel_size: of the convolutions, odd.
    slope: of the leaky ReLUs.
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
    y = x
    for name in ("first", "second"):
      y = ConvUnit(
        self.features,
        self.kernel_size,
        slope=self.slope,
        dropout=self.dropout,
        **shared,
        name=name,
      )(y, train)
    if x.shape[-1] == self.features:
      return y + x
    if not self.project:
      return y
    around = Conv(self.features, self.kernel_size, **shared, name="around")(x)
    return y + leaky_relu(around, self.slope)


class ResNet(nn.Module):
  """Forecasts as many frames as it is shown, on a grid of any size.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    features: channels of the first stage; each stage doubles them.
    blocks: blocks of each stage.
    stem: begin with a unit of its own, else with the first block.
    project: let a convolution lead around blocks that change the width, else
      nothing does.
    kernel_size: of the convolutions, odd.
    slope: of the leaky ReLUs.
    dropout: rate after each unit.
    frames: "channels": the history's frames are channels, or "batch": each
      frame of the forecast is made from one frame of the history alone.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: recompute the blocks in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  features: int = 64
  blocks: tuple[int, ...] = (3, 4, 6, 3)
  stem: bool = True
  project: bool = False
  kernel_size: int = 3
  slope: float = 0.1
  dropout: float = 0.5
  frames: str = "channels"
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    # Lists come out of JSON; modules must be hashable.
    self.blocks = tuple(self.blocks)
    if min(self.blocks, default=0) < 1:
      raise NetworkError(
        f"model.blocks is {self.blocks}; expected the number of blocks of "
        "each stage, at least 1"
      )
    checks.at_least(self, out_channels=1, features=1)
    checks.odd(self, "kernel_size")
    checks.rate(self, "dropout")
    checks.one_of(self, "frames", images.FRAMES)
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: use dropout (random stream "dropout") and the batch's own
        statistics.

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
    rates = dict(slope=self.slope, dropout=self.dropout)
    block = unit_class(self.remat, Block)
    out_features = images.image_channels(x, self.frames, self.out_channels)
    x = images.to_images(x, self.frames).astype(shared["dtype"])
    if self.stem:
      x = ConvUnit(self.features, **shared, **rates, name="stem")(x, train)
    widths = [
      self.features * 2**stage
      for stage, count in enumerate(self.blocks)
      for _ in range(count)
    ]
    for i, width in enumerate(widths):
      x = block(width, self.project, **shared, **rates, name=f"block_{i}")(x, train)
    y = Conv(out_features, **shared, name="readout")(x)
    return images.from_images(y, self.frames, history)
