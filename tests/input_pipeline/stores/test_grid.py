"""Selecting and averaging around the circle, and what whole numbers mean."""

import numpy as np
import pytest
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import grid, resample

FULL = {
  360: np.arange(0.0, 360, 5),
  180: np.arange(-180.0, 180, 5),
  "both": np.arange(0.0, 361, 5),
  "cut": np.r_[np.arange(180.0, 360, 5), np.arange(0.0, 180, 5)],
  "down": np.arange(355.0, -1, -5),
  "west": np.arange(300.0, 360, 5),
}


LATITUDES = np.arange(90, -91, -5.0)


def dataset(longitudes, latitudes=LATITUDES):
  """A field that tells latitude and longitude on the circle."""
  field = 1000 * latitudes[:, None] + longitudes % 360
  attrs = {"units": "degrees_east"}
  coords = {"lat": latitudes, "lon": ("lon", longitudes, attrs)}
  return xr.Dataset({"t": (("lat", "lon"), field)}, coords)


def selected(longitudes, **ranges):
  cut = grid.select(dataset(longitudes), ranges, several_files=False)
  expected = 1000 * cut.lat.values[:, None] + cut.lon.values % 360
  np.testing.assert_array_equal(cut.t, expected)  # Data and coordinates agree.
  assert cut.lon.attrs == {"units": "degrees_east"}
  return cut


@pytest.mark.parametrize(
  ("kind", "limits", "first", "last", "count"),
  [
    (360, (-10.0, 30.0), -10, 30, 9),
    (360, (-10, 30), -10, 30, 9),
    (360, (350.0, 10.0), -10, 10, 5),
    (360, (350.0, 370.0), -10, 10, 5),
    (360, (10.0, 30.0), 10, 30, 5),
    (360, (170.0, -170.0), 170, 190, 5),
    (360, (-100, -60), -100, -60, 9),
    (360, (0.0, 360.0), 0, 355, 72),
    (360, (-180, 180), 0, 355, 72),
    (360, (-175, 175), -175, 175, 71),
    (180, (170.0, -170.0), 170, 190, 5),
    (180, (350.0, 10.0), -10, 10, 5),
    (180, (-10.0, 30.0), -10, 30, 9),
    (180, (200, 300), 200, 300, 21),
    ("both", (-10.0, 10.0), -10, 10, 5),
    ("both", (350.0, 360.0), 350, 360, 3),
    ("cut", (-10.0, 30.0), -10, 30, 9),
    ("cut", (175.0, 190.0), 175, 190, 4),
    ("down", (10.0, 30.0), 30, 10, 5),
    ("down", (350.0, 10.0), -10, 10, 5),
    ("west", (-30.0, -10.0), -30, -10, 5),
    ("west", (320.0, 400.0), 320, 355, 8),
  ],
)
def test_longitudes_go_round(kind, limits, first, last, count):
  lon = selected(FULL[kind], lon=limits).lon.values
  steps = np.diff(lon)
  assert (lon[0], lon[-1], len(lon)) == (first, last, count)
  assert (steps == steps[0]).all() and lon.min() >= -180 and lon.max() <= 360


@pytest.mark.parametrize(
  ("kind", "ranges", "words"),
  [
    (360, {"lon": (30.0, 10.0)}, r"data.select.lon=\(30.0, 10.0\).*going east"),
    (360, {"lon": (180.0, -180.0)}, "going east"),
    (360, {"lon": (2.0, 3.0)}, "leaves nothing of 72 entries from 0.0 to 355.0"),
    ("west", {"lon": (10.0, 20.0)}, "leaves nothing"),
    ("west", {"lon": (350.0, 305.0)}, "going east"),
    (360, {"lon": ("a", "b")}, "going east"),
    (360, {"lat": (0, 200)}, r"values or positions.*\(0., 200.\).*\(0, 200, 1\)"),
    (360, {"lat": (95, 99)}, r"leaves nothing.*\(95, 99, 1\)"),
    (360, {"lat": (0, 4)}, "values or positions"),
    (360, {"lat": ("a", "b")}, "Give numbers"),
  ],
)
def test_ranges_that_select_nothing_or_two_things_are_refused(kind, ranges, words):
  with pytest.raises(errors.DataError, match=words):
    selected(FULL[kind], **ranges)


