"""Layouts of forecast stores: the names and dimensions of their arrays.

"stjax" keeps the data's own names, and stores each channel as a variable on
(member, init_time or sample, lead_time, rows, columns). "weatherbench2" is the
layout that WeatherBench 2 reads, with variables on (time,
prediction_timedelta, level, latitude, longitude), where time is the initial
time and latitudes ascend.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from stjax import errors

_LATITUDE, _LONGITUDE = ("lat", "latitude"), ("lon", "longitude")


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a store.

  Attributes:
    dims: names of its dimensions. Their order is members (if there are any),
      starts, lead times, levels (if there are any), rows, columns.
    attrs: its attributes.
    sizes: size of each dimension.
  """

  dims: tuple[str, ...]
  attrs: Mapping[str, Any]
  sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
  """The arrays of a store, and the places of a forecast's channels in them.

  Attributes:
    coords: coordinates, and the attributes of the whole store.
    arrays: the arrays by name.
    places: name of the array, and number of the level or None, for each channel.
    by_member: whether the first dimension of the arrays is that of members.
    flip_rows: whether rows are stored in the opposite order.
  """

  coords: xr.Dataset
  arrays: dict[str, Array]
  places: tuple[tuple[str, int | None], ...]
  by_member: bool = True
  flip_rows: bool = False

  def parts(self, forecast: np.ndarray, rows: slice, leads: slice):
    """Splits a piece of the forecasts into parts of arrays.

    Args:
      forecast: [M, B, n, H, W, C] in physical units.
      rows: numbers of the B starts.
      leads: numbers of the n lead times.

    Yields:
      (name of the array, index in it, values to be written there).
    """
    if self.flip_rows:
      forecast = forecast[:, :, :, ::-1]
    for channel, (name, level) in enumerate(self.places):
      index = (slice(None),) * self.by_member + (rows, leads)
      if level is not None:
        index += (level,)
      values = forecast[..., channel]
      yield name, index, values if self.by_member else values[0]


def build(
  name: str, coordinates: xr.Dataset, labels: xr.Dataset, members: int
) -> Layout:
  """Returns the layout of a store.

  Args:
    name: "stjax" or "weatherbench2", the value of forecast.layout.
    coordinates: variables, attributes, lead times and grid; see
      `input_pipeline.Split`.
    labels: names and times of the examples, on the dimension "sample".
    members: number of ensemble members M.

  Raises:
    ConfigError: the name is unknown, or the layout has no place for the data.
  """
  table: dict[str, Callable[..., Layout]] = {
    "stjax": _own,
    "weatherbench2": _weatherbench2,
  }
  kind = errors.pick("forecast.layout", name, table)
  return kind(coordinates, labels, members)


def _own(coordinates: xr.Dataset, labels: xr.Dataset, members: int) -> Layout:
  samples = labels.sizes["sample"]
  # If every start is there once, as in one series, the initial time can be an
  # axis.
  times = labels.get("init_time")
  by_time = times is not None and len(np.unique(times)) == samples
  axis = "init_time" if by_time else "sample"
  if by_time:
    labels = labels.swap_dims(sample="init_time").set_coords("init_time")
  labels = labels.set_coords(list(labels.data_vars))
  space = tuple(coordinates.attrs["spatial_dims"])
  dims = ("member", axis, "lead_time", *space)
  lead = coordinates.sizes["lead_time"]
  grid = tuple(coordinates.sizes[d] for d in space)
  extra = " ".join(
    str(c) for c in (*coordinates.coords, *labels.coords) if c not in dims
  )
  names = list(coordinates.data_vars)
  return Layout(
    coords=xr.Dataset(
      coords=dict(coordinates.coords)
      | dict(labels.coords)
      | {"member": ("member", np.arange(members))},
      attrs=dict(coordinates.attrs),
    ),
    arrays={
      name: Array(
        dims,
        dict(coordinates[name].attrs) | ({"coordinates": extra} if extra else {}),
        (members, samples, lead, *grid),
      )
      for name in names
    },
    places=tuple((name, None) for name in names),
  )


