"""Climatology: what each place is like on average at each calendar cell."""
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import cache, calendar, errors, options, training
from input_pipeline.stores import base


def cell_index(columns: Any, sizes: Sequence[int]) -> Any:
  """The number of the calendar cell, the last column counting fastest.

  Args:
    columns: [..., K] whole numbers, such as a batch's `calendar`; numpy or
      jax.numpy, also under jit.
    sizes: how many values each of the K columns has (Split.calendar_sizes).

  Returns:
    [...] from 0 to the product of the sizes less 1.
  """
  index = columns[..., 0]
  for k, size in enumerate(sizes[1:], start=1):
    index = index * size + columns[..., k]
  return index


def climatology(
    data_config: Mapping[str, Any],
    columns: str | Sequence[str] = (),
    *,
    cache_dir: str | os.PathLike | None = None,
) -> np.ndarray:
  """Training mean of each place and variable by calendar cell.

  One pass over the frames that the statistics are made of
  (data.statistics.frames), a few at a time.

  Args:
    data_config: plain values, keys as in `defaults(store)`.
    columns: calendar columns that make up the cells, also others than those of
      data.calendar; () takes those.
    cache_dir: folder for prepared copies, where the result is kept too.

  Returns:
    float32 [product of the columns' sizes, H, W, C] in physical units; cells
    as `cell_index` numbers them. A cell that training never saw at a place has
    the mean there over all cells of the same first column; else the mean of
    the place; a place never observed has the mean of its variable.

  Raises:
    DataError: without columns, or for settings or data that cannot be used.
  """
  resolved = options.resolve(data_config)
  training.check(resolved)
  cache_dir = os.fspath(cache_dir) if cache_dir else None
  store = training.open_store(resolved, cache_dir)
  columns = base.as_names(columns or resolved["calendar"])
  if not columns:
    raise errors.DataError(
        "A climatology needs calendar columns, but data.calendar is empty. "
        f"Give some of {', '.join(calendar.COLUMNS)}.")
  slots = resolved["slots_per_day"]
  if not {"slot_of_day", "day_of_week"} & set(columns):
    slots = 0
  days = calendar.make(store, columns, slots)
  path = training.kept_path("climatology", "npy", store, resolved, cache_dir,
                            columns, slots, "unseen as first column")
  if path and os.path.exists(path):
    return np.load(path, allow_pickle=False)
  found = _means(store, resolved, days)
  if path:
    cache.write_array(path, found)
  return found


def _means(store, resolved, days: calendar.Calendar) -> np.ndarray:
  height, width = (store.space.sizes[d]
                   for d in store.space.attrs["spatial_dims"])
  shape = (int(np.prod(days.sizes)), height, width, len(store.variables))
  total, count = np.zeros(shape), np.zeros(shape, np.int32)
  pieces = training.runs(store, resolved)
  checked = resolved["missing"] == "error"
  for sequence, low, frames in training.chunks(store, pieces, checked):
    cells = cell_index(days.frames(sequence, low, low + len(frames)),
                       days.sizes)
    for cell, frame in zip(cells.tolist(), frames, strict=True):
      observed = np.isfinite(frame)
      total[cell] += np.where(observed, frame, 0)
      count[cell] += observed
  place_total, place_count = total.sum(0), count.sum(0, dtype=np.int64)
  variable = place_total.sum((0, 1)) / np.maximum(place_count.sum((0, 1)), 1)
  for c in np.flatnonzero(place_count.sum((0, 1)) == 0):
    raise errors.DataError(
        f"Variable {store.variables[c].name!r} has no observed value in the "
        "training split; expected at least one. Check data.variables, "
        "data.split and the missing-value code of the file.")
  place = np.where(place_count > 0, place_total / np.maximum(place_count, 1),
                   variable)
  wider_count = _by_first(count, days.sizes)
  wider = np.where(wider_count > 0,
                   _by_first(total, days.sizes) / np.maximum(wider_count, 1),
                   place)
  others = shape[0] // days.sizes[0]
  for cell in range(shape[0]):  # In place: this may be large.
    np.divide(total[cell], count[cell], out=total[cell], where=count[cell] > 0)
    np.copyto(total[cell], wider[cell // others], where=count[cell] == 0)
  return total.astype(np.float32)


def _by_first(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
  """Sums [cells, ...] over all columns but the first."""
  return values.reshape(sizes[0], -1, *values.shape[1:]).sum(1)
