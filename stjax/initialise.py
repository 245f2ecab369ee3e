"""Where a run's first state comes from: another run, or nothing."""

import pathlib

from absl import logging
import jax

from stjax import checkpoint as checkpoint_lib
from stjax import config as config_lib
from stjax import run as run_lib
from stjax import state as state_lib


def first_state(run: run_lib.Run) -> state_lib.TrainState:
  """Returns the state a run starts from when it has no checkpoint of its own.

  Args:
    run: the run; `config.init_from` names a finished run's work directory, or
      is empty for fresh parameters.

  Raises:
    ConfigError: the source does not exist or holds another network.
  """
  state = run.fresh_state()
  if not run.config.init_from:
    return state
  source = pathlib.Path(run.config.init_from)
  if not (source / "checkpoints").is_dir():
    raise config_lib.ConfigError(
        f"init_from={str(source)!r} ({source.absolute()}) is not a work"
        " directory with checkpoints."
    )
  variables = load_variables(run, source, "best")
  collections = {k: v for k, v in variables.items() if k != "params"}
  logging.info("Started from the best parameters of %s", source)
  return state.replace(
      params=variables["params"],
      collections=collections,
      ema_params=None
      if state.ema_params is None
      else jax.tree.map(lambda x: x.copy(), variables["params"]),
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
    variables = checkpoints.restore_variables(step, run.abstract_state)
  finally:
    checkpoints.close()
  logging.info("Loaded step %d (%s) of %s", step, which, workdir)
  return variables
