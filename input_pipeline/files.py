"""Files that are either complete or not there, even if the process is killed."""

import contextlib
import json
import logging
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: str | os.PathLike, keep: bool = False) -> Iterator[pathlib.Path]:
  """A free path beside `path` whose file or folder takes its place at the end.

  It has the same ending, and nothing is left of it after an error.

  Args:
    path: what is written; its folder is made if it is missing.
    keep: whether what another process has put there meanwhile stays, because
      it may be in use already.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
  try:
    yield partial
    if partial.is_dir():
      shutil.rmtree(path, ignore_errors=True)
    else:
      with partial.open("rb+") as file:  # On the disk before it has its name.
        os.fsync(file.fileno())
    if not (keep and path.exists()):
      partial.replace(path)
  finally:
    if partial.is_dir():
      shutil.rmtree(partial)
    partial.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, data: bytes | str) -> None:
  """Writes a file that is either complete or not there, even if killed."""
  with replacing(path) as partial:
    partial.write_bytes(data.encode() if isinstance(data, str) else data)


def write_array(path: str | os.PathLike, array: np.ndarray) -> None:
  """Writes a .npy file, atomically."""
  with replacing(path) as partial:
    np.save(partial, array, allow_pickle=False)


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes plain values as JSON, atomically.

  Raises:
    ValueError: a number that is not finite, for which JSON has no word.
  """
  text = json.dumps(content, indent=2, allow_nan=False)
  write_atomically(path, text + "\n")


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads a log of JSON lines; damaged lines are skipped with a warning."""
  lines = []
  for number, text in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
    try:
      line = json.loads(text)
      line["step"] = int(line["step"])
      lines.append(line)
    except (ValueError, TypeError, KeyError):
      logging.warning("%s, line %d is damaged and skipped.", path, number)
  return lines
