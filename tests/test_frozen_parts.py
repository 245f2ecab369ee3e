"""A frozen part is a whole method: every option that it was trained with."""

import dataclasses
import json
import pathlib
import shutil

import jax
import ml_collections
import numpy as np
import pytest
import xarray as xr

from configs import simvp_xarray
from stjax import errors, evaluate, forecast, methods, train
from stjax.methods import base, residual
from stjax.run import build as build_lib
from stjax.run import sources

MONTHS, HISTORY, HORIZON = 60, 3, 2
# A network that compiles at once: what is tested is everything around it.
NETWORK = {"name": "threshold_rule", "features": 4, "gates": 2}
MASKED = {"zero_missing": True, "mask_as_input": True}
EVERYTHING = MASKED | {
  "predict_tendency": True,
  "predict_anomaly": True,
  "pad_to_multiple": 4,
  "area_weights": "latitude",
  "input_noise": 0.1,
}
OPTIONS = {
  "plain": {},
  "tendency": {"predict_tendency": True},
  "anomaly": {"predict_anomaly": True},
  "zero_missing": {"zero_missing": True},
  "mask": {"mask_as_input": True},
  "padding": {"pad_to_multiple": 4},
  "training only": {
    "loss_name": "mae",
    "curriculum": ((0, 1), (0.5, HORIZON)),
    "lead_weights": (1.0, 2.0),
    "variable_weights": (3.0,),
    "area_weights": "cells",
    "equal_gradients": True,
    "push_forward": 1,
    "remat": True,
  },
}
METHOD_OF_MEAN = {"name": "residual_gaussian", "split": "train", "mean_dropout": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """A netCDF file of months with seasons and land, on 6 x 7 points."""
  rng = np.random.default_rng(0)
  months = np.arange(MONTHS)
  values = 20 + 5 * np.cos(2 * np.pi * months / 12)[:, None, None]
  values = values + np.cumsum(rng.normal(0, 0.5, (MONTHS, 6, 7)), axis=0)
  values[:, 2:4, 5:] = np.nan
  fields = xr.DataArray(
    values.astype("f4"),
    dims=("time", "lat", "lon"),
    coords={
      "time": (np.datetime64("2000-01") + months).astype("datetime64[ns]"),
      "lat": np.linspace(-50, 50, 6),
      "lon": np.arange(7) * 50.0,
    },
  )
  path = tmp_path_factory.mktemp("data") / "sst.nc"
  xr.Dataset({"sst": fields, "ice": fields * 0.1 - 2}).to_netcdf(path)
  return path


def config(data, method, frozen=None, **changes):
  c = simvp_xarray.gridded()
  trains = method.get("name", "regression") == "regression"
  c.model = ml_collections.ConfigDict(NETWORK if trains else {"name": "none"})
  c.method = ml_collections.ConfigDict({"name": "regression"} | method)
  c.frozen = ml_collections.ConfigDict({"mean": frozen} if frozen else {})
  c.data.update(path=str(data), variables=("sst",))
  c.update_from_flattened_dict(
    {
      "data.history": HISTORY,
      "data.horizon": HORIZON,
      "data.calendar": ("month",),
      "data.split.fractions": (0.6, 0.2, 0.2),
      "num_steps": 2,
      "global_batch_size": 4,
      "evaluation.batch_size": 4,
      "forecast.batch_size": 4,
    }
    | {k.replace("__", "."): v for k, v in changes.items()}
  )
  return c


def run(data, workdir, method, frozen=None, **changes):
  made = build_lib.build(
    config(data, method, frozen, **changes), workdir, devices=jax.devices()[:1]
  )
  assert train.train(made)
  return made


def fields_of(made):
  return xr.open_zarr(forecast.forecast(made))["sst"].values


def mean_of(data, source, workdir, **changes):
  """The forecast of a method that adds next to nothing to its frozen mean."""
  frozen = {"init_from": str(source)} if isinstance(source, pathlib.Path) else source
  made = run(
    data,
    workdir,
    METHOD_OF_MEAN,
    frozen,
    forecast__sampler__temperature=1e-30,
    **changes,
  )
  return fields_of(made)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
  """A trained mean with every option, and its forecast."""
  workdir = tmp_path_factory.mktemp("mean")
  return workdir, fields_of(run(data, workdir, EVERYTHING))


def test_a_frozen_mean_keeps_every_option_and_needs_its_source_once(
  trained, data, tmp_path
):
  workdir, alone = trained
  source = tmp_path / "mean"
  shutil.copytree(workdir, source)
  found = mean_of(data, source, tmp_path / "w")
  # Land is missing in one and not in the other, which has no mask of its own.
  sea = np.isfinite(alone)
  np.testing.assert_array_equal(found[sea], alone[sea])
  shutil.rmtree(source)
  again = build_lib.build(
    config(data, METHOD_OF_MEAN, {"init_from": str(source)}),
    tmp_path / "w",
    devices=jax.devices()[:1],
  )
  again.config.forecast.sampler.temperature = 1e-30
  kept = {p.name for p in (tmp_path / "w/frozen/mean").iterdir()}
  assert {"config.json", "statistics.json", "variables", "constants"} <= kept
  assert fields_of(again).shape == found.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_gives_one_forecast_alone_and_frozen(name, data, tmp_path):
  alone = fields_of(run(data, tmp_path / "mean", OPTIONS[name]))
  found = mean_of(data, tmp_path / "mean", tmp_path / "w")
  sea = np.isfinite(alone)
  np.testing.assert_array_equal(found[sea], alone[sea])


@pytest.mark.slow
def test_parts_of_parts_and_shorter_horizons(trained, data, tmp_path):
  workdir, alone = trained
  mean_of(data, workdir, tmp_path / "one", forecast__members=2)
  frozen = {"init_from": str(tmp_path / "one")}
  again = run(
    data,
    tmp_path / "two",
    METHOD_OF_MEAN,
    frozen,
    data__horizon=1,
    forecast__sampler__temperature=1e-30,
  )
  inner = tmp_path / "two/frozen/mean/frozen/mean"
  assert json.loads((inner / "config.json").read_text())["method"]["predict_tendency"]
  found = fields_of(again)
  sea = np.isfinite(alone[:, :, :1])
  # There is one window more at a horizon shorter by a frame.
  np.testing.assert_array_equal(found[:, : alone.shape[1]][sea], alone[:, :, :1][sea])


def test_a_method_without_parameters_needs_no_source(data, tmp_path):
  found = mean_of(data, {"method": {"name": "persistence"}}, tmp_path / "w")
  alone = fields_of(run(data, tmp_path / "v", {"name": "persistence"}))
  np.testing.assert_array_equal(found, alone)
  with pytest.raises(errors.ConfigError, match="frozen.mean.init_from"):
    frozen = {"method": {"name": "regression"}, "model": NETWORK}
    build_lib.build(config(data, METHOD_OF_MEAN, frozen), tmp_path / "u")


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"data__variables": ("ice",)}, r"data.variables=\['sst'\].*\['ice'\]"),
    ({"data__calendar": ("month", "day_of_year")}, "data.calendar"),
    ({"data__history": 2}, "data.history=3.* 2"),
    ({"data__horizon": 3}, "data.horizon=2.* 3"),
    ({"data__transform": "log1p"}, "data.transform=identity.*log1p"),
    ({"data__split__fractions": (0.5, 0.3, 0.2)}, "the offset.*data.split"),
    ({"data__forcings__variables": ("ice",)}, r"data.forcings.variables=\[\].*ice"),
  ],
)
def test_a_mean_of_other_data_is_refused_by_key(
  changes, words, trained, data, tmp_path
):
  frozen = {"init_from": str(trained[0])}
  with pytest.raises(errors.ConfigError, match=words):
    build_lib.build(config(data, METHOD_OF_MEAN, frozen, **changes), tmp_path / "w")


