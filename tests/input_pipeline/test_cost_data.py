"""CoST's data sets, scaler and fluctuation scale are the original's.

The data sets are only compared where STJAX_COST_DATA names their folder.
"""

import pathlib
import sys

import pytest

TESTS = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))  # Test files are no package.

import golden_case  # noqa: E402
import golden_cost_data  # noqa: E402

CASES = sorted((TESTS / "goldens" / "cost").glob("dataset_*.json")) + sorted(
  (TESTS / "goldens" / "cost").glob("scale_*.json")
)


def test_there_are_cases():
  assert len(CASES) == 6


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_a_case_is_repeated(path):
  try:
    golden_cost_data.run(golden_case.Case(path))
  except golden_case.NotBuilt as reason:
    pytest.skip(str(reason))
