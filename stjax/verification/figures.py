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
from stjax.metrics import grid as grid_lib
from stjax.plots import ensemble, maps, spectra, style
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


# Scores by lead time in the units of the variable, by convention.
_IN_UNITS = {
  "physical": ("mae", "rmse", "bias"),
  "ensemble": ("mae", "rmse", "crps"),
  "weather": ("mae", "rmse", "bias", "activity"),
}
# Scores without units, of which a mean over any variables has a meaning.
_WITHOUT_UNITS = ("ssim",)


def _score_units(convention: str, score: str, units: str) -> str:
  """Returns the units of a score of a variable, "" if it has none."""
  if score == "psnr":
    return "dB"
  units = style.units(units)
  if score in _IN_UNITS.get(convention, ()):
    return units
  squared = score == "mse" and convention in _IN_UNITS
  return style.squared(units) if squared else ""


def _past_labels(lead_time: xr.DataArray, history: int) -> list[str] | None:
  """Returns labels of the history such as "-3 h"; None where steps differ."""
  if "not all equal" in str(lead_time.attrs.get("comment", "")) or not history:
    return None
  steps = np.arange(history - 1, 0, -1) * lead_time.values[0]
  ago = lead_labels(xr.DataArray(steps, dims="step", attrs=lead_time.attrs))
  return [text.replace("+", "\N{MINUS SIGN}") for text in ago] + ["0"]


def _when(labels: xr.Dataset, number: int) -> tuple[str, list[str], str]:
  """Returns the start, the valid times, and a line that has them, of an example."""
  if "init_time" not in labels:
    return "", [], ""
  moments = [
    labels.init_time.values[number],
    *np.atleast_1d(labels.valid_time.values[number]),
  ]
  start, *valid = style.dates(moments)
  known = [text for text in valid if text]
  line = f"start {start}" if start else ""
  if known:
    line += f", valid {known[0]}" + (f" to {known[-1]}" if len(known) > 1 else "")
  calendar = style.calendar(moments)
  return start, valid, line + (f" ({calendar} calendar)" if calendar else "")


def _title(name: str, attrs: Mapping, split: str, label: str, when: str) -> str:
  """Returns variable, sample and dates of an example, as one or two lines."""
  long_name = str(attrs.get("long_name", ""))
  same = long_name.lower().replace(" ", "_") == name.lower()
  if 0 < len(long_name) < 36 and not same:
    name = f"{name}, {long_name}"
  first = f"{name}; {split} sample {label}"
  return f"{first}\n{when}" if when else first


def _draw_fan(run, coordinates, frames, quantiles, path, options) -> None:
  """Draws the quantiles at the chosen points, or else at points that vary.

  Args:
    run: the run.
    coordinates: the grid, which names the points.
    frames: fields [T, H, W] of the example.
    quantiles: [Q, T, H, W] of its forecast.
    path: the file.
    options: further arguments of `ensemble.fan_chart`.
  """
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
    labels=[maps.place(coordinates, int(r), int(c)) for r, c in points],
    **options,
  )


