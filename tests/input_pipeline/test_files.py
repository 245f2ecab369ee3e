import json

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
