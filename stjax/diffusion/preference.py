"""Preference losses of a diffusion: a chosen forecast against a rejected one.

All errors are mean squared errors of the predicted noise, of the same noise and
step for both forecasts and for every network. An error that grows less than the
reference's makes a forecast more likely than it was under the reference.

Sources: Diffusion-DPO, Wallace et al. 2023 (arXiv 2311.12908), equation 14;
sequential preferences, Lou et al. 2024 (2405.12739); SynCast (2510.21847), which
brings them together.
"""

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.diffusion.schedules import NoiseSchedule

WEIGHTS = ("clean", "released")
# The released program adds this to A_{t-1} before it divides by it.
_RELEASED_OFFSET = 1e-6


def weight_table(schedule: NoiseSchedule, kind: str) -> np.ndarray:
  """Returns how much a gap counts at each step, w_t.

  With a_t = A_t / A_{t-1}, the weight is that of the bound of the likelihood,

      w_t = (1 - a_t) / (2 a_t (1 - A_{t-1})).

  It has no value at t = 0, where A_{t-1} = 1; that of t = 1 takes its place. The
  A_t are the float32 numbers that the released program diffuses with.

  Args:
    schedule: the noise schedule, of at least two steps.
    kind: "clean", the formula in float64; "released", as SynCast's program
      computes it in float32: a_t = A_t / (A_{t-1} + 1e-6), which makes late
      weights too large (by 2.2 at t = 999 of its schedule), and A_{N-1} in place of
      A_{-1}, so that w_0 is about -0.5.

  Returns:
    [N] float32, computed on the host.

  Raises:
    ConfigError: (a ValueError) unknown kind, or a schedule of one step.
  """
  errors.pick("method.weight", kind, dict.fromkeys(WEIGHTS))
  if schedule.num_steps < 2:
    raise errors.ConfigError(
      "method.num_steps=1: the weights of preferences need at least 2 steps of noise."
    )
  single = np.float32
  # torch's cumprod adds up in float64, and rounds each product.
  kept = (single(1) - schedule.beta.astype(single)).astype(np.float64)
  alpha_bar = np.cumprod(kept).astype(single)
  if kind == "clean":
    alpha_bar = alpha_bar.astype(np.float64)
    before = alpha_bar[:-1]
    weight = _weight(alpha_bar[1:] / before, before)
    return np.append(weight[0], weight).astype(single)
  before = np.roll(alpha_bar, 1)
  return _weight(alpha_bar / (before + single(_RELEASED_OFFSET)), before)


def _weight(alpha: np.ndarray, before: np.ndarray) -> np.ndarray:
  return alpha.dtype.type(0.5) * (1 / alpha) * (1 - alpha) / (1 - before)


def dpo(
  policy: jax.Array, reference: jax.Array, weight: jax.Array, beta: float
) -> tuple[jax.Array, jax.Array]:
  """The loss of direct preference optimisation, pair by pair.

  Args:
    policy: [2, B] errors of the trained network: of the chosen forecasts, and of
      the rejected ones.
    reference: [2, B] errors of the frozen network, in the same order.
    weight: [B], entries of `weight_table` at the pairs' steps.
    beta: how fast the loss saturates; a small one lets the policy go far.

  Returns:
    The loss [B], log 2 where the gap is 0, and the gap [B] in float32: by how much
    more than the reference the policy errs for the chosen than for the rejected
    forecast. It is below 0 where the policy prefers the chosen one.
  """
  gap = _gap(policy, reference)
  return -jax.nn.log_sigmoid(-beta * weight * gap), gap


def spo(
  policy: jax.Array,
  previous: jax.Array,
  reference: jax.Array,
  weight: jax.Array,
  beta: float,
  alpha: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The loss of sequential preference optimisation, pair by pair.

  It prefers by a second score, and spares the pairs on which an earlier stage,
  that preferred by a first score, disagrees: these have a margin above 0.

  Args:
    policy: [2, B] errors of the trained network: of the chosen forecasts, and of
      the rejected ones.
    previous: [2, B] errors of the earlier stage's frozen network.
    reference: [2, B] errors of the frozen network that this stage began with.
    weight: [B], entries of `weight_table` at the pairs' steps.
    beta: how fast the loss saturates.
    alpha: share of the new preference in the loss's argument.

  Returns:
    The loss [B]; the gap [B] of the policy against the previous network; the
    margin [B], the gap of the previous network against the reference; float32.
  """
  gap, margin = _gap(policy, previous), _gap(previous, reference)
  argument = -beta * alpha * weight * gap + beta * weight * margin
  return -jax.nn.log_sigmoid(argument), gap, margin


def _gap(ours: jax.Array, theirs: jax.Array) -> jax.Array:
  chosen, rejected = jnp.asarray(ours, jnp.float32) - jnp.asarray(theirs, jnp.float32)
  return chosen - rejected
