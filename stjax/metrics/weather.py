"""The convention "weather": scores of whole fields, as in WeatherBench 2.

Every score is first a mean over one field, weighted by the area of its cells,
and then a mean over samples.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stjax.metrics import deterministic
from stjax.metrics.base import Score, Totals, grid_weights, pooled, root_ratio


@dataclasses.dataclass(frozen=True, eq=False)
class Weather:
  """Scores of weather forecasts: the convention "weather".

  <x> is the mean over the points of a field, weighted by mask and area; f and o
  are the anomalies of forecast and observation from the climatology of the
  target's calendar cell; e = f - o; and E is the mean over samples:
    rmse: sqrt(E <e^2>); the root comes last.
    mae, bias: E <|e|> and E <e>.
    acc: E [<f o> / sqrt(<f^2> <o^2>)], the anomaly correlation of each field,
      not centred. It is NaN if a field has no anomaly, as the climatology has
      none.
    activity, activity_observation: sqrt(E <(f - <f>)^2>), the standard
      deviation of the anomalies over space, and the same of o. A forecast
      that blurs has less of it than the observation.
    mse_skill: 1 - E <e^2> / E <o^2>; 1 is perfect, and 0 is the climatology.
  Each is given overall, by lead time, by variable and by both. Lead times and
  variables that are pooled count as further samples. Pooling over variables of
  different units mixes the units; read such data by variable. A field without
  any weight is no sample. Ensembles are scored by their mean over members.

  Sources: Rasp et al. 2024, "WeatherBench 2", doi:10.1029/2023MS004019 (rmse,
  mae, bias, acc); Ben Bouallegue et al. 2024, doi:10.1175/BAMS-D-23-0162.1
  (activity); Murphy 1988, doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2
  (mse_skill).

  Attributes:
    cell_weights: weights [H] or [H, W] of the cells, of any scale, e.g.
      `fields.cell_weights` of the latitudes; None if all cells are equal.
  """

  extra_inputs: ClassVar[tuple[str, ...]] = ("climatology",)
  cell_weights: Sequence | np.ndarray | None = None

  def update(
    self,
    forecast: jax.Array,
    observation: jax.Array,
    weight: jax.Array,
    climatology: jax.Array,
  ) -> Totals:
    weight = weight.astype(jnp.float32)
    if self.cell_weights is not None:
      weight = weight * grid_weights(self.cell_weights, observation)
    area = weight.sum((2, 3), keepdims=True)
    share = weight / jnp.where(area > 0, area, 1)

    def mean(values):
      """Means [B, T, 1, 1, C] over the points of each field."""
      return (share * values).sum((2, 3), keepdims=True)

    def counted(values):
      # In bfloat16, a small difference of large values would be rounding alone.
      return deterministic.where_counted(weight, values)

    forecast = counted(deterministic.deterministic(forecast))
    observation = counted(observation)
    climatology = counted(climatology)
    error = forecast - observation
    f, o = forecast - climatology, observation - climatology
    size = jnp.sqrt(mean(f**2)) * jnp.sqrt(mean(o**2))
    means = {
      "squared": mean(error**2),
      "absolute": mean(jnp.abs(error)),
      "signed": mean(error),
      "correlation": mean(f * o) / size,
      "variance": mean((f - mean(f)) ** 2),
      "variance_observation": mean((o - mean(o)) ** 2),
      "squared_climatology": mean(o**2),
      "fields": jnp.ones_like(area),
    }
    return {
      name: jnp.where(area > 0, values, 0).sum((0, 2, 3))
      for name, values in means.items()
    }

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    fields = totals["fields"]
    return {
      "rmse": pooled(root_ratio, totals["squared"], fields),
      "mae": pooled(np.divide, totals["absolute"], fields),
      "bias": pooled(np.divide, totals["signed"], fields),
      "acc": pooled(np.divide, totals["correlation"], fields),
      "activity": pooled(root_ratio, totals["variance"], fields),
      "activity_observation": pooled(
        root_ratio, totals["variance_observation"], fields
      ),
      "mse_skill": pooled(
        lambda square, reference: 1 - square / reference,
        totals["squared"],
        totals["squared_climatology"],
      ),
    }
