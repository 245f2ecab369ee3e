"""SEVIR: storms over the United States, as radar fields of 1 km and 5 minutes.

Format: Veillette, Samsi & Mattioli 2020, "SEVIR: A storm event imagery dataset for
deep learning applications in radar and satellite meteorology" (NeurIPS).
"""

import dataclasses
import os
import re
import threading
from collections.abc import Sequence

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base, moments, split_lists

UNITS = ("code", "kg m-2")
CATALOG = "CATALOG.csv"
_MISSING = 255  # The code of a cell that was not observed.
_COLUMNS = (
  "id",
  "file_name",
  "file_index",
  "img_type",
  "time_utc",
  "minute_offsets",
  "episode_id",
)
# SynCast's names of single events: year, HDF5 file, row in its array.
_EVENT_FILE = re.compile(r"vil-\d{4}-(?P<file>.+\.h5)-(?P<row>\d+)(\.npy)?")


@dataclasses.dataclass(frozen=True)
class _Event:
  """Where the frames of an event are, and when they were taken."""

  name: str
  group: str
  file: str  # An HDF5 or a .npy file.
  row: int  # In the array of the HDF5 file; -1 for a .npy file.
  middle: int | None  # Seconds since 1970; None where there is no catalogue.
  frames: np.ndarray  # Numbers of its frames on the time axis of the file.
  seconds: np.ndarray | None  # From the middle to each of them.
  split: str | None


