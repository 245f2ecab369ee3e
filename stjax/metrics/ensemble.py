"""Scores of ensembles at every point; the members are sorted once.

Everything here runs under jit on the members of one batch. Sums over all pairs
of members come from the order of the members (CRPS) or from a scan over them
(energy score), so that no array has M * M points.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stjax.metrics.deterministic import where_counted


class Ensemble(NamedTuple):
  """An ensemble and its observation in float32; 0 where a point has no weight.

  Attributes:
    members: [M, B, T, H, W, C] in the order in which they were drawn.
    ordered: [M, B, T, H, W, C] in ascending order at every point.
    observation: [B, T, H, W, C].
    weight: [B, T, H, W, C]. It is NaN where a point counts but its observation
      or one of its members is NaN, since ranks and shares would hide that.
  """

  members: jax.Array
  ordered: jax.Array
  observation: jax.Array
  weight: jax.Array


def prepare(forecast: jax.Array, observation: jax.Array, weight: jax.Array) -> Ensemble:
  """Sorts the members, and sets points that do not count to 0.

  Args:
    forecast: [M, B, T, H, W, C] of any float dtype.
    observation: [B, T, H, W, C].
    weight: [B, T, H, W, C], 0 where a point must not count.
  """
  weight = weight.astype(jnp.float32)
  members = where_counted(weight, forecast)
  observation = where_counted(weight, observation)
  ordered = jnp.sort(members, axis=0)  # NaN comes last.
  broken = jnp.isnan(ordered[-1]) | jnp.isnan(observation)
  return Ensemble(members, ordered, observation, jnp.where(broken, jnp.nan, weight))


def quantile(ordered: jax.Array, level: float) -> jax.Array:
  """Returns a quantile [...] of sorted members [M, ...].

  It is linear between the two nearest members (Hyndman and Fan 1996,
  definition 7), which is numpy's default.

  Args:
    ordered: [M, ...] in ascending order.
    level: level of the quantile, between 0 and 1.
  """
  # Without rounding, 0.3 * 10 would come out slightly above member 3.
  position = round(level * (len(ordered) - 1), 9)
  low = int(position)
  share = position - low
  if not share:
    return ordered[low]
  lower, upper = ordered[low], ordered[low + 1]
  # Starting at the nearer member gives exactly the value of equal members.
  if share < 0.5:
    return lower + share * (upper - lower)
  return upper - (1 - share) * (upper - lower)


def central_interval(ordered: jax.Array, percent: float) -> tuple[jax.Array, jax.Array]:
  """Returns the quantiles [...] that cut off equal shares at both ends.

  Args:
    ordered: [M, ...] in ascending order.
    percent: share between them, e.g. 90 for the 5 % and 95 % quantiles.
  """
  tail = (100 - percent) / 200
  return quantile(ordered, tail), quantile(ordered, 1 - tail)


def inside(lower: jax.Array, upper: jax.Array, observation: jax.Array) -> jax.Array:
  """Returns 1 where lower <= observation <= upper, and 0 elsewhere."""
  return ((lower <= observation) & (observation <= upper)).astype(jnp.float32)


def interval_score(
  lower: jax.Array, upper: jax.Array, observation: jax.Array, percent: float
) -> jax.Array:
  """Returns the interval score [...], in the units of the observation.

  It is (u - l) + 2/a (l - y)+ + 2/a (y - u)+ with a = 1 - percent / 100.

  Args:
    lower: lower end l of the interval, [...].
    upper: upper end u of the interval, [...].
    observation: observation y, [...].
    percent: share that the interval is meant to hold.

  Source: Gneiting and Raftery (2007), equation 43,
  doi:10.1198/016214506000001437.
  """
  miss = jnp.maximum(lower - observation, 0) + jnp.maximum(observation - upper, 0)
  return upper - lower + 2 / (1 - percent / 100) * miss


def crps_terms(
  ordered: jax.Array, observation: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the two terms [...] of the CRPS of an ensemble.

  The first is the mean over members of |X - y|. The second is the sum over
  pairs i < j of |X_i - X_j|, which sorted members give as
  sum_i (2 i - M + 1) X_(i). The CRPS is first - second / M^2, and the fair
  CRPS (Ferro 2014, doi:10.1002/qj.2270) is first - second / (M (M - 1)).

  Args:
    ordered: [M, ...] in ascending order.
    observation: [...].
  """
  count = len(ordered)
  factor = jnp.arange(1 - count, count, 2, dtype=jnp.float32)
  # The factors sum to 0, so errors give the same sum as values, but values of
  # 300 K times these factors would lose digits.
  errors = ordered - observation
  factor = factor.reshape(-1, *[1] * observation.ndim)
  return jnp.abs(errors).mean(0), (factor * errors).sum(0)


