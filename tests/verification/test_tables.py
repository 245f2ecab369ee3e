"""metrics.json, lead_time.csv and the console table."""

import csv
import json

import numpy as np
import pytest

from input_pipeline.labels import lead_labels
from stjax.metrics import Score
from stjax.verification import tables

VARIABLES = ("sst", "ssh")
LEADS = np.array([6, 12, 18], "timedelta64[h]").astype("timedelta64[ns]")


def _results():
  def scores(offset):
    both = np.arange(6.0).reshape(3, 2) + offset
    return {
      "physical": {
        "mse": Score(
          overall=both.mean(),
          by_lead=both.mean(1),
          by_variable=both.mean(0),
          by_lead_and_variable=both,
        )
      },
      "openstl": {
        "psnr": Score(overall=np.asarray(np.inf), by_lead=np.array([1.0, np.nan, 3.0]))
      },
    }

  return {"forecast": scores(0.0), "persistence": scores(10.0)}


def _keys():
  return dict(variables=VARIABLES, lead_times=LEADS)


def test_metrics_json_is_nested_by_convention_and_score(tmp_path):
  path = tmp_path / "metrics.json"
  tree = tables.metrics_tree(
    _results(), units={"sst": "K"}, about={"samples": 5}, **_keys()
  )
  tables.write_metrics(path, tree)
  tree = json.loads(path.read_text())
  mse = tree["physical"]["mse"]
  assert mse["overall"] == 2.5
  assert mse["by_variable"] == {"sst": 2.0, "ssh": 3.0}
  assert mse["by_lead"] == [0.5, 2.5, 4.5]
  assert mse["by_lead_and_variable"]["ssh"] == [1.0, 3.0, 5.0]
  assert tree["baselines"]["persistence"]["physical"]["mse"]["overall"] == 12.5
  assert tree["variables"] == {"sst": "K", "ssh": ""}
  assert tree["lead_times"] == ["+6 h", "+12 h", "+18 h"]
  assert tree["about"] == {"samples": 5}


def test_values_that_are_not_finite_become_null_with_a_note(tmp_path):
  path = tmp_path / "metrics.json"
  tables.write_metrics(path, tables.metrics_tree(_results(), **_keys()))

  def refuse(name):
    raise AssertionError(f"{name} is no JSON")

  tree = json.loads(path.read_text(), parse_constant=refuse)
  assert tree["openstl"]["psnr"]["overall"] is None
  assert tree["openstl"]["psnr"]["by_lead"] == [1.0, None, 3.0]
  assert "openstl/psnr/overall is inf" in tree["notes"]
  assert "openstl/psnr/by_lead[1] is nan" in tree["notes"]
  assert len(tree["notes"]) == 4


def test_lead_time_csv_has_a_row_per_source_variable_and_lead(tmp_path):
  path = tmp_path / "lead_time.csv"
  tables.write_lead_times(path, _results(), **_keys())
  with path.open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 2 * 3 * 3
  found = {(row["source"], row["variable"], row["step"]): row for row in rows}
  row = found["persistence", "ssh", "2"]
  assert row["lead_time"] == "+12 h"
  assert float(row["physical/mse"]) == 13.0
  assert row["openstl/psnr"] == ""  # One number for both variables.
  row = found["forecast", "all", "3"]
  assert float(row["physical/mse"]) == 4.5
  assert float(row["openstl/psnr"]) == 3.0


def test_a_score_that_only_the_forecast_has_is_a_column(tmp_path):
  results = _results()
  results["forecast"]["planning"] = {"reward_agent": Score(np.float64(0.5))}
  # Sources come in any order, such as the alphabet's.
  results = dict(sorted(results.items(), reverse=True))
  assert next(iter(results)) != "forecast"
  path = tmp_path / "lead_time.csv"
  tables.write_lead_times(path, results, **_keys())
  with path.open() as file:
    rows = list(csv.DictReader(file))
  assert {row["planning/reward_agent"] for row in rows} == {""}


def test_a_single_variable_has_every_score_in_its_own_rows():
  both = np.ones((2, 1))
  results = {
    "forecast": {
      "openstl": {
        "mse": Score(np.float64(1), both[:, 0], both[0], both),
        "psnr": Score(np.float64(20), np.array([30.0, 10.0])),
      }
    }
  }
  rows = tables.lead_time_rows(results, variables=("t",), lead_times=(1, 2))
  assert [row["variable"] for row in rows] == ["t", "t"]
  assert [row["openstl/psnr"] for row in rows] == [30.0, 10.0]
  assert [row["lead_time"] for row in rows] == ["+1", "+2"]


def test_the_console_table_sets_the_forecast_beside_the_baselines():
  text = tables.console_table(_results(), "test split")
  lines = text.splitlines()
  assert lines[0] == "test split"
  assert lines[1].split() == ["forecast", "persistence"]
  assert lines[3].split() == ["physical", "mse", "2.5", "12.5"]
  assert lines[4].split() == ["openstl", "psnr", "inf", "inf"]
  assert max(map(len, lines)) < 80


@pytest.mark.parametrize(
  "leads,expected",
  [
    (np.array([1, 2], "timedelta64[D]"), ["+1 d", "+2 d"]),
    (np.array([5, 60], "timedelta64[m]"), ["+5 min", "+60 min"]),
    (np.array([1500], "timedelta64[ms]"), ["+1.5 s"]),
    ([1, 2, 3], ["+1", "+2", "+3"]),
  ],
)
def test_lead_times_are_labelled_in_the_largest_whole_unit(leads, expected):
  assert lead_labels(leads) == expected


def test_a_null_has_a_reason():
  nan = np.nan
  score = Score(
    overall=np.array(nan),
    by_lead=np.array([nan, nan]),
    by_variable=np.array([1.0, nan]),
    by_lead_and_variable=np.array([[nan, nan], [1.0, nan]]),
  )
  psnr = Score(overall=np.array(1.0), by_variable=np.array([nan, nan]))
  tree = tables.metrics_tree(
    {"forecast": {"physical": {"rmse": score, "psnr": psnr}}},
    variables=["rain", "t"],
    lead_times=[1, 2],
    observed=np.array([[0, 0], [9, 0]]),
    constant=["rain"],
  )
  reasons = tree["reasons"]
  assert set(reasons) == {note.rpartition(" is ")[0] for note in tree["notes"]}
  for path, words in (
    ("rmse/overall", "over all variables, but there is no observation of t in"),
    ("rmse/by_lead[0]", "no observation of rain, t at lead time 1"),
    ("rmse/by_lead[1]", "no observation of t at lead time 2"),
    ("rmse/by_variable/t", "no observation of t in this split"),
    ("rmse/by_lead_and_variable/rain[0]", "no observation of rain at lead time 1"),
    ("psnr/by_variable/rain", "rain has one value only; set evaluation.data_range"),
  ):
    assert words in reasons[f"physical/{path}"]
