"""The grid that fields are given on."""

import numpy as np
import xarray as xr

from stjax import config as config_lib

# What cells may count as.
AREA_WEIGHTS = {"none": None, "latitude": None}


def area_weights(
    key: str, kind: str, coordinates: xr.Dataset
) -> np.ndarray | None:
  """Weights of the grid's cells, from its coordinates.

  Args:
    key: of the config, for errors.
    kind: "none", or "latitude" for the cosine of the latitude.
    coordinates: a grid with a latitude along H, or over (H, W).

  Returns:
    [H] or [H, W], or None.

  Raises:
    ConfigError: unknown kind, or no latitude among the coordinates.
  """
  config_lib.pick(key, kind, AREA_WEIGHTS)
  if kind == "none":
    return None
  space = tuple(coordinates.attrs["spatial_dims"])
  for name, values in coordinates.coords.items():
    is_latitude = str(name).lower() in ("lat", "latitude") or str(
        values.attrs.get("standard_name")
    ) == "latitude"
    if is_latitude and values.dims in (space, space[:1]):
      return np.cos(np.deg2rad(values.values))
  raise config_lib.ConfigError(
      f"{key}='latitude' needs a coordinate lat or latitude along"
      f" {space[0]!r} or {space}; the data have"
      f" {sorted(map(str, coordinates.coords))}. Use 'none'."
  )
