"""Conventions: sets of scores that state the axes of every mean.

The same names (mse, psnr, ...) mean different numbers in different papers. A
convention fixes the meaning of all of them, so scores of two conventions must
not be compared.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stjax.errors import MetricError
from stjax.metrics import deterministic, image
from stjax.metrics.base import Score, Totals, grid_weights, pooled


def _frames_fit(observation: jax.Array) -> bool:
  """Tells whether frames are large enough for SSIM; point data (W = 1) are not."""
  return min(observation.shape[2:4]) >= image.WINDOW


@dataclasses.dataclass(frozen=True, eq=False)
class Physical:
  """Ordinary means in physical units: the convention "physical".

  Scores, each overall, by lead time, by variable and by both:
    mse, mae, bias: means over samples and space (and over lead times and
      variables if these are pooled), weighted by mask and area.
    rmse: root of the pooled mse, never a mean of roots.
    psnr: 10 log10(data_range^2 / mse) in dB, from the pooled mse; where
      variables are pooled, every error is divided by its own variable's range.
    ssim: mean over samples of the SSIM of each frame and variable
      (`image.ssim`), not weighted by area; windows that hold a missing point
      are left out. Frames smaller than 7x7 have none.
  Pooling over variables of different units mixes the units; read such data by
  variable. Ensembles are scored by their mean over members.

  Attributes:
    data_range: the range that psnr and ssim refer to, in physical units: one
      number, one number for each variable, or "frame" for the range of every
      observed frame. The observed range of the training split is a good choice.
    area_weights: weights [H] or [H, W] of any scale, which multiply the weight
      of every point, e.g. the cosine of the latitude; or None.
  """

  data_range: image.DataRange = image.FRAME
  area_weights: Sequence | np.ndarray | None = None

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    forecast = deterministic.deterministic(forecast)
    observation = observation.astype(jnp.float32)
    weight = weight.astype(jnp.float32)
    counted = weight
    if self.area_weights is not None:
      weight = weight * grid_weights(self.area_weights, observation)
    totals = deterministic.error_totals(forecast, observation, weight)
    span = image.resolve_range(self.data_range, forecast, observation, counted)
    relative = deterministic.where_counted(weight, (forecast - observation) / span)
    totals["relative_squared"] = deterministic.sum_points(weight * relative**2)
    if _frames_fit(observation):
      scores, counts = image.ssim(
        forecast, observation, counted, data_range=self.data_range
      )
      totals |= {"ssim": scores.sum(0), "ssim_frames": counts.sum(0)}
    return totals

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    scores = deterministic.error_scores(totals)
    scores["psnr"] = pooled(
      lambda square, weight: -10.0 * np.log10(square / weight),
      totals["relative_squared"],
      totals["weight"],
    )
    if "ssim" in totals:
      scores["ssim"] = pooled(np.divide, totals["ssim"], totals["ssim_frames"])
    return scores


@dataclasses.dataclass(frozen=True, eq=False)
class OpenSTL:
  """The numbers that OpenSTL and simvp_minimal print: convention "openstl".

  They are meant for comparison with published tables. Means here are exact
  over all samples, while both programs average batches that may differ in
  size. Fields are expected in [0, 1], except for the scores of errors.

  Sources: `metrics.py` of CCU-LANL-AIML/simvp_minimal, and
  `openstl/core/metrics.py` of chengtan9907/OpenSTL.

  Scores of errors (forecast not clipped), overall, by lead time, by variable:
    mse, mae: sum over channels, height and width of the mean over samples
      and frames. If points are missing, it is the mean over the observed
      points times the number of points of a frame.
    rmse: sqrt(mse).
    mse_spatialnorm, mae_spatialnorm, rmse_spatialnorm: means over channels,
      height and width instead of sums; rmse is the root of that mean.
    psnr_255: 20 log10(255 / sqrt(mean square error over everything)), as
      simvp_minimal prints it, which is 48.13 dB more than for the range 1.
  Scores of pictures (forecast clipped to [0, 1]), each a mean over samples
  and frames, overall and by lead time. Frames smaller than 7x7 have no ssim:
    ssim: each frame and channel with the range max - min of its observation,
      then the mean over channels (simvp_minimal).
    ssim_range2: for the range 2, which OpenSTL got from scikit-image <= 0.19.
    ssim_range1: for the range 1.
    psnr: 20 log10(1 / sqrt(mse of the frame over its points and channels)).
    snr: 10 log10(mean observation^2 / mse of the frame).

  Attributes:
    spatial_norm: whether mse, mae and rmse are the "_spatialnorm" scores, as
      OpenSTL reports them for weather; the names with the suffix are then
      absent.
    channel_names: names of equal groups of consecutive channels, or None.
      mse_<name>, mae_<name> and rmse_<name> are then the scores of each group,
      and mse, mae and rmse the means over the groups.
  """

  spatial_norm: bool = False
  channel_names: Sequence[str] | None = None

  def _groups(self, channels: int) -> tuple[str | None, ...]:
    groups = tuple(self.channel_names or (None,))
    if channels % len(groups):
      raise MetricError(
        f"{channels} variables cannot be cut into {len(groups)} equal groups "
        f"{list(groups)}. Change channel_names or config.data.variables."
      )
    return groups

  def update(
    self, forecast: jax.Array, observation: jax.Array, weight: jax.Array
  ) -> Totals:
    samples, _, height, width, channels = observation.shape
    self._groups(channels)
    forecast = deterministic.deterministic(forecast)
    observation = observation.astype(jnp.float32)
    weight = weight.astype(jnp.float32)
    totals = deterministic.error_totals(forecast, observation, weight)
    del totals["signed"]
    # Only sums can be added over batches; the ratio of these two is the number
    # of points of a frame.
    totals["size"] = jnp.full(totals["weight"].shape, samples, jnp.float32)
    totals["points"] = totals["size"] * (height * width)

    clipped = jnp.clip(forecast, 0.0, 1.0)
    error, signal, count = image.frame_errors(clipped, observation, weight)
    totals |= {
      "psnr": image.frame_psnr(error, count).sum(0),
      "snr": image.frame_snr(error, signal, count).sum(0),
      "frames": count.sum(0),
    }
    if _frames_fit(observation):
      stats = image.windows(clipped, observation, weight)
      for name, span in (
        ("ssim", image.frame_range(clipped, observation, weight)),
        ("ssim_range2", jnp.float32(2.0)),
        ("ssim_range1", jnp.float32(1.0)),
      ):
        scores, counts = image.similarity(stats, span)
        totals[name] = scores.sum(0)
      totals["ssim_frames"] = counts.sum(0)  # The same for every range.
    return totals

  def _error_scores(
    self, totals: Mapping[str, np.ndarray], name: str, *, root: bool, norm: bool
  ) -> dict[str | None, Score]:
    """Returns the scores of every group, and their mean under None."""

    def means(axis):
      """Means over samples and space by variable, times the points of a frame."""
      total, weight = totals[name], totals["weight"]
      if axis is not None:
        total, weight = total.sum(axis), weight.sum(axis)
      with np.errstate(divide="ignore", invalid="ignore"):
        return total / weight * (1.0 if norm else points)

    def finish(value):
      return np.sqrt(value) if root else value

    channels = totals["weight"].shape[-1]
    groups = self._groups(channels)
    points = totals["points"].sum() / totals["size"].sum()
    variable, lead_variable = means(0), means(None)
    reduce = np.mean if norm else np.sum
    scores = {}
    for i, group in enumerate(groups):
      part = slice(i * channels // len(groups), (i + 1) * channels // len(groups))
      scores[group] = Score(
        overall=np.asarray(finish(reduce(variable[part]))),
        by_lead=finish(reduce(lead_variable[:, part], axis=1)),
      )
    parts = list(scores.values())
    scores[None] = Score(
      overall=np.mean([s.overall for s in parts]),
      by_lead=np.mean([s.by_lead for s in parts], axis=0),
      by_variable=finish(variable),
      by_lead_and_variable=finish(lead_variable),
    )
    return scores

  def compute(self, totals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    results = {}
    variants = [("", self.spatial_norm)]
    if not self.spatial_norm:
      variants.append(("_spatialnorm", True))
    for suffix, norm in variants:
      for score, name, root in (
        ("mse", "squared", False),
        ("mae", "absolute", False),
        ("rmse", "squared", True),
      ):
        by_group = self._error_scores(totals, name, root=root, norm=norm)
        for group, value in by_group.items():
          stem = score if group is None else f"{score}_{group}"
          results[stem + suffix] = value
    results["psnr_255"] = pooled(
      lambda square, weight: 10.0 * np.log10(255.0**2 * weight / square),
      totals["squared"],
      totals["weight"],
    )
    for name in ("ssim", "ssim_range2", "ssim_range1"):
      if name in totals:
        results[name] = pooled(np.divide, totals[name], totals["ssim_frames"])
    for name in ("psnr", "snr"):
      results[name] = pooled(np.divide, totals[name], totals["frames"])
    return results
