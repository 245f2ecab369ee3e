"""Scores of single fields, whose rows are weighted by their area."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stjax.errors import MetricError


def latitude_weights(latitudes: Sequence[float] | np.ndarray) -> np.ndarray:
  """Returns weights of rows [H]: the cosine of the latitude, with the mean 1.

  Args:
    latitudes: [H], degrees.

  Raises:
    MetricError: the latitudes are no angles between the poles.
  """
  cosine = np.cos(np.deg2rad(_checked(latitudes)))
  return (cosine / cosine.mean()).astype(np.float32)


def cell_weights(latitudes: Sequence[float] | np.ndarray) -> np.ndarray:
  """Returns weights of rows [H]: the true area of their cells, with the mean 1.

  The area is sin(upper) - sin(lower), with the bounds of a cell half-way
  between neighbouring rows. An outermost cell ends at the pole if its row is
  at most one spacing from it, and half a spacing beyond its row otherwise. On
  every global grid the weights are those of WeatherBench 2, which ends the
  cells of regions at the poles, too.

  Args:
    latitudes: [H], degrees, at least two and in order from either end.

  Raises:
    MetricError: the latitudes are no angles between the poles, or are in no
      order.

  Source: Rasp et al. 2024, "WeatherBench 2", doi:10.1029/2023MS004019.
  """
  latitudes = _checked(latitudes)
  steps = np.diff(latitudes)
  if not len(steps) or not ((steps > 0).all() or (steps < 0).all()):
    raise MetricError(
      f"latitudes {latitudes.tolist()} do not go one way, row by row, so "
      "their cells have no bounds. Change config.evaluation.area_weights."
    )
  ends = [latitudes[0] - steps[0] / 2, latitudes[-1] + steps[-1] / 2]
  for i, step in ((0, steps[0]), (-1, steps[-1])):
    # The slack is needed because 2 degrees in float32 are not exactly 2 degrees.
    if 90 - abs(latitudes[i]) <= 1.001 * abs(step):
      ends[i] = np.copysign(90, latitudes[i])
  middle = (latitudes[1:] + latitudes[:-1]) / 2
  bounds = np.deg2rad(np.concatenate([ends[:1], middle, ends[1:]]))
  area = np.abs(np.diff(np.sin(bounds)))
  return (area / area.mean()).astype(np.float32)


def _checked(latitudes: Sequence[float] | np.ndarray) -> np.ndarray:
  latitudes = np.asarray(latitudes, np.float64)
  if latitudes.ndim != 1 or not (np.abs(latitudes) <= 90).all():
    raise MetricError(
      f"latitudes are {latitudes.shape}, {latitudes.min():.4g} to "
      f"{latitudes.max():.4g}; expected one a row, -90 to 90 degrees."
    )
  return latitudes


def _rows(weights: jax.Array, mask: jax.Array | None) -> jax.Array:
  weights = jnp.asarray(weights, jnp.float32)[:, None, None]
  return weights if mask is None else jnp.where(mask != 0, weights, 0)


def field_rmse(
  forecast: jax.Array,
  observation: jax.Array,
  weights: jax.Array,
  mask: jax.Array | None = None,
  share_by_area: bool = True,
) -> jax.Array:
  """Returns the root of the weighted mean square error of each field.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C]; it may be NaN where the mask is 0.
    weights: [H] weights of the rows, with the mean 1.
    mask: array that broadcasts to the forecast, 0 where a point must not count;
      None means that all points count.
    share_by_area: whether to divide by the weights of the points that count;
      otherwise by their number, as FourCastNet's program does. Without a mask
      both are the same.

  Returns:
    [..., C] in units of the field; NaN where nothing counts.
  """
  area = jnp.broadcast_to(_rows(weights, mask), forecast.shape)
  counts = jnp.ones(area.shape) if mask is None else mask != 0
  counts = jnp.broadcast_to(counts, area.shape)
  error = jnp.where(counts, forecast - observation, 0)
  total = (area if share_by_area else counts).sum((-3, -2))
  return jnp.sqrt((area * jnp.square(error)).sum((-3, -2)) / total)


def field_acc(
  forecast: jax.Array,
  observation: jax.Array,
  weights: jax.Array,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Returns the anomaly correlation coefficient of each field, not centred.

  It is sum w p t / sqrt(sum w p^2 sum w t^2) over the points of a field.

  Args:
    forecast: [..., H, W, C] anomalies p, the differences from the climatology.
    observation: [..., H, W, C] anomalies t; they may be NaN where the mask is 0.
    weights: [H] weights w of the rows, of any scale.
    mask: array that broadcasts to the forecast, 0 where a point must not count;
      None means that all points count.

  Returns:
    [..., C] from -1 to 1; NaN for a field without anomalies.

  Source: Wilks 2011, "Statistical Methods in the Atmospheric Sciences", 8.6.4.
  """
  area = _rows(weights, mask)
  forecast, observation = (jnp.where(area != 0, x, 0) for x in (forecast, observation))

  def product(a, b):
    return (area * a * b).sum((-3, -2))

  size = product(forecast, forecast) * product(observation, observation)
  return product(forecast, observation) / jnp.sqrt(size)
