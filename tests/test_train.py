import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest
from small_runs import trees_equal
from test_evaluate import RULE

from configs import simvp_array
from stjax import errors, train
from stjax.run import build as build_lib


def plates(folder, spoilt=None, frames=6):
  """Ten sequences whose last one is in the test split; it may be spoilt."""
  folder.mkdir(parents=True, exist_ok=True)
  data = np.random.RandomState(0).rand(10, frames, 4, 4).astype(np.float32)
  if spoilt is not None:
    order = np.random.RandomState(0).permutation(10)
    data[order[8:]] = spoilt  # Validation has number 7, test 8 and 9.
  np.save(folder / "plates.npy", data)
  config = simvp_array.get_config()
  config.model = type(config.model)(RULE)
  config.data.update(
    path=str(folder / "plates.npy"),
    layout="NTHW",
    history=2,
    horizon=2,
    missing="error",
  )
  config.data.split.fractions = (0.7, 0.1, 0.2)
  config.update_from_flattened_dict(
    {
      "num_epochs": 3.0,
      "global_batch_size": 4,
      "log.every_steps": 1,
      "evaluation.batch_size": 4,
    }
  )
  return config


def build(folder, config):
  return build_lib.build(config, folder / "run", devices=jax.devices()[:1])


def trained(folder, spoilt=None, **changes):
  config = plates(folder, spoilt)
  config.update_from_flattened_dict(changes)
  run = build(folder, config)
  assert train.train(run)
  checkpoints = run.checkpoints()
  state, _ = checkpoints.restore(checkpoints.latest_step, run.abstract_state)
  checkpoints.close()
  lines = (run.workdir / "logs/metrics.jsonl").read_text().splitlines()
  return state, [json.loads(line) for line in lines]


@pytest.mark.slow
def test_nothing_of_the_test_split_reaches_the_training(tmp_path):
  plain, _ = trained(tmp_path / "a")
  spoilt, _ = trained(tmp_path / "b", spoilt=1e6)
  assert trees_equal(plain.params, spoilt.params)


def test_the_logged_rate_is_the_one_that_was_used(tmp_path):
  _, lines = trained(tmp_path)
  rates = [x["train/learning_rate"] for x in lines if "train/loss" in x]
  # One cycle from peak / 25 to peak / 25e4, and never a step beyond.
  np.testing.assert_allclose(rates[0], 1e-3 / 25, rtol=1e-5)
  np.testing.assert_allclose(rates[-1], 1e-3 / 25 / 1e4, rtol=1e-3)
  assert max(rates) <= 1e-3 * (1 + 1e-6)


def test_everything_a_log_needs_is_logged(tmp_path):
  _, lines = trained(tmp_path)
  found = {name for line in lines for name in line}
  assert {
    "train/loss",
    "train/gradient_norm",
    "train/update_norm",
    "train/parameter_norm",
    "validation/loss",
    "validation/physical/rmse",
    "progress/samples_per_second",
    "progress/input_wait_share",
  } <= found


def watched(folder, **changes):
  """A run of six steps that saves after each of them."""
  config = plates(folder)
  config.data.normalise = "none"
  config.update_from_flattened_dict(
    {"num_steps": 6, "checkpoint.every_steps": 1, "evaluation.every_epochs": 0.0}
  )
  config.update_from_flattened_dict(changes)
  return build(folder, config)


def test_an_update_that_is_not_finite_stops_the_run_before_anything_is_saved(tmp_path):
  options = {"optimizer.learning_rate": 1e38, "optimizer.schedule.name": "constant"}
  run = watched(tmp_path, **options)
  message = "at step 1: update_norm = inf. No checkpoint was saved"
  with pytest.raises(train.Diverged, match=message):
    train.train(run)
  assert not any((run.workdir / "checkpoints").glob("[0-9]*"))


def test_a_diverged_run_names_the_step_and_goes_on_from_its_last_good_one(tmp_path):
  run = watched(tmp_path)
  path = tmp_path / "plates.npy"
  good = np.load(path)
  spoilt = good.copy()
  # The third batch is the first that has this sequence, whose square is infinite.
  spoilt[4] = 1e30
  np.save(path, spoilt)
  for _ in range(2):  # The same command meets the same batch again.
    message = "diverged at step 3: loss = inf.*checkpoint of step 2 is good and is kept"
    with pytest.raises(train.Diverged, match=message):
      train.train(run)
    state = latest(run)
    assert state.step == 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
  np.save(path, good)
  assert train.train(run)
  lines = (run.workdir / "logs/metrics.jsonl").read_text().splitlines()
  steps = [line["step"] for line in map(json.loads, lines) if "train/loss" in line]
  assert steps == [1, 2, 3, 4, 5, 6]


def test_an_unknown_best_metric_lists_the_scores(tmp_path):
  config = plates(tmp_path)
  config.checkpoint.best_metric = "physical/rsme"
  with pytest.raises(errors.ConfigError, match="physical/rmse"):
    train.train(build(tmp_path, config))


def test_the_score_that_chooses_is_always_shown(tmp_path, caplog):
  with caplog.at_level("INFO", logger="absl"):
    trained(tmp_path, **{"checkpoint.best_metric": "physical/bias"})
  shown = [m for m in caplog.messages if "validation: loss" in m]
  assert shown and all("physical/bias" in message for message in shown)


@pytest.mark.slow
def test_bfloat16_trains_near_float32_with_float32_parameters(tmp_path):
  _, full = trained(tmp_path / "a")
  state, half = trained(tmp_path / "b", precision="bfloat16")
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(state.params))
  full, half = (
    [x["train/loss"] for x in lines if "train/loss" in x] for lines in (full, half)
  )
  np.testing.assert_allclose(half, full, rtol=0.03)
  assert half != full


def test_the_network_of_a_run_is_a_flax_module(tmp_path):
  run = build(tmp_path, plates(tmp_path))
  assert isinstance(run.method.network, nn.Module)
  assert "Total:" in run.describe() and "Mesh:" in run.describe()


@pytest.mark.slow
def test_a_curriculum_resumed_across_its_border_equals_the_uninterrupted_one(tmp_path):
  def build_one(folder):
    config = plates(folder)  # 21 examples, batches of 4.
    config.update_from_flattened_dict(
      {
        "method.curriculum": ((0, 1), (0.75, 2)),
        "num_steps": 6,
        "checkpoint.every_steps": 3,
        "evaluation.every_epochs": 0.0,
      }
    )
    return build(folder, config)

  whole, cut = build_one(tmp_path / "a"), build_one(tmp_path / "b")
  assert [first for first, _ in whole.phases()] == [0, 4]
  assert train.train(whole) and train.train(cut)
  shutil.rmtree(cut.workdir / "checkpoints" / "6")
  again = build_one(tmp_path / "b")
  assert train.train(again)
  assert trees_equal(latest(again), latest(whole))


def latest(run):
  checkpoints = run.checkpoints()
  state, _ = checkpoints.restore(checkpoints.latest_step, run.abstract_state)
  checkpoints.close()
  return state
