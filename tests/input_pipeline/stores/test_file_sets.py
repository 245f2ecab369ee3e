"""Several files as one data set: order, axes, units, times, versions, damage."""

import h5py
import numpy as np
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import cache, errors
from input_pipeline.stores import file_sets
from input_pipeline.stores.xarray import XarrayStore

T = 6
LAT = np.array([60.0, 20.0, -20.0])
LON = np.array([0.0, 90.0, 180.0, 270.0])
LEVELS = [250, 500, 850]


def field(first=0, name="t", levels=(), seed=0):
  """Random frames every 6 hours, the frame `first` being the first."""
  shape = (T, *((len(levels),) if levels else ()), len(LAT), len(LON))
  values = np.random.RandomState(seed + first).rand(*shape).astype(np.float32)
  dims = ("time", *(("level",) if levels else ()), "lat", "lon")
  hours = np.arange(first, first + T) * np.timedelta64(6, "h")
  coords = {
    "time": np.datetime64("2020-01-01", "ns") + hours,
    "lat": ("lat", LAT, {"units": "degrees_north"}),
    "lon": ("lon", LON, {"units": "degrees_east"}),
  }
  if levels:
    coords["level"] = ("level", list(levels), {"units": "hPa"})
  return xr.Dataset({name: (dims, values, {"units": "K"})}, coords=coords)


def save(data, path, **options):
  path.parent.mkdir(exist_ok=True)
  data.to_netcdf(path, engine="h5netcdf", **options)


def frames(*parts, name="t"):
  """What the files hold, [T, H, W, levels]."""
  values = np.concatenate([part[name].values for part in parts])
  return np.moveaxis(values, 1, -1) if values.ndim == 4 else values[..., None]


def rotated(data):
  longitude = (data.lon.values + 180) % 360 - 180
  return data.assign_coords(lon=("lon", longitude, data.lon.attrs)).sortby("lon")


@pytest.mark.parametrize("select", [{}, {"lat": (0, 2, 1)}, {"lon": (0.0, 100.0)}])
@pytest.mark.parametrize(
  "change",
  [
    lambda data: data.isel(lat=slice(None, None, -1)),
    rotated,
    lambda data: data.isel(level=[2, 0, 1]),
    lambda data: data.transpose("lon", "level", "time", "lat"),
    lambda data: data.assign_coords(lat=data.lat.astype(np.float32)),
  ],
  ids=["flipped", "rotated", "permuted", "transposed", "rounded"],
)
def test_entries_in_another_order_are_taken_by_their_labels(tmp_path, change, select):
  one, other = field(levels=LEVELS), field(T, levels=LEVELS)
  save(one, tmp_path / "a_1.nc")
  save(change(other), tmp_path / "a_2.nc")
  store = XarrayStore(str(tmp_path / "*.nc"), select=select)
  expected = frames(one, other)
  expected = expected[:, :2] if "lat" in select else expected
  expected = expected[:, :, :2] if "lon" in select else expected
  np.testing.assert_array_equal(store.read(0, 0, 2 * T), expected)
  assert store.names == ("t@250", "t@500", "t@850")


def with_attrs(data, name, **attrs):
  data[name].attrs.update(attrs)
  return data


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda d: d.assign_coords(lat=d.lat + 5), "coordinate 'lat'.*65.0.*60.0"),
    (lambda d: d.assign_coords(lon=d.lon + 45), "coordinate 'lon'.*45.0"),
    (lambda d: d.isel(lat=[0, 1]), "has the grid.*'lat': 2"),
    (lambda d: with_attrs(d, "t", units="degC"), "'t' is in 'degC', but in 'K'"),
    (lambda d: with_attrs(d, "lat", units="radians"), "'lat' is in 'radians'"),
    (lambda d: d.drop_vars("time"), "no dates.*data.file_time"),
    (lambda d: d.assign_coords(height=10), "at height 10, but at height 2"),
    (lambda d: d.assign_coords(time=field(T - 1).time), "a_1.nc and .*a_2.nc both"),
    (lambda d: d.rename(t="u"), "'t' has 6 frames.*'u' has 6.*data.path"),
  ],
)
def test_files_that_do_not_fit_are_named(tmp_path, change, words):
  save(field().assign_coords(height=2), tmp_path / "a_1.nc")
  save(change(field(T).assign_coords(height=2)), tmp_path / "a_2.nc")
  with pytest.raises(errors.DataError, match=words):
    XarrayStore(str(tmp_path / "*.nc"))


