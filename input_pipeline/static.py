"""Static fields, the same for every window: a land mask, orography."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import errors, forcings, normalise, options, stores, training
from input_pipeline.stores import base, resample


@dataclasses.dataclass(frozen=True, eq=False)
class Static:
  """The static fields of a data set.

  Attributes:
    fields: float32 [H, W, S], in units of their own standard deviations over
      the grid from their own means; 0 where missing.
    statistics: of the fields over the grid.
  """

  fields: np.ndarray
  statistics: normalise.Statistics


def make(
  data: base.Store, resolved: Mapping[str, Any], statistics: normalise.Statistics | None
) -> Static | None:
  """The static fields of a data config; None where it names none.

  Args:
    data: the store of the data themselves.
    resolved: the data config.
    statistics: of the fields, if known; else they are computed.

  Raises:
    DataError: for settings that cannot be used, or fields that change in time
      or lie on another grid than the data.
  """
  changed = forcings.config_of("static", resolved)
  if changed is None:
    return None
  read = getattr(stores.load(resolved["store"]), "static_fields", None)
  if read is None:
    raise errors.DataError(
      f"data.static cannot be used: store {resolved['store']!r} reads no fields "
      "without a time axis. Use store 'xarray'."
    )
  if resolved["augment"]:
    raise errors.DataError(
      f"data.augment={tuple(resolved['augment'])} moves every example in a way of "
      "its own, but data.static is one field for all of them: data with fixed "
      "places have none of these symmetries. Leave one of the two out."
    )
  with forcings.within("data.static"):
    fields, space = read(options.store_options(changed))
    part = resample.Resampling(**changed["resample"] | {"rounding": "none"})
    part.check(space)
    fields = part.fields(fields[None], "data.static")[0]
    space = part.coordinates(space)
    forcings.check_grid(space, data.space)
    if statistics is None:
      statistics = normalise.compute(
        [fields[None]],
        changed["variables"],
        kind="standard",
        transform="identity",
        where="the grid",
        key="data.static",
      )
  training.check_statistics(statistics, changed["variables"], "data.static.variables")
  normalise.forward_in_place(statistics, fields)
  return Static(np.where(np.isfinite(fields), fields, np.float32(0)), statistics)
