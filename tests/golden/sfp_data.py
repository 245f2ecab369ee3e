"""SFP's data set of frames, from a file for each year to batches."""

import pathlib
import tempfile

import numpy as np
import xarray as xr

import input_pipeline
from golden import registry
from golden.case import Case, assert_close

# The files hold NaN where the arrays of a case hold this.
MISSING = -9999


@registry.runner("sfp", "ClimateReconstructionDataset")
def frames(case: Case) -> None:
  """Compares all frames and where they come from.

  Each frame is the history of a window; the last one of a year has nothing after it.
  """
  options, golden = case.meta["config"], case.group("output")
  with tempfile.TemporaryDirectory() as folder:
    for key, array in case.group("input").items():
      name, _, year = key.rpartition(".")
      array = np.where(array == MISSING, np.float32(np.nan), array)
      dataset = xr.Dataset({name: (("time", "variable", "lat", "lon"), array)})
      dataset.to_netcdf(pathlib.Path(folder, f"{year}_norm.nc"), engine="h5netcdf")
    config = {
      "store": "year_files",
      "path": folder,
      "train_years": options["years"],
      "variables": options["variables"],
      "time_steps": options["time_steps"] or (),
      "history": 1,
      "horizon": 1,
      "normalise": "none",
      "missing": "mask",
      "split": {"by": "sample"},
    }
    split = input_pipeline.build(
      config, "train", batch_size=1, train=False, targets=False, beyond=1
    )
    found = [np.moveaxis(batch["inputs"][0, 0], -1, 0) for batch in split.batches]
  kept = options["time_steps"] or range(max(golden["indices"][:, 1]) + 1)
  labels = split.labels
  years = [int(name.partition("/")[0]) for name in labels["sample_id"].values]
  steps = [kept[start] for start in labels["start"].values]
  indices = np.stack([years, steps], axis=1).astype(np.int32)
  assert_close("indices", indices, golden["indices"])
  assert_close("samples", np.stack(found), golden["samples"])