class SevirStore(base.Store):
  """Vertically integrated liquid of SEVIR events: `data.store = "sevir"`.

  Two layouts are read:

  - the public one: CATALOG.csv, and HDF5 files below "data" with an array "vil",
    uint8 [event, row, column, frame], and the events' names in "id";
  - one .npy file for each event, uint8 [1, row, column, frame], named
    vil-<year>-<HDF5 file>-<row in its array>.npy, with a catalogue or without.

  Each event is a sequence. Times come from the catalogue: time_utc is the middle of
  the event and minute_offsets counts from there. The offsets of some events repeat
  a time and lack another one. A frame that repeats an earlier time is left out, and
  no window crosses the gap that is left. Without a catalogue there are no times:
  frames count as equally spaced.

  Args:
    path: the folder of the catalogue and the data, or of the .npy files.
    catalog: the catalogue, relative to `path`; CATALOG.csv may be missing beside
      .npy files.
    split_dates: the first dates of the validation split and of the test split, by
      the middle of the event; () leaves the split to data.split. Not used where
      lists are given.
    train_list: a text file with the names of the training events, one a line: "id"
      of the catalogue, or the name of the .npy file (also where the data are in
      HDF5 files). Events in no list are left out.
    validation_list: the same of the validation split.
    test_list: the same of the test split.
    units: "code" (0 to 254, as in the files) or "kg m-2".
    keep_255: whether 255, the code of a missing value, stays a number as in most
      published work; else these cells are missing (data.missing="mask").
    partial: whether events of files that are not there are left out; else a missing
      file is an error.

  Raises:
    DataError: if the catalogue, a file or an option cannot be used.
  """

  has_events = True

  def __init__(
    self,
    path: str = "",
    catalog: str = CATALOG,
    split_dates: Sequence[str] = ("2019-01-01", "2019-06-01"),
    train_list: str = "",
    validation_list: str = "",
    test_list: str = "",
    units: str = "code",
    keep_255: bool = False,
    partial: bool = False,
  ):
    self._table = _table(units, keep_255)
    self.variables = (
      base.Variable(
        "vil",
        {
          "units": "1" if units == "code" else units,
          "long_name": "vertically integrated liquid water"
          + (", coded from 0 to 254" if units == "code" else ""),
        },
      ),
    )
    folder = base.existing_path(path)
    if catalog != CATALOG:
      base.existing_path(os.path.join(folder, catalog))
    known = _read_catalog(os.path.join(folder, catalog))
    arrays = _event_files(folder)
    if not arrays and known is None:
      raise errors.DataError(
        f"{folder} has neither {catalog} nor files like vil-2018-NAME.h5-12.npy. "
        "Change data.path or data.catalog."
      )
    lists = split_lists.read(
      {"train": train_list, "validation": validation_list, "test": test_list}
    )
    self._lock = threading.Lock()
    self._opened = {}
    self._shape = self._frames = None
    self._npy = bool(arrays)
    if arrays:
      frames, *self._shape = _npy_shape(arrays[0])
      events = _npy_events(arrays, known, frames)
    else:
      events = _hdf5_events(folder, known, partial)
      frames, *self._shape = self._hdf5_shape(events[0].file)
    self._frames = frames
    if known is not None:
      _check_offsets(known.minute_offsets, frames, folder, more=self._npy)
    if lists:
      events = _listed(events, lists)
    elif split_dates:
      events = _dated(events, _edges(split_dates), folder)
    self._events = _distinct(events)
    self.num_sequences = len(self._events)
    self.files = tuple(sorted({event.file for event in self._events}))
    if known is not None:
      self.files += (os.path.join(folder, catalog),)

  @property
  def space(self) -> xr.Dataset:
    """Row and column numbers: every event lies elsewhere."""
    return base.index_space(*self._shape)

  def length(self, sequence: int) -> int:
    return len(self._events[sequence].frames)

  def times(self, sequence: int) -> np.ndarray | None:
    event = self._events[sequence]
    if event.middle is None:
      return None
    return (event.middle + event.seconds) * moments.SECOND

  def sample_id(self, sequence: int) -> str:
    return self._events[sequence].name

  def event(self, sequence: int) -> str:
    """The storm's episode, of which several events may be parts; else its id."""
    return self._events[sequence].group

  def split_label(self, sequence: int) -> str | None:
    return self._events[sequence].split

  def location(self, sequence: int) -> str:
    event = self._events[sequence]
    row = f", row {event.row}" if event.row >= 0 else ""
    return f"{event.file}{row}, event {event.name!r}"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    return self.read_every(sequence, start, stop, 1)

  def read_every(self, sequence: int, start: int, stop: int, every: int) -> np.ndarray:
    frames = self._events[sequence].frames[start:stop:every]
    low = int(frames.min(initial=self._frames))
    high = max(int(frames.max(initial=-1)) + 1, low)
    read = self._read_npy if self._npy else self._read_hdf5
    codes = read(self._events[sequence], low, high)[..., frames - low]
    return self._table[np.moveaxis(codes, -1, 0)][..., None]

  def __getstate__(self):
    return {**self.__dict__, "_lock": None, "_opened": {}}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())

  def _read_npy(self, event: _Event, low: int, high: int) -> np.ndarray:
    """Codes [H, W, T] of an event's frames low to high."""
    array = base.memory_mapped(event.file)
    expected = (1, *self._shape, self._frames)
    if array.dtype != np.uint8 or array.shape != expected:
      raise errors.DataError(
        f"{event.file} holds {array.dtype} of shape {array.shape}, but the first "
        f"event is uint8 of shape {expected}; expected the same for every event."
      )
    return array[0, :, :, low:high]

  def _read_hdf5(self, event: _Event, low: int, high: int) -> np.ndarray:
    """Codes [H, W, T] of an event's frames low to high."""
    array, names = self._hdf5(event.file)
    if event.row >= len(names) or names[event.row] != event.name.partition("/")[0]:
      found = names[event.row] if event.row < len(names) else "nothing"
      raise errors.DataError(
        f"{event.file} has {found!r} in row {event.row}, where the catalogue puts "
        f"the event {event.name!r}. The catalogue and the file do not belong together."
      )
    try:
      return array[event.row, :, :, low:high]
    except OSError as error:
      raise errors.DataError(
        f"{event.file}, row {event.row}, cannot be read ({error})."
      ) from error

  def _hdf5(self, path: str) -> tuple[h5py.Dataset, list[str]]:
    """The array of an HDF5 file and the events' names; opened once per process."""
    with self._lock:
      if path not in self._opened:
        try:
          file = h5py.File(path, "r")
          array, names = file["vil"], file["id"][:]
        except (OSError, KeyError) as error:
          raise errors.DataError(
            f"{path} is no HDF5 file with the arrays 'vil' and 'id' ({error})."
          ) from error
        if array.dtype != np.uint8 or array.ndim != 4:
          raise errors.DataError(
            f"{path}: vil is {array.dtype} of shape {array.shape}; expected uint8 "
            "[event, row, column, frame]."
          )
        expected = self._shape and (*self._shape, self._frames)
        if expected and array.shape[1:] != expected:
          raise errors.DataError(
            f"{path}: vil has the shape {array.shape}, but the events of the first "
            f"file are of {expected} rows, columns and frames."
          )
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in names]
        self._opened[path] = array, names
      return self._opened[path]

  def _hdf5_shape(self, path: str) -> tuple[int, int, int]:
    """Frames, rows and columns of the events of a file."""
    _, height, width, frames = self._hdf5(path)[0].shape
    return frames, height, width


