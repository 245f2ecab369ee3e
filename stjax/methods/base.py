"""The method interface, and how members and examples get their random numbers."""

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

import input_pipeline
from input_pipeline import spec

PyTree = Any
Batch = dict[str, jax.Array]
Variables = dict[str, PyTree]
# The members of an ensemble: their number M, which stands for members 0 ... M-1, or
# an array [M] of the numbers of those that are wanted.
Members = int | jax.Array
# How many forecast points are made at the same time. So many rows give full speed,
# while the activations of a network of a few hundred features stay below 1 GB, and
# within the cache of a CPU.
_CHUNK_POINTS = {"cpu": 2**15}
_CHUNK_POINTS_ELSEWHERE = 2**20


@struct.dataclass
class Outputs:
  """What a loss returns besides its value.

  Attributes:
    scalars: scalars for the log by name; each is a mean over the batch.
    collections: the new values of what is learned without gradients; the next
      microbatch starts from them.
    weight: how much this batch counts against others of the same step (the
      number of observed points), so that parts average exactly.
    summed: arrays that are added up over the microbatches of a step and then
      given to `Method.update`, such as counts of what was seen.
    scores: scores of the method's own on held-out data, as (sum, weight) by name;
      the evaluation adds them up. Only a loss that does not train has them.
  """

  scalars: dict[str, jax.Array]
  collections: dict[str, PyTree]
  weight: jax.Array | float = 1.0
  summed: dict[str, PyTree] = struct.field(default_factory=dict)
  scores: dict[str, tuple[jax.Array, jax.Array]] = struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Material:
  """The data that a method may look at before its first step.

  Attributes:
    series: function that returns the training frames [T, H, W, C] of every
      sequence, normalised, with NaN where they are missing.
    batches: function of a split that returns the batches of one pass over it, on
      the devices.
    fetch: function that brings an array from the devices to every host.
    areas: function of the config key that asks and of its value (see
      `stjax.metrics.grid`) that returns the weights [H, W] of the cells, of mean 1.
    climatology: function that returns the normalised training mean of every place
      for each cell of data.calendar, [*calendar sizes, H, W, C].
    statistics: normalisation of the training split.
  """

  series: Callable[[], list[np.ndarray]]
  batches: Callable[[str], Iterable[Batch]]
  fetch: Callable[[jax.Array], np.ndarray]
  areas: Callable[[str, str], np.ndarray]
  climatology: Callable[[], np.ndarray]
  statistics: input_pipeline.Statistics | None = None


@dataclasses.dataclass(frozen=True)
class Units:
  """How normalised fields become physical ones, beside their offset and scale.

  Attributes:
    transform: data.transform, "identity" or "log1p".
    clip_range: forecast.clip_range, (lowest, highest) value; () clips nothing.
  """

  transform: str = "identity"
  clip_range: tuple[float | None, ...] = ()

  def physical(
    self, fields: jax.Array, offset: jax.Array, scale: jax.Array
  ) -> jax.Array:
    """Returns normalised fields [..., C] in physical units.

    Args:
      fields: [..., C].
      offset: [C], of the normalisation.
      scale: [C].
    """
    fields = fields * scale + offset
    if self.transform == "log1p":
      fields = jnp.expm1(fields)
    return jnp.clip(fields, *self.clip_range) if self.clip_range else fields


