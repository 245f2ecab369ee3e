"""Triton against goldens: which case is checked by what."""

import golden_navier_stokes
import golden_triton_baselines as baselines
import golden_triton_baselines_b as baselines_b
import golden_triton_networks as networks
import golden_triton_numbers as numbers
from golden_case import Case


def run(case: Case) -> None:
  """Runs a case of any kind."""
  model = case.meta["model"]
  if model.startswith(golden_navier_stokes.MODEL):
    golden_navier_stokes.run(case)
  elif model in baselines.TWINS:
    baselines.run(case)
  elif model in baselines_b.RUNS:
    baselines_b.RUNS[model](case)
  else:
    numbers.NUMBERS.get(model, networks.run)(case)
