"""Scores of frames as pictures: SSIM and PSNR."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stjax.errors import MetricError
from stjax.metrics.deterministic import where_counted

WINDOW = 7  # Pixels; scikit-image's default.
_K1, _K2 = 0.01, 0.03

DataRange = float | Sequence[float] | str
FRAME = "frame"


def _box_sum(x: jax.Array, size: int = WINDOW) -> jax.Array:
  """Sums over every size x size window inside [..., H, W, C].

  One axis after the other: 2 * size additions a window instead of size^2.
  """
  for axis in (-3, -2):
    window = [1] * x.ndim
    window[axis] = size
    x = lax.reduce_window(
      x, jnp.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, "VALID"
    )
  return x


def frame_range(
  forecast: jax.Array, observation: jax.Array, weight: jax.Array
) -> jax.Array:
  """Returns the range [..., 1, 1, C] of every observed frame.

  A constant frame has no range of its own: there the range of forecast and
  observation together is taken, and 1 where that is 0 as well, so that no
  score divides by zero.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C]; points of weight 0 do not count.
  """

  def span(low, high):
    low = where_counted(weight, low, jnp.inf).min((-3, -2), keepdims=True)
    high = where_counted(weight, high, -jnp.inf).max((-3, -2), keepdims=True)
    return jnp.maximum(high - low, 0.0)  # -inf where nothing counts.

  own = span(observation, observation)
  joint = span(jnp.minimum(forecast, observation), jnp.maximum(forecast, observation))
  joint = jnp.where(joint > 0, joint, 1.0)
  return jnp.where(own > 0, own, joint)


def resolve_range(
  data_range: DataRange, forecast: jax.Array, observation: jax.Array, weight: jax.Array
) -> jax.Array:
  """Returns the data range, to be broadcast with [..., H, W, C].

  Args:
    data_range: a number, one number a variable, or "frame": the range of
      every observed frame (`frame_range`).
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C].

  Raises:
    MetricError: if the range is unknown, not positive or has the wrong
      number of variables.
  """
  if isinstance(data_range, str):
    if data_range != FRAME:
      raise MetricError(
        f"data_range={data_range!r} must be a positive number, one number a "
        f"variable, or {FRAME!r}. Change config.evaluation.data_range."
      )
    return frame_range(forecast, observation, weight)
  values = np.atleast_1d(np.asarray(data_range, np.float32))
  channels = observation.shape[-1]
  # "not (values > 0)" also refuses NaN.
  if values.shape not in ((1,), (channels,)) or not (values > 0).all():
    raise MetricError(
      f"data_range={data_range!r} must be one positive number, or one for "
      f"each of the {channels} variables. Change "
      "config.evaluation.data_range."
    )
  return jnp.asarray(values)


class Windows(NamedTuple):
  """Statistics of every 7x7 window inside a frame; [..., H-6, W-6, C].

  x is the forecast, y the observation; variances and covariance are those of
  a sample (x 49/48). `whole` is 1 where no point of the window is missing.
  """

  mean_x: jax.Array
  mean_y: jax.Array
  var_x: jax.Array
  var_y: jax.Array
  cov: jax.Array
  whole: jax.Array


def windows(forecast: jax.Array, observation: jax.Array, weight: jax.Array) -> Windows:
  """Returns the statistics of every window of [..., H, W, C].

  Raises:
    MetricError: if a frame is smaller than the window.
  """
  if min(observation.shape[-3:-1]) < WINDOW:
    raise MetricError(
      f"SSIM needs frames of at least {WINDOW}x{WINDOW} points; got "
      f"{observation.shape[-3]}x{observation.shape[-2]}."
    )
  x = where_counted(weight, forecast)
  y = where_counted(weight, observation)
  # Variances from E[x^2] - E[x]^2 keep their digits only near zero (air
  # temperature is 300 +- 10 K): take each frame's own level out first.
  counted = (weight > 0).astype(jnp.float32)
  total = jnp.maximum(counted.sum((-3, -2), keepdims=True), 1.0)
  level_x = x.sum((-3, -2), keepdims=True) / total
  level_y = y.sum((-3, -2), keepdims=True) / total
  x, y = x - level_x, y - level_y

  points = WINDOW**2
  stacked = jnp.stack([x, y, x * x, y * y, x * y, 1.0 - counted])
  mean_x, mean_y, xx, yy, xy, missing = _box_sum(stacked) / points
  sample = points / (points - 1)
  return Windows(
    mean_x=mean_x + level_x,
    mean_y=mean_y + level_y,
    var_x=sample * (xx - mean_x**2),
    var_y=sample * (yy - mean_y**2),
    cov=sample * (xy - mean_x * mean_y),
    whole=(missing * points < 0.5).astype(jnp.float32),
  )


def similarity(stats: Windows, span: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the SSIM [..., C] of every frame, and its count, as `ssim` does.

  Args:
    stats: the windows of the frames.
    span: data range, to be broadcast with [..., H, W, C].
  """
  c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
  scores = (
    (2 * stats.mean_x * stats.mean_y + c1)
    * (2 * stats.cov + c2)
    / ((stats.mean_x**2 + stats.mean_y**2 + c1) * (stats.var_x + stats.var_y + c2))
  )
  number = stats.whole.sum((-3, -2))
  mean = (stats.whole * scores).sum((-3, -2)) / jnp.maximum(number, 1.0)
  return mean, (number > 0).astype(jnp.float32)


