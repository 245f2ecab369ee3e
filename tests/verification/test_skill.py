"""What is said of a forecast beside its baselines."""

import numpy as np
import pytest

from stjax.metrics.base import Score
from stjax.verification import skill

HOURS = np.arange(1, 4) * np.timedelta64(6, "h")


def source(values):
  values = np.asarray(values, float).T  # Given by variable, [C][T].
  score = Score(values.mean(), values.mean(1), values.mean(0), values)
  return {"physical": {"rmse": score}}


def compared(forecast, **baselines):
  results = {"forecast": source(forecast)}
  results |= {name: source(values) for name, values in baselines.items()}
  found = skill.compare(results, variables=["u", "t"], lead_times=HOURS)
  return found, skill.sentence(found, list(baselines))


def test_the_best_baseline_is_the_bar():
  found, said = compared(
    [[1, 2, 3], [1, 2, 3]],
    persistence=[[2, 4, 9], [4, 4, 4]],
    training_mean=[[5, 5, 5], [2, 3, 6]],
  )
  np.testing.assert_allclose(found["ratio"]["u"], [0.5, 0.5, 0.6])
  np.testing.assert_allclose(found["ratio"]["t"], [0.5, 2 / 3, 0.75])
  assert not found["not_better"]
  assert "beats persistence and training_mean" in said
  assert "0.50 to 0.75 times" in said


def test_what_is_not_beaten_is_named_with_its_lead_times_and_baseline():
  found, said = compared(
    [[1, 2, 3], [1, 5, 6]],
    persistence=[[2, 4, 3], [4, 4, 7]],
    training_mean=[[5, 5, 5], [5, 5, 5]],
  )
  assert found["not_better"] == [
    {"variable": "u", "lead_times": ["+18 h"], "baseline": "persistence"},
    {"variable": "t", "lead_times": ["+12 h", "+18 h"], "baseline": "persistence"},
  ]
  assert "does NOT beat" in said
  assert "u at +18 h (persistence); t at +12 h, +18 h (persistence)" in said


def test_what_was_never_observed_is_not_compared():
  nothing = [np.nan] * 3
  found, said = compared([[1, 1, 1], nothing], persistence=[[2, 2, 2], nothing])
  assert not found["not_better"] and np.isnan(found["ratio"]["t"]).all()
  assert "0.50 to 0.50" in said
  found, said = compared([nothing, nothing], persistence=[nothing, nothing])
  assert "nothing was observed" in said


def test_two_perfect_forecasts_are_no_win():
  found, _ = compared([[0, 0, 0], [1, 1, 1]], persistence=[[0, 0, 0], [2, 2, 2]])
  assert [one["variable"] for one in found["not_better"]] == ["u"]


@pytest.mark.parametrize("others", [{}, {"persistence": {"other": {}}}])
def test_without_a_baseline_nothing_is_said(others):
  results = {"forecast": source([[1, 1, 1]] * 2)} | others
  assert skill.compare(results, variables=["u", "t"], lead_times=HOURS) is None