def _weatherbench2(coordinates: xr.Dataset, labels: xr.Dataset, members: int) -> Layout:
  latitude, longitude = (
    _axis(coordinates, position, names)
    for position, names in ((0, _LATITUDE), (1, _LONGITUDE))
  )
  starts = _starts(coordinates, labels)
  flip = len(latitude) > 1 and latitude.values[0] > latitude.values[-1]
  coords = {
    "time": ("time", starts, {"long_name": "initial time"}),
    "prediction_timedelta": (
      "prediction_timedelta",
      coordinates.lead_time.values,
      {"long_name": "lead time"},
    ),
    "latitude": (
      "latitude",
      latitude.values[::-1] if flip else latitude.values,
      dict(latitude.attrs),
    ),
    "longitude": ("longitude", longitude.values, dict(longitude.attrs)),
  }
  if members > 1:
    coords["realization"] = ("realization", np.arange(members))
  # Channels such as "temperature@500" are levels of one variable.
  stems = [_stem(str(n), v.attrs) for n, v in coordinates.data_vars.items()]
  levels = sorted({level for _, level in stems if level is not None})
  if levels:
    coords["level"] = ("level", np.asarray(levels))
  attrs = {k: v for k, v in coordinates.attrs.items() if k != "spatial_dims"}
  frame = xr.Dataset(coords=coords, attrs=attrs)
  arrays, places = {}, []
  for (name, level), channel in zip(stems, coordinates.data_vars.values(), strict=True):
    dims = (
      *(("realization",) if members > 1 else ()),
      "time",
      "prediction_timedelta",
      *(() if level is None else ("level",)),
      "latitude",
      "longitude",
    )
    known = arrays.get(name)
    attrs = (
      dict(channel.attrs)
      if known is None
      else {k: v for k, v in known.attrs.items() if channel.attrs.get(k) == v}
    )
    if level is not None:
      attrs.pop("level", None)
    if (known is not None and known.dims != dims) or (name, level) in stems[
      : len(places)
    ]:
      raise errors.ConfigError(
        f"forecast.layout='weatherbench2' has one place for {name!r}, but"
        f" data.variables has {sorted(map(str, coordinates.data_vars))}."
        " Choose another layout or other variables."
      )
    arrays[name] = Array(dims, attrs, tuple(frame.sizes[d] for d in dims))
    places.append((name, None if level is None else levels.index(level)))
  return Layout(frame, arrays, tuple(places), members > 1, flip)


def _axis(coordinates: xr.Dataset, position: int, names: Sequence[str]) -> xr.DataArray:
  """Returns the latitude of the rows, or the longitude of the columns."""
  space = coordinates.attrs["spatial_dims"]
  for name, values in coordinates.coords.items():
    known = str(name).lower() in names
    known |= str(values.attrs.get("standard_name")) == names[1]
    if known and values.dims == (space[position],):
      return values
  raise errors.ConfigError(
    f"forecast.layout='weatherbench2' needs a {names[1]} along"
    f" {space[position]!r}; the data have"
    f" {sorted(map(str, coordinates.coords))}. Use 'stjax'."
  )


def _starts(coordinates: xr.Dataset, labels: xr.Dataset) -> np.ndarray:
  """Returns the initial times, each of which must be there once."""
  reason = ""
  times = labels.get("init_time")
  if times is None or coordinates.lead_time.dtype.kind != "m":
    reason = "dates"
  elif len(np.unique(times)) < len(times):
    reason = "one forecast for every initial time"
  elif (labels.valid_time != times + coordinates.lead_time).any():
    reason = "equal steps of time"  # Calendar months are not equal steps.
  if reason:
    raise errors.ConfigError(
      f"forecast.layout='weatherbench2' needs {reason}, which the data do"
      " not have. Use 'stjax'."
    )
  return times.values


def _stem(name: str, attrs: Mapping[str, Any]) -> tuple[str, float | None]:
  """Returns a channel's variable and level, such as ("temperature", 500)."""
  stem, _, level = name.rpartition("@")
  if not stem:
    stem, level = name, attrs.get("level")
  try:
    value = float(level)
  except (TypeError, ValueError):
    return name, None  # What follows the "@" is a name, not a level.
  return stem, int(value) if value.is_integer() else value
