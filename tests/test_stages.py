"""Two stages from start to end: a mean, and what it leaves over."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import xarray as xr
from cost_runs import tiny_config
from small_runs import tiny_diffusion, trees_equal

import input_pipeline
from stjax import errors, evaluate, forecast, main, train
from stjax.run import build as build_lib
from stjax.run import run as run_lib
from stjax.run import sources
from stjax.verification import baselines
from stjax.verification import evaluator as evaluator_lib


def build(config, workdir, devices=1):
  return build_lib.build(config, workdir, devices=jax.devices()[:devices])


def finish(config, workdir, devices=1):
  run = build(config, workdir, devices)
  assert train.train(run)
  return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Holds the data and the work directory of a trained mean."""
  folder = tmp_path_factory.mktemp("stages")
  finish(tiny_config(folder, "mean"), folder / "mean")
  return folder


@pytest.fixture(scope="module")
def diffusion(folder):
  """A trained second stage, and its scores."""
  run = finish(tiny_config(folder, "diffusion"), folder / "diffusion")
  return run, evaluate.evaluate(run)


@pytest.mark.slow
def test_the_report_has_scores_diagrams_floors_and_fan_charts(diffusion):
  run, content = diffusion
  assert content["baselines"].keys() == {"persistence", "climatology"}
  crps = content["ensemble"]["crps"]["overall"]
  single = content["cost"]["mae_single_sample"]["overall"]
  assert 0 < crps < single
  found = {p.name for p in (run.workdir / "evaluation").rglob("*")}
  for name in (
    "ensemble_rank_histogram.csv",
    "rank_histogram.png",
    "spread_skill.png",
    "lead_time.png",
  ):
    assert name in found
  assert any(name.endswith("_fan.png") for name in found)
  # Sensors in a row make no picture.
  assert not any(name.endswith(".gif") for name in found)
  ranks = content["diagrams"]["ensemble"]["rank_histogram"]
  assert sum(ranks["frequency"]) == pytest.approx(1.0)


@pytest.mark.slow
def test_validation_scores_have_the_crps_that_chooses_the_best(diffusion):
  run, _ = diffusion
  checkpoints = run.checkpoints()
  assert checkpoints.scores(checkpoints.best_step)["cost/crps"] > 0
  checkpoints.close()


@pytest.mark.slow
def test_the_second_stage_needs_nothing_of_the_first_any_more(
  diffusion, folder, tmp_path
):
  run, content = diffusion
  shutil.copytree(run.workdir, tmp_path / "alone")
  config = tiny_config(folder, "diffusion", frozen__mean__init_from="gone/mean")
  again = build(config, tmp_path / "alone")
  assert evaluate.evaluate(again)["cost"] == content["cost"]


@pytest.mark.slow
def test_the_frozen_mean_is_that_of_the_first_stage(diffusion, folder):
  run, _ = diffusion
  frozen = sources.frozen(run)
  mean_run = build(tiny_config(folder, "mean"), folder / "mean")
  best = sources.load_variables(mean_run, mean_run.workdir, "best")
  assert trees_equal(frozen["mean"], {"variables": best, "frozen": {}})
  assert frozen["scale"].shape == (3, 6, 1, 1)
  scale = np.asarray(frozen["scale"])[0, :, 0, 0]
  assert scale[-1] > 3 * scale[0] > 0  # The noise grows from node to node.


@pytest.mark.slow
def test_a_resumed_second_stage_equals_the_uninterrupted_one(
  diffusion, folder, tmp_path
):
  run, _ = diffusion
  half = run.num_steps // 2
  workdir = tmp_path / "resumed"
  config = tiny_config(folder, "diffusion", checkpoint__every_steps=half)
  first = build(config, workdir)
  train.train(first)
  for step in run_steps(first):
    if step > half:
      shutil.rmtree(workdir / "checkpoints" / str(step))
  second = build(config, workdir)
  assert train.train(second)
  assert trees_equal(latest(second), latest(run))


def run_steps(run):
  checkpoints = run.checkpoints()
  steps = checkpoints.all_steps()
  checkpoints.close()
  return steps


def latest(run):
  checkpoints = run.checkpoints()
  state, _ = checkpoints.restore(checkpoints.latest_step, run.abstract_state)
  checkpoints.close()
  return state


def forecasts(folder, workdir, devices=1, stage="diffusion", **changes):
  config = tiny_config(folder, stage, **changes)
  run = build(config, workdir, devices)
  return xr.open_zarr(forecast.forecast(run))["traffic"].load()


