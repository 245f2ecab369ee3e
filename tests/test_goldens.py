"""Parity with the original programs, one test for each golden case.

`STJAX_GOLDENS=DIR pytest tests/test_goldens.py` runs every case under DIR;
without it, the cases in tests/goldens run. A case that is not built here is
skipped by name. The checks are in the package `golden`.
"""

import os
import pathlib

import pytest
from golden import registry
from golden.case import Case, NotBuilt, find

ROOT = pathlib.Path(
  os.environ.get("STJAX_GOLDENS") or pathlib.Path(__file__).parent / "goldens"
)
CASES = list(find(ROOT))
# These are whole networks with their gradients, which take long to compile.
LARGE = (
  "cost/adam_",
  "cost/denoiser_",
  "cost/metrics_",
  "cost/sampling",
  "cost/train_loss",
  "sfp/",
  "simvp/attention_module",
  "simvp/block_",
  "simvp/ga_sub_",
  "simvp/meta_block_",
  "simvp/metrics_",
  "simvp/minimal_",
  "simvp/openstl_",
  "simvp/train_trajectory",
  "syncast/base_train_step",
  "syncast/block_",
  "syncast/context_net",
  "syncast/ddim_sampling",
  "syncast/diffcast",
  "syncast/dpo_loss",
  "syncast/dps_sampling",
  "syncast/manifest",
  "syncast/metrics_",
  "syncast/spo_loss",
  "syncast/two_stage",
  "syncast/unet",
  "triton/cno",
  "triton/dit_",
  "triton/fno2d",
  "triton/fourcastnet",
  "triton/kno2d",
  "triton/mgno",
  "triton/ocean_train_step_",
  "triton/lsm_",
  "triton/metrics",
  "triton/ns_solver",
  "triton/rollout_",
  "triton/simvp",
  "triton/triton_",
  "triton/unet_",
)


def test_there_are_golden_cases():
  assert CASES, f"no golden case under {ROOT} (set STJAX_GOLDENS)"


def case_parameter(name, path):
  marks = [pytest.mark.slow] if name.startswith(LARGE) else []
  return pytest.param(path, id=name, marks=marks)


@pytest.mark.parametrize("path", [case_parameter(*case) for case in CASES])
def test_golden(path):
  try:
    registry.run(Case(path))
  except NotBuilt as reason:
    pytest.skip(f"not built: {reason}")
