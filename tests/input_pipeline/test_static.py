"""Static fields: read once, normalised over the grid, in every batch."""

import numpy as np
import pytest
import xarray as xr

import input_pipeline

LAT, LON = np.arange(3) * 10.0, np.arange(4) * 5.0
OROGRAPHY = np.arange(12, dtype=np.float32).reshape(3, 4)
DAY = np.datetime64("2020-01-01", "ns") + np.arange(20) * np.timedelta64(1, "D")


def static_fields(lat=LAT):
  """Fields of all kinds; "tide" changes in time."""
  orography = xr.DataArray(
    OROGRAPHY, dims=("lat", "lon"), coords={"lat": lat, "lon": LON}
  )
  return xr.Dataset(
    {
      "orography": orography,
      "land": orography > 5,
      "depth": orography.where(orography > 1),
      "flat": 0 * orography + np.float32(0.1),
      "empty": orography.where(False),
      "turned": orography.transpose("lon", "lat"),
      "once": orography.expand_dims(epoch=1),
      "layers": orography.expand_dims(layer=2),
      "tide": orography.expand_dims(time=DAY),
    }
  )


@pytest.fixture
def config_of(tmp_path):
  """Makes a data config; the fields lie in the data, or in a file of their own."""

  def make(*variables, own=None, **changes):
    values = np.random.RandomState(0).rand(len(DAY), 3, 4).astype("f4")
    data = static_fields()
    data["sst"] = (("time", "lat", "lon"), values)
    static = {"variables": variables}
    if own is not None:
      data = data[["sst"]]
      static["path"] = str(tmp_path / "static.nc")
      own.to_netcdf(static["path"], engine="h5netcdf")
    path = tmp_path / "data.nc"
    data.to_netcdf(path, engine="h5netcdf")
    return {
      "store": "xarray",
      "path": str(path),
      "variables": ("sst",),
      "history": 2,
      "horizon": 1,
      "static": static,
    } | changes

  return make


def batch_of(config, split="train", **options):
  made = input_pipeline.build(config, split, batch_size=4, **options)
  return made, next(iter(made.batches))


@pytest.mark.parametrize("own", [None, static_fields()], ids=["data", "own"])
def test_every_batch_has_the_fields_normalised_over_the_grid(config_of, own):
  config = config_of("orography", "land", own=own)
  made, batch = batch_of(config)
  found = batch["static"]
  assert made.spec.shapes(4)["static"] == found.shape == (3, 4, 2)
  assert found.dtype == np.float32
  # 0 ... 11 have the mean 5.5 and the variance (12 ** 2 - 1) / 12.
  expected = (OROGRAPHY - 5.5) / np.sqrt(143 / 12)
  np.testing.assert_allclose(found[..., 0], expected, rtol=1e-6)
  # Half of the cells are land: mean and deviation are 1 / 2.
  np.testing.assert_array_equal(found[..., 1], np.sign(OROGRAPHY - 5.5))
  assert made.static_statistics.variables == ("orography", "land")
  np.testing.assert_allclose(made.static_statistics.mean, [5.5, 0.5])
  # They are nothing that is forecast, and the same in every split.
  assert batch["inputs"].shape == (4, 2, 3, 4, 1)
  assert list(made.coordinates.data_vars) == ["sst"]
  _, other = batch_of(config, "test", targets=False, beyond=1)
  np.testing.assert_array_equal(other["static"], found)


def test_missing_cells_are_the_mean_of_the_others_and_constants_are_zero(config_of):
  with pytest.warns(UserWarning, match="'flat' is constant .* in the grid"):
    _, batch = batch_of(config_of("depth", "flat"))
  depth, flat = np.moveaxis(batch["static"], -1, 0)
  # 2 ... 11 have the mean 6.5 and the variance (10 ** 2 - 1) / 12.
  expected = np.where(OROGRAPHY > 1, (OROGRAPHY - 6.5) / np.sqrt(99 / 12), 0)
  np.testing.assert_allclose(depth, expected, rtol=1e-6)
  assert (depth[0, :2] == 0).all() and (flat == 0).all()