def _without_land(frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns frames whose forecast is missing where no observation exists.

  There, as on land or beyond the range of the radars, a forecast is whatever a
  network makes of the values that fill the gaps.
  """
  seen = [np.isfinite(frames[name]) for name in ("history", "observation")]
  never = ~np.concatenate(seen).any(0)
  made = {
    name: np.where(never, np.nan, frames[name])
    for name in ("forecast", "quantiles")
    if name in frames
  }
  return frames | made


def _draw_scores(run, results, folder, leads, examples: int) -> None:
  """Draws scores by lead time, in a figure for each variable.

  A score that has no value by variable has a figure of its own, unless it would
  be a mean over units.
  """
  units = tables.units(run.coordinates)
  stems = style.file_stems(list(units))
  split = f"{run.config.evaluation.split} split, {examples} examples"

  def draw(name, value, titled, unit):
    curves = {
      source: {
        f"{convention} {score}": found
        for convention, by_name in scores.items()
        for score, values in by_name.items()
        if score in _CURVES and (found := value(score, values)) is not None
      }
      for source, scores in results.items()
    }
    if not any(curves.values()):
      return
    ylabels = {
      panel: _score_units(*panel.split(" ", 1), unit)
      for panels in curves.values()
      for panel in panels
    }
    plots.lead_time_curves(
      curves, folder / name, lead_labels=leads, title=titled, ylabels=ylabels
    )

  if len(units) == 1:
    [(variable, unit)] = units.items()
    title = f"{variable}: scores of the {split}"
    draw("lead_time.png", lambda _, score: score.by_lead, title, unit)
    return
  for channel, (variable, unit) in enumerate(units.items()):

    def own(_, score, channel=channel):
      values = score.by_lead_and_variable
      return None if values is None else values[:, channel]

    title = f"{variable}: scores of the {split}"
    draw(f"lead_time_{stems[channel]}.png", own, title, unit)
  unlike = tables.mixed(units)

  def together(name, score):
    if score.by_lead_and_variable is not None or (
      unlike and name not in _WITHOUT_UNITS
    ):
      return None
    return score.by_lead

  title = f"Scores over {tables.pooled_over(units)} together, {split}"
  shared = "" if unlike else next(iter(units.values()))
  draw("lead_time_all.png", together, title, shared)


def _draw_learning(run, folder) -> None:
  """Draws the logged scalars, by variable where these have different units."""
  log = run.workdir / "logs" / "metrics.jsonl"
  if not log.exists():
    return
  units = tables.units(run.coordinates)
  logged = {name for line in files.read_json_lines(log) for name in line}
  if not logged:
    return
  plots.learning_curves(log, folder / "learning.png", variables=tuple(units))
  for stem, (name, unit) in zip(
    style.file_stems(list(units)), units.items(), strict=True
  ):
    if any(key.count("/") > 1 and key.endswith(f"/{name}") for key in logged):
      plots.learning_curves(
        log,
        folder / f"learning_{stem}.png",
        variable=name,
        title=style.with_units(name, unit),
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
  results = tables.ordered(results)
  coordinates = data.coordinates
  options = run.config.evaluation
  leads = lead_labels(coordinates.lead_time)
  stems = style.file_stems(list(coordinates.data_vars))
  members = int(run.config.forecast.members)
  grid = maps.grid(coordinates)
  weights = grid_lib.area_weights(
    "evaluation.area_weights", options.area_weights, run.coordinates
  )
  for number, fields in keep.items():
    label = " ".join(str(data.labels.sample_id.values[number]).split())
    label = label if len(label) < 40 else f"{label[:37]}..."
    start, valid, when = _when(data.labels, number)
    for channel, (name, variable) in enumerate(coordinates.data_vars.items()):
      frames = _without_land({k: v[..., channel] for k, v in fields.items()})
      quantiles = frames.pop("quantiles", None)
      stem = f"example_{number:05d}_{stems[channel]}"
      title = _title(str(name), variable.attrs, options.split, label, when)
      units = str(variable.attrs.get("units", ""))
      if quantiles is not None:
        shared = {"title": title, "units": units, "lead_labels": leads}
        path = folder / f"{stem}_fan.png"
        _draw_fan(run, coordinates, frames, quantiles, path, shared)
      if 1 in frames["observation"].shape[1:]:
        continue  # A row of sensors makes no picture.
      about = {
        "title": title,
        "name": str(name),
        "standard_name": str(variable.attrs.get("standard_name", "")),
        "units": units,
        "lead_labels": leads,
        "past_labels": _past_labels(coordinates.lead_time, len(frames["history"])),
        "start": start,
        "valid": valid,
        "grid": grid,
        "made": run.method.kind,
        "note": f"{run.method.kind} = mean of {members} members" * (members > 1),
      }
      path = folder / f"{stem}.png"
      plots.picture_grid(**frames, path=path, weights=weights, **about)
      plots.animation(**frames, path=folder / f"{stem}.gif", **about)
  units = tables.units(coordinates)
  ensemble.draw(
    diagrams, results[tables.FORECAST], folder, lead_labels=leads, variables=units
  )
  spectra.draw(diagrams, folder, lead_labels=leads, units=units)
  reports.write_diagrams(
    folder.parent,
    diagrams,
    variables=list(coordinates.data_vars),
    lead_times=coordinates.lead_time,
  )
  _draw_scores(run, results, folder, leads, data.num_examples)
  _draw_learning(run, folder)