def gaussian_crps(
  mean: jax.Array, deviation: jax.Array, observation: jax.Array, epsilon: float = 0
) -> jax.Array:
  """Returns the CRPS [...] of normal distributions, in units of the observation.

  With s = deviation + epsilon and z = (mean - observation + epsilon) / s, it is
  s (z (2 P(z) - 1) + 2 p(z) - 1 / sqrt(pi)), where P and p are the standard
  normal distribution and its density.

  Args:
    mean: [...].
    deviation: standard deviation [...].
    observation: [...].
    epsilon: keeps the score finite where the deviation is 0; the score is then
      the absolute error.

  Source: Gneiting et al. 2005, equation 5, doi:10.1175/MWR2904.1.
  """
  s = deviation + epsilon
  z = (mean - observation + epsilon) / s
  normal = jax.scipy.stats.norm
  return s * (z * (2 * normal.cdf(z) - 1) + 2 * normal.pdf(z) - 1 / np.sqrt(np.pi))


def variance(members: jax.Array) -> jax.Array:
  """Returns the unbiased variance [...] over members [M, ...]; 0 for one."""
  deviation = members - members.mean(0)
  return (deviation**2).sum(0) / max(len(members) - 1, 1)


def ranks(members: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the lowest and the highest rank [...] int32 of the observation.

  They are the number of members below it, and the number of members not above
  it. They differ only if members equal the observation.
  """
  return _count(members, lambda x: x < observation, lambda x: x <= observation)


def exceedances(members: jax.Array, threshold: float) -> jax.Array:
  """Returns the number [...] int32 of members [M, ...] above a threshold."""
  return _count(members, lambda x: x > threshold)[0]


def _count(
  members: jax.Array, *tests: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, ...]:
  """Returns the numbers [...] of members [M, ...] that pass each test.

  It scans over the members, since on CPU XLA would keep all terms of the sum
  of a comparison in memory.
  """

  def add(totals, member):
    passed = (test(member) for test in tests)
    return tuple(t + x for t, x in zip(totals, passed, strict=True)), None

  zero = jnp.zeros(members.shape[1:], jnp.int32)
  return lax.scan(add, (zero,) * len(tests), members)[0]


def histogram(
  low: jax.Array, high: jax.Array, weight: jax.Array, bins: int
) -> jax.Array:
  """Counts points [B, T, H, W, C] by bin; returns [T, C, bins].

  A point that belongs to the bins low..high counts an equal part in each of
  them, so that ties need no random numbers.

  Args:
    low: [B, T, H, W, C], first bin of each point, counted from 0.
    high: [B, T, H, W, C], last bin of each point.
    weight: [B, T, H, W, C].
    bins: number of bins.
  """
  part = weight / (high - low + 1)

  def count(number):
    # With a product instead of `where`, a weight of NaN reaches every bin.
    belongs = (low <= number) & (number <= high)
    return (belongs * part).sum((0, 2, 3))

  counts = lax.map(count, jnp.arange(bins, dtype=jnp.int32))
  return jnp.moveaxis(counts, 0, -1)


def energy_terms(
  members: jax.Array, observation: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the two terms [B, T] of the energy score of every frame.

  The first is the mean over members of ||X - y||, and the second the sum over
  pairs i < j of ||X_i - X_j||, with ||d||^2 = sum of w d^2 over the points and
  variables of the frame. The energy score is first - second / M^2 (Gneiting
  and Raftery 2007, equation 22), and the fair one is
  first - second / (M (M - 1)).

  Args:
    members: [M, B, T, H, W, C].
    observation: [B, T, H, W, C].
    weight: [B, T, H, W, C].
  """
  count = len(members)
  axes = (2, 3, 4)
  to_observation = jnp.sqrt(
    (weight * (members - observation) ** 2).sum((3, 4, 5))
  ).mean(0)
  # With the members along the fastest axis, the sums over points run side by
  # side, twelve times faster on CPU than with the members in front.
  errors = jnp.moveaxis(members - observation, 0, -1)
  weight = weight[..., None]

  def add(total, number):
    one = lax.dynamic_slice_in_dim(errors, number, 1, axis=-1)
    squares = (weight * (errors - one) ** 2).sum(axes)
    return total + jnp.sqrt(squares).sum(-1), None

  pairs, _ = lax.scan(add, jnp.zeros_like(to_observation), jnp.arange(count))
  return to_observation, pairs / 2