@pytest.mark.parametrize("units", ["kelvin", " K ", "K"])
def test_units_may_be_written_in_several_ways(tmp_path, units):
  save(field(), tmp_path / "a_1.nc")
  save(with_attrs(field(T), "t", units=units), tmp_path / "a_2.nc")
  assert XarrayStore(str(tmp_path / "*.nc")).length(0) == 2 * T
  assert file_sets._unit("m/s") == file_sets._unit("m s**-1") == ("m", "s-1")
  assert file_sets._unit("m s-1") != file_sets._unit("m s-2")


def test_text_and_two_dimensional_positions_say_the_order(tmp_path):
  stations = [
    field(first).isel(lon=0, drop=True).rename(lat="station") for first in (0, T)
  ]
  expected = np.concatenate([data.t.values for data in stations])
  names = np.array(["a", "b", "c"], object)
  stations[0] = stations[0].assign_coords(station=names)
  stations[1] = stations[1].assign_coords(station=names).isel(station=[2, 0, 1])
  for number, data in enumerate(stations):
    save(data, tmp_path / "s" / f"{number}.nc")
  store = XarrayStore(str(tmp_path / "s" / "*.nc"))
  np.testing.assert_array_equal(store.read(0, 0, 2 * T)[:, :, 0, 0], expected)

  turned = [
    data.rename(lat="y", lon="x").drop_vars(["y", "x"]) for data in (field(), field(T))
  ]
  for number, data in enumerate(turned):
    rows, columns = np.meshgrid(LAT, LON, indexing="ij")
    data["lat"], data["lon"] = (("y", "x"), rows), (("y", "x"), columns)
    save(
      data.isel(y=slice(None, None, 1 - 2 * number)), tmp_path / "p" / f"{number}.nc"
    )
  store = XarrayStore(str(tmp_path / "p" / "*.nc"))
  np.testing.assert_array_equal(store.read(0, 0, 2 * T), frames(*turned))


def test_equal_frames_count_once_and_frames_in_turn_are_sorted(tmp_path, caplog):
  both = xr.concat([field(), field(T)], "time")
  save(both.isel(time=slice(0, T + 2)), tmp_path / "o" / "a.nc")
  save(both.isel(time=slice(T, None)), tmp_path / "o" / "b.nc")
  save(both.isel(time=slice(0, None, 2)), tmp_path / "i" / "a.nc")
  save(both.isel(time=slice(1, None, 2)), tmp_path / "i" / "b.nc")
  with caplog.at_level("INFO"):
    for folder in "oi":
      store = XarrayStore(str(tmp_path / folder / "*.nc"))
      assert store.length(0) == 2 * T and (np.diff(store.times(0)) > 0).all()
      np.testing.assert_array_equal(store.read(0, 0, 2 * T), frames(both))
  assert "share 2 frames with equal values from 2020-01-02 12:00" in caplog.text


def one_by_one(data, folder, name, dated):
  for frame in range(T):
    date = data.time.values[frame]
    part = data.isel(time=frame, drop=not dated)
    save(part, folder / name.format(frame + 7, str(date)[:13].replace("-", "")))


