"""SEVIR's catalogue, HDF5 files and single events, as the public format has them."""

import pickle

import h5py
import numpy as np
import pytest
from worker_processes import assert_workers_change_nothing

import input_pipeline
from input_pipeline.stores import sevir

H, W, T = 5, 6, 49
STORM = "vil/2018/SEVIR_VIL_STORMEVENTS_2018_0101_0630.h5"
RANDOM = "vil/2019/SEVIR_VIL_RANDOMEVENTS_2019_0101_0430.h5"
COLUMNS = (
  "id,file_name,file_index,img_type,time_utc,minute_offsets,episode_id,event_id,"
  "llcrnrlat,llcrnrlon,urcrnrlat,urcrnrlon,proj,size_x,size_y,height_m,width_m,"
  "data_min,data_max,pct_missing"
)
REGULAR = [*range(-120, 121, 5)]
# As seen in a true row: -40 comes twice and -35 never.
IRREGULAR = [-40 if minute == -35 else minute for minute in REGULAR]
EVENTS = (  # id, file, row, middle, offsets, episode
  ("S1", STORM, 0, "2018-03-25 05:00:00", REGULAR, "77"),
  ("S2", STORM, 1, "2018-06-01 12:30:00", IRREGULAR, "77"),
  ("R3", RANDOM, 0, "2019-02-01 00:00:00", REGULAR, ""),
  ("R4", RANDOM, 1, "2019-09-01 23:55:00", REGULAR, ""),
)
ROLL = {"history": 6, "horizon": 18, "resample": {"first": 1, "every": 2}}


def row(name, file, index, middle, offsets, episode, kind="vil"):
  offsets = ":".join(map(str, offsets))
  return (
    f"{name},{file},{index},{kind},{middle},{offsets},{episode},,30.1,-98.2,33.4,"
    '-94.1,"+proj=laea +lat_0=38 +lon_0=-98 +units=m",384,384,384000,384000,0,254,0.0'
  )


def codes(event):
  values = np.random.RandomState(event).randint(0, 255, (H, W, T)).astype(np.uint8)
  values[1, 2, 3] = 255
  return values


@pytest.fixture
def archive(tmp_path):
  """Two HDF5 files of two events each, and the catalogue."""
  rows = [COLUMNS, *(row(*event) for event in EVENTS)]
  rows.append(row("S1", "ir069/2018/SEVIR_IR069_2018.h5", 0, *EVENTS[0][3:], "ir069"))
  (tmp_path / "CATALOG.csv").write_text("\n".join(rows))
  for number, file in enumerate((STORM, RANDOM)):
    path = tmp_path / "data" / file
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as out:
      out["vil"] = np.stack([codes(2 * number), codes(2 * number + 1)])
      out["id"] = np.array([e[0] for e in EVENTS if e[1] == file], "S64")
  return tmp_path


def expected(event, frames):
  values = np.moveaxis(codes(event)[..., frames].astype(np.float32), -1, 0)[..., None]
  return np.where(values == 255, np.nan, values)


def config(path, **changes):
  return {"store": "sevir", "path": str(path), "missing": "mask", **ROLL, **changes}


def test_events_have_their_frames_times_and_splits(archive):
  store = sevir.SevirStore(str(archive))
  names = [store.sample_id(i) for i in range(store.num_sequences)]
  assert names == ["S1", "S2", "R3", "R4"]
  assert [store.event(i) for i in range(4)] == ["77", "77", "R3", "R4"]
  splits = [store.split_label(i) for i in range(4)]
  assert splits == ["train", "train", "validation", "test"]
  for event in (0, 2):
    np.testing.assert_array_equal(store.read(event, 2, 9), expected(event, range(2, 9)))
  np.testing.assert_array_equal(
    store.read_every(3, 1, 48, 2), expected(3, range(1, 48, 2))
  )
  assert store.read(0, 4, 4).shape == (0, H, W, 1)
  times = store.times(0).astype("datetime64[us]")
  assert times[0] == np.datetime64("2018-03-25T03:00:00")
  assert times[24] == np.datetime64("2018-03-25T05:00:00")  # The middle.
  np.testing.assert_array_equal(np.diff(store.times(0)), 300 * 10**6)
  again = pickle.loads(pickle.dumps(store))
  np.testing.assert_array_equal(again.read(2, 0, T), store.read(2, 0, T))


