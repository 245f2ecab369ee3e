"""SimVP on any gridded data that xarray opens, such as netCDF and Zarr.

Run:    python -m stjax.main --config=configs/simvp_xarray.py \\
          --config.data.path=FILE --workdir=runs/mine

Without further settings it takes every variable on the main grid of the file, pads
odd grids, masks what is missing, and trains for a time that does not depend on the
size of the grid. docs/data.md has a table of what comes out for several data sets.
"""

import ml_collections

from configs import base, simvp


def get_config() -> ml_collections.ConfigDict:
  c = gridded()
  c.data.time_dim = ""
  c.data.history = 5
  c.data.horizon = 5  # SimVP forecasts as many frames as it is shown.
  c.global_batch_size = 4
  c.max_points = 3.5e7  # About two and a half minutes on 2 CPU cores.
  # The change since the newest frame is small and easy to learn: a network that
  # has learnt nothing yet forecasts about what persistence does.
  c.method.predict_tendency = True
  c.method.scaled_loss = True  # Variables that change slowly count as much.
  c.method.area_weights = "auto"
  c.method.zero_missing = True  # What was never observed, such as land, stays so.
  c.evaluation.area_weights = "auto"
  c.evaluation.max_points = 2e7
  c.evaluation.figures = 2  # Of each variable, of which there may be many.
  return c


def gridded() -> ml_collections.ConfigDict:
  """Returns SimVP with the keys of gridded data, for configs of known data."""
  c = base.get_config()
  c.num_epochs = 20.0
  c.global_batch_size = 8
  c.model = simvp.network()
  c.method.pad_to_multiple = 2  # SimVP halves the grid, whose sides may be odd.
  c.data.store = "xarray"
  c.data.update(
    path="",  # A netCDF file, a Zarr folder, or a glob of either.
    group="",  # The group of the files that is read; "" is the outermost.
    file_time="",  # Where the files' names hold a time, such as "%Y%m%d%H".
    variables=(),  # Names; "name@level" takes one level only.
    time_dim="time",  # The dimension of time; "" finds it.
    time_variable="",  # The variable of the times, if not the time coordinate.
    step="",  # Time between frames, such as "1h" or "MS", in place of the file's.
    first_time="",  # The date of the first frame; needs step.
    sample_dim="",  # The dimension of independent sequences, if there is one.
    sample_variable="",  # The variable of their names.
    event_variable="",  # The variable of the events that they belong to.
    split_variable="",  # The variable of their splits: "train", "val" or "test".
    spatial_dims=(),  # H and W; () finds lat/lon, latitude/longitude or y/x.
    select=ml_collections.ConfigDict(),  # Parts of dimensions: (first, last).
    coarsen=1,  # Takes means over blocks of this many cells each way.
    missing="mask",
  )
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  return c
