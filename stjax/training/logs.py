"""Writers of logs, with the method names of `clu.metric_writers.MetricWriter`.

clu's own writers need TensorFlow. These do not, and whoever has TensorFlow can
put a clu writer in their place. Every writer takes what it can show and lets
the rest pass: JSON lines hold scalars only, TensorBoard everything.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import tensorboardX
from tensorboardX import summary as tensorboard_summary

from input_pipeline import files

Array = np.ndarray | jax.Array
Scalar = int | float | np.number | np.ndarray | jax.Array


def _number(value: Scalar) -> int | float:
  return np.asarray(value).item()


class Writer:
  """Takes everything and writes nothing: the writer of processes other than 0.

  The base of the others, which override what they can show.
  """

  def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
    """Writes numbers [] by name, e.g. {"train/loss": 0.1}."""

  def write_images(self, step: int, images: Mapping[str, Array]) -> None:
    """Writes images [N, H, W, C] or [H, W, C]; uint8, or floats in [0, 1]."""

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes texts by name."""

  def write_histograms(
    self,
    step: int,
    arrays: Mapping[str, Array],
    num_buckets: Mapping[str, int] | None = None,
  ) -> None:
    """Writes the distribution of the finite values of arrays of any shape."""

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    """Writes what defines the run: a flat mapping of plain values."""

  def flush(self) -> None:
    """Writes out what is still held back."""

  def close(self) -> None:
    """Flushes and closes; nothing may be written afterwards."""


class MultiWriter(Writer):
  """Hands everything to several writers."""

  def __init__(self, writers: Iterable[Writer]):
    self._writers = tuple(writers)

  def write_scalars(self, step, scalars):
    for writer in self._writers:
      writer.write_scalars(step, scalars)

  def write_images(self, step, images):
    for writer in self._writers:
      writer.write_images(step, images)

  def write_texts(self, step, texts):
    for writer in self._writers:
      writer.write_texts(step, texts)

  def write_histograms(self, step, arrays, num_buckets=None):
    for writer in self._writers:
      writer.write_histograms(step, arrays, num_buckets)

  def write_hparams(self, hparams):
    for writer in self._writers:
      writer.write_hparams(hparams)

  def flush(self):
    for writer in self._writers:
      writer.flush()

  def close(self):
    for writer in self._writers:
      writer.close()


class JsonLinesWriter(Writer):
  """Appends scalars to a file, one JSON object a line.

  {"step": 20, "time": 1700000000.0, "train/loss": 0.1}; time in seconds since
  1970. A value that is not finite becomes null, since JSON has no name for it.
  """

  def __init__(self, path: str | os.PathLike):
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._cut_unfinished_line()
    self._file = self._path.open("a")

  def _cut_unfinished_line(self) -> None:
    """Removes the half line that a killed process may have left."""
    if self._path.exists():
      data = self._path.read_bytes()
      if data and not data.endswith(b"\n"):
        files.write_atomically(self._path, data[: data.rfind(b"\n") + 1])

  def truncate(self, step: int) -> None:
    """Removes every line of a step >= `step`.

    Args:
      step: the first step that will be written again. A run resumed from a
        checkpoint taken after n steps passes n + 1 if it logs step n before
        it saves that checkpoint; the log then equals an uninterrupted one.
    """
    self._file.close()
    kept = [line for line in files.read_json_lines(self._path) if line["step"] < step]
    files.write_atomically(
      self._path, "".join(json.dumps(line) + "\n" for line in kept)
    )
    self._file = self._path.open("a")

  def write_scalars(self, step, scalars):
    line = {"step": int(step), "time": round(time.time(), 3)}
    for name, value in scalars.items():
      value = _number(value)
      line[name] = value if math.isfinite(value) else None
    # One write of a whole line: a kill leaves at most one half line behind.
    self._file.write(json.dumps(line, allow_nan=False) + "\n")
    self._file.flush()

  def flush(self):
    self._file.flush()

  def close(self):
    self._file.close()


class TensorBoardWriter(Writer):
  """Writes TensorBoard event files, without TensorFlow.

  Args:
    directory: where the event files go.
    purge_step: on resume, the first step that will be written again;
      TensorBoard hides what an earlier process wrote from there on.
  """

  def __init__(self, directory: str | os.PathLike, purge_step: int | None = None):
    self._writer = tensorboardX.SummaryWriter(str(directory), purge_step=purge_step)

  def write_scalars(self, step, scalars):
    for name, value in scalars.items():
      self._writer.add_scalar(name, _number(value), step)

  def write_images(self, step, images):
    for name, image in images.items():
      image = np.asarray(image)
      if image.dtype != np.uint8:
        # Overflow would turn white into black.
        image = np.clip(np.nan_to_num(image), 0.0, 1.0)
      if image.ndim == 3:
        image = image[None]
      self._writer.add_images(name, image, step, dataformats="NHWC")

  def write_texts(self, step, texts):
    for name, text in texts.items():
      self._writer.add_text(name, text, step)

  def write_histograms(self, step, arrays, num_buckets=None):
    for name, array in arrays.items():
      values = np.asarray(array, np.float64).ravel()
      values = values[np.isfinite(values)]
      if values.size:
        bins = (num_buckets or {}).get(name, 30)
        self._writer.add_histogram(name, values, step, bins=bins)

  def write_hparams(self, hparams):
    plain = {
      name: value if isinstance(value, bool | int | float | str) else str(value)
      for name, value in hparams.items()
    }
    # add_hparams of the writer would open another run in a folder of its own.
    for part in tensorboard_summary.hparams(plain, {}):
      self._writer.file_writer.add_summary(part)

  def flush(self):
    self._writer.flush()

  def close(self):
    self._writer.close()


def create(
  directory: str | os.PathLike,
  *,
  first_step: int | None = None,
  process_index: int | None = None,
) -> Writer:
  """Returns the writer of a run: TensorBoard and JSON lines.

  Only process 0 writes; all others get a writer that does nothing.

  Args:
    directory: gets "metrics.jsonl" and the folder "tensorboard".
    first_step: the first step that will be written; lines of an earlier
      process from there on are removed. None: everything is kept.
    process_index: default `jax.process_index()`.
  """
  if process_index is None:
    process_index = jax.process_index()
  if process_index:
    return Writer()
  directory = pathlib.Path(directory)
  lines = JsonLinesWriter(directory / "metrics.jsonl")
  if first_step is not None:
    lines.truncate(first_step)
  board = TensorBoardWriter(directory / "tensorboard", purge_step=first_step)
  return MultiWriter((lines, board))