def test_a_repeated_time_is_left_out_and_no_window_crosses_the_gap(archive):
  store = sevir.SevirStore(str(archive))
  kept = [frame for frame in range(T) if frame != 17]
  np.testing.assert_array_equal(store.read(1, 0, 48), expected(1, kept))
  assert (np.diff(store.times(1)) == 300 * 10**6).sum() == 46
  assert np.diff(store.times(1))[16] == 600 * 10**6
  split = input_pipeline.build(config(archive), "train", batch_size=2, train=False)
  assert split.labels["sample_id"].values.tolist() == ["S1"]
  short = config(archive, history=3, horizon=3)
  split = input_pipeline.build(short, "train", batch_size=2, train=False)
  of_it = [n for n in split.labels["sample_id"].values if n.startswith("S2")]
  assert len(of_it) == (8 - 5) + (16 - 5)  # Of 8 and 16 frames around the gap.
  minutes = split.coordinates["lead_time"].values.astype("timedelta64[m]")
  assert minutes.astype(int).tolist() == [10, 20, 30]


@pytest.mark.parametrize(
  ("options", "code", "value"),
  [
    ({}, 254, 254),
    ({}, 255, np.nan),
    ({"keep_255": True}, 255, 255),
    ({"units": "kg m-2"}, 5, 0),
    ({"units": "kg m-2"}, 18, 16 / 90.66),
    ({"units": "kg m-2"}, 100, np.exp(16.1 / 38.9)),
    ({"units": "kg m-2"}, 255, np.nan),
  ],
)
def test_codes_have_the_values_of_the_documentation(archive, options, code, value):
  store = sevir.SevirStore(str(archive), **options)
  found = store.read(0, 0, T)[..., 0][np.moveaxis(codes(0), -1, 0) == code]
  assert found.size
  np.testing.assert_allclose(found, value, rtol=1e-6)


def single_events(folder, frames):
  """Writes the events as SynCast keeps them; gives each file's event, by name."""
  folder.mkdir()
  written = {}
  for number, (_, file, index, *_) in enumerate(EVENTS):
    year, name = file.split("/")[1:]
    written[f"vil-{year}-{name}-{index}.npy"] = number
  for name, number in written.items():
    np.save(folder / name, codes(number)[None, ..., :frames])
  return dict(sorted(written.items()))


@pytest.mark.parametrize("frames", [48, 49])
def test_single_event_files_are_the_events_of_the_catalogue(archive, frames):
  names = single_events(archive / "events", frames)
  store = sevir.SevirStore(
    str(archive / "events"), catalog=str(archive / "CATALOG.csv")
  )
  whole = sevir.SevirStore(str(archive))
  assert [store.sample_id(i) + ".npy" for i in range(4)] == list(names)
  for i, other in enumerate(names.values()):
    stop = frames - (other == 1)  # One event repeats a time.
    assert store.length(i) == stop
    np.testing.assert_array_equal(store.read(i, 0, stop), whole.read(other, 0, stop))
    np.testing.assert_array_equal(store.times(i), whole.times(other)[:stop])
    assert store.split_label(i) == whole.split_label(other)


def test_lists_name_events_of_either_layout(archive):
  names = list(single_events(archive / "events", 48))
  lists = {"train_list": names[0], "test_list": names[3]}
  for key, name in lists.items():
    (archive / key).write_text(f"# One event.\n{name}, 0.5\n\n")
    lists[key] = str(archive / key)
  alone = sevir.SevirStore(str(archive / "events"), **lists)
  assert [alone.split_label(i) for i in range(2)] == ["train", "test"]
  assert alone.num_sequences == 2 and alone.times(0) is None
  hdf5 = sevir.SevirStore(str(archive), **lists)
  for event in range(2):
    np.testing.assert_array_equal(hdf5.read(event, 0, 48), alone.read(event, 0, 48))
    assert hdf5.split_label(event) == alone.split_label(event)
  assert [hdf5.sample_id(i) for i in range(hdf5.num_sequences)] == ["S1", "R4"]


