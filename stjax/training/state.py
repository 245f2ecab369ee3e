"""The training state, which is everything that a step reads and changes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

PyTree = Any


@struct.dataclass
class TrainState:
  """Everything that must be saved for a run to go on as if it never stopped.

  Attributes:
    step: number of updates that were made, an int32 scalar.
    params: parameters, which are learned by gradients.
    collections: variables that change without gradients (batch statistics,
      codebooks), by the name of the collection.
    opt_state: the optimiser's moments and counts.
    ema_params: running average of the parameters, or None if it is off.
    key: base PRNG key. Every use folds in the step, so the key never changes.
  """

  step: jax.Array
  params: PyTree
  collections: PyTree
  opt_state: PyTree
  ema_params: PyTree | None
  key: jax.Array

  def variables(self, averaged: bool = False) -> dict[str, PyTree]:
    """Returns the method's variables.

    Args:
      averaged: whether to take the averaged parameters, if there are any.
    """
    params = self.params
    if averaged and self.ema_params is not None:
      params = self.ema_params
    return {"params": params, **self.collections}


def create(
  key: jax.Array,
  variables: dict[str, PyTree],
  transformation: optax.GradientTransformation,
  ema_decay: float,
) -> TrainState:
  """Returns the state before the first step.

  Args:
    key: base PRNG key of the run.
    variables: a method's variables, "params" and other collections.
    transformation: the optimiser.
    ema_decay: decay of the running average of the parameters; 0 turns it off.
  """
  collections = {k: v for k, v in variables.items() if k != "params"}
  params = variables["params"]
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    collections=collections,
    opt_state=transformation.init(params),
    ema_params=jax.tree.map(jnp.copy, params) if ema_decay else None,
    key=key,
  )