def test_what_the_source_says_itself_is_not_to_be_said_again(trained, data, tmp_path):
  frozen = {"init_from": str(trained[0]), "model": NETWORK}
  with pytest.raises(errors.ConfigError, match="frozen.mean.model.*'threshold_rule'"):
    build_lib.build(config(data, METHOD_OF_MEAN, frozen), tmp_path / "w")


@pytest.mark.slow
def test_a_forecast_needs_only_the_parts_that_it_reads(
  trained, data, tmp_path, monkeypatch
):
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Guided(residual.ResidualGaussian):
    """Reads a further part in training only."""

    part_names = ("mean", "reference")
    forecast_parts = ("mean",)
    reference: base.Method | None = None

  monkeypatch.setitem(methods.METHODS, "guided", Guided)
  c = config(data, METHOD_OF_MEAN | {"name": "guided"})
  source = {"init_from": str(trained[0])}
  c.frozen = ml_collections.ConfigDict({"mean": source, "reference": source})
  made = build_lib.build(c, tmp_path / "w", devices=jax.devices()[:1])
  assert train.train(made)
  assert set(sources.frozen(made)) == {"mean", "reference", "spread"}
  shutil.rmtree(tmp_path / "w/frozen/reference/variables")
  assert set(sources.frozen(made, training=False)) == {"mean", "spread"}
  evaluate.evaluate(made)
  assert fields_of(made).size


def test_frozen_arrays_of_an_earlier_version_are_pointed_out(trained, data, tmp_path):
  (tmp_path / "w/frozen").mkdir(parents=True)
  (tmp_path / "w/frozen/_METADATA").write_text("{}")
  frozen = {"init_from": str(trained[0])}
  with pytest.raises(errors.ConfigError, match="earlier version.*Delete"):
    build_lib.build(config(data, METHOD_OF_MEAN, frozen), tmp_path / "w")
