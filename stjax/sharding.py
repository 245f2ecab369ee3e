"""The mesh of devices, and the sharding of every array, from abstract shapes.

The mesh axis `data` splits the batch. `fsdp` splits the batch as well, and the
parameters, moments and averages. `space` splits the H axis of gridded arrays.
One device is the mesh (1, 1, 1), and takes the same path.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from input_pipeline import spec
from stjax import errors

PyTree = Any
AXES = ("data", "fsdp", "space")
BATCH_AXES = ("data", "fsdp")
# Splitting arrays of fewer values costs more in messages than it saves in memory.
_MIN_SPLIT_SIZE = 1024

# Collections that every device holds whole, as each reads all of them for its rows.
_WHOLE = ("codebook",)

# The ambient mesh. A user context is part of the key of jit's caches, so that no
# trace is reused for another mesh.
_ambient = jax.make_user_context(None)


def use_mesh(mesh: jax.sharding.Mesh | None) -> contextlib.AbstractContextManager[None]:
  """Tells the layers that are traced inside which mesh splits the arrays.

  `lower_and_compile` and `eval_shape` enter this context. Only code that traces
  in another way has to enter it itself.

  Args:
    mesh: the device mesh; None if each device holds whole arrays.
  """
  return _ambient(mesh)


def ambient_mesh() -> jax.sharding.Mesh | None:
  """Returns the mesh of the innermost `use_mesh`."""
  return _ambient.value


def eval_shape(
  function: Callable[..., PyTree], mesh: jax.sharding.Mesh, *arguments: PyTree
) -> PyTree:
  """Returns shapes and types of the results of a function that runs on a mesh."""
  with use_mesh(mesh):
    return jax.eval_shape(function, *arguments)


def lower_and_compile(
  function: Callable[..., PyTree],
  mesh: jax.sharding.Mesh,
  *arguments: PyTree,
  out_shardings: PyTree,
  donate: int | tuple[int, ...] = (),
  options: dict[str, Any] | None = None,
) -> jax.stages.Compiled:
  """Compiles a function for a mesh, whose devices need not be present.

  Args:
    function: function of arrays.
    mesh: the device mesh.
    *arguments: shapes and types of the arguments; an array without a sharding is
      replicated.
    out_shardings: shardings of the results, as a prefix of their tree.
    donate: numbers of the arguments whose memory the results may take.
    options: options of the compiler.
  """

  def sharding_of(array):
    return getattr(array, "sharding", None) or replicated(mesh)

  with use_mesh(mesh):
    jitted = jax.jit(
      function,
      in_shardings=jax.tree.map(sharding_of, arguments),
      out_shardings=out_shardings,
      donate_argnums=donate,
    )
    return jitted.lower(*arguments).compile(compiler_options=options)


def sum_over_local_rows(
  function: Callable[..., jax.Array], mesh: jax.sharding.Mesh | None
) -> Callable[..., jax.Array]:
  """Lets each device apply a function to its own rows, and adds the results.

  XLA's partitioner cannot split a loop over the batch, and would gather the
  whole batch on every device.

  Args:
    function: function of two arrays whose first axis is the batch; it returns a
      sum over the batch.
    mesh: the device mesh; None if nothing is split.
  """
  if mesh is None or row_parts(mesh) == 1:
    return function
  rows = PartitionSpec(BATCH_AXES)
  return jax.shard_map(
    lambda x, g: jax.lax.psum(function(x, g), BATCH_AXES),
    mesh=mesh,
    in_specs=(rows, rows),
    out_specs=PartitionSpec(),
    check_vma=False,
  )


def make_mesh(
  sizes: Mapping[str, int], devices: list[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Makes the device mesh.

  Args:
    sizes: numbers of devices along data, fsdp and space. One of them may be -1,
      which takes all the rest.
    devices: the devices to use; None means all.

  Raises:
    ConfigError: the product of the sizes is not the number of devices, or the
      parts of a process are not whole blocks.
  """
  devices = list(jax.devices()) if devices is None else devices
  errors.check_options("mesh", sizes, AXES)
  shape = [int(sizes[axis]) for axis in AXES]
  fixed = math.prod(size for size in shape if size > 0)
  wrong = [s for s in shape if s == 0 or s < -1] or shape.count(-1) > 1
  if not wrong and -1 in shape and len(devices) % fixed == 0:
    shape[shape.index(-1)] = len(devices) // fixed
  if wrong or math.prod(shape) != len(devices):
    raise errors.ConfigError(
      f"mesh={dict(zip(AXES, shape, strict=True))} does not use the"
      f" {len(devices)} devices there are: mesh.data * mesh.fsdp *"
      " mesh.space must equal that number, and at most one of them may be"
      " -1 (the rest)."
    )
  mesh = jax.make_mesh(shape, AXES, (AxisType.Auto,) * 3, devices=devices)
  if _parts_are_blocks(mesh):
    return mesh
  # jax orders devices by the network between them. As each process reads one
  # block of the batch, the order of the processes must come first here.
  ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
  mesh = jax.sharding.Mesh(
    np.asarray(ordered).reshape(shape), AXES, (AxisType.Auto,) * 3
  )
  if not _parts_are_blocks(mesh):
    raise errors.ConfigError(
      f"mesh={dict(zip(AXES, shape, strict=True))} cuts across the"
      " processes: each must hold whole rows of the batch or whole bands of"
      " H. Make mesh.space a divisor or a multiple of the number of devices"
      " of a process."
    )
  return mesh


