"""Finding what the dimensions of an xarray dataset mean."""

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import errors
from input_pipeline.stores import base, moments

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
  named = [dim for dim in dims if str(dim).lower() in _TIME_NAMES]
  marked = [dim for dim in dims if _has_time_attributes(dataset, dim)]
  return dated + named + marked + [d for d in _dated_axes(dataset) if d in dims]


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


def decoded(dataset: xr.Dataset) -> xr.Dataset:
  """A dataset opened with decode_times=False, with its times as dates.

  Times on one or two dimensions become datetime64[us], or objects of cftime in a
  model calendar; jitter around a common step is taken away, see `moments.snapped`.
  What cannot be decoded keeps its numbers: `times` says why, if it is needed.
  Variables on more dimensions are decoded lazily, by xarray.
  """
  changed, larger, bounds = {}, [], {}
  for variable in dataset.variables.values():
    attrs = variable.attrs
    if "bounds" in attrs and moments.speaks_of_time(attrs.get("units")):
      bounds[attrs["bounds"]] = {
        k: attrs[k] for k in ("units", "calendar") if k in attrs
      }
  for name, variable in dataset.variables.items():
    attrs = {**bounds.get(name, {}), **variable.attrs}
    if variable.ndim == 1 and str(name).lower() in (*_TIME_NAMES, "times"):
      with contextlib.suppress(ValueError):
        if variable.dtype.kind in "SUO":  # Dates that are written out.
          written = moments.decode_texts(variable.values.tolist())
          changed[name] = (variable.dims, written.astype("datetime64[us]"))
    if variable.dtype.kind not in "iuf" or not moments.speaks_of_time(
      attrs.get("units")
    ):
      continue
    if variable.ndim > 2:
      larger.append(name)
      continue
    try:
      changed[name] = (variable.dims, *_dates(dataset, name, attrs))
    except ValueError as error:
      logging.debug("%s keeps its numbers: %s", name, error)
  coords = {name: value for name, value in changed.items() if name in dataset.coords}
  dataset = dataset.assign(
    {name: value for name, value in changed.items() if name not in coords}
  ).assign_coords(coords)
  for name in larger:
    try:
      dates = xr.decode_cf(
        dataset[[name]].drop_vars(dataset[[name]].coords, errors="ignore"),
        mask_and_scale=False,
        decode_coords=False,
        decode_timedelta=False,
      )[name]
      dataset[name] = dates.variable
    except (ValueError, OverflowError) as error:
      logging.debug("%s keeps its numbers: %s", name, error)
  return dataset


def times(
  dataset: xr.Dataset, dim: str, sample_dim: str, given: str
) -> np.ndarray | None:
  """The moments of the frames; None without dates.

  Args:
    dataset: one file.
    dim: the time dimension.
    sample_dim: the dimension of sequences, or "".
    given: data.time_variable; "" takes the coordinate of `dim` or the one
      variable of dates on it.

  Returns:
    int64 [T] or [sample, T] as `Store.times`, moments.MISSING where there is none;
    see `until_missing`.

  Raises:
    DataError: if the named variable is not there or holds no dates, or a time
      coordinate has no dates and is not equally spaced.
  """
  name = _time_variable(dataset, dim, sample_dim, given)
  if name is None:
    _check_undated(dataset, dim)
    return None
  array = dataset[name]
  if array.ndim == 2:
    array = array.transpose(sample_dim, dim)
  return moments.of_dates(array.values)


def until_missing(found: np.ndarray, where: str, dim: str) -> np.ndarray:
  """A time axis up to the missing stamps at its end, where the sequence ends.

  Args:
    found: int64 [T], from `times`.
    where: file or sequence, for the message.
    dim: the time dimension.

  Returns:
    int64 [L], L of at most T.

  Raises:
    DataError: a stamp before the last one is missing.
  """
  known = np.flatnonzero(found != moments.MISSING)
  length = int(known[-1]) + 1 if len(known) else 0
  if len(known) < length:
    frame = int(np.flatnonzero(found[:length] == moments.MISSING)[0])
    raise errors.DataError(
      f"{where}: {dim!r} has a missing time stamp (NaT) at frame {frame} of "
      f"{len(found)}, before others that have one. Take the frames before it "
      f"(--config.data.select.{dim}=0,{frame}) or after it, or give the time axis with "
      "data.step and data.first_time, e.g. --config.data.step=1h "
      "--config.data.first_time=2000-01-01."
    )
  return found[:length]


