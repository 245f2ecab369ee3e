"""Files written here and read back through the xarray store."""

import pickle
import threading

import numpy as np
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import errors
from input_pipeline.stores.xarray import XarrayStore

T, H, W = 11, 5, 7


def field(seed=0, shape=(T, H, W)):
  return np.random.RandomState(seed).rand(*shape).astype(np.float32)


def dates(count=T, start="2003-01-30", step="D"):
  first = np.datetime64(start, step)
  return (first + np.arange(count)).astype("datetime64[ns]")


def dataset():
  return xr.Dataset(
    {
      "sst": (
        ("time", "lat", "lon"),
        field(),
        {"units": "degC", "long_name": "surface temperature"},
      ),
      "ice": (("time", "lat", "lon"), field(1)),
      "height": (("lat", "lon"), field(2)[0]),
    },
    coords={
      "time": dates(),
      "lat": ("lat", np.linspace(60, -60, H), {"units": "degrees_north"}),
      "lon": ("lon", np.arange(W) * 2.5, {"units": "degrees_east"}),
    },
  )


def save(data, path, **options):
  """Writes by the file's ending; returns the path as text."""
  if path.suffix == ".zarr":
    data.to_zarr(path, **options)
  else:
    engine = "scipy" if path.suffix == ".nc3" else "h5netcdf"
    data.to_netcdf(path, engine=engine, **options)
  return str(path)


def frames(data, *names):
  """The frames expected of variables on (time, lat, lon)."""
  return np.stack(
    [data[name].transpose("time", "lat", "lon").values for name in names], axis=-1
  )


