"""Forecasts of any length: blocks of frames that are fed back."""

import math
from collections.abc import Callable
from typing import Any

import einops
import jax
import jax.numpy as jnp

from input_pipeline import spec
from stjax.methods import base

PyTree = Any


def feed_back(
  step: Callable[..., tuple[jax.Array, PyTree]],
  history: jax.Array,
  carry: PyTree,
  horizon: int,
  known: dict[str, jax.Array] | None = None,
) -> tuple[jax.Array, PyTree]:
  """Makes a forecast of any length by feeding forecast frames back.

  Each call of `step` sees the newest T_in frames, observed or forecast. The
  last block is cut to the horizon.

  Args:
    step: (history [B, T_in, H, W, C], carry, block number, **known) ->
      (forecast [B, T_block, H, W, C], carry).
    history: [B, T_in, H, W, C] observed frames.
    carry: anything that `step` hands to its next call.
    horizon: number of frames wanted.
    known: arrays [B, T_in + horizon, ...] known for lead times too; each
      block gets them from the first frame of its history on.

  Returns:
    The forecast [B, horizon, H, W, C] and the last carry.

  Raises:
    ValueError: if more than one block is needed and the forecast's fields are
      not those of the history.
  """
  known = known or {}
  # With more blocks to come only its shape is used, and the compiler drops it.
  first, after = step(history, carry, jnp.zeros((), jnp.int32), **known)
  block = first.shape[1]
  if horizon <= block:
    return first[:, :horizon], after
  if first.shape[2:] != history.shape[2:]:
    raise ValueError(
      f"A forecast of {horizon} frames needs {block}-frame blocks fed back,"
      f" but the network returns frames of shape {first.shape[2:]} for"
      f" history frames of shape {history.shape[2:]}. Lower data.horizon to"
      f" {block} or make the channels equal."
    )

  def body(state, number):
    history, carry = state
    forecast, carry = step(history, carry, number, **later(known, number * block))
    return (newest(history, forecast), carry), forecast

  blocks = -(-horizon // block)
  (_, carry), forecast = jax.lax.scan(body, (history, carry), jnp.arange(blocks))
  forecast = einops.rearrange(forecast, "n b t ... -> b (n t) ...")
  return forecast[:, :horizon], carry


def newest(history: jax.Array, forecast: jax.Array) -> jax.Array:
  """The last frames of both, as many as the history has; time is axis 1."""
  frames = history.shape[1]
  return jnp.concatenate([history, forecast], axis=1)[:, -frames:]


def later(known: dict[str, jax.Array], frames: jax.Array | int) -> dict[str, jax.Array]:
  """Moves what is known along time forward; what wraps is never read."""
  return {k: jnp.roll(v, -frames, axis=1) for k, v in known.items()}


def rollout(
  method: base.Method,
  variables: base.Variables,
  frozen: PyTree,
  batch: base.Batch,
  key: jax.Array,
  members: base.Members,
  horizon: int,
) -> jax.Array:
  """Forecasts of any length by any method, each member fed back on its own.

  Args:
    method: makes blocks of `method.horizon` frames.
    variables: the method's variables.
    frozen: what the method reads and never trains.
    batch: needs `inputs` [B, T_in, H, W, C]; what is known in advance must
      reach to the end of the horizon.
    key: PRNG key; block number b uses fold_in(key, b), and from the second
      block on the member's number as well, so that a longer forecast begins
      with the shorter one.
    members: the members that are wanted.
    horizon: number of frames wanted.

  Returns:
    [M, B, horizon, H, W, C] in normalised units.
  """
  blocks = -(-horizon // method.horizon)
  forecast, _ = start_rollout(method, variables, frozen, batch, key, members, blocks)
  return forecast[:, :, :horizon]


def start_rollout(
  method: base.Method,
  variables: base.Variables,
  frozen: PyTree,
  batch: base.Batch,
  key: jax.Array,
  members: base.Members,
  blocks: int,
) -> tuple[jax.Array, jax.Array]:
  """The first blocks of a `rollout`.

  Returns:
    The forecast [M, B, blocks * method.horizon, H, W, C] and the newest T_in
    frames of each member, from which `continue_rollout` goes on.
  """
  first = method.forecast(variables, frozen, batch, jax.random.fold_in(key, 0), members)
  histories = jax.vmap(newest, (None, 0))(batch["inputs"], first)
  if blocks == 1:
    return first, histories
  rest, histories = continue_rollout(
    method, variables, frozen, batch, key, members, histories, 1, blocks - 1
  )
  return jnp.concatenate([first, rest], axis=2), histories


def continue_rollout(
  method: base.Method,
  variables: base.Variables,
  frozen: PyTree,
  batch: base.Batch,
  key: jax.Array,
  members: base.Members,
  histories: jax.Array,
  number: jax.Array | int,
  blocks: int,
) -> tuple[jax.Array, jax.Array]:
  """More blocks of a `rollout`; the arguments and results are those of `start_rollout`.

  Args:
    method: makes the blocks.
    variables: the method's variables.
    frozen: what the method reads and never trains.
    batch: the one that the rollout began with.
    key: the key that the rollout began with.
    members: the members that it began with.
    histories: [M, B, T_in, H, W, C] newest frames of each member.
    number: of the first of these blocks, 1 or more.
    blocks: number of further blocks.
  """
  known = spec.known_future(batch)

  def of_member(member, history):

    def body(history, number):
      block_key = jax.random.fold_in(key, number)
      frames = number * method.horizon
      now = batch | {"inputs": history} | later(known, frames)
      if "mask" in batch:
        now["mask"] = mask_later(batch, frames)
      forecast = method.forecast(
        variables, frozen, now, jax.random.fold_in(block_key, member), 1
      )[0]
      return newest(history, forecast), forecast

    history, frames = jax.lax.scan(body, history, number + jnp.arange(blocks))
    return einops.rearrange(frames, "n b t ... -> b (n t) ..."), history

  shape = (*histories.shape[1:2], method.horizon, *histories.shape[3:])
  return base.map_members(
    of_member, members, method.member_chunk, math.prod(shape), histories
  )


def mask_later(batch: base.Batch, frames: jax.Array) -> jax.Array:
  """Where a history some frames later is observed [B, T_in, H, W, C].

  What was forecast counts as observed where the first history ever was.
  """
  count = batch["inputs"].shape[1]
  observed = batch["mask"][:, :count]
  ever = jnp.any(observed, axis=1, keepdims=True)
  left = (frames + jnp.arange(count) < count)[:, None, None, None]
  moved = jnp.roll(observed, -frames, axis=1)
  return jnp.where(left, moved, ever)
