"""The command that writes loader JSON files."""

import hashlib
import json

import numpy as np
import pytest

from input_pipeline import DataError, loader_json
from input_pipeline.stores.folders import FoldersStore


def _make(path, samples, length=3):
  for sample in range(samples):
    folder = path / f"sample_{sample:02d}"
    folder.mkdir(parents=True)
    for number in range(length):
      np.save(folder / f"{number}.npy", np.full((2, 3), 10.0 * sample + number))
  return path


def _run(path, *arguments):
  loader_json.main([f"--data_path={path}", *arguments])


def _read(path, *arguments):
  _run(path, *arguments)
  (file,) = path.glob("*_loaders.json")
  return file, json.loads(file.read_text())


def test_every_sample_falls_into_exactly_one_split(tmp_path):
  file, content = _read(_make(tmp_path, 20))
  counts = {name: len(content[name]["samples"]) for name in list(content)[:3]}
  assert counts == {"train": 14, "validation": 3, "test": 3}
  assert [content[name]["ratio"] for name in counts] == [0.7, 0.15, 0.15]
  chosen = [s for name in counts for s in content[name]["samples"]]
  assert len({tuple(sample) for sample in chosen}) == 20
  assert all(len(sample) == 3 for sample in chosen)
  assert (file.parent / chosen[0][0]).is_file()


def test_the_id_is_the_hash_of_the_rest(tmp_path):
  file, content = _read(_make(tmp_path, 5))
  name = content.pop("id")
  text = json.dumps(content, sort_keys=True)
  assert name == hashlib.sha256(text.encode()).hexdigest()
  assert file.name == f"{name}_loaders.json"


def test_splits_follow_the_seed_alone(tmp_path):
  first = loader_json.make(
    _make(tmp_path / "a", 12), relative_to=tmp_path / "a", seed=1
  )
  again = loader_json.make(
    _make(tmp_path / "b", 12), relative_to=tmp_path / "b", seed=1
  )
  other = loader_json.make(tmp_path / "a", relative_to=tmp_path / "a", seed=2)
  assert first == again
  assert first["train"] != other["train"]


def test_empty_splits_are_left_out(tmp_path):
  _, content = _read(_make(tmp_path, 4), "--train_ratio=0.75", "--val_ratio=.25")
  assert set(content) == {"train", "validation", "id"}


def test_rounding_never_uses_a_sample_twice(tmp_path):
  _, content = _read(_make(tmp_path, 3), "--train_ratio=.5", "--val_ratio=.5")
  samples = [s for n in content if n != "id" for s in content[n]["samples"]]
  assert len({tuple(sample) for sample in samples}) == len(samples) == 3


def test_options_choose_samples_and_frames(tmp_path):
  _, content = _read(
    _make(tmp_path, 6, length=9),
    "--num_samples=4", "--sample_start_index=2", "--total_length=5",
    "--init_final_only", "--reverse", "--train_ratio=1", "--val_ratio=0",
  )  # fmt: skip
  samples = content["train"]["samples"]
  assert len(samples) == 4
  for sample in samples:
    assert [path.rpartition("/")[2] for path in sample] == ["6.npy", "2.npy"]


def test_the_store_reads_the_file_after_the_directory_moved(tmp_path):
  _run(_make(tmp_path / "here", 4), "--train_ratio=.5", "--val_ratio=.25")
  (tmp_path / "here").rename(tmp_path / "there")
  (file,) = (tmp_path / "there").glob("*.json")
  store = FoldersStore(path=str(file))
  labels = [store.split_label(k) for k in range(4)]
  assert labels == ["train", "train", "validation", "test"]
  for k in range(4):
    number = int(store.sample_id(k)[-2:])
    np.testing.assert_array_equal(
      store.read(k, 0, 3)[:, 1, 2, 0], 10.0 * number + np.arange(3)
    )


def test_the_output_may_stand_in_another_directory(tmp_path, capsys):
  output = tmp_path / "lists" / "plates.json"
  _run(_make(tmp_path / "data", 3), f"--output={output}")
  assert capsys.readouterr().out.strip() == str(output)
  assert FoldersStore(path=str(output)).num_sequences == 3


@pytest.mark.parametrize(("train", "val"), [(0.8, 0.3), (-0.1, 0.5), (1.2, 0.0)])
def test_ratios_out_of_range_are_refused(tmp_path, train, val):
  with pytest.raises(DataError, match="ratio"):
    loader_json.make(
      _make(tmp_path, 2), relative_to=tmp_path, train_ratio=train, val_ratio=val
    )


def test_the_command_reports_an_unusable_directory(tmp_path, capsys):
  with pytest.raises(SystemExit):
    _run(tmp_path / "nowhere")
  assert "nowhere" in capsys.readouterr().err
