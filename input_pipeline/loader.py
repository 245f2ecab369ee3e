"""From a data config to batches: read, normalise, shard, prefetch, resume."""

import dataclasses
import functools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
import xarray as xr
from absl import flags, logging

from input_pipeline import (
  augment,
  cache,
  calendar,
  errors,
  forcings,
  labels,
  normalise,
  options,
  quality,
  static,
  training,
  windows,
)
from input_pipeline import pairs as pairs_lib
from input_pipeline import spec as spec_lib
from input_pipeline.stores import base, missing, moments

_reported: weakref.WeakSet[normalise.Statistics] = weakref.WeakSet()
# What Split.review reads at least, and at most of a copy.
_REVIEWED_FRAMES, _REVIEWED_CELLS = 64, 50_000_000
_ENDLESS = 2**62  # Batches of a series without an end.


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One split of a data set.

  Attributes:
    batches: grain data set of dicts of numpy arrays, the rows of this process
      of each global batch: batch_size / process_count of them. What they hold
      is declared by `spec` and explained in `input_pipeline.spec.KEYS`.
    spec: names, shapes, types and axes of the arrays of a batch.
    num_examples: windows in the split.
    num_batches: batches of one pass, the last may be filled up.
    statistics: of the training split.
    coordinates: xarray template of a forecast: 0-d variables, one a channel,
      with attributes; lead_time and spatial coordinates.
    labels: sample_id, start and, with a time axis, init_time and valid_time
      of each window, on dimension "sample".
    forcing_statistics: of the forcings in the training split, if there are any.
    static_statistics: of the static fields over the grid, if there are any.
    review: () -> sentences on variables that have no observation among the targets
      of the split, one value only, or values that look like codes for missing. Of
      frames that lie in memory or in a prepared copy it reads all, up to 50 million
      cells; else 64 frames from all over the split, and further ones only until each
      variable has an observation. It raises DataError for a missing value among them
      where data.missing is "error".
  """

  batches: grain.IterDataset
  spec: spec_lib.Spec
  num_examples: int
  num_batches: int
  statistics: normalise.Statistics
  coordinates: xr.Dataset
  labels: xr.Dataset
  forcing_statistics: normalise.Statistics | None = None
  static_statistics: normalise.Statistics | None = None
  review: Callable[[], list[str]] = list


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
  static_statistics: normalise.Statistics | None = None,
) -> Split:
  """Builds one split of a data set.

  Args:
    data_config: plain values, keys as in `defaults(store)`.
    split: "train", "validation", "test" or "preference". With data.pairs, batches
      of the training are the windows that have a pair, of the split that the pairs
      are of; batches of another split that has pairs hold all its windows.
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
    every: the split holds only every n-th of its windows, beginning with
      the first; statistics are still of the whole training split.
    targets: whether targets are read; else they are [B, 0, H, W, C], and the
      mask ends with the inputs. Time, calendar and forcings go on to the
      horizon.
    beyond: without targets: frames that a window may reach beyond the end of
      its sequence.
    forcing_statistics: of the forcings in the training split, if known.
    static_statistics: of the static fields, if known.

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
  pairs = None
  if resolved["pairs"] and targets and (train or split != "train"):
    pairs = pairs_lib.read(resolved["pairs"], split)
    split = pairs.split if pairs else split
  whole = windows.make(source, split, **training.cutting(resolved), beyond=beyond)
  numbers = np.arange(0, len(whole), every)
  boundary = forcings.make(source, resolved, forcing_statistics, cache_dir)
  if boundary:
    boundary.reach(whole)
  fixed = static.make(source, resolved, static_statistics)
  if beyond:
    calendar_name = source.space.attrs.get("calendar", "")
    source = base.Continued(
      source,
      functools.partial(windows.continued, frames=beyond, calendar=calendar_name),
    )
  named = labels.labels(source, whole, resolved["history"])
  days = calendar.make(source, resolved["calendar"], resolved["slots_per_day"])
  if statistics is None:
    statistics = training.compute_statistics(source, resolved, cache_dir)
  training.check_statistics(statistics, source.names)
  if process_index == 0:
    for known in (boundary, fixed):
      if known:
        _report(known.statistics)
    _report(statistics, source)
  if pairs:
    pairs_lib.check(pairs, resolved, named, statistics)
    if train:
      numbers = np.asarray(sorted(pairs.numbers))
      logging.info(
        "Training reads the %d of %d windows of the %s split that have a pair in %s",
        len(numbers),
        len(whole),
        split,
        pairs.folder,
      )
  space = source.space
  height, width = (space.sizes[dim] for dim in space.attrs["spatial_dims"])
  operations = tuple(resolved["augment"])
  augment.check(operations, height, width)
  indices, num_batches = _batch_indices(
    len(numbers), batch_size, seed if train else None, start
  )
  optional = {
    "mask": resolved["missing"] == "mask",
    "time": source.times(0) is not None,
    "calendar": bool(days.columns),
    "forcings": boundary is not None,
    "static": fixed is not None,
    **dict.fromkeys(spec_lib.PAIR_KEYS, pairs is not None),
  }
  spec = spec_lib.Spec(
    keys=tuple(name for name in spec_lib.KEYS if optional.get(name, True)),
    history=resolved["history"],
    horizon=resolved["horizon"],
    sizes={
      "height": height,
      "width": width,
      "variable": len(source.variables),
      "column": len(days.columns),
      "forcing": len(boundary.store.variables) if boundary else 0,
      "static": fixed.fields.shape[-1] if fixed else 0,
    },
    calendar=dict(zip(days.columns, days.sizes, strict=True)),
    targets=targets,
  )
  rows = batch_size // process_count
  read = _Read(
    store=source,
    windows=whole,
    numbers=numbers,
    spec=spec,
    rows=slice(process_index * rows, (process_index + 1) * rows),
    statistics=statistics,
    calendar=days,
    forcings=boundary,
    static=fixed,
    pairs=pairs,
    augment=operations if train else (),
    seed=seed,
  )
  return Split(
    batches=_prefetched(indices.map(read), **resolved["loader"]),
    spec=spec,
    num_examples=len(numbers),
    num_batches=num_batches,
    statistics=statistics,
    coordinates=labels.coordinates(source, resolved["horizon"]),
    # Named as in the whole split, whatever is read of it.
    labels=named.isel(sample=numbers),
    forcing_statistics=boundary.statistics if boundary else None,
    static_statistics=fixed.statistics if fixed else None,
    review=functools.partial(
      _review, source, whole, numbers, resolved, statistics, split
    ),
  )


