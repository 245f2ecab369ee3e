"""Classifier-free guidance."""

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
