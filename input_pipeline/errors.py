"""The error of the input pipeline, and how near names are listed."""
import difflib
from collections.abc import Iterable


class DataError(ValueError):
  """Data or data settings that cannot be used.

  The message names what came, what was expected and which config key to
  change.
  """


def unknown(kind: str, name: str, known: Iterable[str]) -> DataError:
  """A DataError for a name that is not known, with near names first.

  Args:
    kind: what is named, with the config key, e.g. "store (data.store)".
    name: what came.
    known: every name that would have been accepted.
  """
  known = sorted(known)
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
  listing = ", ".join(known) if known else "none"
  return DataError(f"Unknown {kind}: {name!r}.{hint} Known: {listing}.")
