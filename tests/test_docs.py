"""The documentation, followed to the letter."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import input_pipeline
from configs import base
from input_pipeline.stores import STORES
from stjax.methods import METHODS
from stjax.models import MODELS

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


def blocks(page):
  """Languages and contents of a page's code blocks."""
  return BLOCK.findall((ROOT / page).read_text())


def written(page):
  """Names of the files that a page tells the reader to write."""
  heads = [content.partition("\n")[0] for _, content in blocks(page)]
  return {head.removeprefix("# ") for head in heads if head.startswith("# ")}


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


@pytest.fixture
def follow(tmp_path):
  """Writes a page's files, makes its edits, runs its commands; gives the folder."""
  for name in ("stjax", "input_pipeline", "configs"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
  environment = dict(os.environ)
  environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  environment["PYTHONPATH"] = str(tmp_path)

  def run(page):
    for language, content in blocks(page):
      if language == "bash":
        command = re.sub(r"^python ", f"{sys.executable} ", content)
        result = subprocess.run(
          command,
          shell=True,
          cwd=tmp_path,
          env=environment,
          capture_output=True,
          check=False,
          text=True,
        )
        assert result.returncode == 0, result.stderr
        continue
      name, _, content = content.partition("\n")
      path = tmp_path / name.removeprefix("# ")
      if language == "diff":
        edit(path, content.splitlines())
      else:
        assert not path.exists()
        path.write_text(content)
    return tmp_path

  return run


@pytest.mark.slow
def test_the_pages_on_adding_a_network_can_be_followed(follow):
  follow("docs/add_a_network.md")
  folder = follow("docs/convert.md")
  log = (folder / "runs/drift/logs/metrics.jsonl").read_text()
  assert "train/loss" in log
  with np.load(folder / "drift.npz") as weights:
    shapes = {key: weights[key].shape for key in weights}
  assert shapes == {
    "conv1.weight": (16, 1, 3, 3),
    "conv1.bias": (16,),
    "conv2.weight": (1, 16, 3, 3),
    "conv2.bias": (1,),
  }


@pytest.mark.slow
def test_the_page_on_adding_a_method_can_be_followed(follow):
  workdir = follow("docs/add_a_method.md") / "runs/quantile"
  log = (workdir / "logs/metrics.jsonl").read_text().splitlines()
  shares = [r["train/below"] for r in map(json.loads, log) if "train/below" in r]
  assert shares and all(0 < share < 1 for share in shares)
  assert (workdir / "evaluation/metrics.json").exists()
  assert (workdir / "forecast/test.zarr/zarr.json").exists()


def test_edits_go_where_the_page_says(tmp_path):
  path = tmp_path / "a.py"
  path.write_text("x\ny\nz\n")
  edit(path, ["+before", " y", "+after", "+later", " z"])
  assert path.read_text() == "x\nbefore\ny\nafter\nlater\nz\n"
  with pytest.raises(AssertionError, match="no line 'w'"):
    edit(path, ["+v", " w"])


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_files_exist(page):
  text = (ROOT / page).read_text()
  for link in re.findall(r"\]\((?!http)([^)#]+)", text):
    assert (ROOT / page).parent.joinpath(link).exists(), link
  new = set().union(*map(written, PAGES)) | {"configs/X.py"}
  folders = "configs|stjax|input_pipeline|launch|benchmarks|tests|docs"
  for name in re.findall(rf"\b(?:{folders})/[\w/]+\.(?:py|sh|yaml|md|png)", text):
    assert name in new or (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_named_modules_and_functions_exist(page):
  text = (ROOT / page).read_text()
  for name in re.findall(r"`((?:stjax|input_pipeline)(?:\.\w+)+)", text):
    module, *parts = name.split(".")
    found = importlib.import_module(module)
    for part in parts:
      module = f"{module}.{part}"
      found = getattr(found, part, None) or importlib.import_module(module)


def keys_of(tree, section):
  """A section's own name, and all names below it."""
  yield section
  for key, value in tree.items():
    yield from keys_of(value if isinstance(value, dict) else {}, f"{section}.{key}")


@pytest.mark.parametrize("page", PAGES)
def test_named_config_keys_exist(page):
  known = set(keys_of(base.get_config().to_dict(), "c"))
  for store in STORES:
    known.update(keys_of(input_pipeline.defaults(store), "c.data"))
  # Any coordinate may be selected.
  known.update(f"c.data.select.{name}" for name in ("lat", "lon", "time", "level"))
  for section, classes in (("method", METHODS), ("model", MODELS)):
    for found in classes.values():
      known.update(f"c.{section}.{field.name}" for field in dataclasses.fields(found))
  sections = "data|evaluation|forecast|optimizer|checkpoint|mesh|log|method|model"
  text = (ROOT / page).read_text()
  begin = r"(?:`|--config\.|\bc\.)"
  for key in re.findall(rf"{begin}((?:{sections})(?:\.(?!py\b)\w+)+)", text):
    assert f"c.{key}" in known, key
