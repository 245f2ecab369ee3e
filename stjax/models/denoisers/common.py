"""What denoisers share: their call, their inputs, and how they know the step."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from stjax.errors import NetworkError, unknown_name
from stjax.models.layers.basic import torch_bias_default, torch_conv_default
from stjax.models.layers.convolution import conv2d

TABLES = ("exact", "float32")
_HIGHEST_EXPONENT = 4.0  # Frequencies go up, or down, to 10 ** +-4.


@struct.dataclass
class Context:
  """What a denoiser makes of the history, before it sees any noisy field.

  Attributes:
    arrays: arrays [B, ...].
    history_shape: (T_in, H, W, C) of the history.
  """

  arrays: Any
  history_shape: tuple[int, ...] = struct.field(pytree_node=False)


class Denoiser(nn.Module):
  """A network that predicts what a diffusion is parameterised by.

  It has two halves that share their parameters. A forecast of many members
  and steps, or a loss of several fields, calls the first half once:

    encode(history [B, T_in, H, W, C], **extra_inputs) -> context, any tree of
      arrays [B, ...];
    denoise(noisy [B, T_out, H, W, C], step [B] or [], context, prior_shift
      like noisy, train) -> [B, T_out, H, W, C] float32.
  """

  denoises: ClassVar[bool] = True

  def __call__(
    self,
    noisy: jax.Array,
    step: jax.Array,
    history: jax.Array,
    prior_shift: jax.Array,
    train: bool = False,
    **extra: jax.Array,
  ) -> jax.Array:
    """Predicts the noise, the clean field or the velocity; runs both halves.

    Args:
      noisy: [B, T_out, H, W, C], what is denoised.
      step: [B] (or []) integers, indices of the training schedule.
      history: [B, T_in, H, W, C], normalised.
      prior_shift: [B, T_out, H, W, C], what the diffusion is shifted by; 0: nothing.
      train: use dropout (random stream "dropout").
      **extra: what the network names in `extra_inputs`.

    Returns:
      [B, T_out, H, W, C] float32.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    return self.denoise(noisy, step, self.encode(history, **extra), prior_shift, train)


class SplitLayer(nn.Module):
  """A dense layer or a convolution that gets its input features in parts.

  It is linear, so that the parts' results add up to that of the whole input,
  and a part that stays the same is multiplied only once. Parameters: "kernel"
  [*kernel_size, in_features, features] and "bias" [features], float32, with
  torch's initial values.

  Attributes:
    features: output features.
    in_features: input features of all parts together.
    kernel_size: () of a dense layer, (kh, kw) of a convolution.
    padding_mode: of a convolution, "zeros" or "circular".
    dtype: compute and output dtype.
  """

  features: int
  in_features: int
  kernel_size: tuple[int, ...] = ()
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, rows: slice | np.ndarray, use_bias: bool
  ) -> jax.Array:
    """Maps a part [B, H, W, F] to what it contributes to [B, H, W, features].

    Args:
      x: the part.
      rows: which of the input features it holds.
      use_bias: whether it brings the bias; one part must.
    """
    shape = (*self.kernel_size, self.in_features, self.features)
    kernel = self.param("kernel", torch_conv_default, shape, jnp.float32)
    bias_init = torch_bias_default(math.prod(shape[:-1]))
    bias = self.param("bias", bias_init, (self.features,), jnp.float32)
    x, kernel = x.astype(self.dtype), kernel[..., rows, :].astype(self.dtype)
    if self.kernel_size:
      y = conv2d(x, kernel, padding_mode=self.padding_mode)
    else:
      y = x @ kernel
    return y + bias.astype(self.dtype) if use_bias else y


def dense(features: int, fan_in: int, dtype: jnp.dtype, **options) -> nn.Dense:
  """A linear layer with torch's initial values; kernel [in, out].

  Args:
    features: output features.
    fan_in: input features; the bias's initial range depends on it.
    dtype: compute dtype; parameters stay float32.
    **options: further fields of `flax.linen.Dense`, e.g. its name.
  """
  return nn.Dense(
    features,
    dtype=dtype,
    kernel_init=torch_conv_default,
    bias_init=torch_bias_default(fan_in),
    **options,
  )


