"""Data for training and verification: any store, windows, batches.

`build(data_config, split, batch_size=...)` gives batches in numpy together
with what labels them: statistics of the training split, coordinates, names
and times. Nothing here knows of networks or devices.
"""

from input_pipeline.climatology import cell_index, climatological_quantile, climatology
from input_pipeline.errors import DataError
from input_pipeline.loader import Split, build
from input_pipeline.normalise import Statistics, forward, inverse
from input_pipeline.options import defaults
from input_pipeline.stores import STORES
from input_pipeline.training import training_series

__all__ = [
  "STORES",
  "DataError",
  "Split",
  "Statistics",
  "build",
  "cell_index",
  "climatological_quantile",
  "climatology",
  "defaults",
  "forward",
  "inverse",
  "training_series",
]
