"""The registry of functions that check cases, by the cases' system and model."""

import re
from collections.abc import Callable

from golden.case import Case, NotBuilt

Runner = Callable[[Case], None]
RUNNERS: dict[tuple[str, str], Runner] = {}


def runner(system: str, *models: str) -> Callable[[Runner], Runner]:
  """Registers a function that checks the cases of some models.

  The function takes a `Case`. It raises `NotBuilt` if a case has an option that
  the project does not have, and AssertionError if numbers differ.

  Args:
    system: the "system" of the cases.
    *models: their "model", or the name of the original class or function.
  """

  def register(function: Runner) -> Runner:
    for model in models:
      assert (system, model) not in RUNNERS, f"{system} {model} is registered twice"
      RUNNERS[system, model] = function
    return function

  return register


def run(case: Case) -> None:
  """Checks a case by the function that is registered for its model.

  The case's "model" counts first, then the name of the original class, then the
  model's name without what follows in brackets or after a comma.

  Raises:
    NotBuilt: no function is registered, or the case has no arrays.
  """
  system, model = case.meta.get("system"), str(case.meta.get("model"))
  names = (model, case.original, re.split(r" *[(,]", model)[0])
  found = next((RUNNERS[system, n] for n in names if (system, n) in RUNNERS), None)
  if found is None:
    raise NotBuilt(f"model {model} of system {system}")
  if not case.has_arrays:
    raise NotBuilt(f"model {model} of system {system}: the case has no arrays")
  found(case)
