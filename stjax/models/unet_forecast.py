"""Two U-Nets that forecast: pooled and strided.

Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", and the variant of Wang et al. 2020, "Towards Physics-informed
Deep Learning for Turbulent Flow Prediction", with strides, leaky ReLUs and the
history itself before the last convolution.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks, images
from stjax.models.layers.basic import Conv, TransposedConv
from stjax.models.layers.conv_unit import ConvUnit, leaky_relu, unit_class

# Of `StridedUNet`'s activations.
SLOPE = 0.1
# Levels of `StridedUNet` from this one on have a second convolution.
FIRST_DOUBLE = 3


class DoubleConv(nn.Module):
  """Twice convolution, BatchNorm, ReLU.

  Attributes:
    features: output channels of both.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, features]."""
    for name in ("first", "second"):
      x = ConvUnit(
        self.features,
        slope=0.0,
        padding_mode=self.padding_mode,
        dtype=self.dtype,
        name=name,
      )(x, train)
    return x


def pad_to(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """Centres [N, h, w, C] among zeros on a grid that is not smaller."""
  rest = [n - m for n, m in zip(grid, x.shape[1:3], strict=True)]
  pads = [(r // 2, r - r // 2) for r in rest]
  return jnp.pad(x, ((0, 0), *pads, (0, 0)))


class UNet(nn.Module):
  """The U-Net with max pooling; forecasts as many frames as it is shown.

  Level l has features * 2 ** l channels on a grid halved l times, rounded
  down.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    features: channels of the finest level.
    depth: how often the grid is halved.
    frames: "channels": the history's frames are channels, or "batch": each
      frame of the forecast is made from one frame of the history alone.
    padding_mode: "zeros", or "circular" for fields that wrap around (the
      grid must then be a multiple of 2 ** depth).
    remat: recompute the pairs of convolutions in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  features: int = 64
  depth: int = 3
  frames: str = "channels"
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1, features=1, depth=0)
    checks.one_of(self, "frames", images.FRAMES)
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W at least 2 ** depth.
      train: use the batch's own statistics.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    checks.history(x.shape)
    history, factor = x.shape[1], 2**self.depth
    if self.padding_mode == "circular":
      checks.multiple(x.shape, factor, "depth")
    if min(x.shape[2:4]) < factor:
      raise NetworkError(
        f"the grid is {x.shape[2]} x {x.shape[3]}; expected at least {factor} "
        f"= 2 ** model.depth both ways: lower model.depth (now {self.depth})"
      )
    options = dict(padding_mode=self.padding_mode, dtype=jnp.dtype(self.dtype))
    double = unit_class(self.remat, DoubleConv)
    out_features = images.image_channels(x, self.frames, self.out_channels)
    x = images.to_images(x, self.frames).astype(options["dtype"])
    x = double(self.features, **options, name="stem")(x, train)
    skips = []
    for i in range(1, self.depth + 1):
      skips.append(x)
      x = nn.max_pool(x, (2, 2), (2, 2))
      x = double(self.features * 2**i, **options, name=f"down_{i}")(x, train)
    for i in range(1, self.depth + 1):
      skip = skips.pop()
      width = skip.shape[-1]
      x = TransposedConv(width, kernel_size=2, **options, name=f"grow_{i}")(x)
      x = jnp.concatenate([skip, pad_to(x, skip.shape[1:3])], axis=-1)
      x = double(width, **options, name=f"up_{i}")(x, train)
    y = Conv(out_features, 1, dtype=options["dtype"], name="readout")(x)
    return images.from_images(y, self.frames, history)


class StridedUNet(nn.Module):
  """The U-Net with strides; forecasts as many frames as it is shown.

  Level l = 1 .. depth has features * 2 ** (l - 1) channels on a grid halved l
  times; what comes up to it has a quarter of the next level's.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    features: channels of the first level, a multiple of 4.
    depth: how often the grid is halved, at least 1.
    kernel_size: of the convolutions, odd.
    dropout: rate after each convolution.
    frames: "channels": the history's frames are channels, or "batch": each
      frame of the forecast is made from one frame of the history alone.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: recompute the convolutions on the way down in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  features: int = 64
  depth: int = 5
  kernel_size: int = 3
  dropout: float = 0.5
  frames: str = "channels"
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1, depth=1)
    if self.features < 4 or self.features % 4:
      raise NetworkError(f"model.features is {self.features}; expected a multiple of 4")
    checks.odd(self, "kernel_size")
    checks.rate(self, "dropout")
    checks.one_of(self, "frames", images.FRAMES)
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of
        2 ** depth.
      train: use dropout (random stream "dropout") and the batch's own
        statistics.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    checks.history(x.shape)
    checks.multiple(x.shape, 2**self.depth, "depth")
    history = x.shape[1]
    options = dict(padding_mode=self.padding_mode, dtype=jnp.dtype(self.dtype))
    unit_of = unit_class(self.remat)

    def unit(x, width, stride, name):
      return unit_of(
        width,
        self.kernel_size,
        stride,
        use_bias=False,
        slope=SLOPE,
        dropout=self.dropout,
        **options,
        name=name,
      )(x, train)

    out_features = images.image_channels(x, self.frames, self.out_channels)
    x = images.to_images(x, self.frames).astype(options["dtype"])
    skips = [x]
    for level in range(1, self.depth + 1):
      width = self.features * 2 ** (level - 1)
      x = unit(x, width, 2, f"down_{level}")
      if level >= FIRST_DOUBLE:
        x = unit(x, width, 1, f"again_{level}")
      skips.append(x)
    skips.pop()
    for level in reversed(range(self.depth)):
      width = self.features * 2**level // 4
      x = TransposedConv(width, kernel_size=4, **options, name=f"up_{level}")(x)
      x = jnp.concatenate([skips.pop(), leaky_relu(x, SLOPE)], axis=-1)
    y = Conv(out_features, self.kernel_size, **options, name="readout")(x)
    return images.from_images(y, self.frames, history)
