"""The boiling simulator: the rule, its files and its store."""

import hashlib
import os
import pickle

import numpy as np
import pytest

from input_pipeline import DataError
from input_pipeline.simulate import boiling
from input_pipeline.stores.boiling import BoilingStore

# SHA-256 of float32 bytes made by the published generator, whose frames these
# must equal bit for bit: (seed, samples, frames, size, increment) -> hashes of
# the initial temperatures and of the frames.
_PUBLISHED = [
  (
    (0, 2, 20, 16, 10.0),
    "7beb4b5ee4ace3d41d823843d321376dfe004078663272bee844db2632d32247",
    "26f77aefc3c2bce14e197501863c276301ce095ba3dd574c202db73e27cd1cc9",
  ),
  (
    (7, 1, 45, 24, 25.0),
    "7febeca51379c3f1c740f6d13230196fd9f0390605fce8bb7ef5144c0069796c",
    "a20a51ae95400fbb48b44b030e6734de4330233a72889458ad566f22dd310d58",
  ),
  (
    (0, 60, 20, 64, 10.0),
    "9471385ccaba50d0202113925d6d68297f6889865c535d4b97d8ddf61af46edb",
    "90bf24f3a00b1bfa8e8bdb7b0d2b9b9cc10ab342c5d6ab8cccc6b623cd2e30a2",
  ),
]


def _sha256(array):
  return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize(("settings", "raw_hash", "frames_hash"), _PUBLISHED)
def test_frames_equal_the_published_generator_bit_for_bit(
  settings, raw_hash, frames_hash
):
  seed, samples, frames, size, increment = settings
  raw = boiling.initial_conditions(samples, size, seed)
  assert raw.dtype == np.float32
  assert _sha256(raw) == raw_hash
  result = boiling.simulate(raw, frames, increment)
  assert result.dtype == np.float32
  assert _sha256(result) == frames_hash


def test_a_cell_gives_all_its_heat_to_its_neighbours_across_the_edges():
  raw = np.zeros((1, 3, 5), np.float32)
  raw[0, 0, 0] = 80.0
  frames = boiling.simulate(raw, 2, increment=0.0) * boiling.BOILING_POINT
  expected = np.zeros((3, 5))
  for row in (-1, 0, 1):
    for column in (-1, 0, 1):
      expected[row, column] = 10.0
  expected[0, 0] = 0.0
  np.testing.assert_allclose(frames[0, 1], expected, atol=1e-4)


def test_a_cell_that_reaches_the_boiling_point_starts_at_zero():
  raw = np.full((1, 2, 3), 205.0, np.float32)
  frames = boiling.simulate(raw, 3, increment=7.0) * boiling.BOILING_POINT
  np.testing.assert_allclose(frames[0, :, 0, 0], [205.0, 0.0, 7.0], atol=1e-4)


def test_a_sample_does_not_depend_on_how_many_are_drawn_with_it():
  few = boiling.initial_conditions(2, (5, 7), seed=3)
  many = boiling.initial_conditions(6, (5, 7), seed=3)
  np.testing.assert_array_equal(many[:2], few)
  np.testing.assert_array_equal(
    boiling.simulate(many, 9)[1], boiling.simulate(few[1:], 9)[0]
  )


def test_another_seed_gives_other_plates():
  first = boiling.initial_conditions(1, 6, seed=0)
  assert not np.array_equal(first, boiling.initial_conditions(1, 6, seed=1))


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (dict(num_samples=1, image_size=1), "image_size"),
    (dict(num_samples=1, image_size=(4, 1)), "image_size"),
    (dict(num_samples=1, image_size=(4, 4, 4)), "image_size"),
    (dict(num_samples=1, image_size=4.5), "image_size"),
    (dict(num_samples=0, image_size=4), "num_samples"),
    (dict(num_samples=1, image_size=4, seed=-1), "seed"),
  ],
)
def test_initial_conditions_out_of_range_are_refused(arguments, named):
  with pytest.raises(DataError, match=named):
    boiling.initial_conditions(**arguments)


@pytest.mark.parametrize(
  ("raw", "frames", "increment", "named"),
  [
    (np.zeros((3, 4)), 2, 10.0, "sample, height, width"),
    (np.zeros((1, 1, 4)), 2, 10.0, "image_size"),
    (np.zeros((1, 3, 4)), 0, 10.0, "num_frames"),
    (np.zeros((1, 3, 4)), 2, float("nan"), "increment"),
    (np.zeros((1, 3, 4)), 2, -1.0, "increment"),
    (np.full((1, 3, 4), 213.0), 2, 10.0, "212"),
    (np.full((1, 3, 4), np.nan), 2, 10.0, "NaN"),
  ],
)
def test_a_simulation_out_of_range_is_refused(raw, frames, increment, named):
  with pytest.raises(DataError, match=named):
    boiling.simulate(raw, frames, increment)


def _run(path, samples=2, frames=4, seed=0, increment=10.0):
  boiling.main([
    f"--path={path}", f"--num_samples={samples}", f"--num_frames={frames}",
    "--image_size", "3", "5", f"--seed={seed}", f"--increment={increment}",
  ])  # fmt: skip


