"""One netCDF file of several variables for each year."""

import pickle

import numpy as np
import pytest
import xarray as xr
from worker_processes import assert_workers_change_nothing

import input_pipeline
from input_pipeline import DataError
from input_pipeline.stores.year_files import YearFilesStore

LENGTHS = {1980: 5, 1981: 7, 1983: 6}
LABELS = ["t500", "t850", "z500", "sst"]
H, W = 3, 4


def fields(year, count):
  return np.random.RandomState(year).rand(count, len(LABELS), H, W).astype(np.float32)


def dataset(year, count, labels=LABELS, dated=False):
  coords = {"lat": np.linspace(60, -60, H), "lon": 90.0 * np.arange(W)}
  if labels:
    coords["level"] = labels
  if dated:
    coords["time"] = np.datetime64(f"{year}-01-01", "ns") + np.arange(
      count
    ) * np.timedelta64(6, "h")
  dims = ("time", "level", "lat", "lon")
  return xr.Dataset({"atmosphere_variables": (dims, fields(year, count))}, coords)


def write(path, data, year, name="{year}_norm.nc", **encoding):
  encodings = {"atmosphere_variables": encoding} if encoding else None
  file = path / name.replace("{year}", str(year))
  data.to_netcdf(file, engine="h5netcdf", encoding=encodings)
  return str(path)


def years(path, **options):
  for year, count in LENGTHS.items():
    write(path, dataset(year, count, **options), year)
  return str(path)


def expected(year, positions=slice(None)):
  return np.moveaxis(fields(year, LENGTHS[year])[:, positions], 1, -1)


def config(path, **changes):
  return {
    "store": "year_files",
    "path": str(path),
    "train_years": (1980, 1983),
    "test_years": (1981,),
    "history": 2,
    "horizon": 1,
    "normalise": "none",
    **changes,
  }


def test_each_year_is_a_sequence_that_windows_do_not_leave(tmp_path):
  split = input_pipeline.build(
    config(years(tmp_path)), "train", batch_size=1, train=False
  )
  places = [(1980, t) for t in range(3)] + [(1983, t) for t in range(4)]
  assert split.labels["sample_id"].values.tolist() == [
    f"{year}/{start:05}" for year, start in places
  ]
  for (year, start), batch in zip(places, split.batches, strict=True):
    frames = expected(year)[start : start + 3]
    np.testing.assert_array_equal(batch["inputs"][0], frames[:2])
    np.testing.assert_array_equal(batch["targets"][0], frames[2:])
  assert list(split.coordinates.data_vars) == LABELS
  np.testing.assert_array_equal(split.coordinates["lat"], [60, 0, -60])
  test = input_pipeline.build(config(tmp_path), "test", batch_size=1)
  ids = test.labels["sample_id"].values.tolist()
  assert ids == [f"1981/{start:05}" for start in range(5)]


def test_without_lists_all_years_are_read_and_the_config_deals_them_out(tmp_path):
  path = years(tmp_path)
  (tmp_path / "notes_norm.nc").write_text("no year")
  store = YearFilesStore(path)
  assert [store.sample_id(i) for i in range(store.num_sequences)] == [
    "1980",
    "1981",
    "1983",
  ]
  assert store.split_label(0) is None and store.times(0) is None
  ranges = {"train": (("1981", 0, 4),), "test": (("1981", 4, None),)}
  changes = {"train_years": (), "test_years": (), "split": {"ranges": ranges}}
  split = input_pipeline.build(config(path, **changes), "test", batch_size=1)
  assert split.num_examples == 1


@pytest.mark.parametrize(
  ("labels", "variables", "positions", "names"),
  [
    (LABELS, (), [0, 1, 2, 3], LABELS),
    (LABELS, ("sst", "t850"), [3, 1], ["sst", "t850"]),
    (LABELS, (2, 0, "sst"), [2, 0, 3], ["z500", "t500", "sst"]),
    (LABELS, "t850, 3", [1, 3], ["t850", "sst"]),
    (None, (), [0, 1, 2, 3], [f"channel_{n}" for n in range(4)]),
    (None, (3, 1), [3, 1], ["channel_3", "channel_1"]),
    (None, 2, [2], ["channel_2"]),
    ([3, 2, 1, 0], (3, 0), [0, 3], ["3", "0"]),
  ],
)
def test_variables_are_chosen_by_label_or_by_number(
  tmp_path, labels, variables, positions, names
):
  store = YearFilesStore(years(tmp_path, labels=labels), variables=variables)
  assert list(store.names) == names
  np.testing.assert_array_equal(store.read(1, 2, 6), expected(1981, positions)[2:6])
  again = pickle.loads(pickle.dumps(store))
  np.testing.assert_array_equal(again.read(2, 0, 6), expected(1983, positions))
  assert store.read(0, 2, 2).shape == (0, H, W, len(names))


@pytest.mark.parametrize("steps", [(1, 3, 5), (4, 0), (5,)])
def test_some_frames_of_each_year_are_kept_as_far_as_it_goes(tmp_path, steps):
  store = YearFilesStore(years(tmp_path, dated=True), time_steps=steps)
  kept_of = {y: [t for t in steps if t < count] for y, count in LENGTHS.items()}
  left = {str(year): kept for year, kept in kept_of.items() if kept}
  assert [store.sample_id(i) for i in range(store.num_sequences)] == list(left)
  for sequence, kept in enumerate(left.values()):
    year = int(store.sample_id(sequence))
    assert store.length(sequence) == len(kept)
    frames = store.read(sequence, 0, len(kept))
    np.testing.assert_array_equal(frames, expected(year)[kept])
    first = np.datetime64(f"{year}-01-01", "us").astype(int)
    assert store.times(sequence).tolist() == [
      first + 6 * 3600 * 10**6 * t for t in kept
    ]


