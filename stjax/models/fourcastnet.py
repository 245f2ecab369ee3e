"""FourCastNet: patches mixed in Fourier space.

Pathak et al. 2022, "FourCastNet"; Guibas et al. 2022, "Adaptive Fourier Neural
Operators" (the mixer).
"""

import functools

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers.common import dense
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, LayerNorm, truncated_normal
from stjax.models.layers.conv_unit import unit_class
from stjax.models.layers.images import ImageNetwork
from stjax.models.translators.metaformer import Mixer, TwoBranchBlock, linear

EPS = 1e-6  # Added to the variance in the norms.
STD = 0.02  # Standard deviation of the initial values.


def kept_modes(
  h: int, w: int, share: float, legacy: bool = False
) -> tuple[int, slice, int]:
  """Finds the lowest modes of a real h x w field that a share keeps.

  Args:
    h: number of rows.
    w: number of columns.
    share: share of the wave numbers of each axis.
    legacy: whether to keep the modes that the released code keeps. It takes
      the number of columns from the rows, and for a share below 1 it keeps
      rows of high wave numbers, those about (h / 2 + 1).

  Returns:
    The number of rows by which the spectrum [h, w // 2 + 1] is to be rolled,
    the rows to keep after that, and the number of columns to keep.

  Raises:
    NetworkError: no mode is left.
  """
  half = h // 2 + 1
  rows = int(half * share)
  columns = rows if legacy else int((w // 2 + 1) * share)
  if rows < 1 or columns < 1:
    raise NetworkError(
      f"model.modes is {share}, which keeps none of the modes of a field of "
      f"{h} x {w} patches; expected at most 1 and more than "
      f"1 / {min(half, w // 2 + 1)}"
    )
  columns = min(columns, w // 2 + 1)
  if legacy:
    return 0, slice(half - rows, min(half + rows, h)), columns
  if 2 * rows - 1 >= h:
    return 0, slice(0, h), columns
  # Rolling brings negative wave numbers, which come last, before the others,
  # so that the rows to keep are one slice.
  return rows - 1, slice(0, 2 * rows - 1), columns


def complex_linear(
  real: jax.Array, imaginary: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Applies a complex linear layer to each block of channels.

  Args:
    real: real part of the input, [..., blocks, I].
    imaginary: imaginary part of the input, [..., blocks, I].
    kernel: [2, blocks, I, O], its real and its imaginary part.
    bias: [2, blocks, O], its real and its imaginary part.

  Returns:
    The real and the imaginary part of the result, each [..., blocks, O].
  """
  product = functools.partial(jnp.einsum, "...ni,nio->...no")
  return (
    product(real, kernel[0]) - product(imaginary, kernel[1]) + bias[0],
    product(imaginary, kernel[0]) + product(real, kernel[1]) + bias[1],
  )


def soft_shrink(x: jax.Array, threshold: float) -> jax.Array:
  """Moves x towards 0 by the threshold; values within the threshold become 0."""
  return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


class FourierFilter(Mixer):
  """Adds to x what two complex layers make of each mode of x.

  All modes share the layers, which mix the channels within blocks (Guibas et
  al. 2022, section 3.3). The filter is computed in float32.

  Attributes:
    blocks: number of blocks of channels.
    threshold: threshold of the soft shrinkage of the result's modes.
    modes: share of the modes that are kept; the others become 0.
    legacy_modes: whether to keep the released code's modes; see `kept_modes`.
    expansion: hidden width of the layers over the width.
    linear_skip: whether x is added through a linear layer, not as it is.
    legacy_product: whether the second layer takes its own real part for that
      of its input where it computes the imaginary part, as EarthFarseer's code
      does; needs an `expansion` of 1.
  """

  blocks: int = 8
  threshold: float = 0.01
  modes: float = 1.0
  legacy_modes: bool = False
  expansion: int = 1
  linear_skip: bool = False
  legacy_product: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, h, w, C] to the same shape and dtype."""
    del train
    _, h, w, features = x.shape
    size = features // self.blocks
    widths = (size, self.expansion * size, size)
    layers = []
    for i in (0, 1):
      shape = (2, self.blocks, widths[i], widths[i + 1])
      normal = nn.initializers.normal(STD)
      layers.append(
        (
          self.param(f"kernel_{i + 1}", normal, shape, jnp.float32),
          self.param(f"bias_{i + 1}", normal, (*shape[:2], shape[3]), jnp.float32),
        )
      )
    roll, rows, columns = kept_modes(h, w, self.modes, self.legacy_modes)
    spectrum = jnp.fft.rfft2(x.astype(jnp.float32), axes=(1, 2), norm="ortho")
    spectrum = jnp.roll(spectrum, roll, axis=1)[:, rows, :columns]
    spectrum = einops.rearrange(spectrum, "b h w (n c) -> b h w n c", n=self.blocks)
    parts = complex_linear(spectrum.real, spectrum.imag, *layers[0])
    real, imaginary = map(nn.relu, parts)
    parts = complex_linear(real, imaginary, *layers[1])
    if self.legacy_product:
      parts = parts[0], complex_linear(parts[0], imaginary, *layers[1])[1]
    shrink = functools.partial(soft_shrink, threshold=self.threshold)
    y = jax.lax.complex(*map(shrink, parts))
    y = einops.rearrange(y, "b h w n c -> b h w (n c)")
    pads = (rows.start, h - rows.stop), (0, w // 2 + 1 - columns)
    y = jnp.roll(jnp.pad(y, ((0, 0), *pads, (0, 0))), -roll, axis=1)
    # After the filter this is no longer the spectrum of a real field, and
    # backends differ in what their irfft2 makes of that. One transform for
    # each axis gives the same result everywhere.
    y = jnp.fft.ifft(y, axis=1, norm="ortho")
    y = jnp.fft.irfft(y, w, axis=2, norm="ortho")
    if self.linear_skip:
      x = dense(features, features, self.dtype, name="skip")(x)
    return x + y.astype(x.dtype)


class FourCastNet(ImageNetwork):
  """Forecasts as many frames as it is shown; the parameters fit one grid only.

  H and W must be multiples of the patch. The filters are always computed in
  float32.

  Attributes:
    features: width of the layers, a multiple of `blocks`.
    depth: number of blocks of layers.
    mlp_ratio: hidden width of an MLP over the width.
    patch_size: pixels of a patch, one number or (H, W).
    blocks: blocks of channels in a Fourier filter.
    threshold: threshold of the soft shrinkage of the modes.
    modes: share of the modes of each axis that are kept; 1 means all.
    legacy_modes: whether to keep the modes that the code released with Triton
      keeps, for its weights. On fields that are not square it cuts off high
      wave numbers even at modes=1; see `kept_modes`.
    double_skip: whether each filter has a skip of its own; otherwise filter
      and MLP share one.
    dropout: rate inside the MLPs.
    drop_path: stochastic depth rate of the last block; the first has 0.
    remat: whether the backward pass recomputes the blocks, to save memory.
  """

  features: int = 256
  depth: int = 4
  mlp_ratio: float = 4.0
  patch_size: int | tuple[int, int] = 2
  blocks: int = 16
  threshold: float = 0.01
  modes: float = 1.0
  legacy_modes: bool = False
  double_skip: bool = True
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: bool = False

  def __post_init__(self):
    checks.at_least(self, depth=1, blocks=1, threshold=0)
    checks.multiple_of(self, "features", "blocks")
    checks.pair(self, "patch_size")
    checks.rate(self, "dropout")
    checks.rate(self, "drop_path")
    if not 0 < self.modes <= 1:
      raise NetworkError(
        f"model.modes is {self.modes}; expected a share, 0 < modes <= 1"
      )
    super().__post_init__()

  def check_grid(self, h: int, w: int) -> None:
    """Raises NetworkError for a grid that the patches do not tile."""
    checks.tiled((h, w), checks.pair(self, "patch_size"))

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] to [N, H, W, features]."""
    dtype = x.dtype
    patch = checks.pair(self, "patch_size")
    x = Conv(
      self.features, patch, stride=patch, padding=0, dtype=dtype, name="patches"
    )(x)
    h, w = x.shape[1:3]
    position = self.param(
      "position", truncated_normal(STD), (h * w, self.features), jnp.float32
    )
    x = x + position.reshape(h, w, self.features).astype(dtype)
    block_class = unit_class(self.remat, TwoBranchBlock)
    for i in range(self.depth):
      x = block_class(
        norm=functools.partial(LayerNorm, EPS),
        mixer=functools.partial(
          FourierFilter, self.blocks, self.threshold, self.modes, self.legacy_modes
        ),
        first_skip=self.double_skip,
        mlp_ratio=self.mlp_ratio,
        dropout=self.dropout,
        drop_path=self.drop_path * i / max(self.depth - 1, 1),
        dtype=dtype,
        name=f"block_{i}",
      )(x, train)
    p, q = patch
    x = linear(p * q * features, use_bias=False, dtype=dtype, name="head")(x)
    return einops.rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=p, q=q)
