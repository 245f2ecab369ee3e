"""python -m stjax.main --config=configs/X.py --workdir=DIR [--mode=MODE]

Trains, evaluates and forecasts; any leaf of the config is overridden by
--config.a.b=value.
"""

import logging as python_logging
import os
import pathlib
import sys

from absl import app
from absl import flags
from absl import logging
import input_pipeline
import jax
from ml_collections import config_flags

from stjax import config as config_lib
from stjax import distributed
from stjax import metrics
from stjax import models

MODES = ("all", "train", "evaluate", "forecast")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A config file, such as configs/simvp_boiling.py.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run keeps everything it makes."
)
_MODE = flags.DEFINE_enum(
    "mode", "all", MODES, "What to do; all does one after the other."
)

_EXPECTED = (
    config_lib.ConfigError,
    input_pipeline.DataError,
    models.NetworkError,
    metrics.MetricError,
)


def _fail(message: object, status: int = 2) -> None:
  print(f"stjax: {message}", file=sys.stderr, flush=True)
  sys.stdout.flush()
  # Other processes of the same job would wait for this one for ever; a plain
  # exit would wait for them.
  if jax.distributed.is_initialized():
    os._exit(status)
  sys.exit(status)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _fail(error)
  except (AttributeError, KeyError) as error:
    reason = str(error.args[0]).replace("\\n", " ").strip("'\"")
    _fail(
        f"--config has no such key: {reason} (configs/base.py lists the keys"
        " of every config)"
    )
  except (TypeError, ValueError, OSError) as error:
    _fail(f"the flags cannot be used: {error}")
  return []


def main(argv: list[str]) -> None:
  """Runs the modes one after the other."""
  if len(argv) > 1:
    _fail(f"unexpected arguments {argv[1:]}; every setting is a --flag.")
  for flag in (_CONFIG, _WORKDIR):
    if not flag.value:
      _fail(
          f"--{flag.name} is missing. Usage: python -m stjax.main"
          " --config=configs/simvp_boiling.py --workdir=DIR"
      )
  try:
    _run(_MODE.value)
  except _EXPECTED as error:
    _fail(error)


def _run(mode: str) -> None:
  distributed.initialise()
  # Only now: these touch the devices.
  from stjax import evaluate
  from stjax import forecast
  from stjax import run as run_lib
  from stjax import train

  try:
    config = _CONFIG.value
    config.lock()
  except (AttributeError, OSError, ValueError, TypeError) as error:
    raise config_lib.ConfigError(
        f"--config cannot be read: {error}"
    ) from error
  run = run_lib.build(config, _WORKDIR.value)
  try:
    if mode in ("all", "train") and not train.train(run):
      return  # Asked to stop: the same command goes on later.
    if mode in ("all", "evaluate"):
      evaluate.evaluate(run)
    if mode in ("all", "forecast"):
      forecast.forecast(run)
  except train.Diverged as error:
    _fail(error, status=1)


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Libraries are heard only when they warn."""
  if record.levelno >= python_logging.WARNING:
    return True
  return bool({"stjax", "input_pipeline"} & set(_folders(record.pathname)))


def _folders(path: str) -> tuple[str, ...]:
  return pathlib.PurePath(path).parts[-3:-1]


def run() -> None:
  """The command's entry point."""
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.addFilter(_is_ours)
  handler.setFormatter(
      python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
  )
  app.run(main, flags_parser=_parse)


if __name__ == "__main__":
  run()
