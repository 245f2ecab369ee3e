"""SimVP on any gridded data that xarray opens: netCDF or Zarr.

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
  c.data.store = "xarray"
  c.data.update(
    path="",  # A netCDF file, a Zarr folder, or a glob of either.
    variables=(),  # Names, or "name@level" for one level.
    time_dim="time",
    time_variable="",  # Times of each sequence, if not the time coordinate.
    sample_dim="",  # Dimension of independent sequences, if there is one.
    sample_variable="",  # Their names.
    event_variable="",  # Which event each belongs to.
    split_variable="",  # train, validation or test of each.
    spatial_dims=(),  # H and W; () finds lat/lon, latitude/longitude, y/x.
    select=ml_collections.ConfigDict(),  # Dimension -> (first, last).
    coarsen=1,  # Block mean over so many cells each way.
    missing="mask",
  )
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  return c
