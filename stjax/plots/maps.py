"""Axes of maps: where north is, and the coordinates of cells and points."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes

_NORTH = ("degrees_north", "degree_north", "degreen", "degreesn", "degree_n")
_EAST = ("degrees_east", "degree_east", "degreee", "degreese", "degree_e")
_LATITUDES = ("lat", "latitude", "lats", "nav_lat", "xlat", "lat_2d")
_LONGITUDES = ("lon", "longitude", "lons", "long", "nav_lon", "xlong", "lon_2d")
# Distances of ticks on wide maps, as atlases have them.
_DEGREES = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180)
_MINUS = "\N{MINUS SIGN}"
# A coordinate that says none of these may be no more than a count of cells.
_MEANING = ("units", "standard_name", "axis")


class Axis(NamedTuple):
  """One side of a map.

  Attributes:
    label: text beside the axis; "" where the tick labels say it all.
    values: coordinates of the cells, which go one way only.
    kind: "latitude", "longitude", "distance" or "index".
  """

  label: str
  values: np.ndarray
  kind: str

  @property
  def rises(self) -> bool:
    """Whether the coordinate grows with the number of the cell."""
    return len(self.values) < 2 or bool(self.values[-1] > self.values[0])

  def ticks(self, most: int) -> tuple[list[float], list[str]]:
    """Returns positions, in cells from 0, and labels of up to `most` + 1 ticks."""
    low, high = self.values.min(), self.values.max()
    if high <= low:
      return [0.0], [self._text(low)]
    locator = ticker.MaxNLocator(
      most, steps=[1, 2, 5, 10], integer=self.kind == "index", min_n_ticks=1
    )
    if self.kind in ("latitude", "longitude") and high - low > most:
      step = next((s for s in _DEGREES if high - low <= most * s), _DEGREES[-1])
      locator = ticker.MultipleLocator(step)
    slack = 1e-6 * (high - low)
    places = [v for v in locator.tick_values(low, high)]
    places = [v for v in places if low - slack <= v <= high + slack]
    order = slice(None) if self.rises else slice(None, None, -1)
    cells = np.arange(len(self.values), dtype=float)[order]
    found = np.interp(places, self.values[order], cells)
    return found.tolist(), [self._text(v) for v in places]

  def _text(self, value: float) -> str:
    if self.kind == "latitude":
      return latitude_text(value)
    if self.kind == "longitude":
      return longitude_text(value)
    return f"{value:.6g}".replace("-", _MINUS)


class Grid(NamedTuple):
  """How a field [H, W] becomes a map with north at the top.

  Attributes:
    x: the axis from the left to the right.
    y: the axis from the bottom to the top or, of an image, from the top down.
    transposed: whether x runs along the rows of the array.
    upward: whether the first row of the map is the lowest.
    corners: what the corners are where neither axis has a latitude, or "".
  """

  x: Axis
  y: Axis
  transposed: bool = False
  upward: bool = False
  corners: str = ""

  @property
  def origin(self) -> str:
    """The `origin` of `imshow`."""
    return "lower" if self.upward else "upper"

  def arrange(self, fields: np.ndarray) -> np.ndarray:
    """Returns fields [..., H, W] with the map's vertical axis before the other."""
    return np.swapaxes(fields, -1, -2) if self.transposed else fields

  @property
  def proportion(self) -> float:
    """Height over width."""
    rows, columns = len(self.y.values), len(self.x.values)
    kinds = {self.x.kind, self.y.kind}
    if kinds in ({"latitude", "longitude"}, {"distance"}) and min(rows, columns) > 1:
      height, width = (
        float(np.ptp(a.values)) * n / (n - 1)
        for a, n in ((self.y, rows), (self.x, columns))
      )
      if height > 0 and width > 0:
        return height / width
    return rows / columns

  def draw(
    self, ax: Axes, *, left: bool, below: bool, size: tuple[float, float]
  ) -> None:
    """Puts ticks on an image, and labels on the sides that have room.

    Args:
      ax: axes with one image, whose cells are counted from 0.
      left: whether the vertical axis is labelled.
      below: whether the horizontal axis is labelled.
      size: width and height of the panel in inches.
    """
    if not self.x.rises:
      ax.invert_xaxis()
    most = int(np.clip(size[0] / 0.4, 1, 5))
    places, texts = self.x.ticks(most)
    ax.set_xticks(places, texts if below else [""] * len(texts))
    places, texts = self.y.ticks(int(np.clip(size[1] / 0.3, 1, 5)))
    ax.set_yticks(places, texts if left else [""] * len(texts))
    ax.tick_params(length=2, width=0.5, labelsize=6.5, pad=1.5)
    # Labels at the ends would run into those of the next panel.
    cells = len(self.x.values)
    for text, place in zip(ax.get_xticklabels(), self.x.ticks(most)[0], strict=True):
      share = (place + 0.5) / cells
      share = share if self.x.rises else 1 - share
      text.set_ha("left" if share < 0.1 else "right" if share > 0.9 else "center")
    if below:
      ax.set_xlabel(self.x.label, fontsize=7, labelpad=1.5)
    if left:
      ax.set_ylabel(self.y.label, fontsize=7, labelpad=1.5)


