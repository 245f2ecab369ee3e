"""Layouts of forecast stores."""

import numpy as np
import pytest
import xarray as xr

from stjax import errors
from stjax.forecasting import layouts
from stjax.forecasting import store as store_lib

LEVELS = {"z@850": 850, "z@500": 500, "t@500": 500}


def template(**changes):
  """Coordinates with two variables on levels, one without, going south."""
  channels = {
    name: ((), np.nan, {"units": name[0], "level": level})
    for name, level in LEVELS.items()
  }
  channels["msl"] = ((), np.nan, {"units": "Pa"})
  coords = {
    "lead_time": np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"),
    "lat": ("lat", [30.0, 0.0, -30.0], {"units": "degrees_north"}),
    "lon": ("lon", [0.0, 90.0, 180.0, 270.0], {"units": "degrees_east"}),
  }
  return xr.Dataset(channels, coords | changes, {"spatial_dims": ["lat", "lon"]})


def starts(*days):
  init = np.array([f"2020-01-{d:02d}" for d in days], "datetime64[ns]")
  lead = template().lead_time.values
  return xr.Dataset(
    {
      "sample_id": ("sample", [f"0/{d}" for d in days]),
      "init_time": ("sample", init),
      "valid_time": (("sample", "lead_time"), init[:, None] + lead),
    }
  )


def written(path, layout, fields, coordinates=None, labels=None):
  """A store of fields [M, B, T, H, W, C], written in two pieces."""
  labels = starts(1, 2, 4) if labels is None else labels
  store = store_lib.ForecastStore(
    path,
    template() if coordinates is None else coordinates,
    labels,
    len(fields),
    {"source": "test"},
    layout,
  )
  store.write(0, fields[:, :2])
  store.write(2, fields[:, 2:])
  store.close()
  with xr.open_zarr(path, chunks=None, decode_timedelta=True) as data:
    return data.load()


def fields(members=1):
  rng = np.random.default_rng(0)
  return rng.normal(size=(members, 3, 2, 3, 4, 4)).astype(np.float32)


def test_weatherbench_2_finds_its_dimensions_and_names(tmp_path):
  values = fields()
  data = written(tmp_path / "a.zarr", "weatherbench2", values)
  assert set(data.dims) == {
    "time",
    "prediction_timedelta",
    "level",
    "latitude",
    "longitude",
  }
  whole = ("time", "prediction_timedelta", "level", "latitude", "longitude")
  assert data.z.dims == data.t.dims == whole
  assert data.msl.dims == tuple(d for d in whole if d != "level")
  assert data.z.attrs["units"] == "z" and "level" not in data.z.attrs
  assert data.attrs == {"source": "test"}
  assert data.level.values.tolist() == [500, 850]
  # Ascending, as WeatherBench 2's weights want them.
  assert data.latitude.values.tolist() == [-30, 0, 30]
  np.testing.assert_array_equal(data.time, starts(1, 2, 4).init_time.values)
  np.testing.assert_array_equal(data.prediction_timedelta, template().lead_time.values)
  for channel, name in enumerate(template().data_vars):
    array = data[name[:1] if "@" in name else name]
    if "@" in name:
      array = array.sel(level=LEVELS[name])
    np.testing.assert_array_equal(
      array.sel(latitude=[30.0, 0.0, -30.0]), values[0, ..., channel]
    )
  # t is forecast at one of the levels only.
  assert data.t.sel(level=850).isnull().all()


def test_what_weatherbench_2_does_by_initial_time_can_be_done(tmp_path):
  data = written(tmp_path / "a.zarr", "weatherbench2", fields())
  # Its program's steps: to lead_time and init_time, valid times from these,
  # and the truth at these times.
  data = data.rename(prediction_timedelta="lead_time", time="init_time")
  valid = data.init_time + data.lead_time
  hours = xr.date_range("2020-01-01", "2020-01-06", freq="6h")
  truth = xr.DataArray(np.arange(float(len(hours))), coords={"time": hours}).sel(
    time=valid
  )
  assert truth.dims == ("init_time", "lead_time")
  np.testing.assert_array_equal(truth, [[1, 2], [5, 6], [13, 14]])


def test_ensembles_have_realizations(tmp_path):
  values = fields(3)
  data = written(tmp_path / "a.zarr", "weatherbench2", values)
  assert data.z.dims[0] == data.msl.dims[0] == "realization"
  np.testing.assert_array_equal(data.msl, values[..., ::-1, :, 3])
  np.testing.assert_array_equal(data.z.sel(level=500), values[..., ::-1, :, 1])


def test_the_own_layout_keeps_the_datas_names(tmp_path):
  values = fields(2)
  data = written(tmp_path / "a.zarr", "stjax", values)
  assert set(data.data_vars) == {"z_850", "z_500", "t_500", "msl"}
  for channel, name in enumerate(template().data_vars):
    array = data[name.replace("@", "_")]
    assert array.attrs.get("original_name", "msl") == name
    assert array.dims == ("member", "init_time", "lead_time", "lat", "lon")
    np.testing.assert_array_equal(array, values[..., channel])
  assert data["z_500"].attrs["level"] == 500
  assert data.valid_time.dims == ("init_time", "lead_time")


def test_one_level_and_names_that_are_none(tmp_path):
  coordinates = template().drop_vars(["z@850", "t@500"])
  coordinates["u"] = ((), np.nan, {"level": 2.5, "units": "m"})
  coordinates["sst@warm"] = ((), np.nan, {})
  data = written(tmp_path / "a.zarr", "weatherbench2", fields(), coordinates)
  assert set(data.data_vars) == {"msl", "sst_warm", "u", "z"}
  assert data.level.values.tolist() == [2.5, 500]
  np.testing.assert_array_equal(data.u.sel(level=2.5), fields()[0, :, :, ::-1, :, 2])


@pytest.mark.parametrize(
  ("coordinates", "labels", "match"),
  [
    (template().rename(lat="y"), starts(1), "needs a latitude along 'lat'"),
    (template(), starts(1).drop_vars("init_time"), "needs dates"),
    (template(lead_time=[1, 2]), starts(1), "equal steps"),
    (template(), starts(1, 1), "one forecast for every initial time"),
    (
      template(lead_time=template().lead_time.values * 2),
      starts(1).reset_coords(drop=True),
      "equal steps",
    ),
    (template().assign(z=template().msl), starts(1), "one place for 'z'"),
    (
      template().assign({"z@500.0": template()["z@500"]}),
      starts(1),
      "one place for 'z'",
    ),
  ],
)
def test_data_without_a_place_are_refused_with_the_key(coordinates, labels, match):
  coordinates.attrs["spatial_dims"] = ["lat", "lon"]
  with pytest.raises(
    errors.ConfigError, match=f"forecast.layout='weatherbench2'.*{match}"
  ):
    layouts.build("weatherbench2", coordinates, labels, 1)


def test_an_unknown_layout_is_refused_with_near_ones():
  with pytest.raises(errors.ConfigError, match="'weatherbench2'"):
    layouts.build("weatherbench", template(), starts(1), 1)
