"""Fields of several variables in one netCDF file for each year.

The layout is that of SFP's data (easylearningscores/SFP), which are normalised
already: <year>_norm.nc with atmosphere_variables [time, variable, lat, lon].
"""

import os
import re
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base, file_sets, grid
from input_pipeline.stores import xarray as xarray_lib

_YEAR = "{year}"
# What netCDF puts where nothing was written, in files that name no _FillValue.
_DEFAULT_FILL = np.float32(9.969209968386869e36)


class _Year(NamedTuple):
  """A year's file, the numbers of its frames that are kept, and their times."""

  year: int
  path: str
  kept: np.ndarray
  times: np.ndarray | None


class YearFilesStore(base.Store):
  """Fields of several variables, a file for each year: data.store = "year_files".

  Each year is a sequence named after it, so that no window crosses its end. The
  lists of years are those of the splits, and no other years are read. Without
  lists, all years that are found are read and data.split says where they belong.

  Missing cells are NaN, the file's _FillValue, or netCDF's own fill value.

  Args:
    path: the folder of the files.
    file_pattern: name of a file, in which "{year}" stands for the year.
    array: name of the array [time, variable, row, column] in each file.
    variables: channels in this order: numbers of the second dimension, or its
      labels where it has some; () takes all. A number that is no label gives
      the channel that name, and without labels it is called channel_<number>.
    time_steps: numbers of the frames of each year that are kept, counted from
      0, in this order; those beyond the end of a year are left out, and so is
      a year that has none of them. () keeps all.
    train_years: years of the training split.
    validation_years: years of the validation split.
    test_years: years of the test split.

  Raises:
    DataError: if a file, an array or an option cannot be used, or if the grids
      or the variables of two years differ.
  """

  def __init__(
    self,
    path: str = "",
    file_pattern: str = "{year}_norm.nc",
    array: str = "atmosphere_variables",
    variables: str | Sequence[int | str] = (),
    time_steps: Sequence[int] = (),
    train_years: Sequence[int] = (),
    validation_years: Sequence[int] = (),
    test_years: Sequence[int] = (),
  ):
    folder = base.existing_path(path)
    if file_pattern.count(_YEAR) != 1:
      raise errors.DataError(
        f"data.file_pattern={file_pattern!r}; expected a file name with {_YEAR!r} in "
        "it, once, such as '{year}_norm.nc'."
      )
    self._splits = _splits(
      {"train": train_years, "validation": validation_years, "test": test_years}
    )
    years = tuple(self._splits) or _found(folder, file_pattern)
    self.files = tuple(
      _file(folder, file_pattern, year, self._splits) for year in years
    )
    self._array = array
    steps = _whole_numbers("time_steps", time_steps)
    self._lock = threading.Lock()
    self._opened = {}
    first = self._dataset(self.files[0])
    time, self._channel, *self._dims = first[array].dims
    labels = _labels(first, self._channel)
    self._positions, self.variables = _selected(
      variables, labels, first.sizes[self._channel], f"{self.files[0]} ({array})"
    )
    self.space = grid.coordinates(first, self._dims)
    self._years = []
    for year, path in zip(years, self.files, strict=True):
      dataset = self._dataset(path)
      self._check_same(path, dataset, labels)
      length = dataset.sizes[time]
      times = grid.times(dataset, time, "", "")
      if times is not None:
        times = grid.until_missing(times, path, time)
        length = len(times)
      kept = np.array([t for t in steps or range(length) if t < length], int)
      if len(kept):
        times = None if times is None else times[kept]
        self._years.append(_Year(year, path, kept, times))
    self.num_sequences = len(self._years)
    if not self._years:
      raise errors.DataError(
        f"{array} has {length} frames in {path}, and data.time_steps={steps} keeps "
        "none of any year. Change it, or data.path."
      )
    if calendar := grid.calendar(first, time):
      self.space.attrs["calendar"] = calendar

  def length(self, sequence: int) -> int:
    return len(self._years[sequence].kept)

  def times(self, sequence: int) -> np.ndarray | None:
    return self._years[sequence].times

  def sample_id(self, sequence: int) -> str:
    """The year."""
    return str(self._years[sequence].year)

  def split_label(self, sequence: int) -> str | None:
    """The split whose list names the year; None without lists."""
    return self._splits.get(self._years[sequence].year)

  def location(self, sequence: int) -> str:
    return self._years[sequence].path

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    year = self._years[sequence]
    field, kept = self._dataset(year.path)[self._array], year.kept[start:stop]
    where = dict(zip(field.dims, map(_as_slice, (kept, self._positions)), strict=False))
    what = f"array {self._array!r}, frames {start} to {stop - 1} of those kept,"
    with file_sets.reading(year.path, what):
      frames = field.isel(where).values.astype(np.float32, copy=False)
    frames = np.where(frames == _DEFAULT_FILL, np.float32(np.nan), frames)
    return np.moveaxis(frames, 1, -1)

  def __getstate__(self):
    return {**self.__dict__, "_lock": None, "_opened": {}}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())

  def _dataset(self, path: str) -> xr.Dataset:
    """The file of a year, opened once in each process."""
    with self._lock:
      if path not in self._opened:
        array = self._array
        dataset = xarray_lib.open_file(path)
        if array not in dataset.data_vars:
          raise errors.unknown(
            f"array (data.array) in {path}", array, map(str, dataset.data_vars)
          )
        if dataset[array].ndim != 4 or dataset[array].dtype.kind not in "fiu":
          raise errors.DataError(
            f"{path}: {array} is {dataset[array].dtype} with the dimensions "
            f"{', '.join(map(str, dataset[array].dims))}; expected numbers with "
            "four: time, variable, row, column."
          )
        self._opened[path] = dataset
      return self._opened[path]

  def _check_same(self, path: str, dataset: xr.Dataset, labels: list[str]) -> None:
    """Raises DataError unless a year has the grid and variables of the first."""
    first, field = self._dataset(self.files[0])[self._array], dataset[self._array]
    where = f"{path}: {self._array}"
    if field.dims != first.dims or field.shape[1:] != first.shape[1:]:
      raise errors.DataError(
        f"{where} has the sizes {dict(field.sizes)}, but in {self.files[0]} it has "
        f"{dict(first.sizes)}. Expected the same variables and grid in all years."
      )
    if _labels(dataset, self._channel) != labels:
      raise errors.DataError(
        f"{where} has other labels of {self._channel!r} than in {self.files[0]}. "
        "Expected the same variables in the same order in all years."
      )
    if not grid.coordinates(dataset, self._dims).equals(self.space):
      raise errors.DataError(
        f"{where} has other coordinates of {' and '.join(map(repr, self._dims))} than "
        f"in {self.files[0]}. Expected the same grid in all years."
      )


