"""The boiling set through tensorflow-datasets, without TensorFlow."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import input_pipeline
from input_pipeline import DataError
from input_pipeline.stores.boiling import BoilingStore
from input_pipeline.stores.tfds import TfdsStore
from input_pipeline.tfds import prepare

_OPTIONS = {"num_samples": 6, "image_size": 16}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """A directory with the small set prepared in it."""
  directory = tmp_path_factory.mktemp("tfds")
  prepare.main([
    "--builder=boiling", f"--data_dir={directory}",
    "--option=num_samples=6", "--option=image_size=16",
  ])  # fmt: skip
  return str(directory)


def _batches(store, split, **keys):
  config = {"store": store, "history": 3, "horizon": 4, **keys}
  data = input_pipeline.build(config, split, batch_size=2, train=False)
  return list(data.batches), data


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_frames_equal_those_of_the_boiling_store(data_dir, split):
  actual, data = _batches("tfds", split, path=data_dir, builder_options=_OPTIONS)
  expected, reference = _batches("boiling", split, **_OPTIONS)
  assert len(actual) == len(expected) > 0
  for ours, theirs in zip(actual, expected, strict=True):
    assert set(ours) == set(theirs)
    for key in theirs:
      np.testing.assert_array_equal(ours[key], theirs[key])
  assert data.labels.equals(reference.labels)
  assert data.coordinates.identical(reference.coordinates)
  assert data.statistics.to_json() == reference.statistics.to_json()


def test_an_empty_directory_is_prepared_by_the_store(tmp_path):
  options = {**_OPTIONS, "num_frames": 5, "image_size": (3, 5)}
  store = TfdsStore(path=str(tmp_path), builder_options=options)
  reference = BoilingStore(**options)
  labels = [store.split_label(k) for k in range(6)]
  assert labels == ["train"] * 4 + ["validation", "test"]
  by_name = {reference.sample_id(k): k for k in range(6)}
  assert {store.sample_id(k) for k in range(6)} == set(by_name)
  for k in range(6):
    np.testing.assert_array_equal(
      store.read(k, 1, 4), reference.read(by_name[store.sample_id(k)], 1, 4)
    )


def test_a_set_without_a_path_is_prepared_in_the_cache(tmp_path):
  store = TfdsStore(builder_options=_OPTIONS, cache_dir=str(tmp_path))
  assert store.num_sequences == 6
  assert list(tmp_path.rglob("*.array_record*"))
  with pytest.raises(DataError, match="data.path"):
    TfdsStore(builder_options=_OPTIONS)


def test_a_prepared_set_is_found_by_folder_name_and_version(data_dir, tmp_path):
  builder = prepare.prepare("boiling", data_dir, _OPTIONS)
  by_folder = TfdsStore(builder="", path=str(builder.data_dir))
  # A set of somebody else's builder: any folder of a prepared set.
  other = tmp_path / "plates"
  other.mkdir()
  (other / "2.0.0").symlink_to(builder.data_dir)
  by_folder_of_it = TfdsStore(builder="plates", path=str(other / "2.0.0"))
  for store in (by_folder, by_folder_of_it):
    assert store.num_sequences == 6
    assert store.read(0, 0, 2).shape == (2, 16, 16, 1)


def test_the_store_survives_pickling(data_dir):
  store = TfdsStore(path=data_dir, builder_options=_OPTIONS)
  expected = store.read(5, 0, 3)
  sent = pickle.loads(pickle.dumps(store))
  np.testing.assert_array_equal(sent.read(5, 0, 3), expected)


def test_other_splits_follow_the_split_seed(tmp_path):
  def names(seed):
    options = {**_OPTIONS, "num_frames": 2, "split_seed": seed}
    store = TfdsStore(path=str(tmp_path), builder_options=options)
    return [store.sample_id(k) for k in range(6)]

  assert names(0) != names(1)
  assert sorted(names(0)) == sorted(names(1))


@pytest.mark.parametrize(
  ("keys", "named"),
  [
    ({"builder": "boilin"}, "boilin"),
    ({"version": "9.9.9"}, "9.9.9"),
    ({"feature": "frame"}, "frames"),
    ({"feature": "sample_id"}, "sample_id"),
    ({"variables": "a, b"}, "data.variables"),
    ({"builder_options": {"samples": 3}}, "num_samples"),
    ({"builder": "other", "builder_options": {"a": 1}}, "builder_options"),
  ],
)
def test_settings_that_do_not_fit_are_refused(data_dir, keys, named):
  settings = {"path": data_dir, "builder_options": _OPTIONS, **keys}
  if keys == {"builder": "boilin"}:
    del settings["builder_options"]
  with pytest.raises(DataError, match=named):
    TfdsStore(**settings)


class Plates(tfds.core.GeneratorBasedBuilder):
  """A set of one split, three channels and no names."""

  VERSION = tfds.core.Version("1.0.0")
  pkg_dir_path = None

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {"video": tfds.features.Tensor(shape=(4, 2, 3, 3), dtype=np.uint8)}
      ),
    )

  def _split_generators(self, dl_manager):
    return {"test": self._generate_examples()}

  def _generate_examples(self):
    for k in range(3):
      yield k, {"video": np.full((4, 2, 3, 3), k, np.uint8)}


def test_a_set_of_one_split_is_not_labelled(tmp_path):
  Plates(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
  store = TfdsStore(
    builder="plates", path=str(tmp_path), feature="video", units="K,K,m"
  )
  assert [store.split_label(k) for k in range(3)] == [None] * 3
  assert sorted(store.read(k, 0, 1).max() for k in range(3)) == [0, 1, 2]
  assert store.read(0, 0, 1).dtype == np.float32
  assert [v.attrs["units"] for v in store.variables] == ["K", "K", "m"]
  assert len({store.sample_id(k) for k in range(3)}) == 3


@pytest.mark.slow
def test_tensorflow_is_never_imported(tmp_path):
  # A TensorFlow that is installed, but fails when it is imported.
  fake = tmp_path / "packages" / "tensorflow"
  fake.mkdir(parents=True)
  (fake / "__init__.py").write_text("raise RuntimeError('was imported')")
  program = f"""
import sys
sys.path.insert(0, {str(fake.parent)!r})
import input_pipeline
data = input_pipeline.build(
  dict(store="tfds", path={str(tmp_path)!r}, history=2, horizon=2,
       builder_options=dict(num_samples=6, num_frames=5, image_size=8)),
  "train", batch_size=2)
next(iter(data.batches))
assert "tensorflow" not in sys.modules
print("without")
"""
  result = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.endswith("without\n")