class Method(abc.ABC):
  """What is trained and asked for forecasts. A method has no state.

  Every array comes in through arguments, so each function can be jitted,
  vmapped, sharded and exported. Methods are frozen dataclasses.

  Attributes:
    horizon: frames T_out of one forecast.
    part_names: fields that hold other methods, which this one reads and never
      trains; see `parts`.
  """

  horizon: int
  part_names: ClassVar[tuple[str, ...]] = ()
  # "forecast", or "reconstruction" for a method that must be shown what it makes: it
  # is scored without forecast baselines, and asked for no forecasts.
  kind: ClassVar[str] = "forecast"

  @property
  def trainable(self) -> bool:
    """Whether training steps have anything to learn."""
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
    """How many members are made at the same time; 0 stands for as memory allows."""
    return 0

  def for_horizon(self, horizon: int) -> "Method":
    """The same method, asked for the first frames of its forecasts.

    Args:
      horizon: frames to forecast, at most those of this method.
    """
    parts = {name: part.for_horizon(horizon) for name, part in self.parts.items()}
    return dataclasses.replace(self, horizon=horizon, **parts)

  def input_channels(self, variables: int, known: int) -> int:
    """Returns the number of channels that the network is shown.

    Args:
      variables: number of the variables that are forecast.
      known: number of the forcings and static fields.
    """
    del known
    return variables

  def prepared_shapes(
    self, example: dict[str, tuple[int, ...]]
  ) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays that `prepare` returns, by name.

    Args:
      example: the shapes of "inputs" and "targets" of one example, and under
        "calendar" the number of values of each column of the calendar.
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

  def check_frozen(
    self, frozen: PyTree, fetch: Callable[[jax.Array], np.ndarray]
  ) -> None:
    """Refuses frozen arrays that do not go together, before the first step.

    Args:
      frozen: the arrays of `parts` that were read.
      fetch: function that brings an array from the devices to every host.

    Raises:
      ConfigError: names the part.
    """
    del frozen, fetch

  def phases(
    self, steps_per_epoch: fractions.Fraction
  ) -> tuple[tuple[int, "Method"], ...]:
    """Returns the phases of the training as pairs (first step, method).

    All phases share the variables, the frozen arrays and the batches, and each
    compiles a train step of its own. The number of steps made says which phase
    runs, so that a resumed run is in the same one.

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

  def own_scores(self, totals: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Returns scores from the sums of `Outputs.scores` over a whole split.

    Args:
      totals: (sum, weight) by name; the weight is above 0.
    """
    return {name: total / weight for name, (total, weight) in totals.items()}

  def undefined_mask(self, batch: Batch) -> jax.Array | None:
    """Returns where a forecast has no meaning, such as on land: [B, H, W, C].

    Such values are written as missing. None stands for a forecast that has a
    meaning everywhere.
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

    All random draws fold the member's number and the example's `batch["index"]`
    into the key. A member is therefore the same field for any size of the ensemble
    and of the batch and for any number of devices.
    """


def extra_inputs(
  network: nn.Module, batch: Batch, frames: int | None = None
) -> dict[str, jax.Array]:
  """Returns the arrays that a network reads besides its inputs, by keyword.

  Args:
    network: a network that names them in its attribute `extra_inputs`.
    batch: the batch.
    frames: number of frames, counted from the first of the history, to which
      arrays along time are cut; None leaves them as they are.

  Raises:
    ValueError: the data do not have such an array.
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
  """Returns keys [B], which depend on the examples' numbers and on nothing else."""
  return jax.vmap(functools.partial(jax.random.fold_in, key))(index)


def member_keys(key: jax.Array, member: jax.Array, index: jax.Array) -> jax.Array:
  """Returns keys [B] for one member of each example; see `Method.forecast`."""
  key = jax.random.fold_in(key, member)
  return example_keys(key, index)


def draw_normal(
  keys: jax.Array, number: jax.Array | int, shape: tuple[int, ...]
) -> jax.Array:
  """Returns standard normal numbers [B, *shape], each example's from its own key.

  Args:
    keys: [B] keys, as `member_keys` returns them.
    number: number of the draw; draws of different numbers are independent.
    shape: shape of one example.
  """

  def one(key):
    return jax.random.normal(jax.random.fold_in(key, number), shape)

  return jax.vmap(one)(keys)


def numbers(members: Members) -> jax.Array:
  """Returns the numbers [M] of the members."""
  return jnp.arange(members) if isinstance(members, int) else members


def map_members(
  one: Callable[..., PyTree],
  members: Members,
  chunk: int,
  points: int,
  *of_members: jax.Array,
) -> PyTree:
  """Makes the arrays of members [M, ...], some members at a time.

  Args:
    one: function of a member's number and of its rows of `of_members` that returns
      the arrays [...] of that member.
    members: the members that are wanted.
    chunk: number of members made at the same time; 0 stands for as memory allows.
    points: number of values in one member's forecast of the batch.
    *of_members: arrays [M, ...] with a row for each member.
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
  """Returns the names of a method's options, which are its dataclass fields."""
  return [field.name for field in dataclasses.fields(method_class)]
