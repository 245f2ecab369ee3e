"""The convention "tke": the turbulent kinetic energy of forecast velocities."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.errors import MetricError
from stjax.metrics import spectra
from stjax.metrics.base import Score, Totals


def energy(velocities: jax.Array, weight: jax.Array | None = None) -> jax.Array:
  """Returns the turbulent kinetic energy of each point.

  It is half the sum of the components' variances over the frames, of a
  population.

  Args:
    velocities: [..., T, H, W, D] components.
    weight: array that broadcasts with them, 0 where a value must not count; None
      counts all.

  Returns:
    [..., H, W] in squared units of the velocity; 0 where nothing counts.
  """
  if weight is None:
    weight = jnp.ones((), jnp.float32)
  weight = jnp.broadcast_to(weight, velocities.shape)
  fields = jnp.where(weight > 0, velocities, 0)
  number = jnp.maximum(weight.sum(-4, keepdims=True), jnp.finfo(jnp.float32).tiny)
  mean = (weight * fields).sum(-4, keepdims=True) / number
  square = weight * jnp.square(fields - mean)
  return (square.sum(-4) / number[..., 0, :, :, :]).sum(-1) / 2


def profile(fields: jax.Array) -> jax.Array:
  """Returns the mean power of the Fourier transform by the distance from its middle.

  The distance is in waves, cut down to a whole number, and from
  ((W - 1) / 2, (W - 1) / 2) for row and column of the shifted transform. So it is
  measured from half a wave beside the mean, and for frames that are not square from
  another row. The first and the last distance are left out. All this is as the
  released program has it.

  Args:
    fields: [..., H, W].

  Returns:
    [..., distances].

  Source: `tke2spectrum` of BeamVQ, the predecessor of SFP.
  """
  height, width = fields.shape[-2:]
  middle = (width - 1) / 2
  rows, columns = np.arange(height) - middle, np.arange(width) - middle
  distance = np.floor(np.hypot(rows[:, None], columns[None])).astype(int)
  distances, index, points = np.unique(
    distance, return_inverse=True, return_counts=True
  )
  power = jnp.square(jnp.abs(jnp.fft.fft2(fields)))
  power = jnp.fft.fftshift(power, (-2, -1))[..., None]
  total = spectra.sum_by(index.reshape(distance.shape), power, len(distances))
  return (total[..., 0] / points)[..., 1:-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Tke:
  """Errors of the turbulent kinetic energy: the convention "tke".

  The energy of each point (`energy`) is made of the frames of a forecast, of which
  there must be two at least, and E is its power by distance in wavenumber space
  (`profile`), for which points that are missing have no energy. Scores, each a mean
  over samples and members:
    error: |E_forecast - E| / |E|, with |.| as the root of the sum of squares.
    log_error: the same of the logarithms of E, to which small scales count more.
  They have no units. The released program stops at E; how the paper makes one number
  of it is not published.

  Attributes:
    variables: names of the channels.
    velocities: the names of the two velocity components among them.
  """

  variables: Sequence[str] = ()
  velocities: Sequence[str] = ()

  def __post_init__(self):
    key = "config.evaluation.velocities"
    if len(set(self.velocities)) != 2 or len(self.velocities) != 2:
      raise MetricError(
        "The convention 'tke' needs the names of two velocity components; got"
        f" {list(self.velocities)}. Set {key}."
      )
    for name in self.velocities:
      errors.pick(key, name, self.variables)

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    if observation.shape[1] < 2:
      raise MetricError(
        "The convention 'tke' needs forecasts of two frames or more; they have"
        f" {observation.shape[1]}. Leave it out of config.evaluation.conventions."
      )
    channels = np.array([list(self.variables).index(name) for name in self.velocities])
    counted = weight[..., channels] > 0
    share = counted.astype(jnp.float32)
    # Where nothing counts there is no profile, as in rows that only fill the batch.
    valid = counted.any((1, 2, 3, 4))

    def profiles(fields):
      found = profile(energy(fields[..., channels].astype(jnp.float32), share))
      return jnp.where(valid[:, None], found, 1)

    forecast, observation = profiles(forecast), profiles(observation)

    def error(f, o):
      ratio = jnp.linalg.norm(f - o, axis=-1) / jnp.linalg.norm(o, axis=-1)
      return jnp.where(valid, ratio.mean(0), 0).sum()

    return {
      "error": error(forecast, observation),
      "log_error": error(jnp.log(forecast), jnp.log(observation)),
      "samples": valid.sum().astype(jnp.float32),
    }

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    return {
      name: Score(np.asarray(totals[name] / totals["samples"]))
      for name in ("error", "log_error")
    }