def damage(archive, what):
  """Spoils one thing; gives the options of the store."""
  catalogue, file = archive / "CATALOG.csv", archive / "data" / STORM
  if what == "no file":
    file.unlink()
  elif what == "no HDF5":
    file.write_bytes(b"nonsense")
  elif what == "other ids":
    with h5py.File(file, "r+") as out:
      out["id"][0] = b"S9"
  elif what == "other type":
    with h5py.File(file, "r+") as out:
      del out["vil"]
      out["vil"] = np.zeros((2, H, W, T), np.float32)
  elif what == "offsets":
    catalogue.write_text(catalogue.read_text().replace("-120:", ""))
  elif what == "no number":
    catalogue.write_text(catalogue.read_text().replace("-120:", "x:"))
  elif what == "columns":
    catalogue.write_text(catalogue.read_text().replace("file_index", "index"))
  elif what == "no catalogue":
    catalogue.unlink()
  elif what == "name":
    np.save(archive / "event.npy", np.zeros(3))
  elif what == "no dates":
    single_events(archive / "events", 48)
    return {"path": str(archive / "events")}
  elif what == "short event":
    names = list(single_events(archive / "events", 48))
    np.save(archive / "events" / names[3], codes(0)[None, ..., :47])
    return {"path": str(archive / "events"), "split_dates": ()}
  elif what == "pickled event":
    names = list(single_events(archive / "events", 48))
    np.save(archive / "events" / names[3], np.array([{}], object), allow_pickle=True)
    return {"path": str(archive / "events"), "split_dates": ()}
  elif what in ("stranger", "twice"):
    (archive / "a").write_text("S1\n" + "S7\n" * (what == "stranger"))
    twice = {"test_list": str(archive / "a")} if what == "twice" else {}
    return {"train_list": str(archive / "a"), **twice}
  return {}


@pytest.mark.parametrize(
  ("what", "options", "words"),
  [
    ("no file", {}, ["1 of 2 files", STORM, "data.partial"]),
    ("no HDF5", {}, [STORM, "no HDF5 file"]),
    ("other ids", {}, [STORM, "'S9' in row 0", "'S1'"]),
    ("other type", {}, [STORM, "float32"]),
    ("offsets", {}, ["49 frames", "48 minute_offsets"]),
    ("no number", {}, ["minute_offsets", "x:"]),
    ("columns", {}, ["CATALOG.csv", "file_index"]),
    ("no catalogue", {}, ["CATALOG.csv", "data.path"]),
    ("name", {}, ["event.npy", "vil-2018"]),
    ("no dates", {}, ["data.split_dates", "data.catalog", "data.train_list"]),
    ("short event", {}, ["_0430.h5-1.npy", "(1, 5, 6, 47)"]),
    ("pickled event", {}, ["_0430.h5-1.npy", "plain numbers"]),
    ("stranger", {}, ["'S7'"]),
    ("twice", {}, ["'S1'", "train split"]),
    ("", {"catalog": "no.csv"}, ["no.csv"]),
    ("", {"units": "mm"}, ["data.units", "'mm'"]),
    ("", {"units": "kg m-2", "keep_255": True}, ["data.keep_255"]),
    ("", {"split_dates": ("2019-13-01", "2020")}, ["data.split_dates"]),
    ("", {"split_dates": ("2019",)}, ["data.split_dates"]),
  ],
)
def test_what_cannot_be_used_is_named(archive, what, options, words):
  options = {"path": str(archive)} | options | damage(archive, what)
  with pytest.raises(input_pipeline.DataError) as caught:
    store = sevir.SevirStore(**options)
    for sequence in range(store.num_sequences):
      store.read(sequence, 0, 40)
  for word in words:
    assert word in str(caught.value)


@pytest.mark.slow
def test_worker_processes_read_the_same(archive):
  assert_workers_change_nothing(config(archive, history=3, horizon=3))


def test_with_partial_events_without_a_file_are_left_out(archive):
  (archive / "data" / STORM).unlink()
  store = sevir.SevirStore(str(archive), partial=True)
  assert [store.sample_id(i) for i in range(store.num_sequences)] == ["R3", "R4"]


def test_batches_have_masked_cells_and_the_fixed_scale(archive):
  changes = {"normalise": "fixed", "scale": 255}
  split = input_pipeline.build(
    config(archive, **changes), "train", batch_size=1, train=False
  )
  (batch,) = split.batches
  values = expected(0, range(1, 48, 2))
  frames = np.concatenate([batch["inputs"][0], batch["targets"][0]])
  np.testing.assert_array_equal(batch["mask"][0], np.isfinite(values))
  np.testing.assert_array_equal(frames, np.nan_to_num(values / np.float32(255)))
  with pytest.raises(input_pipeline.DataError, match=f"{STORM}.*'S1'.*data.missing"):
    input_pipeline.build(config(archive, missing="error"), "train", batch_size=1)