def test_a_work_directorys_statistics_hold_for_changed_fields(config_of, tmp_path):
  config = config_of("orography", own=static_fields())
  made, batch = batch_of(config)
  config["static"]["path"] = str(tmp_path / "higher.nc")
  (static_fields() + 1).to_netcdf(config["static"]["path"], engine="h5netcdf")
  _, other = batch_of(config, static_statistics=made.static_statistics)
  np.testing.assert_allclose(
    other["static"], batch["static"] + 1 / np.sqrt(143 / 12), rtol=1e-5
  )
  with pytest.raises(input_pipeline.DataError, match="data.static.variables"):
    config["static"]["variables"] = "depth"
    batch_of(config, static_statistics=made.static_statistics)


def test_axes_come_in_any_order_and_may_have_length_one(config_of):
  _, batch = batch_of(config_of("turned", "once", "orography"))
  turned, once, orography = np.moveaxis(batch["static"], -1, 0)
  np.testing.assert_array_equal(turned, orography)
  np.testing.assert_array_equal(once, orography)


def test_they_are_cut_and_coarsened_like_the_data(config_of):
  config = config_of(
    "orography",
    select={"lat": (0, 2, 1), "time": ("2020-01-03", "2020-01-19")},
    coarsen=2,
  )
  _, batch = batch_of(config)
  assert batch["static"].shape[:2] == batch["inputs"].shape[2:4] == (1, 2)
  # Means of 0, 1, 4, 5 and of 2, 3, 6, 7 are 2.5 and 4.5.
  np.testing.assert_allclose(batch["static"][0, :, 0], [-1, 1], rtol=1e-6)


def test_points_have_static_values(tmp_path):
  values = np.random.RandomState(0).rand(20, 6).astype("f4")
  xr.Dataset(
    {"speed": (("time", "station"), values), "height": ("station", np.arange(6.0))},
    coords={"time": DAY},
  ).to_netcdf(tmp_path / "stations.nc")
  config = {
    "store": "xarray",
    "path": str(tmp_path / "stations.nc"),
    "variables": "speed",
    "static": {"variables": "height"},
    "history": 2,
    "horizon": 1,
  }
  _, batch = batch_of(config)
  expected = (np.arange(6) - 2.5) / np.sqrt(35 / 12)
  np.testing.assert_allclose(batch["static"][:, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
  "variables,changes,message",
  [
    ("orogrphy", {}, "In data.static: .*'orogrphy': did you mean 'orography'"),
    ("tide", {}, "In data.static: .*'tide' changes along time=20.*data.forcings"),
    ("layers", {}, "'layers' changes along layer=2"),
    ("empty", {}, "In data.static: Variable 'empty' has no observed value"),
    ("land", {"own": static_fields(LAT + 1)}, "In data.static: .*from 1.0 to 21.0"),
    ("land", {"own": static_fields().isel(lat=[0, 1])}, "2 lat .* the data 3"),
    ("land", {"augment": ("flip_h",)}, "data.augment=.*data.static"),
    ("land", {"static": {"path": "a.nc"}}, "data.static.path='a.nc' is set"),
    ("land", {"static": {"variable": "a"}}, "data.static.variable"),
    (
      "land",
      {"static": {"variables": "a", "path": "no.nc"}},
      "In data.static: .*no.nc",
    ),
  ],
)
def test_what_cannot_be_used_is_named(config_of, variables, changes, message):
  with pytest.raises(input_pipeline.DataError, match=message):
    batch_of(config_of(variables, **changes))


def test_a_field_may_not_change_from_file_to_file(config_of, tmp_path):
  config = config_of("once")
  static_fields().to_netcdf(tmp_path / "data2.nc", engine="h5netcdf")
  config["static"]["path"] = str(tmp_path / "data*.nc")
  with pytest.raises(input_pipeline.DataError, match="epoch=1 in each of 2 files"):
    batch_of(config)
  config["static"]["variables"] = "orography"
  _, batch = batch_of(config)
  assert batch["static"].shape == (3, 4, 1)


def test_stores_without_static_fields_are_refused(tmp_path):
  np.save(tmp_path / "a.npy", np.zeros((20, 3, 4), np.float32))
  static = {"variables": ("land",)}
  arrays = {"store": "array", "path": str(tmp_path / "a.npy"), "static": static}
  boiling = {"store": "boiling", "num_samples": 3, "image_size": 8, "static": static}
  for config in (arrays, boiling):
    with pytest.raises(input_pipeline.DataError, match="data.static.* cannot be used"):
      batch_of(config | {"history": 2, "horizon": 1})
