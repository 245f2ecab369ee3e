"""Scores of frames that are seen as pictures: SSIM, PSNR and SNR."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stjax.errors import MetricError
from stjax.metrics.deterministic import where_counted

WINDOW = 7  # Side of the window in pixels, the default of scikit-image.
_K1, _K2 = 0.01, 0.03
# The Gaussian window of Wang et al. (2004).
_GAUSSIAN = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
GAUSSIAN_EDGE = len(_GAUSSIAN) // 2

DataRange = float | Sequence[float] | str
FRAME = "frame"


def _box_sum(x: jax.Array, size: int = WINDOW) -> jax.Array:
  """Sums over every size x size window inside [..., H, W, C].

  It sums over one axis after the other, which takes 2 * size additions a window
  and not size^2.
  """
  for axis in (-3, -2):
    window = [1] * x.ndim
    window[axis] = size
    x = lax.reduce_window(
      x, jnp.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, "VALID"
    )
  return x


def _gaussian_mean(x: jax.Array) -> jax.Array:
  """Returns Gaussian means [..., H, W, C], with frames mirrored at their edges."""
  weights = _GAUSSIAN / _GAUSSIAN.sum()
  for axis in (-3, -2):
    # As a matrix [new points, points], it is compiled far faster than as a sum.
    size = x.shape[axis]
    mirrored = np.pad(np.eye(size), ((GAUSSIAN_EDGE,) * 2, (0, 0)), mode="reflect")
    matrix = sum(w * mirrored[i : i + size] for i, w in enumerate(weights))
    x = jnp.tensordot(x, matrix, (axis, 1), precision=lax.Precision.HIGHEST)
    x = jnp.moveaxis(x, -1, axis)
  return x


def frame_range(
  forecast: jax.Array, observation: jax.Array, weight: jax.Array
) -> jax.Array:
  """Returns the range [..., 1, 1, C] of every observed frame.

  A constant frame has no range. There the range of forecast and observation
  together is taken, or 1 if that is 0 as well, so that no score divides by 0.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C]; points of weight 0 do not count.
  """

  def span(low, high):
    low = where_counted(weight, low, jnp.inf).min((-3, -2), keepdims=True)
    high = where_counted(weight, high, -jnp.inf).max((-3, -2), keepdims=True)
    # Where no point counts, high - low is -inf.
    return jnp.maximum(high - low, 0.0)

  own = span(observation, observation)
  joint = span(jnp.minimum(forecast, observation), jnp.maximum(forecast, observation))
  joint = jnp.where(joint > 0, joint, 1.0)
  return jnp.where(own > 0, own, joint)


def resolve_range(
  data_range: DataRange, forecast: jax.Array, observation: jax.Array, weight: jax.Array
) -> jax.Array:
  """Returns the data range, to be broadcast with [..., H, W, C].

  Args:
    data_range: one number, one number for each variable, or "frame" for the
      range of every observed frame (`frame_range`). Of several numbers, one may be
      NaN: that of a variable whose scores are to be NaN.
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C].

  Raises:
    MetricError: the range is unknown, not positive, or has the wrong number of
      variables.
  """
  if isinstance(data_range, str):
    if data_range != FRAME:
      raise MetricError(
        f"data_range={data_range!r} must be a positive number, one number for "
        f"each variable, or {FRAME!r}. Change config.evaluation.data_range."
      )
    return frame_range(forecast, observation, weight)
  values = np.atleast_1d(np.asarray(data_range, np.float32))
  channels = observation.shape[-1]
  good = (values > 0) | (np.isnan(values) & (np.ndim(data_range) > 0))
  if values.shape not in ((1,), (channels,)) or not good.all():
    raise MetricError(
      f"data_range={data_range!r} must be one positive number, or one for "
      f"each of the {channels} variables. Change "
      "config.evaluation.data_range."
    )
  return jnp.asarray(values)


class Windows(NamedTuple):
  """Statistics of every window of a frame, as `windows` describes them.

  x is the forecast and y the observation. `whole` is 1 where no point of a
  window is missing.
  """

  mean_x: jax.Array
  mean_y: jax.Array
  var_x: jax.Array
  var_y: jax.Array
  cov: jax.Array
  whole: jax.Array


def windows(
  forecast: jax.Array, observation: jax.Array, weight: jax.Array, gaussian: bool = False
) -> Windows:
  """Returns the statistics of every window of [..., H, W, C].

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C], of which only matters whether it is 0.
    gaussian: whether the windows have 11x11 points, weighted by a Gaussian of
      1.5 points around every point of the frame, which is mirrored at its
      edges; statistics are then [..., H, W, C], with variances of a population.
      Otherwise the windows are the 7x7 ones inside the frame; statistics are
      [..., H-6, W-6, C], with variances of a sample (times 49/48).

  Raises:
    MetricError: a frame is smaller than the window (6 points if Gaussian).
  """
  least = GAUSSIAN_EDGE + 1 if gaussian else WINDOW
  if min(observation.shape[-3:-1]) < least:
    raise MetricError(
      f"SSIM needs frames of at least {least}x{least} points; got "
      f"{observation.shape[-3]}x{observation.shape[-2]}."
    )
  x = where_counted(weight, forecast)
  y = where_counted(weight, observation)
  # E[x^2] - E[x]^2 loses the digits of a variance if the values are far from 0,
  # such as air temperatures of 300 +- 10 K, so the level of each frame is taken
  # out first.
  counted = (weight > 0).astype(jnp.float32)
  total = jnp.maximum(counted.sum((-3, -2), keepdims=True), 1.0)
  level_x = x.sum((-3, -2), keepdims=True) / total
  level_y = y.sum((-3, -2), keepdims=True) / total
  x, y = x - level_x, y - level_y

  points = WINDOW**2
  stacked = jnp.stack([x, y, x * x, y * y, x * y, 1.0 - counted])
  if gaussian:
    means, sample = _gaussian_mean(stacked), 1.0
  else:
    means, sample = _box_sum(stacked) / points, points / (points - 1)
  mean_x, mean_y, xx, yy, xy, missing = means
  return Windows(
    mean_x=mean_x + level_x,
    mean_y=mean_y + level_y,
    var_x=sample * (xx - mean_x**2),
    var_y=sample * (yy - mean_y**2),
    cov=sample * (xy - mean_x * mean_y),
    # The least weight in a Gaussian window is 1e-6, and in the other one 1 / 49.
    whole=(missing < 5e-7).astype(jnp.float32),
  )


def zero_padded_windows(forecast: jax.Array, observation: jax.Array) -> Windows:
  """Returns the statistics of the 3x3 windows around all points, as SFP has them.

  Beyond its edges a frame is 0, and these zeros count in the means; variances
  are those of a population.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].

  Returns:
    Statistics [..., H, W, C].
  """
  x, y = forecast, observation
  stacked = jnp.stack([x, y, x * x, y * y, x * y])
  edges = [(0, 0)] * (stacked.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
  mean_x, mean_y, xx, yy, xy = _box_sum(jnp.pad(stacked, edges), 3) / 9
  return Windows(
    mean_x=mean_x,
    mean_y=mean_y,
    var_x=xx - mean_x**2,
    var_y=yy - mean_y**2,
    cov=xy - mean_x * mean_y,
    whole=jnp.ones_like(mean_x),
  )


def similarity(stats: Windows, span: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the SSIM [..., C] of every frame, and its count, as `ssim` does.

  Args:
    stats: statistics of the windows of the frames.
    span: data range, which broadcasts with [..., H, W, C].
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
  """Returns the structural similarity of every frame and variable.

  It is what scikit-image computes by default, with a uniform 7x7 window,
  K1 = 0.01, K2 = 0.03, the sample covariance (49/48), and the mean over the
  windows that lie inside the frame. A window that holds a point of weight 0 is
  left out.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C], of which only matters whether it is 0.
    data_range: see `resolve_range`.

  Returns:
    Scores [..., C] of at most 1, and counts [..., C]. A count is 1 if the frame
    has at least one whole window; otherwise count and score are 0.

  Raises:
    MetricError: a frame is smaller than the window, or the range is impossible.

  Source: Wang et al. (2004), doi:10.1109/TIP.2003.819861.
  """
  span = resolve_range(data_range, forecast, observation, weight)
  return similarity(windows(forecast, observation, weight), span)


def frame_errors(
  forecast: jax.Array, observation: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the mean square error and signal of every frame.

  The means go over space and variables.

  Args:
    forecast: [..., H, W, C].
    observation: [..., H, W, C].
    weight: [..., H, W, C].

  Returns:
    Means [...] of (forecast - observation)^2 and of observation^2, and counts
    [...], which are 1 where a frame has any weight and 0 elsewhere.
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
  """Returns the peak signal-to-noise ratio of every frame in dB.

  It is 20 log10(data_range / sqrt(mean_square)); a frame without error has inf,
  and one whose `count` is 0 has 0.
  """
  return jnp.where(count > 0, decibel(data_range**2 / mean_square), 0.0)


def frame_snr(mean_square: jax.Array, signal: jax.Array, count: jax.Array) -> jax.Array:
  """Returns the signal-to-noise ratio of every frame in dB.

  It is 10 log10(signal / error): inf where there is no error, -inf where the
  observation is 0 everywhere, and 0 where both are 0 or `count` is 0.
  """
  usable = (count > 0) & ((signal > 0) | (mean_square > 0))
  return jnp.where(usable, decibel(signal / mean_square), 0.0)
