"""Nowcasts of rain by SimVP: 4 frames to 12.

Run:    python -m stjax.main --config=configs/nowcast.py:moving_rain \\
          --workdir=runs/nowcast
"""

import ml_collections

from configs import base, simvp, simvp_xarray

VARIANTS = ("moving_rain", "radar_eu", "radar_mrms")


def get_config(variant: str = "moving_rain") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/nowcast.py has no variant {variant!r}; it has {', '.join(VARIANTS)}."
    )
  c = base.get_config() if variant == "moving_rain" else simvp_xarray.get_config()
  c.num_epochs = 3.0
  c.global_batch_size = 4
  c.model = simvp.network(
    spatial_features=8, temporal_features=32, temporal_depth=3, mlp_ratio=2.0
  )
  c.method.predict_tendency = True  # It forecasts the change since the newest frame.
  c.data.update(history=4, horizon=12, transform="log1p")
  c.optimizer.learning_rate = 5e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  c.evaluation.baselines = ("persistence",)
  c.forecast.clip_range = (0.0, None)  # There is no negative rain.
  if variant == "moving_rain":
    c.data.store = "moving_rain"
    c.data.update(history=6, horizon=6, transform="identity")
    c.data.update(
      num_samples=200,
      num_frames=24,
      image_size=32,
      speed=1.0,  # Of the mean motion, in cells per frame.
      cells=10.0,  # Rain cells within 64 x 64 grid cells at a time.
      lifetime=18.0,  # Mean life of a rain cell, in frames.
      simulation_seed=0,
    )
    c.data.stride = 4
    c.data.split.by = "sample"
    c.data.augment = ("flip_h", "flip_w", "transpose")
    return c
  c.data.variables = ("rain_rate",)
  return c
