"""Forecast stores follow the CF conventions, in both layouts and both formats."""

import os
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest
import xarray as xr

from input_pipeline.stores import grid
from stjax.forecasting import store as store_lib

SPAN = 3  # Forecasts.
LEADS = 2
SOURCE = {
  "units": "K",
  "standard_name": "air_temperature",
  "long_name": "temperature",
  "cell_methods": "time: mean (interval: 1 hr) region: mean",
  # What holds for packed whole numbers of a file, and for its other arrays.
  "valid_range": np.array([-100, 100], np.int16),
  "ancillary_variables": "quality",
  "cell_measures": "area: areacella",
  "_ChunkSizes": np.array([1, 3, 4]),
  "grid_mapping": "lambert: x y",  # Only one of the cases has it.
}


def regular():
  return {
    "lat": ("lat", [30.0, 0.0, -30.0], {"units": "degrees_north", "bounds": "b"}),
    "lon": ("lon", [0.0, 90.0, 180.0, 270.0], {"units": "degrees_east"}),
  }


def seam():
  """Longitudes across 0, as a selection leaves them."""
  return regular() | {"lon": ("lon", [350.0, 355.0, 0.0, 5.0], {"units": "degrees_E"})}


def plain():
  return {
    "y": ("y", np.arange(3), {"long_name": "row"}),
    "x": ("x", np.arange(4), {"long_name": "column"}),
  }


def curvilinear():
  """A source with a map projection, as a store reads it."""
  rows, columns = np.arange(3), np.arange(4)
  lat = 60.0 - rows[:, None] + 0.1 * columns
  lon = 5.0 + columns + 0.1 * rows[:, None]
  source = xr.Dataset(
    {"t": (("time", "y", "x"), np.zeros((2, 3, 4)), {"grid_mapping": "lambert: x y"})},
    {
      "y": (
        "y",
        1e3 * rows,
        {"standard_name": "projection_y_coordinate", "units": "m"},
      ),
      "x": ("x", 1e3 * columns, {"standard_name": "projection_x_coordinate"}),
      "latitude": (("y", "x"), lat, {"units": "degrees_north"}),
      # Files of models repeat positions in time.
      "XLONG": (("time", "y", "x"), np.stack([lon, lon]), {"units": "degree_east"}),
    },
  )
  source.x.attrs["units"] = "m"
  source["lambert"] = (
    (),
    np.int32(7),
    {
      "grid_mapping_name": "lambert_conformal_conic",
      "standard_parallel": np.array([60.0, 62.0]),
      "longitude_of_central_meridian": np.float32(10.0),
      "latitude_of_projection_origin": 61.0,
      "GeoTransform": "0 1000 0 0 0 -1000",
    },
  )
  return dict(grid.coordinates(source, ("y", "x")).coords)


def numbered():
  """Dimensions that are called positions, and are none."""
  return {
    name: (name, np.arange(size), {"long_name": "index"})
    for name, size in (("lat", 3), ("lon", 4))
  }


def section():
  return {
    "depth": ("depth", [5.0, 10.0, 20.0], {"units": "m"}),
    "lat": ("lat", [1.0, 2.0, 3.0, 4.0], {"units": "degrees"}),
  }


def points():
  return {
    "station": ("station", np.array(["b", "a", "c"]), {"units": "none"}),
    "lat": ("station", [1.0, 2.0, 1.5], {"units": "degrees_north"}),
    "lon": ("station", [0.1, 0.2, np.pi], {"standard_name": "longitude"}),
    "column": ("column", np.zeros(4, int)),
  }


def template(coords, lead, names=("t@850", "t@500", "rain rate", "t-500")):
  steps = np.arange(1, LEADS + 1)
  leads = {
    "hours": (6 * steps).astype("timedelta64[h]").astype("timedelta64[ns]"),
    "months": steps,
    "years": steps,
    "steps": steps,
  }[lead]
  attrs = {"long_name": f"{'time' if lead == 'hours' else lead} since the last frame"}
  if lead in ("months", "years"):
    attrs["units"] = lead
  channels = {name: ((), np.float32(np.nan), dict(SOURCE)) for name in names}
  for name in channels:
    if "@" in name:
      channels[name][2]["level"] = int(name.split("@")[1])
  if "rain rate" in channels:
    channels["rain rate"][2].update(units="(0 - 1)", standard_name="unknown")
  space = list(coords)[:2] if "station" not in coords else ["station", "column"]
  return xr.Dataset(
    channels,
    coords | {"lead_time": ("lead_time", leads, attrs)},
    {"spatial_dims": space, "level_units": "hPa"},
  )