def _review(source, cut, numbers, resolved, statistics, split) -> list[str]:
  """What `Split.review` gives."""
  checked = resolved["missing"] == "error"
  wanted = [np.zeros(source.length(i), bool) for i in range(source.num_sequences)]
  for window in numbers:
    first = int(cut.start[window])
    targets = slice(first + resolved["history"], first + cut.length)
    wanted[int(cut.sequence[window])][targets] = True
  places = [
    (i, int(f)) for i, frames in enumerate(wanted) for f in np.flatnonzero(frames)
  ]
  height, width = (source.space.sizes[d] for d in source.space.attrs["spatial_dims"])
  least = _REVIEWED_FRAMES
  if isinstance(source, cache.CopiedStore):
    least = max(least, _REVIEWED_CELLS // (height * width * len(source.names)))
  least = min(least, len(places))
  watch = quality.Watch(len(source.names))
  for number in np.linspace(0, len(places) - 1, least).astype(int):
    sequence, frame = places[number]
    fields = source.read(sequence, frame, frame + 1)
    if statistics.transform == "log1p":
      fields = np.where(fields > -1, fields, np.float32(np.nan))
    finite = np.isfinite(fields)
    if checked and not finite.all():
      raise training.not_finite(source, sequence, frame, finite)
    for channel, values in enumerate(np.moveaxis(fields, -1, 0)):
      watch.add(channel, values.ravel())
  seen = [watch.seen(c) for c in range(len(source.names))]
  observed = np.array([values.count > 0 for values in seen])
  if not observed.all() and least < len(places):
    for _, _, frames in training.chunks(source, _runs(places), checked):
      observed |= np.isfinite(frames).any((0, 1, 2))
      if observed.all():
        break
    else:
      least = len(places)
  of = f"all {least}" if least == len(places) else f"{least} of the {len(places)}"
  file = training.place(source)
  return [
    f"{file and file + ': '}{note}"
    for name, values, any_ in zip(source.names, seen, observed, strict=True)
    if values.count or not any_
    for note in quality.split_notes(
      name,
      values,
      f"{of} target frames of the {split} split",
      source.declared.get(name, missing.Declared()),
      statistics.notes,
    )
  ]


def _runs(places: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
  """Frames, as (sequence, frame) in order, as (sequence, first, stop)."""
  runs = []
  for sequence, frame in places:
    if runs and runs[-1][0] == sequence and runs[-1][2] == frame:
      runs[-1] = (sequence, runs[-1][1], frame + 1)
    else:
      runs.append((sequence, frame, frame + 1))
  return runs


def _report(statistics: normalise.Statistics, store: base.Store | None = None):
  """Logs, once for each statistics, what is known of the variables.

  Args:
    statistics: of the variables.
    store: their store if each is to get a line of its own.
  """
  if statistics in _reported:
    return
  _reported.add(statistics)
  for line in quality.lines(statistics, store.variables if store else ()):
    logging.info("%s", line)
  for note in statistics.notes:
    logging.warning("%s", note)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Read:
  """Reads this process's rows of a batch of examples.

  `numbers` are the windows that are examples, in order.
  """

  store: base.Store
  windows: windows.Windows
  numbers: np.ndarray
  spec: spec_lib.Spec
  rows: slice
  statistics: normalise.Statistics
  calendar: calendar.Calendar
  forcings: forcings.Forcings | None
  static: static.Static | None
  pairs: pairs_lib.Pairs | None
  augment: tuple[str, ...]
  seed: int

  def __call__(self, batch: tuple[np.ndarray, np.ndarray, np.ndarray]):
    index, valid, position = (part[self.rows] for part in batch)
    index = self.numbers[index]
    result = self.spec.zeros(len(index))
    result["index"][:] = index
    result["valid"][:] = valid
    history = self.spec.history
    length = history + result["targets"].shape[1]
    for row, window in enumerate(index):
      sequence, start = self._place(window)
      stop = start + self.windows.length
      place = int(position[row])
      frames = self._moved(self.store.read(sequence, start, start + length), place)
      result["inputs"][row], result["targets"][row] = frames[:history], frames[history:]
      if "time" in result:
        times = self.store.times(sequence)[start:stop]
        result["time"][row] = times / moments.SECOND
      if "calendar" in result:
        result["calendar"][row] = self.calendar.frames(sequence, start, stop)
      if "forcings" in result:
        known = self._known(sequence, start, stop)
        result["forcings"][row] = self._moved(known, place)
      if self.pairs and int(window) in self.pairs.numbers:
        chosen, rejected = self.pairs.read(int(window))
        result["chosen"][row] = self._moved(chosen, place)
        result["rejected"][row] = self._moved(rejected, place)
        result["paired"][row] = True
    if "static" in result:
      result["static"] = self.static.fields
    for name, first in (("inputs", 0), ("targets", history)):
      part = result[name]
      normalise.forward_in_place(self.statistics, part)
      # Only now: log1p has no value for what lies below -1.
      finite = np.isfinite(part)
      if "mask" in result:
        part[~finite] = 0
        result["mask"][:, first : first + part.shape[1]] = finite
      elif not finite.all():
        row = int(np.argwhere(~finite)[0, 0])
        sequence, start = self._place(index[row])
        raise training.not_finite(self.store, sequence, first + start, finite[row])
    return result

  def _place(self, window: int) -> tuple[int, int]:
    """Sequence and first frame of a window."""
    return int(self.windows.sequence[window]), int(self.windows.start[window])

  def _moved(self, frames: np.ndarray, position: int) -> np.ndarray:
    """Frames of the example at this place in the series, augmented."""
    if not self.augment:
      return frames
    return augment.apply(frames, self.augment, self.seed, position)

  def _known(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """The forcings of a window [T_in + T_out, H, W, F], 0 where missing."""
    frames = self.forcings.read(sequence, start, stop)
    finite = np.isfinite(frames)
    if "mask" not in self.spec.keys and not finite.all():
      raise training.not_finite(self.forcings.store, sequence, start, finite)
    return np.where(finite, frames, np.float32(0))


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
