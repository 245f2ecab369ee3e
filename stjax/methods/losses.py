"""Relative errors of whole fields, and equal gradients for their variables."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Norms of gradients below this count as this; as MetNet-3's.
SMALLEST_NORM = 1e-5


def relative_l2(
  forecast: jax.Array,
  observation: jax.Array,
  weight: jax.Array | None = None,
  axes: Sequence[int] = (-3, -2),
) -> jax.Array:
  """The size of each field's error over that of the field itself.

  ||p - t|| / ||t|| with Euclidean norms, their squares weighted. Its mean over
  everything that is left is Triton's loss of one step.

  Args:
    forecast: [..., H, W, C].
    observation: of the same shape.
    weight: broadcasts to the forecast; 0 where nothing counts, such as on
      land, whatever is there. None counts all points alike.
    axes: of a norm: (-3, -2), the points of each variable's field, or
      (-3, -2, -1), those of all variables together.

  Returns:
    The shape of the forecast without `axes`; by default [..., C]. 0 for a
    field that is observed to be 0 wherever it counts: it has no size.
  """
  error = forecast - observation
  if weight is not None:
    # Not a product alone: what is missing may be NaN.
    root = jnp.sqrt(weight)
    error, observation = (
      jnp.where(root > 0, root * field, 0) for field in (error, observation)
    )
  size = jnp.sum(jnp.square(observation), tuple(axes))
  ratio = jnp.sum(jnp.square(error), tuple(axes)) / jnp.where(size, size, 1)
  # The root's derivative at 0 is infinite: a perfect field has none.
  counted = (size > 0) & (ratio > 0)
  return jnp.where(counted, jnp.sqrt(jnp.where(counted, ratio, 1)), 0)


@jax.custom_vjp
def equalise_gradients(x: jax.Array) -> jax.Array:
  """Returns x; its variables' gradients get equal norms on the way back.

  With n_c the norm over (H, W) of the gradient of variable c, at least
  `SMALLEST_NORM`, that gradient is multiplied by
  (1 / n_c) / mean_k (1 / n_k). Each sample and frame is by itself.

  Where all norms are below the smallest, nothing changes; those of a mean
  over a large batch may well be.

  Args:
    x: [..., H, W, C].

  Source: after Andrychowicz et al. 2023, "Deep Learning for Day Forecasts from
  Sparse Observations" (MetNet-3).
  """
  return x


def _forward(x):
  return x, None


def _backward(_, gradient):
  wide = gradient.astype(jnp.float32)
  norm = jnp.sqrt(jnp.sum(jnp.square(wide), (-3, -2), keepdims=True))
  weight = 1 / jnp.maximum(norm, SMALLEST_NORM)
  total = jnp.sum(weight, -1, keepdims=True)
  share = weight / jnp.maximum(total, SMALLEST_NORM)
  return ((gradient.shape[-1] * share * wide).astype(gradient.dtype),)


equalise_gradients.defvjp(_forward, _backward)