@pytest.mark.parametrize(
  ("name", "dated", "options"),
  [
    ("frame_{0}.nc", False, {}),  # 7 ... 12: natural order.
    ("x{0}.nc", True, {}),
    ("rain_{1}.nc", False, {"file_time": "%Y%m%dT%H"}),
  ],
  ids=["undated", "scalar time", "time in the name"],
)
def test_files_of_one_frame_each(tmp_path, name, dated, options):
  data = field()
  one_by_one(data, tmp_path / "f", name, dated)
  store = XarrayStore(str(tmp_path / "f" / "*.nc"), **options)
  np.testing.assert_array_equal(store.read(0, 0, T), frames(data))
  if dated or options:
    whole = tmp_path / "whole.nc"
    save(data, whole)
    np.testing.assert_array_equal(store.times(0), XarrayStore(str(whole)).times(0))
    cut = XarrayStore(
      str(tmp_path / "f" / "*.nc"),
      **options,
      select={"time": ("2020-01-02", "2020-01-02")},
    )
    np.testing.assert_array_equal(cut.read(0, 0, 2), frames(data)[4:6])
  else:
    assert store.times(0) is None


@pytest.mark.parametrize(
  ("pattern", "words"),
  [
    ("%Y%m%d%H%M", "no date of the form"),
    ("%Y%m", "no date of the form"),  # Part of a longer number.
    ("%H", "has no year"),
    ("%Y%Q", "has %Q"),
  ],
)
def test_a_date_that_is_not_in_the_name_is_an_error(pattern, words):
  with pytest.raises(errors.DataError, match=words):
    file_sets.date_in_name("/a/rain_2020010106.nc", pattern)


def test_a_file_for_each_variable_and_year(tmp_path):
  parts = {v: [field(f, v, seed=s) for f in (0, T)] for s, v in ((0, "t"), (50, "u"))}
  for name, data in parts.items():
    for number, part in enumerate(data):
      turned = part.isel(lat=slice(None, None, -1)) if name == "u" else part
      save(turned, tmp_path / f"{name}_{number}.nc")
  # Constants and another grid do not disturb.
  save(field().isel(time=0, drop=True).rename(t="land"), tmp_path / "constants.nc")
  save(field(name="q").isel(lat=[0, 1]), tmp_path / "other.nc")
  expected = np.concatenate([frames(*parts[v], name=v) for v in "tu"], axis=-1)
  path = str(tmp_path / "*.nc")
  for variables, order in (((), (0, 1)), ("u,t", (1, 0))):
    store = XarrayStore(path, variables=variables)
    assert store.names == tuple("tu"[i] for i in order)
    np.testing.assert_array_equal(store.read(0, 2, 9), expected[2:9][..., order])
  (tmp_path / "u_1.nc").unlink()
  share = ("2020-01-01", "2020-01-02T06:00")
  with pytest.raises(errors.DataError, match=r"select\.time=" + ",".join(share)):
    XarrayStore(path)
  assert XarrayStore(path, select={"time": share}).length(0) == T


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_groups_are_read_with_the_coordinates_around_them(tmp_path, kind):
  data, path = field(), tmp_path / f"a.{kind}"
  inner = data.drop_vars(["time", "lat", "lon"])
  if kind == "zarr":
    xr.Dataset(coords=data.coords).to_zarr(path, zarr_format=2)
    inner.to_zarr(path, group="p/q", mode="a", zarr_format=2)
  else:
    save(xr.Dataset(coords=data.coords), path)
    inner.to_netcdf(path, engine="h5netcdf", group="p/q", mode="a")
  with pytest.raises(errors.DataError, match="--config.data.group=p/q"):
    XarrayStore(str(path))
  with pytest.raises(errors.DataError, match="cannot open.*data.group='no'.*p/q"):
    XarrayStore(str(path), group="no")
  store = XarrayStore(str(path), group="p/q")
  np.testing.assert_array_equal(store.read(0, 0, T), frames(data))
  np.testing.assert_array_equal(store.space["lat"], LAT)
  assert store.times(0) is not None


