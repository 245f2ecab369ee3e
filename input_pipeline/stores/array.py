"""Arrays in .npy or .npz files, their axes named by letters."""

import os
import threading
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import errors
from input_pipeline.stores import base, missing, moments

_AXES = "NTHWC"  # Order of the axes that the store works with.
_MOST_COLOURS = 4
_USUAL_LAYOUTS = {3: "THW", 4: "NTHW", 5: "NTHWC"}


class ArrayStore(base.Store):
  """Sequences in arrays, e.g. [samples, frames, height, width].

  Each file holds one sequence, or those along its axis N. Several files share
  the layout, the grid and the channels, but each has its own length. A .npy
  file is memory-mapped; an array of an .npz file is loaded whole.

  Sequences of one file are called "0", "1", ...; those of several files by
  the file's name without its ending ("speeds", or "speeds/0", "speeds/1", ...
  where the file holds more than one), and by the folders as well where two
  files have the same name.

  Args:
    path: the file, or several as a tuple or "a.npy,b.npy" (data.path).
    key: the name of the array in an .npz file; "" when it has only one.
    layout: the axes as letters: N sequence, T time, H row, W column, C
      channel, each at most once, T and H required; "" means THW, NTHW or NTHWC
      by the number of axes. "TH" is point data: W = 1.
    variables: names of the channels; () means channel_0, channel_1 ...
    units: units of the channels, as many as there are channels, or ().
    step: time between frames as pandas writes it ("10min", "1h", "MS": month
      starts), or "".
    first_time: time of frame 0 ("1850-01-01"), one for each file; needs `step`.
    missing_value: what stands for missing; see `missing.codes`.

  Raises:
    DataError: if a file, key or layout does not fit; names the file.
  """

  def __init__(
    self,
    path: str | Sequence[str] = "",
    key: str = "",
    layout: str = "",
    variables: tuple[str, ...] = (),
    units: tuple[str, ...] = (),
    step: str = "",
    first_time: str | Sequence[str] = "",
    missing_value: tuple[float | str, ...] = (),
  ):
    self._arrays = [_ArrayFile(name, key) for name in _paths(path)]
    self._missing = missing.undeclared(missing_value)
    self._layout = _checked_layout(layout, self._arrays[0])
    self._shapes = [_shape(self._layout, file) for file in self._arrays]
    self._check_grids()
    self._places = [
      (file, index)
      for file, shape in enumerate(self._shapes)
      for index in range(shape[0])
    ]
    self.num_sequences = len(self._places)
    self.files = tuple(file.path for file in self._arrays)
    self._names = self._sequence_names()
    self.variables = base.channels(
      self._arrays[0].path, self._shapes[0][4], variables, units
    )
    self.step, self._times = self._time_axes(step, first_time)

  @property
  def space(self) -> xr.Dataset:
    return base.index_space(*self._shapes[0][2:4])

  def length(self, sequence: int) -> int:
    return self._shapes[self._places[sequence][0]][1]

  def times(self, sequence: int) -> np.ndarray | None:
    return self._times[self._places[sequence][0]]

  def sample_id(self, sequence: int) -> str:
    return self._names[sequence]

  def location(self, sequence: int) -> str:
    file, index = self._places[sequence]
    return f"{self._arrays[file].path}, sequence {index}"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    file, place = self._places[sequence]
    array = self._arrays[file].array()
    index = {"N": place, "T": slice(start, stop)}
    frames = array[tuple(index.get(axis, slice(None)) for axis in self._layout)]
    axes = [axis for axis in self._layout if axis != "N"]
    frames = frames.transpose([axes.index(a) for a in _AXES if a in axes])
    frames = frames.reshape(stop - start, *self._shapes[file][2:])
    return self._missing.mask(frames, self.names)

  def _check_grids(self):
    first = self._shapes[0][2:]
    for file, shape in zip(self._arrays, self._shapes, strict=True):
      if shape[2:] != first:
        found, expected = (
          ", ".join(
            f"{axis}={size}" for axis, size in zip(_AXES[2:], sizes, strict=True)
          )
          for sizes in (shape[2:], first)
        )
        raise errors.DataError(
          f"{file.path} has {found}, but {self._arrays[0].path} has "
          f"{expected}. Expected files of one grid with the same channels; "
          "change data.path."
        )

  def _sequence_names(self) -> list[str]:
    if len(self._arrays) == 1:
      return [str(index) for _, index in self._places]
    stems = [os.path.splitext(file.path)[0] for file in self._arrays]
    names = [os.path.basename(stem) for stem in stems]
    if len(set(names)) < len(names):
      folder = os.path.commonpath([os.path.dirname(stem) for stem in stems])
      names = [os.path.relpath(stem, folder) for stem in stems]
    names = [
      names[file] if self._shapes[file][0] == 1 else f"{names[file]}/{index}"
      for file, index in self._places
    ]
    if len(set(names)) < len(names):
      twice = next(name for name in names if names.count(name) > 1)
      raise errors.DataError(
        f"data.path has two sequences called {twice!r}: "
        f"{', '.join(self.files)}. Expected files of different names."
      )
    return names

  def _time_axes(self, step: str, first_time: str | Sequence[str]):
    """The step without dates or None, and the time axis of each file."""
    firsts, files = base.as_names(first_time), self._arrays
    if firsts and not step:
      raise errors.DataError(
        f"data.first_time={first_time!r} needs data.step, e.g. '1h'."
      )
    if firsts and len(firsts) != len(files):
      raise errors.DataError(
        f"data.first_time={first_time!r} gives {len(firsts)} times for "
        f"{len(files)} files; expected one for each file of data.path, in "
        "their order."
      )
    if not firsts:
      return moments.step(step), [None] * len(files)
    return None, [
      moments.axis(first, step, shape[1], file.path)
      for first, shape, file in zip(firsts, self._shapes, files, strict=True)
    ]


