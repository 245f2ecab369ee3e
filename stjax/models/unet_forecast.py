"""Two U-Nets that forecast: one with pooling, one with strides.

Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", and the variant of Wang et al. 2020, "Towards Physics-informed
Deep Learning for Turbulent Flow Prediction", with strides, leaky ReLUs and the
history itself before the last convolution.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, TransposedConv
from stjax.models.layers.conv_unit import DoubleConv, leaky_relu, unit_class
from stjax.models.layers.images import ConvolutionalNetwork

# Slope of `StridedUNet`'s activations for negative values.
SLOPE = 0.1
# The levels of `StridedUNet` from this one on have a second convolution.
FIRST_DOUBLE = 3


def pad_to(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """Centres [N, h, w, C] among zeros on a grid that is not smaller."""
  rest = [n - m for n, m in zip(grid, x.shape[1:3], strict=True)]
  pads = [(r // 2, r - r // 2) for r in rest]
  return jnp.pad(x, ((0, 0), *pads, (0, 0)))


class UNet(ConvolutionalNetwork):
  """U-Net with max pooling; forecasts as many frames as it is shown.

  Level l has features * 2 ** l channels on a grid halved l times, rounded
  down. H and W must be at least 2 ** depth, and multiples of it if
  `padding_mode` is "circular". `remat` recomputes the pairs of convolutions.

  Attributes:
    features: channels of the finest level.
    depth: how often the grid is halved.
  """

  features: int = 64
  depth: int = 3

  def __post_init__(self):
    checks.at_least(self, features=1, depth=0)
    super().__post_init__()

  def check_grid(self, h: int, w: int) -> None:
    """Raises NetworkError for a grid that cannot be halved often enough."""
    factor = 2**self.depth
    if self.padding_mode == "circular":
      checks.multiple((h, w), factor, "depth")
    if min(h, w) < factor:
      raise NetworkError(
        f"the grid is {h} x {w}; expected at least {factor} = 2 ** model.depth "
        f"both ways: lower model.depth (now {self.depth})"
      )

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] to [N, H, W, features]."""
    options = dict(padding_mode=self.padding_mode, dtype=x.dtype)
    double = unit_class(self.remat, DoubleConv)
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
    return Conv(features, 1, dtype=x.dtype, name="readout")(x)


class StridedUNet(ConvolutionalNetwork):
  """U-Net with strides; forecasts as many frames as it is shown.

  Level l = 1 .. depth has features * 2 ** (l - 1) channels on a grid halved l
  times; what comes up to it has a quarter of the next level's channels. H and
  W must be multiples of 2 ** depth. `remat` recomputes the convolutions on the
  way down.

  Attributes:
    features: channels of the first level, a multiple of 4.
    depth: how often the grid is halved, at least 1.
    kernel_size: odd size of the kernels.
    dropout: rate after each convolution.
  """

  features: int = 64
  depth: int = 5
  kernel_size: int = 3
  dropout: float = 0.5

  def __post_init__(self):
    checks.at_least(self, depth=1)
    if self.features < 4 or self.features % 4:
      raise NetworkError(f"model.features is {self.features}; expected a multiple of 4")
    checks.odd(self, "kernel_size")
    checks.rate(self, "dropout")
    super().__post_init__()

  def check_grid(self, h: int, w: int) -> None:
    """Raises NetworkError for a grid that cannot be halved `depth` times."""
    checks.multiple((h, w), 2**self.depth, "depth")

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] to [N, H, W, features]."""
    options = dict(padding_mode=self.padding_mode, dtype=x.dtype)
    unit_of = unit_class(self.remat)
    rates = dict(use_bias=False, slope=SLOPE, dropout=self.dropout)

    def unit(x, width, stride, name):
      module = unit_of(width, self.kernel_size, stride, **rates, **options, name=name)
      return module(x, train)

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
    return Conv(features, self.kernel_size, **options, name="readout")(x)
