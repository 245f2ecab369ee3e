"""Diagrams in metrics.json and as CSV."""

import csv
import json

import numpy as np

from stjax.metrics import Score
from stjax.verification import reports, tables

VARIABLES = ("sst", "ssh")
LEADS = np.array([6, 12], "timedelta64[h]")
DIAGRAMS = {
  "ensemble": {
    "rank_histogram": {
      "rank": np.arange(3),
      "frequency": np.array([0.5, 0.25, 0.25]),
      "frequency_by_lead": np.array([[1.0, 0, 0], [0, 0.5, 0.5]]),
      "frequency_by_variable": np.eye(3)[:2],
    },
    "roc_gt_30": {
      "hit_rate": np.array([0.0, np.nan, 1.0]),
      "area": np.array(0.75),
      "area_by_variable": np.array([0.5, 1.0]),
    },
  }
}


def test_a_csv_has_a_column_for_every_lead_time_and_variable(tmp_path):
  reports.write_diagrams(tmp_path, DIAGRAMS, variables=VARIABLES, lead_times=LEADS)
  names = ("ensemble_rank_histogram.csv", "ensemble_roc_gt_30.csv")
  assert sorted(p.name for p in tmp_path.iterdir()) == [*names]
  histogram, curve = (
    list(csv.DictReader((tmp_path / name).read_text().splitlines())) for name in names
  )
  assert histogram[1] == {
    "rank": "1",
    "frequency": "0.25",
    "frequency +6 h": "0.0",
    "frequency +12 h": "0.5",
    "frequency sst": "0.0",
    "frequency ssh": "1.0",
  }
  # A missing value is an empty cell, and numbers are no columns.
  assert curve == [{"hit_rate": x} for x in ("0.0", "", "1.0")]


def test_metrics_json_has_the_diagrams_beside_the_scores(tmp_path):
  path = tmp_path / "metrics.json"
  results = {"forecast": {"ensemble": {"crps": Score(np.float64(1.5))}}}
  keys = dict(variables=VARIABLES, lead_times=LEADS)
  assert "diagrams" not in tables.metrics_tree(results, **keys)
  tables.write_metrics(path, tables.metrics_tree(results, **keys, diagrams=DIAGRAMS))
  tree = json.loads(path.read_text())
  assert tree["ensemble"]["crps"]["overall"] == 1.5
  diagrams = tree["diagrams"]["ensemble"]
  assert diagrams["rank_histogram"]["rank"] == [0, 1, 2]
  assert diagrams["rank_histogram"]["frequency_by_variable"]["ssh"] == [0, 1, 0]
  assert diagrams["roc_gt_30"]["hit_rate"] == [0, None, 1]
  assert diagrams["roc_gt_30"]["area"] == 0.75
  assert tree["notes"] == []  # An empty bin is nothing to be told about.
