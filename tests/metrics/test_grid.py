import functools

import numpy as np
import pytest
import xarray as xr

from stjax import errors
from stjax.metrics import grid


def test_area_weights_need_a_latitude():
  weights = functools.partial(grid.area_weights, "evaluation.area_weights")
  plane = xr.Dataset(coords={"y": np.arange(3.0)})
  plane.attrs["spatial_dims"] = ["y", "x"]
  assert weights("none", plane) is None
  with pytest.raises(errors.ConfigError, match="latitude"):
    weights("latitude", plane)
  with pytest.raises(errors.ConfigError, match="area_weights"):
    weights("cosine", plane)
  globe = xr.Dataset(coords={"lat": [0.0, 60.0]})
  globe.attrs["spatial_dims"] = ["lat", "lon"]
  np.testing.assert_allclose(weights("latitude", globe), [1.0, 0.5])


@pytest.mark.parametrize(
  ("latitude", "columns", "kind"),
  [
    (("y", [60.0, 0.0, -30.0]), 4, "latitude"),
    (("y", [-30.0, 0.0, 60.0]), 4, "latitude"),
    (("y", [60.0, -30.0, 0.0]), 4, "none"),  # Stations in no order.
    (("y", [60.0, 50.0, 40.0]), 1, "none"),  # Points are no cells.
    (("y", [60.0]), 4, "none"),
    ((("y", "x"), np.full((3, 4), 60.0)), 4, "none"),  # A projection's cells.
    (None, 4, "none"),
  ],
)
def test_a_grid_is_weighted_by_itself_where_rows_are_latitudes(latitude, columns, kind):
  grid_ = xr.Dataset(coords={"x": np.arange(columns)}, attrs={"spatial_dims": "yx"})
  if latitude:
    grid_ = grid_.assign_coords(lat=latitude)
  key = "evaluation.area_weights"
  assert grid.area_kind(key, "auto", grid_) == kind
  weights = grid.area_weights(key, "auto", grid_)
  if kind == "none":
    assert weights is None
  else:
    np.testing.assert_allclose(weights, np.cos(np.deg2rad(latitude[1])))


def test_weather_is_always_weighted_by_area():
  key = "evaluation.area_weights"
  area_weights = functools.partial(grid.area_weights, key)
  cell_weights = functools.partial(grid.cell_weights, key)
  globe = xr.Dataset(coords={"lat": [60.0, 0.0, -60.0]})
  globe.attrs["spatial_dims"] = ["lat", "lon"]
  cells = area_weights("cells", globe)
  np.testing.assert_allclose(cells, [0.75, 1.5, 0.75], rtol=1e-6)
  np.testing.assert_array_equal(cell_weights("none", globe), cells)
  np.testing.assert_array_equal(cell_weights("auto", globe), cells)
  cosine = cell_weights("latitude", globe)
  np.testing.assert_allclose(cosine, [0.5, 1, 0.5])
  curved = xr.Dataset(coords={"lat": (("y", "x"), [[60.0, 0.0]])})
  curved.attrs["spatial_dims"] = ["y", "x"]
  np.testing.assert_allclose(cell_weights("none", curved), [[0.5, 1]])
  with pytest.raises(errors.ConfigError, match="'cells' needs.*'y'"):
    area_weights("cells", curved)
  plane = xr.Dataset(coords={"y": np.arange(3)})
  plane.attrs["spatial_dims"] = ["y", "x"]
  assert cell_weights("none", plane) is None
  points = xr.Dataset(coords={"lat": ("sensor", [3.0, 1.0, 2.0])})
  points.attrs["spatial_dims"] = ["sensor", "column"]
  assert cell_weights("none", points) is None
