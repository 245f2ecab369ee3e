"""A vector-quantised autoencoder, the world model of SFP.

Wu et al. 2025, "Spatiotemporal Forecasting as Planning" (arXiv 2510.04020); the
codebook is that of van den Oord et al. 2017 (VQ-VAE, arXiv 1711.00937) with the
moving averages of its appendix A.1. Encoder and decoder are those of SimVP's first
version.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models import simvp
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, torch_bias_default, torch_conv_default
from stjax.models.layers.convolution import conv2d

# Codes that are compared with the latents at the same time. The distances of a
# large codebook would need more memory than everything else together.
_CODES = 256


class Codebook(NamedTuple):
  """The codes and what their moving averages are made of.

  Attributes:
    embedding: [M, D], the codes.
    sums: [M, D], moving average of the sums of the latents nearest to each code.
    counts: [M], moving average of the numbers of these latents.
  """

  embedding: jax.Array
  sums: jax.Array
  counts: jax.Array


def nearest_codes(latents: jax.Array, embedding: jax.Array, count: int) -> jax.Array:
  """Returns the numbers of the codes that are nearest to each latent.

  Args:
    latents: [..., D].
    embedding: [M, D], the codes.
    count: how many are wanted, K <= M.

  Returns:
    [..., K] int32, the nearest one first, and of equally near ones the lower number
    first.
  """
  rows = latents.astype(jnp.float32)
  codes = len(embedding)
  step = min(_CODES, codes)
  missing = -codes % step
  # The length of a latent is the same for all codes, and is left out.
  lengths = jnp.pad(
    jnp.square(embedding).sum(-1), (0, missing), constant_values=jnp.inf
  )
  parts = (
    jnp.pad(embedding, ((0, missing), (0, 0))).reshape(-1, step, embedding.shape[-1]),
    lengths.reshape(-1, step),
    jnp.arange(0, codes, step, dtype=jnp.int32),
  )

  def compare(best, part):
    some, lengths, start = part
    # In bfloat16 passes other codes would be nearest.
    product = jnp.einsum("...d,md->...m", rows, some, precision="highest")
    distances = lengths - 2 * product
    if count == 1:
      # The minimum needs no sorting, which takes most of the time.
      place = jnp.argmin(distances, -1)[..., None].astype(jnp.int32)
      near = jnp.take_along_axis(distances, place, -1)
      closer = near < best[0]
      near = jnp.where(closer, near, best[0])
      return (near, jnp.where(closer, start + place, best[1])), None
    # The earlier ones come first, so that they win where two are equally near.
    near, place = jax.lax.top_k(-jnp.concatenate([best[0], distances], -1), count)
    earlier = jnp.take_along_axis(best[1], jnp.minimum(place, count - 1), -1)
    numbers = jnp.where(place < count, earlier, start + place - count)
    return (-near, numbers), None

  shape = (*rows.shape[:-1], count)
  none = jnp.full(shape, jnp.inf), jnp.zeros(shape, jnp.int32)
  (_, numbers), _ = jax.lax.scan(compare, none, parts)
  return numbers


def straight_through(latents: jax.Array, codes: jax.Array) -> jax.Array:
  """Returns the codes, whose gradient is passed on to the latents as it is.

  Args:
    latents: [..., D].
    codes: what they are replaced by; it broadcasts with them.
  """
  return latents + jax.lax.stop_gradient(codes - latents)


def perplexity(counts: jax.Array) -> jax.Array:
  """Returns how many codes would be in use if all were used equally often.

  Args:
    counts: [M], how often each code is used.
  """
  share = counts / jnp.maximum(counts.sum(), 1)
  return jnp.exp(-(share * jnp.log(share + 1e-10)).sum())


def assignments(
  latents: jax.Array, numbers: jax.Array, weight: jax.Array, codes: int
) -> tuple[jax.Array, jax.Array]:
  """Adds up the latents that are assigned to each code.

  Args:
    latents: [N, h, w, D].
    numbers: [N, h, w] int32, the code that each is assigned to.
    weight: [N, h, w], 0 for latents that do not count; or [N], for whole frames.
    codes: number M of codes.

  Returns:
    The numbers of latents [M] and their sums [M, D], float32. If `jax.jit` splits
    the frames over devices, they are those of all devices.
  """
  weight = weight.reshape(weight.shape + (1,) * (numbers.ndim - weight.ndim))
  weight = jnp.broadcast_to(weight, numbers.shape).astype(jnp.float32).reshape(-1)
  rows = latents.astype(jnp.float32).reshape(-1, latents.shape[-1])
  add = functools.partial(
    jax.ops.segment_sum, segment_ids=numbers.reshape(-1), num_segments=codes
  )
  return add(weight), add(weight[:, None] * rows)


def moving_average(
  codebook: Codebook, counts: jax.Array, sums: jax.Array, decay: float, epsilon: float
) -> Codebook:
  """Moves each code towards the mean of the latents that were assigned to it.

  Source: van den Oord et al. 2017, equations 6 to 8, with smoothed counts.

  Args:
    codebook: as it was.
    counts: [M], numbers of latents, of a whole step.
    sums: [M, D], their sums.
    decay: share of the averages that is kept.
    epsilon: what the counts are smoothed by.
  """
  counts = decay * codebook.counts + (1 - decay) * counts
  total = counts.sum()
  counts = (counts + epsilon) / (total + len(counts) * epsilon) * total
  sums = decay * codebook.sums + (1 - decay) * sums
  return Codebook(sums / counts[:, None], sums, counts)


def reseed(
  codebook: Codebook,
  dead: jax.Array,
  latents: jax.Array,
  valid: jax.Array,
  key: jax.Array,
) -> Codebook:
  """Puts dead codes where latents are.

  Args:
    codebook: as it was.
    dead: [M] bool.
    latents: [N, h, w, D], of all devices.
    valid: [N, h, w] bool, which of them may be taken.
    key: random key.
  """
  codes = len(dead)
  rows = latents.astype(jnp.float32).reshape(-1, latents.shape[-1])
  upto = jnp.cumsum(valid.reshape(-1).astype(jnp.int32))
  number = upto[-1]
  # Of those that may be taken, each code draws from some of its own, so that none is
  # taken twice while there are enough of them.
  numbers = jnp.arange(codes + 1)
  ends = numbers * (number // codes) + numbers * (number % codes) // codes
  share = jax.random.uniform(key, (codes,))
  place = ends[:-1] + (share * (ends[1:] - ends[:-1])).astype(jnp.int32)
  place = jnp.minimum(place, number - 1)
  drawn = rows[jnp.searchsorted(upto, place, side="right")]
  dead = dead & (number > 0)
  embedding = jnp.where(dead[:, None], drawn, codebook.embedding)
  sums = jnp.where(dead[:, None], drawn, codebook.sums)
  return Codebook(embedding, sums, jnp.where(dead, 1.0, codebook.counts))


class _JoinedConv(nn.Module):
  """A 3x3 convolution of two images as if they were one of more channels.

  The channels of the second one come last. Where many images share one skip, its
  part is computed once.

  Attributes:
    features: output channels.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  padding_mode: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
    """Maps [K, B, T, H, W, C] and the skip [B, T or 1, H, W, C] to the former."""
    channels = x.shape[-1], skip.shape[-1]
    shape = (3, 3, sum(channels), self.features)
    kernel = self.param("kernel", torch_conv_default, shape, jnp.float32)
    bias_init = torch_bias_default(9 * sum(channels))
    bias = self.param("bias", bias_init, (self.features,), jnp.float32)
    made = []
    for images, some in zip((x, skip), jnp.split(kernel, channels[:1], 2), strict=True):
      front = images.shape[:-3]
      images = images.astype(self.dtype).reshape(-1, *images.shape[-3:])
      image = conv2d(images, some, padding_mode=self.padding_mode)
      made.append(image.reshape(*front, *image.shape[1:]))
    return made[0] + made[1] + bias.astype(self.dtype)


