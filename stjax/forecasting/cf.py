"""Names and attributes of forecast stores, after the CF conventions 1.11.

Source: Eaton et al., NetCDF Climate and Forecast (CF) Metadata Conventions,
version 1.11, https://cfconventions.org.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from input_pipeline.stores import grid

CONVENTIONS = "CF-1.11"
_LATITUDES = ("lat", "latitude", "nav_lat", "xlat", "clat")
_LONGITUDES = ("lon", "longitude", "nav_lon", "xlong", "clon")
_DEGREES = ("", "deg", "degree", "degrees", "°")
_NORTH = ("degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn")
_EAST = ("degrees_east", "degree_east", "degrees_e", "degree_e", "degreese")
_RADIANS = ("rad", "radian", "radians")
# The standard names that a dimension of such a name must have.
_EXPECTED = {
  "time": "time",
  "lat": "latitude",
  "latitude": "latitude",
  "lon": "longitude",
  "longitude": "longitude",
  "height": "height",
  "depth": "depth",
  "altitude": "altitude",
  "pressure": "air_pressure",
}
_UPWARDS = {"height": "up", "altitude": "up", "depth": "down", "air_pressure": "down"}
# What coordinates are called that only count.
_NUMBERED = ("index", "row", "column")
_MONTHS = {"month": 1, "year": 12}
_AXES = {
  "latitude": "Y",
  "longitude": "X",
  "projection_y_coordinate": "Y",
  "projection_x_coordinate": "X",
  "grid_latitude": "Y",
  "grid_longitude": "X",
}
# Spellings that data have in use and UDUNITS does not know.
_UNITS = {
  "(0 - 1)": "1",
  "0-1": "1",
  "unitless": "1",
  "dimensionless": "1",
  "fraction": "1",
  "proportion": "1",
  "ratio": "1",
  "index": "1",
  "number": "1",
  "numeric": "1",
  "none": "1",
  "n/a": "1",
  "~": "1",
  "-": "1",
  "psu": "1e-3",
  "practical salinity unit": "1e-3",
  "practical salinity units": "1e-3",
  "m of water equivalent": "m",
  "m of water": "m",
  "gpm": "m",
  "deg": "degrees",
  "deg c": "degC",
  "degc": "degC",
  "celsius": "degC",
  "deg k": "K",
  "dbz": "dBZ",
}
# Attributes of a file's arrays that are not those of a forecast: how numbers were
# packed, what range they had, and other arrays of the file, which are not there.
_DROPPED = (
  "missing_value",
  "scale_factor",
  "add_offset",
  "valid_range",
  "valid_min",
  "valid_max",
  "actual_range",
  "coordinates",
  "bounds",
  "climatology",
  "ancillary_variables",
  "cell_measures",
  "formula_terms",
  "compress",
  "flag_values",
  "flag_masks",
  "flag_meanings",
  "cf_role",
  "sample_dimension",
  "instance_dimension",
  "geometry",
  "dtype",
  "calendar",
)
_DIMENSIONLESS = re.compile(
  "fraction|ratio|probability|index|mask|number|type|category|albedo|status|flag"
)
_STANDARD_NAME = re.compile(r"[a-z][a-z0-9_]*")


def name_of(name: Any, taken: Collection[str] = ()) -> str:
  """Returns a name of letters, digits and underscores, such as temperature_500.

  Args:
    name: the data's own name, such as "temperature@500".
    taken: names that other arrays have.
  """
  found = re.sub(r"(?<=[^A-Za-z0-9])-(?=[0-9])", "minus", str(name))
  found = re.sub("[^A-Za-z0-9_]+", "_", found).strip("_") or "unnamed"
  if not found[0].isalpha():
    found = f"v_{found}"
  unique, number = found, 2
  while unique in taken:
    unique, number = f"{found}_{number}", number + 1
  return unique


def attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the attributes of a file's array that a forecast of it has as well.

  Args:
    attrs: attributes as xarray reads them. Texts and numbers are kept; units that
      UDUNITS does not know are respelt where their meaning is certain, with the
      old spelling in original_units.
  """
  found = {}
  for key, value in attrs.items():
    value = _plain(value)
    if value is None or key in _DROPPED or str(key).startswith("_"):
      continue
    found[name_of(key, found)] = value
  if "units" in found:
    units = str(found["units"])
    found["units"] = _UNITS.get(units.strip().lower(), units)
    if found["units"] != units:
      found["original_units"] = units
  standard = str(found.get("standard_name", "")).strip()
  named = _STANDARD_NAME.fullmatch(standard) and standard != "unknown"
  if named and not ("units" in found or _DIMENSIONLESS.search(standard)):
    named = False  # A name of a quantity with a dimension asks for its units.
  if named:
    found["standard_name"] = standard
  elif found.pop("standard_name", None) and standard not in ("", "unknown"):
    found.setdefault("long_name", standard)
  return found


