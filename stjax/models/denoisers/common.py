"""What denoisers share: their inputs, and how they are told the step."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.errors import NetworkError, unknown_name
from stjax.models.layers.basic import torch_bias_default, torch_conv_default

TABLES = ("exact", "float32")
_HIGHEST_EXPONENT = 4.0  # Frequencies go up, or down, to 10 ** +-4.


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


def check_inputs(
  noisy: jax.Array,
  step: jax.Array,
  history: jax.Array,
  prior_shift: jax.Array,
  horizon: int,
) -> jax.Array:
  """Checks a denoiser's arguments.

  Args:
    noisy: [B, T_out, H, W, C].
    step: [B] or [], integers.
    history: [B, T_in, H, W, C].
    prior_shift: as `noisy`.
    horizon: T_out as the network was built for.

  Returns:
    The step as [B].

  Raises:
    NetworkError: shapes that do not belong together.
  """
  if noisy.ndim != 5 or history.ndim != 5:
    raise NetworkError(
      f"the denoiser got noisy frames {noisy.shape} and a history "
      f"{history.shape}; expected [B, T_out, H, W, C] and [B, T_in, H, W, C]"
    )
  if noisy.shape[1] != horizon:
    raise NetworkError(
      f"the denoiser got {noisy.shape[1]} noisy frames; model.horizon is "
      f"{horizon}: make it equal to data.horizon"
    )
  if prior_shift.shape != noisy.shape or (
    history.shape[:1] + history.shape[2:] != noisy.shape[:1] + noisy.shape[2:]
  ):
    raise NetworkError(
      f"the denoiser got noisy frames {noisy.shape}, a prior_shift {prior_shift.shape} "
      f"and a history {history.shape}; expected the same B, H, W, C, and a "
      "prior_shift like the noisy frames (targets must have the history's channels: "
      "data.variables)"
    )
  if not jnp.issubdtype(step.dtype, jnp.integer):
    raise NetworkError(
      f"the denoiser got steps of type {step.dtype}; expected integers, "
      "indices of the training schedule"
    )
  return jnp.broadcast_to(step, noisy.shape[:1])
