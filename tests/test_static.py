"""Trained, scored and forecast with static fields, from a file."""

import jax
import numpy as np
import pytest
import xarray as xr
from small_runs import tiny_fields

from stjax import evaluate, forecast, sharding, train
from stjax.run import build as build_lib

pytestmark = pytest.mark.slow
FRAMES, NOISE = 80, 0.2
SIGN = np.where(np.random.RandomState(1).rand(4, 6) < 0.5, -1.0, 1.0)


def build(folder, devices=1, workdir="run", **changes):
  config = tiny_fields(
    folder / "data.nc",
    "swing",
    num_epochs=30.0,
    evaluation__every_epochs=30.0,
    data__static__variables=("sign",),
    model__features=16,
    model__depth=2,
    model__readout_features=32,
    **{"accumulation_steps": 2} | changes,
  )
  return build_lib.build(config, folder / workdir, devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Half of the cells change their sign in every frame: one frame does not tell."""
  folder = tmp_path_factory.mktemp("static")
  random = np.random.RandomState(0)
  frames = [random.randn(4, 6)]
  for _ in range(FRAMES - 1):
    noise = NOISE * random.randn(4, 6)
    frames.append(np.sqrt(1 - NOISE**2) * SIGN * frames[-1] + noise)
  time = np.datetime64("2020-01-01", "ns") + np.arange(FRAMES) * np.timedelta64(1, "D")
  xr.Dataset(
    {"swing": (("time", "y", "x"), np.float32(frames)), "sign": (("y", "x"), SIGN)},
    coords={"time": time, "y": np.arange(4.0), "x": np.arange(6.0)},
  ).to_netcdf(folder / "data.nc")
  return folder


@pytest.fixture(scope="module")
def trained(folder):
  train.train(build(folder))
  return folder


def test_what_no_history_tells_is_learnt_and_scored(trained):
  scores = evaluate.evaluate(build(trained))
  ours = scores["physical"]["rmse"]["overall"]
  # Without the signs nothing is better than 0, and the deviation is about 1.
  mean = scores["baselines"]["training_mean"]["physical"]["rmse"]["overall"]
  assert ours < 0.5 * mean
  assert (trained / "run" / "static_statistics.json").exists()


def test_forecasts_of_any_length_beyond_the_data_see_them(trained):
  path = forecast.forecast(build(trained))
  with xr.open_zarr(path, chunks=None) as store:
    found = store["swing"].isel(member=0, init_time=-1).values
    last = store["init_time"].values[-1]
  data = xr.open_dataset(trained / "data.nc")
  assert last == data.time.values[-1] and list(store.data_vars) == ["swing"]
  newest = data["swing"].values[-1]
  for lead, frame in enumerate(found, start=1):
    expected = (np.sqrt(1 - NOISE**2) * SIGN) ** lead * newest
    assert np.std(frame - expected) < 0.5 * np.std(expected)


def train_steps(run, steps=3):
  step, state, found = run.compile_train_step(), run.fresh_state(), []
  data = run.split("train", run.config.global_batch_size, train=True)
  for batch, _ in zip(data.batches, range(steps), strict=False):
    state, scalars = step(state, sharding.put_batch(batch, run.mesh), {})
    found.append(jax.device_get(scalars))
  return found


def test_devices_and_parts_of_a_batch_see_the_same_fields(folder):
  expected = train_steps(build(folder, workdir="one", accumulation_steps=1))
  axes = {f"mesh__{axis}": 2 for axis in sharding.AXES}
  found = train_steps(build(folder, 8, "eight", **axes))
  for one, other in zip(found, expected, strict=True):
    for name in other:
      np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=name)
