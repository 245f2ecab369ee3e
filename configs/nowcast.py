"""Nowcasts of rain by SimVP, from simulated rain or from radar.

Run:    python -m stjax.main --config=configs/nowcast.py:moving_rain \\
          --workdir=runs/nowcast
        python -m stjax.main --config=configs/nowcast.py:radar_eu \\
          --config.data.path=radar_eu_5min.nc --workdir=runs/radar_eu

Expect: moving_rain, 2.6 minutes of processor time; on the 30 test sequences
        (persistence in brackets)
        rmse .897 (1.350) mm/h, critical success index at 0.5, 1 and 5 mm/h after
        5 minutes .91, .90, .81 (.83, .80, .69), after 30 minutes .52, .49, .24
        (.37, .30, .13).

A variant is named after the colon:
  moving_rain  Cells that grow, decay and move, simulated on the spot: 30 minutes
               to the next 30, on 32 x 32 cells.
  radar_eu     Rain rates every 5 minutes of three European networks: 20 minutes to
               the next 60, on 128 x 128 cells of 2 km. The file has whole sequences
               of 256 x 256 cells, the splits that they belong to, and cells beyond
               the range of the radars, which count for nothing.
  radar_mrms   Rain rates every 2 minutes in twelve regions of the United States: 8
               minutes to the next 24, on as many cells.
Of the two radar variants only a few steps were run, and no score measured; they are
meant for a GPU.
"""

import ml_collections

from configs import base, simvp, simvp_xarray

VARIANTS = ("moving_rain", "radar_eu", "radar_mrms")


def get_config(variant: str = "moving_rain") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/nowcast.py has no variant {variant!r}; it has {', '.join(VARIANTS)}."
    )
  if variant == "moving_rain":
    c = base.get_config()
    _moving_rain(c)
  else:
    c = simvp_xarray.gridded()
    _radar(c, variant)
  c.method.predict_tendency = True  # It forecasts the change since the newest frame.
  c.global_batch_size = 4
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  c.evaluation.baselines = ("persistence",)
  c.evaluation.conventions = ("physical", "categorical")
  c.evaluation.thresholds = (0.5, 1.0, 5.0)  # In mm/h.
  c.forecast.clip_range = (0.0, None)  # There is no negative rain.
  return c


def _moving_rain(c: ml_collections.ConfigDict) -> None:
  """Simulates the rain, and takes a network that learns within two minutes."""
  c.num_epochs = 4.0
  c.model = simvp.network(
    spatial_features=8, temporal_features=32, temporal_depth=3, mlp_ratio=2.0
  )
  c.data.store = "moving_rain"
  c.data.update(
    num_samples=200,
    num_frames=24,
    image_size=32,
    speed=1.0,  # Of the mean motion, in cells of the grid per frame.
    cells=10.0,  # Rain cells within 64 x 64 cells of the grid at a time.
    lifetime=30.0,  # Mean life of a rain cell, in frames.
    simulation_seed=0,
    history=6,
    horizon=6,
    stride=4,
  )
  c.data.split.by = "sample"
  # Rain moves in any direction.
  c.data.augment = ("flip_h", "flip_w", "transpose")
  c.optimizer.learning_rate = 5e-3


def _radar(c: ml_collections.ConfigDict, variant: str) -> None:
  """Reads the sequences of a file and the splits that it gives them."""
  c.data.update(
    variables=("rain_rate",),
    sample_dim="sample",
    sample_variable="sample_id",
    split_variable="split",
    coarsen=2,
    transform="log1p",
    history=4,
    horizon=12,
  )
  if variant == "radar_eu":
    c.data.time_variable = "valid_time"
    c.data.event_variable = "event"
    # No echo and no radar are not the same.
    c.method.mask_as_input = True