class _ArrayFile:
  """One .npy or .npz file, opened once per process."""

  def __init__(self, path: str, key: str):
    self.path = path
    self._key = key
    self._lock = threading.Lock()
    self._array = None

  def array(self) -> np.ndarray:
    with self._lock:
      if self._array is None:
        self._array = self._load()
      return self._array

  def __getstate__(self):
    return {**self.__dict__, "_lock": None, "_array": None}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())

  def _load(self) -> np.ndarray:
    try:
      loaded = np.load(self.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
      raise errors.DataError(
        f"{self.path} is no .npy or .npz file with plain numbers ({error}). "
        "Change data.path."
      ) from error
    if isinstance(loaded, np.ndarray):
      array = loaded
    else:
      with loaded:
        array = self._member(loaded)
    if array.dtype.kind not in "fiub":
      raise errors.DataError(
        f"{self.path} holds values of type {array.dtype}; expected real "
        "numbers. Change data.path or data.key."
      )
    return array

  def _member(self, archive) -> np.ndarray:
    key = self._key or (archive.files[0] if len(archive.files) == 1 else "")
    if not key:
      raise errors.DataError(
        f"{self.path} has the arrays {', '.join(archive.files)}. Name one "
        "of them in data.key."
      )
    if key not in archive.files:
      raise errors.unknown(f"array (data.key) in {self.path}", key, archive.files)
    try:
      return archive[key]
    except ValueError as error:
      raise errors.DataError(
        f"Array {key!r} of {self.path} holds Python objects; expected real "
        "numbers. Change data.key."
      ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
      raise errors.DataError(
        f"{self.path}: array {key!r} cannot be read ({error}). The file is damaged or "
        "incomplete: fetch or write it anew."
      ) from error


def _paths(path: str | Sequence[str]) -> list[str]:
  """The absolute paths of the files, each of them there and only once."""
  if isinstance(path, str) and os.path.exists(os.path.expanduser(path)):
    return [base.existing_path(path)]  # Its name may have commas.
  names = base.as_names(path)
  found = [base.existing_path(name) for name in names or ("",)]
  for name in found:
    if found.count(name) > 1:
      raise errors.DataError(
        f"data.path names {name} more than once; expected every file once."
      )
  return found


def _checked_layout(layout: str, file: _ArrayFile) -> str:
  array = file.array()
  guessed = not layout
  layout = layout.upper() or _USUAL_LAYOUTS.get(array.ndim, "")
  letters = set(layout)
  good = len(letters) == len(layout) == array.ndim and {"T", "H"} <= letters <= set(
    _AXES
  )
  if not good:
    raise errors.DataError(
      f"data.layout={layout!r} does not fit {file.path} of shape "
      f"{array.shape}. Expected {array.ndim} different letters of {_AXES} "
      "with at least T and H, e.g. 'NTHW'."
    )
  if guessed:
    sizes = dict(zip(layout, array.shape, strict=True))
    said = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    if other := _likelier(layout, sizes):
      raise errors.DataError(
        f"{file.path} has the shape {array.shape}; its axes would be taken as {said},"
        f" but it looks like {other}. Say which it is: --config.data.layout={other} or"
        f" --config.data.layout={layout}."
      )
    base.say_once(
      logging.INFO,
      f"{file.path}: axes taken as {said} (data.layout={layout}; change it if not).",
    )
  return layout


def _likelier(layout: str, sizes: dict[str, int]) -> str:
  """Another layout for which sizes speak: few channels would be rows or columns."""
  few = lambda axis: sizes[axis] <= _MOST_COLOURS
  many = lambda *axes: min(sizes[axis] for axis in axes) > _MOST_COLOURS + 3
  if "C" in layout:  # "NTHWC" may be "NTCHW".
    return "NTCHW" if few("H") and many("W", "C") else ""
  if few("W") and many("H", "T"):
    return "NTHWC"[-len(layout) :] if len(layout) == 4 else "THC"
  if layout == "NTHW" and sizes["T"] in (1, 3) and many("N", "H", "W"):
    return "TCHW"
  return ""


def _shape(layout: str, file: _ArrayFile) -> tuple[int, ...]:
  """Sizes of the axes N, T, H, W, C."""
  _checked_layout(layout, file)
  sizes = dict(zip(layout, file.array().shape, strict=True))
  return tuple(sizes.get(axis, 1) for axis in _AXES)
