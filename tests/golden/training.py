"""A few steps of training, as the originals' trajectories have them."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from stjax.training import optim, step
from stjax.training import state as state_lib


def trainer(
  method, variables, steps: int, optimizer: dict[str, Any], schedule: dict[str, Any]
) -> tuple[state_lib.TrainState, Callable, Callable]:
  """Prepares training with Adam.

  Args:
    method: the method that is trained.
    variables: its variables.
    steps: the number of steps of an epoch, which is the whole training.
    optimizer: options of the optimiser; learning_rate must be given.
    schedule: options of the schedule of the learning rate.

  Returns:
    The state at first; state, batch, frozen parts -> later state and scalars;
    number of a step -> learning rate.
  """
  adam = {"weight_decay": 0.0, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
  fixed = {"name": "adam", "clip_norm": 0.0, "momentum": 0.0}
  options = adam | fixed | optimizer | {"schedule": {"per": "step"} | schedule}
  built = optim.build(options, steps, steps)
  state = state_lib.create(jax.random.key(0), variables, built.transformation, 0.0)
  update = functools.partial(
    step.train_step,
    method=method,
    transformation=built.transformation,
    learning_rate=built.learning_rate,
  )
  return state, jax.jit(update), built.learning_rate
