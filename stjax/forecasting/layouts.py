"""Layouts of forecast stores: what the arrays are called and how they lie.

"stjax" keeps the data's own names: a variable a channel on (member, init_time
or sample, lead_time, rows, columns). "weatherbench2" is what WeatherBench 2
reads: a variable on (time, prediction_timedelta, level, latitude, longitude),
time being the initial time and latitudes ascending.
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
    dims: its dimensions: perhaps members, starts, lead times, perhaps levels,
      rows, columns.
    attrs: its attributes.
    sizes: entries of each dimension.
  """

  dims: tuple[str, ...]
  attrs: Mapping[str, Any]
  sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
  """The arrays of a store and where a forecast goes.

  Attributes:
    coords: coordinates, and the attributes of the whole store.
    arrays: by name.
    places: of each channel: the array's name, and its level or None.
    by_member: whether arrays have a dimension of members (the first).
    flip_rows: whether rows are stored in the opposite order.
  """

  coords: xr.Dataset
  arrays: dict[str, Array]
  places: tuple[tuple[str, int | None], ...]
  by_member: bool = True
  flip_rows: bool = False

  def parts(self, forecast: np.ndarray, rows: slice, leads: slice):
    """Yields (array name, index, values) to be written for some starts.

    Args:
      forecast: [M, B, n, H, W, C] in physical units.
      rows: which starts the B are.
      leads: which lead times the n are.
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
  """The layout of a store.

  Args:
    name: "stjax" or "weatherbench2" (forecast.layout).
    coordinates: variables, attributes, lead times and grid; see
      `input_pipeline.Split`.
    labels: names and times of the examples, on dimension "sample".
    members: ensemble members M.

  Raises:
    ConfigError: unknown name, or data that the layout has no place for.
  """
  table: dict[str, Callable[..., Layout]] = {
    "stjax": _own,
    "weatherbench2": _weatherbench2,
  }
  kind = errors.pick("forecast.layout", name, table)
  return kind(coordinates, labels, members)


def _own(coordinates: xr.Dataset, labels: xr.Dataset, members: int) -> Layout:
  samples = labels.sizes["sample"]
  # One series, every start once: the natural axis is the initial time.
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
  # Of each channel: its variable and level.
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
  """The latitude of the rows, or the longitude of the columns."""
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
  """The initial times, each of which must be there once."""
  reason = ""
  times = labels.get("init_time")
  if times is None or coordinates.lead_time.dtype.kind != "m":
    reason = "dates"
  elif len(np.unique(times)) < len(times):
    reason = "one forecast for every initial time"
  elif (labels.valid_time != times + coordinates.lead_time).any():
    reason = "equal steps of time"  # Not calendar months.
  if reason:
    raise errors.ConfigError(
      f"forecast.layout='weatherbench2' needs {reason}, which the data do"
      " not have. Use 'stjax'."
    )
  return times.values


def _stem(name: str, attrs: Mapping[str, Any]) -> tuple[str, float | None]:
  """A channel's variable and level: ("temperature", 500)."""
  stem, _, level = name.rpartition("@")
  if not stem:
    stem, level = name, attrs.get("level")
  try:
    value = float(level)
  except (TypeError, ValueError):
    return name, None  # Such as a named member.
  return stem, int(value) if value.is_integer() else value
