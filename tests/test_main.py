"""The command, as a user starts it: errors first, then whole runs."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import xarray as xr
from small_runs import tiny_flags

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="session")
def environment():
  """One device, as a user has it; compiled programs are shared by tests."""
  variables = dict(os.environ)
  variables["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  variables["JAX_PLATFORMS"] = "cpu"
  variables["PYTHONPATH"] = str(ROOT)
  return variables


@pytest.fixture(scope="session")
def stjax(environment):
  """Runs the command to its end, or starts it."""

  def call(*flags, start=False):
    command = [sys.executable, "-m", "stjax.main", *flags]
    options = dict(cwd=ROOT, env=environment, text=True)
    if start:
      return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, **options
      )
    return subprocess.run(command, capture_output=True, check=False, **options)

  return call


@pytest.fixture(scope="session")
def finished(stjax, tmp_path_factory):
  """A work directory in which everything was done."""
  workdir = tmp_path_factory.mktemp("finished")
  result = stjax(*tiny_flags(), f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  return workdir, result.stderr


@pytest.mark.slow
def test_one_command_leaves_everything_a_user_needs(finished):
  workdir, log = finished
  for name in (
    "config.json",
    "statistics.json",
    "coordinates.nc",
    "evaluation/metrics.json",
    "evaluation/lead_time.csv",
    "evaluation/figures/lead_time.png",
    "evaluation/figures/learning.png",
    "logs/metrics.jsonl",
    "forecast/test.zarr/zarr.json",
  ):
    assert (workdir / name).stat().st_size > 0, name
  assert list((workdir / "logs" / "tensorboard").glob("events*"))
  for kind in ("png", "gif"):
    assert list((workdir / "evaluation/figures").glob(f"example_*.{kind}"))
  for word in ("Total:", "Mesh: data=1", "samples/s", "left", "persistence"):
    assert word in log, word
  assert not [p for p in workdir.rglob("*") if "pickle" in p.name]


@pytest.mark.slow
def test_the_metrics_are_those_of_the_forecast_store(finished):
  workdir, _ = finished
  content = json.loads((workdir / "evaluation/metrics.json").read_text())
  with xr.open_zarr(workdir / "forecast/test.zarr", chunks=None) as store:
    forecast = store.temperature.values[0]
    assert store.temperature.dims == ("member", "sample", "lead_time", "y", "x")
    assert store.temperature.attrs["units"] == "1"
    samples = [name.split("_")[-1] for name in store.sample_id.values]
  frames = np.load(next((workdir / "data").glob("boiling*.npy")))
  frames = frames.reshape(20, 8, 16, 16)
  observation = frames[[int(s) for s in samples], 3:6]
  error = forecast - observation
  scores = content["physical"]
  np.testing.assert_allclose(scores["mse"]["overall"], np.mean(error**2), rtol=1e-5)
  np.testing.assert_allclose(
    content["openstl"]["mae"]["overall"], np.abs(error).mean((0, 1)).sum(), rtol=1e-5
  )
  np.testing.assert_allclose(
    scores["mse"]["by_lead"], np.mean(error**2, (0, 2, 3)), rtol=1e-5
  )
  still = frames[[int(s) for s in samples], 2:3] - observation
  np.testing.assert_allclose(
    content["baselines"]["persistence"]["physical"]["mse"]["overall"],
    np.mean(still**2),
    rtol=1e-5,
  )
  rows = list(csv.DictReader((workdir / "evaluation/lead_time.csv").open()))
  assert {r["source"] for r in rows} == {"forecast", "persistence", "training_mean"}
  assert len(rows) == 3 * 3


@pytest.mark.slow
def test_a_finished_run_only_evaluates_again(finished, stjax):
  workdir, _ = finished
  before = (workdir / "evaluation/metrics.json").read_text()
  result = stjax(*tiny_flags(), f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  assert "nothing is left to train" in result.stderr
  assert (workdir / "evaluation/metrics.json").read_text() == before


@pytest.mark.slow
def test_longer_forecasts_are_fed_back_and_begin_the_same(finished, stjax):
  workdir, _ = finished
  path = workdir / "forecast/test.zarr"
  short = xr.open_zarr(path, chunks=None).temperature.values
  result = stjax(
    *tiny_flags(forecast__horizon=5), f"--workdir={workdir}", "--mode=forecast"
  )
  assert result.returncode == 0, result.stderr
  with xr.open_zarr(path, chunks=None) as store:
    assert store.sizes["lead_time"] == 5
    np.testing.assert_allclose(store.temperature.values[:, :, :3], short, atol=1e-6)


@pytest.mark.slow
def test_another_config_in_the_same_directory_is_refused(finished, stjax):
  workdir, _ = finished
  result = stjax(*tiny_flags(optimizer__learning_rate=0.5), f"--workdir={workdir}")
  assert result.returncode == 2
  assert "optimizer.learning_rate: 0.001" in result.stderr
  assert "Traceback" not in result.stderr


def slow(flags, words):
  """A case for the slow step: each starts a process."""
  return pytest.param(flags, words, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (
      tiny_flags() + ["--config.optimizer.learning_rat=1"],
      ["learning_rat", "learning_rate"],
    ),
    (tiny_flags(model__translator="gsat"), ["gsat", "gsta"]),
    slow(tiny_flags(data__store="boilng"), ["boilng", "boiling"]),
    slow(tiny_flags(method__name="regresion"), ["regresion", "regression"]),
    slow(tiny_flags(optimizer__name="adm"), ["adm", "adam"]),
    (tiny_flags(data__image_size=15), ["15", "spatial_depth"]),
    slow(tiny_flags(data__history=7), ["history", "horizon", "8"]),
    slow(tiny_flags(mesh__data=3), ["mesh", "1 devices"]),
    slow(tiny_flags(evaluation__conventions="opnstl"), ["opnstl", "openstl"]),
    (tiny_flags(checkpoint__best_metric="los"), ["los", "loss"]),
    slow(["--config=configs/simvp_xarray.py"], ["data.path"]),
    (
      ["--config=configs/simvp_xarray.py", "--config.data.path=no.nc"],
      ["no.nc", "data.path"],
    ),
    (["--config=configs/nothing.py"], ["nothing.py"]),
    ([], ["--config is missing"]),
    (["--config=configs/simvp_boiling.py:fulll"], ["fulll", "full"]),
  ],
  ids=lambda value: None if isinstance(value, list) else str(value),
)
def test_wrong_input_ends_with_one_readable_message(stjax, tmp_path, flags, words):
  result = stjax(*flags, f"--workdir={tmp_path / 'run'}")
  assert result.returncode == 2, result.stderr
  assert "Traceback" not in result.stderr
  message = result.stderr[result.stderr.index("stjax: ") :]
  for word in words:
    assert word in message, message


def arrays(workdir, step=None):
  """The newest saved state of a work directory."""
  folder = workdir / "checkpoints"
  step = step or max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
  with ocp.StandardCheckpointer() as checkpointer:
    return step, checkpointer.restore(folder / str(step) / "state")


def scalars(workdir, name="train/loss"):
  lines = (workdir / "logs/metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [(row["step"], row[name]) for row in rows if name in row]


def wait_for(condition, process, seconds=240):
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.stderr.read()
    assert time.monotonic() < end
    time.sleep(0.05)


# Long enough to be interrupted, with something random in every step.
LONG = dict(
  num_epochs=20.0,
  model__drop_path=0.2,
  ema_decay=0.9,
  checkpoint__every_steps=5,
  evaluation__every_steps=10,
  optimizer__clip_norm=1.0,
)


@pytest.fixture(scope="session")
def uninterrupted(stjax, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  result = stjax(*tiny_flags(**LONG), f"--workdir={workdir}", "--mode=train")
  assert result.returncode == 0, result.stderr
  return workdir


def assert_same_run(workdir, reference):
  step, state = arrays(workdir)
  expected_step, expected = arrays(reference)
  assert step == expected_step
  same = {path: np.array_equal(a, b) for path, a, b in _pairs(state, expected)}
  assert all(same.values()), [path for path, s in same.items() if not s]
  for name in ("train/loss", "train/learning_rate", "validation/loss"):
    assert scalars(workdir, name) == scalars(reference, name)


def _pairs(a, b, path=""):
  if isinstance(a, dict):
    assert a.keys() == b.keys()
    for key in a:
      yield from _pairs(a[key], b[key], f"{path}/{key}")
  elif isinstance(a, list | tuple):
    assert len(a) == len(b)
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
      yield from _pairs(x, y, f"{path}/{i}")
  elif a is not None:
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    yield path, np.asarray(a), np.asarray(b)


@pytest.mark.slow
def test_killed_twice_the_run_ends_in_the_same_bits(stjax, uninterrupted, tmp_path):
  flags = [*tiny_flags(**LONG), f"--workdir={tmp_path}", "--mode=train"]
  for step in (7, 21):
    process = stjax(*flags, start=True)
    wait_for(lambda: _last_step(tmp_path) >= step, process)  # noqa: B023
    process.send_signal(signal.SIGKILL)
    process.wait()
  result = stjax(*flags)
  assert result.returncode == 0, result.stderr
  assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_preempted_run_saves_exits_cleanly_and_goes_on(
  stjax, uninterrupted, tmp_path
):
  flags = [*tiny_flags(**LONG), f"--workdir={tmp_path}", "--mode=train"]
  process = stjax(*flags, start=True)
  wait_for(lambda: _last_step(tmp_path) >= 7, process)
  process.send_signal(signal.SIGTERM)
  _, log = process.communicate()
  assert process.returncode == 0, log
  stopped_at, _ = arrays(tmp_path)
  assert f"Stopped at step {stopped_at}" in log
  assert stjax(*flags).returncode == 0
  assert_same_run(tmp_path, uninterrupted)


def _last_step(workdir):
  log = workdir / "logs/metrics.jsonl"
  if not log.exists():
    return 0
  lines = log.read_text().splitlines()
  try:
    return json.loads(lines[-1])["step"]
  except (IndexError, json.JSONDecodeError):
    return 0


@pytest.mark.slow
def test_a_diverged_run_names_the_step_and_keeps_the_last_good_state(stjax, tmp_path):
  flags = tiny_flags(
    optimizer__name="sgd",
    optimizer__learning_rate=1e30,
    optimizer__schedule__name="constant",
    optimizer__schedule__warmup=4.0,
    checkpoint__every_steps=1,
  )
  result = stjax(*flags, f"--workdir={tmp_path}", "--mode=train")
  assert result.returncode == 1, result.stderr
  message = result.stderr[result.stderr.index("stjax: ") :]
  assert "diverged at step" in message and "Traceback" not in result.stderr
  kept = int(message.split("kept")[0].split("step ")[-1].split()[0])
  _, state = arrays(tmp_path)
  assert arrays(tmp_path)[0] == kept
  for _, a, _ in _pairs(state["params"], state["params"]):
    assert np.isfinite(a).all()


@pytest.mark.slow
def test_two_processes_equal_one(environment, uninterrupted, tmp_path):
  # Half of the steps: the losses agree to rounding, not to the bit.
  command = ["bash", "launch/local.sh", "2", *tiny_flags(**LONG)]
  command += [f"--workdir={tmp_path}", "--mode=train"]
  result = subprocess.run(
    command,
    cwd=ROOT,
    env=environment | {"PYTHON": sys.executable},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  one, two = scalars(uninterrupted), scalars(tmp_path)
  assert [s for s, _ in one] == [s for s, _ in two]
  np.testing.assert_allclose(
    [v for _, v in two][:15], [v for _, v in one][:15], rtol=1e-4
  )
