"""CoST's data sets, scaler and fluctuation scale.

The data sets are compared where their files are found: SST.npy, SST_ERA5.npy,
Los_Speed.npy, BikeDC.npy and MobileNJ.npy; see `cost_data.find`.
"""

import pathlib
from typing import Any

import cost_data
import numpy as np

import input_pipeline
from golden import registry
from golden.case import Case, NotBuilt, assert_close
from input_pipeline import normalise
from stjax.methods import fluctuation

# The slots of a day that the original counts.
SLOTS = {"Los_Speed": 2, "BikeDC": 12, "MobileNJ": 24}
SPLITS = ("train", "validation", "test")
# The original's transform is in single precision.
SCALE_TOLERANCE = 2e-6


def data_config(file: str, history: int, horizon: int) -> dict[str, Any]:
  """Makes the data config of one of the original's data sets.

  Args:
    file: the name of the training file, for example "BikeDC.npy".
    history: the number of frames that are given.
    horizon: the number of frames to forecast.

  Raises:
    NotBuilt: the data are not there.
  """
  name = pathlib.Path(file).stem
  if name != "SST" and name not in SLOTS:
    raise NotBuilt(f"data file {file}")
  path = cost_data.find(file)
  if path is None:
    raise NotBuilt(f"no file {file} (set STJAX_COST_DATA)")
  config = {"store": "array", "layout": "THW", "history": history, "horizon": horizon}
  if name == "SST":  # It is trained on a simulation and scored on a reanalysis.
    ranges = {
      "train": (("SST", 0, None),),
      "validation": (("SST_ERA5", 0, 360),),
      "test": (("SST_ERA5", 360, None),),
    }
    return config | {
      "path": (str(path), str(path.with_name("SST_ERA5.npy"))),
      "step": "MS",
      "first_time": ("1850-01-01", "1940-01-01"),
      "calendar": ("month",),
      "statistics": {"ddof": 1},
      "split": {"by": "ranges", "ranges": ranges},
    }
  return config | {
    "path": str(path),
    "slots_per_day": SLOTS[name],
    "calendar": ("day_of_week", "slot_of_day"),
    "statistics": {"frames": "history", "ddof": 1},
    "split": {"by": "window", "fractions": (0.6, 0.2, 0.2)},
  }


@registry.runner("cost", "data pipeline")
def data_set(case: Case) -> None:
  """Compares a data set's counts, scaler, scale vector and first test window."""
  options, golden = case.meta["config"], case.group("output")
  config = data_config(options["file"], options["history_len"], options["predict_len"])
  splits = {name: input_pipeline.build(config, name, batch_size=1) for name in SPLITS}
  counts = [splits[name].num_examples for name in SPLITS]
  assert_close("counts", np.array(counts), golden["counts"])
  statistics = splits["test"].statistics
  assert_close("mean", statistics.offset[0], golden["mean"], 1e-6)
  assert_close("std", statistics.scale[0], golden["std"], 1e-6)
  batch = next(iter(splits["test"].batches))
  window = np.concatenate([batch["inputs"][0], batch["targets"][0]])
  expected = golden["first_test_window"]
  window = window.reshape(len(window), -1)[:, : expected.shape[1]]
  assert_close("first_test_window", window, expected, 1e-6)
  # SST's second column is always 0.
  timepoints = np.zeros_like(golden["first_test_timepoints"])
  columns = batch["calendar"][0]
  timepoints[:, : columns.shape[1]] = columns
  np.testing.assert_array_equal(timepoints, golden["first_test_timepoints"])
  (series,) = input_pipeline.training_series(config)
  scale = fluctuation.signal_scale(series, options["threshold"]).reshape(-1)
  check_scale(scale, golden)
  constant = golden["scale_f64"] < 1e-12
  np.testing.assert_array_equal(scale == 0, constant)


@registry.runner("cost", "customised fluctuation scale")
def series_scale(case: Case) -> None:
  """Compares the scaler and the scale of one series given as an array."""
  golden, raw = case.group("output"), case.group("input")["raw"]
  frames = raw[..., None]
  statistics = normalise.compute(
    [frames], ["x"], kind="standard", transform="identity", ddof=1
  )
  assert_close("mean", statistics.offset[0], golden["mean"], 1e-6)
  assert_close("std", statistics.scale[0], golden["std"], 1e-6)
  normalised = normalise.forward(statistics, frames)[..., 0]
  assert_close("normalised", normalised, golden["normalised"], 1e-6)
  scale = fluctuation.signal_scale(normalised, case.meta["config"]["threshold"])
  check_scale(scale.reshape(-1), golden)


def check_scale(scale: np.ndarray, golden: dict[str, np.ndarray]) -> None:
  assert_close("scale_f64", scale, golden["scale_f64"], 1e-6)
  assert_close("scale", scale, golden["scale"], SCALE_TOLERANCE)
