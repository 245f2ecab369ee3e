"""Layers that the networks share: convolution, norms, stochastic depth.

Arrays are channels last. Parameters are float32 whatever the compute dtype is,
and norms compute in float32. Defaults and numbers follow torch, so that the
weights of torch networks give the same results here.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from stjax.errors import NetworkError
from stjax.models.layers.convolution import conv2d, transposed_conv2d

__all__ = [
  "BatchNorm",
  "Conv",
  "DropPath",
  "GroupNorm",
  "LayerNorm",
  "TransposedConv",
  "conv2d",
  "he_fan_out",
  "pixel_shuffle",
  "torch_bias_default",
  "torch_conv_default",
  "transposed_conv2d",
  "truncated_normal",
]

Initializer = Callable[..., jax.Array]


def torch_conv_default(
  key: jax.Array, shape: Sequence[int], dtype=jnp.float32
) -> jax.Array:
  """Draws torch's default weights, uniform within 1 / sqrt(fan_in).

  Args:
    key: random key.
    shape: [..., C_in / groups, C_out]; fan_in is the product without C_out.
    dtype: dtype of the result.
  """
  bound = 1 / math.sqrt(math.prod(shape[:-1]))
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def torch_bias_default(fan_in: int) -> Initializer:
  """Returns torch's initialiser of biases: uniform within 1 / sqrt(fan_in)."""
  bound = 1 / math.sqrt(fan_in)
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
    key, shape, dtype, -bound, bound
  )


def he_fan_out(
  key: jax.Array, shape: Sequence[int], dtype=jnp.float32, groups: int = 1
) -> jax.Array:
  """Draws normal weights of standard deviation sqrt(2 / (kh kw C_out / groups)).

  `Conv` passes its own `groups`.

  Source: He et al. 2015, eq. 14 (backward case).
  """
  fan_out = math.prod(shape[:-2]) * shape[-1] // groups
  return math.sqrt(2 / fan_out) * jax.random.normal(key, shape, dtype)


def truncated_normal(std: float) -> Initializer:
  """Returns an initialiser that draws a normal law, cut at -2 and 2.

  As in torch and timm, the cuts are the numbers -2 and 2, not two standard
  deviations.
  """

  def init(key, shape, dtype=jnp.float32):
    cut = 2 / std
    return std * jax.random.truncated_normal(key, -cut, cut, shape, dtype)

  return init


class Conv(nn.Module):
  """Two-dimensional convolution with torch's padding and initial values.

  Parameters: "kernel" [kh, kw, C_in / groups, features] and "bias"
  [features], float32.

  Attributes:
    features: output channels.
    kernel_size: one number or (H, W).
    stride: one number or (H, W).
    padding: padding that `conv2d` takes; None means dilation * (k - 1) // 2.
    dilation: one number or (H, W).
    groups: number of channel groups.
    use_bias: whether to add a bias.
    dtype: compute and output dtype.
    kernel_init: initialiser of the kernel.
    bias_init: initialiser of the bias; None means torch's default.
    padding_mode: "zeros" or "circular".
  """

  features: int
  kernel_size: int | Sequence[int]
  stride: int | Sequence[int] = 1
  padding: int | Sequence | None = None
  dilation: int | Sequence[int] = 1
  groups: int = 1
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32
  kernel_init: Initializer = torch_conv_default
  bias_init: Initializer | None = None
  padding_mode: str = "zeros"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C_in] to [N, H_out, W_out, features]."""
    size = self.kernel_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    if x.shape[-1] % self.groups:
      raise NetworkError(
        f"{x.shape[-1]} input channels cannot be split into {self.groups} "
        "groups; change the layer's width or its groups"
      )
    shape = (*size, x.shape[-1] // self.groups, self.features)
    kernel_init = self.kernel_init
    if kernel_init is he_fan_out:
      kernel_init = functools.partial(he_fan_out, groups=self.groups)
    kernel = self.param("kernel", kernel_init, shape, jnp.float32)
    y = conv2d(
      x.astype(self.dtype),
      kernel,
      self.stride,
      self.padding,
      self.dilation,
      self.groups,
      self.padding_mode,
    )
    if self.use_bias:
      bias_init = self.bias_init or torch_bias_default(math.prod(shape[:-1]))
      bias = self.param("bias", bias_init, (self.features,), jnp.float32)
      y = y + bias.astype(y.dtype)
    return y


class TransposedConv(nn.Module):
  """Transposed convolution that doubles the grid; see `transposed_conv2d`.

  Parameters: "kernel" [k, k, C_in, features] and "bias" [features], float32.
  They are drawn uniformly within 1 / sqrt(k k features), as torch does, which
  takes the fan-in of the transposed layer.

  Attributes:
    features: output channels.
    padding_mode: "zeros" or "circular".
    dtype: compute and output dtype.
    kernel_size: k, which is 2, 3 or 4.
  """

  features: int
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32
  kernel_size: int = 3

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C_in] to [N, 2 H, 2 W, features]."""
    size = (self.kernel_size, self.kernel_size)
    init = torch_bias_default(math.prod(size) * self.features)
    shape = (*size, x.shape[-1], self.features)
    kernel = self.param("kernel", init, shape, jnp.float32)
    bias = self.param("bias", init, (self.features,), jnp.float32)
    y = transposed_conv2d(x.astype(self.dtype), kernel, self.padding_mode)
    return y + bias.astype(y.dtype)


def _scale_and_bias(module: nn.Module, *shape: int) -> tuple[jax.Array, jax.Array]:
  """The parameters that all norms have: "scale" of ones and "bias" of zeros."""
  init = nn.initializers
  scale = module.param("scale", init.ones, shape, jnp.float32)
  return scale, module.param("bias", init.zeros, shape, jnp.float32)