class _LastLayer(simvp.SampledConv):
  """The decoder's last layer, which reads the skip as well."""

  def setup(self):
    self.conv = _JoinedConv(self.features, self.padding_mode, self.dtype)
    self.norm = self.norm_layer()

  def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
    """Maps [K, B, T, H, W, C] and the skip [B, T or 1, H, W, C] to the former."""
    y = self.conv(x, skip)
    images = y.reshape(-1, *y.shape[-3:])
    return self.activation(self.norm(images)).reshape(y.shape)


class Decoder(nn.Module):
  """Decodes latents, and gives its last layer the skip of a frame.

  Attributes:
    features: channels D of latent and skip.
    out_channels: channels of the result.
    depth: number of layers.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
    remat: whether the backward pass recomputes the layers.
  """

  features: int
  out_channels: int
  depth: int
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, latent: jax.Array, skip: jax.Array) -> jax.Array:
    """Maps [K, B, T, h, w, D] and the skip [B, T or 1, H, W, D] to [..., H, W, C].

    A skip of one frame is that of all T frames, and is shared by all K.
    """
    front = latent.shape[:3]
    x = latent.astype(self.dtype).reshape(-1, *latent.shape[3:])
    *halving, _ = simvp.sampling_pattern(self.depth)[::-1]
    for i, up in enumerate(halving):
      x = _layer(self.remat)(
        self.features,
        sampling="up" if up else "same",
        padding_mode=self.padding_mode,
        dtype=self.dtype,
        name=f"layer_{i}",
      )(x)
    x = x.reshape(*front, *x.shape[1:])
    skip = skip.astype(self.dtype)
    # As released: with as many features as channels nothing is projected.
    if self.features != self.out_channels:
      skip = self._readout(self.features, "project", skip)
    x = _first(nn.remat(_LastLayer) if self.remat else _LastLayer)(
      self.features,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      name=f"layer_{self.depth - 1}",
    )(x, skip)
    return self._readout(self.out_channels, "readout", x)

  def _readout(self, features: int, name: str, x: jax.Array) -> jax.Array:
    images = x.reshape(-1, *x.shape[-3:])
    y = Conv(features, 1, dtype=self.dtype, name=name)(images)
    return y.reshape(*x.shape[:-1], features)


