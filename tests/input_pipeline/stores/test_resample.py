"""Fewer frames and other cells of any store, and everything that goes with them."""

import numpy as np
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import options
from input_pipeline.stores import array, resample

CODES = [[0, 255, 3, 90, 17], [200, 13, 77, 255, 0], [31, 64, 128, 9, 250]]
# What cv2.resize (OpenCV 5.0, INTER_LINEAR) makes of them as uint8.
OPENCV = {
  (2, 3): [[98, 22, 52], [66, 115, 148]],
  (4, 7): [
    [0, 145, 183, 3, 65, 59, 17],
    [125, 113, 88, 49, 152, 113, 6],
    [137, 77, 50, 96, 144, 133, 94],
    [31, 50, 82, 128, 43, 112, 250],
  ],
}


def fields(height=7, width=5, frames=3, channels=2):
  random = np.random.RandomState(0)
  return random.rand(frames, height, width, channels).astype(np.float32)


def bilinear(field, size):
  """Bilinear interpolation at the centres of the new cells, point by point."""
  result = np.zeros(size)
  for i, j in np.ndindex(size):
    place = [
      min(max((n + 0.5) * old / new - 0.5, 0), old - 1)
      for n, old, new in zip((i, j), field.shape, size, strict=True)
    ]
    for di, dj in np.ndindex(2, 2):
      corner = [int(np.floor(p)) + d for p, d in zip(place, (di, dj), strict=True)]
      weight = np.prod([1 - abs(p - c) for p, c in zip(place, corner, strict=True)])
      if weight > 0:
        result[i, j] += weight * field[tuple(corner)]
  return result


@pytest.mark.parametrize("size", [(3, 4), (7, 2), (13, 6), (1, 1)])
def test_cells_take_the_bilinear_value_at_their_centres(size):
  x = fields()
  x[:, 2, 3, 1] = np.nan  # Whatever it weighs in is missing.
  found = resample.Resampling(size=size).fields(x, "x")
  assert found.shape == (3, *size, 2) and found.dtype == np.float32
  for frame, channel in np.ndindex(3, 2):
    expected = bilinear(x[frame, :, :, channel].astype(float), size)
    np.testing.assert_allclose(found[frame, :, :, channel], expected, rtol=1e-5)


def test_every_third_cell_is_taken_exactly_even_beside_a_missing_one():
  x = fields(12, 15)
  x[:, 3, 5] = np.nan
  found = resample.Resampling(size=(4, 5)).fields(x, "x")
  np.testing.assert_array_equal(found, x[:, 1::3, 1::3])


@pytest.mark.parametrize("size", OPENCV)
def test_rounding_gives_the_whole_numbers_of_opencv(size):
  x = np.array(CODES, np.float32)[None, ..., None]
  found = resample.Resampling(size=size, rounding="uint8").fields(x, "x")
  np.testing.assert_array_equal(found[0, ..., 0], OPENCV[size])
  assert found.dtype == np.float32
  x[0, 0, 1] = np.nan
  found = resample.Resampling(size=size, rounding="uint8").fields(x, "x")
  plain = resample.Resampling(size=size).fields(x, "x")
  np.testing.assert_array_equal(np.isnan(found), np.isnan(plain))
  known = np.isfinite(plain)
  assert known.any() and np.abs(found - plain)[known].max() < 1


def test_frames_and_cells_are_kept_as_they_are_asked_for(tmp_path):
  data = np.random.RandomState(0).rand(2, 11, 6, 8).astype(np.float32)
  np.save(tmp_path / "a.npy", data)
  plain = array.ArrayStore(str(tmp_path / "a.npy"), step="5min")
  store = resample.apply(
    plain, {"first": 1, "every": 3, "crop": (1, 5, 2, 8), "size": (2, 3)}
  )
  assert store.length(0) == 4 and store.step == np.timedelta64(15, "m")
  cropped = data[1, 1::3, 1:5, 2:8]
  expected = cropped.reshape(4, 2, 2, 3, 2).mean((2, 4))
  np.testing.assert_allclose(store.read(1, 0, 4)[..., 0], expected, rtol=1e-6)
  np.testing.assert_allclose(store.read(1, 2, 3)[0, ..., 0], expected[2], rtol=1e-6)
  assert store.read(1, 2, 2).shape == (0, 2, 3, 1)
  assert store.space["y"].values.tolist() == [1.5, 3.5]
  assert store.space["x"].values.tolist() == [2.5, 4.5, 6.5]
  assert resample.apply(plain, options.COMMON["resample"]) is plain
  beyond = resample.apply(plain, {"first": 20})
  assert beyond.length(0) == 0 and beyond.read(0, 0, 0).shape == (0, 6, 8, 1)


