"""Labelled forecasts: a checkpoint and initial conditions -> a Zarr store."""

import pathlib
from typing import Any

import jax
import numpy as np
import optax
from absl import logging
from jax.experimental import multihost_utils

from input_pipeline.labels import lead_labels
from stjax import config as config_lib
from stjax import sharding as sharding_lib
from stjax.forecasting import chunks, layouts, stability
from stjax.forecasting import store as store_lib
from stjax.run import run as run_lib
from stjax.run import sources

PyTree = Any


class BlownUp(RuntimeError):
  """A forecast left everything that was ever observed."""


def check(run: run_lib.Run, splits: bool) -> None:
  """Refuses at once what the forecast would be refused for at the very end.

  Args:
    run: the run.
    splits: whether to open the split that is forecast, too.

  Raises:
    ConfigError: the layout has no place for such data.
    DataError: the split has no window of the wanted length.
  """
  options = run.config.forecast
  layouts.build(options.layout, run.coordinates, run.labels, options.members)
  if splits:
    run.forecast_split()


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
    BlownUp: a forecast is not finite, or `forecast.abort_above_std` standard
      deviations away from the training mean.
  """
  options = run.config.forecast
  horizon = options.horizon or run.config.data.horizon
  variables = sources.load_variables(run, run.workdir, options.checkpoint)
  frozen = sources.frozen(run, training=False)
  data = run.forecast_split()
  frames = chunks.piece_frames(
    run, options.batch_size, options.members, horizon, options.lead_chunk
  )
  rollout = chunks.Rollout(run, options.batch_size, options.members, horizon, frames)
  path = run.workdir / "forecast" / f"{options.split}.zarr"
  store = None
  if jax.process_index() == 0:
    labels = data.labels
    if "lead_time" in labels.dims:
      labels = labels.isel(lead_time=slice(horizon))
    store = store_lib.ForecastStore(
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
    logging.info("Going on with %s from forecast %d, lead time %d", path, first, lead)
    data = run.forecast_split(start=first // options.batch_size)
  key = chunks.forecast_key(run.config.seed)
  for batch in data.batches:
    batch = sharding_lib.put_batch(run.crop_to_training_window(batch), run.mesh)
    count = min(options.batch_size, data.num_examples - first)
    undefined = run.method.undefined_mask(batch)
    if undefined is not None:
      undefined = sharding_lib.fetch(undefined)[:count, None]
    for piece in rollout.pieces(variables, frozen, batch, key, lead, histories):
      sound = _sound_leads(piece, count, options.abort_above_std)
      fields = sharding_lib.fetch(piece.fields)[:, :count, :sound]
      if undefined is not None:
        fields = np.where(undefined, np.nan, fields)
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
      stability.report(run, path)
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
  path: pathlib.Path, store: store_lib.ForecastStore | None
) -> tuple[int, int, np.ndarray | None]:
  """Example, lead time and histories that a draft was left at."""
  reached = (0, 0)
  if store is not None and store.reached:
    reached = store.reached
  if jax.process_count() > 1:
    example, lead = multihost_utils.broadcast_one_to_all(np.asarray(reached))
    reached = int(example), int(lead)
  return *reached, store_lib.read_histories(path) if reached[1] else None


def _sound_leads(piece: chunks.Piece, count: int, limit: float) -> int:
  """How many lead times of a piece come before a blow-up."""
  extreme = sharding_lib.fetch(piece.extreme)[:, :count]
  # Written so that NaN is beyond the limit too.
  sound = extreme < (limit or np.inf)
  sound = sound.all(axis=(0, 1, 3))
  return len(sound) if sound.all() else int(np.argmin(sound))


def _blown_up(run, data, piece, first, count, sound, path) -> str:
  """Says which forecast blew up, and when."""
  extreme = sharding_lib.fetch(piece.extreme)[:, :count, sound]
  beyond = ~(extreme < (run.config.forecast.abort_above_std or np.inf))
  member, row, channel = np.argwhere(beyond)[0]
  lead = piece.lead + sound
  name = list(data.coordinates.data_vars)[channel]
  label = lead_labels(data.coordinates.lead_time.values)[lead]
  start = data.labels.isel(sample=first + int(row))
  when = start.get("init_time", start["start"]).values
  distance = extreme[member, row, channel]
  return (
    f"the forecast from {when} blew up at lead time {label} (frame"
    f" {lead + 1}): member {member} of {name!r} is {distance:.3g} standard"
    f" deviations from its training mean (forecast.abort_above_std="
    f"{run.config.forecast.abort_above_std:g}). What came before is in"
    f" {path.with_name(f'.{path.name}.draft')}. Shorten forecast.horizon, or"
    " train for longer rollouts (docs/rollouts.md)."
  )
