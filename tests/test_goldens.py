"""Parity with the original programs, one test a golden case.

`STJAX_GOLDENS=DIR pytest tests/test_goldens.py` runs every case under DIR;
without it, the cases in tests/goldens. A case whose system or model is not
built here is skipped by name.
"""

import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))  # Test files are no package.

import golden_case  # noqa: E402
import golden_cost  # noqa: E402
import golden_sfp  # noqa: E402
import golden_simvp_networks  # noqa: E402
import golden_simvp_numbers  # noqa: E402
import golden_triton  # noqa: E402

ROOT = pathlib.Path(os.environ.get("STJAX_GOLDENS") or HERE / "goldens")
CASES = list(golden_case.find(ROOT))
# Whole networks with their gradients: mostly time to compile.
LARGE = (
  "simvp/minimal_model_train",
  "simvp/openstl_",
  "simvp/train_trajectory",
  "triton/cno",
  "triton/dit_",
  "triton/fno2d",
  "triton/fourcastnet",
  "triton/kno2d",
  "triton/mgno",
  "triton/ocean_train_step_",
  "triton/rollout_kuroshio",
  "triton/simvp",
  "triton/triton_",
  "triton/unet_",
)


def run_simvp(case: golden_case.Case) -> None:
  if case.meta["model"] in golden_simvp_numbers.NUMBERS:
    golden_simvp_numbers.run(case)
  else:
    golden_simvp_networks.run(case)


SYSTEMS = {
  "cost": golden_cost.run,
  "sfp": golden_sfp.run,
  "simvp": run_simvp,
  "triton": golden_triton.run,
}


def test_there_are_golden_cases():
  assert CASES, f"no golden case under {ROOT} (set STJAX_GOLDENS)"


def case_parameter(name, path):
  marks = [pytest.mark.slow] if name.startswith(LARGE) else []
  return pytest.param(path, id=name, marks=marks)


@pytest.mark.parametrize("path", [case_parameter(*case) for case in CASES])
def test_golden(path):
  case = golden_case.Case(path)
  system, model = case.meta.get("system"), case.meta.get("model")
  if system not in SYSTEMS:
    pytest.skip(f"system {system} (model {model}) is not built")
  if not case.has_arrays:
    pytest.skip(f"{path.name} has no arrays: a manifest, not a case")
  try:
    SYSTEMS[system](case)
  except golden_case.NotBuilt as reason:
    pytest.skip(f"not built: {reason}")
