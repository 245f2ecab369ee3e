"""From a data config to batches: read, normalise, shard, prefetch, resume."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
import xarray as xr
from absl import flags

from input_pipeline import (
  augment,
  calendar,
  errors,
  forcings,
  labels,
  normalise,
  options,
  training,
  windows,
)
from input_pipeline.stores import base

_ENDLESS = 2**62  # Batches of a series without an end.


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One split of a data set.

  Attributes:
    batches: grain data set of dicts of numpy arrays, the rows of this process
      of each global batch (B below is batch_size / process_count):
      inputs [B, T_in, H, W, C] and targets [B, T_out, H, W, C] float32 in
      normalised units; mask [B, T_in + T_out, H, W, C] bool, True where
      observed, when data.missing is "mask" (missing values are 0); time
      [B, T_in + T_out] int64 seconds since 1970 when there is a time axis;
      calendar [B, T_in + T_out, K] int32, the columns of data.calendar in
      their order, when there are any; forcings [B, T_in + T_out, H, W, F]
      float32, the variables of data.forcings in units of their own standard
      deviations, 0 where missing, when there are any;
      index [B] int32, position in the split (in the whole one where only every
      so many windows are read); valid [B] bool, False for the
      rows that fill up a last batch.
    num_examples: windows in the split.
    num_batches: batches of one pass, the last may be filled up.
    statistics: of the training split.
    coordinates: xarray template of a forecast: 0-d variables, one a channel,
      with attributes; lead_time and spatial coordinates.
    labels: sample_id, start and, with a time axis, init_time and valid_time
      of each window, on dimension "sample".
    example_shape: shapes of one example, {"inputs": (T_in, H, W, C),
      "targets": (T_out, H, W, C)}.
    calendar_sizes: number of values of each column of data.calendar.
    calendar_names: the columns.
    forcing_statistics: of the forcings in the training split, if there are any.
  """

  batches: grain.IterDataset
  num_examples: int
  num_batches: int
  statistics: normalise.Statistics
  coordinates: xr.Dataset
  labels: xr.Dataset
  example_shape: dict[str, tuple[int, ...]]
  calendar_sizes: tuple[int, ...] = ()
  calendar_names: tuple[str, ...] = ()
  forcing_statistics: normalise.Statistics | None = None


def build(
  data_config: Mapping[str, Any],
  split: str,
  *,
  batch_size: int,
  seed: int = 0,
  train: bool | None = None,
  process_index: int = 0,
  process_count: int = 1,
  start: int = 0,
  statistics: normalise.Statistics | None = None,
  cache_dir: str | os.PathLike | None = None,
  every: int = 1,
  targets: bool = True,
  beyond: int = 0,
  forcing_statistics: normalise.Statistics | None = None,
) -> Split:
  """Builds one split of a data set.

  Args:
    data_config: plain values, keys as in `defaults(store)`.
    split: "train", "validation" or "test".
    batch_size: rows of a global batch, over all processes.
    seed: of the shuffling.
    train: whether batches are shuffled anew in every epoch and go on for
      ever, straddling epochs, so that no window is dropped or repeated early;
      else one pass in order, the last batch filled up with invalid rows.
      Default: only for the training split.
    process_index: which process this is.
    process_count: how many processes share each batch.
    start: number of the first batch; the batches from there on are those of
      an uninterrupted run, and none before is read.
    statistics: of the training split, if known; else they are computed.
    cache_dir: folder for prepared copies and statistics.
    every: only every so many windows of the split are in it, beginning with
      the first; statistics are still of the whole training split.
    targets: whether targets are read; else they are [B, 0, H, W, C], and the
      mask ends with the inputs. Time, calendar and forcings go on to the
      horizon.
    beyond: without targets: frames that a window may reach beyond the end of
      its sequence.
    forcing_statistics: of the forcings in the training split, if known.

  Raises:
    DataError: for settings or data that cannot be used.
  """
  resolved = options.resolve(data_config)
  train = split == "train" if train is None else train
  _check(resolved, batch_size, process_index, process_count, start, seed, every)
  if beyond and targets:
    raise errors.DataError(
      f"beyond={beyond} needs targets=False: there are none to read."
    )
  cache_dir = os.fspath(cache_dir) if cache_dir else None
  source = training.open_store(resolved, cache_dir)
  whole = windows.make(source, split, **training.cutting(resolved), beyond=beyond)
  mine = whole.every(every)
  boundary = forcings.make(source, resolved, forcing_statistics, cache_dir)
  if boundary:
    boundary.reach(whole)
  if beyond:
    source = base.Continued(source, functools.partial(windows.continued, frames=beyond))
  days = calendar.make(source, resolved["calendar"], resolved["slots_per_day"])
  if statistics is None:
    statistics = training.compute_statistics(source, resolved, cache_dir)
  training.check_statistics(statistics, source)
  space = source.space
  height, width = (space.sizes[dim] for dim in space.attrs["spatial_dims"])
  frame = (height, width, len(source.variables))
  operations = tuple(resolved["augment"])
  augment.check(operations, height, width)
  indices, num_batches = _batch_indices(
    len(mine), batch_size, seed if train else None, start
  )
  rows = batch_size // process_count
  batches = indices.map(
    _Read(
      source,
      mine,
      resolved["history"],
      statistics,
      resolved["missing"] == "mask",
      frame,
      slice(process_index * rows, (process_index + 1) * rows),
      operations if train else (),
      seed,
      days,
      every,
      targets,
      boundary,
    )
  )
  return Split(
    batches=_prefetched(batches, **resolved["loader"]),
    num_examples=len(mine),
    num_batches=num_batches,
    statistics=statistics,
    coordinates=labels.coordinates(source, resolved["horizon"]),
    # Named as in the whole split, whatever is read of it.
    labels=labels.labels(source, whole, resolved["history"]).isel(
      sample=slice(None, None, every)
    ),
    example_shape={
      "inputs": (resolved["history"], *frame),
      "targets": (resolved["horizon"], *frame),
    },
    calendar_sizes=days.sizes,
    calendar_names=days.columns,
    forcing_statistics=boundary.statistics if boundary else None,
  )


