import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import xarray as xr
from small_runs import tiny_config

import input_pipeline
from configs import simvp_xarray
from stjax import errors, evaluate, forecast, train
from stjax.forecasting import store as store_lib
from stjax.methods import persistence
from stjax.run import build as build_lib
from stjax.run import sources
from stjax.verification import baselines, figures
from stjax.verification import evaluator as evaluator_lib

# A network that compiles at once: what is tested here is everything around it.
RULE = {"name": "threshold_rule", "features": 4, "gates": 2}


def latitude_run(folder, devices=1, **changes):
  """A run on a netCDF file with latitudes, times and missing points."""
  path = folder / "sst.nc"
  if not path.exists():
    random = np.random.RandomState(0)
    values = 280 + 5 * random.rand(40, 6, 5).astype("float32")
    values[random.rand(40, 6, 5) < 0.2] = np.nan
    xr.Dataset(
      {"sst": (("time", "lat", "lon"), values, {"units": "K"})},
      coords={
        "time": np.datetime64("2000-01-01", "ns")
        + np.arange(40) * np.timedelta64(6, "h"),
        "lat": np.linspace(50, -50, 6),
        "lon": np.arange(5) * 72.0,
      },
    ).to_netcdf(path)
  config = simvp_xarray.gridded()
  config.model = ml_collections.ConfigDict(RULE)
  config.data.update(path=str(path), variables=("sst",))
  config.update_from_flattened_dict(
    {
      "data.history": 2,
      "data.horizon": 3,
      "num_epochs": 2.0,
      "global_batch_size": 8,
      "evaluation.batch_size": 8,
      "evaluation.figures": 1,
      "evaluation.area_weights": "latitude",
      "forecast.batch_size": 8,
    }
    | {k.replace("__", "."): v for k, v in changes.items()}
  )
  return build_lib.build(
    config, folder / f"run{devices}", devices=jax.devices()[:devices]
  )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  run = latitude_run(tmp_path_factory.mktemp("latitude"))
  assert train.train(run)
  return run, evaluate.evaluate(run)


def test_scores_of_masked_weighted_data_are_those_of_plain_numpy(finished):
  run, content = finished
  path = forecast.forecast(run)
  with xr.open_zarr(path, chunks=None) as store:
    store = store.load()
  with xr.open_dataset(run.config.data.path) as data:
    observed = data.sst.load()
  forecast_dims = ("member", "init_time", "lead_time", "lat", "lon")
  assert store.sst.dims == forecast_dims
  assert store.sst.attrs["units"] == "K"
  valid = store.init_time + store.lead_time
  np.testing.assert_array_equal(valid, store.valid_time)
  truth = observed.sel(time=valid).transpose("init_time", "lead_time", ...)
  error = store.sst.isel(member=0) - truth
  weights = np.cos(np.deg2rad(error.lat)) * error.notnull()
  mse = (error**2 * weights).sum() / weights.sum()
  np.testing.assert_allclose(content["physical"]["mse"]["overall"], mse, rtol=1e-4)
  by_lead = (error**2 * weights).sum(("init_time", "lat", "lon"))
  by_lead = by_lead / weights.sum(("init_time", "lat", "lon"))
  np.testing.assert_allclose(content["physical"]["mse"]["by_lead"], by_lead, rtol=1e-4)


def test_forecasts_can_be_left_as_weatherbench_2_reads_them(finished):
  run, _ = finished
  with xr.open_zarr(forecast.forecast(run), chunks=None) as store:
    own = store.sst.isel(member=0).load()
  other = latitude_run(run.workdir.parent, forecast__layout="weatherbench2")
  path = forecast.forecast(other)
  with xr.open_zarr(path, chunks=None, decode_timedelta=True) as store:
    found = store.sst.load()
  assert found.dims == ("time", "prediction_timedelta", "latitude", "longitude")
  np.testing.assert_array_equal(found.time, own.init_time)
  np.testing.assert_array_equal(
    found.prediction_timedelta, np.arange(1, 4) * np.timedelta64(6, "h")
  )
  np.testing.assert_array_equal(found.latitude, own.lat[::-1])
  np.testing.assert_array_equal(found, own[:, :, ::-1])


def test_scores_do_not_depend_on_the_batch_or_the_devices(finished):
  run, content = finished
  for devices, size in ((1, 3), (8, 16)):
    other = latitude_run(run.workdir.parent, devices, evaluation__batch_size=size)
    variables = sources.load_variables(other, run.workdir, "best")
    scores = evaluator_lib.Evaluator(other, size).score(
      variables, {}, evaluator_lib.open_split(other, "test")
    )
    physical = scores.results["forecast"]["physical"]
    for name in ("mse", "mae", "bias", "psnr"):
      np.testing.assert_allclose(
        physical[name].overall, content["physical"][name]["overall"], rtol=1e-5
      )
    np.testing.assert_allclose(scores.loss, content["about"]["loss"], rtol=1e-5)


def test_the_spread_is_drawn_by_variable_with_its_units(
  finished, tmp_path, monkeypatch
):
  run, _ = finished
  drawn = {}
  monkeypatch.setattr(
    figures.ensemble, "draw", lambda *_, **options: drawn.update(options)
  )
  monkeypatch.setattr(figures.plots, "lead_time_curves", lambda *_, **__: None)
  data = evaluator_lib.open_split(run, "test")
  figures.draw(run, data, {}, {"forecast": {}}, {}, tmp_path / "figures")
  assert drawn["variables"] == dict.fromkeys(run.coordinates.data_vars, "K")


