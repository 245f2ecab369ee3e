"""Where data have no value at all, such as an ocean's on land."""

import os
import pathlib

import numpy as np

from input_pipeline import files, options, training
from stjax.run import run as run_lib


def never_observed(run: run_lib.Run) -> np.ndarray | None:
  """Returns the cells that are missing in every frame of the training split.

  They are kept in the work directory, as statistics are.

  Args:
    run: the run.

  Returns:
    bool [H, W, C], or None where no value may be missing or each cell was observed.
  """
  if "mask" not in run.spec.keys:
    return None
  resolved = options.resolve(run.config.data.to_dict())
  folder = str(run.workdir / "data")
  store = training.open_store(resolved, folder)
  path = training.kept_path("never-observed", "npy", store, resolved, folder)
  if path and os.path.exists(path):
    never = np.load(path, allow_pickle=False)
  else:
    never = np.ones(run.example_shape["inputs"][1:], bool)
    for _, _, frames in training.chunks(
      store, training.runs(store, resolved), checked=False
    ):
      never &= ~np.isfinite(frames).any(axis=0)
      if not never.any():
        break  # One frame that is whole says it all.
    if path:
      files.write_array(pathlib.Path(path), never)
  return never if never.any() else None
