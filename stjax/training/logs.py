"""Writers of logs, with the method names of `clu.metric_writers.MetricWriter`.

clu's own writers need TensorFlow, and these do not. A clu writer can take their
place where TensorFlow is installed. A writer ignores what it cannot show: JSON
lines hold scalars only, while TensorBoard shows everything.
"""

import functools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import tensorboardX
from tensorboardX import summary as tensorboard_summary

from input_pipeline import files

Array = np.ndarray | jax.Array
Scalar = int | float | np.number | np.ndarray | jax.Array
_BINS = 30  # Of histograms.


def _number(value: Scalar) -> int | float:
  return np.asarray(value).item()


class Writer:
  """A writer that writes nothing, for processes other than process 0.

  It is the base of the other writers, which override what they can show.
  """

  def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
    """Writes numbers [] by name, e.g. {"train/loss": 0.1}."""

  def write_histograms(self, step: int, arrays: Mapping[str, Array]) -> None:
    """Writes the distribution of the finite values of arrays of any shape."""

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    """Writes the settings that define the run, as a flat mapping."""

  def flush(self) -> None:
    """Writes everything that is still held back."""

  def close(self) -> None:
    """Flushes and closes the writer, which cannot be used afterwards."""


def _of_each(method: Callable[..., None]) -> Callable[..., None]:
  """Returns a method that calls the same method of several writers."""

  @functools.wraps(method)
  def call(self, *arguments):
    for writer in self._writers:
      getattr(writer, method.__name__)(*arguments)

  return call


class MultiWriter(Writer):
  """A writer that hands everything to several writers."""

  def __init__(self, writers: Iterable[Writer]):
    self._writers = tuple(writers)

  write_scalars = _of_each(Writer.write_scalars)
  write_histograms = _of_each(Writer.write_histograms)
  write_hparams = _of_each(Writer.write_hparams)
  flush = _of_each(Writer.flush)
  close = _of_each(Writer.close)


class JsonLinesWriter(Writer):
  """A writer that appends scalars to a file, with one JSON object a line.

  A line is {"step": 20, "time": 1700000000.0, "train/loss": 0.1}, with the time
  in seconds since 1970. A value that is not finite becomes null, since JSON has
  no name for it.
  """

  def __init__(self, path: str | os.PathLike):
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._cut_unfinished_line()
    self._file = self._path.open("a")

  def _cut_unfinished_line(self) -> None:
    """Removes half a line that a killed process may have left."""
    if self._path.exists():
      data = self._path.read_bytes()
      if data and not data.endswith(b"\n"):
        files.write_atomically(self._path, data[: data.rfind(b"\n") + 1])

  def truncate(self, step: int) -> None:
    """Removes the lines of all steps from `step` on.

    Args:
      step: the first step that will be written again. A run that goes on from
        the checkpoint of step n passes n + 1 if it logs step n before it saves
        that checkpoint; its log then equals an uninterrupted one.
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
    # A line is written at once, so that a kill leaves at most half a line.
    self._file.write(json.dumps(line, allow_nan=False) + "\n")
    self._file.flush()

  def flush(self):
    self._file.flush()

  def close(self):
    self._file.close()


class TensorBoardWriter(Writer):
  """A writer of TensorBoard event files that does not need TensorFlow.

  Args:
    directory: folder of the event files.
    purge_step: the first step that a resumed run will write again; TensorBoard
      hides what an earlier process wrote from there on.
  """

  def __init__(self, directory: str | os.PathLike, purge_step: int | None = None):
    self._writer = tensorboardX.SummaryWriter(str(directory), purge_step=purge_step)

  def write_scalars(self, step, scalars):
    for name, value in scalars.items():
      # A score without a value has no point in the curve.
      if math.isfinite(value := _number(value)):
        self._writer.add_scalar(name, value, step)

  def write_histograms(self, step, arrays):
    for name, array in arrays.items():
      values = np.asarray(array, np.float64).ravel()
      values = values[np.isfinite(values)]
      if values.size:
        self._writer.add_histogram(name, values, step, bins=_BINS)

  def write_hparams(self, hparams):
    plain = {
      name: value if isinstance(value, bool | int | float | str) else str(value)
      for name, value in hparams.items()
    }
    # The writer's own add_hparams would open another run in a further folder.
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
  """Returns the writer of a run, for TensorBoard and JSON lines.

  Only process 0 writes; all others get a writer that does nothing.

  Args:
    directory: folder that gets "metrics.jsonl" and the folder "tensorboard".
    first_step: the first step that will be written; an earlier process's lines
      from there on are removed. None keeps everything.
    process_index: number of the process; None means `jax.process_index()`.
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
