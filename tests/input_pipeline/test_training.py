"""What is computed from the training frames uses exactly those frames."""

import numpy as np
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import errors

HISTORY, HORIZON = 4, 3


@pytest.fixture
def config(tmp_path):
  """A data config of one sequence of 60 frames 3 x 2."""
  path = tmp_path / "frames.npy"
  np.save(path, np.random.RandomState(0).gamma(2.0, 3.0, (60, 3, 2)))
  return {
    "store": "array",
    "path": str(path),
    "history": HISTORY,
    "horizon": HORIZON,
    "split": {"by": "window", "fractions": (0.6, 0.2, 0.2)},
  }


def statistics_of(config, **options):
  return input_pipeline.build(config, "train", batch_size=1, **options).statistics


def data_of(config):
  return np.load(config["path"]).astype("f4").astype("f8")[..., None]


# 54 windows, of which 32 are for training: starts 0 to 31.
@pytest.mark.parametrize(
  ("frames", "stop"), [("all", 31 + HISTORY + HORIZON), ("history", 31 + HISTORY)]
)
@pytest.mark.parametrize("ddof", [0, 1])
def test_statistics_are_of_the_chosen_frames(config, frames, stop, ddof):
  found = statistics_of({**config, "statistics": {"frames": frames, "ddof": ddof}})
  slab = data_of(config)[:stop]
  assert found.count.tolist() == [slab.size]
  np.testing.assert_allclose(found.mean, slab.mean(), rtol=1e-12)
  np.testing.assert_allclose(found.std, slab.std(ddof=ddof), rtol=1e-12)
  np.testing.assert_array_equal(found.scale, found.std.astype(np.float32))


def test_the_default_is_all_frames_of_a_population(config):
  slab = data_of(config)[: 31 + HISTORY + HORIZON]
  np.testing.assert_allclose(statistics_of(config).std, slab.std(), rtol=1e-12)


def test_kept_statistics_are_not_mistaken_for_others(config, tmp_path):
  folder = tmp_path / "cache"
  found = [
    statistics_of({**config, "statistics": options}, cache_dir=folder)
    for options in ({}, {"frames": "history"}, {"ddof": 1})
  ]
  assert len({float(s.std[0]) for s in found}) == 3
  assert len(list(folder.glob("statistics-*.json"))) == 3


@pytest.mark.parametrize(
  "options", [{"frames": "all"}, {"frames": "history", "ddof": 1}]
)
def test_a_series_holds_the_frames_of_the_statistics(config, options):
  config |= {"statistics": options, "transform": "log1p"}
  (series,) = input_pipeline.training_series(config)
  assert series.dtype == np.float32 and series.shape[1:] == (3, 2, 1)
  found = statistics_of(config)
  assert series.size == found.count[0]
  np.testing.assert_allclose(series.mean(dtype="f8"), 0, atol=1e-6)
  np.testing.assert_allclose(
    series.std(dtype="f8", ddof=options.get("ddof", 0)), 1, atol=1e-6
  )
  np.testing.assert_allclose(
    series,
    input_pipeline.forward(found, data_of(config)[: len(series)].astype("f4")),
    atol=1e-6,
  )


def test_a_series_takes_given_statistics(config):
  given = statistics_of({**config, "normalise": "range"})
  (series,) = input_pipeline.training_series(config, statistics=given)
  assert series.min() == 0 and series.max() == 1
  with pytest.raises(errors.DataError, match="channel_0.*wind"):
    input_pipeline.training_series({**config, "variables": ("wind",)}, statistics=given)


def test_every_sequence_gives_a_series_and_every_gap_cuts_it(tmp_path):
  hours = np.delete(np.arange(40), [9, 25]).astype("datetime64[h]")
  data = np.random.RandomState(0).rand(38, 3, 2).astype("f4")
  data[20, 1, 1] = np.nan
  path = tmp_path / "gaps.nc"
  xr.Dataset(
    {"t": (("time", "y", "x"), data)}, coords={"time": hours.astype("datetime64[ns]")}
  ).to_netcdf(path)
  config = {
    "store": "xarray",
    "path": str(path),
    "variables": ("t",),
    "history": 4,
    "horizon": 3,
    "missing": "mask",
    "normalise": "none",
    "split": {"by": "time", "fractions": (0.8, 0.1, 0.1)},
  }
  series = input_pipeline.training_series(config)
  # Runs of 9, 15 and 13 frames, the last cut by the split after frame 30; its
  # 6 frames hold no window.
  assert [len(s) for s in series] == [9, 15]
  np.testing.assert_array_equal(series[0][..., 0], data[:9])
  np.testing.assert_array_equal(series[1][..., 0], data[9:24])
  with pytest.raises(errors.DataError) as caught:
    input_pipeline.training_series({**config, "missing": "error"})
  for word in ("gaps.nc", "frame 20", "'t'", "row 1", "data.missing='mask'"):
    assert word in str(caught.value)


def test_series_of_files_of_different_lengths(tmp_path):
  paths = [str(tmp_path / f"{name}.npy") for name in "ab"]
  for path, length in zip(paths, (20, 31), strict=True):
    np.save(path, np.random.RandomState(length).rand(length, 3, 2))
  config = {
    "store": "array",
    "path": paths,
    "history": 4,
    "horizon": 3,
    "split": {
      "ranges": {"train": (("a", 0, None), ("b", 5, 17)), "test": (("b", 17, None),)}
    },
  }
  series = input_pipeline.training_series(config)
  assert [len(s) for s in series] == [20, 12]
  test = input_pipeline.build(config, "test", batch_size=2)
  assert test.labels["sample_id"].values[0] == "b/00017"
  both = np.concatenate([np.load(paths[0]), np.load(paths[1])[5:17]])
  np.testing.assert_allclose(test.statistics.mean, both.mean(), rtol=1e-6)


def test_sensors_without_values_pass_through_when_masked(config, tmp_path):
  data = np.load(config["path"])
  data[:, 1, 0] = np.nan  # Never observed.
  data[5:9, 2, 1] = np.nan
  np.save(config["path"], data)
  config |= {
    "missing": "mask",
    "step": "12h",
    "calendar": ("slot_of_day",),
    "statistics": {"frames": "history", "ddof": 1},
  }
  (series,) = input_pipeline.training_series(config)
  np.testing.assert_array_equal(np.isnan(series[..., 0]), np.isnan(data[: len(series)]))
  batch = next(iter(input_pipeline.build(config, "test", batch_size=2).batches))
  assert np.isfinite(batch["inputs"]).all()
  assert not batch["mask"][:, :, 1, 0].any()
  assert batch["calendar"].shape == (2, HISTORY + HORIZON, 1)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"statistics": {"frames": "histroy"}},
      ["data.statistics.frames", "'histroy'", "did you mean 'history'"],
    ),
    ({"statistics": {"ddof": 2}}, ["data.statistics.ddof=2"]),
    ({"statistics": {"dof": 1}}, ["data.statistics.dof", "'ddof'"]),
    ({"statistics": "history"}, ["data.statistics='history'", "a dict"]),
    ({"horizon": 99}, ["at most 60 frames", "data.horizon=99", "need 103"]),
  ],
)
@pytest.mark.parametrize("function", [statistics_of, input_pipeline.training_series])
def test_unusable_settings_are_named(config, function, changes, words):
  with pytest.raises(errors.DataError) as caught:
    function({**config, **changes})
  for word in words:
    assert word in str(caught.value)