def _parts_are_blocks(mesh: jax.sharding.Mesh) -> bool:
  """Tells whether every process has one aligned block of rows and of bands."""
  sizes = set()
  for process in {device.process_index for device in mesh.devices.flat}:
    places = _positions(mesh, process)
    parts = (_batch_rows(mesh, process), np.unique(places[:, 2]))
    for part in parts:
      if part[-1] - part[0] + 1 != len(part) or part[0] % len(part):
        return False
    if len(parts[0]) * len(parts[1]) != len(places):
      return False
    sizes.add(tuple(map(len, parts)))
  return len(sizes) == 1


def check_batch(
  mesh: jax.sharding.Mesh,
  key: str,
  batch_size: int,
  accumulation_steps: int,
  height: int,
  members: int = 1,
) -> None:
  """Checks that a batch splits evenly over the mesh.

  It need not do so if the devices can share the members of an ensemble.

  Args:
    mesh: the device mesh.
    key: config key of the batch size, for the message.
    batch_size: number of examples of a batch, over all devices.
    accumulation_steps: number of parts that the batch is cut into first.
    height: size of the H axis.
    members: number of ensemble members that are made for each example.

  Raises:
    ConfigError: the batch or the H axis does not split evenly.
  """
  parts = row_parts(mesh) * accumulation_steps
  shared = members > 1 and mesh.shape["space"] == 1 and jax.process_count() == 1
  if batch_size % parts and not shared:
    raise errors.ConfigError(
      f"{key}={batch_size} is not divisible by mesh.data * mesh.fsdp *"
      f" accumulation_steps = {mesh.shape['data']} * {mesh.shape['fsdp']} *"
      f" {accumulation_steps} = {parts}."
    )
  if height % mesh.shape["space"]:
    raise errors.ConfigError(
      f"The grid's H = {height} rows do not split over mesh.space ="
      f" {mesh.shape['space']} devices; choose a divisor of {height}."
    )


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the sharding of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def state_shardings(abstract: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
  """Returns shardings for parameters, moments and averages from their shapes.

  Each array is split over `fsdp` along the largest axis that divides evenly.
  Small arrays, those without such an axis, and codebooks are replicated.

  Args:
    abstract: tree of shapes, as `jax.eval_shape` returns it.
    mesh: the device mesh.
  """
  size = mesh.shape["fsdp"]

  def one(path, leaf):
    whole = any(getattr(step, "key", None) in _WHOLE for step in path)
    if size > 1 and math.prod(leaf.shape) >= _MIN_SPLIT_SIZE and not whole:
      for axis in sorted(range(leaf.ndim), key=lambda a: -leaf.shape[a]):
        if leaf.shape[axis] % size == 0:
          return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "fsdp"))
    return replicated(mesh)

  return jax.tree.map_with_path(one, abstract)


