"""What a denoiser predicts, and how to read x0 and the noise out of it.

For x = signal x0 + sigma noise, with signal^2 + sigma^2 = 1, a prediction p is

    epsilon: p = noise,                     x0 = (x - sigma p) / signal;
    x0:      p = x0,                        noise = (x - signal p) / sigma;
    v:       p = signal noise - sigma x0,   x0 = signal x - sigma p,
                                            noise = sigma x + signal p.

Sources: epsilon, Ho et al. 2020; v, Salimans & Ho 2022, section 4.
"""

import jax
import jax.numpy as jnp

from stjax import errors

KINDS = ("epsilon", "x0", "v")


def target(
  kind: str, x0: jax.Array, noise: jax.Array, signal: jax.Array, sigma: jax.Array
) -> jax.Array:
  """Returns what a denoiser of this kind should predict.

  Args:
    kind: out of `KINDS`.
    x0: clean data.
    noise: like x0, standard normal.
    signal: sqrt(A_t), broadcasts against x0.
    sigma: sqrt(1 - A_t), broadcasts against x0.

  Raises:
    ConfigError: (a ValueError) unknown kind.
  """
  _check(kind)
  if kind == "epsilon":
    return noise
  if kind == "x0":
    return x0
  return signal * noise - sigma * x0


def epsilon_factor(kind: str, signal: jax.Array, sigma: jax.Array) -> jax.Array | float:
  """Returns what turns squared errors of a prediction into those of the noise.

  For the same x, the noise that a prediction stands for is wrong by signal
  times the error of v, and by signal / sigma times that of x0.

  Args:
    kind: out of `KINDS`.
    signal: sqrt(A_t).
    sigma: sqrt(1 - A_t); not 0 for "x0".

  Raises:
    ConfigError: (a ValueError) unknown kind.
  """
  _check(kind)
  if kind == "epsilon":
    return 1.0
  return signal**2 if kind == "v" else (signal / sigma) ** 2


def to_x0_and_noise(
  kind: str, prediction: jax.Array, x: jax.Array, signal: jax.Array, sigma: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns x0 and the noise, in float32, that a prediction stands for.

  Args:
    kind: out of `KINDS`.
    prediction: of that kind, any float type.
    x: the noisy data that the prediction was made from.
    signal: sqrt(A_t), broadcasts against x; not 0 for "epsilon".
    sigma: sqrt(1 - A_t), broadcasts against x; not 0 for "x0".

  Raises:
    ConfigError: (a ValueError) unknown kind.
  """
  _check(kind)
  prediction = jnp.asarray(prediction, jnp.float32)
  x = jnp.asarray(x, jnp.float32)
  if kind == "epsilon":
    return (x - sigma * prediction) / signal, prediction
  if kind == "x0":
    return prediction, (x - signal * prediction) / sigma
  return signal * x - sigma * prediction, sigma * x + signal * prediction


def _check(kind: str) -> None:
  errors.pick("method.prediction", kind, dict.fromkeys(KINDS))
