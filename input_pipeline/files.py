"""Files that are either complete or not there, even if the process is killed."""

import json
import logging
import os
import pathlib
from typing import Any


def write_atomically(path: str | os.PathLike, data: bytes | str) -> None:
  """Writes a file that is either complete or not there, even if killed."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  data = data.encode() if isinstance(data, str) else data
  partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
  try:
    with partial.open("wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


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
