"""What every store gives the pipeline: labelled sequences of frames."""

import abc
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import errors


@dataclasses.dataclass(frozen=True)
class Variable:
  """One channel: its name and its attributes (units, long_name ...)."""

  name: str
  attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Store(abc.ABC):
  """Sequences of frames [T, H, W, C] with a common grid and channels.

  A store is made as `Class(**options)` from the keys of its data config (and
  `cache_dir`, when its constructor has that parameter). The parameters of the
  constructor ARE the accepted keys, and their defaults the default values.

  A store must survive pickling and open its files lazily, once per process:
  it is sent to worker processes. `read` may be called by several threads.

  A store whose files may hold fields without a time axis, for data.static,
  reads them in a class method `static_fields`: see XarrayStore.

  Attributes:
    variables: the channels, in the order of the last axis of `read`.
    num_sequences: how many independent sequences there are.
    space: spatial coordinates; attrs["spatial_dims"] = [H name, W name]. It gives
      the sizes of both dimensions, so each has at least an index coordinate.
      attrs["calendar"] is cftime's name of the times' calendar if that is a model's.
    has_events: whether the data name the event of each sequence.
    fills_splits: whether a split that the labels of the data leave out is taken from
      their training data; not so where a config or a protocol chose the splits.
    step: time between frames when there is no time axis, or None; calendar
      months come as a timedelta64 of months.
    declared: by channel, what counts as missing because the file says so; see
      `stores.missing.Declared`. It may leave channels out.
    files: the files read; prepared copies are renewed when they change.
  """

  variables: tuple[Variable, ...]
  num_sequences: int
  space: xr.Dataset
  has_events: bool = False
  fills_splits: bool = False
  step: np.timedelta64 | None = None
  files: tuple[str, ...] = ()
  declared: Mapping[str, Any] = {}

  @property
  def names(self) -> tuple[str, ...]:
    """The names of the channels."""
    return tuple(variable.name for variable in self.variables)

  @abc.abstractmethod
  def length(self, sequence: int) -> int:
    """The number of frames of a sequence."""

  @abc.abstractmethod
  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """Frames start..stop-1: float32 [T, H, W, C], NaN where missing.

    The caller does not write into the result, which may be a view.
    """

  def read_every(self, sequence: int, start: int, stop: int, every: int) -> np.ndarray:
    """Every so many of the frames that `read` gives, beginning with the first.

    A store that finds each frame on its own need not read those in between.
    """
    return self.read(sequence, start, stop)[::every]

  def times(self, sequence: int) -> np.ndarray | None:
    """int64 [L] microseconds since 1970, or None without a time axis.

    They are counted in the calendar space.attrs["calendar"], or the civil one where
    there is none: `input_pipeline.stores.moments` makes and reads them.
    """
    del sequence
    return None

  def sample_id(self, sequence: int) -> str:
    """The name of a sequence, unique in the store."""
    return str(sequence)

  def event(self, sequence: int) -> str:
    """The event a sequence belongs to; events are never split."""
    return self.sample_id(sequence)

  def split_label(self, sequence: int) -> str | None:
    """The split that the data themselves give a sequence, or None."""
    del sequence
    return None

  def location(self, sequence: int) -> str:
    """Where a sequence comes from, for error messages."""
    return f"sequence {self.sample_id(sequence)!r}"


class Wrapper(Store):
  """A store that answers as another one does, but for what it overrides."""

  def __init__(self, store: Store):
    self._store = store

  variables = property(lambda self: self._store.variables)
  num_sequences = property(lambda self: self._store.num_sequences)
  space = property(lambda self: self._store.space)
  has_events = property(lambda self: self._store.has_events)
  fills_splits = property(lambda self: self._store.fills_splits)
  step = property(lambda self: self._store.step)
  files = property(lambda self: self._store.files)
  declared = property(lambda self: self._store.declared)

  def length(self, sequence: int) -> int:
    return self._store.length(sequence)

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    return self._store.read(sequence, start, stop)

  def times(self, sequence: int) -> np.ndarray | None:
    return self._store.times(sequence)

  def sample_id(self, sequence: int) -> str:
    return self._store.sample_id(sequence)

  def event(self, sequence: int) -> str:
    return self._store.event(sequence)

  def split_label(self, sequence: int) -> str | None:
    return self._store.split_label(sequence)

  def location(self, sequence: int) -> str:
    return self._store.location(sequence)


class Continued(Wrapper):
  """A store whose time axes go on beyond its last frames.

  Args:
    store: the frames; no others can be read.
    times: (axis [L]) -> the longer axis.
  """

  def __init__(self, store: Store, times: Callable[[np.ndarray], np.ndarray]):
    super().__init__(store)
    self._times = [
      None if axis is None else times(axis)
      for axis in map(store.times, range(store.num_sequences))
    ]

  def times(self, sequence: int) -> np.ndarray | None:
    return self._times[sequence]


@functools.cache
def say_once(level: int, text: str) -> None:
  """Writes a line to the log, the first time in a process that it is said.

  Args:
    level: logging.INFO or logging.WARNING of absl.
    text: the line.
  """
  logging.log(level, "%s", text)


def existing_path(path: str) -> str:
  """The absolute path of a file or folder that must be there.

  Raises:
    DataError: naming the absolute path and data.path.
  """
  if not path:
    raise errors.DataError("data.path is empty; expected the path of the data.")
  absolute = os.path.abspath(os.path.expanduser(path))
  if not os.path.exists(absolute):
    raise errors.DataError(
      f"There is no file or folder {absolute} (data.path={path!r}). Change data.path."
    )
  return absolute


def memory_mapped(path: str) -> np.ndarray:
  """The array of a .npy file, of which only what is indexed is read.

  Raises:
    DataError: naming the file, if it is no .npy file of plain numbers.
  """
  try:
    return np.lib.format.open_memmap(path, mode="r")
  except (ValueError, OSError, EOFError) as error:
    raise errors.DataError(
      f"{path} is no .npy file with plain numbers ({error}). Mend or remove it."
    ) from error


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
  """Names from a tuple or, as typed on a command line, "a, b"."""
  if isinstance(names, str):
    names = names.split(",")
  names = (str(name).strip() for name in names)  # "500" is typed as a number.
  return tuple(name for name in names if name)


def channels(
  where: str,
  count: int,
  names: str | Iterable[str],
  units: str | Iterable[str],
  known: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Variable, ...]:
  """Channels of data that do not name them, as the config does.

  Args:
    where: the data, for messages.
    count: how many channels they have.
    names: data.variables; () takes those of `known`, else channel_0, ...
    units: data.units; () leaves them out.
    known: attributes that the data give by name.

  Raises:
    DataError: if there are not as many names or units as channels.
  """
  known = known or {}
  names = as_names(names) or tuple(known)
  names = names or tuple(f"channel_{number}" for number in range(count))
  units = as_names(units)
  if len(names) != count or len(units) not in (0, count):
    raise errors.DataError(
      f"{where} has {count} channels, but data.variables names {len(names)} and "
      f"data.units {len(units)}. Give one each, or ()."
    )
  attributes = [dict(known.get(name, {})) for name in names]
  for number, unit in enumerate(units):
    attributes[number]["units"] = unit
  return tuple(map(Variable, names, attributes))


def index_space(height: int, width: int) -> xr.Dataset:
  """`Store.space` of a grid without coordinates: row and column numbers."""
  return xr.Dataset(
    coords={
      "y": ("y", np.arange(height), {"long_name": "row"}),
      "x": ("x", np.arange(width), {"long_name": "column"}),
    },
    attrs={"spatial_dims": ["y", "x"]},
  )
