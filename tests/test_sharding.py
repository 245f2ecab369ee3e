import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from stjax import errors, sharding


def test_minus_one_takes_the_rest_of_the_devices():
  mesh = sharding.make_mesh({"data": -1, "fsdp": 2, "space": 1})
  assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "space": 1}


@pytest.mark.parametrize(
  "sizes", [(3, 1, 1), (-1, -1, 1), (8, 2, 1), (0, 1, 1), (-1, 3, 1)]
)
def test_a_mesh_that_does_not_fit_is_refused(sizes):
  with pytest.raises(errors.ConfigError, match="8 devices"):
    sharding.make_mesh(dict(zip(sharding.AXES, sizes, strict=True)))


def test_batches_that_do_not_split_are_refused():
  mesh = sharding.make_mesh({"data": 4, "fsdp": 1, "space": 2})
  sharding.check_batch(mesh, "global_batch_size", 8, 2, height=6)
  with pytest.raises(errors.ConfigError, match="global_batch_size=6"):
    sharding.check_batch(mesh, "global_batch_size", 6, 1, height=6)
  with pytest.raises(errors.ConfigError, match="accumulation_steps"):
    sharding.check_batch(mesh, "global_batch_size", 12, 2, height=6)
  with pytest.raises(errors.ConfigError, match="H = 5"):
    sharding.check_batch(mesh, "global_batch_size", 8, 1, height=5)


def test_large_arrays_split_along_their_largest_divisible_axis():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 4, "space": 1})
  shapes = {
    "kernel": jax.ShapeDtypeStruct((3, 3, 32, 64), jnp.float32),
    "odd": jax.ShapeDtypeStruct((33, 35), jnp.float32),
    "small": jax.ShapeDtypeStruct((64,), jnp.float32),
  }
  specs = jax.tree.map(lambda s: s.spec, sharding.state_shardings(shapes, mesh))
  assert specs == {"kernel": P(None, None, None, "fsdp"), "odd": P(), "small": P()}


def test_a_batch_is_split_over_rows_and_over_space():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "space": 2})
  batch = {
    "inputs": np.arange(4 * 2 * 6 * 5, dtype=np.float32).reshape(4, 2, 6, 5, 1),
    "index": np.arange(4, dtype=np.int32),
    "static": np.arange(6 * 5, dtype=np.float32).reshape(6, 5, 1),
    "time": np.zeros((4, 2), np.int64),
  }
  put = sharding.put_batch(batch, mesh)
  assert sorted(put) == ["index", "inputs", "static"]
  assert put["inputs"].sharding.spec == P(("data", "fsdp"), None, "space", None, None)
  assert {s.data.shape for s in put["inputs"].addressable_shards} == {(1, 2, 3, 5, 1)}
  np.testing.assert_array_equal(put["inputs"], batch["inputs"])
  # It has no rows: devices of other rows have copies of the same band of H.
  assert {s.data.shape for s in put["static"].addressable_shards} == {(3, 5, 1)}
  np.testing.assert_array_equal(put["static"], batch["static"])
  assert put["index"].sharding.spec == P(("data", "fsdp"))


def test_every_process_reads_one_block_of_the_batch(monkeypatch):
  class Device:
    def __init__(self, number, process):
      self.id, self.process_index = number, process
      self.platform = "cpu"

  # Two hosts whose devices the network puts in turns: 0 1 0 1.
  devices = [Device(i, i % 2) for i in range(4)]

  class Mesh:
    def __init__(self, devices, axes=sharding.AXES, types=None):
      self.devices = np.asarray(devices, object)
      self.shape = dict(zip(axes, self.devices.shape, strict=True))

  monkeypatch.setattr(
    sharding.jax,
    "make_mesh",
    lambda shape, axes, types, devices: Mesh(
      np.asarray(devices, object).reshape(shape)
    ),
  )
  monkeypatch.setattr(sharding.jax.sharding, "Mesh", Mesh)
  mesh = sharding.make_mesh({"data": 4, "fsdp": 1, "space": 1}, list(devices))
  parts = []
  for process in (0, 1):
    monkeypatch.setattr(sharding.jax, "process_index", lambda p=process: p)
    parts.append(sharding.process_rows(mesh))
  assert parts == [(0, 2), (1, 2)]