def ssim(
  forecast: jax.Array,
  observation: jax.Array,
  weight: jax.Array,
  *,
  data_range: DataRange = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Structural similarity of every frame and variable.

  Wang et al. (2004), doi:10.1109/TIP.2003.819861, as scikit-image computes it
  by default: uniform 7x7 window, K1 = 0.01, K2 = 0.03, sample covariance
  (49/48), and the mean over the windows that lie inside the frame (a border
  of 3 pixels has none). A window that holds a point of weight 0 is left out.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C]; only whether it is 0 matters.
    data_range: see `resolve_range`.

  Returns:
    Scores [..., C], at most 1, and counts [..., C]: 1 where a frame has at
    least one whole window, else 0 (the score is 0 there, too).

  Raises:
    MetricError: if a frame is smaller than the window, or the range is
      impossible.
  """
  span = resolve_range(data_range, forecast, observation, weight)
  return similarity(windows(forecast, observation, weight), span)


def frame_errors(
  forecast: jax.Array, observation: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mean square error and signal of every frame, over space and variables.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C].

  Returns:
    Means [...] of (forecast - observation)^2 and of observation^2, and counts
    [...]: 1 where a frame has any weight, else 0.
  """
  weight = weight.astype(jnp.float32)
  y = where_counted(weight, observation)
  error = where_counted(weight, forecast) - y
  axes = (-3, -2, -1)
  total = weight.sum(axes)
  safe = jnp.where(total > 0, total, 1.0)
  return (
    (weight * error**2).sum(axes) / safe,
    (weight * y**2).sum(axes) / safe,
    (total > 0).astype(jnp.float32),
  )


def decibel(ratio: jax.Array) -> jax.Array:
  """Returns 10 log10(ratio)."""
  return 10.0 * jnp.log10(ratio)


def frame_psnr(
  mean_square: jax.Array, count: jax.Array, data_range: float = 1.0
) -> jax.Array:
  """Peak signal-to-noise ratio of every frame in dB; inf where error-free.

  20 log10(data_range / sqrt(mean_square)); 0 where `count` is 0.
  """
  return jnp.where(count > 0, decibel(data_range**2 / mean_square), 0.0)


def frame_snr(mean_square: jax.Array, signal: jax.Array, count: jax.Array) -> jax.Array:
  """Signal-to-noise ratio of every frame in dB: 10 log10(signal / error).

  inf where error-free, -inf where the observation is 0 everywhere, 0 where
  both are 0 or `count` is 0.
  """
  usable = (count > 0) & ((signal > 0) | (mean_square > 0))
  return jnp.where(usable, decibel(signal / mean_square), 0.0)
