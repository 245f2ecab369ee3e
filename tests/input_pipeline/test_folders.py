"""Folders of frames, and loader JSON files, as a store."""

import json
import pickle
import warnings

import numpy as np
import pytest

from input_pipeline import DataError
from input_pipeline.stores.folders import FoldersStore
from input_pipeline.stores.frame_lists import ShortSampleWarning


def _frame(sample, number, shape=(3, 5)):
  """A frame whose values tell where it comes from."""
  return np.full(shape, 100 * sample + number, np.float32)


def _make(path, lengths, shape=(3, 5)):
  for sample, length in enumerate(lengths):
    folder = path / f"sample_{sample}"
    folder.mkdir(parents=True)
    for number in range(length):
      np.save(folder / f"{number}.npy", _frame(sample, number, shape))
  return path


def _numbers(store, sequence=0):
  frames = store.read(sequence, 0, store.length(sequence))
  return frames[:, 0, 0, 0].astype(int).tolist()


def test_frames_are_read_in_the_order_of_their_numbers(tmp_path):
  store = FoldersStore(path=str(_make(tmp_path, [12, 11])))
  assert store.num_sequences == 2
  assert _numbers(store) == list(range(12))
  assert _numbers(store, 1) == list(range(100, 111))
  assert store.sample_id(1) == "sample_1"
  assert store.split_label(0) is None
  assert store.times(0) is None


@pytest.mark.parametrize(
  ("shape", "expected"),
  [((3, 5), (3, 5, 1)), ((1, 3, 5), (3, 5, 1)), ((2, 3, 5), (3, 5, 2))],
)
def test_frames_become_channels_last(tmp_path, shape, expected):
  frame = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
  (tmp_path / "s").mkdir()
  np.save(tmp_path / "s" / "0.npy", frame)
  store = FoldersStore(path=str(tmp_path))
  read = store.read(0, 0, 1)
  assert read.dtype == np.float32
  assert read.shape == (1,) + expected
  np.testing.assert_array_equal(np.moveaxis(read[0], -1, 0), frame.reshape(-1, 3, 5))
  assert len(store.variables) == expected[-1]
  assert dict(store.space.sizes) == {"y": 3, "x": 5}


def test_npz_frames_are_read_from_the_key_data(tmp_path):
  (tmp_path / "s").mkdir()
  np.savez(tmp_path / "s" / "0.npz", data=_frame(0, 7))
  assert _numbers(FoldersStore(path=str(tmp_path))) == [7]
  np.savez(tmp_path / "s" / "0.npz", other=_frame(0, 7))
  with pytest.raises(DataError, match='key "data"'):
    FoldersStore(path=str(tmp_path))


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    (dict(total_length=3), [0, 1, 2]),
    (dict(sample_start_index=4), [4, 5, 6]),
    (dict(sample_start_index=2, total_length=3), [2, 3, 4]),
    (dict(reverse=True, total_length=3), [2, 1, 0]),
    (dict(init_final_only=True), [0, 6]),
    (dict(init_final_only=True, total_length=4, sample_start_index=1), [1, 4]),
    (dict(init_final_only=True, reverse=True), [6, 0]),
  ],
)
def test_options_choose_the_frames(tmp_path, options, expected):
  store = FoldersStore(path=str(_make(tmp_path, [7])), **options)
  assert _numbers(store) == expected


def test_random_starts_are_drawn_from_the_seed(tmp_path):
  path = str(_make(tmp_path, [9] * 8))
  options = dict(sample_start_index=-1, total_length=4)

  def starts(seed):
    store = FoldersStore(path=path, selection_seed=seed, **options)
    chosen = [_numbers(store, k) for k in range(8)]
    for k, numbers in enumerate(chosen):
      assert numbers == list(range(numbers[0], numbers[0] + 4))
      assert 100 * k <= numbers[0] <= 100 * k + 5
    return [numbers[0] - 100 * k for k, numbers in enumerate(chosen)]

  assert starts(0) == starts(0)
  assert starts(0) != starts(1)
  assert len(set(starts(0))) > 1