def _splits(lists: dict[str, Sequence[int]]) -> dict[int, str]:
  """The split of each listed year, in the order of the lists."""
  found = {}
  for split, years in lists.items():
    for year in _whole_numbers(f"{split}_years", years):
      if year in found:
        raise errors.DataError(
          f"data.{split}_years names {year}, which is already in data."
          f"{found[year]}_years. Expected every year once."
        )
      found[year] = split
  return found


def _whole_numbers(key: str, numbers: Sequence[int]) -> tuple[int, ...]:
  """One number or several, as a tuple; DataError unless all are from 0 and differ."""
  numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
  good = all(isinstance(n, int) and n >= 0 for n in numbers)
  if not good or len(set(numbers)) < len(numbers):
    raise errors.DataError(
      f"data.{key}={numbers!r}; expected different whole numbers from 0."
    )
  return numbers


def _found(folder: str, pattern: str) -> tuple[int, ...]:
  """The years of the files of a folder, in order."""
  before, after = map(re.escape, pattern.split(_YEAR))
  matches = (re.fullmatch(f"{before}([1-9]\\d*){after}", n) for n in os.listdir(folder))
  years = tuple(sorted(int(match[1]) for match in matches if match))
  if not years:
    raise errors.DataError(
      f"{folder} has no file like {pattern.replace(_YEAR, '1979')}. Change data.path "
      "or data.file_pattern."
    )
  return years


def _file(folder: str, pattern: str, year: int, splits: dict[int, str]) -> str:
  path = os.path.join(folder, pattern.replace(_YEAR, str(year)))
  if not os.path.isfile(path):
    raise errors.DataError(
      f"There is no file {path} of the year {year}, which data."
      f"{splits[year]}_years names. Change that list, data.path or "
      "data.file_pattern."
    )
  return path


def _labels(dataset: xr.Dataset, channel: str) -> list[str]:
  """The labels of the dimension of variables; [] where it has none."""
  if channel not in dataset.coords:
    return []
  return [
    value.decode() if isinstance(value, bytes) else str(value)
    for value in dataset[channel].values.tolist()
  ]


def _selected(
  variables: str | Sequence[int | str], labels: list[str], count: int, where: str
) -> tuple[np.ndarray, tuple[base.Variable, ...]]:
  """Places of the channels in the file, and what they are called.

  Args:
    variables: data.variables.
    labels: of all channels of the file, or [].
    count: number of channels of the file.
    where: file and array, for messages.
  """
  names = labels or [f"channel_{number}" for number in range(count)]
  if isinstance(variables, int | str):
    variables = str(variables).split(",")
  wanted = [str(v).strip() for v in variables] or names
  places = {str(number): number for number in range(count)}
  places |= {name: number for number, name in enumerate(names)}
  for name in wanted:
    if name not in places:
      kind = f"variable (data.variables: a label, or a number below {count}) of {where}"
      raise errors.unknown(kind, name, labels or range(count))
  positions = [places[name] for name in wanted]
  if len(set(positions)) < len(positions):
    raise errors.DataError(
      f"data.variables={tuple(wanted)} names a variable twice. Expected each once."
    )
  return np.array(positions), tuple(base.Variable(names[p]) for p in positions)


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
  """Equally spaced numbers as a slice, which a file reads in one piece."""
  if not len(numbers):
    return slice(0)
  steps = np.unique(np.diff(numbers))
  if len(steps) > 1 or (len(steps) and steps[0] < 1):
    return numbers
  step = int(steps[0]) if len(steps) else 1
  return slice(int(numbers[0]), int(numbers[-1]) + 1, step)