def step_table(num_steps: int, features: int, kind: str) -> np.ndarray:
  """Sines and cosines of the steps: [sin(t f_j), cos(t f_j)].

  f_j = 10 ** (4 j / (features / 2 - 1)): frequencies far above one turn per
  step, as in CSDI (Tashiro et al. 2021) and CoST. The rows look random rather
  than smooth in t, and the arguments are so large that rounding shows.

  Args:
    num_steps: rows, t = 0 .. num_steps - 1.
    features: columns, even, at least 4.
    kind: "exact", or "float32": exponents, frequencies and arguments rounded
      to float32 one by one, as the weights released with CoST saw them (up to
      .023 off).

  Returns:
    [num_steps, features] float32, made on the host.

  Raises:
    NetworkError: unknown kind, or a number of columns that cannot be halved.
  """
  if kind not in TABLES:
    raise unknown_name("step table (model.step_table)", kind, TABLES)
  if features < 4 or features % 2:
    raise NetworkError(
      f"model.step_dim is {features}; expected an even number, at least 4"
    )
  half = features // 2
  rounded = np.float32 if kind == "float32" else np.float64
  # Not linspace, whose last bits differ.
  exponents = np.arange(half, dtype=rounded) / rounded(half - 1)
  exponents = exponents * rounded(_HIGHEST_EXPONENT)
  frequencies = (10.0 ** exponents.astype(np.float64)).astype(rounded)
  steps = np.arange(num_steps, dtype=rounded)
  arguments = (steps[:, None] * frequencies).astype(np.float64)
  table = np.concatenate([np.sin(arguments), np.cos(arguments)], axis=1)
  return table.astype(np.float32)


def smooth_sinusoids(step: jax.Array, features: int) -> jax.Array:
  """Sines and cosines that change slowly from step to step.

  Frequencies 10 ** (-4 j / (features / 2 - 1)), as Ho et al. 2020.

  Args:
    step: [B].
    features: columns, even, at least 4.

  Returns:
    [B, features] float32.

  Raises:
    NetworkError: a number of columns that cannot be halved.
  """
  if features < 4 or features % 2:
    raise NetworkError(
      f"model.step_dim is {features}; expected an even number, at least 4"
    )
  half = features // 2
  exponents = np.arange(half) / (half - 1) * _HIGHEST_EXPONENT
  frequencies = jnp.asarray(10.0**-exponents, jnp.float32)
  arguments = step.astype(jnp.float32)[:, None] * frequencies
  return jnp.concatenate([jnp.sin(arguments), jnp.cos(arguments)], axis=-1)


class StepEmbedding(nn.Module):
  """Two layers with SiLU that follow the sines and cosines of a step.

  Attributes:
    dtype: compute dtype.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, sinusoids: jax.Array) -> jax.Array:
    """Maps [B, F] to [B, F]."""
    features = sinusoids.shape[-1]
    x = nn.silu(dense(features, features, self.dtype, name="first")(sinusoids))
    return nn.silu(dense(features, features, self.dtype, name="second")(x))


def check_history(history: jax.Array) -> None:
  """Raises NetworkError for a history that is not [B, T_in, H, W, C]."""
  if history.ndim != 5:
    raise NetworkError(
      f"the denoiser got a history {history.shape}; expected [B, T_in, H, W, C]"
    )


def check_inputs(
  noisy: jax.Array,
  step: jax.Array,
  history_shape: tuple[int, ...],
  prior_shift: jax.Array,
  horizon: int,
) -> jax.Array:
  """Checks the arguments of a denoiser's second half.

  Args:
    noisy: [B, T_out, H, W, C].
    step: [B] or [], integers.
    history_shape: (T_in, H, W, C).
    prior_shift: as `noisy`.
    horizon: T_out as the network was built for.

  Returns:
    The step as [B].

  Raises:
    NetworkError: shapes that do not belong together.
  """
  if noisy.ndim != 5:
    raise NetworkError(
      f"the denoiser got noisy frames {noisy.shape}; expected [B, T_out, H, W, C]"
    )
  if noisy.shape[1] != horizon:
    raise NetworkError(
      f"the denoiser got {noisy.shape[1]} noisy frames; model.horizon is "
      f"{horizon}: make it equal to data.horizon"
    )
  if prior_shift.shape != noisy.shape or history_shape[1:] != noisy.shape[2:]:
    raise NetworkError(
      f"the denoiser got noisy frames {noisy.shape}, a prior_shift {prior_shift.shape} "
      f"and a history of (T, H, W, C) = {history_shape}; expected the same H, W, C,"
      " and a prior_shift like the noisy frames (targets must have the history's"
      " channels: data.variables)"
    )
  if not jnp.issubdtype(step.dtype, jnp.integer):
    raise NetworkError(
      f"the denoiser got steps of type {step.dtype}; expected integers, "
      "indices of the training schedule"
    )
  return jnp.broadcast_to(step, noisy.shape[:1])
