"""F-FNO: a Fourier neural operator whose modes belong to one axis each.

Tran et al. 2023, "Factorized Fourier Neural Operators", in the copy that SFP is
compared with. It takes fields on regular grids, or values at scattered points.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from stjax.errors import NetworkError
from stjax.models.denoisers.common import dense
from stjax.models.fno import coordinates
from stjax.models.layers import checks
from stjax.models.layers.basic import LayerNorm, torch_bias_default, torch_conv_default
from stjax.models.layers.folding import fold_frames, unfold_frames
from stjax.models.layers.spectral import check_modes, real_field
from stjax.models.translators.metaformer import gelu


def kernel_init(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
  """Draws normal weights of variance 1 / (M (C_in + C_out)).

  Args:
    key: random key.
    shape: [2, M, C_in, C_out].
    dtype: dtype of the result.

  Source: Glorot & Bengio 2010, eq. 16, for a kernel of 2 M taps.
  """
  _, modes, *channels = shape
  return jax.random.normal(key, shape, dtype) / math.sqrt(modes * sum(channels))


def waves(places: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """Returns cosines and sines of the waves 0 .. count - 1 at places.

  Args:
    places: [B, N], in units of the longest wave.
    count: M, the number of waves.

  Returns:
    Two arrays [B, N, M] float32.
  """
  angles = 2 * jnp.pi * places.astype(jnp.float32)[..., None] * jnp.arange(count)
  return jnp.cos(angles), jnp.sin(angles)


class FactorizedConv(nn.Module):
  """Maps the lowest modes along each axis by their matrices, and adds both.

  The modes along one axis are taken row by row, or column by column. Those of
  points along an axis are sums over all points, and so are alike in all rows;
  points get the sum of all rows. Everything is computed in float32.

  Parameters: "along_w" [2, M_w, C, features] and "along_h" [2, M_h, C,
  features], the real and the imaginary parts of the matrices.

  Attributes:
    features: output channels.
    modes: (M_h, M_w), the number of modes along H and along W.
    grid: (H, W) of the result for an input at points.
    legacy_sums: whether sums over points and over the grid are those of the
      released code. Otherwise they are means, whose size does not depend on
      the number of points.
  """

  features: int
  modes: tuple[int, int]
  grid: tuple[int, int] | None = None
  legacy_sums: bool = False

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    points_in: jax.Array | None = None,
    points_out: jax.Array | None = None,
  ) -> jax.Array:
    """Maps a field or points to a field or points.

    Args:
      x: [B, H, W, C] on a regular grid, or [B, N, C] at points.
      points_in: the places [B, N, 2] of such points, along W and along H, where
        1 is the length of the axis.
      points_out: the places [B, M, 2] of the result; None means a grid.

    Returns:
      [B, H, W, features] or [B, M, features] float32.
    """
    along_w = self._along(2, "along_w", x, points_in, points_out)
    return along_w + self._along(1, "along_h", x, points_in, points_out)

  def _along(self, axis, name, x, points_in, points_out):
    """The part of one axis; on a grid from points, of length 1 along the other."""
    count, coordinate = self.modes[axis - 1], 2 - axis
    shape = (2, count, x.shape[-1], self.features)
    kernel = self.param(name, kernel_init, shape, jnp.float32)
    x = x.astype(jnp.float32)
    # The axis of the modes comes before the channels, after the rows.
    if points_in is None:
      x = jnp.moveaxis(x, axis, 2)
      size = x.shape[2]
      modes = jnp.fft.rfft(x, axis=2)[:, :, :count]
    else:
      size = self.grid[axis - 1]
      cosines, sines = waves(points_in[..., coordinate], count)
      real, imaginary = (
        jnp.einsum("bnc,bnm->bmc", x, wave) for wave in (cosines, -sines)
      )
      modes = lax.complex(real, imaginary)[:, None]
      if not self.legacy_sums:
        modes = modes * (size / x.shape[1])
    modes = jnp.einsum("blmi,mio->blmo", modes, lax.complex(kernel[0], kernel[1]))
    if points_out is None:
      return jnp.moveaxis(real_field(modes, size, 2), 2, axis)
    modes = modes.sum(1)
    if not self.legacy_sums:
      modes = modes / (x.shape[1] * size)
    cosines, sines = waves(points_out[..., coordinate], count)
    cosines = jnp.einsum("bmo,bnm->bno", modes.real, cosines)
    return cosines - jnp.einsum("bmo,bnm->bno", modes.imag, sines)


class WeightNormDense(nn.Module):
  """A linear layer whose kernel has a length of its own for each output.

  Parameters: "kernel" [C, features], of which only the directions count,
  "scale" [features] and "bias" [features].

  Attributes:
    features: output features.
    dtype: compute dtype.

  Source: Salimans & Kingma 2016.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., C] to [..., features]."""
    fan_in = x.shape[-1]
    kernel = self.param(
      "kernel", torch_conv_default, (fan_in, self.features), jnp.float32
    )
    lengths = jnp.linalg.norm(kernel, axis=0)
    # At first, the kernel is what it is.
    scale = self.param("scale", lambda key: lengths)
    bias = self.param("bias", torch_bias_default(fan_in), (self.features,), jnp.float32)
    kernel = (kernel * (scale / lengths)).astype(self.dtype)
    return x.astype(self.dtype) @ kernel + bias.astype(self.dtype)


class FeedForward(nn.Module):
  """Linear layers of each pixel with ReLUs between them.

  Attributes:
    expansion: width of all layers but the last over the width of the input.
    depth: number of layers.
    weight_norm: whether the kernels are normalised.
    layer_norm: whether a norm follows the last layer.
    dropout: rate after each layer.
    dtype: compute dtype.
  """

  expansion: int = 2
  depth: int = 2
  weight_norm: bool = True
  layer_norm: bool = False
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [..., C] to the same shape."""
    width = x.shape[-1]
    for i in range(self.depth):
      last = i == self.depth - 1
      features, name = width if last else self.expansion * width, f"linear_{i}"
      if self.weight_norm:
        x = WeightNormDense(features, self.dtype, name=name)(x)
      else:
        x = dense(features, x.shape[-1], self.dtype, name=name)(x)
      x = nn.Dropout(self.dropout)(x, deterministic=not train)
      x = x if last else nn.relu(x)
    return LayerNorm(name="norm")(x) if self.layer_norm else x


