"""What the forecast command leaves: formats, clipping, and what is missing."""

import logging

import numpy as np
import pytest
import xarray as xr
from test_train import build, plates

from input_pipeline import files
from stjax import config as config_lib
from stjax import errors, forecast, train
from stjax.forecasting import store as store_lib


def land_config(folder, lowest=0.0):
  """Rain with a cell of land, and one that is missing now and then."""
  config = plates(folder)
  rain = np.load(folder / "plates.npy")
  rain[rain < 0.5] = lowest
  rain[:, :, 1, 2] = np.nan
  rain[:, ::2, 3, 3] = np.nan
  np.save(folder / "plates.npy", rain)
  config.data.update(missing="mask", transform="log1p")
  config.update_from_flattened_dict(
    {"num_steps": 1, "forecast.members": 2, "forecast.format": "netcdf"}
  )
  return config


@pytest.fixture(scope="module")
def land(tmp_path_factory):
  folder = tmp_path_factory.mktemp("land")
  train.train(build(folder, land_config(folder)))
  return folder


@pytest.mark.slow
def test_land_is_missing_and_rain_is_not_negative(land, caplog, monkeypatch):
  caplog.set_level(logging.INFO, "absl")
  config = land_config(land)
  run = build(land, config)
  plain = run.method.forecast
  monkeypatch.setattr(  # Some of it lies below 0.
    type(run.method), "forecast", lambda self, *arguments: plain(*arguments) - 2
  )
  path = forecast.forecast(run)
  assert path.name == "test.nc"
  said = [r.getMessage() for r in caplog.records if "clipped at 0" in r.getMessage()]
  assert len(said) == 1 and "clip_range='()'" in said[0]
  with store_lib.open_store(path) as store:
    rain = store["channel_0"].load()
  assert rain.sizes["member"] == 2
  missing = rain.isnull()
  assert missing[..., 1, 2].all() and missing.sum() == missing[..., 1, 2].size
  assert float(rain.min()) == 0.0
  config = land_config(land)
  config.forecast.update(clip_range=(), format="zarr")
  other = forecast.forecast(build(land, config))
  assert "test.nc is of an earlier forecast" in caplog.text
  with store_lib.open_store(other) as store:
    free = store["channel_0"].load()
  assert float(free.min()) < 0.0
  np.testing.assert_array_equal(rain, free.clip(min=0.0))


@pytest.mark.slow
def test_a_netcdf_store_that_was_killed_at_its_end_is_written_again(land, monkeypatch):
  regions = store_lib._regions

  def killed(*arguments):
    yield next(regions(*arguments))
    raise KeyboardInterrupt

  folder = land / "run/forecast"
  if (folder / "test.nc").exists():
    (folder / "test.nc").unlink()
  run = build(land, land_config(land))
  with monkeypatch.context() as patch:
    patch.setattr(store_lib, "_regions", killed)
    # A process that is killed clears nothing away.
    patch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    patch.setattr(files.pathlib.Path, "unlink", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
      forecast.forecast(run)
  assert not (folder / "test.nc").exists()
  assert len(list(folder.glob(".test.*.nc"))) == 1
  path = forecast.forecast(run)
  assert not list(folder.glob(".test*"))
  with store_lib.open_store(path) as store:
    assert int(store["channel_0"].isnull().sum()) == store["channel_0"][..., 1, 2].size


def test_data_below_zero_are_not_clipped_of_themselves(tmp_path, caplog):
  caplog.set_level(logging.INFO, "absl")
  run = build(tmp_path, land_config(tmp_path, lowest=-0.25))
  assert run.config.forecast.clip_range == ()
  assert "go down to -0.25" in caplog.text and "clip_range=0,None" in caplog.text


@pytest.mark.parametrize(
  ("transform", "given", "ends"),
  [
    ("log1p", ("auto",), (0.0, None)),
    ("identity", ("auto",), ()),
    ("log1p", (), ()),
    ("log1p", [], ()),  # As the config.json of an earlier version has it.
    ("identity", (None, 1.0), (None, 1.0)),
  ],
)
def test_auto_asks_the_transform(transform, given, ends, tmp_path):
  config = plates(tmp_path)
  config.data.transform = transform
  config.forecast.clip_range = tuple(given)
  config_lib.validate(config)
  assert config_lib.clip_range(config) == ends


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"clip_range": ("outo",)}, "clip_range=.*auto"),
    ({"clip_range": ("",)}, "clip_range=.*empty as"),
    ({"format": "netcfd"}, "forecast.format='netcfd'.*netcdf"),
  ],
)
def test_what_is_neither_is_refused(change, words, tmp_path):
  config = plates(tmp_path)
  config.forecast.update(change)
  with pytest.raises(errors.ConfigError, match=words):
    config_lib.validate(config)


def test_dates_that_lead_times_do_not_reach_are_said(tmp_path, caplog):
  day = np.timedelta64(1, "D").astype("timedelta64[ns]")
  dates = np.array(["2001-01-01", "2001-01-03"], "datetime64[ns]")
  labels = xr.Dataset(
    {
      "init_time": ("sample", dates),
      # One step of the second forecast is longer.
      "valid_time": (("sample", "lead_time"), [[dates[0] + day], [dates[1] + 2 * day]]),
    }
  )
  space = {"y": np.arange(2), "x": np.arange(2)}
  template = xr.Dataset(
    {"a": ((), np.nan)}, space | {"lead_time": [day]}, {"spatial_dims": ["y", "x"]}
  )
  store = store_lib.ForecastStore(tmp_path / "a.zarr", template, labels, 1, {})
  store.write(0, np.zeros((1, 2, 1, 2, 2, 1), np.float32))
  store.close()
  assert "not valid_time for 50 %" in caplog.text
  with store_lib.open_store(tmp_path / "a.zarr") as found:
    assert "valid_time has the exact" in found.lead_time.attrs["comment"]
    np.testing.assert_array_equal(found.valid_time, labels.valid_time)
