"""Weights of a grid's cells, from the coordinates of the data."""

import numpy as np
import xarray as xr

from stjax import errors
from stjax.metrics import fields

# Kinds of weights; see `area_weights`.
AREA_WEIGHTS = dict.fromkeys(("none", "auto", "latitude", "cells"))


def area_kind(key: str, kind: str, coordinates: xr.Dataset) -> str:
  """Returns the kind of weights that "auto" stands for on a grid.

  Args:
    key: key of the config, which error messages name.
    kind: a kind of `area_weights`; others than "auto" are returned as they are.
    coordinates: the grid.

  Returns:
    "latitude" if the rows of a grid are latitudes that rise or fall all the way,
    which is not so for stations and on a map projection; "none" otherwise.

  Raises:
    ConfigError: the kind is unknown.
  """
  errors.pick(key, kind, AREA_WEIGHTS)
  if kind != "auto":
    return kind
  latitude = _latitude(coordinates)
  columns = coordinates.sizes[coordinates.attrs["spatial_dims"][1]]
  if latitude is None or latitude.ndim == 2 or columns == 1:
    return "none"
  steps = np.sign(np.diff(latitude))
  return "latitude" if steps.size and abs(steps.sum()) == steps.size else "none"


def area_weights(key: str, kind: str, coordinates: xr.Dataset) -> np.ndarray | None:
  """Returns the weights of a grid's cells.

  Args:
    key: key of the config, which error messages name.
    kind: "none", "latitude" for the cosine of the latitude, "cells" for the
      area between the latitudes half-way to the neighbouring rows
      (`stjax.metrics.fields.cell_weights`), or "auto" (see `area_kind`).
    coordinates: grid with a latitude along H; for "latitude" it may also be
      over (H, W).

  Returns:
    [H] or [H, W]; None without weights.

  Raises:
    ConfigError: the kind is unknown, or the coordinates hold no latitude.
  """
  kind = area_kind(key, kind, coordinates)
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
  """Returns the weights of the convention "weather", which always weighs cells.

  Args:
    key: key of the config, which error messages name.
    kind: kind of `area_weights`. With "none" and "auto", cells still count by their
      area if the grid has latitudes: by their bounds for latitudes along H, and by
      the cosine for latitudes over (H, W).
    coordinates: the grid.

  Returns:
    [H] or [H, W]; None on a plane, and for points in no order.
  """
  latitude = _latitude(coordinates)
  if kind in ("none", "auto") and latitude is not None:
    steps = np.diff(latitude)
    kind = "none"
    if latitude.ndim == 2:
      kind = "latitude"
    elif steps.size and abs(np.sign(steps).sum()) == steps.size:
      # All steps go one way, so the cells have bounds.
      kind = "cells"
  return area_weights(key, kind, coordinates)


def _latitude(coordinates: xr.Dataset) -> np.ndarray | None:
  """Returns the latitude [H] or [H, W] of a grid in degrees, or None."""
  space = tuple(coordinates.attrs["spatial_dims"])
  for name, values in coordinates.coords.items():
    is_latitude = (
      str(name).lower() in ("lat", "latitude")
      or str(values.attrs.get("standard_name")) == "latitude"
    )
    if is_latitude and values.dims in (space, space[:1]):
      return values.values
  return None
