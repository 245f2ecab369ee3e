"""Trained and forecast with forcings, from files."""

import jax
import numpy as np
import pytest
import xarray as xr
from small_runs import tiny_fields

from stjax import evaluate, forecast, train
from stjax.run import build as build_lib

pytestmark = pytest.mark.slow
FRAMES = 40


def fields(frames, seed=0):
  """[frames, 4, 4] at days from 2020 on."""
  time = np.datetime64("2020-01-01", "ns") + np.arange(frames) * np.timedelta64(1, "D")
  values = np.random.RandomState(seed).randn(frames, 4, 4)
  return xr.DataArray(
    values.astype("f4"),
    dims=("time", "y", "x"),
    coords={"time": time, "y": np.arange(4.0), "x": np.arange(4.0)},
  )


def build(folder):
  config = tiny_fields(
    folder / "data.nc",
    "height",
    num_epochs=40.0,
    evaluation__every_epochs=40.0,
    data__forcings__variables=("push",),
    data__forcings__path=str(folder / "forcings.nc"),
    method__predict_tendency=True,
    method__zero_missing=True,
  )
  return build_lib.build(config, folder / "run", devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The data's changes are the forcing of the later frame, halved."""
  folder = tmp_path_factory.mktemp("forced")
  push = fields(FRAMES + 5)
  height = 0.5 * push.cumsum("time")[:FRAMES]
  height[:, 0, 1] = np.nan  # Land.
  height.to_dataset(name="height").to_netcdf(folder / "data.nc")
  push.to_dataset(name="push").to_netcdf(folder / "forcings.nc")
  train.train(build(folder))
  return folder


def test_what_no_history_tells_is_learnt_and_scored(trained):
  scores = evaluate.evaluate(build(trained))
  ours = scores["physical"]["rmse"]["overall"]
  persistence = scores["baselines"]["persistence"]["physical"]["rmse"]
  # Without forcings nothing beats persistence: the changes are noise.
  assert ours < 0.25 * persistence["overall"]


def test_forecasts_beyond_the_data_follow_the_forcings_there(trained):
  path = forecast.forecast(build(trained))
  with xr.open_zarr(path, chunks=None) as store:
    found = store["height"].isel(member=0, init_time=-1).values
    last = store["init_time"].values[-1]
  data = xr.open_dataset(trained / "data.nc")["height"]
  assert last == data.time.values[-1]
  push = fields(FRAMES + 5).values[FRAMES:]
  expected = data.values[-1] + 0.5 * push.cumsum(0)
  np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
  size = np.nanstd(expected - data.values[-1])
  assert np.nanstd(found - expected) < 0.35 * size
  # A later forcing does not reach back.
  changed = fields(FRAMES + 5)
  changed[FRAMES + 3] += 1.0
  changed.to_dataset(name="push").to_netcdf(trained / "changed.nc")
  (trained / "changed.nc").replace(trained / "forcings.nc")
  path = forecast.forecast(build(trained))
  with xr.open_zarr(path, chunks=None) as store:
    again = store["height"].isel(member=0, init_time=-1).values
  np.testing.assert_allclose(again[:3], found[:3], rtol=1e-5)
  assert np.nanmin(np.abs(again[3:] - found[3:])) > 0.2
