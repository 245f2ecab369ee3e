"""Triton on gridded fields of the ocean and the atmosphere.

For long forecasts the network is fed its own output; see docs/rollouts.md.

Run:    python -m stjax.main --config=configs/triton.py:sst \\
          --config.data.path=sst_ersst5_monthly.nc --workdir=runs/sst
        python -m stjax.main --config=configs/triton.py:currents \\
          --config.data.path=ocean_globcurrent_daily.nc --workdir=runs/currents
        python -m stjax.main --config=configs/triton.py:atmosphere \\
          --config.data.path=atmos_heldsuarez_6h.nc --workdir=runs/atmosphere

Expect: the tables of docs/triton.md.

Variants:
  sst         Anomalies of the monthly sea-surface temperature of the globe (NOAA
              ERSST 5), 6 months to 6.
  currents    Daily surface currents (ESA GlobCurrent, the Agulhas), 5 days to 5;
              forecasts go on to 10 days.
  atmosphere  13 fields every 6 h (Held-Suarez, in the layout of WeatherBench2).
              The network learns one frame first and then four in a row;
              forecasts go on to 3 days.
"""

import ml_collections
from ml_collections import config_dict

from configs import simvp_xarray

VARIANTS = ("sst", "currents", "atmosphere")
_FIELDS = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind")
_LEVELS = (250, 500, 850)


def _ranges(validation: tuple, train: tuple, test: tuple):
  """Returns data.split.ranges of a file with one series.

  Args:
    validation: the first frame and the stop frame of that split.
    train: the same of the training split.
    test: the same of the test split.
  """
  return config_dict.create(
    validation=(("0", *validation),), train=(("0", *train),), test=(("0", *test),)
  )


def get_config(variant: str = "sst") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/triton.py has no variant {variant!r}; it has {', '.join(VARIANTS)}."
    )
  c = simvp_xarray.gridded()
  c.model = ml_collections.ConfigDict(
    dict(
      name="triton",
      spatial_features=16,
      temporal_features=32,
      spatial_depth=4,
      temporal_depth=3,
      core_first="attention",
      drop_path=0.1,
    )
  )
  c.method = ml_collections.ConfigDict(
    dict(
      name="regression",
      predict_tendency=True,  # Only the change is left to learn.
      predict_anomaly=False,
      zero_missing=False,
      mask_as_input=False,
      pad_to_multiple=4,
      area_weights="latitude",
      curriculum=(),
      push_forward=0,
      remat=False,
      input_noise=0.0,
    )
  )
  # The climatology has no seasons: one record is a year long, one has none.
  c.data.calendar = ("hour_of_day",)
  c.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.05)
  c.optimizer.schedule.update(name="cosine", warmup=20.0)
  c.checkpoint.update(best_metric="physical/rmse", best_mode="min")
  c.evaluation.update(
    area_weights="latitude",
    conventions=("physical", "weather"),
    baselines=("persistence", "climatology"),
    figures=2,
  )
  if variant == "sst":
    c.num_epochs = 16.0
    c.global_batch_size = 4
    c.data.update(variables=("sst",), history=6, horizon=6, calendar=("month",))
    # The test has the 44 months from 2017 on, validation the first 18 months.
    c.data.split.ranges = _ranges((0, 18), (18, 84), (84, None))
    c.method.update(
      predict_anomaly=True,
      zero_missing=True,
      mask_as_input=True,
      input_noise=0.01,  # This is about a quarter of the usual anomaly.
    )
    c.model.update(spatial_features=8, temporal_features=16, temporal_depth=2)
    c.evaluation.baselines = (
      "climatology",
      "anomaly_persistence",
      "damped_anomaly_persistence",
    )
  if variant == "currents":
    c.num_epochs = 20.0
    c.data.update(variables=("u", "v"), history=5, horizon=5)
    # The test has the last 110 days, as the description of the data suggests.
    c.data.split.ranges = _ranges((0, 40), (40, 256), (256, None))
    c.method.update(zero_missing=True, mask_as_input=True)
    c.evaluation.horizon = c.forecast.horizon = 10
  if variant == "atmosphere":
    c.num_epochs = 30.0
    c.data.update(
      variables=tuple(f"{f}@{level}" for f in _FIELDS for level in _LEVELS)
      + ("surface_pressure",),
      missing="error",
      history=1,
      horizon=4,
    )
    c.data.split.ranges = _ranges((280, 320), (0, 280), (320, None))
    c.model.update(spatial_features=32, temporal_features=64)
    c.method.update(curriculum=((0, 1), (20, 4)), remat=True)
    c.evaluation.horizon = c.forecast.horizon = 12
  return c
