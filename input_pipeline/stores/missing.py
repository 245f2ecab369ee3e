"""Which values stand for missing: what a file declares, and what the user names."""

import base64
import dataclasses
import math
import struct
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from input_pipeline import errors
from input_pipeline.stores import base

# From here on, a value is a code and no number that anyone measured.
HUGE = 1e15
# What the netCDF library writes into cells that a program never set.
_UNSET = {"f4": 9.969209968386869e36, "f8": 9.969209968386869e36, "i4": -2147483647}
_CODES = ("_FillValue", "missing_value")
_RANGES = {"valid_range": 2, "valid_min": 1, "valid_max": 1}
_NOTE = "missing_values"  # Where `open_dataset` leaves a Declared, among the encodings.


@dataclasses.dataclass(frozen=True)
class Codes:
  """The values that data.missing_value names.

  Attributes:
    declared: whether what the file declares counts as well.
    everywhere: codes of every variable.
    of: codes of single variables, as pairs (name, code).
  """

  declared: bool = True
  everywhere: tuple[float, ...] = ()
  of: tuple[tuple[str, float], ...] = ()

  def __bool__(self) -> bool:
    return bool(self.everywhere or self.of)

  def mask(self, frames: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Frames with NaN where a code stands.

    Args:
      frames: numbers [..., C], which are not written into.
      names: [C] names of the variables; "t@850" has the codes of "t", too.

    Returns:
      float32 [..., C].

    Raises:
      DataError: for the code of a variable that is not there.
    """
    found = np.asarray(frames, np.float32)
    for code in self.everywhere:
      found = _without(found, frames, code, ...)
    for name, code in self.of:
      channels = [c for c, n in enumerate(names) if name in (n, n.partition("@")[0])]
      if not channels:
        raise errors.unknown("variable (data.missing_value)", name, names)
      for channel in channels:
        found = _without(found, frames, code, (..., channel))
    return found


def _without(found, frames, code, where) -> np.ndarray:
  equal = _equal(frames[where], code)
  if not equal.any():
    return found
  if not found.flags.writeable or np.shares_memory(found, frames):
    found = found.copy()
  found[where][equal] = np.nan
  return found


def _equal(values: np.ndarray, code: float) -> np.ndarray:
  if values.dtype.kind != "f":
    return values == code
  if abs(code) >= HUGE:
    # Such a code is often typed with fewer digits than it has.
    return np.abs(values - values.dtype.type(code)) <= 1e-5 * abs(code)
  return values == values.dtype.type(code)


def codes(value: Any) -> Codes:
  """Reads data.missing_value.

  Args:
    value: a number, or several as a tuple or text "a,b"; "NAME=a" is a code of one
      variable, and "none" turns off what the file declares. () and None name none.

  Raises:
    DataError: if an item is none of these.
  """
  given = () if value is None else value
  if not isinstance(given, (tuple, list)):
    given = (given,)
  items = [part for item in given for part in str(item).split(",") if part.strip()]
  declared, everywhere, of = True, [], []
  for item in items:
    name, _, number = item.strip().rpartition("=")
    if number == "none" and not name:
      declared = False
      continue
    try:
      code = float(number)
    except ValueError:
      raise errors.DataError(
        f"data.missing_value={value!r}; expected numbers such as -9999 or -9999,-999, "
        "NAME=number for one variable (rain=-1), or none to turn off what the file "
        "declares."
      ) from None
    if math.isnan(code):
      continue  # It is always missing.
    if name:
      of.append((name.strip(), code))
    else:
      everywhere.append(code)
  return Codes(declared, tuple(everywhere), tuple(of))


def undeclared(value: Any) -> Codes:
  """`codes` for a store whose files declare nothing.

  Raises:
    DataError: for a value that cannot be read, or "none".
  """
  found = codes(value)
  if not found.declared:
    raise errors.DataError(
      "data.missing_value='none' turns off what a netCDF or Zarr file declares, but "
      "this store reads no such files. Leave it out."
    )
  return found


class Marked(base.Wrapper):
  """A store of which the values that data.missing_value names are missing."""

  def __init__(self, store: base.Store, found: Codes):
    super().__init__(store)
    self._codes = found

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    return self._codes.mask(self._store.read(sequence, start, stop), self.names)

  def read_every(self, sequence: int, start: int, stop: int, every: int) -> np.ndarray:
    frames = self._store.read_every(sequence, start, stop, every)
    return self._codes.mask(frames, self.names)


def apply(store: base.Store, value: Any) -> base.Store:
  """A store with data.missing_value applied.

  Args:
    store: of a kind that does not apply it by itself.
    value: data.missing_value.

  Raises:
    DataError: for a value that cannot be read.
  """
  found = undeclared(value)
  return Marked(store, found) if found else store


@dataclasses.dataclass(frozen=True)
class Declared:
  """What of a variable counts as missing because its file says so.

  Attributes:
    text: the attributes that say so, such as "_FillValue=-9999.0", or "".
    codes: the values that they name, in decoded units.
    zero_fill: the decoded value of a Zarr array's fill value of 0, which counts as
      data; None if it has none.
  """

  text: str = ""
  codes: tuple[float, ...] = ()
  zero_fill: float | None = None


def of(array: xr.DataArray) -> Declared:
  """What the file of a decoded variable declares."""
  return array.encoding.get(_NOTE, Declared())


def open_dataset(
  path: str,
  engine: str | None,
  *,
  group: str = "",
  declared: bool = True,
  **decoding: Any,
) -> xr.Dataset:
  """Opens a file, decoded as CF and the netCDF library mean its attributes.

  Beyond what xarray decodes: values outside valid_range, valid_min or valid_max are
  missing, several missing values may be given, codes of another type than the data
  are compared in the data's, cells that the netCDF library never wrote are missing,
  and a fill value of 0 of a Zarr array is no code, since it is what Zarr takes
  where nobody chose one.

  Args:
    path: the file or Zarr folder.
    engine: the reader, as xarray names it; None leaves it to xarray.
    group: the group in it.
    declared: whether codes and ranges that the file declares for fields count.
    **decoding: further arguments of xarray.decode_cf.

  Returns:
    The dataset, lazily; `of` says what counts as missing in its variables.

  Raises:
    OSError, ValueError, KeyError, TypeError: as xarray does.
  """
  zarr = engine == "zarr"
  source, given = path, {"engine": engine, "group": group or None}
  if zarr:
    # Else xarray fails at codes of Zarr 3 that it has not written itself.
    source = xr.backends.ZarrStore.open_group(
      path, mode="r", use_zarr_fill_value_as_mask=True, group=group or None
    )
    given = {}
  dataset = xr.open_dataset(
    source,
    chunks=None,
    cache=False,  # It would keep every frame ever read.
    mask_and_scale=False,
    decode_times=False,
    **{key: value for key, value in given.items() if value},
  )
  fills = _zarr_fills(path, group) if zarr else {}
  changed, notes, limits = {}, {}, {}
  for name, variable in dataset.variables.items():
    attrs, zero_fill = dict(variable.attrs), None
    numbers = variable.dtype.kind in "iuf"
    if name in fills:
      attrs.pop("_FillValue", None)
      explicit, fill = fills[name]
      if explicit is not None:
        attrs["_FillValue"] = explicit
      elif numbers and fill == 0:
        zero_fill = float(attrs.get("add_offset", 0))
      elif fill is not None:
        attrs["_FillValue"] = fill
    if numbers:
      _mend_codes(attrs, variable.dtype)
    # Positions and dates keep their numbers.
    if numbers and name in dataset.data_vars and "since" not in _units(attrs):
      unset = _UNSET.get(variable.dtype.str[1:])
      if declared:
        text, codes_ = _said(attrs)
        limits[name] = _limits(attrs, variable.dtype)
        if unset is not None and not zarr and "_FillValue" not in attrs:
          attrs["_FillValue"] = variable.dtype.type(unset)
        notes[name] = Declared(text, codes_, zero_fill)
      else:
        for key in _CODES:
          attrs.pop(key, None)
      for key in _RANGES:
        # They are about the packed numbers, which nobody sees any more.
        attrs.pop(key, None)
    changed[name] = xr.Variable(
      variable.dims, variable._data, attrs, variable.encoding, fastpath=True
    )
  coords = {n: v for n, v in changed.items() if n in dataset.coords}
  fields = {n: v for n, v in changed.items() if n not in coords}
  mended = dataset.assign_coords(coords).assign(fields)
  with warnings.catch_warnings():
    # That there are several codes is no reason to warn.
    warnings.filterwarnings("ignore", category=xr.SerializationWarning)
    result = xr.decode_cf(mended, **decoding)
  masked = {
    name: _inside(result.variables[name], *ends)
    for name, ends in limits.items()
    if ends is not None
  }
  result = result.assign(masked)
  for name, note in notes.items():
    result[name].encoding[_NOTE] = note
  result.set_close(dataset.close)
  return result


def _units(attrs: Mapping[str, Any]) -> str:
  return str(attrs.get("units", ""))


def _zarr_fills(path: str, group: str) -> dict[str, tuple[Any, Any]]:
  """By array: the _FillValue among its attributes or None, and Zarr's own or None."""
  import zarr  # Only needed here; xarray used it to open the folder.

  found = {}
  for name, array in zarr.open_group(path, path=group, mode="r").arrays():
    explicit = array.attrs.get("_FillValue")
    if isinstance(explicit, str) and array.dtype.kind == "f":
      explicit = _float_of(explicit)
    found[name] = explicit, array.fill_value
  return found


def _float_of(text: str) -> float | None:
  """A number that JSON or xarray wrote as text: "NaN", "-9999", or in base 64."""
  try:
    return float(text)
  except ValueError:
    pass
  try:
    return struct.unpack("<d", base64.standard_b64decode(text))[0]
  except (ValueError, struct.error):
    return None


def _mend_codes(attrs: dict[str, Any], dtype: np.dtype) -> None:
  """Gives the codes among the attributes the type of the data, in place."""
  unsigned = str(attrs.get("_Unsigned", "")).lower()
  if unsigned in ("true", "false"):
    attrs["_Unsigned"] = unsigned
  for key in _CODES:
    if key not in attrs:
      continue
    found = []
    for item in np.atleast_1d(attrs[key]).tolist():
      try:
        code = float(item)
      except (TypeError, ValueError):
        continue  # A word such as "none".
      if dtype.kind == "f":
        with np.errstate(over="ignore"):
          found.append(dtype.type(code))
      elif code.is_integer():
        # What xarray compares missing_value with is the unsigned number.
        as_unsigned = unsigned == "true" and key == "missing_value"
        found.append(_wrapped(int(item), dtype, as_unsigned))
    del attrs[key]
    if len(found) == 1:
      attrs[key] = found[0]
    elif found:
      # Of several, xarray takes those of missing_value as they are.
      others = np.atleast_1d(attrs.get("missing_value", [])).tolist()
      attrs["missing_value"] = np.array(others + found)


def _wrapped(code: int, dtype: np.dtype, as_unsigned: bool) -> int:
  """An integer code as the data hold it: -1 is 255 in unsigned bytes."""
  size = 2 ** (8 * dtype.itemsize)
  if not -size // 2 <= code < size:
    return code  # No value of the data can be this.
  code %= size
  if dtype.kind == "i" and not as_unsigned and code >= size // 2:
    code -= size
  return code


def _said(attrs: Mapping[str, Any]) -> tuple[str, tuple[float, ...]]:
  """The attributes that declare missing values, and the codes in decoded units."""
  keys = [key for key in (*_CODES, *_RANGES) if key in attrs]
  # NaN is missing whatever is declared.
  keys = [key for key in keys if not _is_nan(attrs[key])]
  text = ", ".join(f"{key}={_plain(attrs[key])}" for key in keys)
  scale, offset = (
    float(np.ravel(attrs.get(key, default))[0])
    for key, default in (("scale_factor", 1), ("add_offset", 0))
  )
  found = [v for key in _CODES for v in np.ravel(attrs.get(key, [])).tolist()]
  return text, tuple(v * scale + offset for v in found if not math.isnan(v))


def _is_nan(value: Any) -> bool:
  value = np.asarray(value)
  return value.dtype.kind == "f" and bool(np.isnan(value).all())


def _plain(value: Any) -> Any:
  value = np.asarray(value).tolist()
  return value[0] if isinstance(value, list) and len(value) == 1 else value


def _limits(attrs: Mapping[str, Any], dtype: np.dtype) -> tuple[float, float] | None:
  """The range in which values count, in decoded units; None for any value."""
  given = {}
  for key, count in _RANGES.items():
    try:
      numbers = np.asarray(attrs[key]).reshape(-1)
      if numbers.dtype.kind not in "iuf":
        numbers = numbers.astype(np.float64)
      if len(numbers) == count:
        given[key] = numbers
    except (KeyError, TypeError, ValueError):
      continue  # Not given, or no numbers.
  if not given:
    return None
  ends = [np.asarray(-np.inf), np.asarray(np.inf)]
  if "valid_range" in given:
    ends = list(given["valid_range"])
  else:
    for place, key in enumerate(("valid_min", "valid_max")):
      if key in given:
        ends[place] = given[key][0]
  packed = "scale_factor" in attrs or "add_offset" in attrs
  if packed and dtype.kind in "iu" and all(_is_float(end) for end in given.values()):
    # By the netCDF users' guide, a range of the decoded type is about decoded
    # values, and one of the packed type about packed ones.
    low, high = map(float, ends)
    slack = abs(float(np.ravel(attrs.get("scale_factor", 1))[0])) / 2
    return low - slack, high + slack
  if dtype.kind == "f":
    with np.errstate(over="ignore"):
      low, high = (float(dtype.type(end)) for end in ends)
    slack = 0.0
  else:
    unsigned = dtype.kind == "u" or attrs.get("_Unsigned") == "true"
    low, high = (
      float(end)
      if np.isinf(end) or not float(end).is_integer()
      else float(_wrapped(int(end), dtype, unsigned))
      for end in ends
    )
    slack = 0.5  # Numbers between two whole ones come from rounding.
  scale, offset = (
    float(np.ravel(attrs.get(key, default))[0])
    for key, default in (("scale_factor", 1), ("add_offset", 0))
  )
  if packed and dtype.kind == "f":
    slack = 1e-6 * max(abs(v) for v in (low, high) if math.isfinite(v))
  ends = sorted(v * scale + offset for v in (low - slack, high + slack))
  return ends[0], ends[1]


def _is_float(numbers: np.ndarray) -> bool:
  return numbers.dtype.kind == "f"


class _Inside(xr.backends.BackendArray):
  """A variable read lazily, NaN outside a range."""

  def __init__(self, variable: xr.Variable, low: float, high: float):
    self._variable, self._low, self._high = variable, low, high
    self.shape = variable.shape
    wide = variable.dtype.kind == "f"
    self.dtype = variable.dtype if wide else np.result_type(variable.dtype, np.float32)

  def __getitem__(self, key):
    return indexing.explicit_indexing_adapter(
      key, self.shape, indexing.IndexingSupport.OUTER, self._read
    )

  def _read(self, key):
    values = np.asarray(self._variable[key].values)
    outside = (values < self._low) | (values > self._high)
    return np.where(outside, np.nan, values).astype(self.dtype)


def _inside(variable: xr.Variable, low: float, high: float) -> xr.Variable:
  """The variable, missing outside a range."""
  lazy = indexing.LazilyIndexedArray(_Inside(variable, low, high))
  return xr.Variable(variable.dims, lazy, variable.attrs, variable.encoding)