def test_persistence_takes_the_last_value_that_was_observed():
  inputs = jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1, 1)
  inputs = jnp.broadcast_to(inputs, (1, 3, 1, 4, 1))
  mask = np.ones((1, 5, 1, 4, 1), bool)
  mask[0, 2, 0, 1] = False  # The newest is missing.
  mask[0, 1:3, 0, 2] = False  # The two newest are.
  mask[0, :3, 0, 3] = False  # Nothing was observed.
  found = persistence.persistence({"inputs": inputs, "mask": mask}, 2)
  assert found.shape == (1, 2, 1, 4, 1)
  np.testing.assert_array_equal(found[0, 0, 0, :, 0], [3.0, 2.0, 1.0, 0.0])
  np.testing.assert_array_equal(found[0, 1], found[0, 0])


def test_the_training_mean_is_that_of_the_training_targets(make_run):
  run = make_run(1)
  mean = baselines.training_mean(run)
  data = run.split("train", 1)
  targets = np.concatenate([b["targets"] for b in data.batches])
  targets = input_pipeline.inverse(run.statistics, targets)
  np.testing.assert_allclose(mean, targets.mean((0, 2, 3)), rtol=1e-5)
  # The second call reads what the first one left.
  np.testing.assert_array_equal(baselines.training_mean(run), mean)


def test_a_store_appears_only_when_it_is_whole(tmp_path):
  coordinates = xr.Dataset(
    {"t": ((), np.nan, {"units": "K"})},
    coords={"lead_time": [1, 2], "y": [0, 1], "x": [0, 1, 2]},
    attrs={"spatial_dims": ["y", "x"]},
  )
  labels = xr.Dataset({"sample_id": ("sample", ["a", "b"])})
  path = tmp_path / "out.zarr"

  def write(value, close):
    store = store_lib.ForecastStore(path, coordinates, labels, 1, {})
    store.write(0, np.full((1, 2, 2, 2, 3, 1), value, np.float32))
    if close:
      store.close()

  write(1.0, close=False)
  assert not path.exists()
  write(2.0, close=True)
  write(3.0, close=False)
  with xr.open_zarr(path, chunks=None) as store:
    assert (store.t == 2.0).all()
    assert list(store.sample_id.values) == ["a", "b"]


def test_a_new_run_starts_from_the_best_of_another(finished, tmp_path):
  run, _ = finished
  other = latitude_run(tmp_path, init_from=str(run.workdir))
  state = sources.first_state(other)
  best = sources.load_variables(run, run.workdir, "best")
  jax.tree.map(np.testing.assert_array_equal, state.params, best["params"])
  assert int(state.step) == 0
  nowhere = (
    latitude_run(tmp_path / "b", init_from="nowhere")
    if ((tmp_path / "b").mkdir() is None)
    else None
  )
  with pytest.raises(errors.ConfigError, match="nowhere"):
    sources.first_state(nowhere)


def test_periods_count_epochs_or_steps(make_run):
  run = make_run(1)  # 14 training examples, 8 a step: 1.75 steps an epoch.
  epochs = ml_collections.ConfigDict({"every_epochs": 1.0, "every_steps": 0})
  due = [s for s in range(1, 5) if run.every(epochs, s)]
  assert run.num_steps == 4 and due == [2, 4]
  steps = ml_collections.ConfigDict({"every_epochs": 1.0, "every_steps": 3})
  assert [s for s in range(1, 5) if run.every(steps, s)] == [3, 4]
  never = ml_collections.ConfigDict({"every_epochs": 0.0, "every_steps": 0})
  assert [s for s in range(1, 5) if run.every(never, s)] == [4]


def test_a_bound_on_points_shortens_training_and_scoring(make_run):
  run = make_run(1)
  points = lambda batch: (
    batch * math.prod(run.example_shape["inputs"][:3])
    + (batch * math.prod(run.example_shape["targets"][:3]))
  )
  steps = lambda limit: make_run(1, max_points=limit).num_steps
  assert [steps(points(8 * k)) for k in (0.1, 1, 2.5, 3, 99)] == [1, 1, 2, 3, 4]
  split = evaluator_lib.open_split(run, "test")
  scored = lambda limit: evaluator_lib.window_stride(
    make_run(1, evaluation__max_points=limit), "test", 2
  )
  half = math.ceil(split.num_examples / 2)
  assert [scored(points(n)) for n in (half, half - 0.5, half / 2)] == [2, 4, 4]
  assert scored(0) == 2


def test_data_without_a_value_are_refused_before_anything_is_compiled(tmp_path):
  path = tmp_path / "empty.npy"
  np.save(path, np.full((40, 4, 4), np.nan, np.float32))
  config = tiny_config()
  config.data = simvp_xarray.base.get_config().data
  config.data.update(
    store="array", path=str(path), layout="THW", missing="mask", history=2, horizon=2
  )
  with pytest.raises(input_pipeline.DataError, match="no observed value"):
    build_lib.build(config, tmp_path / "run", devices=jax.devices()[:1])
