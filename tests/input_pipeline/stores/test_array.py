"""Array files in every layout."""

import pickle

import numpy as np
import pytest

from input_pipeline import errors
from input_pipeline.stores.array import ArrayStore

# [N, T, H, W, C]
DATA = np.random.RandomState(0).rand(2, 7, 5, 3, 4).astype(np.float32)


def save(tmp_path, array):
  path = tmp_path / "a.npy"
  np.save(path, array)
  return str(path)


@pytest.mark.parametrize(
  ("layout", "array"),
  [
    ("NTHWC", DATA),
    ("NTCHW", DATA.transpose(0, 1, 4, 2, 3)),
    ("nchwt", DATA.transpose(0, 4, 2, 3, 1)),
    ("", DATA),
  ],
)
def test_five_axes_in_any_order_give_the_same_frames(tmp_path, layout, array):
  store = ArrayStore(save(tmp_path, array), layout=layout)
  assert (store.num_sequences, store.length(1)) == (2, 7)
  assert dict(store.space.sizes) == {"y": 5, "x": 3}
  assert [v.name for v in store.variables] == [
    "channel_0",
    "channel_1",
    "channel_2",
    "channel_3",
  ]
  np.testing.assert_array_equal(store.read(1, 2, 6), DATA[1, 2:6])


@pytest.mark.parametrize(
  ("layout", "array", "frames"),
  [
    ("NTHW", DATA[..., 0], DATA[1, 2:4, ..., :1]),
    ("", DATA[..., 0], DATA[1, 2:4, ..., :1]),
    ("WTH", DATA[0, ..., 0].transpose(2, 0, 1), DATA[0, 2:4, ..., :1]),
    ("", DATA[0, ..., 0], DATA[0, 2:4, ..., :1]),
    ("TH", DATA[0, :, :, 0, 0], DATA[0, 2:4, :, :1, :1]),
  ],
)
def test_axes_that_are_not_there_have_size_one(tmp_path, layout, array, frames):
  store = ArrayStore(save(tmp_path, array), layout=layout)
  actual = store.read(store.num_sequences - 1, 2, 4)
  assert actual.dtype == np.float32
  np.testing.assert_array_equal(actual, frames)


def test_npz_arrays_are_found_by_key(tmp_path):
  path = str(tmp_path / "a.npz")
  np.savez_compressed(path, frames=DATA.astype(np.float16), index=np.arange(3))
  store = ArrayStore(path, key="frames")
  np.testing.assert_array_equal(
    store.read(0, 0, 7), DATA[0].astype(np.float16).astype(np.float32)
  )
  for key, words in (
    ("", "frames, index.*data.key"),
    ("frame", "data.key.*'frame'.*'frames'"),
  ):
    with pytest.raises(errors.DataError, match=words):
      ArrayStore(path, key=key)


@pytest.mark.parametrize("code", [-1, -1.0])
def test_a_missing_code_becomes_nan(tmp_path, code):
  array = np.arange(60).reshape(4, 5, 3).astype(type(code))
  array[2, 1, 1] = code
  frames = ArrayStore(save(tmp_path, array), missing_value=-1).read(0, 1, 4)
  assert np.argwhere(np.isnan(frames)).tolist() == [[1, 1, 1, 0]]


def test_a_store_works_after_pickling(tmp_path):
  store = pickle.loads(pickle.dumps(ArrayStore(save(tmp_path, DATA))))
  np.testing.assert_array_equal(store.read(0, 1, 3), DATA[0, 1:3])


def test_time_axes_follow_step_and_first_time(tmp_path):
  path = save(tmp_path, DATA)
  store = ArrayStore(path, step="MS", first_time="2000-01-01")
  months = np.arange("2000-01", "2000-08", dtype="datetime64[M]")
  np.testing.assert_array_equal(
    store.times(0), months.astype("datetime64[us]").astype(np.int64)
  )
  store = ArrayStore(path, step="10min")
  assert store.times(0) is None
  assert store.step == np.timedelta64(10, "m")


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"layout": "NTHW"}, "data.layout='NTHW'.*5 different"),
    ({"layout": "NTHWW"}, "data.layout"),
    ({"layout": "NTXWC"}, "data.layout"),
    ({"variables": ("a", "b")}, "4 channels.*data.variables names 2"),
    ({"variables": "a,b,c,d", "units": "K"}, "data.units 1"),
    ({"first_time": "2000-01-01"}, "data.step"),
    ({"step": "fortnite"}, "data.step='fortnite'"),
  ],
)
def test_unusable_options_are_named(tmp_path, options, words):
  with pytest.raises(errors.DataError, match=words):
    ArrayStore(save(tmp_path, DATA), **options)


def test_unusable_files_are_named(tmp_path):
  with pytest.raises(errors.DataError, match="data.path is empty"):
    ArrayStore()
  with pytest.raises(errors.DataError, match=f"{tmp_path}/no.npy.*data.path"):
    ArrayStore(str(tmp_path / "no.npy"))
  text = tmp_path / "text.npy"
  text.write_text("not an array")
  with pytest.raises(errors.DataError, match="text.npy is no .npy"):
    ArrayStore(str(text))
  np.savez(tmp_path / "o.npz", a=np.array([None, {}]))
  with pytest.raises(errors.DataError, match="Python objects.*data.key"):
    ArrayStore(str(tmp_path / "o.npz"))