def gridded(path):
  """A netCDF file with fields in time, forcings and a static field."""
  shape = ("time", "lat", "lon")
  random = np.random.RandomState(1)
  xr.Dataset(
    {
      "rain": (shape, random.rand(40, 6, 9).astype("f4"), {"units": "mm h-1"}),
      "wind": (shape, random.rand(40, 6, 9).astype("f4")),
      "land": (("lat", "lon"), random.rand(6, 9).astype("f4")),
    },
    coords={
      "time": np.datetime64("2020-01-01", "ns")
      + np.arange(40) * np.timedelta64(5, "m"),
      "lat": np.linspace(50.0, 45.0, 6),
      "lon": np.linspace(0.0, 8.0, 9),
      "name": ("lat", list("abcdef")),
    },
  ).to_netcdf(path, engine="h5netcdf")
  return {
    "store": "xarray",
    "path": str(path),
    "variables": ("rain",),
    "forcings": {"variables": ("wind",)},
    "static": {"variables": ("land",)},
    "history": 3,
    "horizon": 2,
    "normalise": "fixed",
    "offset": -1,
    "scale": 2.0,
  }


def test_times_coordinates_forcings_and_static_fields_go_with_the_grid(tmp_path):
  config = gridded(tmp_path / "a.nc")
  config["resample"] = {"first": 1, "every": 2, "crop": (0, 6, 3, 9), "size": (2, 2)}
  split = input_pipeline.build(config, "train", batch_size=1, train=False)
  with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as data:
    kept = data.isel(time=slice(1, None, 2), lat=slice(1, None, 3)).load()
    kept = kept.isel(lon=slice(4, None, 3))
  batch = next(iter(split.batches))
  frames = np.concatenate([batch["inputs"][0], batch["targets"][0]])[..., 0]
  np.testing.assert_allclose(frames, (kept.rain.values[:5] + 1) / 2, rtol=1e-6)
  seconds = kept.time.values[:5].astype("datetime64[s]").astype(int)
  np.testing.assert_array_equal(batch["time"][0], seconds)
  for name in ("lat", "lon", "name"):
    np.testing.assert_array_equal(split.coordinates[name], kept[name])
  leads = split.coordinates["lead_time"].values.astype("timedelta64[m]").astype(int)
  assert leads.tolist() == [10, 20]
  statistics = split.statistics
  assert (statistics.kind, statistics.offset, statistics.scale) == ("fixed", -1, 2)
  again = input_pipeline.Statistics.from_json(statistics.to_json())
  assert (again.offset, again.scale) == (-1, 2)
  # Forcings have other units: they have their own mean and deviation.
  wind = kept.wind.values[:14]  # The training split
  expected = (kept.wind.values[:5] - wind.mean()) / wind.std()
  np.testing.assert_allclose(batch["forcings"][0, ..., 0], expected, atol=1e-5)
  land = (kept.land.values - kept.land.values.mean()) / kept.land.values.std()
  np.testing.assert_allclose(batch["static"][..., 0], land, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"resample": {"every": 0}}, ["data.resample.every=0"]),
    ({"resample": {"first": -1}}, ["data.resample.first=-1"]),
    ({"resample": {"crop": (0, 7, 0, 9)}}, ["data.resample.crop", "6 rows", "9 col"]),
    ({"resample": {"crop": (0, 6)}}, ["data.resample.crop", "stop row"]),
    ({"resample": {"size": (128,)}}, ["data.resample.size", "(rows, columns)"]),
    ({"resample": {"size": (0, 4)}}, ["data.resample.size"]),
    ({"resample": {"rounding": "uint8"}}, ["data.resample.rounding", "size"]),
    ({"resample": {"rounding": "up", "size": (2, 2)}}, ["data.resample.rounding"]),
    (
      {"resample": {"rounding": "uint8", "size": (2, 2)}},
      ["a.npy", "data.resample.rounding", "0 to 255"],
    ),
    ({"resample": {"evry": 2}}, ["data.resample.evry", "'every'"]),
    ({"scale": ()}, ["data.normalise='fixed'", "data.scale"]),
    ({"scale": 0}, ["data.scale=0"]),
    ({"scale": (1, 2)}, ["data.scale=(1, 2)", "1 variables"]),
    ({"offset": "a"}, ["data.offset='a'"]),
    ({"normalise": "range"}, ["data.offset=-1 and data.scale=2.0", "'range'"]),
  ],
)
def test_what_cannot_be_used_is_named(tmp_path, changes, words):
  np.save(tmp_path / "a.npy", fields(6, 9, 40)[..., 0])
  config = {
    "store": "array",
    "path": str(tmp_path / "a.npy"),
    "normalise": "fixed",
    "offset": -1,
    "scale": 2.0,
  }
  with pytest.raises(input_pipeline.DataError) as caught:
    input_pipeline.build(config | changes, "train", batch_size=1)
  for word in words:
    assert word in str(caught.value)


def test_prepared_copies_keep_their_names_unless_something_is_changed():
  plain = options.resolve({"store": "array"})
  assert options.reading(plain) | {"missing_value": ()} == options.store_options(plain)
  changed = options.resolve({"store": "array", "resample": {"every": 2}})
  assert options.reading(changed)["resample"] == {"every": 2}
