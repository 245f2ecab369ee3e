"""Triton against goldens: which case is checked by what."""

import golden_triton_networks as networks
import golden_triton_numbers as numbers
from golden_case import Case


def run(case: Case) -> None:
  """Runs a case of any kind."""
  numbers.NUMBERS.get(case.meta["model"], networks.run)(case)
