"""What must not pass from one split, or one kind of value, to another."""

import json

import numpy as np
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import normalise


def test_sequences_of_one_event_stay_together_by_default(tmp_path):
  random = np.random.RandomState(0)
  events = np.repeat([f"storm{i}" for i in range(10)], 4)
  xr.Dataset(
    {
      "rain": (("sample", "time", "y", "x"), random.rand(40, 5, 4, 3)),
      "event": ("sample", events),
      "name": ("sample", [f"{e}_{i}" for i, e in enumerate(events)]),
    },
    coords={"time": np.arange(5)},
  ).to_netcdf(tmp_path / "storms.nc")
  config = {
    "store": "xarray",
    "path": str(tmp_path / "storms.nc"),
    "variables": ("rain",),
    "sample_dim": "sample",
    "sample_variable": "name",
    "event_variable": "event",
    "history": 2,
    "horizon": 2,
  }
  found = {}
  for split in ("train", "validation", "test"):
    labels = input_pipeline.build(config, split, batch_size=1).labels
    found[split] = {n.split("_")[0] for n in labels.sample_id.values}
  assert all(found.values())
  assert not found["train"] & found["test"]
  assert not found["train"] & found["validation"]
  assert not found["validation"] & found["test"]


@pytest.mark.parametrize("missing", ["mask", "error"])
def test_what_log1p_cannot_take_counts_as_missing(tmp_path, missing):
  data = np.ones((10, 4, 3, 3), np.float32)
  data *= np.arange(1, 11)[:, None, None, None]
  data[9, :, 1, 2] = -2.0  # In the last split only.
  np.save(tmp_path / "a.npy", data.reshape(40, 3, 3))
  config = {
    "store": "array",
    "path": str(tmp_path / "a.npy"),
    "layout": "THW",
    "history": 2,
    "horizon": 2,
    "transform": "log1p",
    "missing": missing,
    "split": {"by": "time", "fractions": (0.6, 0.2, 0.2)},
  }
  split = input_pipeline.build(config, "test", batch_size=8)
  if missing == "error":
    with pytest.raises(input_pipeline.DataError, match="transform"):
      list(split.batches)
    return
  for batch in split.batches:
    assert np.isfinite(batch["inputs"]).all()
    assert np.isfinite(batch["targets"]).all()
  assert not batch["mask"][-1, -1, 1, 2, 0] and batch["mask"][-1, -1, 0, 0, 0]


@pytest.mark.parametrize(
  ("key", "value"), [("scale", [0.0]), ("mean", [float("nan")]), ("offset", [1.0, 2.0])]
)
def test_damaged_statistics_are_refused(key, value):
  good = normalise.compute(
    [np.random.RandomState(0).rand(4, 3, 3, 1)],
    ["t"],
    kind="standard",
    transform="identity",
  )
  content = json.loads(good.to_json())
  assert normalise.Statistics.from_json(good.to_json()).kind == "standard"
  content[key] = value
  with pytest.raises(input_pipeline.DataError, match=key):
    normalise.Statistics.from_json(json.dumps(content))
