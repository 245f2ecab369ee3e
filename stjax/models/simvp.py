"""SimVP: convolutional encoder, translator over folded frames, and decoder.

Gao et al. 2022, "SimVP: Simpler yet Better Video Prediction" (the first
version), and Tan et al. 2022, "SimVP: Towards Simple yet Powerful
Spatiotemporal Predictive Learning" (gSTA and the other translators).
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError, unknown_name
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, GroupNorm, TransposedConv, pixel_shuffle
from stjax.models.layers.checks import PADDING_MODES
from stjax.models.translators import TRANSLATORS, inception
from stjax.models.translators.metaformer import NORMAL, TORCH, Constructor, Init


def leaky_relu(x: jax.Array) -> jax.Array:
  """Returns x where it is not negative and x / 5 elsewhere."""
  return nn.leaky_relu(x, 0.2)


class SampledConv(nn.Module):
  """A convolution that may halve or double the grid, norm, activation.

  Attributes:
    features: output channels, an even number.
    kernel_size: kernel size of the convolution.
    sampling: "same", "down" (stride 2) or "up".
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
    shuffle: whether a convolution to four times the channels and a pixel
      shuffle double the grid; otherwise a transposed 3x3 convolution does.
    initial: initial values of the convolution.
    activation: function that follows the norm.
    norm_layer: constructor of the norm.
  """

  features: int
  kernel_size: int = 3
  sampling: str = "same"
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32
  shuffle: bool = True
  initial: Init = NORMAL
  activation: Callable[[jax.Array], jax.Array] = nn.silu
  norm_layer: Constructor = functools.partial(GroupNorm, 2)

  def setup(self):
    stride = 2 if self.sampling == "down" else 1
    options = dict(
      kernel_size=self.kernel_size,
      stride=stride,
      padding=(self.kernel_size - stride + 1) // 2,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      **self.initial._asdict(),
    )
    if self.sampling == "up" and self.shuffle:
      self.upsample = Conv(4 * self.features, **options)
    elif self.sampling == "up":
      self.conv = TransposedConv(self.features, self.padding_mode, self.dtype)
    else:
      self.conv = Conv(self.features, **options)
    self.norm = self.norm_layer()

  def convolve(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, H', W', features] by the convolution alone."""
    if self.sampling == "up" and self.shuffle:
      return pixel_shuffle(self.upsample(x), 2)
    return self.conv(x)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, H', W', features]."""
    return self.activation(self.norm(self.convolve(x)))


def sampling_pattern(depth: int) -> list[bool]:
  """Tells which encoder layers halve the grid; the decoder's order is reversed."""
  return [layer % 2 == 1 for layer in range(depth)]


