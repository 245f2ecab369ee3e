"""Writers: what they leave on disk, and clu's method names."""

import importlib.util
import inspect
import json
import pathlib
import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from input_pipeline import files
from stjax.training import logs

METHODS = ("write_scalars", "write_histograms", "write_hparams", "flush", "close")
WRITERS = (logs.Writer, logs.MultiWriter, logs.JsonLinesWriter, logs.TensorBoardWriter)


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def _events(directory):
  """Reads every event of a TensorBoard directory, in the order written."""
  events = []
  for path in sorted(directory.glob("events.out.tfevents.*")):
    data = path.read_bytes()
    while data:  # Records: length (8 bytes), checksum (4), event, checksum.
      end = 12 + struct.unpack("<Q", data[:8])[0]
      events.append(event_pb2.Event.FromString(data[12:end]))
      data = data[end + 4 :]
  return events


def _clu_interface():
  """clu's interface, by its file: the package around it needs TensorFlow."""
  [root] = importlib.util.find_spec("clu").submodule_search_locations
  path = pathlib.Path(root) / "metric_writers" / "interface.py"
  spec = importlib.util.spec_from_file_location("clu_interface", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.MetricWriter


@pytest.mark.parametrize("kind", WRITERS)
def test_methods_have_clus_names_and_arguments(kind):
  interface = _clu_interface()
  for name in METHODS:
    ours = inspect.signature(getattr(kind, name)).parameters
    theirs = inspect.signature(getattr(interface, name)).parameters
    assert list(ours) == list(theirs)[: len(ours)], name
    further = list(theirs.values())[len(ours) :]
    assert all(argument.default is None for argument in further), name


def test_json_lines_hold_one_object_a_line(tmp_path):
  path = tmp_path / "logs" / "metrics.jsonl"
  writer = logs.JsonLinesWriter(path)
  writer.write_scalars(1, {"train/loss": np.float32(0.5), "n": 3})
  writer.write_scalars(2, {"train/loss": np.asarray([0.25])})
  writer.close()
  first, second = _lines(path)
  assert first["step"] == 1 and first["train/loss"] == 0.5
  assert first["n"] == 3 and isinstance(first["n"], int)
  assert second["train/loss"] == 0.25 and second["time"] >= first["time"]


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
  path = tmp_path / "metrics.jsonl"
  writer = logs.JsonLinesWriter(path)
  writer.write_scalars(1, {"a": float("nan"), "b": float("inf")})
  writer.close()
  [line] = _lines(path)
  assert line["a"] is None and line["b"] is None
  assert "NaN" not in path.read_text()


def test_a_resumed_log_equals_an_uninterrupted_one(tmp_path):
  def log(writer, steps):
    for step in steps:
      writer.write_scalars(step, {"loss": step / 7})

  straight = logs.JsonLinesWriter(tmp_path / "straight.jsonl")
  log(straight, range(1, 11))
  path = tmp_path / "resumed.jsonl"
  killed = logs.JsonLinesWriter(path)
  log(killed, range(1, 9))
  killed.close()
  with path.open("a") as file:
    file.write('{"step": 9, "ti')  # Killed in the middle of a line.
  resumed = logs.JsonLinesWriter(path)
  resumed.truncate(6)  # The checkpoint was taken after step 5.
  log(resumed, range(6, 11))

  def without_time(path):
    return [(x["step"], x["loss"]) for x in _lines(path)]

  assert without_time(path) == without_time(tmp_path / "straight.jsonl")


def test_appending_after_a_half_line_keeps_the_whole_lines(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "time": 0}\n{"step": 2, "t')
  writer = logs.JsonLinesWriter(path)
  writer.write_scalars(2, {"loss": 1.0})
  writer.close()
  assert [line["step"] for line in _lines(path)] == [1, 2]


def test_tensorboard_takes_every_kind(tmp_path):
  writer = logs.TensorBoardWriter(tmp_path)
  writer.write_hparams({"rate": 1e-3, "name": "simvp", "shape": (3, 4)})
  writer.write_scalars(3, {"train/loss": np.float32(0.5)})
  writer.write_histograms(
    3, {"w": np.array([1.0, 2.0, np.nan]), "empty": np.array([np.inf])}
  )
  writer.flush()
  writer.close()
  tags = {}
  for event in _events(tmp_path):
    for value in event.summary.value:
      tags[value.tag] = (event.step, value)
  assert tags["train/loss"][0] == 3
  assert tags["train/loss"][1].simple_value == 0.5
  assert tags["w"][1].histo.num == 2
  assert "empty" not in tags
  assert any(tag.startswith("_hparams_") for tag in tags)


def test_tensorboard_hides_purged_steps_on_resume(tmp_path):
  logs.TensorBoardWriter(tmp_path / "a").close()
  writer = logs.TensorBoardWriter(tmp_path / "b", purge_step=6)
  writer.write_scalars(6, {"loss": 1.0})
  writer.close()
  starts = [
    event.step for event in _events(tmp_path / "b") if event.HasField("session_log")
  ]
  assert starts == [6]


def test_only_process_0_writes(tmp_path):
  silent = logs.create(tmp_path / "silent", process_index=1)
  silent.write_scalars(1, {"loss": 1.0})
  silent.flush()
  silent.close()
  assert not (tmp_path / "silent").exists()
  writer = logs.create(tmp_path / "logs", process_index=0)
  writer.write_scalars(1, {"loss": 1.0})
  writer.write_histograms(1, {"w": np.arange(4.0)})
  writer.flush()
  writer.close()
  assert len(_lines(tmp_path / "logs" / "metrics.jsonl")) == 1
  assert _events(tmp_path / "logs" / "tensorboard")


def test_create_cuts_the_log_at_the_first_step_to_come(tmp_path):
  for first_step in (None, 3):
    writer = logs.create(tmp_path, first_step=first_step, process_index=0)
    for step in range(first_step or 1, 5):
      writer.write_scalars(step, {"loss": float(step)})
    writer.close()
  steps = [line["step"] for line in _lines(tmp_path / "metrics.jsonl")]
  assert steps == [1, 2, 3, 4]


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
  path = tmp_path / "deep" / "table.csv"
  files.write_atomically(path, "old")
  files.write_atomically(path, b"new")
  assert path.read_text() == "new"
  assert [p.name for p in path.parent.iterdir()] == ["table.csv"]
