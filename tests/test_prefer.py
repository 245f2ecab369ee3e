"""From a trained diffusion to pairs, and from pairs to a diffusion that prefers."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import xarray as xr
import zarr
from small_runs import trees_equal

import input_pipeline
from configs import simvp_xarray
from stjax import errors, evaluate, forecast, main, prefer, train
from stjax.forecasting import candidates
from stjax.methods import diffusion
from stjax.run import build as build_lib
from stjax.run import sources
from stjax.training import guards

HISTORY, HORIZON = 2, 3
NETWORK = {"name": "stid_denoiser", "node_dim": 4, "embed_dim": 8, "num_layers": 1}


@pytest.fixture(scope="module")
def rain(tmp_path_factory):
  """Rain of 12 sequences of 6 frames on 8 x 8 points, in mm/h."""
  rng = np.random.default_rng(0)
  fields = rng.gamma(0.5, 2.0, (12, 6, 8, 8)).astype("f4")
  fields[:, :, :2] = np.nan  # Beyond the range of the radar.
  split = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
  data = xr.Dataset(
    {"rain_rate": (("sample", "time", "y", "x"), fields, {"units": "mm/h"})},
    coords={
      "sample_id": ("sample", [f"s{n}" for n in range(12)]),
      "split": ("sample", split),
    },
  )
  path = tmp_path_factory.mktemp("data") / "rain.nc"
  data.to_netcdf(path)
  return path


def config(rain, **changes):
  c = simvp_xarray.gridded()
  c.model = ml_collections.ConfigDict(NETWORK)
  c.method = ml_collections.ConfigDict(
    {"name": "diffusion", "schedule": "linear", "num_steps": 20, "beta_end": 0.2}
  )
  c.data.update(path=str(rain), variables=("rain_rate",), missing="mask")
  c.update_from_flattened_dict(
    {
      "data.sample_dim": "sample",
      "data.sample_variable": "sample_id",
      "data.split_variable": "split",
      "data.history": HISTORY,
      "data.horizon": HORIZON,
      "data.transform": "log1p",
      "data.split.preference": 0.5,
      "num_steps": 2,
      "log.every_steps": 1,
      "global_batch_size": 4,
      "evaluation.batch_size": 4,
      "evaluation.thresholds": (1.0,),
      "evaluation.figures": 1,
      "forecast.batch_size": 4,
      "forecast.sampler.name": "ddim",
      "forecast.sampler.steps": 4,
      "forecast.clip_range": (0.0, None),
      "prefer.candidates": 4,
      "prefer.batch_size": 4,
      "prefer.splits": ("preference", "validation"),
    }
    | {k.replace("__", "."): v for k, v in changes.items()}
  )
  return c


def optimised(rain, base, pairs, previous=None, **changes):
  """The config of a run that prefers: DPO, or with `previous` SPO."""
  c = config(rain, data__pairs=str(pairs), **changes)
  c.method = ml_collections.ConfigDict(
    {"name": "preference", "policy": c.method.to_dict(), "beta": 100.0}
  )
  c.frozen = ml_collections.ConfigDict({"reference": {"init_from": str(base)}})
  c.init_from = str(previous or base)
  if previous:
    c.frozen.previous = {"init_from": str(previous)}
  c.num_steps = changes.get("num_steps", 2)
  return c


def build(config, workdir, devices=1):
  return build_lib.build(config, workdir, devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def base(rain, tmp_path_factory):
  """A trained base and the pairs that were drawn from it, by FAR."""
  workdir = tmp_path_factory.mktemp("base")
  run = build(config(rain, prefer__name="far"), workdir)
  assert train.train(run)
  main.check(run, "prefer")
  prefer.prefer(run)
  return workdir


def log_of(workdir):
  lines = (workdir / "logs/metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_candidates_are_members_and_the_pairs_are_those_of_the_scores(base, rain):
  folder = base / "preferences/far"
  manifest = json.loads((folder / "manifest.json").read_text())
  run = build(config(rain), base)
  data = run.split("preference", 4)
  assert manifest["splits"]["preference"]["windows"] == data.num_examples
  fields = zarr.open_group(folder / "candidates.zarr", mode="r")["preference"]
  assert fields.chunks == (1, *fields.shape[1:])
  assert sorted(manifest["splits"]) == ["preference", "validation"]
  # A candidate is a member of the forecast: clipped, in physical units.
  run.config.forecast.update(split="preference", members=4)
  stored = xr.open_zarr(forecast.forecast(run))["rain_rate"].values
  members = np.asarray(run.to_physical(np.asarray(fields)))[..., 0]
  observed = np.isfinite(stored)
  np.testing.assert_allclose(
    members.transpose(1, 0, 2, 3, 4)[observed], stored[observed], rtol=1e-4, atol=1e-5
  )
  pairs = manifest["splits"]["preference"]["pairs"]
  assert pairs
  truth = _observations(data, run)
  for pair in pairs:
    y, x = truth[pair["window"]], members[pair["row"]]
    seen = np.isfinite(y)
    far = [((m >= 1) & (y < 1))[seen].sum() / (m >= 1)[seen].sum() for m in x]
    np.testing.assert_allclose(pair["scores"]["far"], far, rtol=1e-6)
    assert far[pair["chosen"]] == min(far) and far[pair["rejected"]] == max(far)


def _observations(data, run):
  """Targets [T, H, W] in mm/h by window, NaN where missing."""
  found = {}
  for batch in data.batches:
    fields = input_pipeline.inverse(run.statistics, batch["targets"])
    fields = np.where(batch["mask"][:, HISTORY:], fields, np.nan)
    found |= dict(zip(batch["index"].tolist(), fields[..., 0], strict=True))
  return found


def test_a_kill_loses_nothing_and_other_scores_use_the_same_candidates(
  base, rain, tmp_path, monkeypatch
):
  workdir = tmp_path / "base"
  shutil.copytree(base, workdir, ignore=shutil.ignore_patterns("preferences"))
  run = build(config(rain, prefer__name="again"), workdir)
  keep = candidates.Candidates._keep

  def killed(self, done):
    keep(self, done)
    raise KeyboardInterrupt

  monkeypatch.setattr(candidates.Candidates, "_keep", killed)
  with pytest.raises(KeyboardInterrupt):
    prefer.prefer(run)
  monkeypatch.undo()
  assert not (workdir / "preferences/again").exists()
  read = []
  monkeypatch.setattr(candidates, "_compile", lambda *a: read.append(a) or compile_(*a))
  prefer.prefer(run)
  same = [
    zarr.open_group(w / "candidates.zarr", mode="r")["preference"][:]
    for w in (base / "preferences/far", workdir / "preferences/again")
  ]
  np.testing.assert_array_equal(*same)
  assert len(read) == 1
  csi = config(rain, prefer__name="csi", prefer__scores=("csi", "crps_share"))
  folder = prefer.prefer(build(csi, workdir))
  assert len(read) == 1  # Nothing was drawn.
  manifest = json.loads((folder / "manifest.json").read_text())
  assert manifest["better"] == {"csi": "higher", "crps_share": "lower"}


compile_ = candidates._compile


@pytest.fixture(scope="module")
def far(base, rain, tmp_path_factory):
  """A run of DPO on the pairs."""
  workdir = tmp_path_factory.mktemp("far")
  run = build(optimised(rain, base, base / "preferences/far"), workdir)
  assert train.train(run)
  return workdir


def test_the_first_gap_is_0_and_held_out_pairs_are_scored(far, base, rain):
  lines = log_of(far)
  steps = [line for line in lines if "train/gap" in line]
  assert steps[0]["train/gap"] == 0 and steps[0]["train/margin"] == 0
  assert steps[0]["train/loss"] == pytest.approx(np.log(2), rel=1e-6)
  assert steps[1]["train/gap"] != 0
  assert {"train/chosen_error", "train/rejected_error"} <= steps[0].keys()
  scored = [line for line in lines if "validation/implicit_accuracy" in line]
  assert 0 <= scored[-1]["validation/implicit_accuracy"] <= 1
  manifest = json.loads((base / "preferences/far/manifest.json").read_text())
  run = build(optimised(rain, base, base / "preferences/far"), far)
  assert run.num_examples == len(manifest["splits"]["preference"]["pairs"])
  # The policy began where the base had ended.
  config_ = optimised(rain, base, base / "preferences/far")
  first = sources.first_state(build(config_, far))
  trained = sources.load_variables(build(config(rain), base), base, "best")
  assert trees_equal(first.params, trained["params"])


@pytest.mark.slow
def test_what_two_calls_round_differently_is_no_gap(base, rain, tmp_path, monkeypatch):
  run = build(optimised(rain, base, base / "preferences/far"), tmp_path)
  batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in run.spec.zeros(2).items()}
  batch |= {name: jnp.ones(2, bool) for name in ("paired", "valid")}
  batch["mask"] = jnp.ones_like(batch["mask"])
  batch |= {name: batch[name] + x for name, x in (("chosen", 0.5), ("rejected", 2.0))}
  variables = run.method.init(jax.random.key(0), batch)
  calls = []
  errors_of = diffusion.Diffusion.errors

  def rounded(self, *arguments, **options):
    error, weight, summed = errors_of(self, *arguments, **options)
    calls.append(error)
    # The chosen one's error is rounded another way in each call.
    return error.at[0].multiply(1 + 1e-6 * len(calls)), weight, summed

  monkeypatch.setattr(diffusion.Diffusion, "errors", rounded)
  frozen = {"reference": {"variables": variables, "frozen": {}}}
  other = jax.tree.map(lambda x: x * 1.001, variables)
  gaps = [
    run.method.loss(own, frozen, batch, jax.random.key(1), True)[1].scalars["gap"]
    for own in (variables, other)
  ]
  assert len(calls) == 4 and gaps[0] == 0 and gaps[1] != 0


@pytest.mark.slow
def test_a_second_preference_is_held_to_the_first(far, base, rain, tmp_path):
  moved = tmp_path / "pairs"
  shutil.copytree(base / "preferences/far", moved)
  c = optimised(rain, base, moved, far, evaluation__guards={"loss": 100.0})
  c.method.anchor = 0.5
  run = build(c, tmp_path / "csi")
  assert train.train(run)
  steps = [line for line in log_of(tmp_path / "csi") if "train/gap" in line]
  assert steps[0]["train/gap"] == 0 and steps[0]["train/previous_gap"] != 0
  assert (tmp_path / "csi/guards.json").exists()
  # What it wraps is a plain diffusion, and is copied as one.
  copied = json.loads((tmp_path / "csi/frozen/previous/config.json").read_text())
  assert copied["method"]["name"] == "diffusion" and not copied["frozen"]
  # Without its pairs it is still evaluated, makes forecasts and draws candidates.
  shutil.rmtree(moved)
  again = build(c, tmp_path / "csi")
  evaluate.evaluate(again)
  forecast.forecast(again)
  again.config.prefer.round = 2
  folder = prefer.prefer(again)
  source = json.loads((folder / "manifest.json").read_text())["source"]
  assert len(source["from"]) == 3


@pytest.mark.slow
def test_a_guard_stops_a_run_before_anything_is_saved(far, base, rain, tmp_path):
  c = optimised(
    rain,
    base,
    base / "preferences/far",
    num_steps=4,
    evaluation__every_steps=2,
    evaluation__guards={"implicit_accuracy": -1e-9, "loss": 1e-9},
    optimizer__learning_rate=0.5,
  )
  with pytest.raises(guards.Guarded, match="loss was .* evaluation.guards allows"):
    train.train(build(c, tmp_path / "w"))
  first = json.loads((tmp_path / "w/guards.json").read_text())
  assert first["implicit_accuracy"] == 0  # All gaps are 0 before the first step.
  run = build(c, tmp_path / "w")
  assert run.checkpoints().latest_step is None
  with pytest.raises(guards.Guarded):  # It does not go on from there.
    train.train(run)


def _edited(base, tmp_path, edit):
  folder = tmp_path / "pairs"
  shutil.copytree(base / "preferences/far", folder)
  manifest = json.loads((folder / "manifest.json").read_text())
  edit(manifest)
  (folder / "manifest.json").write_text(json.dumps(manifest))
  return folder


@pytest.mark.parametrize(
  ("edit", "words"),
  [
    (lambda m: m["source"].update({"from": ["0"]}), "was drawn from step 2 of"),
    (lambda m: m["data"].update(stride=7), "data.stride=7, but here it is 1"),
    (lambda m: m["statistics"].update(scale=[9.0]), r"scale of the statistics=\[9.0\]"),
    (
      lambda m: m["splits"]["preference"].update(fingerprint="0"),
      "other windows of the preference split",
    ),
    (
      lambda m: m["splits"]["preference"].update(pairs=[]),
      "no pair for the preference split.*prefer.candidates",
    ),
    (lambda m: m.update(format=0), "format 0, where 1 is read"),
  ],
)
def test_pairs_of_another_kind_are_refused(edit, words, base, rain, tmp_path):
  folder = _edited(base, tmp_path, edit)
  with pytest.raises(errors.UserError, match=words):
    train.train(build(optimised(rain, base, folder), tmp_path / "w"))


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"prefer__candidates": 1}, "prefer.candidates=1 must be at least 2"),
    ({"prefer__scores": ("fra",)}, "prefer.scores='fra'.*far"),
    ({"prefer__scores": ()}, "prefer.scores is empty"),
    ({"evaluation__thresholds": ()}, "prefer.thresholds"),
    ({"prefer__weights": (1.0, 2.0)}, "prefer.weights"),
    ({"prefer__pairing": "both"}, "by two scores"),
    ({"prefer__splits": ("train", "tset")}, "prefer.splits='tset'"),
    ({"prefer__name": "a/b"}, "prefer.name"),
    ({"data__split__preference": 0.0}, "data.split.preference"),
  ],
)
def test_preferences_that_cannot_be_made_are_refused(changes, words, rain, tmp_path):
  with pytest.raises(errors.UserError, match=words):
    main.check(build(config(rain, **changes), tmp_path), "prefer")


def test_members_that_are_all_the_same_make_no_pair(rain, tmp_path):
  c = config(rain, prefer__splits=("preference",))
  c.model = ml_collections.ConfigDict({"name": "none"})
  c.method = ml_collections.ConfigDict({"name": "persistence"})
  run = build(c, tmp_path)
  assert train.train(run)
  with pytest.raises(errors.ConfigError, match="6 have candidates of equal scores"):
    prefer.prefer(run)
  # What was drawn is kept, so that another score finds it.
  assert (tmp_path / "preferences/pairs/candidates.zarr").is_dir()
  c.prefer.guidance_strength = 0.1
  with pytest.raises(errors.ConfigError, match="prefer.guidance_strength=0.1 guides"):
    main.check(build(c, tmp_path), "prefer")


def test_windows_without_a_pair_are_counted_and_a_split_without_one_is_refused(
  base, rain, tmp_path
):
  workdir = tmp_path / "base"
  shutil.copytree(base, workdir)
  dry = config(rain, prefer__name="far", prefer__thresholds=(1e6,))
  with pytest.raises(errors.ConfigError, match="have no event at any threshold"):
    prefer.prefer(build(dry, workdir))


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"beta": 0.0}, "method.beta=0.0 must be above 0"),
    ({"alpha": -1.0}, "method.alpha"),
    ({"weight": "old"}, "method.weight='old'"),
    ({"policy": {"name": "diffusion", "num_steps": 20}}, "method.policy.schedule"),
    ({"policy": {"name": "persistence"}}, "must be a diffusion that is trained"),
  ],
)
def test_a_preference_that_makes_no_sense_is_refused(
  change, words, base, rain, tmp_path
):
  c = optimised(rain, base, base / "preferences/far")
  c.method.update(ml_collections.ConfigDict(change))
  if "policy" in change:
    c.method.policy = ml_collections.ConfigDict(change["policy"])
  with pytest.raises(errors.ConfigError, match=words):
    build(c, tmp_path)


def test_a_reference_of_another_network_and_a_missing_one_are_refused(
  base, rain, tmp_path
):
  c = optimised(rain, base, base / "preferences/far")
  c.model.embed_dim = 12
  with pytest.raises(errors.ConfigError, match="frozen.reference is not.*model"):
    build(c, tmp_path / "a")
  c = optimised(rain, base, base / "preferences/far")
  c.frozen = ml_collections.ConfigDict()
  with pytest.raises(errors.ConfigError, match="frozen.reference.init_from"):
    build(c, tmp_path / "b")
  c = optimised(rain, base, "")
  with pytest.raises(errors.ConfigError, match="data.pairs"):
    build(c, tmp_path / "c")


@pytest.mark.slow
def test_residuals_of_a_frozen_mean_are_preferred_by_their_share_of_the_crps(
  rain, tmp_path
):
  c = config(rain)
  c.model = ml_collections.ConfigDict(
    {"name": "threshold_rule", "features": 4, "gates": 2}
  )
  c.method = ml_collections.ConfigDict({"name": "regression", "predict_tendency": True})
  assert train.train(build(c, tmp_path / "mean"))
  residual = {
    "name": "residual_diffusion",
    "scale": "residual",
    "num_steps": 20,
    "mean_only": False,
    "mean_dropout": False,
  }
  shares = {"prefer__scores": ("crps_share",), "prefer__name": "crps"}
  c = config(rain, **shares)
  c.method = ml_collections.ConfigDict(residual)
  mean = {"mean": {"init_from": str(tmp_path / "mean")}}
  c.frozen = ml_collections.ConfigDict(mean)
  run = build(c, tmp_path / "base")
  assert train.train(run)
  folder = prefer.prefer(run)
  made = {}
  for name, previous in (("one", None), ("two", tmp_path / "one")):
    c = optimised(rain, tmp_path / "base", folder, previous, **shares)
    c.method.policy = ml_collections.ConfigDict(residual)
    assert train.train(build(c, tmp_path / name))
    steps = [line for line in log_of(tmp_path / name) if "train/gap" in line]
    assert steps[0]["train/gap"] == 0 and steps[-1]["train/gap"] != 0
    made[name] = c
  # The mean and the scale of the base have come along, so that nothing else is
  # needed for a forecast.
  shutil.rmtree(tmp_path / "mean")
  shutil.rmtree(tmp_path / "base")
  again = build(made["two"], tmp_path / "two")
  assert xr.open_zarr(forecast.forecast(again))["rain_rate"].size
  inner = tmp_path / "two/frozen/previous"
  assert json.loads((inner / "config.json").read_text())["method"] == residual
  assert (inner / "frozen/mean/config.json").exists() and (inner / "constants").is_dir()


@pytest.mark.slow
def test_another_mean_of_the_stage_before_is_refused(base, rain, tmp_path):
  arrays = {
    name: {"variables": {}, "frozen": {"scale": np.full(2, value)}}
    for name, value in (("reference", 1.0), ("previous", 2.0))
  }
  run = build(optimised(rain, base, base / "preferences/far", base), tmp_path)
  with pytest.raises(errors.ConfigError, match="frozen.previous reads other"):
    run.method.check_frozen(arrays, np.asarray)
  arrays["previous"]["frozen"]["scale"][:] = 1.0
  run.method.check_frozen(arrays, np.asarray)


@pytest.mark.slow
def test_two_processes_draw_and_pair_like_one(base, rain, tmp_path):
  shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("preferences"))
  path = tmp_path / "config.py"
  path.write_text(
    "import json, ml_collections\n"
    "def get_config():\n"
    f"  values = json.loads(open({str(base / 'config.json')!r}).read())\n"
    # Other tests may have asked the same work directory for other pairs.
    "  values['prefer']['name'] = 'far'\n"
    "  return ml_collections.ConfigDict(values, convert_dict=True)\n"
  )
  environment = {
    k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PYTHONPATH")
  }
  root = pathlib.Path(__file__).parents[1]
  command = ["bash", "launch/local.sh", "2", f"--config={path}", "--mode=prefer"]
  result = subprocess.run(
    [*command, f"--workdir={tmp_path / 'base'}"],
    cwd=root,
    env=environment | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  one, two = (w / "preferences/far" for w in (base, tmp_path / "base"))
  pairs = [
    json.loads((folder / "manifest.json").read_text())["splits"]
    for folder in (one, two)
  ]
  for name in pairs[0]:
    fields = [
      zarr.open_group(folder / "candidates.zarr", mode="r")[name][:]
      for folder in (one, two)
    ]
    np.testing.assert_allclose(*fields, atol=1e-4 * np.abs(fields[0]).max())
    picked = [
      [(p["window"], p["chosen"], p["rejected"]) for p in part[name]["pairs"]]
      for part in pairs
    ]
    assert picked[0] == picked[1]


@pytest.mark.slow
def test_any_number_of_devices_draws_the_same_candidates(base, rain, tmp_path):
  workdir = tmp_path / "base"
  shutil.copytree(base, workdir, ignore=shutil.ignore_patterns("preferences"))
  prefer.prefer(build(config(rain, prefer__name="far"), workdir, devices=4))
  one, four = (
    zarr.open_group(w / "preferences/far/candidates.zarr", mode="r")["preference"][:]
    for w in (base, workdir)
  )
  np.testing.assert_allclose(one, four, atol=1e-5 * np.abs(one).max())
