"""Weights that the original program trained score here what they score there.

Needs CoST's data and the weights of docs/cost.md; skipped without them.
"""

import json
import os
import subprocess
import sys

import pytest
from support import cost_data

pytestmark = pytest.mark.slow


def command(*arguments):
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  subprocess.run([sys.executable, "-m", *arguments], check=True, env=environment)


# Of all test windows; specified to four digits.
@pytest.mark.parametrize(
  ("name", "files", "weights", "mae", "rmse"),
  [
    ("los_speed", ["Los_Speed.npy"], "Los_Speed", 4.1188, 7.5838),
    ("sst", ["SST.npy", "SST_ERA5.npy"], "SST", 0.72840, 0.93075),
  ],
)
def test_the_original_mean_scores_the_same(tmp_path, name, files, weights, mae, rmse):
  data = [cost_data.find(file) for file in files]
  torch = cost_data.find(f"upstream_trained/{weights}_det.npz")
  if torch is None or None in data:
    pytest.skip("needs the data sets and weights of CoST (STJAX_COST_DATA)")
  config = [
    f"--config=configs/cost.py:{name},mean,released",
    f"--config.data.path={','.join(map(str, data))}",
    "--config.evaluation.figures=0",
    f"--workdir={tmp_path / 'run'}",
  ]
  command("stjax.convert", f"--torch={torch}", *config)
  command("stjax.main", "--mode=evaluate", *config)
  scores = json.loads((tmp_path / "run/evaluation/metrics.json").read_text())
  assert scores["cost"]["mae"]["overall"] == pytest.approx(mae, abs=6e-5)
  assert scores["cost"]["rmse"]["overall"] == pytest.approx(rmse, abs=6e-5)
