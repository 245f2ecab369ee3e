"""Forcings: read beside the data, in step with them."""

import numpy as np
import pytest
import xarray as xr

import input_pipeline

HISTORY, HORIZON, FRAMES = 2, 3, 24


def series(frames=FRAMES, height=4, first="2020-01-01"):
  """A field and two forcings; the forcings count frames."""
  time = np.datetime64(first, "ns") + np.arange(frames) * np.timedelta64(1, "D")
  random = np.random.RandomState(0)
  shape = (frames, height, 3)
  count = np.broadcast_to(np.arange(frames)[:, None, None], shape)
  dims = ("time", "lat", "lon")
  return xr.Dataset(
    {
      "sst": (dims, random.rand(*shape).astype("f4")),
      "wind": (dims, count.astype("f4") - 5),
      "heat": (dims, 10 * count.astype("f4")),
    },
    coords={"time": time, "lat": np.arange(height) * 1.0, "lon": np.arange(3) * 1.0},
  )


def config_of(folder, own=None, **changes):
  """A data config; `own` is a dataset of forcings in a file of its own."""
  data = series()
  data.to_netcdf(folder / "data.nc", engine="h5netcdf")
  forcings = {"variables": ("wind", "heat"), "path": ""}
  if own is not None:
    own.to_netcdf(folder / "forcings.nc", engine="h5netcdf")
    forcings["path"] = str(folder / "forcings.nc")
  return {
    "store": "xarray",
    "path": str(folder / "data.nc"),
    "variables": ("sst",),
    "history": HISTORY,
    "horizon": HORIZON,
    "split": {"by": "time", "fractions": (0.5, 0.25, 0.25)},
    "forcings": forcings,
  } | changes


def batch_of(config, split="train", size=4, **options):
  made = input_pipeline.build(config, split, batch_size=size, **options)
  return made, next(iter(made.batches))


def counts(made, batch):
  """Frame numbers that the forcings say [B, T], checked against each other."""
  fields = input_pipeline.inverse(made.forcing_statistics, batch["forcings"])
  assert (fields == fields[:, :, :1, :1]).all() or np.allclose(
    fields, fields[:, :, :1, :1], atol=1e-3
  )
  wind, heat = fields[:, :, 0, 0].transpose(2, 0, 1)
  np.testing.assert_allclose(wind + 5, heat / 10, atol=1e-3)
  return np.rint(wind + 5).astype(int)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("targets", [True, False])
def test_each_frame_comes_with_its_forcings(tmp_path, own, targets):
  made, batch = batch_of(
    config_of(tmp_path, series() if own else None), "test", train=False, targets=targets
  )
  assert batch["forcings"].shape == (4, HISTORY + HORIZON, 4, 3, 2)
  days = (batch["time"] - np.datetime64("2020-01-01", "s").astype(int)) // 86400
  np.testing.assert_array_equal(counts(made, batch), days)
  # The forecast's own variables know nothing of them.
  assert batch["inputs"].shape[-1] == 1
  assert list(made.coordinates.data_vars) == ["sst"]
  assert made.spec.shapes(1)["inputs"] == (1, HISTORY, 4, 3, 1)


def test_their_statistics_are_those_of_the_training_frames_of_the_data(tmp_path):
  # Half of their own frames would be 30, not 12.
  config = config_of(tmp_path, series(60))
  made, _ = batch_of(config, cache_dir=tmp_path / "cache")
  assert made.forcing_statistics.variables == ("wind", "heat")
  np.testing.assert_allclose(made.forcing_statistics.mean, [5.5 - 5, 55])
  again, _ = batch_of(config, cache_dir=tmp_path / "cache")
  np.testing.assert_array_equal(
    again.forcing_statistics.scale, made.forcing_statistics.scale
  )
  given = input_pipeline.Statistics(
    **made.forcing_statistics.__dict__
    | {"offset": np.zeros(2, "f4"), "scale": np.ones(2, "f4")}
  )
  _, batch = batch_of(config, "test", train=False, forcing_statistics=given)
  assert batch["forcings"][0, 0, 0, 0, 1] == 180.0  # Frame 18.


def test_every_level_of_a_variable_is_a_forcing(tmp_path):
  own = series()
  own["wind"] = own["wind"].expand_dims(level=[500, 850])
  config = config_of(tmp_path, own, forcings={"variables": "wind"})
  config["forcings"]["path"] = str(tmp_path / "forcings.nc")
  made, batch = batch_of(config)
  assert made.forcing_statistics.variables == ("wind@500", "wind@850")
  assert batch["forcings"].shape[-1] == made.spec.sizes["forcing"] == 2


def test_data_and_forcings_are_moved_alike(tmp_path):
  data = series()
  data["wind"] = data["sst"] * 1
  config = config_of(tmp_path, data, augment=("flip_h", "roll_w"), normalise="none")
  config["forcings"]["variables"] = ("wind",)
  _, batch = batch_of(config)
  whole = np.concatenate([batch["inputs"], batch["targets"]], 1)
  np.testing.assert_array_equal(batch["forcings"], whole)
  _, still = batch_of(config | {"augment": ()})
  assert not np.array_equal(still["forcings"], batch["forcings"])


def test_they_may_go_below_what_the_transform_of_the_data_can_take(tmp_path):
  _, batch = batch_of(config_of(tmp_path, transform="log1p"))
  assert np.isfinite(batch["forcings"]).all()


def test_missing_forcings_are_their_mean_or_an_error(tmp_path):
  own = series()
  own["wind"][3, 1, 2] = np.nan
  with pytest.raises(input_pipeline.DataError, match="forcings.nc.*frame 3.*'wind'"):
    made, _ = batch_of(config_of(tmp_path, own))
    list(zip(range(9), made.batches, strict=False))
  config = config_of(tmp_path, own, missing="mask")
  _, batch = batch_of(config, size=8, train=False)
  assert np.isfinite(batch["forcings"]).all()
  assert batch["forcings"][0, 3, 1, 2, 0] == 0
  assert batch["mask"].shape[-1] == 1 and batch["mask"].all()


def test_beyond_the_data_they_must_be_there(tmp_path):
  options = dict(train=False, targets=False, beyond=HORIZON)
  with pytest.raises(input_pipeline.DataError, match="24 frames.*27"):
    batch_of(config_of(tmp_path, series()), "test", **options)
  made, batch = batch_of(config_of(tmp_path, series(30)), "test", size=5, **options)
  assert made.num_examples == 5  # The last one begins with the last two frames.
  np.testing.assert_array_equal(counts(made, batch)[-1], range(22, 27))


@pytest.mark.parametrize(
  "change,message",
  [
    (dict(own=series(first="2021-01-01")), "do not have the times"),
    (dict(own=series(20)), "do not have the times"),
    (dict(own=series(height=5)), "5 lat.*4 from"),
    (dict(forcings={"variables": (), "path": "f.nc"}), "names none"),
    (dict(forcings={"variables": ("rain",)}), "In data.forcings: .*'rain'"),
    (dict(forcings={"variable": ("wind",)}), "data.forcings.variable"),
  ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
  with pytest.raises(input_pipeline.DataError, match=message):
    batch_of(config_of(tmp_path, **change))


def test_a_store_that_has_no_variables_to_choose_is_refused():
  config = {
    "store": "boiling",
    "num_samples": 3,
    "image_size": 8,
    "num_frames": 30,
    "forcings": {"variables": ("wind",)},
  }
  with pytest.raises(input_pipeline.DataError, match="'boiling' has no"):
    batch_of(config)
