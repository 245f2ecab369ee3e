"""Maps: north is up, and coordinates are where they belong."""

import numpy as np
import pytest
import xarray as xr

from stjax import plots
from stjax.plots import maps

NORTH, EAST = {"units": "degrees_north"}, {"units": "degrees_east"}


def _space(rows, columns, dims=("lat", "lon"), **more):
  coords = dict(
    zip(
      dims, ((d, *c) for d, c in zip(dims, (rows, columns), strict=True)), strict=True
    )
  )
  return xr.Dataset(coords=coords | more, attrs={"spatial_dims": list(dims)})


def _drawn(space, figures):
  """Draws the latitude or row; returns axes and the image as it is seen."""
  shape = [space.sizes[d] for d in space.attrs["spatial_dims"]]
  field = np.arange(float(np.prod(shape))).reshape(1, *shape)
  plots.picture_grid(field, field, field, "a.png", grid=maps.grid(space))
  panels = [ax for ax in figures[-1].axes if ax.images]
  ax = panels[-1]  # The lowest one has the labels of both sides.
  [image] = panels[0].images
  seen = np.asarray(image.get_array())
  seen = seen[::-1] if image.origin == "lower" else seen
  return ax, seen[:, ::-1] if ax.xaxis_inverted() else seen, field[0]


def _ticks(axis):
  return dict(
    zip((t.get_text() for t in axis.get_ticklabels()), axis.get_ticklocs(), strict=True)
  )


@pytest.mark.parametrize("south_first", [False, True])
@pytest.mark.parametrize("east_first", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_north_is_up_and_east_is_right(figures, south_first, east_first, transposed):
  lat = np.linspace(50, 60, 6)[:: 1 if south_first else -1]
  lon = np.linspace(-10, 10, 9)[:: -1 if east_first else 1]
  axes, dims = [(lat, NORTH), (lon, EAST)], ("lat", "lon")
  if transposed:
    axes, dims = axes[::-1], dims[::-1]
  ax, seen, field = _drawn(_space(*axes, dims), figures)
  field = field.T if transposed else field
  field = field[::-1] if south_first else field
  np.testing.assert_array_equal(seen, field[:, ::-1] if east_first else field)
  for label, place in _ticks(ax.yaxis).items():
    value = np.interp(place, np.arange(6), lat)
    assert value == pytest.approx(float(label.removesuffix("°N")))
  assert {"10°W", "0°", "10°E"} <= set(_ticks(ax.xaxis))
  assert lon[int(_ticks(ax.xaxis)["10°W"])] == -10
  assert ax.get_xlabel() == "longitude" and ax.get_ylabel() == "latitude"


def test_uneven_latitudes_have_their_ticks_in_place():
  axis = maps.grid(_space((np.array([0, 10, 40.0]), NORTH), ([0.0, 1.0], EAST))).y
  places, texts = axis.ticks(4)
  assert texts[0] == "0°" and "20°N" in texts
  assert places[texts.index("20°N")] == pytest.approx(1 + 1 / 3)


@pytest.mark.parametrize(
  "lon,expected",
  [
    ([350.0, 355, 0, 5, 10], {"10°W", "0°", "10°E"}),
    ([350.0, 355, 360, 365, 370], {"10°W", "0°", "10°E"}),
    ([170.0, 175, 180, -175, -170], {"170°E", "180°", "170°W"}),
  ],
)
def test_longitudes_go_on_across_0_and_180(lon, expected):
  axis = maps.grid(_space(([50.0, 51], NORTH), (lon, EAST))).x
  places, texts = axis.ticks(3)
  assert expected == set(texts) and places == [0, 2, 4]


def test_distances_have_units_and_y_points_upwards(figures):
  metres = {"units": "m"}
  y, x = np.arange(0, 50e3, 10e3), np.arange(0, 80e3, 10e3)
  ax, seen, field = _drawn(_space((y, metres), (x, metres), ("y", "x")), figures)
  np.testing.assert_array_equal(seen, field[::-1])
  assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (km)", "y (km)")
  assert _ticks(ax.yaxis)["20"] == 2


@pytest.mark.parametrize("block", [1, 2])
def test_rows_that_are_only_counted_go_down_like_those_of_an_image(figures, block):
  counts = [np.arange(n * block).reshape(n, block).mean(1) for n in (5, 8)]
  ax, seen, field = _drawn(_space(*((c, {}) for c in counts), ("y", "x")), figures)
  np.testing.assert_array_equal(seen, field)
  assert (ax.get_xlabel(), ax.get_ylabel()) == ("column", "row")


def test_a_curved_grid_has_north_up_and_names_its_corners(figures):
  row, column = np.mgrid[:5, :7]
  lat, lon = 50 + row + 0.3 * column, 5 + column - 0.3 * row
  space = _space(
    (np.arange(5), {}),
    (np.arange(7), {}),
    ("y", "x"),
    lat=(("y", "x"), lat, NORTH),
    lon=(("y", "x"), lon, EAST),
  )
  ax, seen, field = _drawn(space, figures)
  np.testing.assert_array_equal(seen, field[::-1])
  assert ax.get_ylabel() == "row"
  texts = [t.get_text() for t in figures[0].texts]
  assert "first cell at 50°N 5°E, last cell at 55.8°N 9.8°E" in texts
  assert maps.place(space, 4, 6) == "55.8°N, 9.8°E (row 4, column 6)"


@pytest.mark.parametrize(
  "space,expected",
  [
    (
      _space(([51.5, 52], NORTH), ([0.0, 359.75], EAST)),
      "52°N, 0.25°W (row 1, column 1)",
    ),
    (_space((np.arange(2), {}), (np.arange(2), {}), ("y", "x")), "row 1, column 1"),
    (
      _space(([0.0, 2], {"units": "km"}), ([5.0, 7], {"units": "km"}), ("y", "x")),
      "x 7 km, y 2 km (row 1, column 1)",
    ),
  ],
)
def test_a_point_is_called_after_its_place(space, expected):
  assert maps.place(space, 1, 1) == expected


def test_a_station_is_called_by_its_name_and_place():
  space = xr.Dataset(
    coords={
      "station": ("station", ["KSEA", "KPDX"]),
      "lat": ("station", [47.45, 45.59], NORTH),
      "lon": ("station", [-122.31, -122.6], EAST),
      "x": ("x", [0]),
    },
    attrs={"spatial_dims": ["station", "x"]},
  )
  assert maps.place(space, 1, 0) == "KPDX, 45.59°N, 122.6°W (row 1)"