def index_grid(height: int, width: int) -> Grid:
  """Returns the map of a grid without coordinates, whose first row is the upper."""
  return Grid(
    Axis("column", np.arange(width, dtype=float), "index"),
    Axis("row", np.arange(height, dtype=float), "index"),
  )


def grid(coordinates: xr.Dataset) -> Grid:
  """Returns the map of a grid.

  Latitudes and longitudes come first, then distances such as x and y in km. A
  grid whose coordinates only count its cells is drawn like an image, with the
  first row at the top, unless a latitude over both dimensions says otherwise.

  Args:
    coordinates: grid with the attribute "spatial_dims".
  """
  rows, columns = dims = [str(d) for d in coordinates.attrs["spatial_dims"]]
  sizes = [int(coordinates.sizes[d]) for d in dims]
  plain = index_grid(*sizes)
  latitude = _field(coordinates, dims, _is_latitude)
  longitude = _field(coordinates, dims, _is_longitude)
  corners = ""
  across = False  # Whether the latitude changes along the columns of the array.
  rising = None
  if latitude is not None and longitude is not None:
    longitude = np.unwrap(np.unwrap(longitude, period=360, axis=1), period=360, axis=0)
    down, along = (_steps(latitude, axis) for axis in (0, 1))
    across = abs(along) > abs(down)
    rising = (along if across else down) > 0
    axes = [
      _separate(f, i) for f, i in ((latitude, 1 * across), (longitude, 1 - across))
    ]
    if all(_goes_one_way(values) for values in axes):
      x, y = (
        Axis("longitude", axes[1], "longitude"),
        Axis("latitude", axes[0], "latitude"),
      )
      return Grid(x, y, bool(across), y.rises)
    corners = _corners(latitude, longitude)
  if latitude is None and longitude is None:
    across = _is_x(coordinates, rows) and _is_y(coordinates, columns)
  vertical, horizontal = (columns, rows) if across else (rows, columns)
  y = _distance(coordinates, vertical) or (plain.x if across else plain.y)
  x = _distance(coordinates, horizontal) or (plain.y if across else plain.x)
  if rising is None:
    rising = y.kind == "distance" and y.rises
  return Grid(x, y, bool(across), bool(rising), corners)


def place(coordinates: xr.Dataset, row: int, column: int) -> str:
  """Returns the name of a point: station, latitude and longitude, or its cell.

  Args:
    coordinates: grid with the attribute "spatial_dims".
    row: row of the point, from 0.
    column: column of the point, from 0.
  """
  dims = [str(d) for d in coordinates.attrs["spatial_dims"]]
  cell = dict(zip(dims, (row, column), strict=True))

  def at(values):
    return values.isel({d: cell[d] for d in values.dims}).item()

  parts, name, where = {}, "", []
  for key, values in coordinates.coords.items():
    if not set(map(str, values.dims)) <= set(dims) or not values.dims:
      continue
    if values.dtype.kind in "UO" and values.sizes[values.dims[0]] > 1:
      name = name or str(at(values))
    elif values.dtype.kind in "fiu":
      if _is_latitude(str(key), values):
        parts["latitude"] = at(values)
      elif _is_longitude(str(key), values):
        parts["longitude"] = at(values)
  if len(parts) == 2 and np.isfinite(list(parts.values())).all():
    where = [latitude_text(parts["latitude"], 2), longitude_text(parts["longitude"], 2)]
  else:
    for dim in dims[::-1]:
      axis = _distance(coordinates, dim)
      if axis is not None and len(axis.values) > 1:
        unit = axis.label.partition("(")[2].rstrip(")")
        text = f"{axis.values[cell[dim]]:.6g}".replace("-", _MINUS)
        where.append(f"{axis.label.partition(' (')[0]} {text} {unit}".strip())
  if len(where) < 2 and not name:
    return f"row {row}, column {column}"
  known = ", ".join(([name] if name else []) + where)
  if coordinates.sizes[dims[1]] == 1:
    return f"{known} (row {row})"
  return f"{known} (row {row}, column {column})"


