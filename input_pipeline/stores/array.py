"""One .npy or .npz file, its axes named by letters."""
import threading
import zipfile

import numpy as np
import pandas as pd
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base

_AXES = "NTHWC"  # Order of the axes that the store works with.
_USUAL_LAYOUTS = {3: "THW", 4: "NTHW", 5: "NTHWC"}


class ArrayStore(base.Store):
  """Sequences in one array, e.g. [samples, frames, height, width].

  A .npy file is memory-mapped; an array of an .npz file is loaded whole.

  Args:
    path: the file (data.path).
    key: the name of the array in an .npz file; "" when it has only one.
    layout: the axes as letters: N sequence, T time, H row, W column, C
      channel, each at most once, T required; "" means THW, NTHW or NTHWC by
      the number of axes. "TH" is point data: W = 1.
    variables: names of the channels; () means channel_0, channel_1 ...
    units: units of the channels, as many as there are channels, or ().
    step: time between frames as pandas writes it ("10min", "1h", "MS"), or "".
    first_time: time of frame 0 ("1850-01-01"); needs `step`.
    missing_value: the number that stands for missing, or None.

  Raises:
    DataError: if the file, key or layout does not fit.
  """

  def __init__(
      self,
      path: str = "",
      key: str = "",
      layout: str = "",
      variables: tuple[str, ...] = (),
      units: tuple[str, ...] = (),
      step: str = "",
      first_time: str = "",
      missing_value: float | None = None,
  ):
    self._path = base.existing_path(path)
    self._key = key
    self._missing_value = missing_value
    self._lock = threading.Lock()
    self._array = None
    array = self._open()
    self._layout = self._checked_layout(layout, array)
    sizes = dict(zip(self._layout, array.shape, strict=True))
    self._shape = tuple(sizes.get(axis, 1) for axis in _AXES)
    self._variables = self._named(variables, units)
    self._step, self._times = self._time_axis(step, first_time)

  @property
  def variables(self) -> tuple[base.Variable, ...]:
    return self._variables

  @property
  def num_sequences(self) -> int:
    return self._shape[0]

  @property
  def space(self) -> xr.Dataset:
    return base.index_space(*self._shape[2:4])

  @property
  def step(self) -> np.timedelta64 | None:
    return self._step

  @property
  def files(self) -> tuple[str, ...]:
    return (self._path,)

  def length(self, sequence: int) -> int:
    return self._shape[1]

  def times(self, sequence: int) -> np.ndarray | None:
    return self._times

  def location(self, sequence: int) -> str:
    return f"{self._path}, sequence {sequence}"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    array = self._open()
    index = {"N": sequence, "T": slice(start, stop)}
    frames = array[tuple(index.get(axis, slice(None)) for axis in self._layout)]
    axes = [axis for axis in self._layout if axis != "N"]
    frames = frames.transpose([axes.index(a) for a in _AXES if a in axes])
    frames = frames.reshape(stop - start, *self._shape[2:])
    if self._missing_value is None or frames.dtype.kind == "f" and np.isnan(
        self._missing_value):
      return np.asarray(frames, np.float32)
    missing = frames == self._missing_value
    return np.where(missing, np.float32(np.nan), np.asarray(frames, np.float32))

  def __getstate__(self):
    return {**self.__dict__, "_lock": None, "_array": None}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())

  def _open(self) -> np.ndarray:
    with self._lock:
      if self._array is None:
        self._array = self._load()
      return self._array

  def _load(self) -> np.ndarray:
    try:
      loaded = np.load(self._path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
      raise errors.DataError(
          f"{self._path} is no .npy or .npz file with plain numbers ({error}). "
          "Change data.path.") from error
    if isinstance(loaded, np.ndarray):
      array = loaded
    else:
      with loaded:
        array = self._member(loaded)
    if array.dtype.kind not in "fiub":
      raise errors.DataError(
          f"{self._path} holds values of type {array.dtype}; expected real "
          "numbers. Change data.path or data.key.")
    return array

  def _member(self, archive) -> np.ndarray:
    key = self._key or (archive.files[0] if len(archive.files) == 1 else "")
    if not key:
      raise errors.DataError(
          f"{self._path} has the arrays {', '.join(archive.files)}. Name one "
          "of them in data.key.")
    if key not in archive.files:
      raise errors.unknown("array (data.key)", key, archive.files)
    try:
      return archive[key]
    except ValueError as error:
      raise errors.DataError(
          f"Array {key!r} of {self._path} holds Python objects; expected real "
          "numbers. Change data.key.") from error

  def _checked_layout(self, layout: str, array: np.ndarray) -> str:
    layout = layout.upper() or _USUAL_LAYOUTS.get(array.ndim, "")
    letters = set(layout)
    good = (len(letters) == len(layout) == array.ndim
            and {"T", "H"} <= letters <= set(_AXES))
    if not good:
      raise errors.DataError(
          f"data.layout={layout!r} does not fit {self._path} of shape "
          f"{array.shape}. Expected {array.ndim} different letters of {_AXES} "
          "with at least T and H, e.g. 'NTHW'.")
    return layout

  def _named(self, variables, units) -> tuple[base.Variable, ...]:
    channels = self._shape[4]
    names = base.as_names(variables) or tuple(
        f"channel_{c}" for c in range(channels))
    units = base.as_names(units) or ("",) * len(names)
    if not len(names) == len(units) == channels:
      raise errors.DataError(
          f"{self._path} has {channels} channels, but data.variables names "
          f"{len(names)} and data.units {len(units)}. Give one each, or ().")
    return tuple(base.Variable(name, {"units": unit} if unit else {})
                 for name, unit in zip(names, units, strict=True))

  def _time_axis(self, step: str, first_time: str):
    if not step:
      if first_time:
        raise errors.DataError(
            f"data.first_time={first_time!r} needs data.step, e.g. '1h'.")
      return None, None
    try:
      if first_time:
        dates = pd.date_range(first_time, periods=self._shape[1], freq=step)
        return None, dates.values.astype("datetime64[s]").astype(np.int64)
      return pd.Timedelta(step).to_timedelta64().astype("timedelta64[ns]"), None
    except ValueError as error:
      raise errors.DataError(
          f"data.step={step!r} with data.first_time={first_time!r} gives no "
          f"time axis ({error}). Expected e.g. '10min', '1h', '1D', or with a "
          "first time also 'MS' (month starts).") from error
