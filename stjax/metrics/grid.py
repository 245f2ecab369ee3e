"""The grid that fields are given on."""

import numpy as np
import xarray as xr

from stjax import errors
from stjax.metrics import fields

# What cells may count as.
AREA_WEIGHTS = dict.fromkeys(("none", "latitude", "cells"))


def area_weights(key: str, kind: str, coordinates: xr.Dataset) -> np.ndarray | None:
  """Weights of the grid's cells, from its coordinates.

  Args:
    key: of the config, for errors.
    kind: "none", "latitude" for the cosine of the latitude, or "cells" for
      the area between the latitudes half-way to the neighbouring rows
      (`stjax.metrics.fields.cell_weights`).
    coordinates: a grid with a latitude along H, or (not "cells") over (H, W).

  Returns:
    [H] or [H, W], or None.

  Raises:
    ConfigError: unknown kind, or no latitude among the coordinates.
  """
  errors.pick(key, kind, AREA_WEIGHTS)
  if kind == "none":
    return None
  latitude = _latitude(coordinates)
  if latitude is not None and kind == "latitude":
    return np.cos(np.deg2rad(latitude))
  if latitude is not None and latitude.ndim == 1:
    return fields.cell_weights(latitude)
  space = tuple(coordinates.attrs["spatial_dims"])
  raise errors.ConfigError(
    f"{key}={kind!r} needs a coordinate lat or latitude"
    f" along {space[0]!r}{f' or {space}' if kind == 'latitude' else ''}; the"
    f" data have {sorted(map(str, coordinates.coords))}. Use 'none'"
    f"{' or latitude' if kind == 'cells' else ''}."
  )


def cell_weights(key: str, kind: str, coordinates: xr.Dataset) -> np.ndarray | None:
  """Weights of the convention "weather", which always has the cells' area.

  Args:
    key: of the config, for errors.
    kind: as for `area_weights`; for "none" the area of the cells is taken
      where a grid has latitudes: by their bounds, or over (H, W) by the cosine.
    coordinates: the grid.

  Returns:
    [H] or [H, W], or None on a plane and for points in no order.
  """
  latitude = _latitude(coordinates)
  if kind == "none" and latitude is not None:
    steps = np.diff(latitude)
    if latitude.ndim == 2:
      kind = "latitude"
    elif steps.size and abs(np.sign(steps).sum()) == steps.size:  # One way.
      kind = "cells"
  return area_weights(key, kind, coordinates)


def _latitude(coordinates: xr.Dataset) -> np.ndarray | None:
  """The latitude [H] or [H, W] of a grid, degrees; None without one."""
  space = tuple(coordinates.attrs["spatial_dims"])
  for name, values in coordinates.coords.items():
    is_latitude = (
      str(name).lower() in ("lat", "latitude")
      or str(values.attrs.get("standard_name")) == "latitude"
    )
    if is_latitude and values.dims in (space, space[:1]):
      return values.values
  return None