@pytest.mark.parametrize("ending", ["nc", "nc3", "zarr"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_format_gives_frames_times_and_coordinates(tmp_path, ending):
  data = dataset()
  store = XarrayStore(save(data, tmp_path / f"a.{ending}"), variables=("ice", "sst"))
  actual = store.read(0, 2, 9)
  assert actual.dtype == np.float32
  np.testing.assert_array_equal(actual, frames(data, "ice", "sst")[2:9])
  np.testing.assert_array_equal(
    store.times(0), data.time.values.astype("datetime64[us]").astype(int)
  )
  assert store.variables[1].attrs["units"] == "degC"
  assert store.space.attrs["spatial_dims"] == ["lat", "lon"]
  for name in ("lat", "lon"):  # Latitude stays descending, as in the file.
    np.testing.assert_array_equal(store.space[name], data[name])
    assert store.space[name].attrs["units"] == data[name].attrs["units"]


@pytest.mark.parametrize(
  "order", [("lon", "lat", "time"), ("lat", "time", "lon"), ("lon", "time", "lat")]
)
def test_dimensions_are_found_by_name_in_any_order(tmp_path, order):
  data = dataset()
  path = save(data.transpose(*order, ...), tmp_path / "a.nc")
  store = XarrayStore(path, variables="sst,ice")
  np.testing.assert_array_equal(store.read(0, 0, T), frames(data, "sst", "ice"))
  assert store.space.attrs["spatial_dims"] == ["lat", "lon"]


@pytest.mark.parametrize(
  ("names", "attrs", "options"),
  [
    (("latitude", "longitude"), ({}, {}), {}),
    (("y", "x"), ({}, {}), {}),
    (("n", "e"), ({"units": "degrees_north"}, {"units": "degrees_east"}), {}),
    (("e", "n"), ({"axis": "Y"}, {"axis": "X"}), {}),
    (("a", "b"), ({}, {}), {"spatial_dims": ("a", "b")}),
    (("a", "b"), ({}, {}), {}),
  ],
)
def test_rows_and_columns_are_found(tmp_path, names, attrs, options):
  data = xr.Dataset(
    {"v": (("time", *names), field())},
    coords={
      "time": dates(),
      **{
        name: (name, np.arange(size, dtype=float), a)
        for name, size, a in zip(names, (H, W), attrs, strict=True)
      },
    },
  )
  store = XarrayStore(save(data, tmp_path / "a.nc"), variables=("v",), **options)
  assert store.space.attrs["spatial_dims"] == list(names)
  np.testing.assert_array_equal(store.read(0, 0, T)[..., 0], field())


def test_levels_become_channels_beside_surface_fields(tmp_path):
  rng = np.random.RandomState(0)
  z = rng.rand(T, 3, W, H).astype(np.float32)
  ps = rng.rand(T, W, H).astype(np.float32)
  data = xr.Dataset(
    {
      "z": (("time", "level", "longitude", "latitude"), z, {"units": "m"}),
      "ps": (("time", "longitude", "latitude"), ps),
      "top": (("time", "depth", "longitude", "latitude"), ps[:, None]),
    },
    coords={
      "time": dates(),
      "level": [250, 500, 850],
      "longitude": np.arange(W) * 1.0,
      "latitude": np.arange(H) * 1.0,
    },
  )
  path = save(data, tmp_path / "a.nc")
  store = XarrayStore(path, variables=("z", "ps", "top", "z@500"))
  assert [v.name for v in store.variables] == [
    "z@250",
    "z@500",
    "z@850",
    "ps",
    "top",
    "z@500",
  ]
  assert store.variables[1].attrs == {"units": "m", "level": 500}
  actual = store.read(0, 1, 4)
  for channel, expected in enumerate((z[:, 0], z[:, 1], z[:, 2], ps, ps, z[:, 1])):
    np.testing.assert_array_equal(actual[..., channel], expected[1:4].swapaxes(1, 2))
  with pytest.raises(errors.DataError, match="'z@510'.*'z@500'"):
    XarrayStore(path, variables=("z@510",))


@pytest.mark.parametrize("code", [-1, -32768])
def test_packed_values_and_missing_codes_are_decoded(tmp_path, code):
  data = dataset()[["sst"]]
  data["sst"] = data["sst"].where(data["sst"] > 0.3)
  path = save(
    data,
    tmp_path / "a.nc",
    encoding={"sst": {"dtype": "int16", "scale_factor": 0.001, "_FillValue": code}},
  )
  actual = XarrayStore(path, variables=("sst",)).read(0, 0, T)
  np.testing.assert_allclose(actual[..., 0], data["sst"], atol=6e-4)
  assert np.isnan(actual).any() and not np.isnan(actual).all()


def test_samples_have_names_events_splits_and_times_of_their_own(tmp_path):
  starts = ["2010-01-01", "2010-02-01", "2011-01-01"]
  rain = field(0, (3, T, H, W))
  data = xr.Dataset(
    {
      "rain": (("sample", "time", "y", "x"), rain),
      "valid_time": (
        ("time", "sample"),
        np.stack([dates(T, start) for start in starts], axis=1),
      ),
      "name": ("sample", ["a", "b", "c"]),
      "storm": ("sample", ["s", "s", "t"]),
      "split": ("sample", ["train", "val", "test"]),
    }
  )
  path = save(data, tmp_path / "a.nc")
  store = XarrayStore(
    path,
    variables=("rain",),
    sample_dim="sample",
    sample_variable="name",
    event_variable="storm",
    split_variable="split",
  )
  assert store.num_sequences == 3
  assert [store.sample_id(i) for i in range(3)] == ["a", "b", "c"]
  assert [store.event(i) for i in range(3)] == ["s", "s", "t"]
  assert [store.split_label(i) for i in range(3)] == ["train", "val", "test"]
  for i, start in enumerate(starts):
    np.testing.assert_array_equal(
      store.times(i), dates(T, start).astype("datetime64[us]").astype(int)
    )
    np.testing.assert_array_equal(store.read(i, 3, 5)[..., 0], rain[i, 3:5])
  split = input_pipeline.build(
    {
      "store": "xarray",
      "path": path,
      "variables": "rain",
      "sample_dim": "sample",
      "sample_variable": "name",
      "split_variable": "split",
      "history": 4,
      "horizon": 7,
    },
    "validation",
    batch_size=2,
  )
  assert split.labels["sample_id"].values.tolist() == ["b"]


def test_several_files_are_joined_along_time(tmp_path):
  data = dataset()
  # Names sort against the order of time.
  save(data.isel(time=slice(0, 4)), tmp_path / "b.nc")
  save(data.isel(time=slice(4, T)), tmp_path / "a.nc")
  store = XarrayStore(str(tmp_path / "?.nc"), variables=("sst",))
  assert store.length(0) == T and len(store.files) == 2
  np.testing.assert_array_equal(store.read(0, 2, 8), frames(data, "sst")[2:8])
  np.testing.assert_array_equal(
    store.times(0), data.time.values.astype("datetime64[us]").astype(int)
  )
  cut = XarrayStore(
    str(tmp_path / "?.nc"),
    variables=("sst",),
    select={"time": ("2003-02-04", "2003-02-06")},
  )
  np.testing.assert_array_equal(cut.read(0, 0, 3), frames(data, "sst")[5:8])


def test_files_of_another_grid_are_named(tmp_path):
  data = dataset()
  save(data, tmp_path / "a.nc")
  save(data.isel(lat=slice(0, 3)), tmp_path / "b.nc")
  with pytest.raises(errors.DataError, match="b.nc has the grid.*'lat': 3"):
    XarrayStore(str(tmp_path / "*.nc"), variables=("sst",))


@pytest.mark.parametrize(
  ("select", "index"),
  [
    ({"lat": (1, 4, 1)}, np.s_[:, 1:4]),
    ({"lat": (-30.0, 60.0)}, np.s_[:, 0:4]),  # Descending in the file.
    ({"lat": (60.0, -30.0), "lon": (2.5, 7.5)}, np.s_[:, 0:4, 1:4]),
    ({"time": ("2003-02", "2003-02-03")}, np.s_[2:5]),
    ({"time": (1, None, 3), "lon": [0, -1, 1]}, np.s_[1::3, :, :-1]),
  ],
)
def test_select_takes_positions_values_and_dates(tmp_path, select, index):
  data = dataset()
  path = save(data, tmp_path / "a.nc")
  store = XarrayStore(path, variables=("sst",), select=select)
  expected = data["sst"].values[index]
  assert store.length(0) == len(expected) == len(store.times(0))
  assert tuple(store.space.sizes.values()) == expected.shape[1:]
  np.testing.assert_array_equal(store.read(0, 0, len(expected))[..., 0], expected)


def test_coarsening_takes_means_of_the_observed_cells(tmp_path):
  data = dataset()
  sst = data["sst"].values
  sst[:, :2, :3] = np.nan
  sst[:, 3, 4] = np.nan
  path = save(data, tmp_path / "a.nc")
  store = XarrayStore(path, variables=("sst",), coarsen=3)
  coarse = data["sst"].coarsen(lat=3, lon=3, boundary="pad").mean()
  actual = store.read(0, 0, T)[..., 0]
  assert actual.shape == (T, 2, 3)
  np.testing.assert_allclose(actual, coarse, rtol=1e-6)
  np.testing.assert_allclose(store.space["lat"], coarse["lat"])
  assert store.space["lat"].attrs["units"] == "degrees_north"
  assert np.isnan(
    XarrayStore(path, variables=("sst",), coarsen=2).read(0, 0, 1)[0, 0, 0, 0]
  )


def test_sensors_are_a_grid_one_column_wide(tmp_path):
  data = xr.Dataset(
    {"speed": (("time", "sensor"), field()[..., 0])},
    coords={"time": dates(), "sensor": np.arange(H) + 100},
  )
  store = XarrayStore(save(data, tmp_path / "a.nc"), variables=("speed",))
  assert store.space.attrs["spatial_dims"] == ["sensor", "column"]
  np.testing.assert_array_equal(store.read(0, 1, 4), field()[1:4, :, :1, None])


def test_time_without_dates_counts_frames(tmp_path):
  data = dataset().assign_coords(time=np.arange(T) * 0.25)
  store = XarrayStore(save(data, tmp_path / "a.nc"), variables=("sst",))
  assert store.times(0) is None and store.length(0) == T


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_dates_of_a_model_calendar_stay_equally_spaced(tmp_path, calendar):
  pytest.importorskip("cftime")
  data = dataset().assign_coords(
    time=(
      "time",
      np.arange(T),
      {"units": "days since 2004-02-25", "calendar": calendar},
    )
  )
  store = XarrayStore(save(data, tmp_path / "a.nc"), variables=("sst",))
  assert set(np.diff(store.times(0))) == {86400 * 10**6}
  assert store.space.attrs["calendar"] == calendar


def test_a_two_dimensional_position_is_kept(tmp_path):
  data = dataset().rename(lat="y", lon="x").drop_vars(["y", "x"])
  data["lat"] = (("y", "x"), field(3)[0])
  data["lon"] = (("y", "x"), field(4)[0])
  store = XarrayStore(save(data, tmp_path / "a.nc"), variables=("sst",))
  assert store.space["lat"].dims == ("y", "x")
  np.testing.assert_array_equal(store.space["y"], np.arange(H))


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_windows_cross_no_gap_and_the_template_is_labelled(tmp_path, ending):
  data = dataset().isel(time=[0, 1, 2, 3, 6, 7, 8, 9, 10])
  split = input_pipeline.build(
    {
      "store": "xarray",
      "path": save(data, tmp_path / f"a.{ending}"),
      "variables": ("sst",),
      "history": 2,
      "horizon": 1,
      "split": {"fractions": (1.0, 0.0, 0.0)},
    },
    "train",
    batch_size=2,
  )
  assert split.num_examples == 2 + 3
  init = split.labels["init_time"].values
  np.testing.assert_array_equal(
    split.labels["valid_time"].values[:, 0] - init, np.timedelta64(1, "D")
  )
  assert split.coordinates["lead_time"].values == np.timedelta64(1, "D")
  assert split.coordinates["sst"].attrs["units"] == "degC"
  assert "gap" in split.coordinates["lead_time"].attrs["comment"]


def test_a_store_works_after_pickling_and_in_threads(tmp_path):
  data = dataset()
  store = XarrayStore(save(data, tmp_path / "a.nc"), variables=("sst",))
  store = pickle.loads(pickle.dumps(store))
  expected, wrong = frames(data, "sst"), []

  def read():
    for start in range(T - 3):
      if not (store.read(0, start, start + 3) == expected[start : start + 3]).all():
        wrong.append(start)

  threads = [threading.Thread(target=read) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"variables": "stt"}, "data.variables.*'stt'.*'sst'"),
    ({"variables": "height"}, "'height' has no time dimension"),
    ({"time_dim": "tim"}, "no time dimension 'tim'.*data.time_dim"),
    ({"time_variable": "height"}, "data.time_variable='height'.*dates"),
    ({"time_variable": "tme"}, "data.time_variable.*'tme'.*'time'"),
    ({"sample_dim": "smple"}, "data.sample_dim.*'smple'"),
    ({"split_variable": "ice"}, "data.sample_dim, which is not set"),
    ({"sample_dim": "lat", "split_variable": "spilt"}, "data.split_variable"),
    ({"spatial_dims": ("lat", "lon", "time")}, "data.spatial_dims"),
    ({"spatial_dims": ("lat", "x")}, "data.spatial_dims"),
    ({"select": {"lt": (0, 1)}}, "data.select.*'lt'.*'lat'"),
    ({"select": {"lat": (70.0, 80.0)}}, "leaves nothing.*60.0 to -60.0"),
    ({"select": {"lat": (0,)}}, "data.select.lat.*expected"),
    ({"select": {"time": (1.0, 2.0)}}, "data.select.time.*dates"),
    ({"select": {"time": ("no", "date")}}, "data.select.time"),
    ({"coarsen": 0}, "data.coarsen=0"),
  ],
)
def test_unusable_options_are_named(tmp_path, options, words):
  path = save(dataset(), tmp_path / "a.nc")
  with pytest.raises(errors.DataError, match=words):
    XarrayStore(path, **{"variables": ("sst",), **options})


