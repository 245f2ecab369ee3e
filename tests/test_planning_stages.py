"""SFP from start to end: a world model, and a forecaster that learns from it."""

import dataclasses
import json
import shutil

import jax
import ml_collections
import numpy as np
import pytest
import sfp_runs
import xarray as xr
from small_runs import trees_equal

from stjax import errors, evaluate, forecast, main, methods, models, sharding, train
from stjax.methods import base, regression
from stjax.run import build as build_lib
from stjax.run import sources

WORLD = {"num_steps": 3, "data__horizon": 2, "evaluation__figures": 0}
# Two steps in an epoch: two of warm-up, and then two of planning.
PLANNING = {
  "evaluation__figures": 0,
  "data__horizon": 2,
  "method__warm_up": 1.0,
  "method__mix": 0.25,
  "method__agent": {"name": "regression", "predict_tendency": True},
  "num_steps": 4,
  "evaluation__every_epochs": 0.0,
  "checkpoint__every_steps": 3,
  "checkpoint__keep_latest": 3,
}


def build(config, workdir, devices=1):
  return build_lib.build(config, workdir, devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
  """The work directory of a world model before its first step."""
  workdir = tmp_path_factory.mktemp("untrained")
  run = build(sfp_runs.tiny_world(**WORLD), workdir)
  (workdir / "checkpoints").mkdir()
  return run


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"data__image_size": 8}, "grid=16 x 16.*8 x 8"),
    ({"data__normalise": "standard"}, "normalisation.*data.normalise"),
    ({"data__transform": "log1p"}, "data.transform=identity.*log1p"),
    ({"data__history": 2}, "data.history=3.* 2"),
    ({"method__candidates": 9}, "method.candidates=9.*8 codes of frozen.world"),
    (
      {"model": {"name": "latent_head", "features": 6, "backbone": {"name": "simvp"}}},
      "model.features=6.*frozen.world need 4",
    ),
    ({"model": {"name": "vq"}}, "model.name.*VQ"),
  ],
)
def test_a_world_model_of_other_data_is_refused_by_key(
  changes, words, untrained, tmp_path
):
  changes = dict(changes)
  model = changes.pop("model", None)
  given = {"data__horizon": 2} | changes
  config = sfp_runs.tiny_planning(untrained.workdir, **given)
  if model:
    config.model = ml_collections.ConfigDict(model)
  with pytest.raises(errors.ConfigError, match=words):
    build(config, tmp_path / "w")


@pytest.mark.parametrize("horizon", [1, 4])
def test_a_world_model_serves_any_horizon(horizon, untrained, tmp_path):
  # It reconstructs frame by frame, so its own horizon binds nobody.
  config = sfp_runs.tiny_planning(untrained.workdir, data__horizon=horizon)
  run = build(config, tmp_path / "w")
  assert run.method.horizon == run.method.world.horizon == horizon


@pytest.mark.parametrize(
  ("change", "mode", "words"),
  [
    ({}, "forecast", "--mode=forecast.*'world_model'"),
    ({}, "prefer", "--mode=prefer.*'world_model'"),
    ({"evaluation.horizon": 4}, "train", "evaluation.horizon=4.*data.horizon=2"),
    ({"forecast.members": 4}, "train", "forecast.members=4.*method.candidates=3"),
    (
      {"evaluation.validation_members": 4},
      "evaluate",
      "evaluation.validation_members=4.*method.candidates=3",
    ),
  ],
)
def test_a_world_model_is_not_asked_for_what_it_cannot_do(
  change, mode, words, untrained
):
  config = untrained.config.copy_and_resolve_references()
  config.update_from_flattened_dict(change)
  with pytest.raises(errors.ConfigError, match=words):
    main.check(dataclasses.replace(untrained, config=config), mode)


@pytest.mark.parametrize(
  ("thresholds", "words"), [((0.5,), ""), ((0.5, 70.0), r"method.thresholds.*\[70.0\]")]
)
def test_thresholds_beyond_the_data_are_refused(thresholds, words, untrained):
  method = methods.build(
    "self_training",
    models.build("threshold_rule"),
    {"world": untrained.method},
    horizon=2,
    candidates=3,
    reward="csi",
    thresholds=thresholds,
  )
  material = base.Material(None, None, None, None, None, untrained.statistics)
  if not words:
    made = method.prepare({}, material)
    np.testing.assert_array_equal(made["scale"], untrained.statistics.scale)
    return
  with pytest.raises(errors.ConfigError, match=words):
    method.prepare({}, material)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """A trained world model, and its scores."""
  workdir = tmp_path_factory.mktemp("stages") / "world"
  run = build(sfp_runs.tiny_world(**WORLD), workdir)
  main.check(run, "all")
  assert train.train(run)
  evaluate.evaluate(run)
  return run


@pytest.fixture(scope="module")
def planned(world):
  """A run of self-training, with a checkpoint after its first step of planning."""
  workdir = world.workdir.parent / "planned"
  run = build(sfp_runs.tiny_planning(world.workdir, **PLANNING), workdir)
  main.check(run, "all")
  assert [first for first, _ in run.phases()] == [0, 2]
  assert train.train(run)
  return run


@pytest.mark.slow
def test_a_world_model_is_scored_by_its_own_convention(world):
  content = json.loads((world.workdir / "evaluation/metrics.json").read_text())
  scores = {k: x["overall"] for k, x in content["reconstruction"].items()}
  names = {"error", "error_without_latent", "codes_in_use", "perplexity"}
  assert scores.keys() == names | {"spread_rank_1", "spread_rank_2"}
  assert 1 <= scores["perplexity"] <= scores["codes_in_use"] <= 8
  assert scores["error"] > 0 and scores["spread_rank_1"] > 0
  assert not content["baselines"]
  assert content["physical"]["mse"]["overall"] > 0


