"""The command that forecasts, and leaves the forecasts in a labelled store."""

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
from stjax.forecasting import cf, chunks, layouts, observed, stability
from stjax.forecasting import store as store_lib
from stjax.run import run as run_lib
from stjax.run import sources

PyTree = Any


class BlownUp(RuntimeError):
  """A forecast is not finite, or far beyond everything that was observed."""


def check(run: run_lib.Run, splits: bool) -> None:
  """Finds errors before the training that would end the forecast afterwards.

  Args:
    run: the run.
    splits: whether to open the split that is forecast, too.

  Raises:
    ConfigError: the layout has no place for such data.
    DataError: the split has no window of this length.
  """
  options = run.config.forecast
  layouts.build(options.layout, run.coordinates, run.labels, options.members)
  if splits:
    run.forecast_split()


def forecast(run: run_lib.Run) -> pathlib.Path:
  """Makes forecasts of a split, and writes them to a labelled store.

  They are made and written a piece of lead times at a time, and the frames that
  the next piece needs are kept as well. After a crash, the same call goes on
  from the last piece.

  Args:
    run: the run, whose `config.forecast` names the split, the checkpoint, the
      horizon and the number of members.

  Returns:
    The path of the store. Its layout is that of `config.forecast.layout`; by
    default, variables are on (member, init_time or sample, lead_time, spatial
    dims), in physical units.

  Raises:
    ConfigError: there is no checkpoint.
    DataError: the split has no window of this length.
    BlownUp: a forecast is not finite, or is `forecast.abort_above_std` standard
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
  ending = store_lib.ENDINGS[options.format]
  path = run.workdir / "forecast" / f"{options.split}{ending}"
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
      _describe(run),
      layout=options.layout,
      frames=frames,
      about=_about(run, variables, frames),
    )
  first, lead, histories = _where_to_begin(path, store)
  if first or lead:
    logging.info(
      "The run goes on with %s from forecast %d, lead time %d", path, first, lead
    )
    data = run.forecast_split(start=first // options.batch_size)
  never = None
  if store is not None:
    never = observed.never_observed(run)
  key = chunks.forecast_key(run.config.seed)
  for batch in data.batches:
    batch = sharding_lib.put_batch(run.crop_to_training_window(batch), run.mesh)
    # The last batch may be filled up with rows that are no examples.
    count = min(options.batch_size, data.num_examples - first)
    undefined = run.method.undefined_mask(batch)
    if undefined is not None:
      undefined = sharding_lib.fetch(undefined)[:count, None]
    if "mask" in batch:
      history = batch["mask"][:, : batch["inputs"].shape[1]].any(axis=1)
      history = sharding_lib.fetch(history)[:count, None]
      if never is not None:
        unseen = never & ~history
        undefined = unseen if undefined is None else undefined | unseen
    for piece in rollout.pieces(variables, frozen, batch, key, lead, histories):
      sound = _sound_leads(piece, count, options.abort_above_std)
      fields = sharding_lib.fetch(piece.fields)[:, :count, :sound]
      if undefined is not None:
        fields = np.where(undefined, np.nan, fields)
      if store is not None:
        store.write(first, fields, piece.lead)
      # The lead times before the blow-up are written first, so that they can be
      # looked at.
      if sound < piece.fields.shape[2]:
        raise BlownUp(_blown_up(run, data, piece, first, count, sound, path))
      reached = piece.lead + sound
      if reached < horizon:
        histories = sharding_lib.fetch(piece.histories)
        if store is not None:
          store.keep_progress(first, reached, histories)
        logging.info(
          "Forecasts %d to %d of %d have %d of %d lead times",
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
    "%d forecasts of %d frames and %d member(s) are in %s",
    data.num_examples,
    horizon,
    options.members,
    path,
  )
  return path


def _describe(run: run_lib.Run) -> dict[str, str]:
  """Returns the attributes of a whole store; they name no place on this machine."""
  config, options = run.config, run.config.forecast
  names = list(map(str, run.coordinates.data_vars))
  more = f" and {len(names) - 4} more" if len(names) > 4 else ""
  return {
    "Conventions": cf.CONVENTIONS,
    "title": f"Forecasts of {', '.join(names[:4])}{more}",
    "source": f"stjax, {config.model.name}",
    "history": f"stjax: forecasts from the {options.split} split by the"
    f" {options.checkpoint} checkpoint of method {config.method.name}, network"
    f" {config.model.name}, with {options.members} member(s) and seed {config.seed}",
    "normalisation": run.statistics.kind,
  }


def _about(run: run_lib.Run, variables: PyTree, frames: int) -> dict:
  """Returns the plain values that make two forecasts the same."""
  config = config_lib.plain(run.config)
  parts = ("seed", "precision", "method", "model", "data", "forecast")
  return {name: config[name] for name in parts} | {
    "frames": frames,
    # Two sets of weights hardly ever have the same norm, whichever file each
    # came from.
    "norm": float(optax.tree.norm(variables["params"])),
  }


def _where_to_begin(
  path: pathlib.Path, store: store_lib.ForecastStore | None
) -> tuple[int, int, np.ndarray | None]:
  """Returns the example, lead time and histories that a draft goes on from."""
  reached = (0, 0)
  if store is not None and store.reached:
    reached = store.reached
  if jax.process_count() > 1:
    example, lead = multihost_utils.broadcast_one_to_all(np.asarray(reached))
    reached = int(example), int(lead)
  return *reached, store_lib.read_histories(path) if reached[1] else None


def _sound_leads(piece: chunks.Piece, count: int, limit: float) -> int:
  """Returns the number of lead times of a piece before a blow-up."""
  extreme = sharding_lib.fetch(piece.extreme)[:, :count]
  # In this form, NaN is not within the limit.
  sound = extreme < (limit or np.inf)
  sound = sound.all(axis=(0, 1, 3))
  return len(sound) if sound.all() else int(np.argmin(sound))


def _blown_up(run, data, piece, first, count, sound, path) -> str:
  """Returns the message that says which forecast blew up, and when."""
  extreme = sharding_lib.fetch(piece.extreme)[:, :count, sound]
  beyond = ~(extreme < (run.config.forecast.abort_above_std or np.inf))
  member, row, channel = np.argwhere(beyond)[0]
  lead = piece.lead + sound
  name = list(data.coordinates.data_vars)[channel]
  label = lead_labels(data.coordinates.lead_time)[lead]
  start = data.labels.isel(sample=first + int(row))
  when = start.get("init_time", start["start"]).values
  distance = extreme[member, row, channel]
  return (
    f"The forecast from {when} blew up at lead time {label} (frame"
    f" {lead + 1}): member {member} of {name!r} is {distance:.3g} standard"
    f" deviations from its training mean (forecast.abort_above_std="
    f"{run.config.forecast.abort_above_std:g}). The lead times before it are in"
    f" {path.with_name(f'.{path.name}.draft')}. Shorten forecast.horizon, or"
    " train for longer rollouts (docs/rollouts.md)."
  )
