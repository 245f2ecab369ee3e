"""What counts as missing: what files declare, and what data.missing_value names."""

import pickle

import numpy as np
import pytest
import xarray as xr
import zarr

import input_pipeline
from input_pipeline import errors
from input_pipeline.stores import missing, moments
from input_pipeline.stores.array import ArrayStore
from input_pipeline.stores.xarray import XarrayStore

FIELD = np.random.default_rng(0).gamma(2, 2, (4, 3, 5)).astype(np.float32)
UNSET = 9.969209968386869e36


def netcdf(path, raw, attrs=(), fill=None, **more):
  """Writes `raw` as it is, with these attributes."""
  fields = {"v": (("time", "y", "x"), raw, dict(attrs))}
  fields |= {name: (("time", "y", "x"), values) for name, values in more.items()}
  encoding = {name: {"_FillValue": None} for name in fields}
  encoding["v"] = {"_FillValue": fill}
  times = np.arange(len(raw)).astype("datetime64[h]").astype("datetime64[ns]")
  dataset = xr.Dataset(fields, {"time": times})
  dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
  return str(path)


def read(path, **options):
  store = XarrayStore(str(path), variables=("v",), **options)
  return pickle.loads(pickle.dumps(store)).read(0, 0, 4)[..., 0]


def first(value, second=None):
  """The field with a value in frame 0 and perhaps one in frame 1."""
  changed = FIELD.copy()
  changed[0] = value
  if second is not None:
    changed[1] = second
  return changed


SHORT = np.random.default_rng(1).integers(0, 200, (4, 3, 5)).astype(np.int16)
SHORT[0], SHORT[1] = -1, 300
BYTE = np.random.default_rng(2).integers(0, 250, (4, 3, 5)).astype(np.uint8)
BYTE[0], BYTE[1] = 255, 254
PACKED = {"scale_factor": 0.1, "add_offset": 5.0}
UNSIGNED = {"_Unsigned": "true", "scale_factor": 0.5}
i1, i2 = (lambda *v: np.array(v, np.int8)), (lambda *v: np.array(v, np.int16))


@pytest.mark.parametrize(
  ("raw", "attrs", "fill", "scale", "frames"),
  [
    # A code in double precision beside data in single precision.
    (first(-999.9), {"missing_value": -999.9}, None, (1, 0), [0]),
    (first(1e20), {"missing_value": 1e20}, None, (1, 0), [0]),
    (
      first(-99, -999),
      {"missing_value": np.array([-99.0, -999])},
      None,
      (1, 0),
      [0, 1],
    ),
    (first(-99, -999), {"missing_value": -99.0}, -999.0, (1, 0), [0, 1]),
    (first(-99, np.nan), {"missing_value": -99.0}, np.nan, (1, 0), [0, 1]),
    (first(-99), {"missing_value": "-99"}, None, (1, 0), [0]),
    (first(UNSET), {}, None, (1, 0), [0]),
    (first(-99, UNSET), {"missing_value": -99.0}, None, (1, 0), [0, 1]),
    # A range is about packed values, unless it has the type of decoded ones.
    (SHORT, PACKED | {"valid_range": i2(0, 250)}, None, (0.1, 5), [0, 1]),
    (SHORT, PACKED | {"valid_range": [5.0, 30.0]}, None, (0.1, 5), [0, 1]),
    (SHORT, PACKED | {"valid_max": i2(250)}, None, (0.1, 5), [1]),
    (SHORT, {"scale_factor": -0.1, "valid_max": i2(250)}, None, (-0.1, 0), [1]),
    (SHORT, {"valid_min": i2(0)}, 300, (1, 0), [0, 1]),
    (SHORT, {"valid_min": i2(0), "valid_max": i2(250)}, None, (1, 0), [0, 1]),
    (np.full_like(FIELD, 0.1), {"valid_max": 0.1}, None, (1, 0), []),
    (BYTE.view(np.int8), UNSIGNED, -1, (0.5, 0), [0]),
    (BYTE.view(np.int8), UNSIGNED | {"missing_value": i1(-1)}, None, (0.5, 0), [0]),
    (BYTE.view(np.int8), UNSIGNED | {"missing_value": i1(-2)}, -1, (0.5, 0), [0, 1]),
    (BYTE.view(np.int8), UNSIGNED | {"valid_range": i1(0, -3)}, None, (0.5, 0), [0, 1]),
    (BYTE, {"missing_value": i1(-1)}, None, (1, 0), [0]),
  ],
)
def test_what_a_netcdf_file_declares_is_missing(
  tmp_path, raw, attrs, fill, scale, frames
):
  if fill is not None:
    fill = raw.dtype.type(fill)
  path = netcdf(tmp_path / "f.nc", raw, attrs, fill)
  values = raw.view(np.uint8) if "_Unsigned" in attrs else raw
  right = values.astype(np.float64) * scale[0] + scale[1]
  right[frames] = np.nan
  np.testing.assert_allclose(read(path), right, rtol=1e-6)
  # The remedy for a file that is wrong about itself.
  raw_values = read(path, missing_value="none")
  assert np.isfinite(raw_values[~np.isnan(raw.astype(float))]).all()


def zarr_folder(path, raw, version, fill, **attrs):
  group = zarr.open_group(str(path), mode="w", zarr_format=version)

  def put(name, values, dims, fill, **attrs):
    named = {"dimension_names": dims} if version == 3 else {}
    array = group.create_array(
      name, shape=values.shape, dtype=values.dtype, fill_value=fill, **named
    )
    array[:] = values
    array.attrs.update(attrs | ({} if named else {"_ARRAY_DIMENSIONS": dims}))

  put("v", raw, ["time", "y", "x"], fill, **attrs)
  put("time", np.arange(4) * 3600, ["time"], 0, units="seconds since 2020-01-01")
  put("y", np.arange(3.0), ["y"], 0)
  put("x", np.arange(5.0), ["x"], 0)
  return path