def test_unusable_files_are_named(tmp_path):
  for path, words in (
    ("", "data.path is empty"),
    (tmp_path / "no.nc", f"{tmp_path}/no.nc.*data.path"),
    (tmp_path / "*.nc", "No file matches.*data.path"),
    (tmp_path, "cannot open.*data.path"),
  ):
    with pytest.raises(errors.DataError, match=words):
      XarrayStore(str(path), variables=("sst",))
  (tmp_path / "a.txt").write_text("not a grid")
  with pytest.raises(errors.DataError, match="cannot open.*a.txt"):
    XarrayStore(str(tmp_path / "a.txt"), variables=("sst",))


def everything():
  """The dataset, with much beside it that is not to be forecast."""
  data = dataset()
  sizes = ("time", "lat", "lon")
  orography = np.broadcast_to(data["height"].values, (T, H, W))
  return data.assign(
    quality=("time", np.arange(T)),
    ice_mask=(sizes, np.ones((T, H, W))),
    flag=(sizes, np.zeros((T, H, W), np.int8), {"flag_values": [0, 1]}),
    lat_bnds=(("lat", "nv"), np.zeros((H, 2))),
    time_bnds=(("time", "nv"), np.zeros((T, 2))),
    coarse=(("time", "y2", "x2"), field(5)[:, :2, :2]),
    orography=(sizes, orography),
    note=("time", ["a"] * T),
  )