def _table(units: str, keep_255: bool) -> np.ndarray:
  """The value of each code, float32 [256], NaN where missing."""
  errors.pick("data.units", units, UNITS)
  code = np.arange(256, dtype=np.float64)
  if units == "code":
    value = code
  elif keep_255:
    raise errors.DataError(
      f"data.keep_255=True needs data.units='code': 255 is no amount in {units}."
    )
  else:
    value = np.where(code <= 18, (code - 2) / 90.66, np.exp((code - 83.9) / 38.9))
    value = np.where(code <= 5, 0, value)
  if not keep_255:
    value[_MISSING] = np.nan
  return value.astype(np.float32)


def _read_catalog(path: str) -> pd.DataFrame | None:
  """The rows of radar fields, or None without a catalogue."""
  if not os.path.exists(path):
    return None
  try:
    rows = pd.read_csv(path, usecols=list(_COLUMNS), dtype=str, keep_default_na=False)
    rows = rows[rows.img_type == "vil"]
    times = pd.to_datetime(rows.time_utc, utc=True).dt.tz_localize(None)
    return rows.assign(
      middle=times.to_numpy("datetime64[s]").astype(np.int64),
      file_index=rows.file_index.astype(int),
    )
  except (OSError, ValueError) as error:
    raise errors.DataError(
      f"{path} is no SEVIR catalogue ({error}). Expected comma-separated values "
      f"with the columns {', '.join(_COLUMNS)}."
    ) from error


def _event_files(folder: str) -> list[str]:
  """The .npy files of single events in a folder."""
  found = sorted(name for name in os.listdir(folder) if name.endswith(".npy"))
  for name in found:
    if not _EVENT_FILE.fullmatch(name):
      raise errors.DataError(
        f"{os.path.join(folder, name)} is not named like vil-2018-NAME.h5-12.npy "
        "(year, HDF5 file, row in it). Rename it, or move it out of data.path."
      )
  return [os.path.join(folder, name) for name in found]


def _npy_shape(path: str) -> tuple[int, int, int]:
  """Frames, rows and columns of the event in a file."""
  array = base.memory_mapped(path)
  if array.ndim != 4 or len(array) != 1 or array.dtype != np.uint8:
    raise errors.DataError(
      f"{path} holds {array.dtype} of shape {array.shape}; expected uint8 [1, row, "
      "column, frame]."
    )
  _, height, width, frames = array.shape
  return frames, height, width


def _offsets(texts: Sequence[str], path: str) -> dict[str, tuple[np.ndarray, ...]]:
  """For each text of minute_offsets, the frames in order and their seconds."""
  found = {}
  for text in set(texts):
    try:
      minutes = np.array([float(minute) for minute in text.split(":")])
    except ValueError as error:
      raise errors.DataError(
        f"{path}: the catalogue has minute_offsets={text!r} ({error}); expected "
        "numbers with colons between."
      ) from error
    before = np.maximum.accumulate(np.concatenate([[-np.inf], minutes[:-1]]))
    frames = np.flatnonzero(minutes > before)  # A repeated time is left out.
    found[text] = frames, np.rint(minutes[frames] * 60).astype(np.int64)
  return found


def _check_offsets(texts: Sequence[str], frames: int, path: str, more: bool) -> None:
  """Raises DataError unless each event has as many offsets as frames, or `more`."""
  for text in set(texts):
    count = text.count(":") + 1
    if count < frames or count > frames and not more:
      raise errors.DataError(
        f"{path}: the events have {frames} frames, but the catalogue has {count} "
        f"minute_offsets: {text!r}. The catalogue and the data do not belong together."
      )


def _catalogued(row, file: str, index: int, offsets) -> _Event:
  """The event of a row of the catalogue."""
  frames, seconds = offsets[row.minute_offsets]
  return _Event(
    name=row.id,
    group=row.episode_id or row.id,
    file=file,
    row=index,
    middle=row.middle,
    frames=frames,
    seconds=seconds,
    split=None,
  )


