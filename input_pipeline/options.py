"""The keys of a data config, with their defaults and their meaning."""

import copy
import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from input_pipeline import errors, stores

# The keys that every data config has besides those of its store. This is their only
# declaration: configs/base.py takes them from here.
COMMON = {
  "store": "",
  "history": 10,  # Frames of the history, which are given.
  "horizon": 10,  # Frames to forecast.
  "stride": 1,  # Frames between the starts of neighbouring windows.
  "normalise": "standard",  # "none", "standard", "range" or "fixed".
  # For normalise="fixed", (x - offset) / scale: one number, or one per variable.
  "offset": (),  # () is 0.
  "scale": (),
  "transform": "identity",  # "identity" or "log1p", before normalising.
  "missing": "error",  # "error", or "mask": missing is 0 and masked.
  # What stands for missing in the fields that the store reads, before anything is
  # computed from them: numbers, or "NAME=number" for one variable. () is only what
  # the file itself declares, and "none" is not even that.
  "missing_value": (),
  # A folder of preference pairs, WORKDIR/preferences/NAME of the run that made
  # them: training reads the windows that have a pair, with its forecasts.
  "pairs": "",
  "augment": (),  # Random symmetries in training; see augment.py.
  # Read with every frame, as whole numbers: "slot_of_day", "day_of_week",
  # "month", "hour_of_day", "day_of_year".
  "calendar": (),
  "slots_per_day": 0,  # 0: by the time step; else counted by frame number.
  # Fields that are known in advance and never forecast, such as winds over an
  # ocean: their names, the path of their store if it is not that of the data, and
  # what stands for missing in them.
  "forcings": {"variables": (), "path": "", "missing_value": ()},
  # Fields without a time axis, such as a land mask or orography: the same of them.
  "static": {"variables": (), "path": "", "missing_value": ()},
  # What is kept of the frames and of the grid; see stores/resample.py.
  "resample": {
    "first": 0,  # The first frame of each sequence that is kept.
    "every": 1,  # Every so many frames are kept.
    "crop": (),  # (first row, stop row, first column, stop column); () is all.
    "size": (),  # (rows, columns) to which the grid is interpolated; () is as it is.
    "rounding": "none",  # Or "uint8": to whole numbers, as OpenCV does with images.
  },
  "statistics": {
    "frames": "all",  # All training frames, or "history": only those given.
    "ddof": 0,  # Deviations divide by the number of values less this.
  },
  "split": {
    "by": "auto",  # Or "time", "sample", "event", "window", "ranges".
    "fractions": (0.7, 0.15, 0.15),  # Train, validation, test.
    "seed": 0,  # The seed of a random split by sample or event.
    # Share of the training events that no training sees: the split "preference".
    "preference": 0.0,
    "boundaries": (),  # First dates of validation and test, by time.
    "ranges": {},  # {split: ((sample id, first or None, stop or None),)}.
  },
  "cache": "auto",  # "auto", "memory", "disk" or "none".
  "memory_limit_gib": 2.0,  # "auto" keeps less than this in memory.
  "loader": {
    "threads": 1,  # Batches made at the same time, in each process.
    "prefetch": 4,  # Batches made ahead.
    "workers": 0,  # Worker processes; 0 reads in this process.
  },
}
# Constructor parameters that build() fills in itself.
_GIVEN = ("self", "cache_dir")


def common() -> dict[str, Any]:
  """The keys that every store reads, with their defaults; a new nested dict."""
  return copy.deepcopy(COMMON)


def store_defaults(name: str) -> dict[str, Any]:
  """The keys of one store and their defaults: its constructor's parameters."""
  parameters = inspect.signature(stores.load(name)).parameters.values()
  return {
    p.name: None if p.default is p.empty else p.default
    for p in parameters
    if p.name not in _GIVEN
  }


def defaults(store: str) -> dict[str, Any]:
  """Every accepted key of a data config with its default.

  Args:
    store: a name of STORES.

  Returns:
    A new nested dict: the common keys and those of the store.

  Raises:
    DataError: if there is no such store.
  """
  return {**common(), "store": store, **store_defaults(store)}


def resolve(data_config: Mapping[str, Any]) -> dict[str, Any]:
  """A data config of plain values, checked and filled up with defaults.

  Args:
    data_config: a dict or ConfigDict; only "store" is required.

  Returns:
    A nested dict with exactly the keys of `defaults`.

  Raises:
    DataError: for an unknown store or key, listing near names.
  """
  given = _plain(data_config)
  if not given.get("store"):
    raise errors.DataError(
      f"data.store is not set; expected one of {', '.join(sorted(stores.STORES))}."
    )
  resolved = defaults(given["store"])
  for key, value in given.items():
    if key not in resolved:
      raise errors.unknown(
        f"key data.{key} for store {given['store']!r}", key, resolved
      )
    if key in COMMON and isinstance(COMMON[key], dict):
      if not isinstance(value, dict):
        raise errors.DataError(
          f"data.{key}={value!r}; expected a dict with the keys "
          f"{', '.join(COMMON[key])}."
        )
      for inner in value:
        if inner not in COMMON[key]:
          raise errors.unknown(f"key data.{key}.{inner}", inner, COMMON[key])
      resolved[key].update(value)
    else:
      resolved[key] = value
  return resolved


def store_options(resolved: Mapping[str, Any]) -> dict[str, Any]:
  """The part of a resolved config that goes to the store's constructor."""
  return {key: resolved[key] for key in store_defaults(resolved["store"])}


def reading(resolved: Mapping[str, Any]) -> dict[str, Any]:
  """What of a resolved config decides which frames a store gives.

  Keys that keep their default are left out of data.resample, so that what was
  prepared before the key was there is still found.
  """
  resample = {
    key: value
    for key, value in resolved["resample"].items()
    if value != COMMON["resample"][key]
  }
  found = {**store_options(resolved), "missing_value": resolved["missing_value"]}
  if found["missing_value"] in ((), None):
    del found["missing_value"]
  return found | ({"resample": resample} if resample else {})


def digest(*parts: Any) -> str:
  """A short name for plain values; other values get another name."""
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
  if hasattr(value, "to_dict"):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {str(key): _plain(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return tuple(_plain(inner) for inner in value)
  return value
