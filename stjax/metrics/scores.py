"""Scores by which the candidate forecasts of each window are ranked.

score = scores.build("csi", thresholds=(16, 74, 133))
value, eligible = jax.jit(score)(candidates, observation)  # [N, B] each.

They are made of the same sums as the scores of the verification, but the sums
are neither added over the samples nor over the candidates.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.errors import MetricError
from stjax.metrics import categorical, image, spectral
from stjax.metrics.deterministic import where_counted

LOWER, HIGHER = "lower", "higher"
# What the original programs add to the denominators of their ratios.
RELEASED_EPSILON = 1e-4

Sums = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class CandidateScore:
  """A score of single forecasts; a pure function of arrays, fit for `jax.jit`.

  Attributes:
    better: "lower" or "higher", whichever is better.
  """

  better: ClassVar[str]

  def __call__(
    self,
    candidates: jax.Array,
    observation: jax.Array,
    weight: jax.Array | None = None,
    per_frame: bool = False,
  ) -> tuple[jax.Array, jax.Array]:
    """Scores every candidate of every window.

    Args:
      candidates: [N, B, T, H, W, C] in physical units.
      observation: [B, T, H, W, C] in the same units.
      weight: [B, T, H, W, 1] or [B, T, H, W, C], 0 where a point must not
        count; None counts all. Points whose observation is NaN never count.
      per_frame: whether every frame is scored by itself.

    Returns:
      The value and whether a candidate may be chosen, both [N, B], or
      [N, B, T] if `per_frame`. A candidate with NaN at a point that counts has
      the value NaN. Whoever has the value NaN may not be chosen.

    Raises:
      MetricError: the shapes do not fit.
    """
    return self.value(self.sums(candidates, observation, weight), per_frame)

  def sums(
    self, candidates: jax.Array, observation: jax.Array, weight: jax.Array | None = None
  ) -> Sums:
    """Returns sums over rows and columns; see `__call__` for the arguments.

    They are [N, B, T, C, ...], or [1, B, T, C, ...] if all candidates have the
    same. `value` also takes such sums that were added over B.
    """
    if candidates.ndim != 6 or candidates.shape[1:] != observation.shape:
      raise MetricError(
        f"Candidates {candidates.shape} must be [N, B, T, H, W, C] and the"
        f" observation [B, T, H, W, C]; it is {observation.shape}."
      )
    observation = observation.astype(jnp.float32)
    if weight is None:
      weight = jnp.ones((), jnp.float32)
    weight = jnp.where(jnp.isnan(observation), 0, weight).astype(jnp.float32)
    weight, observation = weight[None], where_counted(weight, observation)[None]
    return self._sums(where_counted(weight, candidates), observation, weight)

  def value(self, sums: Sums, per_frame: bool) -> tuple[jax.Array, jax.Array]:
    """Returns value and eligibility from the sums; see `__call__`."""
    raise NotImplementedError

  def _sums(self, candidates, observation, weight) -> Sums:
    """Returns the sums; the observation and the weight are [1, B, T, H, W, C]."""
    raise NotImplementedError


def _pooled(sums: Sums, per_frame: bool) -> Sums:
  """Adds sums [N, B, T, C, ...] over variables, and over frames if asked."""
  axes = (3,) if per_frame else (2, 3)
  return {name: x.sum(axes) for name, x in sums.items()}


@dataclasses.dataclass(frozen=True)
class _OfEvents(CandidateScore):
  """A score of the events "value >= threshold", as a mean over thresholds.

  Attributes:
    thresholds: thresholds in physical units.
    released: whether to follow the original program (SynCast): it adds 1e-4 to
      denominators, takes NaN for no event, and leaves out no threshold and no
      candidate.
  """

  thresholds: tuple[float, ...] = ()
  released: bool = False

  def __post_init__(self):
    object.__setattr__(self, "thresholds", categorical.checked(self.thresholds))

  @property
  def _epsilon(self) -> float:
    return RELEASED_EPSILON if self.released else 0.0

  def _show_nan(self, candidates, weight):
    """Gives NaN the weight NaN, since comparisons would hide it."""
    if self.released:
      return weight
    return jnp.where(jnp.isnan(candidates) & (weight != 0), jnp.nan, weight)


@dataclasses.dataclass(frozen=True)
class _Ratio(_OfEvents):
  """A ratio of hits, false alarms, misses and correct rejections.

  A threshold at which the ratio is 0 / 0 is left out of the mean.
  """

  ratio: ClassVar[str]

  def _sums(self, candidates, observation, weight):
    weight = self._show_nan(candidates, weight)
    table = categorical.contingency(candidates, observation, weight, self.thresholds)
    return table._asdict()

  def value(self, sums, per_frame):
    table = categorical.Counts(**_pooled(sums, per_frame))
    values = categorical.RATIOS[self.ratio](*table, epsilon=self._epsilon)
    value = categorical.average(values)
    eligible = jnp.isfinite(value)
    if not self.released:
      eligible &= self._allowed(table)
    return value, eligible

  def _allowed(self, table: categorical.Counts) -> jax.Array:
    return jnp.ones(table.hits.shape[:-1], bool)


class Csi(_Ratio):
  """Critical success index."""

  ratio, better = "csi", HIGHER


class Pod(_Ratio):
  """Probability of detection."""

  ratio, better = "pod", HIGHER


class Hss(_Ratio):
  """Heidke skill score."""

  ratio, better = "hss", HIGHER


class Far(_Ratio):
  """False alarm ratio.

  A forecast without any event has no false alarm, but no merit either. So a
  candidate that forecasts no event at a threshold at which one was observed may
  not be chosen. It keeps the mean over the other thresholds as its value, by
  which it may be rejected.
  """

  ratio, better = "far", LOWER

  def _allowed(self, table):
    silent = (table.hits + table.false_alarms == 0) & (table.misses > 0)
    return ~silent.any(-1)


@dataclasses.dataclass(frozen=True)
class PooledCsi(Csi):
  """Critical success index of fields made coarser by `categorical.blocks`.

  Attributes:
    scale: side of a block, in points.
    pooling: "average" or "max" of its points.
  """

  scale: int = 4
  pooling: str = "average"

  def __post_init__(self):
    super().__post_init__()
    categorical.check_scale(self.scale)
    errors.pick("pooling", self.pooling, categorical.POOLINGS)

  def _sums(self, candidates, observation, weight):
    weight = self._show_nan(candidates, weight)
    table = categorical.pooled_contingency(
      candidates, observation, weight, self.thresholds, self.scale, self.pooling
    )
    return table._asdict()


@dataclasses.dataclass(frozen=True)
class Fss(_OfEvents):
  """Fractions skill score of blocks of `scale` x `scale` points.

  A threshold without any event is left out of the mean. As released, every
  frame has a score of its own, and that of a sequence is their mean.

  Attributes:
    scale: side of a block, in points.
  """

  better = HIGHER
  scale: int = 4

  def __post_init__(self):
    super().__post_init__()
    categorical.check_scale(self.scale)

  def _sums(self, candidates, observation, weight):
    weight = self._show_nan(candidates, weight)
    products, squares = categorical.fractions(
      candidates, observation, weight, self.thresholds, self.scale
    )
    return {"products": products, "squares": squares}

  def value(self, sums, per_frame):
    sums = _pooled(sums, per_frame or self.released)
    # The original counts points, of which a block has `scale` squared.
    epsilon = self._epsilon / self.scale**4
    value = categorical.average(
      categorical.fss(sums["products"], sums["squares"], epsilon)
    )
    if self.released and not per_frame:
      value = value.mean(-1)
    return value, jnp.isfinite(value)


@dataclasses.dataclass(frozen=True)
class SpectralError(CandidateScore):
  """Error of the amplitudes of waves, whatever their phases are.

  It is sqrt(sum (|f_a| - |o_a|)^2 / sum |o_a|^2) over the waves of a band, as
  the score amplitude_error_<band> of the convention "spectral", and the mean
  over variables. It has no units.

  Attributes:
    band: "low", "mid", "high", or "all" wavenumbers from 1 on.
  """

  better = LOWER
  band: str = "all"

  def __post_init__(self):
    errors.pick("band", self.band, ("all", *spectral.BANDS))

  def _sums(self, candidates, observation, weight):
    f, o = (spectral.waves(x, weight > 0) for x in (candidates, observation))
    return {
      "amplitude": spectral.shells(jnp.square(jnp.abs(f) - jnp.abs(o))),
      "observation": spectral.shells(jnp.square(jnp.abs(o))),
    }

  def value(self, sums, per_frame):
    bands = spectral.bands(sums["observation"].shape[-1])
    band = bands.get(self.band, slice(1, None))
    error, power = (
      sums[name][..., band].sum((-1,) if per_frame else (-1, 2))
      for name in ("amplitude", "observation")
    )
    value = jnp.sqrt(error / power).mean(-1)
    return value, jnp.isfinite(value)


@dataclasses.dataclass(frozen=True)
class _Mean(CandidateScore):
  """A mean over points and variables, and over frames if asked."""

  better = LOWER

  def _errors(self, candidates, observation) -> jax.Array:
    """Returns the errors [N, B, T, H, W, C]."""
    raise NotImplementedError

  def _finish(self, mean: jax.Array) -> jax.Array:
    return mean

  def _sums(self, candidates, observation, weight):
    total = weight * self._errors(candidates, observation)
    return {"error": total.sum((-3, -2)), "weight": weight.sum((-3, -2))}

  def value(self, sums, per_frame):
    sums = _pooled(sums, per_frame)
    value = self._finish(sums["error"] / sums["weight"])
    return value, jnp.isfinite(value)


class Mae(_Mean):
  """Mean absolute error, in units of the variable."""

  def _errors(self, candidates, observation):
    return jnp.abs(candidates - observation)


class Mse(_Mean):
  """Mean square error, in squared units of the variable."""

  def _errors(self, candidates, observation):
    return jnp.square(candidates - observation)


class Rmse(Mse):
  """Root mean square error, in units of the variable."""

  def _finish(self, mean):
    return jnp.sqrt(mean)


@dataclasses.dataclass(frozen=True)
class Ssim(CandidateScore):
  """Structural similarity: the mean of that of each frame and variable.

  It is the score ssim of the convention "physical"; see `image.ssim`.

  Attributes:
    data_range: range in physical units: one number, one number for each
      variable, or "frame" for the range of every observed frame.
  """

  better = HIGHER
  data_range: image.DataRange = image.FRAME

  def __post_init__(self):
    if not isinstance(self.data_range, str):
      span = tuple(map(float, np.atleast_1d(self.data_range)))
      object.__setattr__(self, "data_range", span)

  def _sums(self, candidates, observation, weight):
    fields = jnp.broadcast_arrays(candidates, observation, weight)
    span = image.resolve_range(self.data_range, *fields)
    score, frames = image.similarity(self._windows(*fields), span)
    return {"ssim": score, "frames": frames}

  def _windows(self, candidates, observation, weight) -> image.Windows:
    return image.windows(candidates, observation, weight)

  def value(self, sums, per_frame):
    sums = _pooled(sums, per_frame)
    value = sums["ssim"] / sums["frames"]
    return value, jnp.isfinite(value)


@dataclasses.dataclass(frozen=True)
class CrpsShare(_Mean):
  """A member's own share of the CRPS of all candidates, in units of the variable.

  For the candidate m it is the mean of |x_m - y| - mean_n |x_m - x_n| / 2. The
  mean over the candidates is the CRPS of the ensemble.

  Attributes:
    fair: whether the mean over n leaves out m itself, so that the mean over the
      candidates is the fair CRPS; NaN for a single candidate.
  """

  fair: bool = False

  def _errors(self, candidates, observation):
    count = len(candidates) - bool(self.fair)

    def add(total, other):
      return total + jnp.abs(candidates - other), None

    # A scan keeps no array of N * N fields.
    total, _ = jax.lax.scan(add, jnp.zeros_like(candidates), candidates)
    apart = total / count if count else jnp.nan
    return jnp.abs(candidates - observation) - apart / 2


@dataclasses.dataclass(frozen=True)
class Combined(CandidateScore):
  """A weighted sum of scores, of which higher is better.

  Scores of which lower is better count with a negative sign. The values are
  neither scaled nor ranked before, so a weight has the inverse units of its
  score. A candidate is eligible if it is so by every score.

  Attributes:
    parts: the scores.
    weights: a positive weight for each of them.
  """

  better = HIGHER
  parts: tuple[CandidateScore, ...]
  weights: tuple[float, ...]

  def __call__(self, candidates, observation, weight=None, per_frame=False):
    total, eligible = 0.0, True
    for part, share in zip(self.parts, self.weights, strict=True):
      value, allowed = part(candidates, observation, weight, per_frame)
      total += (share if part.better == HIGHER else -share) * value
      eligible &= allowed
    return total, eligible


SCORES: dict[str, type[CandidateScore]] = {
  "csi": Csi,
  "far": Far,
  "pod": Pod,
  "hss": Hss,
  "pooled_csi": PooledCsi,
  "fss": Fss,
  "spectral_error": SpectralError,
  "crps_share": CrpsShare,
  "mae": Mae,
  "mse": Mse,
  "rmse": Rmse,
  "ssim": Ssim,
}


def build(
  name: str,
  thresholds: Sequence[float] = (),
  table: Mapping[str, type] = SCORES,
  **options: Any,
) -> CandidateScore:
  """Builds a score by name.

  Args:
    name: a name out of `table`.
    thresholds: thresholds in physical units. Scores of events need them, and
      the others have no use for them.
    table: the scores that are known, by name.
    **options: released (csi, far, pod, hss, pooled_csi, fss), scale
      (pooled_csi, fss), pooling (pooled_csi), band (spectral_error), fair
      (crps_share), data_range (ssim).

  Raises:
    ConfigError: the name or an option is unknown; the message lists near ones.
    MetricError: thresholds are missing, or an option is impossible.
  """
  kind = errors.pick("score", name, table)
  known = {field.name for field in dataclasses.fields(kind) if field.init}
  errors.check_options(f"score {name}", options, known - {"thresholds"})
  if "thresholds" in known:
    options["thresholds"] = tuple(thresholds)
  return kind(**options)


def combine(
  weights: Mapping[str | CandidateScore, float], thresholds: Sequence[float] = ()
) -> Combined:
  """Combines several scores to one, of which higher is better.

  Args:
    weights: a positive weight for each score, which is a name out of `SCORES`
      or what `build` returned.
    thresholds: thresholds of the scores that are given by name.

  Raises:
    ConfigError: a name is unknown, or a weight is not positive and finite.
  """
  check_weights(weights)
  parts = (build(x, thresholds) if isinstance(x, str) else x for x in weights)
  return Combined(tuple(parts), tuple(map(float, weights.values())))


def check_weights(weights: Mapping[Any, float]) -> None:
  """Refuses weights of scores that are not positive and finite.

  Raises:
    ConfigError: one is not.
  """
  for name, weight in weights.items():
    if not 0 < weight < np.inf:
      raise errors.ConfigError(
        f"The weight {weight} of the score {name} must be positive and finite."
      )