_first = functools.partial(
  functools.partial, shuffle=False, initial=simvp.TORCH, activation=simvp.leaky_relu
)


def _layer(remat: bool):
  """The constructor of a layer, which the backward pass may recompute."""
  return _first(nn.remat(simvp.SampledConv) if remat else simvp.SampledConv)


class VQ(nn.Module):
  """Encodes frames, replaces each latent by a code, and decodes.

  The codes are variables [codes, features] of the collection "codebook", which no
  gradient reaches; method "world_model" learns them.

  Attributes:
    out_channels: channels of the frames.
    features: channels D of encoder, decoder and codes (embedding_dim), an even
      number.
    depth: layers of encoder and of decoder (res_layers); every second one halves
      the grid.
    codes: number M of codes (embedding_nums).
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: whether the backward pass recomputes the layers, to save memory.
    dtype: compute dtype; parameters, codes and the result stay float32.
  """

  reconstructs = True

  out_channels: int | None = None
  features: int = 256
  depth: int = 2
  codes: int = 1024
  padding_mode: str = "zeros"
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, features=2, depth=1, codes=1, out_channels=1)
    if self.features % 2:
      raise NetworkError(
        f"model.features is {self.features}; expected a multiple of 2 (two groups of"
        " normalised channels)"
      )
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()

  def setup(self):
    shared = dict(
      depth=self.depth, padding_mode=self.padding_mode, dtype=jnp.dtype(self.dtype)
    )
    self.encoder = simvp.Encoder(self.features, layer=_layer(self.remat), **shared)
    self.pre_quantise = Conv(self.features, 1, dtype=jnp.dtype(self.dtype))
    self.decoder = Decoder(
      self.features, self.out_channels or 1, remat=self.remat, **shared
    )
    shape = (self.codes, self.features)
    normal = lambda: jax.random.normal(self.make_rng("params"), shape)  # noqa: E731
    self._embedding = self.variable("codebook", "embedding", normal)
    self._sums = self.variable("codebook", "sums", normal)
    self._counts = self.variable("codebook", "counts", jnp.zeros, shape[:1])

  @property
  def factor(self) -> int:
    """How many times smaller the latent grid is."""
    return 2 ** sum(simvp.sampling_pattern(self.depth))

  def encode(self, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encodes each frame.

    Args:
      frames: [B, T, H, W, C], normalised.

    Returns:
      Latents [B, T, h, w, D] float32, before they are quantised, and skips
      [B, T, H, W, D].

    Raises:
      NetworkError: the grid cannot be halved often enough.
    """
    simvp.check_input(frames.shape, self.depth, "depth")
    b, t = frames.shape[:2]
    images = frames.astype(jnp.dtype(self.dtype)).reshape(b * t, *frames.shape[2:])
    latent, skip = self.encoder(images)
    latent = self.pre_quantise(latent).astype(jnp.float32)
    return tuple(x.reshape(b, t, *x.shape[1:]) for x in (latent, skip))

  def quantise(self, latents: jax.Array, count: int) -> jax.Array:
    """Returns the K nearest codes [K, ..., D] of latents [..., D]."""
    numbers = nearest_codes(latents, self._embedding.value, count)
    return jnp.asarray(self._embedding.value)[jnp.moveaxis(numbers, -1, 0)]

  def decode(self, latents: jax.Array, skip: jax.Array) -> jax.Array:
    """Decodes quantised latents.

    Args:
      latents: [K, B, T, h, w, D].
      skip: [B, T, H, W, D]; or [B, 1, H, W, D], that of all T frames.

    Returns:
      [K, B, T, H, W, C] float32, normalised.
    """
    return self.decoder(latents, skip).astype(jnp.float32)

  def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
    """Reconstructs frames [B, T, H, W, C] from their nearest codes."""
    del train  # Nothing is random, and no norm has statistics of a batch.
    latents, skip = self.encode(frames)
    return self.decode(self.quantise(latents, 1), skip)[0]