def test_the_command_writes_a_folder_of_frames_per_sample(tmp_path, capsys):
  _run(tmp_path, samples=2, frames=12)
  raw = boiling.initial_conditions(2, (3, 5), seed=0)
  frames = boiling.simulate(raw, 12)
  folders = [f"{_sha256(raw[k])}_boiling_{k}" for k in range(2)]
  assert sorted(os.listdir(tmp_path)) == sorted(folders)
  for k, folder in enumerate(folders):
    assert len(os.listdir(tmp_path / folder)) == 12
    for number in range(12):
      frame = np.load(tmp_path / folder / f"{number}.npy")
      assert frame.dtype == np.float32
      np.testing.assert_array_equal(frame, frames[k, number][None])
  assert "2 samples written" in capsys.readouterr().out


def test_the_command_adds_samples_and_keeps_finished_ones(tmp_path, capsys):
  _run(tmp_path, samples=2)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")}
  _run(tmp_path, samples=3)
  _run(tmp_path, samples=1, seed=5)
  assert len(list(tmp_path.iterdir())) == 4
  assert all(p.stat().st_mtime_ns == t for p, t in before.items())
  assert "1 samples written, 2 were there" in capsys.readouterr().out


def test_the_command_finishes_a_folder_with_only_an_initial_frame(tmp_path):
  raw = boiling.initial_conditions(1, (3, 5), seed=0)
  folder = tmp_path / f"{_sha256(raw[0])}_boiling_0"
  folder.mkdir()
  np.save(folder / "0.npy", raw)
  _run(tmp_path, samples=1)
  np.testing.assert_array_equal(
    np.load(folder / "3.npy")[0], boiling.simulate(raw, 4)[0, 3]
  )


@pytest.mark.parametrize(
  ("change", "named"),
  [({"frames": 5}, "num_frames"), ({"increment": 11.0}, "increment")],
)
def test_frames_made_with_other_settings_are_not_mixed(tmp_path, capsys, change, named):
  _run(tmp_path)
  with pytest.raises(SystemExit):
    _run(tmp_path, **change)
  assert named in capsys.readouterr().err


def test_a_write_that_fails_leaves_no_folder(tmp_path, monkeypatch):
  save = np.save

  def fail_at_the_third(file, array):
    if os.fspath(file).endswith("2.npy"):
      raise OSError("disk full")
    save(file, array)

  monkeypatch.setattr(np, "save", fail_at_the_third)
  with pytest.raises(OSError, match="disk full"):
    _run(tmp_path)
  assert not list(tmp_path.iterdir())


_SMALL = dict(num_samples=3, num_frames=6, image_size=(4, 6))


def test_the_store_gives_the_simulated_frames():
  store = BoilingStore(**_SMALL, simulation_seed=2, increment=30.0)
  frames = boiling.simulate(boiling.initial_conditions(3, (4, 6), seed=2), 6, 30.0)
  assert store.num_sequences == 3
  assert store.length(1) == 6
  assert store.times(1) is None
  np.testing.assert_array_equal(store.read(1, 2, 5), frames[1, 2:5, ..., None])
  assert store.read(1, 2, 5).dtype == np.float32
  assert [v.name for v in store.variables] == ["temperature"]
  assert store.variables[0].attrs["units"] == "1"
  assert dict(store.space.sizes) == {"y": 4, "x": 6}
  assert len({store.sample_id(k) for k in range(3)}) == 3


def test_a_cached_store_reads_its_file_and_survives_pickling(tmp_path, monkeypatch):
  first = BoilingStore(**_SMALL, cache_dir=str(tmp_path))
  monkeypatch.setattr(boiling, "simulate", lambda *_: pytest.fail("simulated"))
  again = BoilingStore(**_SMALL, cache_dir=str(tmp_path))
  message = pickle.dumps(again)
  assert len(message) < 2000
  sent = pickle.loads(message)
  for k in range(3):
    np.testing.assert_array_equal(again.read(k, 0, 6), first.read(k, 0, 6))
    np.testing.assert_array_equal(sent.read(k, 0, 6), first.read(k, 0, 6))
  assert len(list(tmp_path.iterdir())) == 1


def test_stores_of_other_settings_never_share_a_cached_file(tmp_path):
  for change in (
    {}, {"num_frames": 5}, {"image_size": (6, 4)}, {"increment": 10.0000001},
    {"simulation_seed": 1},
  ):  # fmt: skip
    BoilingStore(**{**_SMALL, **change}, cache_dir=str(tmp_path))
  assert len(list(tmp_path.iterdir())) == 5


def test_a_damaged_cached_file_is_named(tmp_path):
  BoilingStore(**_SMALL, cache_dir=str(tmp_path))
  file = next(tmp_path.iterdir())
  file.write_bytes(b"nonsense")
  with pytest.raises(DataError, match=file.name):
    BoilingStore(**_SMALL, cache_dir=str(tmp_path))