def test_variables_on_the_main_grid_are_found_and_said(tmp_path, caplog):
  path = save(everything(), tmp_path / "a.nc")
  with caplog.at_level("INFO"):
    store = XarrayStore(path)
  assert store.names == ("sst", "ice")
  np.testing.assert_array_equal(store.read(0, 0, T), frames(dataset(), "sst", "ice"))
  assert "is forecast: sst, ice." in caplog.text
  for words in (
    "height (it has no time axis)",
    "orography (it is the same at all times)",
    "quality (it is a flag or a mask)",
    "coarse (another grid: y2=2, x2=2)",
    "lat_bnds (it holds bounds)",
    "note (it is text)",
    "data.static.variables",
  ):
    assert words in caplog.text
  with pytest.raises(errors.DataError, match="no variable of numbers.*height"):
    XarrayStore(save(dataset()[["height"]], tmp_path / "b.nc"))


def test_members_become_channels_and_this_is_said(tmp_path, caplog):
  data = xr.concat([dataset()[["sst"]]] * 2, "number").assign_coords(number=[0, 1])
  path = save(data, tmp_path / "a.nc")
  with caplog.at_level("WARNING"):
    assert XarrayStore(path).names == ("sst@0", "sst@1")
  assert "--config.data.variables=sst@0 takes the first one" in caplog.text
  assert XarrayStore(path, sample_dim="number").num_sequences == 2