def calendar(
  dataset: xr.Dataset, dim: str, sample_dim: str = "", given: str = ""
) -> str:
  """The calendar of the frames' times; "" for the civil one or no dates.

  Args:
    dataset: as for `times`.
    dim: as for `times`.
    sample_dim: as for `times`.
    given: as for `times`.
  """
  name = _time_variable(dataset, dim, sample_dim, given)
  if name is None or dataset[name].dtype.kind != "O":
    return ""
  known = [d.calendar for d in dataset[name].values.flat if hasattr(d, "calendar")]
  return "" if known[0] == "proleptic_gregorian" else known[0]


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
    ranges: data.select, (first, last) of each dimension, both included. Whole
      numbers are values as well where the dimension has a coordinate of numbers;
      elsewhere, with None or with a third one, they are positions: start, stop
      (excluded) and step. Longitudes go round: (350., 10.) and (-10., 10.) take
      what lies across 0 degrees, in this order and with increasing longitudes.
    several_files: whether positions would be counted anew in each file.

  Raises:
    DataError: if a range is not of that form, can be read in two ways or leaves
      nothing.
  """
  for dim, limits in ranges.items():
    if dim not in dataset.dims:
      continue  # The caller reports unknown dimensions.
    limits = tuple(v.item() if isinstance(v, np.generic) else v for v in limits)
    whole = all(v is None or isinstance(v, int) for v in limits)
    if len(limits) not in ((2, 3) if whole else (2,)):
      raise errors.DataError(
        f"data.select.{dim}={limits!r}; expected (first, last) values "
        "or (start, stop) or (start, stop, step) positions."
      )
    positions = whole and (
      len(limits) == 3 or None in limits or not _has_values(dataset, dim)
    )
    if positions:
      _check_years(dataset, dim, limits)
      cut = dataset.isel({dim: slice(*limits)})
    elif _is_longitude(dataset, dim):
      cut = _around(dataset, dim, limits)
    else:
      where = _within(dataset, dim, limits)
      if whole:
        _check_whole(dataset, dim, limits, np.arange(dataset.sizes[dim])[where])
      cut = dataset.isel({dim: where})
    if not cut.sizes[dim] and not several_files:
      hint = ""
      if positions:
        hint = " Whole numbers are positions here."
      elif whole:
        hint = f" Positions have a third number: ({limits[0]}, {limits[1]}, 1)."
      raise errors.DataError(
        f"data.select.{dim}={limits!r} leaves nothing of "
        f"{dataset.sizes[dim]} entries{_extent(dataset, dim)}.{hint}"
      )
    dataset = cut
  return dataset


def say_selected(dataset: xr.Dataset, ranges: Mapping[str, Sequence[Any]]) -> None:
  """Says in the log, once in a process, what `select` has left."""
  for dim in ranges:
    if dim in dataset.sizes:
      base.say_once(
        logging.INFO,
        f"data.select.{dim}={tuple(ranges[dim])!r} takes {dataset.sizes[dim]} "
        f"entries{_extent(dataset, dim)}",
      )


def is_longitude(name: Any, attrs: Mapping[str, Any]) -> bool:
  """Whether a coordinate is a longitude, by its name or attributes."""
  standard = attrs.get("standard_name")
  return (
    str(name).lower() in ("lon", "longitude", "nav_lon")
    or standard == "longitude"
    or (standard is None and str(attrs.get("units", "")).lower() in _EAST)
  )


def unwrapped(longitudes: np.ndarray) -> np.ndarray:
  """Longitudes without the jump by 360 degrees along any axis.

  Those that have none stay as they are. The others are counted on from the first,
  and lie between -180 and 360 degrees where they span no more.
  """
  if longitudes.dtype.kind not in "iuf" or not any(
    _jumps(longitudes, axis) for axis in range(longitudes.ndim)
  ):
    return longitudes
  for axis in range(longitudes.ndim):
    longitudes = np.unwrap(longitudes.astype(np.float64), period=360, axis=axis)
  return _usual(longitudes)


def coarsen_coordinates(
  space: xr.Dataset, dims: Sequence[str], factor: int
) -> xr.Dataset:
  """Coordinates of cells that `coarsen` makes: the mean of each block.

  Args:
    space: `Store.space` of the fine grid.
    dims: (H, W), or (H,).
    factor: cells of a block along each.

  Returns:
    `Store.space`; longitudes are averaged around the circle.
  """
  jumps = {
    name: array
    for name, array in space.coords.items()
    if is_longitude(name, array.attrs)
    and array.dtype.kind in "iuf"
    and any(_jumps(array.values, axis) for axis in range(array.ndim))
  }
  near = {}
  for name, array in jumps.items():
    values = array.values.astype(np.float64)
    if values.ndim == 1:
      near[name] = (array.dims, unwrapped(values), array.attrs)
      continue
    first = values
    for axis, size in enumerate(values.shape):
      first = first.take(np.arange(size) // factor * factor, axis)
    # Each cell of a block is counted on from the block's first one.
    turned = first + (values - first + 180) % 360 - 180
    near[name] = (array.dims, turned, array.attrs)
  coarse = space.assign_coords(near).coarsen(
    dict.fromkeys(dims, factor), boundary="pad"
  )
  coarse = coarse.mean()
  coarse.attrs = dict(space.attrs)
  return coarse


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


def _is_date(array: xr.DataArray | xr.Variable) -> bool:
  if array.dtype.kind == "M":
    return True
  # Dates of other calendars are objects (cftime), None where missing.
  return array.dtype.kind == "O" and any(
    hasattr(value, "calendar") for value in array.values.flat
  )


def _dated_axes(dataset: xr.Dataset) -> list:
  """The dimensions along which dates without a coordinate of their own go on."""
  found = []
  for array in dataset.variables.values():
    if array.ndim in (1, 2) and _is_date(array):
      named = [dim for dim in array.dims if _named_time(dim)]
      if named:
        found += named
        continue
      known = moments.of_dates(array.values).astype(np.float64)
      known[known == moments.MISSING] = np.nan
      # Of [event, frame], frames are those that follow each other more closely.
      steps = [np.abs(np.diff(known, axis=axis)) for axis in range(array.ndim)]
      usual = [np.median(s[s > 0]) if (s > 0).any() else np.inf for s in steps]
      found.append(array.dims[int(np.argmin(usual))])
  return found


def _has_time_attributes(dataset: xr.Dataset, dim) -> bool:
  attrs = dataset[dim].attrs if dim in dataset.coords else {}
  return (
    attrs.get("axis") == "T"
    or attrs.get("standard_name") == "time"
    or moments.speaks_of_time(attrs.get("units"))
  )


def _source(dataset: xr.Dataset) -> str:
  return str(dataset.encoding.get("source", "the data"))


def _dates(dataset, name, attrs) -> tuple[np.ndarray, dict[str, Any]]:
  """The dates that a variable's numbers mean, and its other attributes.

  Raises:
    ValueError: they mean none, or are too coarse to tell the frames apart.
  """
  found, named, resolution = moments.decode(
    dataset[name].values, str(attrs["units"]), attrs.get("calendar", "")
  )
  found = _steady(dataset, name, found, resolution)
  rest = {k: v for k, v in attrs.items() if k not in ("units", "calendar")}
  dates = moments.to_dates(found, named) if named else found.astype("datetime64[us]")
  return dates, rest


def _steady(dataset, name, found, resolution):
  """Time axes [..., L] or [L, sample] without jitter, which is said in the log.

  Raises:
    ValueError: the file's numbers are too coarse to tell the frames apart.
  """
  if not found.ndim:
    return moments.snapped(found.reshape(1), resolution).reshape(())
  dims = dataset[name].dims
  along = next((i for i, d in enumerate(dims) if _named_time(d)), found.ndim - 1)
  rows = np.moveaxis(found, along, -1)
  result = rows.copy()
  for index in np.ndindex(rows.shape[:-1]):
    known = rows[index] != moments.MISSING
    row = rows[index][known]
    result[index][known] = steady = moments.snapped(row, resolution)
    steps = np.diff(steady)
    if len(steps) > 1 and len(set(steps.tolist())) > 1:
      usual = np.median(steps)
      if 4 * resolution > usual:
        raise ValueError(
          f"its numbers tell times only {2 * resolution / moments.SECOND:.3g} s apart"
        )
  away = np.abs(result - rows).max(initial=0)
  if away >= moments.SECOND // 1000:
    base.say_once(
      logging.INFO,
      f"{_source(dataset)}: times of {name!r} are rounded by up to "
      f"{away / moments.SECOND:.3g} s to equal steps",
    )
  return np.moveaxis(result, -1, along)


def _named_time(dim) -> bool:
  return str(dim).lower() in (*_TIME_NAMES, "frame", "step")


def _time_variable(dataset, dim, sample_dim, given) -> str | None:
  """The name of the variable that holds the frames' dates, if there is one."""
  if given and given not in dataset.variables:
    raise errors.unknown(
      "variable (data.time_variable)", given, map(str, dataset.variables)
    )
  allowed = {frozenset({dim}), frozenset({dim, sample_dim})}
  for name in [given] if given else [dim, *dataset.variables]:
    if name not in dataset.variables:
      continue
    array = dataset[name]
    if frozenset(array.dims) in allowed and _is_date(array):
      return name
  if given:
    raise errors.DataError(
      f"data.time_variable={given!r} has the dimensions "
      f"{dataset[given].dims} and type {dataset[given].dtype}; expected "
      f"dates on {dim!r}.{_why_undated(dataset, given)}"
    )
  return None


