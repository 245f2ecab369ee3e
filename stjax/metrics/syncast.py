"""The convention "syncast": the scores of radar forecasts as SynCast prints them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.metrics import categorical, deterministic, ensemble, image
from stjax.metrics.base import Score, Totals, pooled

_BLOCKS = (4, 16)  # Sides of the blocks of pooled scores, in points.
_PATCHES = (1, 4, 8, 16)  # Those of the fractions skill score.
_PIXEL = 255.0  # What SSIM and PSNR call the full scale.


@dataclasses.dataclass(frozen=True)
class DataSet:
  """What the original program does with one of its data sets.

  Attributes:
    thresholds: thresholds in physical units.
    full_scale: the physical value that the program's fields call 1.
    squared_log_bias: whether the frequency bias is (bias / ln 2)^2.
    rejects_everywhere: whether correct rejections are also counted where points
      are masked.
  """

  thresholds: tuple[float, ...]
  full_scale: float
  squared_log_bias: bool = False
  rejects_everywhere: bool = False


def _grey_of_rain(rate: float) -> float:
  """Returns the grey value 0-255 of a rain rate in mm/h, as HKO-7 defines it."""
  reflectivity = 10 * np.log10(58.53) + 15.6 * np.log10(rate)  # dBZ.
  return float(255 * (reflectivity + 10) / 70)


DATA_SETS = {
  "sevir": DataSet((16.0, 74.0, 133.0, 160.0, 181.0, 219.0), 255.0),
  "meteonet": DataSet((19.0, 28.0, 35.0, 40.0, 47.0), 70.0, squared_log_bias=True),
  "hko7": DataSet(
    tuple(map(_grey_of_rain, (0.5, 2.0, 5.0, 10.0, 30.0))),
    255.0,
    squared_log_bias=True,
    rejects_everywhere=True,
  ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Syncast:
  """The numbers that SynCast prints: convention "syncast".

  They are meant for comparison with its tables (arXiv:2510.21847), and follow
  its program, quirks included; for anything else, use "categorical". An event
  is a value of at least a threshold. Hits a, false alarms b, misses c and
  correct rejections d are exact counts over samples and points (and over lead
  times and variables if these are pooled). With e = `epsilon`:
    csi: a / (a + b + c + e).
    far: b / (a + b + e).
    pod: a / (a + c + e).
    success_ratio: a / (a + b + e).
    hss: 2 (a d - b c) / ((a + c) (c + d) + (a + b) (b + d) + e).
    frequency_bias: (a + b) / (a + c + e); for MeteoNet and HKO-7 it is
      (frequency bias / ln 2)^2.
    pooled_csi_<s>_average, pooled_csi_<s>_max: csi of the mean, or of the
      largest value, of blocks of s x s points (4 and 16).
    fss_<s>: 2 sum n m / (sum (n^2 + m^2) + e) with the numbers n and m of events
      in each block of s x s points (1, 4, 8 and 16), as a mean over frames.
    "<score>_ge_<t>" is that of one threshold, and the name without it the mean
    over the thresholds.
    crps: the CRPS of a normal distribution with the members' mean and standard
      deviation, on the scale where `full_scale` is 1; for one member it is the
      mae. crps_<s>_average and crps_<s>_max are those of blocks.
    mae, mse: on the same scale.
    ssim: with Gaussian windows (`image.windows`), on the scale where
      `full_scale` is 255, for the whole part of the observed range of each
      sample (at least 1), as a mean over frames.
    psnr: 10 log10(255^2 / mse) of each frame on that scale, as a mean over
      frames.
  Ensembles are scored by their mean over members, except for crps. The program
  averages ssim, psnr and fss over batches, of one sample each; the means here
  are the same and do not depend on the batches. A masked point keeps its value
  in the blocks, of which each counts if the point at its nearest place does
  (HKO-7). There, masked points count as correct rejections if they have no
  event.

  Attributes:
    dataset: "sevir", "meteonet" or "hko7".
    thresholds: thresholds in physical units; () takes those of the data set
      (VIL 0-255, dBZ, grey values 0-255).
    full_scale: the physical value that the program's fields call 1; 0 takes
      that of the data set (255, 70, 255).
    epsilon: what is added to the denominators.
  """

  dataset: str = "sevir"
  thresholds: Sequence[float] = ()
  full_scale: float = 0.0
  epsilon: float = 1e-4

  def __post_init__(self):
    errors.pick("evaluation.syncast.dataset", self.dataset, DATA_SETS)
    categorical.checked(self._thresholds)
    if not 0 <= self.full_scale < np.inf:
      raise errors.MetricError(
        f"full_scale={self.full_scale} must be a positive number, or 0. Change"
        " config.evaluation.syncast.full_scale."
      )

  @property
  def _thresholds(self) -> Sequence[float]:
    given = self.thresholds
    return given if len(given) else DATA_SETS[self.dataset].thresholds

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    counted = weight > 0
    keep = counted.astype(jnp.int32)  # In float32, large counts are not exact.
    # What is missing must not make its whole block NaN.
    members, observation = (
      jnp.where(~counted & jnp.isnan(x), 0, x).astype(jnp.float32)
      for x in (forecast, observation)
    )
    mean = deterministic.deterministic(members)
    scale = self.full_scale or DATA_SETS[self.dataset].full_scale

    def count(forecast, observation, keep):
      table = categorical.contingency(forecast, observation, keep, self._thresholds)
      return {key: x.sum(0) for key, x in table._asdict().items()}

    totals = count(mean, observation, keep)
    if DATA_SETS[self.dataset].rejects_everywhere:
      filled = counted.any((1, 2, 3, 4), keepdims=True)
      everywhere = jnp.broadcast_to(filled, counted.shape).astype(jnp.int32)
      totals["rejections"] = count(mean, observation, everywhere)["rejections"]
    totals |= _crps("", members / scale, observation / scale, keep)
    size = min(observation.shape[2:4])
    for side in _fitting(_BLOCKS, size):
      shown = _nearest(keep, side)
      for pooling in categorical.POOLINGS:

        def block(x, side=side, pooling=pooling):
          return categorical.blocks(x, jnp.ones(()), side, pooling)[0]

        end = f"_{side}_{pooling}"
        table = count(block(mean), block(observation), shown)
        totals |= {key + end: x for key, x in table.items()}
        totals |= _crps(end, block(members / scale), block(observation / scale), shown)

    frames = counted.any((2, 3)).astype(jnp.float32)  # [B, T, C].
    totals["frames"] = frames.sum(0)
    for side in _fitting(_PATCHES, size):
      sums = categorical.fractions(
        mean, observation, keep.astype(jnp.float32), self._thresholds, side
      )
      # The program counts points, of which a block has side squared.
      scores = categorical.fss(*sums, self.epsilon / side**4)
      totals[f"fss_{side}"] = jnp.where(frames[..., None] > 0, scores, 0).sum(0)

    weight = counted.astype(jnp.float32)
    of_errors = deterministic.error_totals(mean / scale, observation / scale, weight)
    totals |= {key: of_errors[key] for key in ("weight", "squared", "absolute")}
    mean, observation = (x * (_PIXEL / scale) for x in (mean, observation))
    error, _, any_points = image.frame_errors(mean, observation, weight)
    totals |= {
      "psnr": image.frame_psnr(error, any_points, _PIXEL).sum(0),
      "pictures": any_points.sum(0),
    }
    if size > image.GAUSSIAN_EDGE:
      stats = image.windows(mean, observation, weight, gaussian=True)
      scores, counts = image.similarity(stats, _whole_range(observation, weight))
      totals |= {"ssim": scores.sum(0), "ssim_frames": counts.sum(0)}
    return totals

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    data = DATA_SETS[self.dataset]
    scores = {}

    def add(stem, finish, bins, *more):
      of = categorical.by_threshold(stem, self._thresholds, finish, bins, *more)
      scores.update(of)

    def add_ratio(stem, ratio, end=""):
      table = [totals[key + end] for key in categorical.Counts._fields]
      add(stem, functools.partial(ratio, epsilon=self.epsilon), table)

    def squared_log_bias(*table, epsilon):
      return (categorical.frequency_bias(*table, epsilon) / np.log(2)) ** 2

    ratios = categorical.RATIOS | {"success_ratio": categorical.success_ratio}
    if data.squared_log_bias:
      ratios["frequency_bias"] = squared_log_bias
    for stem, ratio in ratios.items():
      add_ratio(stem, ratio)
    ends = [""]
    for side in _BLOCKS:
      for end in (f"_{side}_{pooling}" for pooling in categorical.POOLINGS):
        if "hits" + end in totals:
          add_ratio("pooled_csi" + end, categorical.csi, end)
          ends.append(end)
    for side in _PATCHES:
      if f"fss_{side}" in totals:
        add(
          f"fss_{side}",
          lambda x, frames: x / frames[..., None],
          [totals[f"fss_{side}"]],
          totals["frames"],
        )
    for end in ends:
      scores["crps" + end] = pooled(np.divide, totals["crps" + end], totals["n" + end])
    for stem, total, number in (
      ("mae", "absolute", "weight"),
      ("mse", "squared", "weight"),
      ("ssim", "ssim", "ssim_frames"),
      ("psnr", "psnr", "pictures"),
    ):
      if total in totals:
        scores[stem] = pooled(np.divide, totals[total], totals[number])
    return scores


def _fitting(sides: Sequence[int], size: int) -> list[int]:
  """Returns the sides of blocks of which one at least fits into a frame."""
  return [side for side in sides if side <= size]


def _crps(end: str, members, observation, keep) -> Totals:
  """Returns sums [T, C] of the CRPS of normal distributions, and their number."""
  deviation = jnp.sqrt(ensemble.variance(members))
  loss = ensemble.gaussian_crps(members.mean(0), deviation, observation, 1e-10)
  loss = deterministic.where_counted(keep, loss)
  return {
    "crps" + end: deterministic.sum_points(loss),
    "n" + end: deterministic.sum_points(keep.astype(jnp.float32)),
  }


def _nearest(keep: jax.Array, side: int) -> jax.Array:
  """Returns the nearest points [..., H // side, W // side, C] of [..., H, W, C]."""
  for axis in (-3, -2):
    length = keep.shape[axis]
    number = length // side
    keep = jnp.take(keep, np.arange(number) * length // number, axis)
  return keep


def _whole_range(observation: jax.Array, weight: jax.Array) -> jax.Array:
  """Returns the whole part [B, 1, 1, 1, 1] of each sample's range, 1 at least."""
  axes = (1, 2, 3, 4)
  high = deterministic.where_counted(weight, observation, -jnp.inf)
  low = deterministic.where_counted(weight, observation, jnp.inf)
  span = high.max(axes, keepdims=True) - low.min(axes, keepdims=True)
  # The program divides 0 by 0 where the range is below 1.
  return jnp.maximum(jnp.floor(span), 1)
