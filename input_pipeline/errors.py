"""Errors that a user can mend, and how near names are listed."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class UserError(ValueError):
  """Something that the user can mend, rather than a fault of the program.

  The message names what came, what was expected and which config key or file to
  change. Commands print it as one message, without a traceback.
  """


class DataError(UserError):
  """Data or data settings that cannot be used."""


def near(name: Any, known: Iterable[Any]) -> str:
  """Returns a phrase that lists the known names closest to `name`."""
  known = sorted(str(k) for k in known)
  close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  if close:
    return f"did you mean {' or '.join(map(repr, close))}? (all: {', '.join(known)})"
  return f"known: {', '.join(known) or 'none'}"


def unknown(
  kind: str, name: Any, known: Iterable[Any], error: type[UserError] = DataError
) -> UserError:
  """The error for a name that is not known.

  Args:
    kind: what is named, with its config key, e.g. "store (data.store)".
    name: what came.
    known: every name that would have been accepted.
    error: the kind of error.
  """
  return error(f"Unknown {kind} {name!r}: {near(name, known)}.")


def pick(
  where: str,
  name: str,
  table: Mapping[str, Any] | Iterable[str],
  error: type[UserError] = DataError,
) -> Any:
  """Looks up a named part.

  Args:
    where: the config key that holds the name, for the message.
    name: what came.
    table: the registered parts by name, or only the names.
    error: the kind of error to raise.

  Returns:
    The part; the name itself where the table has only names.

  Raises:
    UserError: of the given kind, listing the near names.
  """
  if name not in table:
    raise error(f"{where}={name!r} is not known: {near(name, table)}.")
  return table[name] if isinstance(table, Mapping) else name


def check_options(
  where: str,
  options: Iterable[str],
  known: Iterable[str],
  error: type[UserError] = DataError,
) -> None:
  """Refuses an option that is not known.

  Args:
    where: the config section that holds the options.
    options: their names.
    known: the names that would be accepted.
    error: the kind of error to raise.
  """
  known = set(known)
  for key in options:
    if key not in known:
      raise error(f"Unknown key {where}.{key}: {near(key, known)}.")
