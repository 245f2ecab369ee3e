"""The pure train step: one update of any method's state by one batch."""

import functools
from collections.abc import Callable
from typing import Any

import einops
import jax
import jax.numpy as jnp
import optax

from input_pipeline import spec
from stjax.methods import base
from stjax.training import state as state_lib

PyTree = Any
Batch = dict[str, jax.Array]


def _gradients(
  state: state_lib.TrainState,
  batch: Batch,
  frozen: PyTree,
  key: jax.Array,
  method: base.Method,
) -> tuple[PyTree, dict[str, jax.Array], base.Outputs]:
  """Gradients, scalars and outputs of one microbatch."""

  frozen = jax.lax.stop_gradient(frozen)

  def loss_fn(params):
    variables = {"params": params, **state.collections}
    return method.loss(variables, frozen, batch, key, train=True)

  (loss, outputs), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
  return gradients, {"loss": loss} | outputs.scalars, outputs


def _accumulate(
  state: state_lib.TrainState,
  batch: Batch,
  frozen: PyTree,
  key: jax.Array,
  method: base.Method,
  parts: int,
) -> tuple[PyTree, dict[str, jax.Array], base.Outputs]:
  """The same of the whole batch, in `parts` pieces one by one.

  Rows part, part + parts, ... make one piece, so that a batch that is split
  over devices stays split the same way.
  """

  shared = spec.shared(batch)  # By all rows, so that it is not cut.

  def one(collections, piece):
    part, rows = piece
    gradients, scalars, outputs = _gradients(
      state.replace(collections=collections),
      rows | shared,
      frozen,
      jax.random.fold_in(key, part),
      method,
    )
    weight = outputs.weight
    weighted = jax.tree.map(lambda x: weight * x, (gradients, scalars))
    return outputs.collections, weighted, weight, outputs.summed

  cut = functools.partial(
    einops.rearrange, pattern="(b parts) ... -> parts b ...", parts=parts
  )
  rows = {name: cut(x) for name, x in batch.items() if name not in shared}
  pieces = (jnp.arange(parts), rows)
  shapes = jax.eval_shape(one, state.collections, jax.tree.map(lambda x: x[0], pieces))
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[1:])

  def body(carry, piece):
    collections, totals = carry
    collections, *new = one(collections, piece)
    return (collections, jax.tree.map(jnp.add, totals, tuple(new))), None

  (collections, (totals, weight, summed)), _ = jax.lax.scan(
    body, (state.collections, zeros), pieces
  )
  # Without one observed point there is nothing to learn, and no 0 / 0.
  safe = jnp.where(weight > 0, weight, 1.0)
  gradients, scalars = jax.tree.map(lambda x: x / safe, totals)
  return gradients, scalars, base.Outputs({}, collections, weight, summed)


def train_step(
  state: state_lib.TrainState,
  batch: Batch,
  frozen: PyTree,
  *,
  method: base.Method,
  transformation: optax.GradientTransformation,
  learning_rate: Callable[[jax.Array], jax.Array],
  accumulation_steps: int = 1,
  ema_decay: float = 0.0,
) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
  """Applies one update.

  Args:
    state: the state before the step.
    batch: arrays with the global batch in front, see the data interface.
    frozen: variables that the method reads and never trains.
    method: owns the loss and updates the collections.
    transformation: the optimiser.
    learning_rate: the optimiser's rate by step, for the log.
    accumulation_steps: number of equal parts the batch is cut into.
    ema_decay: decay of the parameter average; 0 turns it off.

  Returns:
    The state after the step and scalar means over the global batch: "loss",
    the method's scalars, "gradient_norm" (before clipping), "update_norm",
    "parameter_norm" and "learning_rate".
  """
  key = jax.random.fold_in(state.key, state.step)
  if accumulation_steps == 1:
    gradients, scalars, outputs = _gradients(state, batch, frozen, key, method)
  else:
    gradients, scalars, outputs = _accumulate(
      state, batch, frozen, key, method, accumulation_steps
    )
  updates, opt_state = transformation.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema_params = state.ema_params
  if ema_params is not None:
    ema_params = optax.incremental_update(params, ema_params, 1.0 - ema_decay)
  scalars = scalars | {
    "gradient_norm": optax.tree.norm(gradients),
    "update_norm": optax.tree.norm(updates),
    "parameter_norm": optax.tree.norm(params),
    "learning_rate": learning_rate(state.step),
  }
  state = state.replace(
    step=state.step + 1,
    params=params,
    collections=method.update(outputs.collections, outputs.summed),
    opt_state=opt_state,
    ema_params=ema_params,
  )
  return state, scalars