def test_a_range_over_a_hole_is_refused():
  with pytest.raises(errors.DataError, match="hole in the coordinate, from 60 to 330"):
    selected(np.arange(-30.0, 61, 5), lon=(50.0, 340.0))


def test_whole_numbers_are_values_where_there_are_some():
  lat = selected(FULL[360], lat=(40, 60)).lat
  np.testing.assert_array_equal(lat, [60, 55, 50, 45, 40])
  np.testing.assert_array_equal(selected(FULL[360], lat=(60, 40)).lat, lat)
  lat = selected(FULL[360], lat=(40, 60), lon=(0, 9)).lat
  np.testing.assert_array_equal(lat, [60, 55, 50, 45, 40])
  assert selected(FULL[360], lat=(0, 6, 2)).lat.values.tolist() == [90, 80, 70]
  assert selected(FULL[360], lat=(None, 2)).lat.values.tolist() == [90, 85]
  assert selected(FULL[360], lat=(None, -80.0)).lat.values.tolist() == [-80, -85, -90]
  # Degrees that are like positions, and limits that can mean one thing only.
  degrees = selected(np.arange(360.0), lon=(10, 30)).lon.values
  assert (degrees[0], degrees[-1]) == (10, 30)
  assert selected(FULL[360], lat=(-99, 99)).sizes["lat"] == 37
  north = dataset(FULL[360], np.arange(30.0, 71, 5))
  assert grid.select(north, {"lat": (0, 90)}, False).sizes["lat"] == 9
  rows = xr.Dataset({"t": (("y", "x"), np.zeros((9, 9)))}, {"y": np.arange(9)})
  cut = grid.select(rows, {"y": (2, 5), "x": (0, 3)}, several_files=False)
  assert dict(cut.sizes) == {"y": 3, "x": 3} and cut.y.values.tolist() == [2, 3, 4]


def test_whole_numbers_on_a_time_axis_are_positions_unless_they_are_years():
  time = np.arange("2000-01", "2020-01", dtype="M8[M]").astype("M8[us]")
  data = xr.Dataset({"t": ("time", np.arange(240))}, {"time": time})
  assert grid.select(data, {"time": (5, 9)}, False).t.values.tolist() == [5, 6, 7, 8]
  assert grid.select(data, {"time": ("2019", None)}, False).sizes["time"] == 12
  with pytest.raises(errors.DataError, match="years or positions.*'2010-01-01'"):
    grid.select(data, {"time": (2010, 2015)}, False)


@pytest.mark.parametrize(
  ("lon", "factor", "expected"),
  [
    (np.r_[345.0:360:5, 0.0:25:5], 2, [-12.5, -2.5, 7.5, 17.5]),
    ([357.5, 2.5], 2, [0]),
    ([357.0, 0.0, 3.0, 6.0], 3, [0, 6]),
    ([170.0, 175, 180, -175, -170, -165], 2, [172.5, 182.5, 192.5]),
    ([10.0, 20.0, 30.0], 2, [15, 30]),
  ],
)
def test_longitudes_are_averaged_around_the_circle(lon, factor, expected):
  space = dataset(np.asarray(lon), np.arange(4.0)).coords.to_dataset()
  space["nav_lon"] = ("lat", "lon"), np.tile(lon, (4, 1)), {"units": "degrees_east"}
  space = space.set_coords("nav_lon").assign_attrs(spatial_dims=["lat", "lon"])
  coarse = grid.coarsen_coordinates(space, ("lat", "lon"), factor)
  np.testing.assert_allclose(coarse.lon, expected)
  turned = (coarse.nav_lon.values - expected + 180) % 360 - 180
  np.testing.assert_allclose(turned, 0, atol=1e-9)
  assert coarse.lon.attrs == {"units": "degrees_east"}


def test_interpolated_longitudes_go_round():
  lon = np.r_[340.0:360:5, 0.0:20:5]
  space = dataset(lon, np.arange(4.0)).coords.to_dataset()
  space.attrs["spatial_dims"] = ["lat", "lon"]
  half = resample.Resampling(size=(2, 4)).coordinates(space)
  np.testing.assert_allclose(half.lon, [-17.5, -7.5, 2.5, 12.5])