@pytest.mark.parametrize(
  ("dim", "labels", "expected"),
  [
    ("sample", {}, ("1", "1", None, False)),
    ("n", {"split": ["train", "val", "test"]}, ("1", "1", "val", False)),
    ("n", {"event_id": [7, 7, 9]}, ("1", "7", None, True)),
    ("event", {"event": ["a", "b", "c"]}, ("b", "b", None, True)),
    (
      "case",
      {"sample_id": ["u", "v", "w"], "storm": ["s", "s", "t"]},
      ("v", "s", None, True),
    ),
    ("sample", {"split": ["x", "y", "z"]}, ("1", "1", None, False)),
    ("sample", {"event": ["s", "s", "s"]}, ("1", "1", None, False)),
  ],
)
def test_samples_and_their_labels_are_found(tmp_path, dim, labels, expected):
  rain = field(0, (3, T, H, W))
  data = xr.Dataset({"rain": ((dim, "time", "y", "x"), rain)})
  data = data.assign({name: (dim, values) for name, values in labels.items()})
  path = save(data, tmp_path / "a.nc")
  store = XarrayStore(path)
  assert store.num_sequences == 3 and store.names == ("rain",)
  found = store.sample_id(1), store.event(1), store.split_label(1), store.has_events
  assert found == expected
  np.testing.assert_array_equal(store.read(2, 1, 4)[..., 0], rain[2, 1:4])
  assert XarrayStore(path, sample_dim="none").num_sequences == 1
  off = XarrayStore(path, split_variable="none", event_variable="none")
  assert off.split_label(1) is None and not off.has_events


def test_points_have_no_neighbours_to_average(tmp_path):
  names = np.array(list("abcde"), object)
  data = xr.Dataset(
    {"speed": (("time", "station"), field()[..., 0])},
    coords={"time": dates(), "station": names},
  )
  path = save(data, tmp_path / "a.nc")
  with pytest.raises(errors.DataError, match="data.coarsen=2.*'station' are points"):
    XarrayStore(path, coarsen=2)
