"""The stores by name; a store is imported when it is first asked for."""

import importlib

from input_pipeline import errors
from input_pipeline.stores import base

# data.store -> "module:Class".
STORES = {
  "array": "input_pipeline.stores.array:ArrayStore",
  "boiling": "input_pipeline.stores.boiling:BoilingStore",
  "folders": "input_pipeline.stores.folders:FoldersStore",
  "hko7": "input_pipeline.stores.hko7:Hko7Store",
  "meteonet": "input_pipeline.stores.meteonet:MeteonetStore",
  "moving_rain": "input_pipeline.stores.moving_rain:MovingRainStore",
  "navier_stokes": "input_pipeline.stores.navier_stokes:NavierStokesStore",
  "sevir": "input_pipeline.stores.sevir:SevirStore",
  "tfds": "input_pipeline.stores.tfds:TfdsStore",
  "xarray": "input_pipeline.stores.xarray:XarrayStore",
  "year_files": "input_pipeline.stores.year_files:YearFilesStore",
}


def load(name: str) -> type[base.Store]:
  """The class of a store.

  Raises:
    DataError: if there is no store of that name.
  """
  if name not in STORES:
    raise errors.unknown("store (data.store)", name, STORES)
  module, _, attribute = STORES[name].partition(":")
  return getattr(importlib.import_module(module), attribute)
