"""The names under which validation finds its scores."""

import jax
import numpy as np
import pytest
import xarray as xr
from small_runs import tiny_fields

from stjax.errors import ConfigError
from stjax.run import build as build_lib
from stjax.verification.evaluator import Evaluator


def test_scores_of_events_and_ensembles_have_names_while_training(make_run):
  run = make_run(
    evaluation__conventions=("categorical", "ensemble", "syncast"),
    evaluation__thresholds=(0.3, 0.6),
    evaluation__scales=(4,),
  )
  names = Evaluator(run, 8, members=2).score_names()
  assert {
    "categorical/csi",
    "categorical/csi_ge_0.3",
    "categorical/far",
    "categorical/far_ge_0.6",
    "categorical/pooled_csi_4_max",
    "ensemble/crps_fair",
    "ensemble/spread_skill",
    "syncast/csi",
    "syncast/far_ge_0.3",
  } <= set(names)


@pytest.mark.slow
def test_the_config_names_the_velocities_of_the_kinetic_energy(tmp_path):
  times = np.arange("2000-01", "2003-01", dtype="datetime64[M]")
  values = np.random.default_rng(0).standard_normal((len(times), 8, 10), np.float32)
  fields = {name: (("time", "lat", "lon"), values) for name in ("u", "v")}
  coordinates = {"time": times.astype("datetime64[ns]"), "lat": np.linspace(-30, 30, 8)}
  xr.Dataset(fields, coordinates | {"lon": np.arange(10.0)}).to_netcdf(
    tmp_path / "uv.nc"
  )
  config = tiny_fields(
    tmp_path / "uv.nc",
    "u",
    data__variables=("v", "u"),
    model__out_channels=2,
    evaluation__conventions=("tke",),
    evaluation__velocities=("u", "v"),
  )
  run = build_lib.build(config, tmp_path / "run", devices=jax.devices()[:1])
  assert {"tke/error", "tke/log_error"} <= set(Evaluator(run, 8).score_names())
  config.evaluation.velocities = ("u", "w")
  with pytest.raises(ConfigError, match="evaluation.velocities='w'"):
    Evaluator(build_lib.build(config, tmp_path / "other"), 8)
