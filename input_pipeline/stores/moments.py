"""Moments: times as whole microseconds since 1970, in the data's own calendar.

`Store.times` holds moments: int64 microseconds since 1970-01-01 00:00, counted in the
calendar that `Store.space.attrs["calendar"]` names, or in the civil (Gregorian) one
where it names none. A model calendar has no leap days, or 360 days, so that its
frames stay equally spaced and its dates stay its own.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from input_pipeline import errors

SECOND = 10**6
DAY = 86400 * SECOND
MISSING = np.iinfo(np.int64).min  # As numpy counts "not a time".
_EPOCH = "microseconds since 1970-01-01"
_UNITS = (DAY, 3600 * SECOND, 60 * SECOND, SECOND, 1000, 1)  # Round steps.
_LENGTHS = {
  "week": 7 * DAY,
  "day": DAY,
  "d": DAY,
  "hour": 3600 * SECOND,
  "hr": 3600 * SECOND,
  "h": 3600 * SECOND,
  "minute": 60 * SECOND,
  "min": 60 * SECOND,
  "second": SECOND,
  "sec": SECOND,
  "s": SECOND,
  "millisecond": 1000,
  "msec": 1000,
  "ms": 1000,
  "microsecond": 1,
  "microsec": 1,
  "nanosecond": 1e-3,
}
_MONTHS = {"month": 1, "mon": 1, "year": 12, "yr": 12, "common_year": 12}
_NAMES = {
  "": "standard",
  "gregorian": "standard",
  "standard": "standard",
  "proleptic_gregorian": "proleptic_gregorian",
  "365_day": "noleap",
  "noleap": "noleap",
  "366_day": "all_leap",
  "all_leap": "all_leap",
  "360_day": "360_day",
  "julian": "julian",
}
_SINCE = re.compile(r"\s*(\w+)\s+since\s+(.+)", re.IGNORECASE)
_DIGITS = re.compile(
  r"\s*(?:(?:day|month|year)s?\s+as\s+)?(%Y(?:%m(?:%d)?)?|YYYY(?:MM(?:DD)?)?)(\.%f)?\s*$",
  re.IGNORECASE,
)
_DATE = re.compile(
  r"\s*([+-]?\d+)(?:-(\d{1,2})(?:-(\d{1,2})(?:[T _](\d{1,2})(?::(\d{2})"
  r"(?::(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?Z?\s*$"
)
# The switch of the standard calendar from Julian to Gregorian dates.
_SWITCH = int(np.datetime64("1582-10-15", "us").astype(np.int64))
# netCDF's own fill values of doubles and floats, where nothing was written.
_FILLS = (9.969209968386869e36, float(np.float32(9.969209968386869e36)))
# Stamps may be off by this share of the step, and by this much.
_SHARE, _MOST = 0.01, 3 * SECOND


def speaks_of_time(units: object) -> bool:
  """Whether units are those of a time axis: "days since 1850-01-01", "%Y%m%d"."""
  return bool(_SINCE.match(str(units)) or _DIGITS.match(str(units)))


def is_duration(units: object) -> bool:
  """Whether units are a length of time alone: "days", "months"."""
  word = str(units).strip().lower()
  return any(w in _LENGTHS or w in _MONTHS for w in (word, word.removesuffix("s")))


def of_dates(dates: np.ndarray) -> np.ndarray:
  """Moments of dates.

  Args:
    dates: datetime64, or cftime objects of one calendar, None where missing.

  Returns:
    int64 of the same shape, MISSING where there is no time.
  """
  dates = np.asarray(dates)
  if dates.dtype.kind == "M":
    return dates.astype("datetime64[us]").astype(np.int64)
  import cftime  # Only needed for model calendars.

  moments = np.full(dates.shape, MISSING)
  known = np.array([hasattr(d, "calendar") for d in dates.flat], bool)
  known = known.reshape(dates.shape)
  if known.any():
    some = dates[known]
    moments[known] = cftime.date2num(some, _EPOCH, some[0].calendar)
  return moments


def to_dates(moments: np.ndarray, calendar: str = "") -> np.ndarray:
  """Dates of moments.

  Args:
    moments: int64.
    calendar: cftime's name of a model calendar, "" for the civil one.

  Returns:
    datetime64[ns] where these reach (1678 to 2261), else datetime64[us]; in a model
    calendar cftime objects. NaT or None where missing.
  """
  moments = np.asarray(moments, np.int64)
  if not calendar:
    dates = moments.astype("datetime64[us]")
    limits = np.array(["1678-01-01", "2262-01-01"], "datetime64[us]")
    known = dates[~np.isnat(dates)]
    fits = ((known > limits[0]) & (known < limits[1])).all()
    return dates.astype("datetime64[ns]") if fits else dates
  import cftime  # Only needed for model calendars.

  dates = np.full(moments.shape, None, object)
  known = moments != MISSING
  if known.any():
    dates[known] = cftime.num2date(
      moments[known], _EPOCH, calendar, only_use_cftime_datetimes=True
    )
  return dates


def parse(text: object, calendar: str = "") -> int:
  """The moment of a date such as "2001", "2001-02-30" or "2001-02-03T06:00".

  Raises:
    ValueError: there is no such date in the calendar.
  """
  return span(text, calendar)[0]


def span(text: object, calendar: str = "") -> tuple[int, int]:
  """The first moment of a date, and that after its last: "2001" is the whole year.

  Args:
    text: year and perhaps month, day, hour, minute and second, also as YYYYMMDD.
    calendar: as for `to_dates`.

  Raises:
    ValueError: there is no such date in the calendar.
  """
  words = re.sub(r"^\s*(\d{4})(\d{2})(\d{2})\s*$", r"\1-\2-\3", str(text))
  found = _DATE.match(words)
  if not found:
    raise ValueError(f"{text!r} is no date")
  given = [int(part) for part in found.groups()[:6] if part is not None]
  parts = given + [0, 1, 1, 0, 0, 0][len(given) :]
  fraction = int((found[7] or "").ljust(6, "0"))
  if calendar:
    first = int(of_dates(np.array([_date(calendar, *parts, fraction)]))[0])
  else:
    year, month, day, *clock = parts
    date = f"{year:04d}-{month:02d}-{day:02d}T" + ":".join(f"{p:02d}" for p in clock)
    first = int(np.datetime64(date, "us").astype(np.int64)) + fraction
  if len(given) < 3:
    later = parts[0] * 12 + parts[1] - 1 + (12 if len(given) == 1 else 1)
    return first, int(month_start(np.array([later]), calendar)[0])
  lengths = (DAY, 3600 * SECOND, 60 * SECOND, SECOND)
  return first, first + (1 if found[7] else lengths[len(given) - 3])


def texts(dates: np.ndarray) -> list[str]:
  """Dates in words: "2001-02-30", or "2001-02-03 06:00" where any has a time of day.

  Args:
    dates: [N] datetime64 or cftime objects, as in a data set's labels.
  """
  dates = np.asarray(dates)
  if dates.dtype.kind == "M":
    dates = dates.astype("datetime64[us]")
  found = [str(date).replace("T", " ").removesuffix(".000000") for date in dates]
  for ending in (":00", " 00:00"):
    if not all(text.endswith(ending) for text in found):
      break
    found = [text.removesuffix(ending) for text in found]
  return found


def calendar_of(name: object) -> str:
  """cftime's name of a calendar attribute.

  Raises:
    ValueError: it is no calendar of the CF conventions.
  """
  known = str(name or "").strip().lower()
  if known not in _NAMES:
    raise ValueError(
      f"the calendar {name!r} is none of {', '.join(sorted(filter(None, _NAMES)))}"
    )
  return _NAMES[known]


def decode(
  values: np.ndarray, units: str, calendar: object = ""
) -> tuple[np.ndarray, str, float]:
  """Moments of a time variable's numbers.

  Args:
    values: whole or floating-point numbers; NaN, NaT and the fill value of netCDF
      stand for missing.
    units: "hours since 1900-01-01", "months since 1850-01-01" (calendar months,
      whole or half ones), or "day as %Y%m%d".
    calendar: the calendar attribute; "" is the standard one.

  Returns:
    moments: int64 of the same shape, MISSING where missing.
    calendar: cftime's name, "" where all dates are civil ones.
    resolution: how far rounding in the file may have moved a stamp, microseconds.

  Raises:
    ValueError: the units or the numbers give no dates.
  """
  name = calendar_of(calendar)
  values = np.asarray(values)
  if values.dtype.kind == "f":
    missing = ~np.isfinite(values) | np.isin(values, _FILLS)
  else:
    missing = values == MISSING
  known = values[~missing]
  digits, since = _DIGITS.match(units), _SINCE.match(units)
  if digits:
    found, resolution = _from_digits(known, digits[1], name)
  elif since:
    found, resolution = _from_reference(known, since[1].lower(), since[2], name)
  else:
    raise ValueError(f"the units {units!r} name no first time ('... since DATE')")
  moments = np.full(values.shape, MISSING)
  moments[~missing] = found
  civil = name == "proleptic_gregorian" or (
    name == "standard" and (found >= _SWITCH).all()
  )
  if name == "proleptic_gregorian":
    name = "standard"
  return moments, "" if civil else name, resolution


def decode_texts(values: Sequence[object]) -> np.ndarray:
  """Moments of dates that are written out, as "2005-08-28_00:00:00".

  Raises:
    ValueError: one is no date.
  """
  words = [v.decode() if isinstance(v, bytes) else str(v) for v in values]
  words = [w.strip().rstrip("\0").rstrip("Z").replace("_", "T") for w in words]
  return np.array([parse(word) if word else MISSING for word in words], np.int64)


def snapped(moments: np.ndarray, resolution: float = 0.0) -> np.ndarray:
  """A time axis without the jitter that rounding and clocks give its stamps.

  If all stamps lie at multiples of one round step, but for 1 % of the step and at
  most 3 seconds (or what `resolution` allows), they are moved there; else floating-
  point stamps are rounded to the unit that they miss by no more than their resolution.

  Args:
    moments: int64 [L], increasing; none missing.
    resolution: how far the file's numbers may be off, in microseconds.

  Returns:
    int64 [L].
  """
  steps = np.diff(moments)
  if len(steps) and (steps > 0).all():
    equal = (steps == steps[0]).all()
    if equal and not resolution:
      return moments
    usual = float(np.median(steps))
    tolerance = resolution
    if not equal:
      tolerance = max(resolution, min(_SHARE * usual, _MOST))
    for guess in (usual, (moments[-1] - moments[0]) / len(steps)):
      for unit in _UNITS:
        step = round(guess / unit) * unit
        # A step that is no round one, such as 1/30 s, must not drift.
        allowed = tolerance if unit > 1 else min(tolerance, resolution + 1)
        if step and abs(step - guess) <= 2 * allowed < step:
          found = _on_steps(moments, step, allowed, resolution)
          if found is not None:
            return found
  return _rounded(moments, resolution)


def step(text: str, key: str = "data.step") -> np.timedelta64 | None:
  """A time between frames, as pandas writes it; None for "".

  Returns:
    timedelta64[ns]; calendar months as timedelta64[M].

  Raises:
    DataError: names the key.
  """
  if not text:
    return None
  try:
    offset = pd.tseries.frequencies.to_offset(text)
    months = _months_of(offset)
    if months:
      found = np.timedelta64(months, "M")
    else:
      found = pd.Timedelta(text).to_timedelta64().astype("timedelta64[ns]")
    if found.astype(np.int64) <= 0:
      raise ValueError("not positive")
  except ValueError as error:
    raise errors.DataError(
      f"{key}={text!r} is no time between frames ({error}). Expected "
      "e.g. '10min', '1h', '1D' or 'MS' (month starts)."
    ) from error
  return found


def axis(first: str, every: str, length: int, where: str) -> np.ndarray:
  """The moments of frames from data.first_time on, data.step apart.

  Args:
    first: data.first_time, a civil date.
    every: data.step.
    length: number of frames.
    where: the data, for the message.

  Returns:
    int64 [length].

  Raises:
    DataError: they give no time axis.
  """
  try:
    dates = pd.date_range(first, periods=length, freq=every)
  except ValueError as error:
    raise errors.DataError(
      f"data.step={every!r} with data.first_time={first!r} gives no time axis "
      f"for {where} ({error}). Expected e.g. '10min', '1h', '1D' or 'MS' "
      "(month starts), and a date like '1850-01-01'."
    ) from error
  return of_dates(dates.values)


def months(moments: np.ndarray, calendar: str = "") -> tuple[np.ndarray, ...]:
  """The calendar month of each moment.

  Returns:
    number: int64, months since January of the year 0.
    start: moments at which the months begin.
    stop: moments at which the next months begin.
  """
  if not calendar:
    found = moments.astype("datetime64[us]").astype("datetime64[M]")
    start, stop = (
      m.astype("datetime64[us]").astype(np.int64) for m in (found, found + 1)
    )
    return found.astype(np.int64) + 1970 * 12, start, stop
  number = np.array([d.year * 12 + d.month - 1 for d in to_dates(moments, calendar)])
  number = number.astype(np.int64)
  return number, month_start(number, calendar), month_start(number + 1, calendar)


def month_start(number: np.ndarray, calendar: str = "") -> np.ndarray:
  """The moments at which months begin.

  Args:
    number: int64, months since January of the year 0.
    calendar: of the moments.
  """
  if not calendar:
    found = (number - 1970 * 12).astype("datetime64[M]")
    return found.astype("datetime64[us]").astype(np.int64)
  distinct, where = np.unique(number, return_inverse=True)
  dates = [_date(calendar, n // 12, n % 12 + 1) for n in distinct.tolist()]
  return of_dates(np.array([*dates, None], object))[:-1][where].reshape(number.shape)


def _date(calendar: str, year: int, month: int = 1, day: int = 1, *time: int):
  import cftime  # Only needed for model calendars.

  return cftime.datetime(year, month, day, *time, calendar=calendar)


def _months_of(offset) -> int:
  """The calendar months of a pandas offset; 0 for other lengths of time."""
  each = {
    pd.offsets.MonthBegin: 1,
    pd.offsets.MonthEnd: 1,
    pd.offsets.QuarterBegin: 3,
    pd.offsets.QuarterEnd: 3,
    pd.offsets.YearBegin: 12,
    pd.offsets.YearEnd: 12,
  }
  return offset.n * each.get(type(offset), 0)


def _from_reference(values, word, reference, calendar):
  """Moments of numbers that count from a reference date."""
  import cftime  # The reader of reference dates, with their time zones.

  word = word if word in _LENGTHS or word in _MONTHS else word.removesuffix("s")
  if word not in _LENGTHS and word not in _MONTHS:
    raise ValueError(f"{word!r} is no unit of time")
  try:
    first = cftime.num2date(
      0, f"days since {reference}", calendar, only_use_cftime_datetimes=True
    )
    origin = int(of_dates(np.array([first]))[0])
  except (ValueError, OverflowError) as error:
    raise ValueError(
      f"{reference!r} is no date of the calendar {calendar!r}: {error}"
    ) from error
  length = _LENGTHS.get(word)
  if length is None and calendar == "360_day":  # All its months are alike.
    length = 30 * DAY * _MONTHS[word]
  if length is None and word == "common_year":
    length = 365 * DAY
  if length is None:
    return _from_months(values, _MONTHS[word], first, origin, calendar), 0.0
  largest = float(np.abs(values.astype(np.float64)).max(initial=0))
  if largest * length > 2**62:
    raise ValueError(f"{largest:g} {word}s are beyond all dates")
  if values.dtype.kind in "iu" and length >= 1:
    return origin + values.astype(np.int64) * length, 0.0
  exact = values.astype(np.float64)
  whole = np.floor(exact)
  if length < 1:
    return origin + np.rint(exact * length).astype(np.int64), 0.0
  found = whole.astype(np.int64) * length
  found += np.rint((exact - whole) * length).astype(np.int64)
  if values.dtype.kind != "f" or (exact == whole).all():
    return origin + found, 0.0
  # Numbers of 32 bits are often kept in 64.
  single = values.dtype.itemsize < 8 or (exact == exact.astype(np.float32)).all()
  kind = np.float32 if single else np.float64
  return origin + found, float(np.spacing(kind(largest))) / 2 * length + 1


def _from_months(values, months_each, first, origin, calendar):
  """Moments of whole or half calendar months since a reference date."""
  exact = values.astype(np.float64) * months_each
  whole = np.floor(exact)
  half = bool(values.size) and (exact - whole == 0.5).all()
  if not half and (exact != whole).any():
    raise ValueError(
      f"{exact[exact != whole][0] / months_each:g} is no whole number of months or "
      "years, which have no fixed length"
    )
  if first.day > 28 or (half and first.day > 1):
    raise ValueError(f"months are counted from {first}, a day not all of them have")
  number = whole.astype(np.int64) + first.year * 12 + first.month - 1
  civil = "" if calendar == "proleptic_gregorian" else calendar
  start = month_start(number, civil)
  into = origin - int(
    month_start(np.array([first.year * 12 + first.month - 1]), civil)[0]
  )
  # Half a month stands for its middle; the 16th 00:00, as in months of 30 days.
  return start + into + (15 * DAY if half else 0)


def _from_digits(values, form, calendar):
  """Moments of numbers whose digits are dates, as 20200131.5."""
  exact = values.astype(np.float64)
  whole = np.floor(exact)
  if values.dtype.kind == "f" and values.dtype.itemsize < 8:
    if (whole >= 2**24).any():
      raise ValueError("32-bit numbers do not hold eight digits, so days are lost")
  parts = len(form) // 2 if "%" in form else len(form) // 2 - 1
  if parts < 3 and (whole != exact).any():
    raise ValueError("fractions of months and years have no fixed length")
  number, found = whole.astype(np.int64), []
  for digits in number.tolist():
    year, rest = divmod(digits, 100 ** (parts - 1))
    month, day = divmod(rest, 100) if parts == 3 else (rest, 1)
    try:
      date = _date(calendar, year, month if parts > 1 else 1, day)
    except ValueError as error:
      raise ValueError(f"{digits} is no date: {error}") from error
    found.append(date)
  moments = of_dates(np.array([*found, None], object))[:-1]
  fraction = np.rint((exact - whole) * DAY).astype(np.int64)
  resolution = 0.0
  if fraction.any():
    resolution = float(np.spacing(exact.max())) / 2 * DAY + 1
  return moments + fraction, resolution


def _on_steps(moments, step, tolerance, resolution):
  """The stamps moved to multiples of a step, or None where they do not fit."""
  number = np.rint((moments - moments[0]) / step).astype(np.int64)
  rest = moments - moments[0] - number * step
  spread = (rest.max() - rest.min()) / 2
  if spread > tolerance or (np.diff(number) < 1).any():
    return None
  origin = moments[0] + int(rest.min() + rest.max()) // 2
  # The origin is known no better than the stamps.
  allowed = max(resolution, spread) + 2
  for unit in _UNITS:
    near = round(int(origin) / unit) * unit
    if abs(near - origin) <= allowed:
      return near + number * step
  return origin + number * step


def _rounded(moments, resolution):
  """Stamps of floating-point numbers, rounded to the unit that they mean."""
  if resolution:
    for unit in _UNITS:
      near = (moments + unit // 2) // unit * unit
      allowed = resolution if unit < SECOND else max(resolution, 1000)
      if np.abs(near - moments).max(initial=0) <= allowed < unit / 2:
        return near
  return moments