@pytest.mark.parametrize(
  "labels", [[1, 5], [5, 1], ["0001", "0005"], ["0005", "0001"]], ids=str
)
def test_final_values_come_before_preliminary_ones(tmp_path, labels):
  data = field()
  final, early = (
    data.t.where(data.time < data.time[4]),
    data.t.where(data.time >= data.time[2]) + 9 * (data.time < data.time[4]),
  )
  parts = [final, early] if int(labels[0]) == 1 else [early, final]
  joined = xr.concat(parts, "expver").assign_coords(expver=labels)
  save(joined.astype(np.float32).to_dataset(name="t"), tmp_path / "a.nc")
  store = XarrayStore(str(tmp_path / "a.nc"))
  assert store.names == ("t",)
  np.testing.assert_array_equal(store.read(0, 0, T), frames(data))


def test_of_two_frames_at_one_time_the_final_one_is_taken(tmp_path):
  data = field()
  final, early = (
    data.isel(time=slice(0, 4)),
    data.isel(time=slice(2, T)).copy(deep=True),
  )
  early.t[:2] += 9
  marked = [
    part.assign_coords(expver=("time", np.full(4, text, object)))
    for part, text in ((early, "0005"), (final, "0001"))
  ]
  for number, part in enumerate(marked):
    save(part, tmp_path / "f" / f"{number}.nc")
  save(xr.concat(marked, "time"), tmp_path / "one.nc")
  for path in ("f/*.nc", "one.nc"):
    store = XarrayStore(str(tmp_path / path))
    np.testing.assert_array_equal(store.read(0, 0, T), frames(data))


def test_a_damaged_chunk_is_named_with_file_variable_and_frame(tmp_path):
  encoding = {"t": {"zlib": True, "chunksizes": (1, len(LAT), len(LON))}}
  save(field(), tmp_path / "n" / "a_1.nc")
  save(field(T), tmp_path / "n" / "a_2.nc", encoding=encoding)
  with h5py.File(tmp_path / "n" / "a_2.nc") as file:
    place = file["t"].id.get_chunk_info(3).byte_offset
  with open(tmp_path / "n" / "a_2.nc", "r+b") as file:
    file.seek(place + 4)
    file.write(b"\0" * 20)
  zarr = tmp_path / "a_2.zarr"
  field().to_zarr(zarr, zarr_format=2, encoding={"t": {"chunks": (1, 3, 4)}})
  chunk = zarr / "t" / "3.0.0"
  chunk.write_bytes(chunk.read_bytes()[:-8])
  store = XarrayStore(str(tmp_path / "n" / "*.nc"), variables=("t",))
  store.read(0, 0, T + 3)
  with pytest.raises(errors.DataError, match="a_2.*'t', frame 3 cannot be read"):
    store.read(0, 0, 2 * T)
  # Blosc would read on behind the end of the chunk.
  with pytest.raises(errors.DataError, match="3.0.0: variable 't', frames 3 to 3 can"):
    XarrayStore(str(zarr))


def test_a_copy_follows_the_chunks_of_a_zarr(tmp_path):
  data, path = field(), tmp_path / "a.zarr"
  data.to_zarr(path, zarr_format=2, encoding={"t": {"chunks": (2, 3, 4)}})
  config = {"store": "xarray", "path": str(path), "history": 1, "horizon": 1}
  config |= {"cache": "disk", "normalise": "none", "split": {"by": "window"}}

  def first():
    split = input_pipeline.build(
      config, "train", batch_size=1, cache_dir=tmp_path / "c"
    )
    batch = next(iter(split.batches))
    return batch["inputs"][0, 0] / frames(data)[batch["index"][0]]

  np.testing.assert_array_equal(first(), np.ones((3, 4, 1)))
  (data * 10).drop_vars(["lat", "lon"]).to_zarr(path, region={"time": slice(0, T)})
  np.testing.assert_allclose(first(), np.full((3, 4, 1), 10), rtol=1e-6)
  # Nested groups count as well, and folders that are no Zarr stand for themselves.
  store = XarrayStore(str(path))
  before = cache.files_state(store)
  (path / "deep" / "er").mkdir(parents=True)
  (path / "deep" / "er" / "0.0").write_bytes(b"1")
  assert cache.files_state(store) != before
