"""The method interface, and the one function that feeds forecasts back."""

import abc
import dataclasses
import fractions
import functools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from input_pipeline import spec

PyTree = Any
Batch = dict[str, jax.Array]
Variables = dict[str, PyTree]
# Of an ensemble: how many, M for 0 ... M-1, or the numbers [M] of some.
Members = int | jax.Array
# Forecast points made at the same time: enough rows for full speed, and the
# activations of a network of a few hundred features stay below 1 GB; on a CPU,
# within its cache.
_CHUNK_POINTS = {"cpu": 2**15}
_CHUNK_POINTS_ELSEWHERE = 2**20


@struct.dataclass
class Outputs:
  """What a loss gives besides its value.

  Attributes:
    scalars: scalars to log, by name, means over the batch.
    collections: the new values of what is learned without gradients; the next
      microbatch starts from them.
    weight: how much this batch counts against others of the same step (the
      number of observed points), so that parts average exactly.
    summed: arrays that are added up over the microbatches of a step and then
      given to `Method.update`, such as counts of what was seen.
  """

  scalars: dict[str, jax.Array]
  collections: dict[str, PyTree]
  weight: jax.Array | float = 1.0
  summed: dict[str, PyTree] = struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Material:
  """What a method may look at before its first step.

  Attributes:
    series: gives the training frames [T, H, W, C] of every sequence,
      normalised, NaN where missing.
    batches: (split) -> the batches of one pass over that split, on devices.
    fetch: brings an array of the devices to every host.
    areas: (config key that asks, its value, see `stjax.grid`) -> weights of
      the cells [H, W], mean 1.
    climatology: () -> the normalised training mean of every place by the
      cells of data.calendar, [*calendar sizes, H, W, C].
  """

  series: Callable[[], list[np.ndarray]]
  batches: Callable[[str], Iterable[Batch]]
  fetch: Callable[[jax.Array], np.ndarray]
  areas: Callable[[str, str], np.ndarray]
  climatology: Callable[[], np.ndarray]


class Method(abc.ABC):
  """What is trained and asked for forecasts; stateless.

  Every array comes in through arguments, so each function can be jitted,
  vmapped, sharded and exported. Methods are frozen dataclasses.

  Attributes:
    horizon: frames T_out of one forecast.
    part_names: fields that hold other methods, which this one reads and never
      trains; see `parts`.
  """

  horizon: int
  part_names: ClassVar[tuple[str, ...]] = ()

  @property
  def trainable(self) -> bool:
    """Whether there is anything to learn by steps."""
    return True

  @property
  def parts(self) -> dict[str, "Method"]:
    """Trained methods that this one reads and never trains, by name.

    Among the frozen arrays that every function gets, a part is
    {"variables": its own, "frozen": its parts and constants}, to any depth.
    """
    given = {name: getattr(self, name) for name in self.part_names}
    return {name: part for name, part in given.items() if part is not None}

  @property
  def forecast_parts(self) -> tuple[str, ...]:
    """Names of the parts that `forecast` and `loss(train=False)` read.

    Evaluation and forecast restore no others.
    """
    return tuple(self.parts)

  @property
  def member_chunk(self) -> int:
    """Members of a forecast made at the same time; 0: as memory allows."""
    return 0

  def for_horizon(self, horizon: int) -> "Method":
    """The same method, asked for the first frames of its forecasts.

    Args:
      horizon: frames to forecast, at most those of this method.
    """
    return dataclasses.replace(self, horizon=horizon)

  def input_channels(self, variables: int, known: int) -> int:
    """Channels that its network is shown.

    Args:
      variables: number of those that are forecast.
      known: number of forcings and static fields.
    """
    del known
    return variables

  def prepared_shapes(
    self, example: dict[str, tuple[int, ...]]
  ) -> dict[str, tuple[int, ...]]:
    """Shapes of what `prepare` returns.

    Args:
      example: shapes of one example, "inputs" and "targets"; and the sizes
        of the columns of its "calendar".
    """
    del example
    return {}

  def prepare(self, frozen: PyTree, material: Material) -> dict[str, np.ndarray]:
    """Computes constants from the data once, before the first step.

    Args:
      frozen: the arrays of `parts`.
      material: the data.

    Returns:
      Float32 arrays that `frozen` will hold under the same names.
    """
    del frozen, material
    return {}

  def phases(
    self, steps_per_epoch: fractions.Fraction
  ) -> tuple[tuple[int, "Method"], ...]:
    """What is trained when: (first step, method), from step 0 on.

    All phases share variables, frozen variables and batches; each compiles a
    train step of its own. Which one runs follows from the number of steps
    made, so a resumed run is in the same one.

    Args:
      steps_per_epoch: optimiser steps in one pass over the training split.
    """
    del steps_per_epoch
    return ((0, self),)

  @abc.abstractmethod
  def init(self, key: jax.Array, batch: Batch) -> Variables:
    """Returns {"params": ..., other collections} for batches of this shape."""

  @abc.abstractmethod
  def loss(
    self,
    variables: Variables,
    frozen: PyTree,
    batch: Batch,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Outputs]:
    """Returns the scalar loss of a batch and its `Outputs`."""

  def update(
    self, collections: dict[str, PyTree], summed: dict[str, PyTree]
  ) -> dict[str, PyTree]:
    """Returns the new collections, once per optimiser step.

    What must not depend on the number of microbatches, such as the moving
    averages of a codebook, is updated here. What runs from microbatch to
    microbatch, such as batch statistics, is in `collections` already.

    Args:
      collections: as the last microbatch left them.
      summed: `Outputs.summed` of all microbatches of the step, added up.
    """
    del summed
    return collections

  def undefined_mask(self, batch: Batch) -> jax.Array | None:
    """Where a forecast stands for nothing, such as land: [B, H, W, C].

    None: nowhere. Such values are written as missing.
    """
    del batch
    return None

  @abc.abstractmethod
  def forecast(
    self,
    variables: Variables,
    frozen: PyTree,
    batch: Batch,
    key: jax.Array,
    members: Members,
  ) -> jax.Array:
    """Returns forecasts [M, B, T_out, H, W, C] in normalised units.

    Whatever is drawn at random folds the member's number and the example's
    `batch["index"]` into the key, so that a member is the same field for any
    ensemble size, batch size and number of devices.
    """


