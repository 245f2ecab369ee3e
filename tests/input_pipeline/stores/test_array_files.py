"""Several array files as sequences of one store."""

import pickle

import numpy as np
import pytest

import input_pipeline
from input_pipeline import errors
from input_pipeline.stores.array import ArrayStore


def save(tmp_path, **arrays):
  paths = []
  for name, array in arrays.items():
    paths.append(str(tmp_path / f"{name}.npy"))
    np.save(paths[-1], array)
  return tuple(paths)


def frames(length, dtype=np.float32, seed=0):
  return np.random.RandomState(seed).randint(0, 99, (length, 5, 3)).astype(dtype)


@pytest.mark.parametrize("join", [tuple, list, ", ".join])
def test_each_file_is_a_sequence_named_after_it(tmp_path, join):
  old, new = frames(9), frames(6, np.int32, seed=1)
  paths = save(tmp_path, model=old, reanalysis=new)
  store = pickle.loads(pickle.dumps(ArrayStore(join(paths))))
  assert store.num_sequences == 2 and store.files == paths
  assert [store.length(i) for i in range(2)] == [9, 6]
  assert [store.sample_id(i) for i in range(2)] == ["model", "reanalysis"]
  np.testing.assert_array_equal(store.read(0, 4, 9)[..., 0], old[4:9])
  np.testing.assert_array_equal(store.read(1, 1, 4)[..., 0], new[1:4])
  assert paths[1] in store.location(1)


def test_files_of_several_sequences_give_them_all(tmp_path):
  arrays = {"a": np.stack([frames(7), frames(7, seed=1)]), "b": frames(4, seed=2)[None]}
  store = ArrayStore(save(tmp_path, **arrays))
  assert [store.sample_id(i) for i in range(3)] == ["a/0", "a/1", "b"]
  assert [store.length(i) for i in range(3)] == [7, 7, 4]
  np.testing.assert_array_equal(store.read(1, 2, 5)[..., 0], arrays["a"][1, 2:5])
  np.testing.assert_array_equal(store.read(2, 0, 4)[..., 0], arrays["b"][0])


def test_one_file_keeps_its_numbers_as_names(tmp_path):
  (path,) = save(tmp_path, a=np.stack([frames(7), frames(7)]))
  store = ArrayStore((path,))
  assert [store.sample_id(i) for i in range(2)] == ["0", "1"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
  paths = []
  for year in ("2019", "2020"):
    (tmp_path / year).mkdir()
    paths += save(tmp_path / year, speed=frames(5))
  store = ArrayStore(paths)
  assert [store.sample_id(i) for i in range(2)] == ["2019/speed", "2020/speed"]


def test_a_file_whose_name_has_a_comma_is_one_file(tmp_path):
  (path,) = save(tmp_path, **{"a,b": frames(5)})
  assert ArrayStore(path).files == (path,)


def test_each_file_has_its_own_first_time(tmp_path):
  paths = save(tmp_path, model=frames(3), reanalysis=frames(4))
  for first_time in (("1850-01-01", "1940-03-01"), "1850-01-01, 1940-03-01"):
    store = ArrayStore(paths, step="MS", first_time=first_time)
    for sequence, (first, stop) in enumerate(
      [("1850-01", "1850-04"), ("1940-03", "1940-07")]
    ):
      months = np.arange(first, stop, dtype="datetime64[M]")
      np.testing.assert_array_equal(
        store.times(sequence).astype("datetime64[us]"), months
      )


def test_months_without_dates_are_a_step_of_months(tmp_path):
  (path,) = save(tmp_path, a=frames(30))
  assert ArrayStore(path, step="2MS").step == np.timedelta64(2, "M")
  coordinates = input_pipeline.build(
    {"store": "array", "path": path, "step": "2MS", "history": 2, "horizon": 2},
    "test",
    batch_size=1,
  ).coordinates
  assert coordinates["lead_time"].values.tolist() == [2, 4]
  assert "months" in coordinates["lead_time"].attrs["long_name"]


@pytest.mark.parametrize(
  ("second", "options", "words"),
  [
    (
      np.zeros((4, 5, 2)),
      {},
      ["b.npy has H=5, W=2", "a.npy has H=5, W=3", "data.path"],
    ),
    (np.zeros((4, 5)), {}, ["b.npy", "data.layout='THW'"]),
    (np.zeros((4, 5, 3), "U1"), {}, ["b.npy", "<U1", "data.path"]),
    (
      np.zeros((4, 5, 3)),
      {"step": "1h", "first_time": "2000-01-01"},
      ["data.first_time='2000-01-01'", "1 times for 2 files"],
    ),
    (
      np.zeros((4, 5, 3)),
      {"step": "1h", "first_time": ("2000",) * 3},
      ["3 times for 2 files"],
    ),
    (
      np.zeros((4, 5, 3)),
      {"step": "1h", "first_time": ("2000", "now then")},
      ["b.npy", "data.first_time='now then'"],
    ),
    (np.zeros((4, 5, 3)), {"step": "0h"}, ["data.step='0h'", "positive"]),
  ],
)
def test_files_that_do_not_fit_are_named_with_the_field(
  tmp_path, second, options, words
):
  paths = save(tmp_path, a=frames(6), b=second)
  with pytest.raises(errors.DataError) as caught:
    ArrayStore(paths, **{"layout": "THW", **options})
  for word in words:
    assert word in str(caught.value)


def test_a_file_that_is_missing_or_named_twice_is_told(tmp_path):
  paths = save(tmp_path, a=frames(6))
  with pytest.raises(errors.DataError, match="no file.*gone.npy.*data.path"):
    ArrayStore((*paths, str(tmp_path / "gone.npy")))
  with pytest.raises(errors.DataError, match="a.npy more than once"):
    ArrayStore(paths * 2)
