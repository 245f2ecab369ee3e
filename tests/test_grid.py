import functools

import numpy as np
import pytest
import xarray as xr

from stjax import config as config_lib
from stjax import grid


def test_area_weights_need_a_latitude():
  weights = functools.partial(grid.area_weights, "evaluation.area_weights")
  plane = xr.Dataset(coords={"y": np.arange(3.0)})
  plane.attrs["spatial_dims"] = ["y", "x"]
  assert weights("none", plane) is None
  with pytest.raises(config_lib.ConfigError, match="latitude"):
    weights("latitude", plane)
  with pytest.raises(config_lib.ConfigError, match="area_weights"):
    weights("cosine", plane)
  globe = xr.Dataset(coords={"lat": [0.0, 60.0]})
  globe.attrs["spatial_dims"] = ["lat", "lon"]
  np.testing.assert_allclose(weights("latitude", globe), [1.0, 0.5])