class Encoder(nn.Module):
  """Encoder of frames, which halves the grid in every second layer.

  Attributes:
    features: channels of every layer.
    depth: number of layers.
    kernel_size: kernel size of every layer.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
    layer: constructor of a layer, which takes the options of `SampledConv`.
  """

  features: int
  depth: int
  kernel_size: int = 3
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32
  layer: Constructor = SampledConv

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps [N, H, W, C] to the latent [N, h, w, S] and a skip [N, H, W, S]."""
    skip = None
    for i, down in enumerate(sampling_pattern(self.depth)):
      x = self.layer(
        self.features,
        self.kernel_size,
        "down" if down else "same",
        self.padding_mode,
        self.dtype,
        name=f"layer_{i}",
      )(x)
      skip = x if skip is None else skip
    return x, skip


class Decoder(nn.Module):
  """Decoder of frames, which doubles the grid as often as the encoder halved it.

  The skip joins before the last layer.

  Attributes:
    features: channels of every layer.
    out_channels: channels of the result.
    depth: number of layers.
    kernel_size: kernel size of every layer.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
    layer: constructor of a layer, which takes the options of `SampledConv`.
    add_skip: whether the skip is added; otherwise the last layer reads it as
      further channels.
  """

  features: int
  out_channels: int
  depth: int
  kernel_size: int = 3
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32
  layer: Constructor = SampledConv
  add_skip: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
    """Maps [N, h, w, S] and the skip [N, H, W, S] to [N, H, W, C_out]."""
    pattern = sampling_pattern(self.depth)[::-1]
    for i, up in enumerate(pattern):
      if i == self.depth - 1:
        x = x + skip if self.add_skip else jnp.concatenate([x, skip], -1)
      x = self.layer(
        self.features,
        self.kernel_size,
        "up" if up else "same",
        self.padding_mode,
        self.dtype,
        name=f"layer_{i}",
      )(x)
    return Conv(self.out_channels, 1, dtype=self.dtype, name="readout")(x)


# Encoder and decoder of SimVP's first version and of Triton: 3x3 convolutions,
# transposed ones to double the grid, and a skip of further channels.
FirstLayer = functools.partial(
  SampledConv, shuffle=False, initial=TORCH, activation=leaky_relu
)
FirstEncoder = functools.partial(Encoder, layer=FirstLayer)
FirstDecoder = functools.partial(Decoder, layer=FirstLayer, add_skip=False)


def check_options(network: nn.Module) -> None:
  """Checks the options that SimVP and Triton share.

  Args:
    network: network of encoder, translator and decoder.

  Raises:
    NetworkError: an option has a value that cannot be built.
  """
  checks.at_least(network, temporal_depth=2)
  if network.mlp_ratio <= 1:
    raise NetworkError(f"model.mlp_ratio is {network.mlp_ratio}; expected more than 1")
  if network.spatial_features < 2 or network.spatial_features % 2:
    raise NetworkError(
      f"model.spatial_features is {network.spatial_features}; expected a "
      "multiple of 2 (two groups of normalised channels)"
    )
  checks.rate(network, "drop_path")
  checks.one_of(network, "padding_mode", PADDING_MODES)


def check_input(
  shape: tuple[int, ...], spatial_depth: int, option: str = "spatial_depth"
) -> None:
  """Checks the history of a network with an `Encoder`.

  Args:
    shape: shape of the history, [B, T, H, W, C].
    spatial_depth: number of layers of the encoder.
    option: name of the option that says it.

  Raises:
    NetworkError: the history has other axes, or a grid that the encoder cannot
      halve often enough.
  """
  checks.history(shape)
  h, w = shape[2:4]
  factor = 2 ** sum(sampling_pattern(spatial_depth))
  if h % factor or w % factor:
    raise NetworkError(
      f"the grid is {h} x {w}; expected multiples of {factor} = "
      f"2 ** (model.{option} / 2): change model.{option} (now "
      f"{spatial_depth}), crop the data, or pad them"
      f" (--config.method.pad_to_multiple={factor})"
    )


def through_frame(
  network: nn.Module,
  x: jax.Array,
  translate: Callable[[jax.Array], jax.Array],
  encoder: Constructor = FirstEncoder,
  decoder: Constructor = FirstDecoder,
) -> jax.Array:
  """Encodes each frame, translates all at once, and decodes each frame.

  It makes the modules "encoder" and "decoder" of the network that calls it.

  Args:
    network: network with the options out_channels, spatial_features,
      spatial_depth, padding_mode and dtype.
    x: history [B, T, H, W, C].
    translate: function that maps the latent [B, T, h, w, S] to the same shape.
    encoder: constructor of the `Encoder`.
    decoder: constructor of the `Decoder`.

  Returns:
    [B, T, H, W, C_out] float32.

  Raises:
    NetworkError: the network cannot take this shape.
  """
  check_input(x.shape, network.spatial_depth)
  b, t, *frame = x.shape
  shared = dict(
    features=network.spatial_features,
    depth=network.spatial_depth,
    padding_mode=network.padding_mode,
    dtype=jnp.dtype(network.dtype),
  )
  encode = encoder(**shared, name="encoder")
  out_channels = network.out_channels or frame[-1]
  decode = decoder(out_channels=out_channels, **shared, name="decoder")
  latent, skip = encode(x.astype(shared["dtype"]).reshape(b * t, *frame))
  latent = translate(latent.reshape(b, t, *latent.shape[1:]))
  y = decode(latent.reshape(b * t, *latent.shape[2:]), skip)
  return y.reshape(b, t, *y.shape[1:]).astype(jnp.float32)


class SimVP(nn.Module):
  """Forecasts as many frames as it is shown.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    spatial_features: channels of encoder and decoder (hid_S), an even number.
    temporal_features: width inside the translator (hid_T).
    spatial_depth: layers of encoder and of decoder (N_S), an even number
      unless `first_version` is set; every second one halves the grid.
    temporal_depth: blocks of the translator (N_T), at least 2.
    mlp_ratio: hidden width of a block's MLP over its width.
    dropout: rate inside the MLPs of translators that have dropout.
    drop_path: stochastic depth rate of the last block; the first has 0.
    encoder_kernel: kernel size of the encoder.
    decoder_kernel: kernel size of the decoder.
    translator: key of `TRANSLATORS`.
    inception_kernels: kernel sizes of the translator "incepu".
    inception_groups: channel groups of the translator "incepu".
    first_version: whether encoder and decoder are those of SimVP's first
      version: transposed convolutions and no pixel shuffles, LeakyReLU, and a
      skip that is read as further channels and not added; kernel sizes are 3.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    legacy_drop_path: whether the rates of stochastic depth begin at .01, as
      OpenSTL's do, so that it is not off at drop_path=0.
    remat: whether the backward pass recomputes the translator's blocks.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  spatial_features: int = 64
  temporal_features: int = 512
  spatial_depth: int = 4
  temporal_depth: int = 8
  mlp_ratio: float = 8.0
  dropout: float = 0.0
  drop_path: float = 0.0
  encoder_kernel: int = 3
  decoder_kernel: int = 3
  translator: str = "gsta"
  inception_kernels: Sequence[int] = inception.KERNELS
  inception_groups: int = 8
  first_version: bool = False
  padding_mode: str = "zeros"
  legacy_drop_path: bool = False
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    if self.translator not in TRANSLATORS:
      raise unknown_name("translator (model.translator)", self.translator, TRANSLATORS)
    if self.first_version:
      self._check_first_version()
    elif self.spatial_depth < 2 or self.spatial_depth % 2:
      raise NetworkError(
        f"model.spatial_depth is {self.spatial_depth}; expected an even "
        "number, at least 2 (OpenSTL builds N_S - 1 layers for an odd N_S: "
        "give that number for its weights)"
      )
    if self.inception_groups < 1 or any(
      kernel < 1 or kernel % 2 == 0 for kernel in self.inception_kernels
    ):
      raise NetworkError(
        f"model.inception_groups is {self.inception_groups} and "
        f"model.inception_kernels is {tuple(self.inception_kernels)}; expected "
        "at least one group and odd kernel sizes"
      )
    checks.rate(self, "dropout")
    check_options(self)
    super().__post_init__()

  def _check_first_version(self):
    checks.at_least(self, spatial_depth=1)
    kernels = self.encoder_kernel, self.decoder_kernel
    if kernels != (3, 3):
      raise NetworkError(
        f"model.encoder_kernel and model.decoder_kernel are {kernels}; "
        "model.first_version has kernels of 3 only"
      )

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of
        2 ** (spatial_depth / 2).
      train: whether to use dropout, stochastic depth (random stream "dropout")
        and the batch's own statistics.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    options = {}
    if self.translator == "incepu":
      options["kernels"] = tuple(self.inception_kernels)
      options["groups"] = self.inception_groups
    translator = TRANSLATORS[self.translator](
      features=self.temporal_features,
      depth=self.temporal_depth,
      mlp_ratio=self.mlp_ratio,
      dropout=self.dropout,
      drop_path=self.drop_path,
      legacy_drop_path=self.legacy_drop_path,
      remat=self.remat,
      padding_mode=self.padding_mode,
      dtype=jnp.dtype(self.dtype),
      **options,
      name="translator",
    )
    translate = functools.partial(translator, train=train)
    if self.first_version:
      return through_frame(self, x, translate)
    encoder = functools.partial(Encoder, kernel_size=self.encoder_kernel)
    decoder = functools.partial(Decoder, kernel_size=self.decoder_kernel)
    return through_frame(self, x, translate, encoder, decoder)