def of_variable(
  name: str, written: str, attrs: Mapping[str, Any], coords: xr.Dataset
) -> dict[str, Any]:
  """Returns the attributes of a variable of a store.

  Args:
    name: the data's own name of it.
    written: its name in the store.
    attrs: its attributes in the data.
    coords: coordinates and grid mappings of the store, as variables.
  """
  found = attributes(attrs)
  for key in ("axis", "positive"):  # These are of coordinates.
    found.pop(key, None)
  if not found.get("standard_name"):
    found.setdefault("long_name", name)
  if written != name:
    found["original_name"] = name
  methods = found.pop("cell_methods", None)
  known = {"area", *coords.dims}
  known |= {v.attrs.get("standard_name") for v in coords.variables.values()}
  # What cell methods name must be there.
  if methods and set(re.findall(r"(\w+):(?= )", _outside(str(methods)))) <= known:
    found["cell_methods"] = methods
  mapping = grid.grid_mappings(str(found.pop("grid_mapping", "")))
  mapping = [coords.attrs["names"].get(m, m) for m in mapping]
  mapping = [m for m in mapping if m in coords and not coords[m].dims]
  if mapping:
    found["grid_mapping"] = mapping[0]
  return found


def members(count: int) -> tuple:
  """Returns the coordinate of the members; `axis` has no letter for them."""
  attrs = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
  return np.arange(count), attrs


def lead_times(lead: xr.DataArray) -> tuple:
  """Returns the values and the attributes of a coordinate of lead times.

  Args:
    lead: [T] timedelta64, whole months or years, or plain steps.
  """
  attrs = {k: v for k, v in lead.attrs.items() if k in ("long_name", "comment")}
  attrs.setdefault("long_name", "lead time")
  if lead.dtype.kind == "m":
    attrs["standard_name"] = "forecast_period"  # xarray adds the units.
  elif months_of(lead):
    unit = str(lead.attrs.get("units", "months"))
    attrs |= {"standard_name": "forecast_period", "units": unit}
  else:
    attrs["units"] = "1"
  return lead.values, attrs


def months_of(lead: xr.DataArray) -> int:
  """Returns how many months a step of lead times in months or years has, else 0."""
  unit = str(lead.attrs.get("units", lead.attrs.get("long_name", ""))).lower()
  if lead.dtype.kind not in "iu":
    return 0
  return next((n for name, n in _MONTHS.items() if unit.startswith(name)), 0)


def label_attributes(name: str) -> dict[str, str]:
  """Returns the attributes of a label of the samples."""
  return {
    "init_time": {
      "standard_name": "forecast_reference_time",
      "long_name": "initial time, of the last frame of the history",
    },
    "valid_time": {"standard_name": "time", "long_name": "valid time"},
    "sample_id": {"long_name": "name of the sample"},
    "start": {"long_name": "number of the first frame of the history", "units": "1"},
  }.get(name, {"long_name": name.replace("_", " ")})


def spatial(coordinates: xr.Dataset, taken: Iterable[str]) -> xr.Dataset:
  """Returns the coordinates of the grid, and the grid mappings, of a store.

  A coordinate of text, or of numbers in no order, is no coordinate variable of CF:
  it labels its dimension under the name DIMENSION_label.

  Args:
    coordinates: template of a forecast; see `input_pipeline.Split`.
    taken: names that other arrays have.

  Returns:
    A dataset without data variables; attribute "spatial_dims" has the names of
    rows and columns, and "names" the names in the store by the data's own.
  """
  space = list(map(str, coordinates.attrs["spatial_dims"]))
  parts = {}
  for name, array in coordinates.coords.items():
    if name == "lead_time":
      continue
    if array.dims:
      parts[str(name)] = _positions(str(name), array.variable)
    else:
      attrs = {k: _plain(v) for k, v in array.attrs.items() if k not in _TIED}
      attrs = {name_of(k): v for k, v in attrs.items() if v is not None}
      parts[str(name)] = xr.Variable((), np.int32(0), attrs)
  names = {}
  for name in (*space, *parts):
    if name in names:
      continue
    own = name_of(name, {*taken, *names.values()})
    expected = _EXPECTED.get(own)
    if expected and name in space:
      # A dimension of such a name stands for nothing else in CF.
      attrs = parts[name].attrs if name in parts else {}
      if "units" in attrs and attrs.get("long_name") not in _NUMBERED:
        attrs.setdefault("standard_name", expected)
        if expected in _UPWARDS:
          attrs.setdefault("positive", _UPWARDS[expected])
          attrs["axis"] = "Z"
      if attrs.get("standard_name") != expected:
        own = name_of(f"{own}_index", {*taken, *names.values()})
    names[name] = own
  variables = {}
  for name, part in parts.items():
    own, dims = names[name], tuple(names[str(d)] for d in part.dims)
    if dims == (own,) and not _ordered(part.values):
      own = name_of(f"{own}_label", {*taken, *names.values(), *variables})
    variables[own] = xr.Variable(dims, part.values, part.attrs)
  found = xr.Dataset(variables)
  found = found.set_coords(list(variables))
  _set_axes(found, [names[dim] for dim in space])
  found.attrs = {"spatial_dims": [names[dim] for dim in space], "names": names}
  return found


