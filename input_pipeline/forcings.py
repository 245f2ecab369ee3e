"""Forcings: fields known in advance of a forecast, from a store of their own.

They are read beside the data, frame by frame, and never forecast: winds over
an ocean, insolation, boundary values.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from input_pipeline import errors, normalise, options, training, windows
from input_pipeline.stores import base


@dataclasses.dataclass(frozen=True)
class Forcings:
  """The forcings of a data set.

  Attributes:
    store: their frames; frame i of a sequence is of the time of the data's.
    statistics: of the data's training frames.
  """

  store: base.Store
  statistics: normalise.Statistics

  def reach(self, cut: windows.Windows) -> None:
    """Raises DataError unless all frames of the windows are there."""
    for sequence in range(self.store.num_sequences):
      stop = cut.start[cut.sequence == sequence].max(initial=0) + cut.length
      length = self.store.length(sequence)
      if (cut.sequence == sequence).any() and stop > length:
        raise errors.DataError(
          f"{self.store.location(sequence)} has {length} frames of the "
          f"forcings (data.forcings), but {stop} are needed up to the last "
          "lead time. Give longer forcings (data.forcings.path), a shorter "
          "forecast.horizon, or forecast.past_data_end=False."
        )

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """Normalised frames [T, H, W, F]; not finite where missing."""
    frames = np.array(self.store.read(sequence, start, stop), np.float32, order="C")
    normalise.forward_in_place(self.statistics, frames)
    return frames


def make(
  data: base.Store,
  resolved: Mapping[str, Any],
  statistics: normalise.Statistics | None,
  cache_dir: str | None,
) -> Forcings | None:
  """The forcings of a data config; None where it names none.

  Args:
    data: the store of the data themselves.
    resolved: the data config.
    statistics: of the forcings, if known; else they are computed.
    cache_dir: folder for prepared copies and statistics.

  Raises:
    DataError: for settings that cannot be used, or forcings of another grid,
      other sequences or other times than the data's.
  """
  changed = config_of("forcings", resolved)
  if changed is None:
    return None
  with within("data.forcings"):
    _check_apart(data, resolved)
    store = training.open_store(changed, cache_dir)
    check_grid(store.space, data.space)
  _check(store, data)
  if statistics is None:
    statistics = training.compute_statistics(
      store, changed, cache_dir, frames_of=data, key="data.forcings"
    )
  training.check_statistics(statistics, store.names, "data.forcings.variables")
  return Forcings(store, statistics)


def config_of(section: str, resolved: Mapping[str, Any]) -> dict[str, Any] | None:
  """The data config of further fields; None where it names none.

  Args:
    section: "forcings" or "static", the part of the data config that names them.
    resolved: the data config; the further fields lie in the same kind of store.

  Raises:
    DataError: for a path without variables, or a store that has no choice.
  """
  names = base.as_names(resolved[section]["variables"])
  path = resolved[section]["path"]
  if not names:
    if path:
      raise errors.DataError(
        f"data.{section}.path={path!r} is set, but data.{section}.variables "
        "names none of its variables."
      )
    return None
  given = {"variables": names} | ({"path": path} if path else {})
  known = options.store_defaults(resolved["store"])
  for key in given:
    if key not in known:
      raise errors.DataError(
        f"data.{section}.{key} cannot be used: store {resolved['store']!r} "
        f"has no data.{key}. Use a store of files."
      )
  # Winds go below -1, and have other units, whatever the data need.
  changed = {"transform": "identity"}
  changed["missing_value"] = resolved[section]["missing_value"]
  if resolved["normalise"] == "fixed":
    changed |= {"normalise": "standard", "offset": (), "scale": ()}
  return {**resolved, **given, **changed}


@contextlib.contextmanager
def within(section: str) -> Iterator[None]:
  """Says of errors that speak of the data's own keys which section they are about."""
  try:
    yield
  except errors.DataError as error:
    raise errors.DataError(f"In {section}: {error}") from error