def row_parts(mesh: jax.sharding.Mesh) -> int:
  """Returns the number of parts that the rows of a batch are split into."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def over_members(
  function: Callable[..., PyTree],
  mesh: jax.sharding.Mesh,
  members: int,
  of_members: int = 0,
) -> Callable[..., PyTree]:
  """Lets every device make members of its own, each for the whole batch.

  Args:
    function: function (*arguments, numbers [m] of members) that returns arrays
      [m, ...].
    mesh: the device mesh.
    members: number of members M, which need not divide.
    of_members: number of arguments, counted from the last one, that are arrays
      [M, ...]; the function gets the part [m, ...] of its members.

  Returns:
    A function (*arguments) that returns arrays [M, ...].
  """
  parts = row_parts(mesh)
  # All devices make equally many members; surplus ones are dropped at the end.
  numbers = jnp.arange(-(-members // parts) * parts)

  def on_whole_arrays(*arguments):
    # Inside, each device holds whole arrays, so layers must not look for a mesh.
    with use_mesh(None):
      return function(*arguments)

  def shared(*arguments):
    split = len(arguments) - of_members
    theirs = arguments[split:]
    if len(numbers) > members:
      theirs = [array[numbers % members] for array in theirs]
    whole, some = PartitionSpec(), PartitionSpec(BATCH_AXES)
    mapped = jax.shard_map(
      on_whole_arrays,
      mesh=mesh,
      in_specs=(whole,) * split + (some,) * (of_members + 1),
      out_specs=some,
      check_vma=False,
    )
    made = mapped(*arguments[:split], *theirs, numbers)
    return jax.tree.map(lambda array: array[:members], made)

  return shared


def axes_sharding(
  axes: Sequence[str], shape: Sequence[int], mesh: jax.sharding.Mesh
) -> NamedSharding:
  """Returns the sharding of fields: rows over data and fsdp, H over space.

  Rows that do not divide evenly are not split; see `over_members`.

  Args:
    axes: names of the axes; "batch" and "height" are split.
    shape: global shape.
    mesh: the device mesh.
  """
  rows = dict(zip(axes, shape, strict=True)).get("batch", 0)
  parts = {"height": "space", "batch": None if rows % row_parts(mesh) else BATCH_AXES}
  return NamedSharding(mesh, PartitionSpec(*(parts.get(axis) for axis in axes)))


def batch_shardings(
  shapes: Mapping[str, Sequence[int]], mesh: jax.sharding.Mesh
) -> dict[str, NamedSharding]:
  """Shardings of the arrays of a batch, by their global shapes."""
  return {
    name: axes_sharding(spec.KEYS[name].axes, shape, mesh)
    for name, shape in shapes.items()
  }


def put_batch(
  batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
  """Moves this process's rows of a batch to the devices as global arrays."""
  _, processes = process_rows(mesh)
  placed = {}
  for name, array in spec.on_device(batch).items():
    axes = spec.KEYS[name].axes
    shape = [
      size * processes if axis == "batch" else size
      for axis, size in zip(axes, array.shape, strict=True)
    ]
    placed[name] = jax.make_array_from_process_local_data(
      axes_sharding(axes, shape, mesh), _local_rows(array, axes, mesh), tuple(shape)
    )
  return placed


def fetch(array: jax.Array) -> np.ndarray:
  """Brings a global array to every host."""
  if array.is_fully_addressable:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def _local_rows(
  array: np.ndarray, axes: Sequence[str], mesh: jax.sharding.Mesh
) -> np.ndarray:
  """Cuts H down to this process's part, if space spans processes."""
  part, parts = process_space(mesh)
  if parts == 1 or "height" not in axes:
    return array
  return np.split(array, parts, axis=axes.index("height"))[part]


def _positions(mesh: jax.sharding.Mesh, process: int) -> np.ndarray:
  """Returns the mesh positions [n, 3] of a process's devices."""
  owners = np.vectorize(lambda d: d.process_index)(mesh.devices)
  return np.argwhere(owners == process)


def _batch_rows(mesh: jax.sharding.Mesh, process: int) -> np.ndarray:
  """Returns which of the batch's data * fsdp parts a process has, in order."""
  places = _positions(mesh, process)
  return np.unique(places[:, 0] * mesh.shape["fsdp"] + places[:, 1])


def process_rows(mesh: jax.sharding.Mesh) -> tuple[int, int]:
  """Returns this process's part of every batch as (part, number of parts).

  Processes that share rows of the batch and differ along `space` get the same
  part.
  """
  rows = _batch_rows(mesh, jax.process_index())
  total = row_parts(mesh)
  return int(rows[0]) // len(rows), total // len(rows)


def process_space(mesh: jax.sharding.Mesh) -> tuple[int, int]:
  """Returns this process's part of the H axis as (part, number of parts)."""
  bands = np.unique(_positions(mesh, jax.process_index())[:, 2])
  return int(bands[0]) // len(bands), mesh.shape["space"] // len(bands)
