"""The documentation, followed to the letter."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
  """Languages and contents of a page's code blocks."""
  return BLOCK.findall((ROOT / "docs" / page).read_text())


def copy_program(folder):
  for name in ("stjax", "input_pipeline", "configs"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / name, folder / name, ignore=ignored)


def edit(path, lines):
  """Puts the lines with + beside the file's own lines next to them."""
  text = path.read_text().splitlines()
  added = []
  place = None
  for line in lines:
    if line.startswith("+"):
      if place is None:
        added.append(line[1:])
      else:
        place += 1
        text.insert(place, line[1:])
      continue
    assert text.count(line[1:]) == 1, f"{path.name} has no line {line[1:]!r}"
    place = text.index(line[1:])
    text[place:place] = added
    place += len(added)
    added = []
  path.write_text("\n".join(text) + "\n")


def follow(page, folder, environment):
  """Writes a page's files, makes its edits, runs its commands."""
  for language, content in blocks(page):
    if language == "bash":
      command = re.sub(r"^python ", f"{sys.executable} ", content)
      result = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        check=False,
        text=True,
      )
      assert result.returncode == 0, result.stderr
      continue
    name, _, content = content.partition("\n")
    path = folder / name.removeprefix("# ")
    if language == "diff":
      edit(path, content.splitlines())
    else:
      assert not path.exists()
      path.write_text(content)


@pytest.mark.slow
def test_the_pages_on_adding_a_network_can_be_followed(tmp_path):
  copy_program(tmp_path)
  environment = dict(os.environ)
  environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  environment["PYTHONPATH"] = str(tmp_path)
  follow("add_a_network.md", tmp_path, environment)
  follow("convert.md", tmp_path, environment)
  log = (tmp_path / "runs/drift/logs/metrics.jsonl").read_text()
  assert "train/loss" in log
  with np.load(tmp_path / "drift.npz") as weights:
    shapes = {key: weights[key].shape for key in weights}
  assert shapes == {
    "conv1.weight": (16, 1, 3, 3),
    "conv1.bias": (16,),
    "conv2.weight": (1, 16, 3, 3),
    "conv2.bias": (1,),
  }


def test_edits_go_where_the_page_says(tmp_path):
  path = tmp_path / "a.py"
  path.write_text("x\ny\nz\n")
  edit(path, ["+before", " y", "+after", "+later", " z"])
  assert path.read_text() == "x\nbefore\ny\nafter\nlater\nz\n"
  with pytest.raises(AssertionError, match="no line 'w'"):
    edit(path, ["+v", " w"])


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_links_and_named_files_exist(page):
  text = (ROOT / "docs" / page).read_text()
  for link in re.findall(r"\]\((?!http)([^)#]+)", text):
    assert (ROOT / "docs" / link).exists(), link
  added = (*blocks("add_a_network.md"), *blocks("convert.md"))
  new = {c.partition("\n")[0].removeprefix("# ") for _, c in added}
  for name in re.findall(r"(?:configs|stjax|launch)/\w+\.(?:py|sh|yaml)", text):
    if name not in new | {"configs/X.py"}:
      assert (ROOT / name).exists(), name
