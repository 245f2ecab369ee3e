"""Triton against goldens: which case is checked by what."""

import golden_navier_stokes
import golden_triton_baselines as baselines
import golden_triton_networks as networks
import golden_triton_numbers as numbers
import golden_triton_others as others
from golden_case import Case


def run(case: Case) -> None:
  """Runs a case of any kind."""
  model = case.meta["model"]
  if model.startswith(golden_navier_stokes.MODEL):
    golden_navier_stokes.run(case)
  elif model in baselines.TWINS:
    baselines.run(case)
  elif model in others.RUNS:
    others.RUNS[model](case)
  else:
    numbers.NUMBERS.get(model, networks.run)(case)
