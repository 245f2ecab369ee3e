"""The declaration of a batch, against the batches that are read."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import spec as spec_lib

HISTORY, HORIZON = 3, 2


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Data that fill every key of a batch."""
  path = tmp_path_factory.mktemp("spec") / "data.nc"
  values = np.random.RandomState(0).rand(40, 4, 3).astype(np.float32)
  values[:, 1, 1] = np.nan
  names = ("height", "push", "pull")
  xr.Dataset(
    {name: (("time", "lat", "lon"), values + n) for n, name in enumerate(names)},
    coords={"time": pd.date_range("2000-01-01", periods=40)},
  ).assign(land=(("lat", "lon"), values[0])).to_netcdf(path)
  return {
    "store": "xarray",
    "path": str(path),
    "variables": names[:1],
    "forcings": {"variables": names[1:]},
    "static": {"variables": "land"},
    "calendar": ("month", "day_of_week"),
    "missing": "mask",
    "history": HISTORY,
    "horizon": HORIZON,
  }


def read(config, **options):
  split = input_pipeline.build(config, "train", batch_size=4, **options)
  return split.spec, next(iter(split.batches))


@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("history,horizon", [(HISTORY, HORIZON), (5, 7)])
def test_batches_are_as_declared(config, history, horizon, targets):
  trained, _ = read(config)
  without_pairs = [name for name in spec_lib.KEYS if name not in spec_lib.PAIR_KEYS]
  assert trained.keys == tuple(without_pairs)
  longer = config | {"history": history, "horizon": horizon}
  spec, batch = read(longer, targets=targets)
  assert spec == trained.resized(history, horizon, targets)
  assert spec.calendar == {"month": 12, "day_of_week": 7}
  zeros = spec.zeros(4)
  assert zeros.keys() == batch.keys()
  for name, shape in spec.shapes(4).items():
    assert batch[name].shape == zeros[name].shape == shape, name
    assert batch[name].dtype == zeros[name].dtype, name


def test_data_without_the_optional_arrays_declare_none():
  config = {"store": "boiling", "num_samples": 4, "image_size": 8}
  spec, batch = read(config)
  assert sorted(spec.keys) == sorted(batch) == ["index", "inputs", "targets", "valid"]


def test_cropping_keeps_what_is_around_now_and_what_is_known_of_the_future(config):
  long, _ = read(config | {"history": 5, "horizon": 4})
  frames = np.arange(9)  # Now is between 4 and 5.

  def count(name, x):
    if not spec_lib.KEYS[name].span:
      return x
    first = 5 if name == "targets" else 0
    numbers = frames[first : first + x.shape[1]]
    return np.broadcast_to(numbers.reshape(1, -1, *[1] * (x.ndim - 2)), x.shape)

  batch = {name: count(name, x) for name, x in long.zeros(2).items()}
  found = {
    name: x.reshape(2, x.shape[1], -1)[0, :, 0].tolist()
    for name, x in spec_lib.crop(batch, 3, 2).items()
    if spec_lib.KEYS[name].span
  }
  assert found == {
    "inputs": [2, 3, 4],
    "targets": [5, 6],
    "mask": [2, 3, 4, 5, 6],
    "time": [2, 3, 4, 5, 6, 7, 8],
    "calendar": [2, 3, 4, 5, 6, 7, 8],
    "forcings": [2, 3, 4, 5, 6, 7, 8],
  }
  same = spec_lib.crop(batch, 6, 5)  # Nothing is longer than these.
  assert all(same[name].shape == batch[name].shape for name in batch)
  assert same.keys() == batch.keys()


def test_only_static_fields_are_shared_by_the_examples(config):
  _, batch = read(config)
  assert list(spec_lib.shared(batch)) == ["static"]
  assert all(len(x) == 4 for name, x in batch.items() if name != "static")


def test_times_stay_on_the_host_and_rollouts_read_what_is_known(config):
  spec, batch = read(config)
  assert spec_lib.on_device(batch).keys() == batch.keys() - {"time"}
  known = spec_lib.known_future(spec_lib.on_device(batch))
  assert sorted(known) == ["calendar", "forcings"]
  assert sorted(spec_lib.known_future(spec.shapes(1))) == sorted({*known, "time"})
