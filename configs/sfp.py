"""SFP: a world model of codes, and a forecaster that learns from what it imagines.

Run:    python -m stjax.main --config=configs/sfp.py:navier_stokes,world \\
          --workdir=runs/sfp/navier_stokes_world

and so on: each stage prints the command of the next one in the end. A variant is
SET,STAGE. The stages of a set, in order:

  SET,world          a vector-quantised autoencoder, which imagines futures
  SET,agent          the forecaster, trained on observations: the warm start
  SET,self_training  the forecaster goes on with the best of its imagined futures

SET is navier_stokes (decaying turbulence, simulated on the spot), radar_eu or sst
(give --config.data.path of the file), or weather (69 fields on 180 x 360 cells in
files <year>_norm.nc, in the published sizes, which need a GPU or more). The small sets
take minutes for each stage. docs/sfp.md has what was measured.

Source: Wu et al. 2025, "Spatiotemporal Forecasting as Planning" (arXiv 2510.04020).
"""

import ml_collections
from ml_collections import config_dict

from configs import base, simvp_navier_stokes, syncast, triton

SETS = ("navier_stokes", "radar_eu", "sst", "weather")
STAGES = ("world", "agent", "self_training")
VARIANTS = tuple(f"{name},{stage}" for name in SETS for stage in STAGES)
_FOLDER = "runs/sfp"
_RAIN = (0.5, 1.0, 5.0)  # In mm/h.


def _navier_stokes() -> ml_collections.ConfigDict:
  c = simvp_navier_stokes.get_config()
  c.data.update(
    num_samples=48, num_frames=40, frame_spacing=0.1, history=4, horizon=4, stride=4
  )
  c.data.split.fractions = (0.75, 0.125, 0.125)
  c.model = config_dict.create(name="fno", features=24, modes_h=12, modes_w=7, depth=3)
  c.method = config_dict.create(name="regression", predict_tendency=True)
  c.evaluation.conventions = ("physical", "spectral")
  return c


def _radar_eu() -> ml_collections.ConfigDict:
  c = syncast.get_config("radar_eu,base")
  c.data.split.preference = 0.0
  # The agent is SimVP, as on these data without a world model.
  c.model = config_dict.create(
    name="simvp",
    spatial_features=16,
    temporal_features=64,
    spatial_depth=2,
    temporal_depth=2,
    mlp_ratio=4.0,
  )
  c.method = config_dict.create(name="regression", predict_tendency=True)
  c.evaluation.update(
    conventions=("physical", "categorical"), thresholds=_RAIN, validation_members=1
  )
  c.forecast.members = 1
  c.prefer.update(name="pairs")
  return c


def _sst() -> ml_collections.ConfigDict:
  return triton.get_config("sst")


def _weather() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.data.store = "year_files"
  c.data.update(
    path="",  # The folder of the files.
    file_pattern="{year}_norm.nc",
    array="atmosphere_variables",
    variables=(),  # Numbers of the variables; () takes all.
    time_steps=(),
    train_years=tuple(range(1980, 2018)),
    validation_years=(2018,),
    test_years=(2019, 2020, 2021),
    normalise="none",  # The files are normalised.
    missing="mask",
    history=1,
    horizon=1,
  )
  c.model = config_dict.create(
    name="simvp",
    spatial_features=64,
    temporal_features=512,
    spatial_depth=4,
    temporal_depth=4,
    remat=True,
  )
  c.global_batch_size = 8
  c.optimizer.learning_rate = 1e-3
  return c


_SET = {
  "navier_stokes": _navier_stokes,
  "radar_eu": _radar_eu,
  "sst": _sst,
  "weather": _weather,
}
_REWARDS = {
  # Short waves are what a forecast of least square error loses.
  "navier_stokes": "spectral_error",
  "radar_eu": "csi",
  "sst": "ssim",
  "weather": "ssim",
}


