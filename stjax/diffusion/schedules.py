"""Noise schedules, by name: how much noise each training step adds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors

# Keeps the cosine schedule's first step from adding next to no noise.
_COSINE_OFFSET = 0.008
_COSINE_LARGEST = 0.999
# Of the last step: below it, what float32 rounds off a noisy state (6e-8),
# divided by the signal, is no longer small against data of variance 1; far
# below it, the signal is 0 in float32 and samples are NaN.
_SMALLEST_SIGNAL = 1e-6


# Compared by identity, so that it may be a static argument of jit.
@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
  """The noise of N steps, on the host in float64.

  Attributes:
    beta: [N] variance that step t adds, in (0, 1).
    alpha_bar: [N] share A_t of the data's variance left after step t, the
      product of 1 - beta up to and including t.
  """

  beta: np.ndarray
  alpha_bar: np.ndarray

  @property
  def num_steps(self) -> int:
    """N."""
    return len(self.beta)

  def signal(self, step: jax.Array | int) -> jax.Array:
    """Returns sqrt(A_t) in float32, for steps of any shape."""
    return _gather(np.sqrt(self.alpha_bar), step)

  def sigma(self, step: jax.Array | int) -> jax.Array:
    """Returns sqrt(1 - A_t) in float32, for steps of any shape."""
    return _gather(np.sqrt(1 - self.alpha_bar), step)


def _gather(values: np.ndarray, step: jax.Array | int) -> jax.Array:
  return jnp.asarray(values, jnp.float32)[step]


def _linear(num_steps: int, start: float, end: float) -> np.ndarray:
  return np.linspace(start, end, num_steps)


def _quadratic(num_steps: int, start: float, end: float) -> np.ndarray:
  return np.linspace(start**0.5, end**0.5, num_steps) ** 2


def _cosine(num_steps: int, start: float, end: float) -> np.ndarray:
  del start, end
  time = np.arange(num_steps + 1) / num_steps
  angle = (time + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2
  alpha_bar = np.cos(angle) ** 2
  return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], _COSINE_LARGEST)


SCHEDULES = {
  "linear": _linear,
  "quadratic": _quadratic,
  "scaled_linear": _quadratic,  # Stable Diffusion's name of the same.
  "cosine": _cosine,
}


def build(
  name: str, num_steps: int, beta_start: float, beta_end: float
) -> NoiseSchedule:
  """Builds a noise schedule.

  Args:
    name: "linear": beta in equal steps (Ho et al. 2020); "quadratic", also
      called "scaled_linear": sqrt(beta) in equal steps (Tashiro et al.
      2021; Stable Diffusion); "cosine": A_t a squared cosine, beta at most
      .999 (Nichol & Dhariwal 2021, equation 17), which needs no ends.
    num_steps: N, at least 1.
    beta_start: beta of step 0, in (0, 1); "cosine" does not read it.
    beta_end: beta of step N-1, in (0, 1); "cosine" does not read it.

  Raises:
    ConfigError: (a ValueError) unknown name (near ones are listed), or a
      number out of its range; or nothing is left of the data.
  """
  formula = errors.pick("method.schedule", name, SCHEDULES)
  if num_steps < 1:
    raise errors.ConfigError(
      f"method.num_steps={num_steps}: a noise schedule needs at least 1."
    )
  for key, value in (("beta_start", beta_start), ("beta_end", beta_end)):
    if formula is not _cosine and not 0.0 < value < 1.0:
      raise errors.ConfigError(
        f"method.{key}={value} must lie between 0 and 1, both excluded."
      )
  beta = formula(num_steps, beta_start, beta_end)
  schedule = NoiseSchedule(beta, np.cumprod(1 - beta))
  signal = float(np.sqrt(schedule.alpha_bar[-1]))
  if signal < _SMALLEST_SIGNAL:
    ends = "" if formula is _cosine else f" and method.beta_end={beta_end}"
    lower = "" if formula is _cosine else " or method.beta_end"
    raise errors.ConfigError(
      f"method.schedule={name!r} with method.num_steps={num_steps}{ends}"
      f" leaves {signal:.2g} of the data at the last step, from which"
      " nothing can be sampled in float32; at least"
      f" {_SMALLEST_SIGNAL:g} is needed. Lower method.num_steps{lower}."
    )
  return schedule