def labels(lead, calendar="", days=(1, 4, 2)):
  ids = np.array([f"run {d}/0000{d}" for d in days])
  found = xr.Dataset({"sample_id": ("sample", ids), "start": ("sample", list(days))})
  steps = np.arange(LEADS + 1)
  if lead == "steps":
    return found
  if lead in ("months", "years"):
    calendar = calendar or "standard"
    freq = {"months": "MS", "years": "YS"}[lead]
    dates = xr.date_range("2001", periods=9, freq=freq, calendar=calendar).values
    dates = np.stack([dates[d + steps] for d in days])
  elif calendar:
    start = "2001-02-28"
    dates = xr.date_range(start, periods=40, freq="6h", calendar=calendar).values
    dates = np.stack([dates[4 * d + steps] for d in days])
  else:
    dates = np.array([f"2001-02-{27 + d % 2}T0{d}" for d in days], "datetime64[ns]")
    dates = dates[:, None] + (6 * steps).astype("timedelta64[h]")
  found["init_time"] = ("sample", dates[:, 0])
  found["valid_time"] = (("sample", "lead_time"), dates[:, 1:])
  return found


CASES = {
  "regular": (regular, "hours", labels("hours")),
  "seam": (seam, "hours", labels("hours", days=(1, 2, 3))),
  "360_day": (regular, "hours", labels("hours", "360_day")),
  "noleap": (regular, "hours", labels("hours", "noleap")),
  "months": (regular, "months", labels("months")),
  "years": (regular, "years", labels("years", "noleap")),
  "events": (plain, "hours", labels("hours", days=(1, 1, 2))),
  "undated": (plain, "steps", labels("steps")),
  "curvilinear": (curvilinear, "hours", labels("hours")),
  "numbered": (numbered, "hours", labels("hours")),
  "section": (section, "hours", labels("hours")),
  "points": (points, "hours", labels("hours")),
}
WEATHERBENCH = ("regular", "seam", "360_day", "noleap")
STORES = [(name, "stjax") for name in CASES] + [
  (name, "weatherbench2") for name in WEATHERBENCH
]
FAST = [("curvilinear", "stjax"), ("months", "stjax"), ("360_day", "weatherbench2")]


def fields(members=2):
  rng = np.random.default_rng(0)
  values = rng.normal(size=(members, SPAN, LEADS, 3, 4, 4)).astype(np.float32)
  values[..., 0, 0, :] = np.nan
  return values


def write(folder, case, layout, ending, members=2):
  coords, lead, names = CASES[case]
  path = folder / f"{case}-{layout}{ending}"
  store = store_lib.ForecastStore(
    path,
    template(coords(), lead),
    names,
    members,
    {"Conventions": "CF-1.11", "title": "a", "source": "b", "history": "c"},
    layout,
  )
  values = fields(members)
  store.write(0, values[:, :2])
  store.write(2, values[:, 2:])
  store.close()
  return path


def opened(path, **options):
  with xr.open_dataset(
    path,
    engine="zarr" if path.suffix == ".zarr" else "h5netcdf",
    chunks=None,
    **options,
  ) as data:
    return data.load()


@pytest.mark.parametrize(
  ("case", "layout"),
  [pytest.param(*one, marks=() if one in FAST else pytest.mark.slow) for one in STORES],
)
def test_stores_follow_the_conventions(tmp_path, case, layout):
  paths = [write(tmp_path, case, layout, ending) for ending in (".zarr", ".nc")]
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)
  data, other = map(opened, paths)
  xr.testing.assert_identical(data, other)
  start, lead = ("init_time", "lead_time")
  if layout == "weatherbench2":
    start, lead = ("time", "prediction_timedelta")
  named = {
    name: variable.attrs.get("standard_name")
    for name, variable in data.variables.items()
  }
  assert named["member" if layout == "stjax" else "realization"] == "realization"
  assert named[lead] == (None if case == "undated" else "forecast_period")
  if case != "undated":
    assert named[start] == ("time" if start == "time" else "forecast_reference_time")
    times, leads = data[start].values, data[lead].values
    assert (data[start].attrs.get("axis") == "T") == (start in data.dims)
    if start in data.dims:
      assert (times[1:] > times[:-1]).all()
    if layout == "stjax":
      assert named["valid_time"] == "time"
      if case in ("months", "years"):
        assert data.lead_time.attrs["units"] == case and leads.tolist() == [1, 2]
        part = case.removesuffix("s")
        moved = getattr(data.valid_time.dt, part) - getattr(data.init_time.dt, part)
        assert (moved == data.lead_time).all()
      else:
        if times.dtype.kind == "O":  # Dates of cftime add the standard library's.
          leads = leads.astype("timedelta64[us]").astype(object)
        assert (data.valid_time.values == times[:, None] + leads).all()
  # Values stand where their labels say.
  dates = CASES[case][2].get("init_time")
  for channel, name in enumerate(["t_850", "t_500", "rain_rate", "t_500_2"]):
    for number in range(SPAN):
      if start in data.dims:
        place = {start: np.flatnonzero(data[start].values == dates.values[number])[0]}
      else:
        place = {"sample": number}
      expected = fields()[:, number, ..., channel]
      if layout == "stjax":
        found = data[name].isel(place)
        assert found.sample_id == str(CASES[case][2].sample_id.values[number])
        original = ["t@850", "t@500", "rain rate", "t-500"][channel]
        assert found.attrs["original_name"] == original
      else:
        short, level = [("t", 850), ("t", 500), ("rain_rate", 0), ("t_500", 0)][channel]
        found = data[short].isel(place)
        found = found.sel(level=level) if level else found
        expected = expected[..., ::-1, :]
      np.testing.assert_array_equal(found, expected)
  _check_by_hand(paths[1])


