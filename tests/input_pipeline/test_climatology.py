"""A climatology is the training mean of each place and calendar cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import input_pipeline
from input_pipeline import errors


@pytest.fixture
def config(tmp_path):
  """A data config of 2 sequences of 40 frames 3 x 2, 2 variables."""
  path = tmp_path / "frames.npy"
  np.save(path, np.random.RandomState(0).rand(2, 40, 3, 2, 2).astype("f4"))
  return {
    "store": "array",
    "path": str(path),
    "history": 3,
    "horizon": 2,
    "step": "8h",
    "calendar": ("day_of_week", "slot_of_day"),
    "transform": "log1p",
    "split": {"by": "time"},
  }


def training_frames(config):
  """[2, 28, H, W, C] and the slot and day of each frame."""
  data = np.load(config["path"])[:, :28].astype("f8")
  frame = np.arange(28)
  return data, frame % 3, frame // 3 % 7


def test_cells_are_numbered_with_the_last_column_fastest(config):
  columns = np.array([[[0, 0], [0, 2]], [[1, 0], [6, 2]]], np.int32)
  expected = [[0, 2], [3, 20]]
  np.testing.assert_array_equal(input_pipeline.cell_index(columns, (7, 3)), expected)
  jitted = jax.jit(lambda x: input_pipeline.cell_index(x, (7, 3)))
  np.testing.assert_array_equal(jitted(jnp.asarray(columns)), expected)


def test_every_cell_has_its_training_mean_in_physical_units(config):
  found = input_pipeline.climatology(config)
  assert found.shape == (21, 3, 2, 2) and found.dtype == np.float32
  data, slot, day = training_frames(config)
  for cell in range(21):
    mine = (day == cell // 3) & (slot == cell % 3)
    np.testing.assert_allclose(found[cell], data[:, mine].mean((0, 1)), rtol=1e-6)


def test_columns_can_be_chosen(config):
  found = input_pipeline.climatology(config, columns=("slot_of_day",))
  data, slot, _ = training_frames(config)
  for cell in range(3):
    np.testing.assert_allclose(
      found[cell], data[:, slot == cell].mean((0, 1)), rtol=1e-6
    )
  assert input_pipeline.climatology(config, columns="hour_of_day").shape[0] == 24


def test_a_batch_finds_its_cell(config):
  found = input_pipeline.climatology(config)
  split = input_pipeline.build(config, "test", batch_size=3)
  batch = next(iter(split.batches))
  cell = input_pipeline.cell_index(
    batch["calendar"], tuple(split.spec.calendar.values())
  )
  start = split.labels["start"].values[:3, None] + np.arange(5)
  np.testing.assert_array_equal(cell, start // 3 % 7 * 3 + start % 3)
  assert found[cell].shape == (3, 5, 3, 2, 2)


def test_cells_and_places_without_values_get_the_next_wider_mean(config):
  data = np.load(config["path"])
  data[..., 1, 0, 1] = np.nan  # Never observed.
  data[:, ::3, 2, 1, 0] = np.nan  # Never at slot 0.
  np.save(config["path"], data)
  config |= {"missing": "mask", "calendar": ("slot_of_day",)}
  found = input_pipeline.climatology(config)
  train = data[:, :28].astype("f8")
  np.testing.assert_allclose(found[:, 1, 0, 1], np.nanmean(train[..., 1]), rtol=1e-6)
  np.testing.assert_allclose(
    found[0, 2, 1, 0], np.nanmean(train[..., 2, 1, 0]), rtol=1e-6
  )
  np.testing.assert_allclose(
    found[1, 2, 1, 0], train[:, 1::3, 2, 1, 0].mean(), rtol=1e-6
  )
  # Hours that no frame has take the mean of the place.
  hours = input_pipeline.climatology(config, columns="hour_of_day")
  np.testing.assert_allclose(
    hours[5, 0, 0], np.nanmean(train[:, :, 0, 0], axis=(0, 1)), rtol=1e-6
  )


def test_it_is_read_from_the_training_frames_and_kept(config, tmp_path):
  folder = tmp_path / "cache"
  first = input_pipeline.climatology(config, cache_dir=folder)
  (path,) = folder.glob("climatology-*.npy")
  np.save(path, first + 1)
  np.testing.assert_array_equal(
    input_pipeline.climatology(config, cache_dir=folder), first + 1
  )
  fewer = {**config, "statistics": {"frames": "history"}}
  again = input_pipeline.climatology(fewer, cache_dir=folder)
  data = np.load(config["path"])
  data[:, 28:] += 1000  # Not of the training split.
  np.save(config["path"], data)
  np.testing.assert_array_equal(input_pipeline.climatology(config), first)
  assert not np.array_equal(again, first)


def test_missing_columns_and_values_are_named(config):
  with pytest.raises(errors.DataError, match="data.calendar is empty.*month"):
    input_pipeline.climatology({**config, "calendar": ()})
  data = np.load(config["path"])
  data[0, 20, 1, 1, 0] = np.nan
  np.save(config["path"], data)
  with pytest.raises(errors.DataError, match="frame 20.*data.missing='mask'"):
    input_pipeline.climatology(config)
  data[..., 0] = np.nan
  np.save(config["path"], data)
  with pytest.raises(errors.DataError, match="'channel_0' has no observed"):
    input_pipeline.climatology({**config, "missing": "mask"})


def test_an_unseen_cell_has_the_mean_of_its_first_column(config):
  data = np.load(config["path"])
  day, slot = np.arange(40) // 3 % 7, np.arange(40) % 3
  data[:, (day == 2) & (slot == 1), 1, 1] = np.nan
  data[:, day == 4] = np.nan  # Not even the first column was seen.
  np.save(config["path"], data)
  found = input_pipeline.climatology({**config, "missing": "mask"})
  train, slot, day = training_frames(config)
  np.testing.assert_allclose(
    found[2 * 3 + 1, 1, 1], np.nanmean(train[:, day == 2, 1, 1], (0, 1)), rtol=1e-6
  )
  np.testing.assert_allclose(
    found[2 * 3 + 1, 0, 1],
    train[:, (day == 2) & (slot == 1), 0, 1].mean((0, 1)),
    rtol=1e-6,
  )
  np.testing.assert_allclose(found[4 * 3 + 1], np.nanmean(train, (0, 1)), rtol=1e-6)


def test_every_cell_has_its_training_quantile(config):
  found = input_pipeline.climatological_quantile(config, 0.9)
  assert found.shape == (21, 3, 2, 2) and found.dtype == np.float32
  data, slot, day = training_frames(config)
  for cell in range(21):
    mine = (day == cell // 3) & (slot == cell % 3)
    np.testing.assert_allclose(
      found[cell], np.quantile(data[:, mine], 0.9, axis=(0, 1)), rtol=1e-6
    )


def test_missing_values_are_left_out_of_a_quantile(config):
  data = np.load(config["path"])
  data[0, ::4, 2, 1] = np.nan
  data[:, ::3, 1, 1, 0] = np.nan  # Never at slot 0.
  np.save(config["path"], data)
  config |= {"missing": "mask", "calendar": ("slot_of_day",)}
  found = input_pipeline.climatological_quantile(config, 0.3)
  train = data[:, :28].astype("f8")
  for slot in range(3):
    np.testing.assert_allclose(
      found[slot, 2, 1],
      np.nanquantile(train[:, slot::3, 2, 1], 0.3, axis=(0, 1)),
      rtol=1e-6,
    )
  assert np.isnan(found[0, 1, 1, 0]) and np.isfinite(found[1:, 1, 1, 0]).all()


def test_the_quantile_of_a_day_takes_the_eleven_days_around_it(tmp_path):
  path = tmp_path / "days.npy"
  values = np.random.RandomState(1).rand(800, 2, 1, 1).astype("f4")
  np.save(path, values)
  config = {
    "store": "array",
    "path": str(path),
    "layout": "THWC",
    "step": "1D",
    "first_time": "2001-01-01",
    "history": 3,
    "horizon": 2,
    "calendar": ("day_of_year",),
    "split": {"by": "time", "boundaries": ("2003-01-02", "2003-02-01")},
  }
  found = input_pipeline.climatological_quantile(config, 0.9)
  date = np.datetime64("2001-01-01") + np.arange(731)
  day = (date - date.astype("datetime64[Y]")).astype(int)
  for number in (3, 200, 365):
    distance = np.abs(day - number)
    near = np.minimum(distance, 366 - distance) <= 5
    np.testing.assert_allclose(
      found[number], np.quantile(values[:731][near], 0.9, axis=0), rtol=1e-6
    )


def test_quantiles_are_kept_apart(config, tmp_path):
  folder = tmp_path / "cache"
  kept = [
    input_pipeline.climatological_quantile(config, q, cache_dir=folder)
    for q in (0.5, 0.9, 0.9)
  ]
  assert len([*folder.glob("quantiles-*.npy")]) == 2
  assert not np.array_equal(kept[0], kept[1])
  np.testing.assert_array_equal(kept[1], kept[2])
  with pytest.raises(errors.DataError, match="between 0 and 1"):
    input_pipeline.climatological_quantile(config, 1.5)
  with pytest.raises(errors.DataError, match="data.calendar is empty"):
    input_pipeline.climatological_quantile({**config, "calendar": ()}, 0.5)
