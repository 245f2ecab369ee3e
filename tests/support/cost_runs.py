"""Small runs on sensor data with a daily cycle; for tests."""

import pathlib

import numpy as np

from configs import cost

STEPS, NODES = 240, 6
# Slots of the day that the series below has, by its step of an hour.
SLOTS = 24
TINY = {
  "num_epochs": 1.0,
  "global_batch_size": 16,
  "data.history": 6,
  "data.horizon": 3,
  "evaluation.batch_size": 16,
  "evaluation.figures": 1,
  "evaluation.validation_stride": 4,
  "evaluation.validation_members": 3,
  "evaluation.every_epochs": 1.0,
  "forecast.batch_size": 16,
  "forecast.members": 4,
  "forecast.sampler.steps": 4,
  "log.every_steps": 1,
}
_MEAN = {"node_dim": 4, "embed_dim": 6, "num_layers": 1}


def series(steps: int = STEPS, nodes: int = NODES) -> np.ndarray:
  """Daily cycles with noise that differs from node to node, [T, nodes, 1]."""
  rng = np.random.default_rng(3)
  hour = np.arange(steps)[:, None]
  phase = np.linspace(0, 3, nodes)
  spread = np.linspace(0.2, 2.0, nodes)
  cycle = 10 + 4 * np.sin(2 * np.pi * hour / SLOTS + phase)
  noise = spread * rng.standard_normal((steps, nodes))
  return (cycle + noise)[..., None].astype(np.float32)


def tiny_config(folder: pathlib.Path, stage: str, **changes):
  """A config of configs/cost.py, shrunk, on the series above.

  Args:
    folder: where the data are written; the mean's run is `folder`/mean.
    stage: "mean", "plain", "diffusion" or "gaussian".
    **changes: keys with dots written with two underscores.
  """
  path = folder / "sensors.npy"
  if not path.exists():
    np.save(path, series())
  config = cost.get_config(f"mobile_nj,{stage}")
  values = TINY | {"data.path": str(path)}
  network = {}
  if stage == "mean":
    network = _MEAN
    values["evaluation.validation_members"] = 1
  elif stage != "plain":
    values["frozen.mean.init_from"] = str(folder / "mean")
  if stage in ("plain", "diffusion"):
    network = _MEAN
    values["method.num_steps"] = 5
  if network:
    config.model.calendar_dims = (3, 2)
  values |= {f"model.{k}": v for k, v in network.items()}
  values |= {k.replace("__", "."): v for k, v in changes.items()}
  config.update_from_flattened_dict(values)
  return config