def _why_undated(dataset, name) -> str:
  """Why a variable's numbers are no dates, as a sentence or ""."""
  array = dataset[name]
  units = array.attrs.get("units")
  if array.dtype.kind not in "iuf" or not moments.speaks_of_time(units):
    return ""
  try:
    _dates(dataset, name, array.attrs)
  except ValueError as error:
    return f" Its units are {units!r}, and {error}."
  return ""


def _check_undated(dataset: xr.Dataset, dim: str) -> None:
  """Says what is wrong with a time coordinate that is no date.

  Raises:
    DataError: its numbers are not equally spaced, or its units give no dates.
  """
  if dim not in dataset.coords or dataset[dim].dims != (dim,):
    return
  array = dataset[dim]
  units = array.attrs.get("units", "")
  where = f"{_source(dataset)}: the time coordinate {dim!r} has "
  remedy = (
    "Give the time between frames and the first date with data.step and "
    "data.first_time, e.g. --config.data.step=1h --config.data.first_time=2000-01-01"
  )
  if why := _why_undated(dataset, dim):
    raise errors.DataError(
      f"{where}units that cannot be decoded; the file is sound.{why} {remedy}."
    )
  if array.dtype.kind not in "iuf" or array.size < 2:
    if array.dtype.kind not in "iuf":
      base.say_once(
        logging.WARNING,
        f"{where}values that are no dates ({array.values[:1].tolist()}, ...): frames "
        f"count as equally spaced. {remedy}",
      )
    return
  steps = np.diff(array.values.astype(np.float64))
  what = f"the units {units!r}, which name no first date" if units else "no units"
  if not np.allclose(steps, steps[0], rtol=1e-2, atol=0) or steps[0] <= 0:
    raise errors.DataError(
      f"{where}{what}, and its values are not equally spaced"
      f"{_extent(dataset, dim)}. {remedy}."
    )
  base.say_once(
    logging.WARNING,
    f"{where}{what}: its {array.size} frames{_extent(dataset, dim)} count as equally "
    f"spaced, without dates. {remedy}",
  )


