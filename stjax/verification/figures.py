"""Figures of an evaluation: pictures, animations, curves, diagrams."""

import pathlib
from collections.abc import Mapping

import numpy as np
import xarray as xr

import input_pipeline
from input_pipeline import files
from input_pipeline.labels import lead_labels
from stjax import metrics as metrics_lib
from stjax import plots
from stjax.plots import ensemble, spectra
from stjax.run import run as run_lib
from stjax.verification import reports, tables

# Scores that are drawn by lead time.
_CURVES = (
  "mse",
  "mae",
  "rmse",
  "ssim",
  "psnr",
  "bias",
  "crps",
  "acc",
  "activity",
  "mse_skill",
  "energy_ratio_high",
  "csi",
  "sedi",
)
# Levels of the ensemble's quantiles in fan charts.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Number of points in a fan chart if evaluation.points is empty.
_FAN_POINTS = 4


def _origin(coordinates: xr.Dataset) -> str:
  """Tells where row 0 is drawn: below if the rows' coordinate points upwards."""
  rows = coordinates.attrs["spatial_dims"][0]
  for name, values in coordinates.coords.items():
    if values.ndim in (1, 2) and values.dims[0] == rows and len(values) > 1:
      upward = str(name).lower() in ("y", rows, "lat", "latitude")
      if upward and np.issubdtype(values.dtype, np.number):
        column = values.values.reshape(len(values), -1)[:, 0]
        return "lower" if column[-1] > column[0] else "upper"
  return "upper"


def _draw_fan(run, frames, quantiles, path, options) -> None:
  """Draws the quantiles at the chosen points, or else at points that vary."""
  series = np.concatenate([frames["history"], frames["observation"]])
  width = series.shape[-1]
  points = run.config.evaluation.points
  if not points:
    # These go from the point that varies most to one that varies little.
    varies = np.nan_to_num(np.nanstd(series, axis=0).ravel())
    order = np.argsort(-varies, kind="stable")[: max((varies > 0).sum(), 1)]
    ranks = np.linspace(0, len(order) - 1, _FAN_POINTS + 1)[:-1].astype(int)
    points = [divmod(int(p), width) for p in dict.fromkeys(order[ranks])]
  rows, columns = np.asarray(points).T
  ensemble.fan_chart(
    frames["history"][:, rows, columns],
    frames["observation"][:, rows, columns],
    quantiles[:, :, rows, columns],
    path,
    labels=[f"row {r}, column {c}" for r, c in points],
    lead_labels=options["lead_labels"],
    units=options["units"],
    title=options["title"],
  )


def draw(
  run: run_lib.Run,
  data: input_pipeline.Split,
  keep: Mapping[int, Mapping[str, np.ndarray]],
  results: Mapping[str, Mapping[str, Mapping[str, metrics_lib.Score]]],
  diagrams: Mapping[str, metrics_lib.Diagrams],
  folder: pathlib.Path,
) -> None:
  """Draws the kept examples, the scores by lead time and the diagrams.

  Args:
    run: the run.
    data: the split that was scored.
    keep: fields of examples, by their number; see `evaluator.Evaluator.score`.
    results: scores by source, convention and name.
    diagrams: diagrams by convention; each also becomes a table beside `folder`.
    folder: folder of the figures, which is made if it is missing.
  """
  folder.mkdir(parents=True, exist_ok=True)
  coordinates = data.coordinates
  leads = lead_labels(coordinates.lead_time)
  for number, fields in keep.items():
    label = str(data.labels.sample_id.values[number])
    label = label if len(label) < 40 else f"{label[:37]}..."
    for channel, name in enumerate(coordinates.data_vars):
      frames = {k: v[..., channel] for k, v in fields.items() if k != "quantiles"}
      stem = f"example_{number:05d}_{str(name).replace('@', '_')}"
      options = {
        "title": f"{name}, {label}",
        "units": str(coordinates[name].attrs.get("units", "")),
        "lead_labels": leads,
        "origin": _origin(coordinates),
      }
      if "quantiles" in fields:
        quantiles = fields["quantiles"][..., channel]
        _draw_fan(run, frames, quantiles, folder / f"{stem}_fan.png", options)
      if 1 in frames["observation"].shape[1:]:
        continue  # A row of sensors makes no picture.
      options["made"] = run.method.kind
      plots.picture_grid(**frames, path=folder / f"{stem}.png", **options)
      plots.animation(**frames, path=folder / f"{stem}.gif", **options)
  units = {str(v.attrs.get("units", "")) for v in coordinates.values()}
  ensemble.draw(
    diagrams,
    results[tables.FORECAST],
    folder,
    lead_labels=leads,
    units=units.pop() if len(units) == 1 else "",
  )
  spectra.draw(diagrams, folder, lead_labels=leads)
  reports.write_diagrams(
    folder.parent,
    diagrams,
    variables=list(coordinates.data_vars),
    lead_times=coordinates.lead_time,
  )
  curves = {
    source: {
      f"{convention} {name}": score.by_lead
      for convention, by_name in scores.items()
      for name, score in by_name.items()
      if score.by_lead is not None and name in _CURVES
    }
    for source, scores in results.items()
  }
  plots.lead_time_curves(curves, folder / "lead_time.png", lead_labels=leads)
  log = run.workdir / "logs" / "metrics.jsonl"
  if log.exists() and files.read_json_lines(log):
    plots.learning_curves(log, folder / "learning.png")
