"""How strongly each node fluctuates around its regular course."""

import numpy as np

from stjax import errors

_NODES = 4096  # Transformed at a time: bounds the memory.
# Deviations this far below a node's own size are rounding, not fluctuation.
_ROUNDING = 1e-12


def signal_scale(series: np.ndarray, threshold: float = 0.1) -> np.ndarray:
  """Standard deviation of what is left of each node without its main lines.

  With F the Fourier transform over time of a node's series, every bin with
  |F| > threshold * max |F| (mean and trend-like bins included) counts as
  regular; the scale is the deviation over time (of a population) of the rest.
  By Parseval's theorem that is sqrt(sum of |F|^2 over the other bins but the
  mean's) / T, so nothing is transformed back.

  Missing values (NaN) are filled by linear interpolation over time at their
  node, the ends with the nearest value: a node with long gaps gets a smaller
  scale. A node without any value, and a constant one, get exactly 0.

  Args:
    series: [T, ...] one sequence in normalised units, equal steps in time.
    threshold: share of the largest magnitude, 0 to 1.

  Returns:
    [...] float32, in the units of the series.

  Raises:
    ConfigError: for a threshold out of range, or a series that is empty or
      infinite.

  Source: CoST (arXiv 2502.11013), the customised fluctuation scale as in its
  program, which takes the deviation where its figure writes the variance.
  """
  if not 0 <= threshold <= 1:
    raise errors.ConfigError(
      f"The fluctuation scale's threshold={threshold!r}; expected a share of"
      " the largest line, 0 to 1. Change method.scale_threshold."
    )
  series = np.asarray(series)
  if not series.ndim or not len(series):
    raise errors.ConfigError(
      f"The fluctuation scale of a series of shape {series.shape}; expected"
      " [time, ...] with at least one frame. Change data.split."
    )
  nodes = series.reshape(len(series), -1)
  if np.isinf(nodes).any():
    raise errors.ConfigError(
      "The fluctuation scale of a series with infinite values; expected"
      " numbers, or NaN where missing. Change data.missing or"
      " data.transform."
    )
  scale = np.empty(nodes.shape[1], np.float32)
  for first in range(0, nodes.shape[1], _NODES):
    part = slice(first, first + _NODES)
    scale[part] = _scale(_filled(nodes[:, part]), threshold)
  return scale.reshape(series.shape[1:])


def _filled(nodes: np.ndarray) -> np.ndarray:
  """[T, K] float64 without NaN: interpolated over time, 0 where all is."""
  filled = nodes.astype(np.float64)
  missing = np.isnan(filled)
  time = np.arange(len(filled))
  for node in np.flatnonzero(missing.any(axis=0)):
    gap = missing[:, node]
    if gap.all():
      filled[:, node] = 0.0
    else:
      filled[gap, node] = np.interp(time[gap], time[~gap], filled[~gap, node])
  return filled


def _scale(nodes: np.ndarray, threshold: float) -> np.ndarray:
  """[K] deviations of series [T, K] without their lines."""
  length = len(nodes)
  magnitude = np.abs(np.fft.rfft(nodes, axis=0))
  regular = magnitude > threshold * magnitude.max(axis=0)
  power = np.where(regular, 0.0, np.square(magnitude))
  power[0] = 0.0  # The mean is no deviation.
  # Bins of a real transform stand for two, but the mean's and the fastest.
  power[1 : (length + 1) // 2] *= 2
  scale = np.sqrt(power.sum(axis=0)) / length
  return np.where(scale > _ROUNDING * np.abs(nodes).max(axis=0), scale, 0.0)
