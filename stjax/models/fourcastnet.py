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
from stjax.models.layers import checks, images
from stjax.models.layers.basic import Conv, LayerNorm, truncated_normal
from stjax.models.translators.metaformer import TwoBranchBlock, linear

# Of the norms, and of the initial values.
EPS = 1e-6
STD = 0.02


def kept_modes(
  h: int, w: int, share: float, legacy: bool = False
) -> tuple[int, slice, int]:
  """Which modes of a real h x w field a share of the lowest ones is.

  Args:
    h: rows.
    w: columns.
    share: of the wave numbers of each axis.
    legacy: as the released code. It takes the number of columns to keep from
      the rows, and with a share below 1 keeps rows of high wave numbers, those
      about (h / 2 + 1).

  Returns:
    By how many rows to roll the spectrum [h, w // 2 + 1], which rows to keep
    then, and how many columns.

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
  return rows - 1, slice(0, 2 * rows - 1), columns


def complex_linear(
  real: jax.Array, imaginary: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """A complex linear layer, block by block.

  Args:
    real: [..., blocks, I].
    imaginary: likewise.
    kernel: [2, blocks, I, O], real and imaginary part.
    bias: [2, blocks, O].

  Returns:
    Real and imaginary part, each [..., blocks, O].
  """
  product = functools.partial(jnp.einsum, "...ni,nio->...no")
  return (
    product(real, kernel[0]) - product(imaginary, kernel[1]) + bias[0],
    product(imaginary, kernel[0]) + product(real, kernel[1]) + bias[1],
  )


def soft_shrink(x: jax.Array, threshold: float) -> jax.Array:
  """Brings x nearer to 0 by the threshold; 0 if it is no further."""
  return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


class FourierFilter(nn.Module):
  """x + two complex layers on each mode of x, the same for all modes.

  The channels are mixed within blocks; Guibas et al. 2022, section 3.3. It is
  computed in float32.

  Attributes:
    blocks: of channels.
    threshold: of the soft shrinkage of the result's modes.
    modes: share of the modes that are kept; the others become 0.
    legacy_modes: see `kept_modes`.
    expansion: hidden width over the width.
    dropout: not used.
    padding_mode: not used.
    dtype: not used.
  """

  blocks: int = 8
  threshold: float = 0.01
  modes: float = 1.0
  legacy_modes: bool = False
  expansion: int = 1
  dropout: float = 0.0
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

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
    parts = complex_linear(*map(nn.relu, parts), *layers[1])
    shrink = functools.partial(soft_shrink, threshold=self.threshold)
    y = jax.lax.complex(*map(shrink, parts))
    y = einops.rearrange(y, "b h w n c -> b h w (n c)")
    pads = (rows.start, h - rows.stop), (0, w // 2 + 1 - columns)
    y = jnp.roll(jnp.pad(y, ((0, 0), *pads, (0, 0))), -roll, axis=1)
    # The filter leaves no real field's spectrum; backends differ in what their
    # irfft2 makes of such a one.
    y = jnp.fft.ifft(y, axis=1, norm="ortho")
    y = jnp.fft.irfft(y, w, axis=2, norm="ortho")
    return x + y.astype(x.dtype)


class FourCastNet(nn.Module):
  """Forecasts as many frames as it is shown.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    features: width, a multiple of `blocks`.
    depth: number of blocks of layers.
    mlp_ratio: hidden width of an MLP over the width.
    patch_size: pixels of a patch, one number or (H, W).
    blocks: of the channels in a Fourier filter.
    threshold: of the soft shrinkage of the modes.
    modes: share of the modes that are kept, in each axis; 1 means all.
    legacy_modes: keep the modes that the code released with Triton keeps, for
      its weights: on fields that are not square it cuts off high wave numbers
      even at modes=1 (see `kept_modes`).
    double_skip: whether each filter has a skip, or only filter and MLP
      together.
    dropout: rate inside the MLPs.
    drop_path: stochastic depth rate of the last block; the first has 0.
    frames: "channels": the history's frames are channels, or "batch": each
      frame of the forecast is made from one frame of the history alone.
    remat: recompute the blocks in the backward pass.
    dtype: compute dtype; parameters, filters and the result stay float32.
  """

  out_channels: int | None = None
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
  frames: str = "channels"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1, depth=1, blocks=1, threshold=0)
    checks.multiple_of(self, "features", "blocks")
    checks.pair(self, "patch_size")
    checks.rate(self, "dropout")
    checks.rate(self, "drop_path")
    checks.one_of(self, "frames", images.FRAMES)
    if not 0 < self.modes <= 1:
      raise NetworkError(
        f"model.modes is {self.modes}; expected a share, 0 < modes <= 1"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of those
        of a patch. The parameters fit one grid only.
      train: use dropout and stochastic depth (random stream "dropout").

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    checks.history(x.shape)
    patch = checks.pair(self, "patch_size")
    checks.tiled(x.shape[2:4], patch)
    dtype = jnp.dtype(self.dtype)
    history = x.shape[1]
    out_features = images.image_channels(x, self.frames, self.out_channels)
    x = Conv(
      self.features, patch, stride=patch, padding=0, dtype=dtype, name="patches"
    )(images.to_images(x, self.frames).astype(dtype))
    h, w = x.shape[1:3]
    position = self.param(
      "position", truncated_normal(STD), (h * w, self.features), jnp.float32
    )
    x = x + position.reshape(h, w, self.features).astype(dtype)
    block_class = TwoBranchBlock
    if self.remat:
      block_class = nn.remat(TwoBranchBlock, static_argnums=2)
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
    x = linear(
      patch[0] * patch[1] * out_features, use_bias=False, dtype=dtype, name="head"
    )(x)
    x = einops.rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=patch[0], q=patch[1])
    return images.from_images(x, self.frames, history)