class Block(nn.Module):
  """A factorised convolution, and a feed-forward network of the result.

  Attributes:
    convolution: constructor of the `FactorizedConv`.
    feed_forward: constructor of the `FeedForward`.
  """

  convolution: functools.partial
  feed_forward: functools.partial

  @nn.compact
  def __call__(
    self, x: jax.Array, points_in: jax.Array | None = None, train: bool = False
  ) -> jax.Array:
    """Maps [B, H, W, C], or points [B, N, C], to [B, H, W, features]."""
    feed_forward = self.feed_forward(name="feed_forward")
    x = self.convolution(name="spectral")(x, points_in)
    return feed_forward(x.astype(feed_forward.dtype), train)


class FFNO(nn.Module):
  """Forecasts from all frames of the history, as channels, and from the place.

  The forecast depends on the place even if the field wraps around.

  Attributes:
    horizon: frames of the forecast.
    out_channels: channels of the forecast; None means those of the input,
      without the two coordinates of a mesh.
    features: width of the layers.
    modes_h: modes along H, at most H // 2 + 1.
    modes_w: modes along W, at most W // 2 + 1.
    depth: number of layers; one more, without a feed-forward network, follows.
    expansion: hidden width of the feed-forward networks over the width.
    feed_forward_depth: number of linear layers of each of these.
    weight_norm: whether their kernels are normalised.
    layer_norm: whether a norm is their last layer.
    dropout: rate inside them.
    mesh: whether the pixels are points anywhere, such as sensors: the last two
      channels of the input, which must be static (data.static), are then
      their coordinates along W and along H, in any unit. They are not inputs
      otherwise.
    latent_grid: (H, W), or one number for both, of the regular grid on which a
      network with a mesh works; the modes are those of this grid.
    legacy_sums: whether a network with a mesh adds up points and grid as the
      released code does, for its weights; otherwise it takes means.
    readout_features: hidden width of the last map.
    dtype: compute dtype, which is always float32 between the Fourier
      transforms; parameters and the result stay float32.
  """

  horizon: int
  out_channels: int | None = None
  features: int = 64
  modes_h: int = 12
  modes_w: int = 12
  depth: int = 4
  expansion: int = 2
  feed_forward_depth: int = 2
  weight_norm: bool = True
  layer_norm: bool = False
  dropout: float = 0.0
  mesh: bool = False
  latent_grid: int | Sequence[int] = 40
  legacy_sums: bool = False
  readout_features: int = 128
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    options = ("horizon", "features", "modes_h", "modes_w", "depth", "expansion")
    checks.at_least(self, **dict.fromkeys(options, 1))
    checks.at_least(self, out_channels=1, feed_forward_depth=1, readout_features=1)
    checks.rate(self, "dropout")
    checks.pair(self, "latent_grid")
    super().__post_init__()

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised, or as `mesh` says.
      train: whether to use dropout (random stream "dropout").

    Returns:
      [B, horizon, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    checks.history(x.shape)
    b, _, h, w, channels = x.shape
    points = None
    if self.mesh:
      channels -= 2
      if channels < 1:
        raise NetworkError(
          f"the input has {channels + 2} channels; with model.mesh, expected at "
          "least one variable and two coordinates (data.static)"
        )
      points = self._unit_square(x[:, -1, ..., channels:].reshape(b, h * w, 2))
    shown = fold_frames(x[..., :channels])
    if self.mesh:
      shown = shown.reshape(b, h * w, shown.shape[-1])
    features = self.horizon * (self.out_channels or channels)
    y = self.map_points(shown, points, points, features, train)
    return unfold_frames(y.reshape(b, h, w, features), self.horizon)

  @staticmethod
  def _unit_square(points: jax.Array) -> jax.Array:
    """Brings coordinates [B, N, 2] to 0 .. 1, a constant one to 0."""
    lowest = points.min(1, keepdims=True)
    extent = points.max(1, keepdims=True) - lowest
    return (points - lowest) / jnp.where(extent > 0, extent, 1)

  @nn.compact
  def map_points(
    self,
    x: jax.Array,
    points_in: jax.Array | None = None,
    points_out: jax.Array | None = None,
    features: int | None = None,
    train: bool = False,
  ) -> jax.Array:
    """Maps values at points to values at other points, or a field to a field.

    Args:
      x: values [B, N, C] at points, or a field [B, H, W, C] on a regular grid.
      points_in: coordinates [B, N, 2] of the points, along W and along H, from
        0 to 1; None for a field.
      points_out: coordinates [B, M, 2] of the points of the result; None for a
        field.
      features: channels of the result; None means horizon * out_channels.
      train: whether to use dropout.

    Returns:
      [B, M, features] or [B, H, W, features] float32.

    Raises:
      NetworkError: the grid has fewer modes than the network.
    """
    dtype = jnp.dtype(self.dtype)
    if points_in is None:
      grid = x.shape[1:3]
      places = jnp.broadcast_to(coordinates(*grid), (*x.shape[:3], 2))
    else:
      grid, places = checks.pair(self, "latent_grid"), points_out
    check_modes(self, grid, both_signs=False)
    convolution = functools.partial(
      FactorizedConv,
      self.features,
      (self.modes_h, self.modes_w),
      grid,
      self.legacy_sums,
    )
    feed_forward = functools.partial(
      FeedForward,
      self.expansion,
      self.feed_forward_depth,
      self.weight_norm,
      self.layer_norm,
      self.dropout,
      dtype,
    )

    def linear(x, features, name):
      return dense(features, x.shape[-1], dtype, name=name)(x)

    x = linear(x, self.features, "lift")
    place = linear(coordinates(*grid), self.features, "grid_place")
    for i in range(self.depth):
      block = Block(convolution, feed_forward, name=f"block_{i}")
      y = block(x, None if i else points_in, train) + place
      # The first layer has no skip, as its input may lie elsewhere.
      x = x + y if i else y
    x = convolution(name="last")(x, None, points_out).astype(dtype)
    x = x + linear(places, self.features, "place")
    x = gelu(linear(x, self.readout_features, "expand"))
    features = features or self.horizon * self.out_channels
    return linear(x, features, "readout").astype(jnp.float32)