class _Read:
  """Reads this process's rows of a batch of window numbers."""

  def __init__(
    self,
    store,
    cut,
    history,
    statistics,
    mask,
    frame,
    rows,
    operations,
    seed,
    days,
    every,
    targets,
    boundary,
  ):
    self._store = store
    self._windows = cut
    self._history = history
    self._statistics = statistics
    self._mask = mask
    self._frame = frame
    self._rows = rows
    self._every = every
    self._length = cut.length if targets else history
    self._operations = operations
    self._seed = seed
    self._calendar = days
    self._forcings = boundary
    self._timed = store.times(0) is not None

  def __call__(self, batch: tuple[np.ndarray, np.ndarray, np.ndarray]):
    index, valid, position = (part[self._rows] for part in batch)
    cut, history, size = self._windows, self._history, len(index)
    inputs = np.empty((size, history, *self._frame), np.float32)
    targets = np.empty((size, self._length - history, *self._frame), np.float32)
    time = np.empty((size, cut.length), np.int64)
    columns = self._calendar.columns
    days = np.empty((size, cut.length, len(columns)), np.int32)
    known = []
    for row, window in enumerate(index):
      sequence, start = int(cut.sequence[window]), int(cut.start[window])
      frames = self._store.read(sequence, start, start + self._length)
      place = int(position[row])
      frames = self._moved(frames, place)
      if self._forcings:
        known.append(self._moved(self._known(sequence, start), place))
      inputs[row], targets[row] = frames[:history], frames[history:]
      if self._timed:
        time[row] = self._store.times(sequence)[start : start + cut.length]
      if columns:
        days[row] = self._calendar.frames(sequence, start, start + cut.length)
    observed = []
    for part, first in ((inputs, 0), (targets, history)):
      normalise.forward_in_place(self._statistics, part)
      # Only now: log1p has no value for what lies below -1.
      finite = np.isfinite(part)
      if not self._mask and not finite.all():
        self._complain(index, first, finite)
      if self._mask:
        part[~finite] = 0
        observed.append(finite)
    result = {
      "inputs": inputs,
      "targets": targets,
      "index": (index * self._every).astype(np.int32),
      "valid": valid,
    }
    if self._mask:
      result["mask"] = np.concatenate(observed, axis=1)
    if self._timed:
      result["time"] = time
    if columns:
      result["calendar"] = days
    if known:
      result["forcings"] = np.stack(known)
    return result

  def _moved(self, frames: np.ndarray, position: int) -> np.ndarray:
    """Frames of the example at this place in the series, augmented."""
    if not self._operations:
      return frames
    return augment.apply(frames, self._operations, self._seed, position)

  def _known(self, sequence: int, start: int) -> np.ndarray:
    """The forcings of a window [T_in + T_out, H, W, F], 0 where missing."""
    frames = self._forcings.read(sequence, start, start + self._windows.length)
    finite = np.isfinite(frames)
    if not self._mask and not finite.all():
      raise training.not_finite(self._forcings.store, sequence, start, finite)
    return np.where(finite, frames, np.float32(0))

  def _complain(self, index, first, finite):
    row = int(np.argwhere(~finite)[0, 0])
    window = index[row]
    raise training.not_finite(
      self._store,
      int(self._windows.sequence[window]),
      first + int(self._windows.start[window]),
      finite[row],
    )


