"""What makes a forecast labelled: coordinates, units, names and times."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from input_pipeline import windows
from input_pipeline.stores import base, moments

_SECONDS = {"d": 86400, "h": 3600, "min": 60, "s": 1}


def coordinates(store: base.Store, horizon: int) -> xr.Dataset:
  """The template of a forecast.

  Args:
    store: the data.
    horizon: frames of the forecast.

  Returns:
    0-d NaN variables, one a channel, with their attributes; coordinate
    lead_time [horizon] and the store's spatial coordinates and attributes. Lead
    times are timedelta64[ns]; where frames are calendar months or years apart,
    whole numbers with attrs["units"] "months" or "years"; without dates or a step,
    or where steps differ, the number of the frame. So initial time plus lead time is
    the valid time, wherever there are units.
  """
  steps = np.arange(1, horizon + 1)
  axes = [store.times(i) for i in range(store.num_sequences)]
  step = store.step
  attrs = {"long_name": "time since the last frame of the history"}
  if step is None and not any(axis is None for axis in axes):
    step = windows.constant_step(axes, store.space.attrs.get("calendar", ""))
    usual = windows.common_step(axes)
    if step is None and usual is not None:
      attrs["comment"] = (
        f"steps are not all equal, the most common one is {usual / moments.SECOND:g} "
        "s; exact times are in valid_time"
      )
    elif usual is not None and any(
      len(windows.segments(axis, usual)) > 1 for axis in axes
    ):
      attrs["comment"] = "there are gaps in time; no forecast goes over one"
  if step is None:
    lead_time = steps
    attrs["long_name"] = "frames since the last frame of the history"
  elif np.datetime_data(step)[0] == "M":  # Months have no length in seconds.
    months = int(step.astype(np.int64))
    attrs["units"] = "months" if months % 12 else "years"
    lead_time = steps * (months if months % 12 else months // 12)
    attrs["long_name"] = f"{attrs['units']} since the last frame of the history"
  else:
    lead_time = steps * step.astype("timedelta64[ns]")
  template = xr.Dataset(
    {
      variable.name: ((), np.float32(np.nan), dict(variable.attrs))
      for variable in store.variables
    },
    coords={"lead_time": ("lead_time", lead_time, attrs)},
  )
  space = store.space
  template = template.assign_coords(space.coords)
  template.attrs = dict(space.attrs)
  return template


def labels(store: base.Store, cut: windows.Windows, history: int) -> xr.Dataset:
  """Names and times of the windows.

  Args:
    store: the data.
    cut: the windows of one split.
    history: frames given.

  Returns:
    On dimension "sample": sample_id (unique), start (first frame number) and,
    with a time axis, init_time (of the last history frame) and valid_time
    [sample, lead_time]. They are datetime64[ns], or datetime64[us] before 1678 or
    after 2261; in a model calendar they are cftime objects, which xarray writes with
    their calendar.
  """
  sequence, start = cut.sequence, cut.start
  names = {i: store.sample_id(i) for i in np.unique(sequence).tolist()}
  several = len(names) < len(sequence)
  ids = [
    f"{names[i]}/{frame:05d}" if several else names[i]
    for i, frame in zip(sequence.tolist(), start.tolist(), strict=True)
  ]
  result = xr.Dataset(
    {
      "sample_id": ("sample", np.array(ids, dtype=str)),
      "start": ("sample", start, {"long_name": "first frame of the history"}),
    }
  )
  if store.times(0) is not None:
    # The last frame of the history and those after it.
    known = np.empty((len(start), cut.length - history + 1), np.int64)
    offsets = np.arange(history - 1, cut.length)
    for i in names:
      mine = sequence == i
      known[mine] = store.times(i)[start[mine][:, None] + offsets]
    distinct, where = np.unique(known, return_inverse=True)
    dates = moments.to_dates(distinct, store.space.attrs.get("calendar", ""))
    dates = dates[where.reshape(known.shape)]
    result["init_time"] = ("sample", dates[:, 0])
    result["valid_time"] = (("sample", "lead_time"), dates[:, 1:])
  return result


def lead_labels(lead_times: Sequence | xr.DataArray) -> list[str]:
  """Returns short labels such as "+3 h" or "+1 month", or "+3" for plain steps.

  Args:
    lead_times: [T] timedelta64, or whole steps, which count what the attribute
      "units" names if it is an array with attributes. Time is given in the largest
      unit of days, hours, minutes and seconds that divides them all.
  """
  unit = str(getattr(lead_times, "attrs", {}).get("units", ""))
  values = np.asarray(lead_times)
  if values.dtype.kind != "m":
    if unit not in ("months", "years"):
      return [f"{value:+g}" for value in values.tolist()]
    ones = {1: unit.removesuffix("s")}
    return [f"{value:+g} {ones.get(value, unit)}" for value in values.tolist()]
  seconds = values.astype("timedelta64[ns]").astype(np.int64) / 1e9
  unit = next((u for u, size in _SECONDS.items() if (seconds % size == 0).all()), "s")
  return [f"{second / _SECONDS[unit]:+g} {unit}" for second in seconds]
