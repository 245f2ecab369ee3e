"""Calendar columns: which slot of the day, weekday or month a frame is.

Counted from the dates where the store has any. With a step alone they are
counted from the frame number, as if frame 0 of every sequence were Monday
00:00 (and, with a step of calendar months, January).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from input_pipeline import errors, windows
from input_pipeline.stores import base, moments

COLUMNS = ("slot_of_day", "day_of_week", "month", "hour_of_day", "day_of_year")
_SIZES = {"day_of_week": 7, "month": 12, "hour_of_day": 24, "day_of_year": 366}
# Microseconds for dates, nanoseconds for a step: neither overflows 64 bits.
_DAY = {"dates": moments.DAY, "step": 86400 * 10**9}
_WEEKDAY_OF_ZERO = {"dates": 3, "step": 0}  # 1970-01-01 was a Thursday.
_NEEDS = {  # What a column can be counted from.
  "slot_of_day": ("dates", "step"),
  "day_of_week": ("dates", "step"),
  "hour_of_day": ("dates", "step"),
  "month": ("dates", "months"),
  "day_of_year": ("dates",),
}
_HINTS = {
  "slot_of_day": "a fixed data.step, dates or data.slots_per_day",
  "day_of_week": "a fixed data.step, dates or data.slots_per_day",
  "hour_of_day": "a fixed data.step or dates",
  "month": "dates (data.step with data.first_time) or data.step='MS'",
  "day_of_year": "dates (data.step with data.first_time)",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Calendar:
  """The columns of a store's frames.

  Attributes:
    store: the frames.
    columns: names out of COLUMNS.
    sizes: number of values of each column; they are 0, 1, ... size - 1.
    kind: "dates", "step", "months" or "none": what is counted from.
    step: one step in microseconds for dates, nanoseconds for "step", months for
      "months".
    slots_per_day: if positive, slot_of_day and day_of_week are counted by
      frame number n: n % slots_per_day and (n // slots_per_day) % 7.
    model_calendar: cftime's name of the dates' calendar, "" for the civil one.
  """

  store: base.Store
  columns: tuple[str, ...]
  sizes: tuple[int, ...]
  kind: str
  step: int
  slots_per_day: int
  model_calendar: str = ""

  def frames(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """The columns of frames start..stop-1: int32 [T, K], K of `columns`."""
    number = np.arange(start, stop, dtype=np.int64)
    if self.kind == "dates":
      counted = self.store.times(sequence)[start:stop]
    else:
      counted = number * self.step
    result = np.empty((len(number), len(self.columns)), np.int32)
    for k, column in enumerate(self.columns):
      result[:, k] = self._column(column, number, counted)
    return result

  def _column(self, column, number, counted) -> np.ndarray:
    if self.slots_per_day and column == "slot_of_day":
      return number % self.slots_per_day
    if self.slots_per_day and column == "day_of_week":
      return number // self.slots_per_day % 7
    if column == "month" and self.kind == "months":
      return counted % 12
    if column in ("month", "day_of_year"):
      return self._date(column, counted)
    day = _DAY[self.kind]
    if column == "day_of_week":
      return (counted // day + _WEEKDAY_OF_ZERO[self.kind]) % 7
    if column == "hour_of_day":
      return counted % day // (day // 24)
    return counted % day // self.step

  def _date(self, column, counted) -> np.ndarray:
    if self.model_calendar:
      part = "month" if column == "month" else "dayofyr"
      dates = moments.to_dates(counted, self.model_calendar)
      return np.array([getattr(date, part) - 1 for date in dates], np.int64)
    dates = counted.astype("datetime64[us]")
    if column == "month":
      return dates.astype("datetime64[M]").astype(np.int64) % 12
    years = dates.astype("datetime64[Y]").astype("datetime64[D]")
    return (dates.astype("datetime64[D]") - years).astype(np.int64)


def columns(given: str | Sequence[str]) -> tuple[str, ...]:
  """The columns that data.calendar names, which may be "a, b".

  Raises:
    DataError: an unknown or repeated column.
  """
  names = base.as_names(given)
  for name in names:
    if name not in COLUMNS:
      raise errors.unknown("column (data.calendar)", name, COLUMNS)
  if len(set(names)) < len(names):
    raise errors.DataError(f"data.calendar={names}; expected every column once.")
  return names


def make(
  store: base.Store, given: str | Sequence[str], slots_per_day: int = 0
) -> Calendar:
  """The calendar of a store.

  Args:
    store: the frames.
    given: names out of COLUMNS (data.calendar), or "a, b"; may be empty.
    slots_per_day: data.slots_per_day; 0 counts from dates or step.

  Raises:
    DataError: for an unknown or repeated column, or one that the store's
      dates or step cannot give; names the key.
  """
  names = columns(given)
  if not isinstance(slots_per_day, int) or slots_per_day < 0:
    raise errors.DataError(
      f"data.slots_per_day={slots_per_day!r}; expected a whole number from 0."
    )
  counted = ("slot_of_day", "day_of_week") if slots_per_day else ()
  if counted and not set(counted) & set(names):
    raise errors.DataError(
      f"data.slots_per_day={slots_per_day} is for slot_of_day and "
      f"day_of_week, but data.calendar={names} has neither. Set it to 0."
    )
  kind, step = _kind(store)
  for column in names:
    if column not in counted and kind not in _NEEDS[column]:
      have = {
        "none": "neither dates nor a step",
        "step": "only a step",
        "months": "only a step of months",
      }[kind]
      raise errors.DataError(
        f"data.calendar has {column!r}, which needs {_HINTS[column]}; the "
        f"data have {have}."
      )
  sizes = dict(_SIZES)
  if "slot_of_day" in names:
    sizes["slot_of_day"] = slots_per_day or _slots(kind, step)
  return Calendar(
    store,
    names,
    tuple(sizes[c] for c in names),
    kind,
    step,
    slots_per_day,
    store.space.attrs.get("calendar", ""),
  )


def _kind(store) -> tuple[str, int]:
  """What a store's frames can be counted from, and one step of it."""
  axes = [store.times(i) for i in range(store.num_sequences)]
  if not any(axis is None for axis in axes):
    return "dates", windows.common_step(axes) or 0
  if store.step is None:
    return "none", 0
  if np.datetime_data(store.step)[0] == "M":
    return "months", int(store.step.astype(np.int64))
  return "step", int(store.step.astype("timedelta64[ns]").astype(np.int64))


def _slots(kind: str, step: int) -> int:
  """Slots of a day by the step."""
  day = _DAY[kind]
  if not step or day % step:
    seconds = step * 86400 / day
    raise errors.DataError(
      "data.calendar has 'slot_of_day', which needs a fixed step that "
      f"divides a day, but frames are {seconds:g} seconds apart. Change "
      "data.step, set data.slots_per_day, or leave it out."
    )
  return day // step
