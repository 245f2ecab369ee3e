"""Guidance: away from the forecast without a history, or towards an observation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Predict = Callable[[jax.Array, jax.Array], jax.Array]


def guided(predict: Predict, predict_unconditional: Predict, scale: float) -> Predict:
  """Returns the prediction u + scale (c - u), in float32.

  Valid for every kind of prediction, as all are linear in the noise. A scale
  of 1 returns `predict` itself: the unconditional network is not called.

  Args:
    predict: (x, step) -> the conditional prediction c.
    predict_unconditional: (x, step) -> the unconditional prediction u.
    scale: 1 for the conditional law, above 1 to follow the condition more.

  Source: Ho & Salimans 2022, equation 6 with w = scale - 1.
  """
  if scale == 1:
    return predict

  def combined(x, step):
    with_condition = jnp.asarray(predict(x, step), jnp.float32)
    without = jnp.asarray(predict_unconditional(x, step), jnp.float32)
    return without + scale * (with_condition - without)

  return combined


def pull_towards(
  observation: jax.Array, weight: jax.Array, strength: float, whole_batch: bool = False
) -> Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]:
  """Returns a pull, as `samplers.sample` takes it, towards an observation.

  It is strength times the gradient, with respect to the state x, of the distance
  between x0 and the observation y. The prediction that x0 is read from counts as
  constant, so that no gradient goes through the network: with epsilon, and where
  x0 is not clipped, the gradient is (x0 - y) / (signal |x0 - y|).

  Args:
    observation: y, [B, ...] like x.
    weight: 1 where y is observed, 0 where it is missing; broadcasts against x.
    strength: how far each step is pulled.
    whole_batch: one distance for all examples together, as the program of SynCast
      has it, which then pull each other; otherwise one for each example.

  Source: Chung et al. 2023, "Diffusion Posterior Sampling" (arXiv 2209.14687),
  algorithm 1, without its gradient through the network.
  """
  axes = None if whole_batch else tuple(range(1, observation.ndim))

  def pull(clean, x):
    def distance(x):
      squares = jnp.square(weight * (clean(x) - observation)).sum(axes)
      # The root has no derivative at 0, where nothing is left to pull.
      apart = squares > 0
      return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0).sum()

    return strength * jax.grad(distance)(x)

  return pull
