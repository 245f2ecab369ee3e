"""The converter's command, as a user starts it."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from small_runs import tiny_config, tiny_flags
from torch_weights import assert_same_weights

from stjax import config as config_lib
from stjax import convert, errors, evaluate, models, train
from stjax.convert import files, report
from stjax.run import sources

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests/goldens/simvp/openstl_gsta_NS3_eval.npz"
IN_SHAPE = (3, 16, 16, 1)


@pytest.fixture(scope="module")
def call():
  """Runs a command of stjax to its end, on one device."""
  environment = dict(os.environ)
  environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  environment["JAX_PLATFORMS"] = "cpu"
  environment["PYTHONPATH"] = str(ROOT)

  def call(module, *flags):
    return subprocess.run(
      [sys.executable, "-m", f"stjax.{module}", *map(str, flags)],
      capture_output=True,
      check=False,
      cwd=ROOT,
      env=environment,
      text=True,
    )

  return call


def network_options(**changes):
  return config_lib.without(tiny_config(**changes).model, "name")


@pytest.fixture(scope="module")
def state_dict():
  """Random torch weights of the tiny network."""
  options = network_options()
  network = models.build("simvp", **options)
  shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *IN_SHAPE)))
  generator = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda s: 0.2 + 0.1 * generator.random(s.shape, np.float32), shapes
  )
  return convert.to_torch("simvp", variables, in_shape=IN_SHAPE, **options)


@pytest.fixture(scope="module")
def weights(state_dict, tmp_path_factory):
  path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
  dead = {"head.weight": np.ones(3, np.float32)}
  files.write(path, {f"module.{k}": v for k, v in (state_dict | dead).items()})
  return path


@pytest.fixture(scope="module")
def converted(call, weights, tmp_path_factory):
  """A work directory made from the weights, with averaged parameters."""
  workdir = tmp_path_factory.mktemp("converted") / "run"
  flags = tiny_flags(ema_decay=0.9, evaluation__figures=0)
  flags.append(f"--workdir={workdir}")
  result = call(
    "convert", *flags, f"--torch={weights}", "--allow_unused=^head", "--report"
  )
  assert result.returncode == 0, result.stderr
  return workdir, flags, result.stdout


def assert_fails(result, *words):
  assert result.returncode == 2, result.stderr
  assert "Traceback" not in result.stderr
  message = result.stderr[result.stderr.index("stjax: ") :]
  for word in words:
    assert word in message, message


@pytest.mark.slow
def test_the_report_lists_every_array_by_both_names(converted, state_dict):
  rows = [line.split() for line in converted[2].splitlines()]
  by_key = {row[0]: row[1:] for row in rows if len(row) > 3}
  for key, value in state_dict.items():
    counter = key.endswith("num_batches_tracked")
    path, *_, norm = by_key[f"module.{key}" if counter else key]
    assert path.startswith("(not" if counter else ("params/", "batch_stats/")), key
    np.testing.assert_allclose(
      float(norm), np.linalg.norm(np.float64(value).ravel()), rtol=1e-4
    )
  assert by_key["module.head.weight"][0] == "(unused)"
  kernel = by_key["dec.readout.weight"]
  assert kernel[:2] == ["params/decoder/readout/kernel", "1x4x1x1"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_weights_come_back_from_a_work_directory_bit_for_bit(
  call, converted, state_dict, tmp_path, suffix
):
  if suffix == ".pth":
    pytest.importorskip("torch")
  path = tmp_path / f"weights{suffix}"
  result = call("convert", *converted[1], f"--to_torch={path}")
  assert result.returncode == 0, result.stderr
  assert_same_weights(files.read(path), state_dict)
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_converted_network_is_evaluated_then_trained_on(
  converted, make_run, state_dict
):
  workdir, _, _ = converted
  run = make_run(1, workdir, ema_decay=0.9, evaluation__figures=0)
  content = evaluate.evaluate(run)
  options = network_options()
  variables = convert.to_stjax("simvp", state_dict, in_shape=IN_SHAPE, **options)
  network = models.build("simvp", **options)
  forecast = jax.jit(
    lambda x: network.apply({k: variables[k] for k in ("params", "batch_stats")}, x)
  )
  squares = [
    np.square(forecast(batch["inputs"]) - batch["targets"])
    for batch in run.split("test", 1).batches
  ]
  np.testing.assert_allclose(
    content["physical"]["mse"]["overall"], np.mean(squares), rtol=1e-5
  )

  assert train.train(run)
  lines = (workdir / "logs/metrics.jsonl").read_text().splitlines()
  losses = {
    row["step"]: row["train/loss"]
    for row in map(json.loads, lines)
    if "train/loss" in row
  }
  assert list(losses) == [1, 2, 3, 4] and np.isfinite([*losses.values()]).all()
  # The first batch was seen by the converted network, not by a fresh one.
  batch = next(iter(run.split("train", 8, train=True).batches))
  batch = {name: batch[name] for name in ("inputs", "targets", "valid")}
  loss, _ = jax.jit(
    lambda batch: run.method.loss(
      {k: variables[k] for k in ("params", "batch_stats")},
      {},
      batch,
      jax.random.key(0),
      True,
    )
  )(batch)
  np.testing.assert_allclose(losses[1], loss, rtol=1e-3)


@pytest.mark.slow
def test_an_existing_run_is_not_overwritten(call, converted, weights):
  _, flags, _ = converted
  assert_fails(call("convert", *flags, f"--torch={weights}"), "already holds step")


@pytest.mark.slow
def test_a_golden_networks_error_is_that_of_rounding(call, tmp_path):
  with np.load(GOLDEN) as archive:
    arrays = dict(archive)
  weights, reference, data = (
    tmp_path / name for name in ("weights.npz", "ref.npz", "data.npz")
  )
  files.write(
    weights,
    {
      key.removeprefix("param/"): value
      for key, value in arrays.items()
      if key.startswith("param/")
    },
  )
  np.savez(reference, inputs=arrays["input/x"], outputs=arrays["output/out"] + 5e-3)
  frames = np.random.default_rng(0).random((10, 4, 18, 14), np.float32)
  np.savez(data, frames=frames)
  settings = {
    "data.path": data,
    "data.layout": "NTHW",
    "data.history": 2,
    "data.horizon": 2,
    "model.spatial_features": 4,
    "model.temporal_features": 8,
    "model.spatial_depth": 2,
    "model.temporal_depth": 2,
    "model.mlp_ratio": 2.0,
  }
  flags = [f"--config.{key}={value}" for key, value in settings.items()]
  flags = ["--config=configs/simvp_array.py", *flags, f"--torch={weights}"]

  result = call(
    "convert", *flags, f"--reference={GOLDEN}", f"--workdir={tmp_path / 'run'}"
  )
  assert result.returncode == 0, result.stderr
  name, rest = result.stdout.splitlines()[-1].split(": largest error ")
  absolute, relative = (float(part.split()[0]) for part in rest.split(", "))
  assert name == "output/out" and absolute < 1e-4 and relative < 1e-4

  # The same network against outputs that are off by a known number.
  options = {
    key.removeprefix("model."): value
    for key, value in settings.items()
    if key.startswith("model.")
  }
  variables = convert.to_stjax(
    "simvp", files.read(weights), in_shape=(2, 18, 14, 1), **options
  )
  errors = report.errors(
    "simvp",
    {name: variables[name] for name in ("params", "batch_stats")},
    reference,
    **options,
  )
  assert errors.keys() == {"outputs"}
  scale = np.abs(arrays["output/out"] + 5e-3).max()
  np.testing.assert_allclose(errors["outputs"], (5e-3, 5e-3 / scale), rtol=1e-2)


def misnamed(state_dict):
  kept = {k: v for k, v in state_dict.items() if "readout.weight" not in k}
  return kept | {"head.weight": np.ones(3)}


@pytest.mark.parametrize(
  ("change", "flags", "words"),
  [
    (misnamed, [], ["dec.readout.weight: missing", "head.weight (3,): unused"]),
    pytest.param(
      dict,
      ["--config.model.translator=tau"],
      ["gating_unit.fc.0.weight: missing"],
      marks=pytest.mark.slow,
    ),
    (lambda s: None, [], ["weights.npz is no archive"]),
    pytest.param(
      dict, ["--reference=nowhere.npz"], ["nowhere.npz"], marks=pytest.mark.slow
    ),
    (dict, ["--allow_unused=("], ["regular expression"]),
    (dict, ["--to_torch=a.npz"], ["either --torch or --to_torch"]),
    (dict, ["--torch=nowhere.pth"], ["no file of weights", "nowhere.pth"]),
  ],
  ids=["names", "network", "broken", "reference", "pattern", "both", "nowhere"],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
  call, state_dict, tmp_path, change, flags, words
):
  path, workdir = tmp_path / "weights.npz", tmp_path / "run"
  changed = change(state_dict)
  if changed is None:
    path.write_bytes(b"PK no weights")
  else:
    files.write(path, changed)
  result = call(
    "convert", *tiny_flags(), f"--torch={path}", f"--workdir={workdir}", *flags
  )
  assert_fails(result, *words)
  assert not workdir.exists()


def test_a_network_without_a_name_map_is_refused(make_run, state_dict):
  rule = ml_collections.ConfigDict({"name": "threshold_rule"})
  run = make_run(1)
  with run.config.unlocked():
    run.config.model = rule
  with pytest.raises(models.NetworkError, match="threshold_rule.*simvp"):
    sources.convert_weights(run, state_dict)


def test_nothing_is_written_for_torch_without_a_checkpoint(call, tmp_path):
  flags = [*tiny_flags(), f"--workdir={tmp_path / 'run'}"]
  assert_fails(
    call("convert", *flags, f"--to_torch={tmp_path / 'w.npz'}"), "not a work directory"
  )
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_starts_from_a_torch_file(make_run, state_dict, tmp_path):
  weights = tmp_path / "weights.npz"
  files.write(weights, state_dict)
  run = make_run(1, init_from=str(weights), ema_decay=0.9)
  state = sources.first_state(run)
  assert int(state.step) == 0
  for params in (state.params, state.ema_params):
    variables = jax.device_get({"params": params, **state.collections})
    options = sources.network_options(run)
    assert_same_weights(convert.to_torch("simvp", variables, **options), state_dict)


def test_a_torch_file_that_does_not_fit_is_an_error_of_init_from(
  make_run, weights, tmp_path
):
  for name, path in (("translator", weights), ("no file", tmp_path / "a.pth")):
    changes = {"model__translator": "tau"} if name == "translator" else {}
    run = make_run(1, init_from=str(path), **changes)
    with pytest.raises(errors.ConfigError, match="init_from.*" + path.name):
      sources.first_state(run)
