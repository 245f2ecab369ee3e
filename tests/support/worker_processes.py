"""Batches that are read by worker processes."""

import numpy as np

import input_pipeline


def assert_workers_change_nothing(config):
  """Compares the training batches read by workers with those read here.

  Args:
    config: a data config.
  """
  expected = list(_batches(config | {"loader": {"threads": 0}}))
  workers = {"threads": 2, "prefetch": 2, "workers": 2}
  batches = list(_batches(config | {"loader": workers, "cache": "none"}))
  assert len(batches) == len(expected) > 1
  for one, other in zip(batches, expected, strict=True):
    for key in other:
      np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def _batches(config):
  return input_pipeline.build(config, "train", batch_size=2, train=False).batches