# Attributes of a grid mapping that hold for the whole of the source's grid only.
_TIED = ("GeoTransform", "geotransform", "_FillValue", "grid_mapping", "coordinates")


def _positions(name: str, variable: xr.Variable) -> xr.Variable:
  """Returns a coordinate with the attributes of its kind."""
  values = variable.values
  if values.dtype.kind in "SUOT":
    values = np.array([_text(v) for v in values.ravel()], object)
    values = values.reshape(variable.shape)
    attrs = attributes(variable.attrs)
    attrs.pop("units", None)
    attrs.setdefault("long_name", name)
    return xr.Variable(variable.dims, values, attrs)
  if values.dtype.kind == "b":
    values = values.astype(np.int8)
  attrs = attributes(variable.attrs)
  if values.dtype.kind not in "iuf":
    attrs.pop("units", None)
    return xr.Variable(variable.dims, values, attrs)
  kind = _kind(name, variable.attrs, values)
  if kind:
    units = str(variable.attrs.get("units", "")).strip().lower()
    if units in _RADIANS:
      values = np.rad2deg(values)
    for key in ("original_units", "axis"):
      attrs.pop(key, None)
    attrs |= {
      "standard_name": kind,
      "units": "degrees_north" if kind == "latitude" else "degrees_east",
    }
    attrs.setdefault("long_name", kind)
    if kind == "longitude" and values.ndim == 1 and not _ordered(values):
      # Across the seam, 350, 0 becomes -10, 0: the same places in one order.
      along = np.unwrap(values.astype(np.float64), period=360.0)
      along = along - 360.0 * np.ceil((along.max() - 360.0) / 360.0)
      if _ordered(along):
        values = along.astype(values.dtype) if values.dtype.kind == "f" else along
  elif attrs.get("long_name") in _NUMBERED:
    attrs.setdefault("units", "1")
  attrs.setdefault("long_name", name)
  return xr.Variable(variable.dims, values, attrs)


def _kind(name: str, attrs: Mapping[str, Any], values: np.ndarray) -> str:
  """Returns "latitude", "longitude" or "" for any other coordinate."""
  standard = str(attrs.get("standard_name", "")).strip()
  units = str(attrs.get("units", "")).strip().lower()
  if not standard and attrs.get("long_name") in _NUMBERED:
    return ""
  for kind, usual, own in (
    ("latitude", _LATITUDES, _NORTH),
    ("longitude", _LONGITUDES, _EAST),
  ):
    called = standard == kind or (not standard and name.lower() in usual)
    known = units in _DEGREES + _RADIANS + own
    if not (called and known) and not (units in own and not standard):
      continue
    size = np.abs(values[np.isfinite(values)].astype(np.float64))
    limit = 90.0 if kind == "latitude" else 720.0
    if not size.size or size.max() <= limit + 1e-3:
      return kind
  return ""


def _set_axes(found: xr.Dataset, dims: list[str]) -> None:
  """Says of the coordinate variables along which axis they go."""
  given = {}
  for dim in dims:
    attrs = found.variables[dim].attrs if dim in found.coords else {}
    said = attrs.pop("axis", None)
    axis = _AXES.get(attrs.get("standard_name"), said)
    if axis in ("X", "Y", "Z") and axis not in given.values():
      given[dim] = axis
  for name, variable in found.variables.items():
    if name not in dims:
      variable.attrs.pop("axis", None)
  whole = all(found.sizes[dim] > 1 for dim in dims)
  for dim, axis in zip(dims, "YX", strict=True):
    if whole and dim not in given and axis not in given.values():
      given[dim] = axis  # Rows and columns without a name of their own.
  for dim, axis in given.items():
    if dim in found.coords:
      found.variables[dim].attrs["axis"] = axis


def _ordered(values: np.ndarray) -> bool:
  """Tells whether values go one way in every step."""
  if values.dtype.kind not in "iufM":
    return False
  steps = np.diff(values)
  zero = np.zeros((), steps.dtype)
  one_way = (steps > zero).all() or (steps < zero).all()
  return bool(one_way and (values == values).all())  # NaN differs from itself.


def _outside(text: str) -> str:
  """Returns a text without what it has in parentheses."""
  return re.sub(r"\([^)]*\)", "", text)


def _text(value: Any) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
  """Returns text, a number or a list of numbers, or None for anything else."""
  if isinstance(value, bytes):
    return value.decode(errors="replace")
  if isinstance(value, bool | np.bool_):
    return int(value)
  if isinstance(value, np.generic | np.ndarray):
    value = value.tolist()
  if isinstance(value, list | tuple):
    plain = [_plain(v) for v in value]
    if plain and all(isinstance(v, str) for v in plain):
      return ", ".join(plain)
    numbers = plain and all(isinstance(v, int | float) for v in plain)
    return (plain[0] if len(plain) == 1 else plain) if numbers else None
  return value if isinstance(value, str | int | float) else None