class _InOrder:
  """Window numbers of a batch of one pass, valid rows, places in it."""

  def __init__(self, num_examples: int, batch_size: int):
    self._num_examples = num_examples
    self._batch_size = batch_size

  def __call__(self, batch: int) -> tuple[np.ndarray, ...]:
    index = batch * self._batch_size + np.arange(self._batch_size)
    valid = index < self._num_examples
    return np.minimum(index, self._num_examples - 1), valid, index


class _Shuffled:
  """Window numbers of a batch of an endless, per-epoch shuffled series.

  One permutation per epoch instead of grain's `shuffle`, which walks to each
  index on its own: over 1 ms an index for a few dozen windows, more than
  reading them. RandomState's streams are frozen by numpy (NEP 19).
  """

  def __init__(self, num_examples: int, batch_size: int, seed: int):
    self._num_examples = num_examples
    self._batch_size = batch_size
    self._seed = seed
    self._latest = {}

  def __call__(self, batch: int) -> tuple[np.ndarray, ...]:
    position = batch * self._batch_size + np.arange(self._batch_size)
    epoch, place = np.divmod(position, self._num_examples)
    index = np.empty(self._batch_size, np.int64)
    for number in range(int(epoch[0]), int(epoch[-1]) + 1):
      index[epoch == number] = self._permutation(number)[place[epoch == number]]
    return index, np.ones(self._batch_size, bool), position

  def _permutation(self, epoch: int) -> np.ndarray:
    found = self._latest.get(epoch)
    if found is None:
      stream = np.random.MT19937(np.random.SeedSequence([self._seed, epoch]))
      found = np.random.RandomState(stream).permutation(self._num_examples)
      # Two epochs are kept: a batch may straddle them. The dict is replaced,
      # never changed, as other threads may be reading it.
      self._latest = dict([*self._latest.items()][-1:] + [(epoch, found)])
    return found


def _batch_indices(num_examples, batch_size, seed, start):
  """Data set of (window numbers, valid, position) [batch]; batches a pass."""
  num_batches = -(-num_examples // batch_size)
  if seed is None:
    numbers = grain.MapDataset.range(min(start, num_batches), num_batches)
    return numbers.map(_InOrder(num_examples, batch_size)), num_batches
  numbers = grain.MapDataset.range(start, _ENDLESS)
  return numbers.map(_Shuffled(num_examples, batch_size, seed)), num_batches


def _prefetched(batches, threads: int, prefetch: int, workers: int):
  options_ = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=prefetch if threads else 0
  )
  result = batches.to_iter_dataset(options_)
  if workers:
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags.
      flags.FLAGS.mark_as_parsed()
    result = result.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=max(prefetch, 1)
      )
    )
  return result


def _check(resolved, batch_size, process_index, process_count, start, seed, every):
  if batch_size < 1 or batch_size % process_count:
    raise errors.DataError(
      f"A global batch of {batch_size} cannot be shared by {process_count} "
      "processes; expected a multiple. Change the batch size."
    )
  if not 0 <= process_index < process_count:
    raise errors.DataError(
      f"process_index={process_index}; expected 0 to {process_count - 1}."
    )
  for name, value in (("start", start), ("seed", seed)):
    if value < 0:
      raise errors.DataError(f"{name}={value}; expected a number from 0.")
  if not isinstance(every, int) or every < 1:
    raise errors.DataError(f"every={every!r}; expected a number from 1.")
  training.check(resolved)
  if resolved["missing"] not in ("error", "mask"):
    raise errors.unknown(
      "treatment of missing values (data.missing)",
      resolved["missing"],
      ("error", "mask"),
    )
  for key, value in resolved["loader"].items():
    if not isinstance(value, int) or value < 0:
      raise errors.DataError(
        f"data.loader.{key}={value!r}; expected a whole number from 0."
      )
