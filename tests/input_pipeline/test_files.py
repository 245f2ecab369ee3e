import json

import numpy as np
import pytest

from input_pipeline import files


def test_json_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / "new" / "a.json"
  files.write_json(path, {"x": 1})
  with pytest.raises(TypeError):
    files.write_json(path, {"x": object()})
  with pytest.raises(ValueError):  # Infinity is no JSON.
    files.write_json(path, {"x": float("inf")})
  assert json.loads(path.read_text()) == {"x": 1}
  assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_file_takes_its_place_only_at_the_end(tmp_path):
  path = tmp_path / "new" / "a.npy"
  files.write_array(path, np.arange(3))
  with pytest.raises(RuntimeError), files.replacing(path) as partial:
    np.save(partial, np.zeros(5))
    assert partial.suffix == ".npy" and len(np.load(path)) == 3
    raise RuntimeError
  np.testing.assert_array_equal(np.load(path), np.arange(3))
  assert list(path.parent.iterdir()) == [path]


def test_what_another_process_made_meanwhile_may_stay(tmp_path):
  path = tmp_path / "a.txt"
  for keep, expected in ((True, "theirs"), (False, "ours")):
    with files.replacing(path, keep=keep) as partial:
      partial.write_text("ours")
      path.write_text("theirs")
    assert path.read_text() == expected
  assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_another_one_whole(tmp_path):
  path = tmp_path / "folder"
  for name in "ab":
    with files.replacing(path) as partial:
      partial.mkdir()
      (partial / name).write_text("")
  with pytest.raises(RuntimeError), files.replacing(path) as partial:
    partial.mkdir()
    (partial / "c").write_text("")
    raise RuntimeError
  assert [p.name for p in path.iterdir()] == ["b"]
  assert list(tmp_path.iterdir()) == [path]