def test_some_samples_can_be_drawn_from_the_seed(tmp_path):
  path = str(_make(tmp_path, [2] * 9))

  def names(seed):
    store = FoldersStore(path=path, num_samples=4, selection_seed=seed)
    return [store.sample_id(k) for k in range(store.num_sequences)]

  assert len(set(names(0))) == 4
  assert names(0) == names(0) != names(1)


def test_samples_that_are_too_short_are_left_out_by_name(tmp_path):
  path = str(_make(tmp_path, [5, 3, 5]))
  with pytest.warns(ShortSampleWarning, match="sample_1"):
    store = FoldersStore(path=path, sample_start_index=2, total_length=3)
  assert store.num_sequences == 2
  assert _numbers(store, 1) == [202, 203, 204]


def test_an_error_says_when_every_sample_is_too_short(tmp_path):
  path = str(_make(tmp_path, [3, 3]))
  with pytest.raises(DataError, match="total_length 4"):
    FoldersStore(path=path, total_length=4)


def test_long_enough_samples_give_no_warning(tmp_path):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    FoldersStore(path=str(_make(tmp_path, [3, 3])), total_length=3)


@pytest.mark.parametrize("name", ["0.pkl", "0.pickle"])
def test_pickled_frames_are_refused_with_the_reason(tmp_path, name):
  (tmp_path / "s").mkdir()
  (tmp_path / "s" / name).write_bytes(pickle.dumps(_frame(0, 0)))
  with pytest.raises(DataError, match="run any program.*numpy.save"):
    FoldersStore(path=str(tmp_path))


def test_an_array_of_objects_is_refused(tmp_path):
  (tmp_path / "s").mkdir()
  np.save(tmp_path / "s" / "0.npy", np.array([{}]), allow_pickle=True)
  with pytest.raises(DataError, match="no readable array"):
    FoldersStore(path=str(tmp_path))


@pytest.mark.parametrize(
  ("names", "named"), [(["0.npy", "2.npy"], "gaps"), (["0.npy", "last.npy"], "number")]
)
def test_misnumbered_frames_are_refused(tmp_path, names, named):
  (tmp_path / "s").mkdir()
  for name in names:
    np.save(tmp_path / "s" / name, _frame(0, 0))
  with pytest.raises(DataError, match=named):
    FoldersStore(path=str(tmp_path))


def test_a_frame_of_another_shape_is_named(tmp_path):
  _make(tmp_path, [2, 2])
  np.save(tmp_path / "sample_1" / "1.npy", _frame(1, 1, (4, 5)))
  store = FoldersStore(path=str(tmp_path))
  with pytest.raises(DataError, match="Frame 1 of sample sample_1"):
    store.read(1, 0, 2)


@pytest.mark.parametrize(
  ("options", "named"),
  [
    (dict(total_length=-1), "total_length"),
    (dict(sample_start_index=-2), "sample_start_index"),
    (dict(num_samples=-1), "num_samples"),
    (dict(init_final_only=True, total_length=1), "init_final_only"),
    (dict(variables=("a", "b")), "data.variables"),
  ],
)
def test_options_out_of_range_are_refused(tmp_path, options, named):
  path = str(_make(tmp_path, [3]))
  with pytest.raises(DataError, match=named):
    FoldersStore(path=path, **options)


def test_a_path_without_samples_is_refused(tmp_path):
  with pytest.raises(DataError, match="no sample folders"):
    FoldersStore(path=str(tmp_path))
  with pytest.raises(DataError, match="nowhere"):
    FoldersStore(path=str(tmp_path / "nowhere"))


def _write_json(file, content):
  file.write_text(json.dumps(content))
  return str(file)


def _splits(**parts):
  return {name: {"ratio": 0.5, "samples": samples} for name, samples in parts.items()}