class BatchNorm(nn.Module):
  """Normalises each channel over batch and pixels (Ioffe & Szegedy 2015).

  If `jax.jit` splits the batch over devices, the statistics are still those of
  the whole batch. Variables: params "scale" and "bias"; batch_stats "mean" and
  "var". As in torch, the running variance averages unbiased variances.

  Attributes:
    momentum: weight of the new batch in the running statistics.
    eps: number that is added to the variance.
    train: value of `train` for calls that do not pass one.
  """

  momentum: float = 0.1
  eps: float = 1e-5
  train: bool | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
    """Maps [N, ..., C] to the same shape and dtype.

    Args:
      x: [N, ..., C].
      train: whether to normalise by this batch, and to update the running
        statistics if "batch_stats" is mutable; otherwise the layer normalises
        by the running statistics.
    """
    train = nn.merge_param("train", self.train, train)
    channels = x.shape[-1]
    scale, bias = _scale_and_bias(self, channels)
    running_mean = self.variable(
      "batch_stats", "mean", jnp.zeros, (channels,), jnp.float32
    )
    running_var = self.variable(
      "batch_stats", "var", jnp.ones, (channels,), jnp.float32
    )
    x32 = x.astype(jnp.float32)
    if train:
      axes = tuple(range(x.ndim - 1))
      mean = x32.mean(axes)
      var = jnp.square(x32 - mean).mean(axes)
      # Initialisation sees no real batch, so it must leave the statistics alone.
      if self.is_mutable_collection("batch_stats") and not self.is_initializing():
        count = x.size // channels
        unbiased = lax.stop_gradient(var) * (count / max(count - 1, 1))
        old, m = 1 - self.momentum, self.momentum
        running_mean.value = old * running_mean.value + m * lax.stop_gradient(mean)
        running_var.value = old * running_var.value + m * unbiased
    else:
      mean, var = running_mean.value, running_var.value
    y = (x32 - mean) * (scale * lax.rsqrt(var + self.eps)) + bias
    return y.astype(x.dtype)


class GroupNorm(nn.Module):
  """Normalises groups of channels of each sample (Wu & He 2018).

  Params: "scale" and "bias" [C].

  Attributes:
    groups: number of groups, which must divide the channels.
    eps: number that is added to the variance.
  """

  groups: int
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, ..., C] to the same shape and dtype."""
    channels = x.shape[-1]
    if channels % self.groups:
      raise NetworkError(
        f"{channels} channels cannot be split into {self.groups} groups of a "
        "GroupNorm; choose a width (e.g. hid_S) that is a multiple of it"
      )
    scale, bias = _scale_and_bias(self, channels)
    x32 = x.astype(jnp.float32)
    axes = tuple(range(1, x.ndim - 1))

    def group_mean(values):
      # Channels stay the innermost axis while the pixels are summed, so
      # that the sums run over contiguous memory.
      mean = values.mean(axes).reshape(x.shape[0], self.groups, -1).mean(-1)
      mean = jnp.repeat(mean, channels // self.groups, axis=-1)
      return jnp.expand_dims(mean, axes)

    centred = x32 - group_mean(x32)
    var = group_mean(jnp.square(centred))
    y = centred * (scale * lax.rsqrt(var + self.eps)) + bias
    return y.astype(x.dtype)


class LayerNorm(nn.Module):
  """Normalises the last axis, or the last few axes together (Ba et al. 2016).

  Params: "scale" and "bias" of the shape of these axes.

  Attributes:
    eps: number that is added to the variance.
    axes: number of last axes: 1 for the channels, 3 for a whole frame.
  """

  eps: float = 1e-5
  axes: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., C] to the same shape and dtype."""
    scale, bias = _scale_and_bias(self, *x.shape[-self.axes :])
    axes = tuple(range(-self.axes, 0))
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(axes, keepdims=True)
    var = jnp.square(centred).mean(axes, keepdims=True)
    y = centred * lax.rsqrt(var + self.eps) * scale + bias
    return y.astype(x.dtype)


class DropPath(nn.Module):
  """Stochastic depth, which drops whole samples (Huang et al. 2016).

  It uses the random stream "dropout" while training.

  Attributes:
    rate: share of samples that are set to zero; the others are divided by
      1 - rate, so that the expectation stays the same.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, ...] to the same shape and dtype."""
    if not 0 <= self.rate <= 1:
      raise NetworkError(f"drop path rate is {self.rate}; expected 0 <= rate <= 1")
    if not train or self.rate == 0:
      return x
    if self.rate == 1:
      return jnp.zeros_like(x)
    keep = 1 - self.rate
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
    return jnp.where(kept, x / keep, 0).astype(x.dtype)


def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
  """Moves channels to pixels: [N, H, W, C r r] to [N, r H, r W, C].

  Output pixel (r i + a, r j + b) of channel c is input channel c r r + a r + b
  of pixel (i, j), as in torch.

  Args:
    x: [..., H, W, C * factor * factor].
    factor: r, by which each side of the grid grows.

  Raises:
    NetworkError: if the number of channels is no multiple of factor squared.

  Source: Shi et al. 2016.
  """
  *batch, h, w, c = x.shape
  if c % factor**2:
    raise NetworkError(
      f"{c} channels cannot be shuffled into {factor} x {factor} pixels"
    )
  n = len(batch)
  c //= factor**2
  x = x.reshape(*batch, h, w, c, factor, factor)
  x = x.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
  return x.reshape(*batch, h * factor, w * factor, c)