def _has_values(dataset: xr.Dataset, dim: str) -> bool:
  """Whether a dimension has numbers of its own, other than positions."""
  if dim not in dataset.coords or dataset[dim].dtype.kind not in "iuf":
    return False
  values, attrs = dataset[dim].values, dataset[dim].attrs
  physical = _is_position(dim, dataset[dim]) or {"units", "standard_name"} & set(attrs)
  return bool(physical) or not np.array_equal(values, np.arange(len(values)))


def _is_longitude(dataset: xr.Dataset, dim: str) -> bool:
  return (
    dim in dataset.coords
    and dataset[dim].dtype.kind in "iuf"
    and is_longitude(dim, dataset[dim].attrs)
  )


def _jumps(values: np.ndarray, axis: int) -> bool:
  return values.shape[axis] > 1 and bool(
    (np.abs(np.diff(values.astype(np.float64), axis=axis)) > 180).any()
  )


def _usual(longitudes: np.ndarray) -> np.ndarray:
  """Longitudes turned by whole circles into -180 to 360 degrees, if they fit."""
  if longitudes.size and longitudes.max() > 360:
    return longitudes - 360 * np.ceil((longitudes.max() - 360) / 360)
  if longitudes.size and longitudes.min() < -180:
    return longitudes + 360 * np.ceil((-180 - longitudes.min()) / 360)
  return longitudes