def test_a_loader_json_names_samples_and_splits(tmp_path):
  _make(tmp_path, [2, 2])
  content = _splits(
    train=[["sample_1/0.npy", "sample_1/1.npy"]],
    test=[["sample_0/1.npy", "sample_0/0.npy"]],
  )
  store = FoldersStore(path=_write_json(tmp_path / "l.json", content))
  assert [store.split_label(k) for k in range(2)] == ["train", "test"]
  assert [store.sample_id(k) for k in range(2)] == ["sample_1", "sample_0"]
  assert _numbers(store, 0) == [100, 101]
  assert _numbers(store, 1) == [1, 0]


def test_two_windows_of_one_folder_have_different_names(tmp_path):
  _make(tmp_path, [4])
  files = [f"sample_0/{k}.npy" for k in range(4)]
  content = _splits(train=[files[:2], files[2:]])
  store = FoldersStore(path=_write_json(tmp_path / "l.json", content))
  assert len({store.sample_id(0), store.sample_id(1)}) == 2


@pytest.mark.parametrize("base", ["file", "working", "above", "absolute"])
def test_json_paths_are_found_wherever_they_were_typed(tmp_path, monkeypatch, base):
  data = _make(tmp_path / "sets" / "plate", [1])
  typed = {
    "file": "sample_0/0.npy",
    "above": "sets/plate/sample_0/0.npy",
    "working": "sets/plate/sample_0/0.npy",
    "absolute": str(data / "sample_0" / "0.npy"),
  }[base]
  folder = tmp_path / "elsewhere" if base == "working" else data
  folder.mkdir(exist_ok=True)
  file = _write_json(folder / "l.json", _splits(test=[[typed]]))
  elsewhere = tmp_path / "empty"
  elsewhere.mkdir()
  monkeypatch.chdir(tmp_path if base == "working" else elsewhere)
  assert _numbers(FoldersStore(path=file)) == [0]


def test_frames_may_stand_in_the_json_itself(tmp_path):
  content = _splits(train=[[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]])
  store = FoldersStore(path=_write_json(tmp_path / "l.json", content))
  np.testing.assert_array_equal(
    store.read(0, 0, 2)[..., 0], [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
  )


def test_short_samples_of_a_json_are_left_out(tmp_path):
  _make(tmp_path, [3, 2])
  content = _splits(
    train=[[f"sample_0/{k}.npy" for k in range(3)]],
    test=[[f"sample_1/{k}.npy" for k in range(2)]],
  )
  file = _write_json(tmp_path / "l.json", content)
  with pytest.warns(ShortSampleWarning, match="sample_1"):
    store = FoldersStore(path=file, total_length=3)
  assert store.num_sequences == 1


@pytest.mark.parametrize(
  ("content", "named"),
  [
    ("{", "cannot be read"),
    ("[]", "no loader JSON"),
    ('{"other": 1}', "no loader JSON"),
    ('{"train": {"ratio": 1}}', "samples"),
    ('{"train": {"samples": [["a/0.npy"]]}}', "a/0.npy"),
    ('{"train": {"samples": [["sample_0/0.npy", "sample_0/9.npy"]]}}', "9.npy"),
    ('{"train": {"samples": [["sample_0/0.pkl"]]}}', "run any program"),
    ('{"train": {"samples": [["sample_0/0.txt"]]}}', "0.txt"),
  ],
)
def test_an_unusable_json_is_refused(tmp_path, content, named):
  _make(tmp_path, [1])
  (tmp_path / "l.json").write_text(content)
  with pytest.raises(DataError, match=named):
    FoldersStore(path=str(tmp_path / "l.json"))


def test_a_json_cannot_be_thinned_out(tmp_path):
  file = _write_json(tmp_path / "l.json", _splits(train=[[[[1.0]]]]))
  with pytest.raises(DataError, match="num_samples"):
    FoldersStore(path=file, num_samples=1)
