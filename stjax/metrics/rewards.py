"""Rewards: what a planner wants of a candidate forecast, of which more is better.

reward = rewards.build({"csi": 1.0, "spectrum": 0.1}, thresholds=(16, 74))
value = reward(candidates, observation, weight, {"spectrum": spectrum})  # [K, B].

They are the scores of `stjax.metrics.scores`, the scores of the released SFP, and
rewards that need no truth, by name or as a weighted sum.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.errors import MetricError
from stjax.metrics import categorical, image, scores, spectral

Constants = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class SfpCsi(scores.Csi):
  """Critical success index as SFP has it: hits / (all but rejections + 1e-7).

  An event is a value above a threshold; one that equals it has none. Without any
  event the index is 0. Several thresholds are averaged.
  """

  _epsilon = 1e-7
  released: bool = dataclasses.field(default=False, init=False, repr=False)

  def _sums(self, candidates, observation, weight):
    weight = self._show_nan(candidates, weight)
    below = tuple(-t for t in self.thresholds)
    # "x > t" is what "-x >= -t" is not, so the four counts change their places.
    table = categorical.contingency(-candidates, -observation, weight, below)
    return categorical.Counts(*reversed(table))._asdict()


@dataclasses.dataclass(frozen=True)
class SfpTke(scores.CandidateScore):
  """Error of the power of all waves as SFP has it, which it calls "tke".

  It is the mean of (|F(candidate)|^2 - |F(observation)|^2)^2 over waves, frames
  and variables, with the Fourier transform F as a plain sum over the points. It
  grows with the grid, and the mean of a field outweighs everything else in it.
  Points that do not count are 0 in both fields.
  """

  better = scores.LOWER

  def _sums(self, candidates, observation, weight):
    f, o = (
      jnp.square(jnp.abs(jnp.fft.fft2(x, axes=(-3, -2))))
      for x in (candidates, observation)
    )
    error = jnp.square(f - o).mean((-3, -2))
    return {"error": error, "frames": jnp.ones_like(error)}

  def value(self, sums, per_frame):
    axes = (3,) if per_frame else (2, 3)
    value = sums["error"].sum(axes) / sums["frames"].sum(axes)
    return value, jnp.isfinite(value)


@dataclasses.dataclass(frozen=True)
class SfpSsim(scores.Ssim):
  """Structural similarity as SFP has it, from means over 3x3 points.

  See `image.zero_padded_windows`. Points that do not count are 0 in both fields.

  Attributes:
    data_range: range in physical units; see `scores.Ssim`.
  """

  data_range: image.DataRange = 1.0

  def _windows(self, candidates, observation, weight):
    return image.zero_padded_windows(candidates, observation)


@dataclasses.dataclass(frozen=True)
class Unobserved:
  """A reward that needs no truth.

  Attributes:
    constants: names of the arrays it needs.
  """

  constants: ClassVar[tuple[str, ...]] = ()

  def __call__(
    self, candidates: jax.Array, weight: jax.Array, constants: Constants
  ) -> jax.Array:
    """Returns the reward [K, B], of which higher is better.

    Args:
      candidates: [K, B, T, H, W, C] in physical units.
      weight: array that broadcasts with them, 0 where a point must not count.
      constants: the arrays by name.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Spectrum(Unobserved):
  """Minus the error of the amplitudes by wavenumber against the climatology's.

  With a_k the root of a candidate's power of wavenumber k (`spectral.shells`, the
  mean over its frames) and c_k that of the training frames, it is
  -sqrt(sum (a_k - c_k)^2 / sum c_k^2) over the wavenumbers from 1 on, and the mean
  over variables. It has no units.
  """

  constants = ("spectrum",)

  def __call__(self, candidates, weight, constants):
    wanted = jnp.asarray(constants["spectrum"], jnp.float32)
    *_, height, width, channels = candidates.shape
    shape = max(height, width) // 2 + 1, channels
    if wanted.shape != shape:
      raise MetricError(
        f"The climatological spectrum is {wanted.shape}; candidates"
        f" {candidates.shape} need {shape} (wavenumbers, variables)."
      )
    waves = spectral.waves(candidates, weight > 0)
    power = spectral.shells(jnp.square(jnp.abs(waves))).mean(2)  # [K, B, C, shells].
    wanted = wanted.T
    error = jnp.square(jnp.sqrt(power) - wanted)[..., 1:].sum(-1)
    return -jnp.sqrt(error / jnp.square(wanted)[:, 1:].sum(-1)).mean(-1)


@dataclasses.dataclass(frozen=True)
class Agreement(Unobserved):
  """Minus the mean square distance to the mean of the candidates.

  It is in squared units of the variable. A candidate with NaN at a point that
  counts has no value, and is left out of the mean.
  """

  def __call__(self, candidates, weight, constants):
    weight = jnp.broadcast_to(weight, candidates.shape)
    fields = scores.where_counted(weight, candidates)
    known = jnp.isfinite(fields).all((2, 3, 4, 5), keepdims=True)
    mean = jnp.where(known, fields, 0).sum(0) / jnp.maximum(known.sum(0), 1)
    axes = (2, 3, 4, 5)
    total = (weight * jnp.square(fields - mean)).sum(axes)
    return -total / weight.sum(axes)


REWARDS: dict[str, type] = {
  **scores.SCORES,
  "sfp_csi": SfpCsi,
  "sfp_tke": SfpTke,
  "sfp_ssim": SfpSsim,
  "spectrum": Spectrum,
  "agreement": Agreement,
}