def _around(dataset: xr.Dataset, dim: str, limits) -> xr.Dataset:
  """The part of a dataset between two longitudes, going east from the first.

  Raises:
    DataError: the limits are no numbers, can be read in two ways, or enclose a
      hole in the grid.
  """
  first, last = (float(limit) if _is_number(limit) else np.nan for limit in limits)
  span = last - first if last >= first else (last - first) % 360
  if (
    not np.isfinite(span) or span > 180 and last < first or span == 0 and last != first
  ):
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} are no (west, east) limits of the "
      f"coordinate{_extent(dataset, dim)}. Give two numbers going east, such as "
      "(-10., 30.) or (350., 30.)."
    )
  values = dataset[dim].values.astype(np.float64)
  # Rounding of the file's numbers, often of 32 bits, leaves out no limit.
  slack = 1e-4 * (np.abs(np.diff(values)).min(initial=360) if len(values) > 1 else 0)
  east = (values - first + slack) % 360 - slack
  chosen = np.flatnonzero(east <= span + slack)
  direct = np.flatnonzero((values >= first - slack) & (values <= last + slack))
  steps = np.diff(values[direct])
  in_order = (steps > 0).all() or (steps < 0).all()
  if span >= 360 - slack or (len(direct) == len(chosen) and in_order):
    where = chosen if span >= 360 - slack else direct
    return dataset.isel({dim: _as_slice(where)})
  order = chosen[np.argsort(east[chosen], kind="stable")]
  # The first column of a grid may be there a second time at its end.
  order = order[np.diff(east[order], prepend=-np.inf) > slack]
  found = values[order]
  found = _usual(found + 360 * np.rint((first + east[order] - found) / 360))
  steps, usual = np.diff(found), np.median(np.abs(np.diff(values)))
  if len(steps) and steps.max() > max(2 * usual, 1.5 * np.median(steps)):
    hole = int(steps.argmax())
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} goes over a hole in the coordinate, from "
      f"{found[hole]:g} to {found[hole + 1]:g} degrees. Take one side of it."
    )
  cut = dataset.isel({dim: _as_slice(order)})
  attrs = cut[dim].attrs
  kind = dataset[dim].dtype if dataset[dim].dtype.kind == "f" else np.float64
  return cut.assign_coords({dim: (dim, found.astype(kind), attrs)})