@pytest.mark.parametrize("version", [2, 3])
def test_a_fill_value_of_0_is_data_in_zarr_and_other_ones_are_missing(
  tmp_path, version
):
  rain = np.where(FIELD < 4, 0, FIELD).astype(np.float32)
  coded = np.where(rain == 0, -9999, rain).astype(np.float32)
  masked = np.where(rain == 0, np.nan, rain)
  for number, (raw, fill, attrs, right) in enumerate(
    [
      (rain, 0, {}, rain),
      (rain, None, {}, rain),
      (coded, -9999.0, {}, masked),
      (coded, 0, {"_FillValue": -9999.0}, masked),
      (coded, 0, {"missing_value": -9999}, masked),
      (rain, 0, {"_FillValue": "NaN"}, rain),
      (rain, 0, {"_FillValue": 0} if version == 2 else {"missing_value": 0}, masked),
    ]
  ):
    path = zarr_folder(tmp_path / str(number), raw, version, fill, **attrs)
    np.testing.assert_array_equal(read(path), right, err_msg=str(number))
  store = XarrayStore(str(tmp_path / "0"), variables=("v",))
  assert store.declared["v"].zero_fill == 0
  # Zarr's 0 was no code of the coordinates, either.
  hours = (store.times(0) - store.times(0)[0]) / (3600 * moments.SECOND)
  np.testing.assert_array_equal(hours, np.arange(4))
  np.testing.assert_array_equal(store.space.y, [0, 1, 2])
  np.testing.assert_array_equal(read(tmp_path / "0", missing_value=0), masked)


def test_what_xarray_writes_to_zarr_comes_back(tmp_path):
  for version in (2, 3):
    for name, encoding in (
      ("nan", {}),
      ("code", {"_FillValue": -9999.0}),
      ("packed", {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}),
    ):
      values = FIELD.copy()
      values[0, 0] = np.nan
      path = tmp_path / f"{name}{version}"
      dataset = xr.Dataset({"v": (("time", "y", "x"), values)})
      dataset.to_zarr(
        path, zarr_format=version, encoding={"v": encoding}, consolidated=False
      )
      np.testing.assert_allclose(read(path), values, atol=6e-4)


def test_codes_are_taken_out_before_means_of_blocks(tmp_path):
  path = netcdf(tmp_path / "f.nc", first(-9999), other=first(-9999))
  coded = FIELD.copy()
  coded[:, 0, 0] = -9999
  path = netcdf(tmp_path / "g.nc", coded)
  blocks = read(path, coarsen=2, missing_value=(-9999,))
  np.testing.assert_allclose(
    blocks[:, 0, 0], (FIELD[:, 0, 1] + FIELD[:, 1, 0] + FIELD[:, 1, 1]) / 3, rtol=1e-6
  )


def test_a_code_of_one_variable_leaves_the_others_alone(tmp_path):
  path = netcdf(tmp_path / "f.nc", first(0), other=first(0))
  store = XarrayStore(path, variables=("v", "other"), missing_value="other=0")
  frames = store.read(0, 0, 1)
  assert (frames[..., 0] == 0).all() and np.isnan(frames[..., 1]).all()
  store = XarrayStore(path, variables=("v", "other"), missing_value="othr=0")
  with pytest.raises(errors.DataError, match=r"data.missing_value.*'othr'.*other"):
    store.read(0, 0, 1)


@pytest.mark.parametrize("value", [(-9999, -1e30), "-9999,-1e30", "-9999, -1e30"])
def test_every_store_takes_codes_before_anything_is_computed(tmp_path, value):
  # More digits than were typed, as float32 has them.
  fields = FIELD.copy()
  fields[:, 0, 0], fields[:, 0, 1] = -9999, np.float32(-1e30)
  np.save(tmp_path / "a.npy", fields)
  for config in (
    {"store": "array", "path": str(tmp_path / "a.npy")},
    {"store": "xarray", "path": netcdf(tmp_path / "f.nc", fields), "variables": "v"},
  ):
    data = input_pipeline.build(
      {
        **config,
        "history": 1,
        "horizon": 1,
        "missing": "mask",
        "missing_value": value,
        "split": {"by": "window", "fractions": (0.4, 0.3, 0.3)},
        "resample": {"size": (3, 3)},
        "cache": "none",
      },
      "train",
      batch_size=1,
    )
    assert data.statistics.minimum.min() > 0


def test_stores_without_the_key_are_wrapped(tmp_path):
  np.save(tmp_path / "a.npy", first(-1))
  plain = ArrayStore(str(tmp_path / "a.npy"))
  store = pickle.loads(pickle.dumps(missing.apply(plain, -1)))
  assert np.isnan(store.read(0, 0, 1)).all()
  np.testing.assert_array_equal(store.read(0, 1, 3), plain.read(0, 1, 3))
  assert missing.apply(plain, ()) is plain
  with pytest.raises(errors.DataError, match="'none'.*no such files"):
    missing.apply(plain, "none")


@pytest.mark.parametrize("value", ["abc", ("v=",), "v=x"])
def test_other_words_are_refused(value):
  with pytest.raises(errors.DataError, match=r"data.missing_value=.*-9999,-999"):
    missing.codes(value)
