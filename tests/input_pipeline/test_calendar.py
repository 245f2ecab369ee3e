"""Calendar columns agree with the dates, or with the frame numbers."""

import datetime

import numpy as np
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import calendar, errors

ALL = calendar.COLUMNS


@pytest.fixture
def config(tmp_path):
  """A data config of two sequences of 400 frames 3 x 2."""
  path = tmp_path / "frames.npy"
  np.save(path, np.random.RandomState(0).rand(2, 400, 3, 2).astype("f4"))
  return {
    "store": "array",
    "path": str(path),
    "history": 3,
    "horizon": 2,
    "split": {"by": "time"},
  }


def batch_of(config, **options):
  split = input_pipeline.build(config, "train", train=False, batch_size=600, **options)
  (batch,) = split.batches
  kept = batch["valid"]
  return split, {key: value[kept] for key, value in batch.items()}


def test_columns_are_those_of_the_dates_in_the_order_asked_for(config):
  config |= {
    "step": "3h",
    "first_time": "2019-12-30T21:00",
    "calendar": ("month", "day_of_week", "slot_of_day", "day_of_year", "hour_of_day"),
  }
  split, batch = batch_of(config)
  assert tuple(split.spec.calendar.values()) == (12, 7, 8, 366, 24)
  assert batch["calendar"].shape == (*batch["time"].shape, 5)
  assert batch["calendar"].dtype == np.int32
  for time, columns in zip(
    batch["time"].reshape(-1), batch["calendar"].reshape(-1, 5), strict=True
  ):
    date = datetime.datetime.fromtimestamp(int(time), datetime.UTC)
    assert columns.tolist() == [
      date.month - 1,
      date.weekday(),
      date.hour // 3,
      date.timetuple().tm_yday - 1,
      date.hour,
    ]


def test_dates_before_1970_are_no_different(config):
  config |= {
    "step": "12h",
    "first_time": "1899-12-25",
    "calendar": "day_of_week, slot_of_day",
  }
  _, batch = batch_of(config)
  date = datetime.date(1899, 12, 25)
  assert batch["calendar"][0, 0].tolist() == [date.weekday(), 0]
  assert batch["calendar"][0, :, 0].tolist() == [0, 0, 1, 1, 2]


def test_a_step_alone_counts_from_monday_midnight(config):
  config |= {"step": "6h", "calendar": ("slot_of_day", "day_of_week", "hour_of_day")}
  split, batch = batch_of(config)
  assert tuple(split.spec.calendar.values()) == (4, 7, 24)
  start = split.labels["start"].values[:, None] + np.arange(5)
  expected = np.stack([start % 4, start // 4 % 7, start % 4 * 6], axis=-1)
  np.testing.assert_array_equal(batch["calendar"], expected)
  assert start.max() > 4 * 7 * 2  # More than two weeks.


def test_months_alone_count_from_january(config):
  _, batch = batch_of({**config, "step": "MS", "calendar": ("month",)})
  np.testing.assert_array_equal(batch["calendar"][:13, 0, 0], [*range(12), 0])


@pytest.mark.parametrize("step", ["", "5min", "MS"])
def test_slots_per_day_count_by_frame_number(config, step):
  """The released CoST program's arithmetic, whatever the step."""
  config |= {
    "calendar": ("day_of_week", "slot_of_day"),
    "slots_per_day": 3,
    "step": step,
  }
  split, batch = batch_of(config)
  assert tuple(split.spec.calendar.values()) == (7, 3)
  start = split.labels["start"].values[:, None] + np.arange(5)
  np.testing.assert_array_equal(batch["calendar"][..., 1], start % 3)
  np.testing.assert_array_equal(batch["calendar"][..., 0], start // 3 % 7)


def test_dates_of_a_model_calendar_have_its_months(tmp_path):
  path = tmp_path / "model.nc"
  xr.Dataset(
    {"t": (("time", "y", "x"), np.random.rand(400, 3, 2))},
    coords={
      "time": (
        "time",
        np.arange(400.0),
        {"units": "days since 2001-01-01", "calendar": "360_day"},
      )
    },
  ).to_netcdf(path)
  config = {
    "store": "xarray",
    "path": str(path),
    "variables": ("t",),
    "history": 3,
    "horizon": 2,
    "calendar": ("month", "day_of_year"),
    "split": {"fractions": (1.0, 0.0, 0.0)},
  }
  split, batch = batch_of(config)
  day = split.labels["start"].values
  np.testing.assert_array_equal(batch["calendar"][:, 0, 0], day // 30 % 12)
  np.testing.assert_array_equal(batch["calendar"][:, 0, 1], day % 360)


def test_without_columns_there_is_no_calendar(config):
  split, batch = batch_of(config)
  assert "calendar" not in batch and tuple(split.spec.calendar.values()) == ()


@pytest.mark.slow
def test_columns_are_the_same_in_worker_processes_and_parts(config):
  config |= {"step": "6h", "calendar": ALL[:2]}
  _, whole = batch_of(config)
  _, other = batch_of({**config, "loader": {"workers": 1}})
  np.testing.assert_array_equal(other["calendar"], whole["calendar"])
  parts = [
    batch_of(config, process_index=i, process_count=2)[1]["calendar"] for i in range(2)
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole["calendar"])


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"calendar": ("weekday",)}, ["data.calendar", "'weekday'"]),
    ({"calendar": ("month", "month")}, ["data.calendar", "once"]),
    ({"calendar": ("month",)}, ["'month'", "data.first_time", "neither"]),
    ({"calendar": ("month",), "step": "1h"}, ["'month'", "have only a step"]),
    ({"calendar": ("slot_of_day",)}, ["'slot_of_day'", "data.slots_per_day"]),
    (
      {"calendar": ("slot_of_day",), "step": "7h"},
      ["'slot_of_day'", "divides a day", "25200 seconds", "data.step"],
    ),
    (
      {"calendar": ("slot_of_day",), "step": "MS", "first_time": "2000-01-01"},
      ["'slot_of_day'", "divides a day"],
    ),
    ({"calendar": ("day_of_week",), "step": "MS"}, ["a step of months"]),
    ({"calendar": ("day_of_year",), "step": "1D"}, ["data.first_time"]),
    (
      {"calendar": ("hour_of_day",), "slots_per_day": 4},
      ["data.slots_per_day=4", "neither"],
    ),
    ({"slots_per_day": 4}, ["data.slots_per_day=4", "data.calendar=()"]),
    ({"calendar": ("slot_of_day",), "slots_per_day": -1}, ["data.slots_per_day=-1"]),
  ],
)
def test_columns_that_the_data_cannot_give_are_named(config, changes, words):
  with pytest.raises(errors.DataError) as caught:
    batch_of({**config, **changes})
  for word in words:
    assert word in str(caught.value)
