"""MeteoNet's archives, in the very bytes of the published ones, and numbered files."""

import contextlib
import datetime
import io
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from worker_processes import assert_workers_change_nothing

import input_pipeline
from input_pipeline.stores import meteonet, npz

H, W = 4, 6
MINUTE = datetime.timedelta(minutes=1)
MONTHS = {"2016_08.3": (2016, 8, 28, 10), "2016_09.1": (2016, 9, 1, 0)}


def pickled(values, protocol=3, wrapped=lambda array: array):
  """An object array, or what it is wrapped in, as numpy 1 wrote .npy files."""
  array = np.empty(len(values), object)
  array[:] = values
  out = io.BytesIO()
  header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
  np.lib.format.write_array_header_1_0(out, header)
  content = pickle.dumps(wrapped(array), protocol=protocol)
  if protocol < 4:
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
  return out.getvalue() + content


def plain(array):
  out = io.BytesIO()
  np.save(out, array)
  return out.getvalue()


def write(path, data, dates, compression=zipfile.ZIP_DEFLATED, **others):
  """Writes an archive of `data` and pickled `dates`, or of bytes as they are."""
  members = {"data": data, "dates": dates, "miss_dates": dates, **others}
  with zipfile.ZipFile(path, "w", compression) as archive:
    for name, value in members.items():
      if not isinstance(value, bytes):
        value = plain(value) if isinstance(value, np.ndarray) else pickled(value)
      archive.writestr(f"{name}.npy", value)


def moments(start, minutes):
  return [datetime.datetime(*start) + minute * MINUTE for minute in minutes]


def fields(seed, count, high=300):
  data = np.random.RandomState(seed).randint(0, high, (count, H, W)).astype(np.int16)
  data[:, 1, 2] = -1
  return data


@pytest.fixture
def archive(tmp_path):
  """Two files: 6 frames, a gap, 5 frames; and 7 frames. Gives path and data."""
  minutes = [*range(0, 30, 5), *range(60, 85, 5)]
  data = fields(0, 11), fields(1, 7)
  for (name, start), part, steps in zip(
    MONTHS.items(), data, (minutes, range(0, 35, 5)), strict=True
  ):
    folder = tmp_path / "NW" / name
    folder.mkdir(parents=True)
    write(folder / f"rainfall_NW_{name}.npz", part, moments(start, steps))
  lats, lons = 51.9 - 0.01 * np.arange(H), -5.8 + 0.01 * np.arange(W)
  np.savez(
    tmp_path / "radar_coords_NW.npz",
    lats=np.repeat(lats[:, None], W, 1),
    lons=np.repeat(lons[None], H, 0),
  )
  return tmp_path, np.concatenate(data)


def config(path, **changes):
  return {
    "store": "meteonet",
    "path": str(path),
    "missing": "mask",
    "history": 2,
    "horizon": 2,
    "split": {"ranges": {"train": (("0", 0, None),)}},
    **changes,
  }


def test_files_are_one_sequence_and_no_window_crosses_a_gap(archive):
  path, data = archive
  store = meteonet.MeteonetStore(str(path))
  assert store.num_sequences == 1 and store.length(0) == 18
  rates = np.where(data < 0, np.nan, data * np.float32(0.12))[..., None]
  np.testing.assert_allclose(store.read(0, 8, 14), rates[8:14], rtol=1e-6)
  np.testing.assert_allclose(store.read(0, 0, 18), rates, rtol=1e-6)
  assert store.read(0, 3, 3).shape == (0, H, W, 1)
  assert store.times(0)[6] == np.datetime64("2016-08-28T11:00", "us").astype(int)
  assert store.variables[0].attrs["units"] == "mm h-1"
  split = input_pipeline.build(config(path), "train", batch_size=1, train=False)
  starts = split.labels["start"].values.tolist()
  assert starts == [0, 1, 2, 6, 7, 11, 12, 13, 14]
  np.testing.assert_allclose(split.coordinates["lat"], [51.9, 51.89, 51.88, 51.87])
  assert split.coordinates["lon"].attrs["units"] == "degrees_east"
  (batch, *_) = split.batches
  assert not batch["mask"][:, :, 1, 2].any()
  assert batch["mask"].sum() == 4 * (H * W - 1)
  again = pickle.loads(pickle.dumps(store))
  np.testing.assert_array_equal(again.read(0, 5, 13), store.read(0, 5, 13))