def _check_years(dataset, dim, limits) -> None:
  """Raises DataError for positions in a time axis that may be meant as years."""
  if len(limits) == 3 or dim not in dataset.coords or not _is_date(dataset[dim]):
    return
  known = moments.of_dates(dataset[dim].values)
  known = known[known != moments.MISSING]
  if not len(known):
    return
  years = range(
    *(
      1970 + int(m // (365.2425 * moments.DAY))
      for m in (known.min(), known.max() + 366 * moments.DAY)
    )
  )
  if any(limit in years for limit in limits if limit is not None):
    first, last = (f"{limit}-01-01" for limit in limits)
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} may mean years or positions. Write dates "
      f"({first!r}, {last!r}), or ({limits[0]}, {limits[1]}, 1) for positions."
    )


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_slice(positions: np.ndarray) -> slice | np.ndarray:
  """Positions in a row as a slice, which a file reads in one piece."""
  if len(positions) and (np.diff(positions) == 1).all():
    return slice(int(positions[0]), int(positions[-1]) + 1)
  return positions


def _check_whole(dataset, dim, limits, chosen) -> None:
  """Raises DataError for whole numbers that may be meant as positions."""
  values = dataset[dim].values
  low, high = values.min(), values.max()
  cell = np.abs(np.diff(values)).max() if len(values) > 1 else 0
  outside = min(limits) < low - cell or max(limits) > high + cell
  lost = limits[0] != limits[1] and len(chosen) == 1 and len(values) > 2
  positions = np.arange(len(values))[slice(*limits)]
  if min(limits) < 0 or np.array_equal(positions, chosen):
    return
  if len(chosen) and (outside or lost):
    point = ", ".join(f"{limit}." for limit in limits)
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} may mean values or positions: the "
      f"coordinate goes{_extent(dataset, dim)} in {len(values)} entries. Write "
      f"({point}) for values, or ({limits[0]}, {limits[1]}, 1) for positions."
    )


def _within(dataset, dim, limits):
  """Positions of the values of a coordinate between two limits."""
  if dim not in dataset.coords:
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} are values, but {dim!r} has no "
      "coordinate. Give whole numbers: positions."
    )
  if isinstance(limits[0], str) or isinstance(limits[1], str):
    return _between_dates(dataset, dim, limits)
  values = dataset[dim].values
  if values.dtype.kind not in "iuf":
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} are numbers, but the coordinate"
      f" goes{_extent(dataset, dim)}. Give dates, or whole numbers for "
      "positions."
    )
  low, high = (
    v if v is not None else inf
    for v, inf in zip(limits, (-np.inf, np.inf), strict=True)
  )
  low, high = min(low, high), max(low, high)
  return np.flatnonzero((values >= low) & (values <= high))


def _between_dates(dataset, dim, limits) -> slice | np.ndarray:
  """Positions of the dates of a coordinate between two texts, both included."""
  array = dataset[dim]
  if not _is_date(array):
    if array.dtype.kind in "iuf":
      raise errors.DataError(
        f"data.select.{dim}={tuple(limits)!r} are texts, but the coordinate goes"
        f"{_extent(dataset, dim)}. Give numbers."
      )
    try:
      return dataset.indexes[dim].slice_indexer(*limits)
    except (KeyError, TypeError, ValueError) as error:
      raise errors.DataError(
        f"data.select.{dim}={tuple(limits)!r} does not fit the coordinate"
        f"{_extent(dataset, dim)} ({error})."
      ) from error
  own = calendar(dataset, dim)
  try:
    first, last = (None if v is None else moments.span(v, own) for v in limits)
  except ValueError as error:
    raise errors.DataError(
      f"data.select.{dim}={tuple(limits)!r} does not fit the coordinate"
      f"{_extent(dataset, dim)}: {error}. Give dates of the calendar "
      f"{own or 'standard'!r}, such as '2010' or '2010-02-03'."
    ) from error
  found = moments.of_dates(array.values)
  inside = found != moments.MISSING
  inside &= found >= first[0] if first else True
  inside &= found < last[1] if last else True
  return _as_slice(np.flatnonzero(inside))


def _extent(dataset, dim) -> str:
  if dim not in dataset.coords or not dataset.sizes[dim]:
    return ""
  values = dataset[dim].values
  return f" from {values[0]} to {values[-1]}"


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
  return {
    key: value for key, value in attrs.items() if isinstance(value, (str, int, float))
  }