@pytest.mark.slow
def test_planning_follows_the_warm_up_and_is_logged(planned):
  logged = {}
  for path in (planned.workdir / "logs").rglob("*.jsonl"):
    for line in path.read_text().splitlines():
      row = json.loads(line)
      logged.setdefault(row.pop("step"), {}).update(row)
  for step in (1, 2):
    assert "train/loss" in logged[step]
    assert "train/pseudo_loss" not in logged[step]
  for step in (3, 4):
    row = logged[step]
    assert row["train/reward_best"] >= row["train/reward_first"]
    mixed = 0.25 * row["train/observation_loss"] + 0.75 * row["train/pseudo_loss"]
    assert row["train/loss"] == pytest.approx(mixed, rel=1e-5)
    shares = [row[f"train/won_rank_{k}"] for k in range(3)]
    assert sum(shares) == pytest.approx(1)
  names = {name for row in logged.values() for name in row}
  for name in ("agent", "first", "best"):
    assert f"validation/planning/reward_{name}" in names


@pytest.mark.slow
def test_a_trained_agent_forecasts_without_its_world_model(planned, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(planned.workdir, workdir)
  shutil.rmtree(workdir / "frozen/world/variables")
  run = build(planned.config, workdir)
  content = evaluate.evaluate(run)
  assert content["planning"].keys() == {"reward_agent"}
  fields = xr.open_zarr(forecast.forecast(run))["temperature"]
  assert fields.sizes["lead_time"] == 2 and np.isfinite(fields).all()


@pytest.mark.slow
def test_a_run_resumed_while_planning_equals_the_uninterrupted_one(planned, tmp_path):
  workdir = tmp_path / "w"
  shutil.copytree(planned.workdir, workdir)
  shutil.rmtree(workdir / "checkpoints/4")
  run = build(planned.config, workdir)
  assert latest(run).step == 3
  assert train.train(run)
  assert trees_equal(latest(run), latest(planned))


def latest(run):
  checkpoints = run.checkpoints()
  state, _ = checkpoints.restore(checkpoints.latest_step, run.abstract_state)
  checkpoints.close()
  return state


@pytest.mark.slow
def test_a_part_that_was_self_trained_is_its_agent(planned, tmp_path):
  config = sfp_runs.tiny_agent(data__horizon=2)
  config.model = ml_collections.ConfigDict({"name": "none"})
  config.method = ml_collections.ConfigDict({"name": "residual_gaussian"})
  source = {"init_from": str(planned.workdir)}
  config.frozen = ml_collections.ConfigDict({"mean": source})
  run = build(config, tmp_path / "w")
  mean = run.method.mean
  assert type(mean) is regression.Regression and mean.predict_tendency
  found, ours = sources.frozen(run)["mean"], sources.frozen(planned)
  variables = sources.load_variables(planned, planned.workdir, "best")
  assert trees_equal(found["variables"], variables)
  assert found["frozen"].keys() == {"scales"}
  np.testing.assert_array_equal(found["frozen"]["scales"], ours["scales"])
  assert (run.workdir / "frozen/mean/config.json").is_file()
  again = build(config, tmp_path / "w")  # Of the copy.
  assert again.method.mean == mean


@pytest.mark.slow
def test_a_regression_goes_on_from_self_training_and_back(planned, tmp_path):
  agent = {"method__predict_tendency": True, "data__horizon": 2, "num_steps": 1}
  config = sfp_runs.tiny_agent(init_from=str(planned.workdir), **agent)
  run = build(config, tmp_path / "agent")
  best = sources.load_variables(planned, planned.workdir, "best")
  assert trees_equal(sources.first_state(run).variables(), best)
  assert train.train(run)
  changes = PLANNING | {"init_from": str(run.workdir)}
  back = build(
    sfp_runs.tiny_planning(planned.config.frozen.world.init_from, **changes),
    tmp_path / "w",
  )
  own = sources.load_variables(run, run.workdir, "best")
  assert trees_equal(sources.first_state(back).variables(), own)
  assert not trees_equal(own, best)


def step_on(world, workdir, devices, **changes):
  """The state and the scalars after two steps."""
  changes = PLANNING | {"method__warm_up": 0.0, "optimizer__name": "sgd"} | changes
  run = build(sfp_runs.tiny_planning(world.workdir, **changes), workdir, devices)
  step, state = run.compile_train_step(), run.fresh_state()
  frozen = sources.frozen(run)
  data = run.split("train", run.config.global_batch_size, train=True)
  for batch, _ in zip(data.batches, range(2), strict=False):
    state, scalars = step(state, sharding.put_batch(batch, run.mesh), frozen)
  return jax.device_get((state.params, scalars))


@pytest.mark.slow
def test_a_mesh_plans_like_one_device(world, tmp_path):
  changes = {"method__depth": 2, "method__reward": "mse"}
  mesh = dict.fromkeys(("mesh__data", "mesh__fsdp", "mesh__space"), 2)
  found = step_on(world, tmp_path / "many", 8, **changes, **mesh)
  expected = step_on(world, tmp_path / "one", 1, **changes)

  def close(path, a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=str(path))

  jax.tree_util.tree_map_with_path(close, found, expected)
