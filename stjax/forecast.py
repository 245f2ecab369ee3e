"""Labelled forecasts: a checkpoint and initial conditions -> a Zarr store."""

import io
import json
import math
import pathlib
import shutil
import warnings
import zipfile
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
import zarr
from absl import logging
from jax.experimental import multihost_utils

from stjax import config as config_lib
from stjax import drift, files, initialise, layouts
from stjax import rollout as rollout_lib
from stjax import run as run_lib
from stjax import sharding as sharding_lib
from stjax.metrics import tables

PyTree = Any
_CHUNK_VALUES = 2**20  # Of the store: whole forecasts, up to about 4 MB.

# What numpy raises for an archive that is damaged, empty or none.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


class BlownUp(RuntimeError):
  """A forecast left everything that was ever observed."""


def _progress_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f".{path.name}.progress.npz")


def _read_histories(path: pathlib.Path) -> np.ndarray:
  with np.load(_progress_path(path), allow_pickle=False) as saved:
    return saved["histories"]


class ForecastStore:
  """A Zarr store that forecasts are written into, batch by batch.

  It is written beside its place and moved there when it is complete, so that
  a crash never leaves half a store under the final name; a draft that the
  same forecast left is gone on with.

  Args:
    path: where the store goes, ending in .zarr.
    coordinates: variables, attributes, lead times and grid; see
      `input_pipeline.Split`.
    labels: names and times of the examples, on dimension "sample".
    members: ensemble members M.
    attributes: of the whole store.
    frames: lead times that are written together; 0: all.
    about: what a draft must have been made of to be gone on with, plain
      values; None: none is.
    layout: its name; see `stjax.layouts`.

  Raises:
    ConfigError: the layout has no place for such data.
  """

  def __init__(
      self,
      path: pathlib.Path,
      coordinates: xr.Dataset,
      labels: xr.Dataset,
      members: int,
      attributes: dict[str, str],
      layout: str = "stjax",
      frames: int = 0,
      about: dict[str, Any] | None = None,
  ):
    self._path = path
    self.draft = path.with_name(f".{path.name}.draft")
    self._progress = _progress_path(path)
    self._about = json.dumps(about, sort_keys=True)
    self._layout = layouts.build(layout, coordinates, labels, members)
    # Where to go on: example and lead time.
    self.reached = self._find_progress() if about else None
    if self.reached is None:
      self._create(coordinates, members, attributes, frames)
    self._group = zarr.open_group(self.draft, mode="a")

  def _find_progress(self):
    if not (self._progress.exists() and self.draft.exists()):
      return None
    try:
      with np.load(self._progress, allow_pickle=False) as saved:
        same = str(saved["about"]) == self._about
        reached = int(saved["example"]), int(saved["lead"])
    except _UNREADABLE as error:
      logging.warning(
          "%s cannot be read (%s): the forecast begins anew.",
          self._progress,
          error,
      )
      return None
    return reached if same else None

  def _create(self, coordinates, members, attributes, frames):
    """Makes an empty draft."""
    self._progress.unlink(missing_ok=True)
    shutil.rmtree(self.draft, ignore_errors=True)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    frame = self._layout.coords.assign_attrs(attributes)
    # Zarr has a stable type for strings of any length only.
    texts = [n for n, c in frame.coords.items() if c.dtype.kind == "U"]
    frame = frame.assign_coords({n: frame[n].astype(object) for n in texts})
    frame.to_zarr(self.draft, mode="w", consolidated=False)
    group = zarr.open_group(self.draft, mode="a")
    lead = coordinates.sizes["lead_time"]
    frames = min(frames or lead, lead)
    space = coordinates.attrs["spatial_dims"]
    grid = tuple(coordinates.sizes[d] for d in space)
    # Small fields of many members would be as many tiny files.
    together = max(_CHUNK_VALUES // (frames * math.prod(grid)), 1)
    for name, one in self._layout.arrays.items():
      inner = len(one.dims) - len(grid) - self._layout.by_member
      array = group.create_array(
          name,
          shape=one.sizes,
          chunks=(
              *((min(members, together),) if self._layout.by_member else ()),
              *(1, frames, 1)[:inner],  # Starts, lead times, levels.
              *grid,
          ),
          dtype="float32",
          fill_value=float("nan"),
          dimension_names=one.dims,
      )
      array.attrs.update(_plain(dict(one.attrs)))

  def write(self, first: int, forecast: np.ndarray, lead: int = 0) -> None:
    """Writes lead times of examples `first`, `first + 1`, ...

    Args:
      first: number of the first example.
      forecast: [M, B, n, H, W, C] in physical units.
      lead: number of the first lead time.
    """
    rows = slice(first, first + forecast.shape[1])
    leads = slice(lead, lead + forecast.shape[2])
    for name, index, values in self._layout.parts(forecast, rows, leads):
      self._group[name][index] = values

  def keep_progress(
      self, example: int, lead: int, histories: np.ndarray | None
  ) -> None:
    """Remembers how far the draft is written.

    Args:
      example: number of the first example that is not complete.
      lead: lead times of it that are written.
      histories: what the forecast goes on from, where lead is not 0.
    """
    parts = {"about": self._about, "example": example, "lead": lead}
    if histories is not None:
      parts["histories"] = histories
    content = io.BytesIO()
    np.savez(content, **parts)
    files.write_atomically(self._progress, content.getvalue())

  def close(self) -> None:
    """Completes the store and moves it to its place."""
    with warnings.catch_warnings():
      # Not in the Zarr 3 specification yet, but what xarray looks for.
      warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
      zarr.consolidate_metadata(self.draft)
    old = self._path.with_name(f".{self._path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if self._path.exists():
      self._path.rename(old)
    self.draft.rename(self._path)
    self._progress.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
  return {
      k: v.tolist() if isinstance(v, np.generic | np.ndarray) else v
      for k, v in attributes.items()
  }


def forecast(run: run_lib.Run) -> pathlib.Path:
  """Makes forecasts of a split and leaves them as a labelled store.

  They are made and written a piece of lead times at a time, with what is
  needed to go on: the same call after a crash goes on from the last piece.

  Args:
    run: the run; `config.forecast` says which split, checkpoint, horizon and
      how many members.

  Returns:
    The path of the store: variables on (member, init_time or sample,
    lead_time, spatial dims) in physical units, or as `config.forecast.layout`
    has it.

  Raises:
    ConfigError: no checkpoint.
    DataError: the split has no window of this length.
    BlownUp: a forecast is not finite, or `forecast.blow_up` standard
      deviations away from the training mean.
  """
  options = run.config.forecast
  horizon = options.horizon or run.config.data.horizon
  variables = initialise.load_variables(run, run.workdir, options.checkpoint)
  frozen = initialise.frozen(run)
  data = run.forecast_split()
  frames = rollout_lib.piece_frames(
      run, options.batch_size, options.members, horizon, options.lead_chunk
  )
  rollout = rollout_lib.Rollout(
      run, options.batch_size, options.members, horizon, frames
  )
  path = run.workdir / "forecast" / f"{options.split}.zarr"
  store = None
  if jax.process_index() == 0:
    labels = data.labels
    if "lead_time" in labels.dims:
      labels = labels.isel(lead_time=slice(horizon))
    store = ForecastStore(
        path,
        data.coordinates.isel(lead_time=slice(horizon)),
        labels,
        options.members,
        {
            "Conventions": "CF-1.10",
            "source": f"stjax, {run.config.model.name}",
            "normalisation": run.statistics.kind,
        },
        layout=options.layout,
        frames=frames,
        about=_about(run, variables, frames),
    )
  first, lead, histories = _where_to_begin(path, store)
  if first or lead:
    logging.info(
        "Going on with %s from forecast %d, lead time %d", path, first, lead
    )
    data = run.forecast_split(start=first // options.batch_size)
  key = rollout_lib.forecast_key(run.config.seed)
  for batch in data.batches:
    batch = sharding_lib.put_batch(run.as_trained(batch), run.mesh)
    count = min(options.batch_size, data.num_examples - first)
    held = run.method.held(batch)
    if held is not None:
      held = sharding_lib.fetch(held)[:count, None]
    for piece in rollout.pieces(
        variables, frozen, batch, key, lead, histories
    ):
      sound = _sound_leads(piece, count, options.blow_up)
      fields = sharding_lib.fetch(piece.fields)[:, :count, :sound]
      if held is not None:
        fields = np.where(held, np.nan, fields)
      if store is not None:
        store.write(first, fields, piece.lead)
      if sound < piece.fields.shape[2]:
        raise BlownUp(_blown_up(run, data, piece, first, count, sound, path))
      reached = piece.lead + sound
      if reached < horizon:
        histories = sharding_lib.fetch(piece.histories)
        if store is not None:
          store.keep_progress(first, reached, histories)
        logging.info(
            "Forecasts %d to %d of %d: %d of %d lead times",
            first + 1,
            first + count,
            data.num_examples,
            reached,
            horizon,
        )
    first, lead, histories = first + count, 0, None
    if store is not None and first < data.num_examples:
      store.keep_progress(first, 0, None)
  if store is not None:
    store.close()
    if horizon > run.config.data.horizon:
      drift.report(run, path)
  logging.info(
      "%d forecasts of %d frames, %d member(s): %s",
      data.num_examples,
      horizon,
      options.members,
      path,
  )
  return path


def _about(run: run_lib.Run, variables: PyTree, frames: int) -> dict:
  """What makes two forecasts the same."""
  config = config_lib.plain(run.config)
  parts = ("seed", "precision", "method", "model", "data", "forecast")
  return {name: config[name] for name in parts} | {
      "frames": frames,
      # Of the weights, wherever they came from.
      "norm": float(optax.tree.norm(variables["params"])),
  }


def _where_to_begin(
    path: pathlib.Path, store: ForecastStore | None
) -> tuple[int, int, np.ndarray | None]:
  """Example, lead time and histories that a draft was left at."""
  reached = (0, 0)
  if store is not None and store.reached:
    reached = store.reached
  if jax.process_count() > 1:
    example, lead = multihost_utils.broadcast_one_to_all(np.asarray(reached))
    reached = int(example), int(lead)
  return *reached, _read_histories(path) if reached[1] else None


def _sound_leads(piece: rollout_lib.Piece, count: int, limit: float) -> int:
  """How many lead times of a piece come before a blow-up."""
  extreme = sharding_lib.fetch(piece.extreme)[:, :count]
  # Written so that NaN is beyond the limit too.
  sound = extreme < (limit or np.inf)
  sound = sound.all(axis=(0, 1, 3))
  return len(sound) if sound.all() else int(np.argmin(sound))


def _blown_up(run, data, piece, first, count, sound, path) -> str:
  """Says which forecast blew up, and when."""
  extreme = sharding_lib.fetch(piece.extreme)[:, :count, sound]
  beyond = ~(extreme < (run.config.forecast.blow_up or np.inf))
  member, row, channel = np.argwhere(beyond)[0]
  lead = piece.lead + sound
  name = list(data.coordinates.data_vars)[channel]
  label = tables.lead_labels(data.coordinates.lead_time.values)[lead]
  start = data.labels.isel(sample=first + int(row))
  when = start.get("init_time", start["start"]).values
  distance = extreme[member, row, channel]
  return (
      f"the forecast from {when} blew up at lead time {label} (frame"
      f" {lead + 1}): member {member} of {name!r} is {distance:.3g} standard"
      f" deviations from its training mean (forecast.blow_up="
      f"{run.config.forecast.blow_up:g}). What came before is in"
      f" {path.with_name(f'.{path.name}.draft')}. Shorten forecast.horizon, or"
      " train for longer rollouts (docs/rollouts.md)."
  )