def _check_by_hand(path):
  """What CF asks of every file, read without xarray's decoding."""
  raw = opened(path, decode_cf=False)
  assert raw.attrs["Conventions"] == "CF-1.11"
  assert {"title", "source", "history"} <= raw.attrs.keys()
  named = re.compile("[A-Za-z][A-Za-z0-9_]*")
  coords = {
    n for v in raw.variables.values() for n in v.attrs.get("coordinates", "").split()
  }
  for name, variable in raw.variables.items():
    assert named.fullmatch(name), name
    assert all(map(named.fullmatch, variable.dims)), variable.dims
    assert all(named.fullmatch(k) for k in variable.attrs if k != "_FillValue")
    assert {"long_name", "standard_name", "grid_mapping_name"} & variable.attrs.keys()
    if name in coords or variable.dims == (name,):
      assert not {"_FillValue", "missing_value", "bounds"} & variable.attrs.keys(), name
    if variable.dims == (name,):
      steps = np.diff(variable.values)
      assert (steps > 0).all() or (steps < 0).all(), name
    for key in ("coordinates", "grid_mapping"):
      assert set(variable.attrs.get(key, "").split()) <= set(raw.variables), name
    assert not {"valid_range", "ancillary_variables"} & variable.attrs.keys()
  with h5py.File(path) as file:
    assert all(
      "_FillValue" not in file[n].attrs for n in coords | set(raw.dims) if n in file
    )


CHECKER = os.environ.get("STJAX_CF_CHECKER") or shutil.which("compliance-checker")


def test_only_positions_are_called_so(tmp_path):
  data = opened(write(tmp_path, "numbered", "stjax", ".nc"))
  assert {"lat_index", "lon_index"} <= set(data.dims)
  assert not {"latitude", "longitude"} & {
    v.attrs.get("standard_name") for v in data.variables.values()
  }
  data = opened(write(tmp_path, "section", "stjax", ".nc"))
  assert data.depth.attrs["positive"] == "down" and data.depth.attrs["axis"] == "Z"
  assert data.lat.attrs["units"] == "degrees_north" and data.lat.attrs["axis"] == "Y"
  data = opened(write(tmp_path, "seam", "stjax", ".nc"))
  assert data.lon.values.tolist() == [-10.0, -5.0, 0.0, 5.0]


@pytest.mark.slow
@pytest.mark.skipif(not CHECKER, reason="there is no compliance-checker")
def test_the_checker_of_the_conventions_finds_no_error(tmp_path):
  for case, layout in STORES:
    write(tmp_path, case, layout, ".nc", members=1 + (case == "regular"))
  files = sorted(map(str, tmp_path.glob("*.nc")))
  assert len(files) == len(STORES)
  result = subprocess.run(
    [CHECKER, "--test=cf:1.11", *files], capture_output=True, text=True
  )
  report = result.stdout + result.stderr
  assert report.count("Compliance Checker Report") == len(files), report
  assert "  Errors" not in report and "exceptions occurred" not in report, report


@pytest.mark.parametrize("ending", [".zarr", ".nc"])
def test_cf_xarray_finds_axes_positions_and_projection(tmp_path, ending):
  pytest.importorskip("cf_xarray")
  data = opened(write(tmp_path, "curvilinear", "stjax", ending), decode_coords="all")
  array = data["t_850"]
  axes = {key: names for key, names in array.cf.axes.items() if key != "T"}
  assert axes == {"X": ["x"], "Y": ["y"]}
  assert array.cf["latitude"].dims == array.cf["longitude"].dims == ("y", "x")
  np.testing.assert_allclose(array.cf["longitude"][0], [5, 6, 7, 8])
  assert array.cf.grid_mapping_names == {"lambert_conformal_conic": ["lambert"]}
  projection = data["lambert"].attrs
  assert list(projection["standard_parallel"]) == [60.0, 62.0]
  assert projection["longitude_of_central_meridian"] == 10.0
  assert "GeoTransform" not in projection
