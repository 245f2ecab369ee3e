"""SimVP on any gridded data that xarray opens, such as netCDF and Zarr.

Run:    python -m stjax.main --config=configs/simvp_xarray.py \\
          --config.data.path=FILE --config.data.variables=NAME \\
          --workdir=runs/mine
"""

import ml_collections

from configs import base, simvp


def get_config() -> ml_collections.ConfigDict:
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