def _hdf5_events(folder: str, known: pd.DataFrame, partial: bool) -> list[_Event]:
  places, missing = {}, []
  for name in sorted(set(known.file_name)):
    choices = [os.path.join(folder, "data", name), os.path.join(folder, name)]
    places[name] = next(filter(os.path.exists, choices), None)
    if places[name] is None:
      missing.append(choices[0])
  if missing and not partial:
    raise errors.DataError(
      f"The catalogue names {len(missing)} of {len(places)} files that are not "
      f"there, such as {missing[0]}. Fetch them, or set data.partial=True to use "
      "the others."
    )
  offsets = _offsets(known.minute_offsets, folder)
  events = [
    _catalogued(row, places[row.file_name], row.file_index, offsets)
    for row in known.itertuples()
    if places[row.file_name]
  ]
  if not events:
    raise errors.DataError(
      f"The catalogue in {folder} names no radar event (img_type vil) whose file is "
      "there. Change data.path."
    )
  return events


def _npy_events(
  paths: Sequence[str], known: pd.DataFrame | None, frames: int
) -> list[_Event]:
  if known is None:
    every = np.arange(frames)
    return [
      _Event(name, name, path, -1, None, every, None, None)
      for path in paths
      for name in [_stem(path)]
    ]
  rows = {
    (os.path.basename(row.file_name), row.file_index): row for row in known.itertuples()
  }
  offsets = _offsets(known.minute_offsets, paths[0])
  events = []
  for path in paths:
    name = _EVENT_FILE.fullmatch(os.path.basename(path))
    row = rows.get((name["file"], int(name["row"])))
    if row is None:
      raise errors.DataError(
        f"The catalogue has no radar event in row {name['row']} of {name['file']}, "
        f"which {path} is named after. Change data.catalog."
      )
    event = _catalogued(row, path, -1, offsets)
    # The files may lack the last frame.
    kept = event.frames < frames
    events.append(
      dataclasses.replace(
        event, name=_stem(path), frames=event.frames[kept], seconds=event.seconds[kept]
      )
    )
  return events


def _stem(name: str) -> str:
  return os.path.basename(name).removesuffix(".npy")


def _listed(events: Sequence[_Event], lists: dict[str, str]) -> list[_Event]:
  """The events that are named in a list, with their splits."""
  wanted = {_key(name): (name, split) for name, split in lists.items()}
  found = []
  for event in events:
    keys = (event.name, _key(os.path.basename(event.file)))
    if event.row >= 0:
      keys = (event.name, (os.path.basename(event.file), event.row))
    for key in keys:
      if key in wanted:
        found.append(dataclasses.replace(event, split=wanted.pop(key)[1]))
        break
  if wanted:
    name, _ = next(iter(wanted.values()))
    raise errors.DataError(
      f"The lists of the splits name {len(wanted)} events that the data do not have, "
      f"such as {name!r}. Change data.path or the lists."
    )
  return found


def _key(name: str) -> str | tuple[str, int]:
  """The name of an event, or the HDF5 file and row that a .npy file is named after."""
  match = _EVENT_FILE.fullmatch(os.path.basename(name))
  return (match["file"], int(match["row"])) if match else _stem(name)


def _edges(dates: Sequence[str]) -> np.ndarray:
  dates = base.as_names(dates)
  try:
    edges = np.array(dates, "datetime64[s]").astype(np.int64)
  except ValueError:
    edges = np.zeros(0, np.int64)
  if len(edges) != 2 or edges[0] > edges[1]:
    raise errors.DataError(
      f"data.split_dates={dates!r}; expected two dates in order, like 2019-01-01: "
      "the first of validation and of test. () leaves the split to data.split."
    )
  return edges


def _dated(events: Sequence[_Event], edges: np.ndarray, folder: str) -> list[_Event]:
  """The events with the splits that their dates give them."""
  if events[0].middle is None:
    raise errors.DataError(
      f"data.split_dates needs the dates of the events, but {folder} has no "
      "catalogue. Name one in data.catalog, or set data.train_list and the others, "
      "or set data.split_dates=() for a split by data.split."
    )
  names = ("train", "validation", "test")
  return [
    dataclasses.replace(
      event, split=names[int(np.searchsorted(edges, event.middle, side="right"))]
    )
    for event in events
  ]


def _distinct(events: Sequence[_Event]) -> list[_Event]:
  """Events with names of their own: "NAME/2" for the second one of a name."""
  counts, found = {}, []
  for event in events:
    counts[event.name] = number = counts.get(event.name, 0) + 1
    name = event.name if number == 1 else f"{event.name}/{number}"
    found.append(dataclasses.replace(event, name=name))
  return found
