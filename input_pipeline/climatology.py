"""Climatology: what each place is like at each calendar cell."""

import collections
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import calendar, errors, files, options, training
from input_pipeline.stores import base

# Neighbours of a cell that a quantile takes in, on either side: of a day the
# eleven days around it (Hobday et al. 2016).
_AROUND = {"day_of_year": 5}


def cell_index(columns: Any, sizes: Sequence[int]) -> Any:
  """The number of the calendar cell, the last column counting fastest.

  Args:
    columns: [..., K] whole numbers, such as a batch's `calendar`; numpy or
      jax.numpy, also under jit.
    sizes: how many values each of the K columns has (Split.spec.calendar).

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
  return _kept(
    "climatology", "unseen as first column", _means, data_config, columns, cache_dir
  )


def climatological_quantile(
  data_config: Mapping[str, Any],
  quantile: float,
  columns: str | Sequence[str] = (),
  *,
  cache_dir: str | os.PathLike | None = None,
) -> np.ndarray:
  """Training quantile of each place and variable by calendar cell.

  Of the frames that `climatology` averages, all those of one cell at a time;
  for day_of_year those of the eleven days around it.

  Args:
    data_config: plain values, keys as in `defaults(store)`.
    quantile: between 0 and 1; linear between the two nearest values.
    columns: as for `climatology`.
    cache_dir: folder for prepared copies, where the result is kept too.

  Returns:
    float32 [product of the columns' sizes, H, W, C] in physical units; cells
    as `cell_index` numbers them. NaN where training never saw a place in a
    cell.

  Raises:
    DataError: without columns, or for settings or data that cannot be used.

  Source: Hobday et al. 2016, doi:10.1016/j.pocean.2015.12.014.
  """
  if not 0 < quantile < 1:
    raise errors.DataError(f"quantile={quantile!r}; expected a number between 0 and 1.")
  compute = lambda *given: _quantiles(*given, quantile)
  return _kept(
    "quantiles", [_AROUND, quantile], compute, data_config, columns, cache_dir
  )


def _kept(
  kind: str,
  version: Any,
  compute: Callable[..., np.ndarray],
  data_config: Mapping[str, Any],
  columns: str | Sequence[str],
  cache_dir: str | os.PathLike | None,
) -> np.ndarray:
  """A table by calendar cell: as kept in cache_dir, or computed now.

  Args:
    kind: what it is, the beginning of the file's name.
    version: plain value; another one is computed anew.
    compute: (store, resolved, calendar) -> [cells, H, W, C].
    data_config: as for `climatology`.
    columns: as for `climatology`.
    cache_dir: as for `climatology`.
  """
  resolved = options.resolve(data_config)
  training.check(resolved)
  cache_dir = os.fspath(cache_dir) if cache_dir else None
  store = training.open_store(resolved, cache_dir)
  columns = base.as_names(columns or resolved["calendar"])
  if not columns:
    raise errors.DataError(
      "A climatology needs calendar columns, but data.calendar is empty. "
      f"Give some of {', '.join(calendar.COLUMNS)}."
    )
  slots = resolved["slots_per_day"]
  if not {"slot_of_day", "day_of_week"} & set(columns):
    slots = 0
  days = calendar.make(store, columns, slots)
  path = training.kept_path(
    kind, "npy", store, resolved, cache_dir, columns, slots, version
  )
  if path and os.path.exists(path):
    return np.load(path, allow_pickle=False)
  found = compute(store, resolved, days)
  if path:
    files.write_array(path, found)
  return found


def _table_shape(store, days: calendar.Calendar) -> tuple[int, ...]:
  height, width = (store.space.sizes[d] for d in store.space.attrs["spatial_dims"])
  return int(np.prod(days.sizes)), height, width, len(store.variables)


def _means(store, resolved, days: calendar.Calendar) -> np.ndarray:
  shape = _table_shape(store, days)
  total, count = np.zeros(shape), np.zeros(shape, np.int32)
  pieces = training.runs(store, resolved)
  checked = resolved["missing"] == "error"
  for sequence, low, frames in training.chunks(store, pieces, checked):
    cells = cell_index(days.frames(sequence, low, low + len(frames)), days.sizes)
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
      "data.split and the missing-value code of the file."
    )
  place = np.where(place_count > 0, place_total / np.maximum(place_count, 1), variable)
  wider_count = _by_first(count, days.sizes)
  wider = np.where(
    wider_count > 0, _by_first(total, days.sizes) / np.maximum(wider_count, 1), place
  )
  others = shape[0] // days.sizes[0]
  for cell in range(shape[0]):  # In place: this may be large.
    np.divide(total[cell], count[cell], out=total[cell], where=count[cell] > 0)
    np.copyto(total[cell], wider[cell // others], where=count[cell] == 0)
  return total.astype(np.float32)


def _quantiles(store, resolved, days: calendar.Calendar, quantile: float) -> np.ndarray:
  frames = collections.defaultdict(list)  # Of each cell: (sequence, number).
  for sequence, first, stop in training.runs(store, resolved):
    cells = cell_index(days.frames(sequence, first, stop), days.sizes)
    for number, cell in zip(range(first, stop), cells.tolist(), strict=True):
      frames[cell].append((sequence, number))
  found = np.full(_table_shape(store, days), np.nan, np.float32)
  for cell in range(len(found)):
    chosen = [frame for near in _near(cell, days) for frame in frames[near]]
    if chosen:
      values = np.concatenate(
        [store.read(sequence, n, n + 1) for sequence, n in chosen]
      )
      found[cell] = _quantile(values, quantile)
  return found


def _near(cell: int, days: calendar.Calendar) -> list[int]:
  """The cells whose frames count for a cell, itself among them."""
  near = [np.array(np.unravel_index(cell, days.sizes))]
  for k, column in enumerate(days.columns):
    around, size = _AROUND.get(column, 0), days.sizes[k]
    shifts = {d % size for d in range(-around, around + 1)}
    near = [
      (index + d * (np.arange(len(index)) == k)) % days.sizes
      for index in near
      for d in sorted(shifts)
    ]
  return [int(cell_index(index, days.sizes)) for index in near]


def _quantile(values: np.ndarray, quantile: float) -> np.ndarray:
  """Linear quantile over axis 0 of the finite values; NaN without any."""
  # All at once; np.nanquantile goes point by point.
  ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)
  count = np.isfinite(ordered).sum(0, keepdims=True)  # NaN comes last.
  place = np.maximum(count - 1, 0) * quantile
  low = np.floor(place).astype(int)
  high = np.minimum(low + 1, np.maximum(count - 1, 0))
  lower, upper = (np.take_along_axis(ordered, i, 0) for i in (low, high))
  return (lower + (place - low) * (upper - lower))[0]


def _by_first(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
  """Sums [cells, ...] over all columns but the first."""
  return values.reshape(sizes[0], -1, *values.shape[1:]).sum(1)
