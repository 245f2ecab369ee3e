"""Where a run's first state comes from: another run, torch, or nothing."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from stjax import checkpoint as checkpoint_lib
from stjax import config as config_lib
from stjax import convert
from stjax import run as run_lib
from stjax import state as state_lib
from stjax.convert import files


def first_state(run: run_lib.Run) -> state_lib.TrainState:
  """Returns the state a run starts from when it has no checkpoint of its own.

  Args:
    run: the run; `config.init_from` names a finished run's work directory or
      a file of torch weights, or is empty for fresh parameters.

  Raises:
    ConfigError: the source does not exist or holds another network.
  """
  if not run.config.init_from:
    return run.fresh_state()
  variables = _variables_from(run, pathlib.Path(run.config.init_from))
  return with_variables(run.fresh_state(), variables)


def _variables_from(run: run_lib.Run, source: pathlib.Path) -> dict[str, Any]:
  if (source / "checkpoints").is_dir():
    variables = load_variables(run, source, "best")
    logging.info("Started from the best parameters of %s", source)
    return variables
  if source.suffix not in files.SUFFIXES:
    raise config_lib.ConfigError(
        f"init_from={str(source)!r} ({source.absolute()}) is neither a work"
        " directory with checkpoints nor a file of torch weights"
        f" ({', '.join(files.SUFFIXES)})."
    )
  try:
    variables = convert_weights(run, files.read(source))
  except convert.ConvertError as error:
    raise config_lib.ConfigError(
        f"init_from={str(source)!r} cannot be used: {error}\n(python -m"
        " stjax.convert has more options.)"
    ) from error
  logging.info("Started from the weights in %s", source)
  return variables


def with_variables(
    state: state_lib.TrainState, variables: Mapping[str, Any]
) -> state_lib.TrainState:
  """Replaces a state's variables, averaged parameters included.

  Args:
    state: the state; step, optimiser and key stay.
    variables: {"params": ..., other collections}, on the state's shardings.
  """
  collections = {k: v for k, v in variables.items() if k != "params"}
  return state.replace(
      params=variables["params"],
      collections=collections,
      ema_params=None
      if state.ema_params is None
      else jax.tree.map(lambda x: x.copy(), variables["params"]),
  )


def network_options(run: run_lib.Run) -> dict[str, Any]:
  """What the converter must know of a run's network besides its name."""
  return {
      "in_shape": tuple(run.example_shape["inputs"]),
      **config_lib.without(run.config.model, "name"),
  }


def convert_weights(
    run: run_lib.Run,
    state_dict: Mapping[str, Any],
    allow_unused: str | None = None,
) -> dict[str, Any]:
  """Converts a torch state dict to a run's variables, on its devices.

  Args:
    run: decides network, shapes and shardings.
    state_dict: names and arrays; see `stjax.convert.to_stjax`.
    allow_unused: regular expression of torch names that may stay unused.

  Raises:
    ConvertError: the weights are not those of the network.
    NetworkError: no names are known for this network.
    ConfigError: the method has variables besides those of the network.
  """
  variables = convert.to_stjax(
      run.config.model.name,
      state_dict,
      allow_unused=allow_unused,
      **network_options(run),
  )
  # Torch's counts of batches, which no network here reads.
  variables.pop("torch", None)
  expected = run.abstract_variables
  differing = checkpoint_lib.differing_shapes(variables, expected)
  if differing:
    raise config_lib.ConfigError(
        f"The weights of network {run.config.model.name!r} are not all that"
        f" method {run.config.method.name!r} needs:\n"
        + "\n".join(
            f"  {path}: {theirs} in the file, {ours} in this config"
            for path, theirs, ours in differing[:10]
        )
    )
  return jax.tree.map(_on_devices, expected, variables)


def _on_devices(
    expected: jax.ShapeDtypeStruct, array: np.ndarray
) -> jax.Array:
  return jax.make_array_from_callback(
      expected.shape, expected.sharding, lambda index: array[index]
  )


def load_variables(
    run: run_lib.Run, workdir: pathlib.Path, which: str
) -> dict:
  """Loads the variables to forecast with: averaged ones where they exist.

  Args:
    run: decides shapes and shardings.
    workdir: whose checkpoints are read.
    which: "best" or "latest".

  Raises:
    ConfigError: no checkpoint, or one of another network.
  """
  options = run.config.checkpoint
  checkpoints = checkpoint_lib.Checkpoints(
      workdir / "checkpoints",
      metric=options.best_metric,
      mode=options.best_mode,
      keep_latest=options.keep_latest,
      keep_best=options.keep_best,
  )
  try:
    step = checkpoints.step_named(which)
    if which == "best" and checkpoints.best_step is None:
      logging.warning(
          "%s has no checkpoint scored by %r: the latest is taken.",
          workdir,
          options.best_metric,
      )
    variables = checkpoints.restore_variables(step, run.abstract_state)
  finally:
    checkpoints.close()
  logging.info("Loaded step %d (%s) of %s", step, which, workdir)
  return variables
