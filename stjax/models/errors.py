"""The error of a network that cannot be built or run as asked."""

import difflib
from collections.abc import Iterable


class NetworkError(ValueError):
  """Says what came, what was expected and which option to change."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> NetworkError:
  """An error that lists the names near to an unknown one.

  Args:
    kind: what the name stands for, e.g. "translator".
    name: the unknown name.
    known: all known names.
  """
  known = sorted(known)
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  hint = f"did you mean {' or '.join(near)}? " if near else ""
  return NetworkError(
    f"unknown {kind} {name!r}: {hint}known: {', '.join(known)}"
  )
