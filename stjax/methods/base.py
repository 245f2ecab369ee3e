"""The method interface, and the one function that feeds forecasts back."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import einops
import jax
import jax.numpy as jnp
from flax import struct

PyTree = Any
Batch = dict[str, jax.Array]
Variables = dict[str, PyTree]


@struct.dataclass
class Outputs:
  """What a loss gives besides its value.

  Attributes:
    terms: scalars to log, by name, means over the batch.
    collections: the new values of what is learned without gradients.
    weight: how much this batch counts against others of the same step (the
      number of observed points), so that parts average exactly.
  """

  terms: dict[str, jax.Array]
  collections: dict[str, PyTree]
  weight: jax.Array | float = 1.0


class Method(Protocol):
  """What is trained and asked for forecasts; stateless.

  Every array comes in through arguments, so each function can be jitted,
  vmapped, sharded and exported.
  """

  horizon: int

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    """Returns {"params": ..., other collections} for batches of this shape."""

  def loss(
      self,
      variables: Variables,
      frozen: PyTree,
      batch: Batch,
      key: jax.Array,
      train: bool,
  ) -> tuple[jax.Array, Outputs]:
    """Returns the scalar loss of a batch and its `Outputs`."""

  def forecast(
      self,
      variables: Variables,
      frozen: PyTree,
      batch: Batch,
      key: jax.Array,
      members: int,
  ) -> jax.Array:
    """Returns forecasts [M, B, T_out, H, W, C] in normalised units.

    Whatever is drawn at random folds the member's number and the example's
    `batch["index"]` into the key, so that a member is the same field for any
    ensemble size, batch size and number of devices.
    """


def feed_back(
    step: Callable[[jax.Array, PyTree, jax.Array], tuple[jax.Array, PyTree]],
    history: jax.Array,
    carry: PyTree,
    horizon: int,
) -> tuple[jax.Array, PyTree]:
  """Makes a forecast of any length by feeding forecast frames back.

  Each call of `step` sees the newest T_in frames, observed or forecast. The
  last block is cut to the horizon.

  Args:
    step: (history [B, T_in, H, W, C], carry, block number) -> (forecast
      [B, T_block, H, W, C], carry).
    history: [B, T_in, H, W, C] observed frames.
    carry: anything that `step` hands to its next call.
    horizon: number of frames wanted.

  Returns:
    The forecast [B, horizon, H, W, C] and the last carry.

  Raises:
    ValueError: if more than one block is needed and the forecast's fields are
      not those of the history.
  """
  first, carry = step(history, carry, jnp.zeros((), jnp.int32))
  block = first.shape[1]
  if horizon <= block:
    return first[:, :horizon], carry
  if first.shape[2:] != history.shape[2:]:
    raise ValueError(
        f"A forecast of {horizon} frames needs {block}-frame blocks fed back,"
        f" but the network returns frames of shape {first.shape[2:]} for"
        f" history frames of shape {history.shape[2:]}. Lower data.horizon to"
        f" {block} or make the channels equal."
    )
  frames = history.shape[1]

  def newest(history, forecast):
    return jnp.concatenate([history, forecast], axis=1)[:, -frames:]

  def body(state, number):
    history, carry = state
    forecast, carry = step(history, carry, number)
    return (newest(history, forecast), carry), forecast

  blocks = -(-horizon // block)
  (_, carry), rest = jax.lax.scan(
      body, (newest(history, first), carry), jnp.arange(1, blocks)
  )
  rest = einops.rearrange(rest, "n b t ... -> b (n t) ...")
  forecast = jnp.concatenate([first, rest], axis=1)
  return forecast[:, :horizon], carry


def rollout(
    method: Method,
    variables: Variables,
    frozen: PyTree,
    batch: Batch,
    key: jax.Array,
    members: int,
    horizon: int,
) -> jax.Array:
  """Forecasts of any length by any method, each member fed back on its own.

  Args:
    method: makes blocks of `method.horizon` frames.
    variables: the method's variables.
    frozen: what the method reads and never trains.
    batch: needs `inputs` [B, T_in, H, W, C].
    key: PRNG key; block number b uses fold_in(key, b), and from the second
      block on the member's number as well, so that a longer forecast begins
      with the shorter one.
    members: ensemble members M.
    horizon: number of frames wanted.

  Returns:
    [M, B, horizon, H, W, C] in normalised units.
  """

  def forecast(inputs, key, members):
    return method.forecast(
        variables, frozen, batch | {"inputs": inputs}, key, members
    )

  first = forecast(batch["inputs"], jax.random.fold_in(key, 0), members)
  if horizon <= first.shape[2]:
    return first[:, :, :horizon]
  frames = batch["inputs"].shape[1]

  def of_member(first, member):
    history = jnp.concatenate([batch["inputs"], first], axis=1)[:, -frames:]

    def step(history, carry, number):
      block_key = jax.random.fold_in(key, number + 1)
      member_key = jax.random.fold_in(block_key, member)
      return forecast(history, member_key, 1)[0], carry

    rest, _ = feed_back(step, history, (), horizon - first.shape[1])
    return jnp.concatenate([first, rest], axis=1)

  return jax.vmap(of_member)(first, jnp.arange(members))


def field_names(method_class: type) -> list[str]:
  """Names of a method's options: its dataclass fields."""
  return [field.name for field in dataclasses.fields(method_class)]
