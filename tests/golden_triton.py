"""Triton against goldens: which case is checked by what."""

import golden_navier_stokes
import golden_triton_baselines as baselines
import golden_triton_networks as networks
import golden_triton_numbers as numbers
from golden_case import Case


def run(case: Case) -> None:
  """Runs a case of any kind."""
  if case.meta["model"].startswith(golden_navier_stokes.MODEL):
    golden_navier_stokes.run(case)
    return
  if case.meta["model"] in baselines.TWINS:
    baselines.run(case)
    return
  numbers.NUMBERS.get(case.meta["model"], networks.run)(case)