@dataclasses.dataclass(frozen=True)
class Reward:
  """A weighted sum of rewards; a pure function of arrays, fit for `jax.jit`.

  Scores of which lower is better count with a negative sign. The values are
  neither scaled nor ranked before, so a weight has the inverse units of its
  reward.

  Attributes:
    parts: the scores and rewards.
    weights: a positive weight for each of them.
  """

  parts: tuple[scores.CandidateScore | Unobserved, ...]
  weights: tuple[float, ...]

  @property
  def needs_observation(self) -> bool:
    """Whether the truth must be known."""
    return any(isinstance(part, scores.CandidateScore) for part in self.parts)

  @property
  def constants(self) -> tuple[str, ...]:
    """Names of the arrays that it needs beside the fields."""
    names = (part.constants for part in self.parts if isinstance(part, Unobserved))
    return tuple(sorted({name for own in names for name in own}))

  def __call__(
    self,
    candidates: jax.Array,
    observation: jax.Array | None = None,
    weight: jax.Array | None = None,
    climatology: Constants | None = None,
  ) -> jax.Array:
    """Returns the reward [K, B] of every candidate, of which higher is better.

    Args:
      candidates: [K, B, T, H, W, C] in physical units.
      observation: [B, T, H, W, C] in the same units; None if it is not needed.
      weight: [B, T, H, W, 1] or [B, T, H, W, C], 0 where a point must not count;
        None counts all. Scores also leave out points whose observation is NaN.
      climatology: the arrays of `constants` by name.

    Returns:
      Float32; NaN where a candidate has no value by one of the parts, or may not
      be chosen by it (`scores.CandidateScore`).

    Raises:
      MetricError: the shapes do not fit, or something is missing.
    """
    if candidates.ndim != 6:
      raise MetricError(
        f"Candidates must be [K, B, T, H, W, C]; they are {candidates.shape}."
      )
    if observation is None and self.needs_observation:
      raise MetricError("This reward compares with an observation; there is none.")
    if missing := set(self.constants) - set(climatology or ()):
      raise MetricError(f"This reward needs the arrays {sorted(missing)}.")
    total = jnp.zeros(candidates.shape[:2], jnp.float32)
    for part, share in zip(self.parts, self.weights, strict=True):
      if isinstance(part, Unobserved):
        ones = jnp.ones(candidates.shape[1:], jnp.float32)
        value = part(candidates, ones if weight is None else weight, climatology)
      else:
        value, eligible = part(candidates, observation, weight)
        value = value if part.better == scores.HIGHER else -value
        value = jnp.where(eligible, value, jnp.nan)
      total += share * value
    return total


def build(
  weights: Mapping[str, float] | str,
  *,
  thresholds: Sequence[float] = (),
  options: Mapping[str, Mapping] | None = None,
) -> Reward:
  """Builds a reward.

  Args:
    weights: a positive weight for each name out of `REWARDS`, or one name.
    thresholds: thresholds in physical units, of the scores of events.
    options: further options by name; see `scores.build`, and data_range
      (sfp_ssim).

  Raises:
    ConfigError: a name or an option is unknown, or a weight is not positive and
      finite.
    MetricError: thresholds are missing, or an option is impossible.
  """
  weights = {weights: 1.0} if isinstance(weights, str) else dict(weights)
  options = dict(options or {})
  if not weights:
    raise errors.ConfigError(f"There is no reward: {errors.near('', REWARDS)}.")
  scores.check_weights(weights)
  for name in weights:
    errors.pick("reward", name, REWARDS)
  errors.check_options("reward options", options, weights)
  parts = (
    scores.build(name, thresholds, REWARDS, **options.get(name, {})) for name in weights
  )
  return Reward(tuple(parts), tuple(map(float, weights.values())))


def check_thresholds(
  thresholds: Sequence[float],
  lowest: float,
  highest: float,
  key: str = "config.method.thresholds",
) -> None:
  """Refuses thresholds that all values of the data reach, or none.

  Args:
    thresholds: thresholds in physical units.
    lowest: least value of the data, in the same units.
    highest: largest value.
    key: the config key to change, for the message.

  Raises:
    ConfigError: there is such a threshold, as where it is given in other units.
  """
  if outside := [t for t in thresholds if not lowest < t <= highest]:
    raise errors.ConfigError(
      f"{key}: at the thresholds {outside} either all values are events or none is,"
      f" since the data go from {lowest:g} to {highest:g} in physical units."
    )


def climatological_spectrum(
  batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
) -> np.ndarray:
  """Returns the amplitudes by wavenumber of many frames.

  Args:
    batches: pairs of fields [B, T, H, W, C] in physical units and of weights that
      broadcast with them, 0 where a point must not count; None counts all. Points
      that are NaN never count.

  Returns:
    [shells, C] float32 in units of the variables: the root of the mean power of
    each wavenumber (`spectral.shells`). Frames without any point are left out.

  Raises:
    MetricError: there is no frame, or the frames are too small.
  """
  total = None
  for fields, weight in batches:
    power, frames = (np.asarray(x, np.float64) for x in _power(fields, weight))
    total = [power, frames] if total is None else [total[0] + power, total[1] + frames]
  if total is None or not total[1].all():
    raise MetricError("A climatological spectrum needs a frame of every variable.")
  return np.sqrt(total[0] / total[1][:, None]).T.astype(np.float32)


@jax.jit
def _power(fields, weight):
  """Returns sums over frames of the power [C, shells], and their number [C]."""
  counted = ~jnp.isnan(fields)
  if weight is not None:
    counted &= weight > 0
  waves = spectral.waves(fields, counted)
  power = spectral.shells(jnp.square(jnp.abs(waves))).sum((0, 1))
  return power, counted.any((2, 3)).sum((0, 1))
