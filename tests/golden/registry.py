"""The registry of functions that check cases, by the cases' system and model."""

import re
from collections.abc import Callable

from golden.case import Case, NotBuilt

Runner = Callable[[Case], None]
RUNNERS: dict[tuple[str, str], Runner] = {}
# Of cases without arrays, which tell names and shapes only.
MANIFESTS: dict[tuple[str, str], Runner] = {}


def runner(
  system: str, *models: str, table: dict[tuple[str, str], Runner] = RUNNERS
) -> Callable[[Runner], Runner]:
  """Registers a function that checks the cases of some models.

  The function takes a `Case`. It raises `NotBuilt` if a case has an option that
  the project does not have, and AssertionError if numbers differ.

  Args:
    system: the "system" of the cases.
    *models: their "model", or the name of the original class or function.
    table: `RUNNERS`, or `MANIFESTS`.
  """

  def register(function: Runner) -> Runner:
    for model in models:
      assert (system, model) not in table, f"{system} {model} is registered twice"
      table[system, model] = function
    return function

  return register


def run(case: Case) -> None:
  """Checks a case by the function that is registered for its model.

  The case's "model" counts first, then the name of the original class, then the
  model's name without what follows in brackets or after a comma.

  Raises:
    NotBuilt: no function is registered.
  """
  system, model = case.meta.get("system"), str(case.meta.get("model"))
  names = (model, case.original, re.split(r" *[(,]", model)[0])
  table = RUNNERS if case.has_arrays else MANIFESTS
  found = next((table[system, n] for n in names if (system, n) in table), None)
  if found is None:
    without = "" if case.has_arrays else ": the case has no arrays"
    raise NotBuilt(f"model {model} of system {system}{without}")
  found(case)
