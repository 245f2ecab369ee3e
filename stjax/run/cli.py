"""What the commands share: flags, the log's format, and readable ends."""

import ast
import logging as python_logging
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from stjax import config as config_lib
from stjax import errors

# Sections whose keys are names in the data: any of them may be given.
_NAMED = ("data.select",)


class _Lists(tuple_parser.TupleParser):
  """Reads every key that is a list; ml_collections alone refuses "a,b"."""

  def parse(self, argument: Any) -> tuple[Any, ...]:
    if isinstance(argument, str):
      return as_list(argument)
    return super().parse(argument)


class _WithNamedKeys(flags.ArgumentParser):
  """Reads a config file, and declares the keys of _NAMED that are given."""

  def __init__(self, reader: flags.ArgumentParser):
    self._reader = reader

  def parse(self, argument: Any) -> ml_collections.ConfigDict:
    config = self._reader.parse(argument)
    for section, name in named_keys(sys.argv):
      place = config
      for key in section.split("."):
        place = place.get(key) if isinstance(place, ml_collections.ConfigDict) else None
      if place is not None and name not in place:
        with place.unlocked():
          place[name] = ()
    return config

  def flag_type(self) -> str:
    return self._reader.flag_type()


def as_list(text: str) -> tuple[Any, ...]:
  """The values of a list as it is typed on a command line.

  Args:
    text: values with commas between them, such as "t2m,u10", "32,32" or
      ".7,.2,.1", or a Python tuple, such as "((0, 0), (3, 4))" or "()". Numbers,
      True, False and None are what they say; everything else is text.

  Returns:
    The values; one value is a list of one, and "" an empty list.
  """
  text = text.strip()
  value = _literal(text)
  if isinstance(value, tuple | list):
    return tuple(value)
  if not isinstance(value, str) or value != text:
    return (value,)
  if text[:1] + text[-1:] in ("()", "[]"):
    text = text[1:-1]
  # A comma within brackets or quotes separates nothing here.
  parts = re.findall(r"""(?:\([^()]*\)|\[[^\[\]]*\]|"[^"]*"|'[^']*'|[^,])+""", text)
  return tuple(_literal(part.strip()) for part in parts if part.strip())


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def named_keys(arguments: list[str]) -> list[tuple[str, str]]:
  """The (section, key) pairs that a command line gives below _NAMED."""
  found = []
  for argument in arguments:
    for section in _NAMED:
      match = re.match(
        rf"""--?config\.{re.escape(section)}(?:\.(\w+)|\[["'](.+)["']\])(?:=|$)""",
        argument,
      )
      if match:
        found.append((section, match[1] or match[2]))
  return found


config_flags.register_flag_parser_for_type(tuple, _Lists())
CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A config file, such as configs/simvp_boiling.py.", lock_config=True
)
flags.FLAGS["config"].parser = _WithNamedKeys(flags.FLAGS["config"].parser)
WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where the run keeps everything it makes."
)


def fail(message: object, status: int = 2) -> NoReturn:
  """Prints "stjax: message" and ends the process."""
  print(f"stjax: {message}", file=sys.stderr, flush=True)
  sys.stdout.flush()
  # Other processes of the same job would wait for this one for ever; a plain
  # exit would wait for them.
  if jax.distributed.is_initialized():
    os._exit(status)
  sys.exit(status)


def require(usage: str, *needed: flags.FlagHolder) -> None:
  """Fails, with the usage, unless every flag has a value."""
  for flag in needed:
    if not flag.value:
      fail(f"--{flag.name} is missing. Usage: {usage}")


def read_config() -> ml_collections.ConfigDict:
  """The config that --config names, overridden and locked.

  Raises:
    ConfigError: the file cannot be read.
  """
  try:
    config = CONFIG.value
    config.lock()
  except (AttributeError, OSError, ValueError, TypeError) as error:
    raise errors.ConfigError(f"--config cannot be read: {error}") from error
  return config


def run(command: Callable[[], None]) -> None:
  """Runs a command that takes flags only; errors end in one message.

  Args:
    command: does the work; a `UserError` that it raises ends with status 2.
  """

  def main(argv):
    if len(argv) > 1:
      fail(f"unexpected arguments {argv[1:]}; every setting is a --flag.")
    # The training loop listens by itself, to save first.
    signal.signal(signal.SIGTERM, _leave)
    try:
      command()
    except errors.UserError as error:
      fail(error)

  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.addFilter(_is_ours)
  handler.setFormatter(python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  app.run(main, flags_parser=_parse)


def _leave(number: int, frame: object) -> NoReturn:
  """Ends cleanly when asked to outside the training loop."""
  del frame
  logging.warning(
    "%s: nothing is lost; the same command goes on from the last checkpoint.",
    signal.Signals(number).name,
  )
  sys.exit(0)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    fail(_without_trace(str(error)))
  except (AttributeError, KeyError) as error:
    for old, new in config_lib.RENAMED.items():
      if any(flag.startswith(f"--config.{old}=") for flag in argv):
        fail(f"--config.{old} is now called --config.{new}.")
    for flag in argv:
      if flag.startswith("--config.method.mean="):
        fail(f"{flag} is gone: {config_lib.instead_of_mean(flag.partition('=')[2])}.")
    reason = str(error.args[0]).replace("\\n", " ").strip("'\"")
    fail(
      f"--config has no such key: {reason} (configs/base.py lists the keys"
      " of every config)"
    )
  except (TypeError, ValueError, OSError) as error:
    fail(f"the flags cannot be used: {error}")


def _without_trace(message: str) -> str:
  """Where and what went wrong, out of a message that holds a whole trace."""
  head, found, trace = message.partition("Traceback (most recent call last):")
  if not found:
    return message
  lines = trace.splitlines()
  places = [line.strip() for line in lines if line.startswith("  File ")]
  reason = " ".join(x for x in lines if x and not x.startswith(" "))
  return " ".join((head.strip(), reason, *places[-1:]))


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Libraries are heard only when they warn."""
  if record.levelno >= python_logging.WARNING:
    return True
  folders = pathlib.PurePath(record.pathname).parts[-4:-1]
  return bool({"stjax", "input_pipeline"} & set(folders))