@pytest.mark.slow
def test_worker_processes_read_the_same(archive):
  assert_workers_change_nothing(config(archive[0]))


def test_reflectivities_are_classes_of_which_255_is_missing(tmp_path):
  data = np.full((2, H, W), 19, np.uint8)
  data[1, 2, 3] = 255
  name = "reflectivity_old_SE_2016_01.1.npz"
  write(tmp_path / name, data, moments((2016, 1, 1), (0, 5)))
  with pytest.warns(UserWarning, match="radar_coords_SE.npz"):
    store = meteonet.MeteonetStore(str(tmp_path), "SE", "reflectivity_old")
  expected = np.where(data == 255, np.nan, 19)[..., None]
  np.testing.assert_array_equal(store.read(0, 0, 2), expected)
  assert store.variables[0].attrs["units"] == "dBZ"


def test_numbered_files_are_sequences_with_splits_by_number(tmp_path):
  frames = np.random.RandomState(0).rand(5, 6, H, W).astype(np.float32)
  frames[1, 0, 0, 0] = np.nan
  numbers = (9, 10, 11, 100, 2)
  for number, values in zip(numbers, frames, strict=True):
    np.save(tmp_path / f"{number}.npy", values)
  store = meteonet.MeteonetStore(str(tmp_path), numbered_splits=(10, 100))
  found = [(store.sample_id(i), store.split_label(i)) for i in range(5)]
  assert found == [
    ("2", "train"),
    ("9", "train"),
    ("10", "validation"),
    ("11", "validation"),
    ("100", "test"),
  ]
  np.testing.assert_array_equal(store.read(2, 1, 4)[..., 0], frames[1, 1:4])
  split = input_pipeline.build(
    config(tmp_path, numbered_splits=(10, 100), numbered_step="10min", split={}),
    "test",
    batch_size=1,
  )
  leads = split.coordinates["lead_time"].values.astype("timedelta64[m]").astype(int)
  assert leads.tolist() == [10, 20] and split.num_examples == 3


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_dates_are_read_from_every_form_that_numpy_wrote(tmp_path, protocol):
  expected = moments((2018, 12, 31, 23, 55, 7), range(0, 1500, 5))
  expected[7] = expected[6]  # One object twice.
  path = tmp_path / "a.npz"
  write(path, np.zeros(1), pickled(expected, protocol))
  dates = npz.dates(str(path), "dates")
  assert dates.astype("datetime64[s]").tolist() == expected
  write(path, np.zeros(1), np.array(expected, "datetime64[ns]"))
  np.testing.assert_array_equal(npz.dates(str(path), "dates"), dates)