def extra_inputs(
  network: nn.Module, batch: Batch, frames: int | None = None
) -> dict[str, jax.Array]:
  """What a network reads of a batch besides its inputs, by keyword.

  Args:
    network: says so by its attribute `extra_inputs`.
    batch: the batch.
    frames: length that arrays along time are cut to, from the first history
      frame on; None: not cut.

  Raises:
    ValueError: the data do not have it.
  """
  names = getattr(network, "extra_inputs", ())
  for name in names:
    if name not in batch:
      raise ValueError(
        f"network {type(network).__name__} reads {name!r}, which the data"
        f" do not give; set data.{name}"
      )
  read = {name: batch[name] for name in names}
  return read | {name: x[:, :frames] for name, x in spec.known_future(read).items()}


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
  """Keys [B] of the examples with these numbers, for any batch size."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(index)


def member_keys(key: jax.Array, member: jax.Array, index: jax.Array) -> jax.Array:
  """Keys [B] for one member of each example; see `Method.forecast`."""
  key = jax.random.fold_in(key, member)
  return example_keys(key, index)


def draw_normal(
  keys: jax.Array, number: jax.Array | int, shape: tuple[int, ...]
) -> jax.Array:
  """Standard normal [B, *shape], example by example from its own key.

  Args:
    keys: [B], of `member_keys`.
    number: which draw this is.
    shape: of one example.
  """

  def one(key):
    return jax.random.normal(jax.random.fold_in(key, number), shape)

  return jax.vmap(one)(keys)


def numbers(members: Members) -> jax.Array:
  """The members' numbers [M]."""
  return jnp.arange(members) if isinstance(members, int) else members


def map_members(
  one: Callable[..., PyTree],
  members: Members,
  chunk: int,
  points: int,
  *of_members: jax.Array,
) -> PyTree:
  """Makes arrays of members [M, ...], a chunk of them at a time.

  Args:
    one: (member number, what it has of `of_members`) -> arrays [...].
    members: which ones.
    chunk: how many at the same time; 0: as memory allows.
    points: values in one member's forecast of the batch.
    *of_members: arrays [M, ...].
  """
  limit = _CHUNK_POINTS.get(jax.default_backend(), _CHUNK_POINTS_ELSEWHERE)
  members = numbers(members)
  chunk = min(chunk or max(limit // points, 1), len(members))
  # Equal chunks need one program. Half as many at a time are still fast.
  sizes = range(1, chunk + 1)
  equal = [size for size in sizes if len(members) % size == 0][-1]
  return jax.lax.map(
    lambda given: one(*given),
    (members, *of_members),
    batch_size=equal if 2 * equal >= chunk else chunk,
  )


def field_names(method_class: type) -> list[str]:
  """Names of a method's options: its dataclass fields."""
  return [field.name for field in dataclasses.fields(method_class)]