def check_grid(space: xr.Dataset, data: xr.Dataset) -> None:
  """Raises DataError unless the grid of further fields is that of the data.

  Args:
    space: of the fields, as `Store.space`.
    data: of the data.
  """
  for name, other in zip(
    space.attrs["spatial_dims"], data.attrs["spatial_dims"], strict=True
  ):
    here, there = space[name].values, data[other].values
    if {here.dtype.kind, there.dtype.kind} & set("OSU"):
      _check_names(here, there, name)
    elif here.shape != there.shape or not np.allclose(
      here.astype(np.float64), there.astype(np.float64), atol=1e-4
    ):
      raise errors.DataError(
        f"The fields have {len(here)} {name} from {here[0]} to {here[-1]}, the "
        f"data {len(there)} from {there[0]} to {there[-1]}. Expected the same "
        "grid: interpolate one to the other."
      )


def _check_names(here: np.ndarray, there: np.ndarray, dim: str) -> None:
  """Raises DataError unless the same places are named in the same order."""
  fields, data = (
    [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    for values in (here, there)
  )
  if fields == data:
    return
  if sorted(fields) == sorted(data):
    place = next(i for i in range(len(data)) if fields[i] != data[i])
    raise errors.DataError(
      f"The fields have the same {dim} as the data, but in another order: number "
      f"{place} is {fields[place]!r} and {data[place]!r} in the data. Expected the "
      "order of the data: write the file of the fields in that order."
    )

  def listed(names):
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "") or "none"

  raise errors.DataError(
    f"The fields have {len(fields)} {dim}, the data {len(data)}. Only the fields have "
    f"{listed(set(fields) - set(data))}; only the data have "
    f"{listed(set(data) - set(fields))}. Expected the same in the same order: keep "
    "those that both have in both files."
  )


def _check_apart(data: base.Store, resolved: Mapping[str, Any]) -> None:
  """Raises DataError if variables that were found by themselves are forcings too."""
  section = resolved["forcings"]
  names = set(base.as_names(section["variables"]))
  both = [name for name in data.names if {name, name.partition("@")[0]} & names]
  if both and not resolved["variables"] and not section["path"]:
    left = [name for name in data.names if name not in both]
    raise errors.DataError(
      f"{', '.join(both)} would be forecast as well as known in advance, since "
      "data.variables is empty. Name what is to be forecast: "
      f"--config.data.variables={','.join(left) or 'NAMES'}."
    )


def _check(store: base.Store, data: base.Store) -> None:
  """Raises DataError unless the frames of both belong together."""
  ids = [[s.sample_id(i) for i in range(s.num_sequences)] for s in (store, data)]
  # Files of forcings may have names of their own.
  same = ids[0] == ids[1] or set(ids[0]) != set(ids[1])
  if len(ids[0]) != len(ids[1]) or not same:
    raise errors.DataError(
      f"The forcings (data.forcings) have the sequences {ids[0][:3]} (of "
      f"{len(ids[0])}), the data {ids[1][:3]} (of {len(ids[1])}). Expected "
      "the same in the same order."
    )
  calendars = [s.space.attrs.get("calendar", "") for s in (store, data)]
  if calendars[0] != calendars[1]:
    raise errors.DataError(
      f"{store.location(0)}: the forcings (data.forcings) have times in the calendar "
      f"{calendars[0] or 'standard'!r}, the data in {calendars[1] or 'standard'!r}. "
      "Expected the same: bring them to one calendar."
    )
  for sequence in range(data.num_sequences):
    length = data.length(sequence)
    ours, theirs = store.times(sequence), data.times(sequence)
    long_enough = store.length(sequence) >= length
    if (
      not long_enough
      or (ours is None) != (theirs is None)
      or (ours is not None and (ours[:length] != theirs).any())
    ):
      raise errors.DataError(
        f"{store.location(sequence)}: the forcings (data.forcings) do not "
        f"have the times of the data's {length} frames. Expected those, in "
        "order; more may follow, for forecasts beyond the data."
      )