@pytest.mark.slow
def test_members_agree_for_any_ensemble_batch_chunk_and_device_count(
  diffusion, folder, tmp_path
):
  run, _ = diffusion
  shutil.copytree(run.workdir, tmp_path / "w")
  six = forecasts(folder, tmp_path / "w", forecast__members=6)
  assert six.dims[:3] == ("member", "sample", "lead_time")
  few = forecasts(
    folder,
    tmp_path / "w",
    devices=4,
    forecast__members=2,
    forecast__member_chunk=1,
    forecast__batch_size=8,
  )
  np.testing.assert_allclose(few, six[:2], rtol=2e-5, atol=2e-5)
  assert float(six.std("member").min()) > 1e-3
  # Three windows do not divide: the devices share the members.
  shared = forecasts(
    folder, tmp_path / "w", devices=4, forecast__members=5, forecast__batch_size=3
  )
  np.testing.assert_allclose(shared, six[:5], rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_scores_agree_where_devices_share_the_members(diffusion, folder, tmp_path):
  run, _ = diffusion
  shutil.copytree(run.workdir, tmp_path / "w")
  config = tiny_config(folder, "diffusion", evaluation__batch_size=3)
  other = build(config, tmp_path / "w", devices=4)
  results = []
  for one, size in ((run, 16), (other, 3)):
    frozen = sources.frozen(one)
    variables = sources.load_variables(one, one.workdir, "best")
    scores = evaluator_lib.Evaluator(one, size, members=4).score(
      variables, frozen, evaluator_lib.open_split(one, "test", 5)
    )
    results.append(scores)
  one, many = results
  assert many.loss == pytest.approx(one.loss, rel=1e-4)
  for convention, expected in one.results["forecast"].items():
    for name, score in many.results["forecast"][convention].items():
      np.testing.assert_allclose(
        score.overall, expected[name].overall, rtol=1e-4, atol=1e-6, err_msg=name
      )


@pytest.mark.slow
def test_a_window_draws_the_same_whatever_else_is_scored(diffusion, folder, tmp_path):
  """Every third window alone is scored as it is among all."""
  run, _ = diffusion
  config = tiny_config(folder, "diffusion", evaluation__window_stride=3)
  thinned = build(config, run.workdir)
  frozen = sources.frozen(run)
  variables = sources.load_variables(run, run.workdir, "best")
  drawn = []
  for one, stride in ((run, 1), (thinned, 3)):
    evaluator = evaluator_lib.Evaluator(one, 16, members=4)
    keep = {6 // stride: {}}
    evaluator.score(
      variables, frozen, evaluator_lib.open_split(one, "test", stride), keep
    )
    drawn.append(keep[6 // stride]["quantiles"])
  np.testing.assert_allclose(*drawn, rtol=1e-5)


@pytest.mark.slow
def test_values_beyond_the_valid_range_are_clipped(diffusion, folder, tmp_path):
  run, _ = diffusion
  shutil.copytree(run.workdir, tmp_path / "w")
  clipped = forecasts(folder, tmp_path / "w", forecast__clip_range=(9.0, 11.0))
  assert float(clipped.min()) == 9.0
  assert float(clipped.max()) == 11.0
  below = run_lib.Run.to_physical(
    dataclasses.replace(run, config=open_above(run.config, 9.0)),
    np.array([[-1e3], [1e3]], np.float32),
  )
  assert below[0, 0] == 9.0 and below[1, 0] > 1e3


def open_above(config, lowest):
  config = config.copy_and_resolve_references()
  config.forecast.clip_range = (lowest, None)
  return config


@pytest.mark.slow
@pytest.mark.parametrize(
  ("stage", "change"), [("diffusion", {"method__mean_only": True}), ("gaussian", {})]
)
def test_what_has_nothing_to_train_is_scored_all_the_same(
  stage, change, folder, tmp_path
):
  run = finish(tiny_config(folder, stage, **change), tmp_path / "w")
  content = evaluate.evaluate(run)
  spread = content["ensemble"]["spread"]["overall"]
  assert (spread > 0) == (stage == "gaussian")
  mean = finish(tiny_config(folder, "mean"), folder / "mean")
  alone = evaluate.evaluate(mean)["cost"]["mae"]["overall"]
  mae = content["cost"]["mae"]["overall"]
  if stage == "diffusion":
    assert mae == pytest.approx(alone, rel=1e-5)
  else:  # Four members: close to their mean.
    assert mae == pytest.approx(alone, rel=0.5)


@pytest.mark.slow
def test_plain_diffusion_needs_no_mean_and_its_long_forecasts_go_on(folder, tmp_path):
  plain = dict(
    data__split__by="time",  # Longer windows: the same borders.
    forecast__members=2,
  )
  run = finish(tiny_config(folder, "plain", **plain), tmp_path / "w")
  assert not (run.workdir / "frozen").exists()
  assert evaluate.evaluate(run)["cost"]["crps"]["overall"] > 0
  short = forecasts(folder, run.workdir, stage="plain", **plain)
  long = forecasts(folder, run.workdir, stage="plain", forecast__horizon=7, **plain)
  assert long.sizes["lead_time"] == 7
  assert np.isfinite(long).all()
  np.testing.assert_allclose(
    long[:, :, :3], short[:, : long.sizes["sample"]], rtol=2e-5, atol=2e-5
  )


@pytest.mark.slow
def test_a_convolutional_mean_and_denoiser_make_an_ensemble(make_run, tmp_path):
  mean = make_run(workdir=tmp_path / "mean", num_epochs=1.0)
  assert train.train(mean)
  run = finish(tiny_diffusion(tmp_path / "mean"), tmp_path / "diffusion")
  content = evaluate.evaluate(run)
  assert content["ensemble"]["spread"]["overall"] > 0
  assert 0 <= content["ensemble"]["brier_gt_0.5"]["overall"] <= 1
  figures = {p.name for p in (run.workdir / "evaluation/figures").iterdir()}
  assert "reliability_gt_0.5.png" in figures
  store = xr.open_zarr(forecast.forecast(run))
  fields = next(iter(store.data_vars.values()))
  assert fields.sizes["member"] == 3
  assert float(fields.min()) >= 0 and float(fields.max()) <= 1


def timeless(config):
  """The same config of a network that is not told the time."""
  config.model.update(calendar_names=(), calendar_dims=())
  return config


def test_a_network_need_not_know_the_calendar_of_the_data(folder, tmp_path):
  config = timeless(tiny_config(folder, "mean"))
  with config.ignore_type():  # As a config file may have it.
    config.data.calendar = "slot_of_day, day_of_week"
  run = build(config, tmp_path / "w")
  assert run.method.network.extra_inputs == ()
  # The climatology does: it is that of every slot of every weekday.
  climatology = baselines.build(run)["climatology"]
  data = evaluator_lib.open_split(run, "test")
  batch = next(iter(data.batches))
  hour = data.labels.start.values[:16, None] + np.arange(6, 9)
  found = np.asarray(climatology(batch, 3))
  cells = input_pipeline.climatology(config.data.to_dict())
  expected = cells[hour % 24 * 7 + hour // 24 % 7]
  np.testing.assert_array_equal(found, expected)


def test_a_climatology_needs_a_calendar(folder, tmp_path):
  config = timeless(tiny_config(folder, "mean", data__calendar=()))
  with pytest.raises(errors.ConfigError, match="needs data.calendar"):
    main.check(build(config, tmp_path / "w"), "train")


def test_a_missing_first_stage_is_said_with_its_key(folder, tmp_path):
  config = tiny_config(folder, "diffusion", frozen__mean__init_from="nowhere")
  with pytest.raises(errors.ConfigError, match="frozen.mean.init_from.*/nowhere"):
    build(config, tmp_path / "w")
  config = tiny_config(folder, "diffusion", frozen__mean__init_from="")
  with pytest.raises(errors.ConfigError, match="frozen.mean.init_from is"):
    build(config, tmp_path / "w")
  assert not (tmp_path / "w").exists()  # Before anything was made.


@pytest.mark.slow
def test_kept_variables_of_another_source_are_pointed_out(
  diffusion, folder, tmp_path, caplog
):
  run, _ = diffusion
  made = json.loads((run.workdir / "frozen/mean/source.json").read_text())
  assert made == str(folder / "mean")
  shutil.copytree(run.workdir, tmp_path / "w")
  (tmp_path / "other/mean").mkdir(parents=True)

  def warnings(source):
    config = tiny_config(folder, "diffusion", frozen__mean__init_from=str(source))
    caplog.clear()
    sources.frozen(build(config, tmp_path / "w"))
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]

  assert not warnings(folder / "mean")
  assert not warnings(tmp_path / "gone/mean")
  (message,) = warnings(tmp_path / "other/mean")
  assert f"made from {folder / 'mean'}" in message


def test_a_mean_of_another_normalisation_is_refused(folder, tmp_path):
  config = tiny_config(folder, "diffusion", data__normalise="range")
  with pytest.raises(errors.ConfigError, match="data.normalise"):
    build(config, tmp_path / "w")


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"forecast__members": 0}, "forecast.members=0"),
    ({"evaluation__window_stride": 0}, "evaluation.window_stride=0"),
    ({"forecast__clip_range": (2.0, 1.0)}, "forecast.clip_range"),
    ({"new": {"calendar_sizes": (12, 7)}}, "model.calendar_sizes.*data.calendar"),
    ({"new": {"calendar_names": ("day_of_week",)}}, "model.calendar_names"),
    ({"data__calendar": ()}, "model.calendar_dims.*data.calendar"),
    ({"evaluation__baselines": ("persistance",)}, "did you mean 'persistence'"),
    ({"evaluation__points": ((0, 0), (6, 0))}, "evaluation.points.*6 x 1"),
    ({"evaluation__points": (3, 0)}, "evaluation.points has 3"),
    ({"method__schedule": "liner"}, "^method.schedule='liner'"),
    ({"new": {"horizon": 4}}, "model.horizon.*data.horizon"),
    ({"forecast__sampler__steps": 9}, "forecast.sampler.steps=9"),
    ({"model__name": "none"}, "model.name='none'"),
  ],
)
def test_what_cannot_be_is_refused_before_training(change, words, folder, tmp_path):
  new = change.pop("new", {})
  if change == {"model__name": "none"}:
    config = tiny_config(folder, "diffusion")
    config.model = {"name": "none"}
  else:
    config = tiny_config(folder, "diffusion", **change)
  config.model.update(new)
  with pytest.raises(errors.UserError, match=words):
    main.check(build(config, tmp_path / "w"), "train")
