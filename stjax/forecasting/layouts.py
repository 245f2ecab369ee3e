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
from stjax.forecasting import cf

_LATITUDE, _LONGITUDE = ("lat", "latitude"), ("lon", "longitude")
_PRESSURES = ("hpa", "pa", "mbar", "millibar", "millibars", "mb")


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
    coords: coordinates and grid mappings, as variables, and the attributes of the
      whole store.
    arrays: the arrays by name.
    places: name of the array, and number of the level or None, for each channel.
    order: place of each example along the starts, or None for their own order.
    by_member: whether the first dimension of the arrays is that of members.
    flip_rows: whether rows are stored in the opposite order.
    off: share of the valid times that are not initial time + lead time.
  """

  coords: xr.Dataset
  arrays: dict[str, Array]
  places: tuple[tuple[str, int | None], ...]
  order: np.ndarray | None = None
  by_member: bool = True
  flip_rows: bool = False
  off: float = 0.0

  def parts(self, forecast: np.ndarray, rows: slice, leads: slice):
    """Splits a piece of the forecasts into parts of arrays.

    Args:
      forecast: [M, B, n, H, W, C] in physical units.
      rows: numbers of the B starts.
      leads: numbers of the n lead times.

    Yields:
      (name of the array, index in it, values to be written there).
    """
    if self.order is not None:
      for row, place in enumerate(self.order[rows].tolist()):
        one = slice(place, place + 1)
        yield from self._parts(forecast[:, row : row + 1], one, leads)
    else:
      yield from self._parts(forecast, rows, leads)

  def _parts(self, forecast, rows, leads):
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
  off = _off(coordinates, labels)
  # If every start is there once, as in one series, the initial time can be an
  # axis.
  times = labels.get("init_time")
  by_time = times is not None and len(np.unique(times)) == samples
  order = None
  if by_time:
    labels, order = _sorted(labels)
    labels = labels.swap_dims(sample="init_time")
  axis = "init_time" if by_time else "sample"
  lead, lead_attrs = cf.lead_times(coordinates.lead_time)
  if off:
    lead_attrs["comment"] = _OFF
  number, member_attrs = cf.members(members)
  variables = {
    "member": xr.Variable("member", number, member_attrs),
    "lead_time": xr.Variable("lead_time", lead, lead_attrs),
  }
  for name, label in labels.variables.items():
    attrs = cf.label_attributes(str(name)) | {
      k: v for k, v in label.attrs.items() if k == "comment"
    }
    if name == axis:
      attrs["axis"] = "T"
    variables[name] = xr.Variable(label.dims, label.values, attrs)
  space = cf.spatial(coordinates, ["sample", *variables])
  coords = xr.Dataset(variables | dict(space.variables))
  rows = tuple(space.attrs["spatial_dims"])
  dims = ("member", axis, "lead_time", *rows)
  sizes = (members, samples, len(lead), *(space.sizes[d] for d in rows))
  coords.attrs = _whole(coordinates) | {
    "spatial_dims": " ".join(rows),
    "names": space.attrs["names"],
  }
  names, taken = {}, {*coords.variables, *coords.dims}
  for name in map(str, coordinates.data_vars):
    names[name] = cf.name_of(name, taken)
    taken.add(names[name])
  extra = _auxiliary(coords, dims)
  arrays = {}
  for name, written in names.items():
    attrs = dict(coordinates[name].attrs)
    for key, value in list(attrs.items()):
      if units := coordinates.attrs.get(f"{key}_units"):
        if isinstance(value, int | float):
          attrs[f"{key}_units"] = units
    attrs = cf.of_variable(name, written, attrs, coords)
    arrays[written] = Array(dims, attrs | extra, sizes)
  coords.attrs.pop("names")
  places = tuple((written, None) for written in names.values())
  return Layout(coords, arrays, places, order, off=off)


def _weatherbench2(coordinates: xr.Dataset, labels: xr.Dataset, members: int) -> Layout:
  axes = [
    _axis(coordinates, position, names)
    for position, names in ((0, _LATITUDE), (1, _LONGITUDE))
  ]
  _check_starts(coordinates, labels)
  labels, order = _sorted(labels)
  lead, lead_attrs = cf.lead_times(coordinates.lead_time)
  number, member_attrs = cf.members(members)
  variables = {
    "time": xr.Variable(
      "time",
      labels.init_time.values,
      # In CF, a dimension called time has this name, whichever time it is.
      {"standard_name": "time", "long_name": "initial time", "axis": "T"},
    ),
    "prediction_timedelta": xr.Variable("prediction_timedelta", lead, lead_attrs),
  }
  if members > 1:
    variables["realization"] = xr.Variable("realization", number, member_attrs)
  # Channels such as "temperature@500" are levels of one variable.
  channels = list(coordinates.data_vars.values())
  stems = [_stem(str(v.name), v.attrs) for v in channels]
  levels = sorted({level for _, level in stems if level is not None})
  if levels:
    attrs = _level_attributes(coordinates, channels, stems)
    variables["level"] = xr.Variable("level", np.asarray(levels), attrs)
  space = coordinates.drop_vars(
    [n for n, c in coordinates.coords.items() if c.dims and n not in axes]
    + list(coordinates.data_vars)
  )
  rename = {old: new for old, new in zip(axes, _NAMES, strict=True) if old != new}
  dims = coordinates.attrs["spatial_dims"]
  space = xr.Dataset(
    coords={
      rename.get(str(n), str(n)): (
        tuple(_NAMES[dims.index(d)] for d in c.dims),
        c.values,
        c.attrs,
      )
      for n, c in space.coords.items()
    },
    attrs={"spatial_dims": _NAMES},
  )
  space = cf.spatial(space, variables)
  latitude = space["latitude"]
  flip = latitude.size > 1 and latitude.values[0] > latitude.values[-1]
  if flip:
    space = space.isel(latitude=slice(None, None, -1))
  coords = xr.Dataset(variables | dict(space.variables))
  coords.attrs = _whole(coordinates) | {"names": space.attrs["names"]}
  names, taken = {}, {*coords.variables}
  for stem in dict.fromkeys(stem for stem, _ in stems):
    names[stem] = cf.name_of(stem, taken)
    taken.add(names[stem])
  arrays, places = {}, []
  for (name, level), channel in zip(stems, channels, strict=True):
    dims = (
      *(("realization",) if members > 1 else ()),
      "time",
      "prediction_timedelta",
      *(() if level is None else ("level",)),
      *_NAMES,
    )
    known = arrays.get(names[name])
    attrs = cf.of_variable(name, names[name], channel.attrs, coords)
    # A variable has what all its levels have.
    attrs = {k: v for k, v in attrs.items() if known is None or known.attrs.get(k) == v}
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
    arrays[names[name]] = Array(dims, attrs, tuple(coords.sizes[d] for d in dims))
    places.append((names[name], None if level is None else levels.index(level)))
  coords.attrs.pop("names")
  return Layout(coords, arrays, tuple(places), order, members > 1, flip)


_NAMES = ["latitude", "longitude"]
_OFF = (
  "initial time + lead time is not the valid time everywhere, because the steps of"
  " the data are not equal; valid_time has the exact times"
)


def _whole(coordinates: xr.Dataset) -> dict[str, Any]:
  """Returns the attributes of the data that a whole store has, too."""
  told = ("_units", "_positive", "_standard_name")  # These are told of levels.
  return {
    k: v
    for k, v in coordinates.attrs.items()
    if k != "spatial_dims" and not k.endswith(told)
  }


def _auxiliary(coords: xr.Dataset, dims: Sequence[str]) -> dict[str, str]:
  """Returns the attribute that names the coordinates which are no axes."""
  names = [str(n) for n, v in coords.variables.items() if v.dims and (n,) != v.dims]
  return {"coordinates": " ".join(names)} if names else {}


def _level_attributes(coordinates, channels, stems) -> dict[str, Any]:
  """Returns the attributes of the levels, as far as the data know them."""
  found = []
  for (_, level), channel in zip(stems, channels, strict=True):
    if level is None:
      continue
    one = {}
    for key, value in channel.attrs.items():
      units = coordinates.attrs.get(f"{key}_units")
      if units and value == level:
        one = {"units": units}
        for more in ("positive", "standard_name"):
          if text := coordinates.attrs.get(f"{key}_{more}"):
            one[more] = text
    found.append(one)
  attrs = {"long_name": "level"}
  if found and all(one == found[0] for one in found):
    attrs |= found[0]
  if str(attrs.get("units", "")).lower() in _PRESSURES:
    attrs.setdefault("positive", "down")
  if "positive" in attrs:
    attrs["axis"] = "Z"
  return attrs


def _sorted(labels: xr.Dataset) -> tuple[xr.Dataset, np.ndarray | None]:
  """Returns the labels by initial time, and the place of each example in them.

  A coordinate variable goes one way; sequences need not follow each other in time.
  """
  order = np.argsort(labels.init_time.values, kind="stable")
  if (order == np.arange(len(order))).all():
    return labels, None
  places = np.empty_like(order)
  places[order] = np.arange(len(order))
  return labels.isel(sample=order), places


def _off(coordinates: xr.Dataset, labels: xr.Dataset) -> float:
  """Returns the share of valid times that are not initial time + lead time."""
  if "init_time" not in labels or "valid_time" not in labels:
    return 0.0
  lead, times = coordinates.lead_time, labels.init_time.values
  valid = labels.valid_time.transpose("sample", "lead_time").values
  if not valid.size or valid.shape[1] != lead.size:
    return 0.0
  if lead.dtype.kind == "m":
    steps = lead.values
    if times.dtype.kind == "O":  # Dates of cftime add the standard library's.
      steps = steps.astype("timedelta64[us]").astype(object)
    return float(np.mean(times[:, None] + steps != valid))
  if months := cf.months_of(lead):
    passed = _months(valid) - _months(times)[:, None]
    return float(np.mean(passed != months * lead.values))
  return 0.0


def _months(dates: np.ndarray) -> np.ndarray:
  """Returns the number of the month of dates, counted on over the years."""
  if dates.dtype.kind == "M":
    return dates.astype("datetime64[M]").astype(np.int64)
  months = [12 * date.year + date.month for date in dates.ravel()]
  return np.reshape(months, dates.shape)


def _axis(coordinates: xr.Dataset, position: int, names: Sequence[str]) -> str:
  """Returns the name of the latitude of the rows, or the longitude of the columns."""
  space = coordinates.attrs["spatial_dims"]
  for name, values in coordinates.coords.items():
    known = str(name).lower() in names
    known |= str(values.attrs.get("standard_name")) == names[1]
    if known and values.dims == (space[position],):
      return str(name)
  raise errors.ConfigError(
    f"forecast.layout='weatherbench2' needs a {names[1]} along"
    f" {space[position]!r}; the data have"
    f" {sorted(map(str, coordinates.coords))}. Use 'stjax'."
  )


def _check_starts(coordinates: xr.Dataset, labels: xr.Dataset) -> None:
  """Refuses initial times that are not there once, with equal steps."""
  reason = ""
  times = labels.get("init_time")
  lead = coordinates.lead_time
  if times is None:
    reason = "dates"
  elif len(np.unique(times)) < len(times):
    reason = "one forecast for every initial time"
  elif lead.dtype.kind != "m" or _off(coordinates, labels):
    reason = "equal steps of time (months and years are not)"
  if reason:
    raise errors.ConfigError(
      f"forecast.layout='weatherbench2' needs {reason}, which the data do"
      " not have. Use 'stjax'."
    )


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
