"""The convention "spectral": the power of a forecast on every scale."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stjax.errors import MetricError
from stjax.metrics import spectra
from stjax.metrics.base import Diagrams, Score, Totals

BANDS = ("low", "mid", "high")
# Points that a side must have, so that every band has a wavenumber.
_LEAST = 2 * len(BANDS)
# Share of the power, the mean's included, that the transform of a constant field
# leaves in waves by rounding; fields in float32 that do vary have more.
_ROUNDING = 4e-14
_POWERS = ("forecast", "observation", "error")


def bands(shells: int) -> dict[str, slice]:
  """Returns the shells of each band: equal thirds of the wavenumbers from 1 on.

  Args:
    shells: number of shells, including the mean (wavenumber 0).
  """
  ends = [1 + i * (shells - 1) // len(BANDS) for i in range(len(BANDS) + 1)]
  return {name: slice(*ends[i : i + 2]) for i, name in enumerate(BANDS)}


def waves(fields: jax.Array, counted: jax.Array) -> jax.Array:
  """Returns the complex amplitudes [..., H, W, C] of the waves of fields.

  Args:
    fields: [..., H, W, C].
    counted: bool array that broadcasts with them; points that do not count
      take the field's mean over the others.

  Raises:
    MetricError: the frames have too few points for three bands.
  """
  height, width = fields.shape[-3:-1]
  if min(height, width) < _LEAST:
    raise MetricError(
      f"Spectra need frames of at least {_LEAST}x{_LEAST} points; got "
      f"{height}x{width}. Leave 'spectral' out of "
      "config.evaluation.conventions."
    )
  axes = (-3, -2)
  fields = jnp.where(counted, fields.astype(jnp.float32), 0)
  points = counted.sum(axes, keepdims=True)
  mean = fields.sum(axes, keepdims=True) / jnp.maximum(points, 1)
  return spectra.transform(jnp.where(counted, fields, mean))


def shells(squares: jax.Array) -> jax.Array:
  """Returns power [..., C, K] by wavenumber from squares [..., H, W, C] of waves."""
  return jnp.swapaxes(spectra.shell_sums(squares / 2), -1, -2)


@dataclasses.dataclass(frozen=True, eq=False)
class Spectral:
  """Power by wavenumber, and its errors in bands: the convention "spectral".

  Fields are planes of equally spaced points that are periodic both ways; if
  they are not, their edges add power to all high wavenumbers. The power of
  wavenumber k is the sum of |a|^2 / 2 over the waves whose wavenumber, in
  waves across the longer side, rounds to k (`spectra.shell_sums`). It is the
  kinetic energy of velocities, or the enstrophy of a vorticity. Missing points
  take the field's mean over the others, in forecast and observation alike.

  Diagram: power_<variable> has the wavenumber [K] from 1 on, and the means over
  samples of the power of forecast, observation and error (forecast -
  observation), overall and by lead time.

  Scores in the bands low, mid and high (equal thirds of the wavenumbers 1 to
  K), each from totals that are pooled over samples, waves and lead times:
    log_ratio_<band>: log10 of the forecast's power over the observation's,
      which is below 0 if the forecast blurs.
    amplitude_error_<band>: sqrt(sum (|f_a| - |o_a|)^2 / sum |o_a|^2) over the
      amplitudes of the single waves, whatever their phases; 0 is best.
    energy_ratio_high: the forecast's power over the observation's in the high
      band.
  Where the observation (or for log_ratio the forecast) has no power in a band, as if
  it were constant, a score is not finite. None of them has units. Scores over all
  variables are means of the variables' scores. Every member of an ensemble has a
  spectrum of its own, and the spectra are averaged.

  Attributes:
    variables: names of the channels for the diagrams; () numbers them.
  """

  variables: Sequence[str] = ()

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    counted = weight > 0
    f, o = waves(forecast, counted), waves(observation, counted)
    size = jnp.abs(f) - jnp.abs(o)
    totals = {}
    for name, squares in (
      ("forecast", jnp.square(jnp.abs(f)).mean(0)),
      ("observation", jnp.square(jnp.abs(o))),
      ("error", jnp.square(jnp.abs(f - o)).mean(0)),
      ("amplitude", jnp.square(size).mean(0)),
    ):
      # Summing over samples first leaves fewer waves to sort into shells.
      totals[name] = shells(squares.sum(0))
    points = counted.sum((-3, -2))
    totals["frames"] = (points > 0).sum(0).astype(jnp.float32)
    return totals

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    scores = {}
    for name, band in bands(totals["forecast"].shape[-1]).items():
      forecast, observation = (
        _above_rounding(totals[key], band) for key in ("forecast", "observation")
      )
      amplitude = totals["amplitude"][..., band].sum(-1)
      scores[f"log_ratio_{name}"] = _by_variable(
        lambda f, o: np.log10(f / o), forecast, observation
      )
      scores[f"amplitude_error_{name}"] = _by_variable(
        lambda a, o: np.sqrt(a / o), amplitude, observation
      )
      if name == BANDS[-1]:
        scores[f"energy_ratio_{name}"] = _by_variable(np.divide, forecast, observation)
    return scores

  def diagrams(self, totals: Mapping[str, np.ndarray]) -> Diagrams:
    """Returns the power by wavenumber."""
    _, channels, shells = totals["forecast"].shape
    names = self.variables or [str(c) for c in range(channels)]
    result = {}
    for c, name in enumerate(names):
      diagram = {"wavenumber": np.arange(1, shells)}
      frames = totals["frames"][:, c]
      with np.errstate(divide="ignore", invalid="ignore"):
        for key in _POWERS:
          power = totals[key][:, c, 1:]
          diagram[key] = power.sum(0) / frames.sum()
          diagram[f"{key}_by_lead"] = power / frames[:, None]
      result[f"power_{name.replace('@', '_')}"] = diagram
    return result


def _above_rounding(power: np.ndarray, band: slice) -> np.ndarray:
  """Sums power [T, C, K] over a band to [T, C], 0 if it is rounding error alone."""
  total = power[..., band].sum(-1)
  return np.where(total > _ROUNDING * power.sum(-1), total, 0)


def _by_variable(finish: Callable[..., np.ndarray], *totals: np.ndarray) -> Score:
  """Pools totals [T, C] over lead times, and averages the variables' scores."""
  with np.errstate(divide="ignore", invalid="ignore"):
    by_variable = finish(*(t.sum(0) for t in totals))
    both = finish(*totals)
    return Score(
      overall=np.asarray(by_variable.mean()),
      by_lead=both.mean(1),
      by_variable=by_variable,
      by_lead_and_variable=both,
    )