class Harmful:
  """Writes a file if it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 3, 5])
@pytest.mark.parametrize("place", ["item", "whole", "beside"])
def test_a_harmful_pickle_is_refused_and_never_run(tmp_path, place, protocol):
  harm, path = tmp_path / "harm", tmp_path / "rainfall_NW_2016_08.3.npz"
  good = datetime.datetime(2016, 8, 21)
  dates = [good, Harmful(harm) if place == "item" else good]
  wrapped = {
    "item": lambda array: array,
    "whole": lambda array: Harmful(harm),
    "beside": lambda array: (array, {"more": Harmful(harm)}),
  }
  write(path, fields(0, 2), pickled(dates, protocol, wrapped[place]))
  with np.load(path, allow_pickle=True) as archive, contextlib.suppress(Exception):
    archive["dates"]
  assert harm.exists()  # So it would do harm.
  harm.unlink()
  with pytest.raises(input_pipeline.DataError) as caught:
    meteonet.MeteonetStore(str(tmp_path))
  assert str(path) in str(caught.value) and "'dates'" in str(caught.value)
  assert not harm.exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_rows_are_read_from_any_place(tmp_path, monkeypatch, compression):
  monkeypatch.setattr(npz, "_PIECE", 100)
  monkeypatch.setattr(npz, "_SPACING", 1000)
  data = fields(3, 200)
  write(tmp_path / "a.npz", data, [], compression)
  rows = npz.Rows(str(tmp_path / "a.npz"), "data")
  random = np.random.RandomState(0)
  for _ in range(100):
    start, stop = np.sort(random.randint(0, 201, 2))
    np.testing.assert_array_equal(rows.read(start, stop), data[start:stop])
  again = pickle.loads(pickle.dumps(rows))
  np.testing.assert_array_equal(again.read(150, 160), data[150:160])


def test_reading_goes_on_near_the_rows_that_were_read_before(tmp_path, monkeypatch):
  monkeypatch.setattr(npz, "_PIECE", 100)
  monkeypatch.setattr(npz, "_SPACING", 1000)
  write(tmp_path / "a.npz", fields(3, 2000), [])
  rows = npz.Rows(str(tmp_path / "a.npz"), "data")
  rows.read(1990, 2000)
  opened = []

  class Counting(io.FileIO):
    def read(self, size=-1):
      opened.append(size)
      return super().read(size)

  monkeypatch.setattr("builtins.open", lambda path, mode: Counting(path))
  for start in (1980, 1000, 3):
    opened.clear()
    rows.read(start, start + 1)
    assert len(opened) < 25  # Of some 600 pieces.


@pytest.mark.parametrize(
  ("what", "options", "words"),
  [
    ("no zip", {}, ["rainfall_NW_2016_08.3.npz", "no readable"]),
    ("cut", {}, ["rainfall_NW_2016_08.3.npz"]),
    ("bytes", {}, ["rainfall_NW_2016_08.3.npz"]),
    ("no data", {}, ["rainfall_NW_2016_08.3.npz", "'dates'", "rain"]),
    ("numbers", {}, ["'dates'", "int64"]),
    ("texts", {}, ["'dates'", "other things than dates"]),
    ("zone of time", {}, ["'dates'"]),
    ("few", {}, ["rainfall_NW_2016_08.3.npz", "(11, 4, 6)", "2 dates"]),
    ("other grid", {}, ["rainfall_NW_2016_09.1.npz", "(7, 3, 6)"]),
    ("same times", {}, ["rainfall_NW_2016_09.1.npz", "begins before"]),
    ("twice", {}, ["same name"]),
    ("coordinates", {}, ["radar_coords_NW.npz", "(2, 2)"]),
    ("", {"zone": "SE"}, ["rainfall_SE_", "data.zone"]),
    ("", {"product": "rain"}, ["data.product", "'rainfall'"]),
    ("numbered", {"numbered_step": "soon"}, ["data.numbered_step", "'soon'"]),
    ("numbered", {"numbered_splits": (3,)}, ["data.numbered_splits"]),
    ("numbered", {}, ["2.npy", "(3, 3, 3)"]),
  ],
)
def test_what_cannot_be_used_is_named(archive, what, options, words):
  folder, _ = archive
  first, second = (folder / "NW" / n / f"rainfall_NW_{n}.npz" for n in MONTHS)
  early = moments(MONTHS["2016_08.3"], range(0, 55, 5))
  utc = [moment.replace(tzinfo=datetime.UTC) for moment in early]
  data, content = fields(0, 11), first.read_bytes()
  made = {
    "no zip": lambda: first.write_bytes(b"none"),
    "cut": lambda: first.write_bytes(content[:1000]),
    "bytes": lambda: first.write_bytes(content[:60] + bytes(200) + content[260:]),
    "no data": lambda: np.savez(first, rain=data),
    "numbers": lambda: write(first, data, np.arange(11)),
    "texts": lambda: write(first, data, ["2016"] * 11),
    "zone of time": lambda: write(first, data, utc),
    "few": lambda: write(first, data, early[:2]),
    "other grid": lambda: write(
      second, fields(0, 7)[:, :3], moments(MONTHS["2016_09.1"], range(7))
    ),
    "same times": lambda: write(second, data, early),
    "twice": lambda: (folder / first.name).write_bytes(content),
    "coordinates": lambda: np.savez(
      folder / "radar_coords_NW.npz", lats=np.zeros((2, 2)), lons=np.zeros((2, 2))
    ),
    "numbered": lambda: [
      np.save(folder / f"{n}.npy", np.zeros((4 - n // 2, 3, 3))) for n in (0, 2)
    ],
  }
  made.get(what, lambda: None)()
  with pytest.raises(input_pipeline.DataError) as caught:
    store = meteonet.MeteonetStore(str(folder), **options)
    for sequence in range(store.num_sequences):
      store.read(sequence, 0, 3)
  for word in words:
    assert word in str(caught.value)