def latitude_text(value: float, digits: int = 3) -> str:
  """Returns a latitude such as "52.5°N"; the equator is "0°"."""
  return _degrees(value, "NS", digits)


def longitude_text(value: float, digits: int = 3) -> str:
  """Returns a longitude such as "7.5°W", whichever way the data count."""
  value = (float(value) + 180) % 360 - 180
  if abs(abs(value) - 180) < 1e-6:
    return "180°"
  return _degrees(value, "EW", digits)


def _degrees(value: float, sides: str, digits: int) -> str:
  text = f"{abs(value):.{digits}f}"
  text = text.rstrip("0").rstrip(".") if "." in text else text
  return f"{text}°{'' if float(text) == 0 else sides[int(value < 0)]}"


def _is_latitude(name: str, values: xr.DataArray) -> bool:
  return _is_position(name, values, "latitude", _LATITUDES, _NORTH)


def _is_longitude(name: str, values: xr.DataArray) -> bool:
  return _is_position(name, values, "longitude", _LONGITUDES, _EAST)


def _is_position(name, values, kind, names, units) -> bool:
  standard = values.attrs.get("standard_name")
  if standard is not None:
    return standard == kind
  return name.lower() in names or str(values.attrs.get("units", "")).lower() in units


def _is_x(coordinates: xr.Dataset, dim: str) -> bool:
  axis = coordinates[dim].attrs.get("axis") if dim in coordinates.coords else None
  return dim.lower() == "x" or axis == "X"


def _is_y(coordinates: xr.Dataset, dim: str) -> bool:
  axis = coordinates[dim].attrs.get("axis") if dim in coordinates.coords else None
  return dim.lower() == "y" or axis == "Y"


def _field(coordinates: xr.Dataset, dims: list[str], is_it) -> np.ndarray | None:
  """Returns a coordinate [H, W] that `is_it` knows, or None."""
  for name, values in coordinates.coords.items():
    usable = values.dims and set(map(str, values.dims)) <= set(dims)
    if usable and values.dtype.kind in "fiu" and is_it(str(name), values):
      missing = {d: coordinates.sizes[d] for d in dims if d not in values.dims}
      full = values.expand_dims(missing).transpose(*dims).values.astype(float)
      return full if np.isfinite(full).all() else None
  return None


def _steps(field: np.ndarray, axis: int) -> float:
  """Returns the mean change along an axis, from its first to its last cell."""
  ends = np.take(field, [0, -1], axis=axis)
  return float(np.diff(ends, axis=axis).mean())


def _separate(field: np.ndarray, axis: int) -> np.ndarray:
  """Returns values along an axis; NaN if they change along the other one, too."""
  values = field.mean(axis=1 - axis)
  size = np.abs(np.diff(values)).min(initial=np.inf)
  spread = np.ptp(field, axis=1 - axis).max()
  limit = 0.05 * size if np.isfinite(size) else 1e-6
  return values if spread <= limit else np.full_like(values, np.nan)


def _goes_one_way(values: np.ndarray) -> bool:
  steps = np.diff(values)
  return bool(np.isfinite(values).all() and ((steps > 0).all() or (steps < 0).all()))


def _distance(coordinates: xr.Dataset, dim: str) -> Axis | None:
  """Returns a dimension's own coordinate, unless it only counts the cells."""
  if dim not in coordinates.coords or coordinates[dim].dtype.kind not in "fiu":
    return None
  array = coordinates[dim]
  values = array.values.astype(float)
  if not _goes_one_way(values):
    return None
  if not any(array.attrs.get(key) for key in _MEANING) and _counts(values):
    return None
  units = str(array.attrs.get("units", "")).strip()
  if units in ("m", "metre", "meter", "metres", "meters") and np.ptp(values) >= 1e4:
    values, units = values / 1000, "km"
  shown = "" if units in ("", "1") else f" ({units})"
  return Axis(f"{dim}{shown}", values, "distance")


def _counts(values: np.ndarray) -> bool:
  """Tells whether values number cells, or blocks of as many cells as the step."""
  steps = np.diff(values)
  step = steps[0] if steps.size else 1.0
  if step != np.round(step) or step < 1 or (steps != step).any():
    return False
  return step == 1 or values[0] == (step - 1) / 2


def _corners(latitude: np.ndarray, longitude: np.ndarray) -> str:
  """Says where the first and the last cell of a curved grid are."""
  ends = [
    f"{latitude_text(latitude[i, i], 1)} {longitude_text(longitude[i, i], 1)}"
    for i in (0, -1)
  ]
  return f"first cell at {ends[0]}, last cell at {ends[1]}"