def test_missing_cells_are_masked_whatever_stands_for_them(tmp_path):
  data = {year: dataset(year, count) for year, count in LENGTHS.items()}
  places = {1980: [(0, 0, 0, 0), (1, 2, 1, 1)], 1981: [(3, 2, 1, 2)], 1983: []}
  for year, cells in places.items():
    for cell in cells:
      data[year]["atmosphere_variables"].values[cell] = np.nan
  # NetCDF's own fill value, in a file that names none.
  data[1980]["atmosphere_variables"].values[places[1980][1]] = 9.969209968386869e36
  for year in LENGTHS:
    fill = np.float32(-999) if year == 1981 else None
    write(tmp_path, data[year], year, _FillValue=fill)
  store = YearFilesStore(str(tmp_path))
  for sequence, year in enumerate(LENGTHS):
    frames = np.moveaxis(store.read(sequence, 0, LENGTHS[year]), -1, 1)
    assert list(map(tuple, np.argwhere(np.isnan(frames)))) == places[year]
  changes = {"train_years": (1980,), "missing": "mask", "split": {"by": "sample"}}
  split = input_pipeline.build(
    config(tmp_path, **changes), "train", batch_size=1, train=False
  )
  batch = next(iter(split.batches))
  assert np.argwhere(~batch["mask"][0]).tolist() == [[0, 0, 0, 0], [1, 1, 1, 2]]
  assert batch["inputs"][0, 0, 0, 0, 0] == batch["inputs"][0, 1, 1, 1, 2] == 0
  changes["missing"] = "error"
  with pytest.raises(DataError, match="1980_norm.nc, frame 0, variable 't500'"):
    input_pipeline.build(config(tmp_path, **changes), "train", batch_size=1)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"train_years": (1980, 1982)}, "no file .*1982_norm.nc.*data.train_years"),
    ({"test_years": (1984,)}, "no file .*1984_norm.nc.*data.test_years"),
    ({"train_years": 1980, "test_years": (1980,)}, "test_years names 1980.*train"),
    ({"train_years": ("1980",)}, "data.train_years=.'1980'"),
    ({"time_steps": (1, -1)}, "data.time_steps=.1, -1"),
    (
      {"time_steps": (9,)},
      "6 frames in .*1983_norm.nc, and data.time_steps=.9,. keeps none",
    ),
    ({"file_pattern": "norm.nc"}, "data.file_pattern='norm.nc'"),
    ({"file_pattern": "{year}.nc"}, "no file like 1979.nc.*data.file_pattern"),
    (
      {"array": "atmosphere"},
      "data.array. in .*1980_norm.nc.*did you mean 'atmosphere_variables'",
    ),
    ({"array": "flat"}, "1980_norm.nc: flat is float32 with the dimensions lat"),
    ({"variables": ("t501",)}, "1980_norm.nc .atmos.*'t501'.*did you mean.*'t500'"),
    ({"variables": (4,)}, "data.variables.*a number below 4. of .*'4'.*known: sst"),
    ({"variables": (3, "sst")}, "'sst'.*twice"),
  ],
)
def test_bad_options_are_refused_by_name(tmp_path, options, message):
  path = years(tmp_path)
  data = dataset(1980, 5).assign(flat=("lat", np.zeros(H, np.float32)))
  write(tmp_path, data, 1980)
  with pytest.raises(DataError, match=message):
    YearFilesStore(path, **options)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      lambda d: d.isel(lat=slice(2)),
      "1981_norm.nc: atmosphere_variables has the sizes .*'lat': 2.*in .*1980_norm.nc",
    ),
    (
      lambda d: d.isel(level=slice(3)),
      "1981_norm.nc: atmosphere_variables has the sizes .*'level': 3",
    ),
    (lambda d: d.transpose("time", "lat", "lon", "level"), "1981_norm.nc.*the sizes"),
    (
      lambda d: d.assign_coords(lat=d.lat + 1),
      "1981_norm.nc.*other coordinates of 'lat' and 'lon'",
    ),
    (
      lambda d: d.isel(level=slice(None, None, -1)),
      "1981_norm.nc.*other labels of 'level'",
    ),
    (lambda d: d.rename(atmosphere_variables="fields"), "data.array. in .*1981_norm"),
  ],
)
def test_a_year_that_differs_from_the_first_is_named(tmp_path, change, message):
  path = years(tmp_path)
  write(tmp_path, change(dataset(1981, 7)), 1981)
  with pytest.raises(DataError, match=message):
    YearFilesStore(path)


def test_names_of_files_and_arrays_are_options(tmp_path):
  data = dataset(1980, 5).rename(atmosphere_variables="x")
  write(tmp_path, data, 1980, name="era_{year}.nc")
  store = YearFilesStore(str(tmp_path), file_pattern="era_{year}.nc", array="x")
  np.testing.assert_array_equal(store.read(0, 0, 5), expected(1980))
  assert store.location(0).endswith("era_1980.nc")


@pytest.mark.slow
def test_worker_processes_read_the_same(tmp_path):
  assert_workers_change_nothing(config(years(tmp_path, dated=True)))