def _world(c: ml_collections.ConfigDict, name: str) -> None:
  """The world model in place of the forecaster."""
  published = name == "weather"
  c.method = config_dict.create(
    name="world_model",
    candidates=10,
    vq_weight=0.1,
    commitment_cost=0.25,
    decay=0.99,
    assignment="nearest",
    initial="data",
    dead_below=0.5,
    skip_source="condition",
    skip_dropout=0.1,
  )
  c.model = config_dict.create(
    name="vq",
    features=256 if published else 32,
    depth=2,
    codes=1024 if published else 256,
    padding_mode="circular" if name == "navier_stokes" else "zeros",
    remat=published,
  )
  # All its scores are of reconstructions.
  c.evaluation.update(conventions=("physical",), horizon=0)
  c.checkpoint.update(best_metric="reconstruction/error", best_mode="min")
  c.ema_decay = 0.0
  c.optimizer.update(name="adam", learning_rate=1e-3, weight_decay=0.0, clip_norm=0.0)
  if published:
    c.num_epochs = 1000.0
    c.global_batch_size = 3  # For each device, as published.
    c.optimizer.schedule.update(
      name="step", per="epoch", decay_every=50.0, decay_rate=0.2
    )
  else:
    c.optimizer.learning_rate = 2e-3
    c.num_steps = 400
    c.optimizer.schedule.update(name="cosine", warmup=0.0, warmup_learning_rate=0.0)
    c.optimizer.schedule.final_learning_rate = 0.0


def _self_training(c: ml_collections.ConfigDict, name: str) -> None:
  """The forecaster of `c` goes on as the agent of a world model."""
  turbulence = name == "navier_stokes"
  agent = c.method.to_dict()
  agent.pop("curriculum", None)
  c.method = ml_collections.ConfigDict(
    dict(
      name="self_training",
      agent=agent,
      reward=_REWARDS[name],
      thresholds=_RAIN if name == "radar_eu" else (),
      reward_options={"spectral_error": {"band": "high"}} if turbulence else {},
      candidates=10,
      depth=1,
      width=0,
      mix=0.5,
      own_forecast=False,
      truth=False,
      warm_up=0.0,
    )
  )
  c.optimizer.update(learning_rate=1e-4)
  c.optimizer.schedule.update(name="constant", warmup=0.0)
  c.checkpoint.update(best_metric="planning/reward_agent", best_mode="max")
  c.frozen = config_dict.create(world=dict(init_from=f"{_FOLDER}/{name}_world"))
  c.init_from = f"{_FOLDER}/{name}_agent"
  if name == "weather":
    c.num_epochs = 100.0
  else:
    c.num_steps = 200


def get_config(variant: str = "navier_stokes,world") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/sfp.py has no variant {variant!r}; it is SET,STAGE, with SET of"
      f" {', '.join(SETS)} and STAGE of {', '.join(STAGES)}."
    )
  name, stage = variant.split(",")
  c = _SET[name]()
  c.evaluation.update(every_epochs=0.0, every_steps=0)
  c.checkpoint.update(every_epochs=0.0, every_steps=0)
  if name == "weather":
    c.evaluation.every_epochs = c.checkpoint.every_epochs = 1.0
  else:
    c.evaluation.every_steps = c.checkpoint.every_steps = 100
    c.num_steps = 400
  c.checkpoint.update(best_metric="physical/rmse", best_mode="min")
  command = f"python -m stjax.main --config=configs/sfp.py:{name}"
  path = "" if name == "navier_stokes" else " --config.data.path={config.data.path}"
  if stage == "world":
    _world(c, name)
    c.next_command = f"{command},agent{path} --workdir={_FOLDER}/{name}_agent"
  elif stage == "agent":
    c.next_command = (
      f"{command},self_training{path} --config.init_from={{workdir}}"
      f" --config.frozen.world.init_from={_FOLDER}/{name}_world"
      f" --workdir={_FOLDER}/{name}"
    )
  else:
    _self_training(c, name)
  return c
