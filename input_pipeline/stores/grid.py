"""Finding what the dimensions of an xarray dataset mean."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import errors

_TIME_NAMES = ("time", "valid_time", "t", "date")
_GRID_NAMES = (
  ("lat", "lon"),
  ("latitude", "longitude"),
  ("y", "x"),
  ("rlat", "rlon"),
  ("south_north", "west_east"),
  ("nav_lat", "nav_lon"),
  ("row", "column"),
)
# Values of positions that are read to see whether they are the same in every frame.
_POSITIONS = 50_000_000
_LATITUDE = ("latitude", "projection_y_coordinate", "grid_latitude")
_LONGITUDE = ("longitude", "projection_x_coordinate", "grid_longitude")
_NORTH = ("degrees_north", "degree_north", "degrees_n")
_EAST = ("degrees_east", "degree_east", "degrees_e")


def time_dims(dataset: xr.Dataset, name: str) -> list[str]:
  """The dimensions of a variable that look like time, the likeliest first."""
  dims = dataset[name].dims
  dated = [dim for dim in dims if dim in dataset.coords and _is_date(dataset[dim])]
  return dated + [dim for dim in dims if str(dim).lower() in _TIME_NAMES]


def time_dim(dataset: xr.Dataset, names: Sequence[str], given: str) -> str:
  """The time dimension of all the named variables.

  Args:
    dataset: one file.
    names: variables that must have it.
    given: data.time_dim; "" finds it by dates on it or by its name.

  Raises:
    DataError: if a variable lacks it, listing its dimensions.
  """
  found = given or [*time_dims(dataset, names[0]), ""][0]
  for name in names:
    if found not in dataset[name].dims:
      raise errors.DataError(
        f"Variable {name!r} has no time dimension {found or '(none found)'!r}"
        f"; its dimensions are {', '.join(map(str, dataset[name].dims))}. "
        "Set data.time_dim or change data.variables."
      )
  return found


def spatial_dims(
  dataset: xr.Dataset,
  names: Sequence[str],
  fixed: Collection[str],
  given: Sequence[str],
) -> tuple[str, ...]:
  """The dimensions (H, W), or (H,) of point data.

  Args:
    dataset: one file.
    names: variables that must have them.
    fixed: dimensions with another meaning (time, sample).
    given: data.spatial_dims; () finds them by usual names, then by CF
      attributes, then takes what is left when that is one or two.

  Raises:
    DataError: if they cannot be told, listing the dimensions.
  """
  dims = [dim for dim in dataset[names[0]].dims if dim not in fixed]
  found = tuple(given) or _by_name(dims) or _by_attributes(dataset, dims)
  if not found and len(dims) <= 2:
    found = tuple(dims)
  for name in names:
    if (
      not 1 <= len(found) <= 2
      or len(set(found)) < len(found)
      or set(found) - set(dataset[name].dims)
    ):
      raise errors.DataError(
        f"Cannot use {found or 'any dimension'} as rows and columns of "
        f"variable {name!r}, which has the dimensions "
        f"{', '.join(map(str, dataset[name].dims))}. Set data.spatial_dims "
        "to two of them (or one, for points)."
      )
  return found


def coordinates(dataset: xr.Dataset, dims: Sequence[str]) -> xr.Dataset:
  """Spatial coordinates of a dataset, `Store.space`.

  Args:
    dataset: one file.
    dims: (H, W), or (H,): then a dimension "column" of size 1 is added.

  Returns:
    Coordinates on H and W (row and column numbers where there are none), the map
    projections that the variables name (0-d, CF's grid_mapping), and
    attrs["spatial_dims"]. For another dimension NAME, such as levels,
    attrs["NAME_units"] and so on say what its coordinate says.
  """
  found = {
    dim: (dim, np.arange(dataset.sizes[dim]), {"long_name": "index"}) for dim in dims
  }
  for name, array in dataset.variables.items():
    if name in dataset.coords or _is_position(name, array):
      others = set(array.dims) - set(dims)
      if len(others) == 1 and set(dims) < set(array.dims):
        array = _fixed(name, array, *others)
      if array is not None and set(array.dims) and set(array.dims) <= set(dims):
        found[name] = (array.dims, array.values, _plain(array.attrs))
  attrs = {}
  for array in dataset.data_vars.values():
    if set(dims) <= set(array.dims):
      text = array.attrs.get("grid_mapping", array.encoding.get("grid_mapping", ""))
      for name in grid_mappings(text):
        if name in dataset.variables and not dataset[name].dims:
          found[name] = ((), 0, _projection(dataset[name].attrs))
      for dim in set(array.dims) - set(dims):
        if dim in dataset.coords and dataset[dim].dtype.kind in "iuf":
          for key in {"units", "positive", "standard_name"} & dataset[dim].attrs.keys():
            attrs[f"{dim}_{key}"] = str(dataset[dim].attrs[key])
  names = list(dims)
  if len(names) == 1:
    names.append("column")
    found["column"] = ("column", np.zeros(1, int))
  return xr.Dataset(coords=found, attrs={"spatial_dims": names, **attrs})


def grid_mappings(text: str) -> list[str]:
  """The names in CF's attribute grid_mapping, such as "crs" or "crs: x y"."""
  return re.findall(r"(\w+)\s*:", text) or text.split()


def _fixed(name, array: xr.Variable, dim) -> xr.Variable | None:
  """A position that a file repeats along another dimension, such as time."""
  if not _is_position(name, array) or not array.sizes[dim]:
    return None
  first = array.isel({dim: 0})
  values = array.transpose(dim, ...).values if array.size <= _POSITIONS else None
  if values is not None and all(
    np.array_equal(part, first.values, equal_nan=True) for part in values
  ):
    return first
  logging.info(
    "%r changes along %r, so that forecasts are stored without it.", name, dim
  )
  return None


def _projection(attrs: Mapping[str, Any]) -> dict[str, Any]:
  """Texts, numbers and lists of numbers (two standard parallels)."""
  lists = {
    key: value.tolist()
    for key, value in attrs.items()
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "iuf"
  }
  return _plain(attrs) | lists


def times(
  dataset: xr.Dataset, dim: str, sample_dim: str, given: str
) -> np.ndarray | None:
  """Seconds since 1970, int64 [T] or [sample, T]; None without dates.

  Args:
    dataset: one file.
    dim: the time dimension.
    sample_dim: the dimension of sequences, or "".
    given: data.time_variable; "" takes the coordinate of `dim` or the one
      variable of dates on it.

  Raises:
    DataError: if the named variable is not there or holds no dates.
  """
  if given and given not in dataset.variables:
    raise errors.unknown(
      "variable (data.time_variable)", given, map(str, dataset.variables)
    )
  candidates = [given] if given else [dim, *dataset.variables]
  allowed = {frozenset({dim}), frozenset({dim, sample_dim})}
  for name in candidates:
    if name not in dataset.variables:
      continue
    array = dataset[name]
    if frozenset(array.dims) in allowed and _is_date(array):
      if array.ndim == 2:
        array = array.transpose(sample_dim, dim)
      return _seconds(array.values)
  if given:
    raise errors.DataError(
      f"data.time_variable={given!r} has the dimensions "
      f"{dataset[given].dims} and type {dataset[given].dtype}; expected "
      f"dates on {dim!r}."
    )
  return None


def calendar(dataset: xr.Dataset, dim: str) -> str:
  """The calendar of a time coordinate; "" for the civil one or no dates."""
  if dim not in dataset.coords or dataset[dim].dtype.kind != "O":
    return ""
  return getattr(dataset[dim].values.flat[0], "calendar", "")


def labels(dataset: xr.Dataset, name: str, sample_dim: str, kind: str) -> list[str]:
  """One text for each entry of the sample dimension; [] for no name."""
  if not name:
    return []
  key = f"data.{kind}_variable"
  if name not in dataset.variables:
    raise errors.unknown(f"variable ({key})", name, map(str, dataset.variables))
  if dataset[name].dims != (sample_dim,):
    raise errors.DataError(
      f"{key}={name!r} has the dimensions {dataset[name].dims}; expected "
      f"({sample_dim!r},)."
    )
  return [
    value.decode() if isinstance(value, bytes) else str(value)
    for value in dataset[name].values.tolist()
  ]


def select(
  dataset: xr.Dataset, ranges: Mapping[str, Sequence[Any]], several_files: bool
) -> xr.Dataset:
  """Cuts dimensions by position or by value.

  Args:
    dataset: one file.
    ranges: data.select. Whole numbers (or None) are positions: start, stop
      and perhaps step; anything else is a first and a last value.
    several_files: whether positions would be counted anew in each file.

  Raises:
    DataError: if a range is not of that form or leaves nothing.
  """
  for dim, limits in ranges.items():
    if dim not in dataset.dims:
      continue  # The caller reports unknown dimensions.
    positions = all(v is None or isinstance(v, int) for v in limits)
    if len(limits) not in ((2, 3) if positions else (2,)):
      raise errors.DataError(
        f"data.select.{dim}={tuple(limits)!r}; expected (first, last) values "
        "or (start, stop) or (start, stop, step) positions."
      )
    if positions:
      cut = dataset.isel({dim: slice(*limits)})
    else:
      cut = dataset.isel({dim: _within(dataset, dim, limits)})
    if not cut.sizes[dim] and not several_files:
      raise errors.DataError(
        f"data.select.{dim}={tuple(limits)!r} leaves nothing of "
        f"{dataset.sizes[dim]} entries{_extent(dataset, dim)}."
      )
    dataset = cut
  return dataset


def coarsen(frames: np.ndarray, factor: int) -> np.ndarray:
  """Means over blocks of the observed cells.

  Args:
    frames: [T, H, W, C] with NaN where missing.
    factor: cells of a block along H and along W (not along a W of 1).

  Returns:
    float32 [T, ceil(H / factor), ceil(W / factor), C]; a block without an
    observed cell is NaN, a block over the edge takes the cells it has.
  """
  if factor == 1:
    return frames
  rows = np.arange(0, frames.shape[1], factor)
  columns = np.arange(0, frames.shape[2], factor)
  observed = ~np.isnan(frames)

  def blocks(values):
    values = np.add.reduceat(values, rows, axis=1)
    return np.add.reduceat(values, columns, axis=2)

  total = blocks(np.where(observed, frames, 0).astype(np.float64))
  count = blocks(observed.astype(np.int32))
  with np.errstate(invalid="ignore"):
    return np.where(count > 0, total / count, np.nan).astype(np.float32)


def _by_name(dims):
  lower = {str(dim).lower(): dim for dim in dims}
  for names in _GRID_NAMES:
    if all(name in lower for name in names):
      return tuple(lower[name] for name in names)
  return ()


def _by_attributes(dataset, dims):
  rows, columns = [], []
  for dim in dims:
    attrs = dataset[dim].attrs if dim in dataset.coords else {}
    name = attrs.get("standard_name", "")
    units = str(attrs.get("units", "")).lower()
    if attrs.get("axis") == "Y" or name in _LATITUDE or units in _NORTH:
      rows.append(dim)
    elif attrs.get("axis") == "X" or name in _LONGITUDE or units in _EAST:
      columns.append(dim)
  return (rows[0], columns[0]) if len(rows) == len(columns) == 1 else ()


def _is_position(name, array) -> bool:
  attrs = array.attrs
  return (
    str(name).lower() in ("lat", "lon", "latitude", "longitude")
    or attrs.get("standard_name") in _LATITUDE + _LONGITUDE
    or str(attrs.get("units", "")).lower() in _NORTH + _EAST
  )


def _is_date(array: xr.DataArray) -> bool:
  if array.dtype.kind == "M":
    return True
  # Dates of other calendars are objects (cftime).
  return (
    array.dtype.kind == "O"
    and array.size > 0
    and hasattr(array.values.flat[0], "calendar")
  )


def _seconds(values: np.ndarray) -> np.ndarray:
  if values.dtype.kind == "M":
    return values.astype("datetime64[s]").astype(np.int64)
  # Dates of a model calendar (no leap days, 360 days): seconds are counted in
  # that calendar, so that frames stay equally spaced.
  import cftime  # Only needed here; xarray used it to make these dates.

  seconds = cftime.date2num(values, "seconds since 1970-01-01", values.flat[0].calendar)
  return np.asarray(seconds).astype(np.int64)


def _within(dataset, dim, limits):
  """Positions of the values of a coordinate between two limits."""
  if dim not in dataset.coords:
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} are values, but {dim!r} has no "
      "coordinate. Give whole numbers: positions."
    )
  if isinstance(limits[0], str) or isinstance(limits[1], str):
    # xarray reads "2015" as the whole year.
    index = dataset.indexes[dim]
    try:
      return index.slice_indexer(*limits)
    except (KeyError, TypeError, ValueError) as error:
      raise errors.DataError(
        f"data.select.{dim}={tuple(limits)!r} does not fit the coordinate"
        f"{_extent(dataset, dim)} ({error})."
      ) from error
  values = dataset[dim].values
  if values.dtype.kind not in "iuf":
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} are numbers, but the coordinate"
      f" goes{_extent(dataset, dim)}. Give dates, or whole numbers for "
      "positions."
    )
  low, high = min(limits), max(limits)
  return np.flatnonzero((values >= low) & (values <= high))


def _extent(dataset, dim) -> str:
  if dim not in dataset.coords or not dataset.sizes[dim]:
    return ""
  values = dataset[dim].values
  return f" from {values[0]} to {values[-1]}"


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
  return {
    key: value for key, value in attrs.items() if isinstance(value, (str, int, float))
  }
