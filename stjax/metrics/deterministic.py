"""Errors of one forecast against one observation, point by point."""

import jax
import jax.numpy as jnp
import numpy as np

from stjax.metrics.base import Score, Totals, pooled, root_ratio


def deterministic(forecast: jax.Array) -> jax.Array:
  """Returns the mean [B, T, H, W, C] over the members of an ensemble."""
  return forecast.astype(jnp.float32).mean(0)


def sum_points(values: jax.Array) -> jax.Array:
  """Sums [B, T, H, W, C] over samples and space; returns [T, C]."""
  return values.sum((0, 2, 3))


def where_counted(
  weight: jax.Array, values: jax.Array, other: float = 0.0
) -> jax.Array:
  """Replaces values without weight, even NaN, by `other`; returns float32."""
  return jnp.where(weight > 0, values, other).astype(jnp.float32)


def error_totals(
  forecast: jax.Array, observation: jax.Array, weight: jax.Array
) -> Totals:
  """Returns weighted sums [T, C] of the errors over samples and space.

  Args:
    forecast: [B, T, H, W, C] in physical units.
    observation: [B, T, H, W, C] in the same units.
    weight: [B, T, H, W, C], 0 where a point must not count.

  Returns:
    "weight" is the sum of the weights; "squared", "absolute" and "signed" are
    weighted sums of e^2, |e| and e, with e = forecast - observation.
  """
  weight = weight.astype(jnp.float32)
  # In bfloat16, a small difference of large values would be rounding alone.
  error = where_counted(
    weight, forecast.astype(jnp.float32) - observation.astype(jnp.float32)
  )
  return {
    "weight": sum_points(weight),
    "squared": sum_points(weight * error**2),
    "absolute": sum_points(weight * jnp.abs(error)),
    "signed": sum_points(weight * error),
  }


def error_scores(totals: dict[str, np.ndarray]) -> dict[str, Score]:
  """Returns mse, mae, rmse and bias from the totals of `error_totals`.

  Every mean goes over samples and space, and over lead times and variables if
  these are pooled. rmse is the root of the pooled mse. The units are those of
  the variable, squared for mse. A positive bias means that the forecast is too
  high.
  """
  weight = totals["weight"]
  return {
    "mse": pooled(np.divide, totals["squared"], weight),
    "mae": pooled(np.divide, totals["absolute"], weight),
    "rmse": pooled(root_ratio, totals["squared"], weight),
    "bias": pooled(np.divide, totals["signed"], weight),
  }
