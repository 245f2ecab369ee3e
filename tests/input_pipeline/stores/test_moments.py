"""Times of all kinds: units, calendars, jitter, missing stamps, and their labels."""

import cftime
import numpy as np
import pytest
import xarray as xr

import input_pipeline
from input_pipeline import errors, labels
from input_pipeline.stores import base, grid, moments
from input_pipeline.stores.xarray import XarrayStore


def dataset(values, units, calendar="standard", dtype=None):
  """Undecoded; the field tells the number of its frame."""
  attrs = {"units": units, "calendar": calendar} if units else {}
  values = np.asarray(values, dtype)
  field = np.arange(len(values), dtype="f4")[:, None, None] + np.zeros((1, 2, 3), "f4")
  data = xr.Dataset({"t": (("time", "y", "x"), field)})
  data.coords["time"] = ("time", values, attrs)
  return data


def save(folder, *given, name="a.nc"):
  """A file of `dataset`; returns the path."""
  dataset(*given).to_netcdf(folder / name, engine="h5netcdf")
  return str(folder / name)


def read(*given):
  """Moments and calendar of `dataset`, as stores read it."""
  data = grid.decoded(dataset(*given))
  return grid.times(data, "time", "", ""), grid.calendar(data, "time")


def build(path, which="train", **options):
  config = {"store": "xarray", "path": path, "variables": ("t",)}
  config |= {"history": 1, "horizon": 2, "split": {"fractions": (1.0, 0.0, 0.0)}}
  return input_pipeline.build(config | options, which, batch_size=1)


def leads(split):
  return labels.lead_labels(split.coordinates.lead_time)


HOURS = np.arange(60)


@pytest.mark.parametrize(
  ("values", "units", "calendar", "dtype", "first", "step"),
  [
    # Hours as rounded days, in 64 and in 32 bits, and 32 bits kept in 64.
    (np.round(738841 + HOURS / 24, 6), "days since 1-1-1", "standard", "f8",
     "2023-11-16", 3600),
    (8000 + HOURS / 24, "days since 2000-01-01", "standard", "f4", "2021-11-26", 3600),
    ((8000 + HOURS / 24).astype("f4"), "days since 2000-01-01", "standard", "f8",
     "2021-11-26", 3600),
    (0.5 + HOURS / 48, "days since 2000-01-01", "noleap", "f4", "2000-01-01T12", 1800),
    (HOURS / 10, "seconds since 2020-01-01", "standard", "f8", "2020-01-01", 0.1),
    (HOURS * 40, "milliseconds since 2020-01-01", "standard", "i4", "2020-01-01", 0.04),
    (HOURS * 250000, "nanoseconds since 2020-01-01", "standard", "i8", "2020-01-01",
     0.00025),
    (HOURS, "weeks since 2020-01-01", "standard", "i4", "2020-01-01", 604800),
    (HOURS, "h since 2020-01-01 00:00 +02:00", "gregorian", "i2", "2019-12-31T22",
     3600),
    # A clock that is up to 2 seconds off.
    (HOURS * 300 + np.tile([0, 2, -1], 20), "seconds since 2020-01-01", "", "i4",
     "2020-01-01", 300),
  ],
)  # fmt: skip
def test_stamps_are_rounded_to_their_step(values, units, calendar, dtype, first, step):
  found, own = read(values, units, calendar, dtype)
  expected = moments.parse(first, own) + HOURS * round(step * 10**6)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ("values", "units", "calendar", "dtype", "expected"),
  [
    ([0, 1, 2, 14], "months since 1850-01-01", "standard", "i4",
     ["1850-01-01", "1850-02-01", "1850-03-01", "1851-03-01"]),
    ([0.5, 1.5, 2.5], "months since 1850-01-01", "gregorian", "f4",
     ["1850-01-16", "1850-02-16", "1850-03-16"]),
    ([0, 1, 2], "years since 1999-07-15", "standard", "f8",
     ["1999-07-15", "2000-07-15", "2001-07-15"]),
    ([0.5, 1.5], "months since 1850-01-01", "360_day", "f8",
     ["1850-01-16", "1850-02-16"]),
    ([0, 1], "months since 2001-02-01", "noleap", "i4", ["2001-02-01", "2001-03-01"]),
    ([20200131.5, 20200201.5], "day as %Y%m%d.%f", "proleptic_gregorian", "f8",
     ["2020-01-31T12", "2020-02-01T12"]),
    ([20200229, 20200301], "day as %Y%m%d", "standard", "i4",
     ["2020-02-29", "2020-03-01"]),
    ([20010230, 20010301], "day as %Y%m%d.%f", "360_day", "f8",
     ["2001-02-30", "2001-03-01"]),
    ([202011, 202012, 202101], "month as %Y%m.%f", "standard", "f8",
     ["2020-11-01", "2020-12-01", "2021-01-01"]),
    ([0, 1], "days since 2001-02-30", "360_day", "i4", ["2001-02-30", "2001-03-01"]),
    ([58, 59], "days since 2000-01-01", "noleap", "i4", ["2000-02-28", "2000-03-01"]),
    ([59, 60], "days since 2001-01-01", "all_leap", "i4", ["2001-02-29", "2001-03-01"]),
    ([0, 1], "days since 1900-02-28", "julian", "i4", ["1900-02-28", "1900-02-29"]),
    ([0, 1], "days since 1582-10-04", "standard", "i4", ["1582-10-04", "1582-10-15"]),
    ([0, 1], "days since 0001-01-01", "proleptic_gregorian", "i4",
     ["0001-01-01", "0001-01-02"]),
    ([0, 24], "hours since 2500-02-28", "standard", "i4", ["2500-02-28", "2500-03-01"]),
    ([0, 1], "days since 0001-01-01", "standard", "f8", ["0001-01-01", "0001-01-02"]),
  ],
)  # fmt: skip
def test_units_and_calendars_give_their_own_dates(
  values, units, calendar, dtype, expected
):
  times, own = read(values, units, calendar, dtype)
  assert (not own) == (
    calendar in ("standard", "gregorian", "proleptic_gregorian")
    and (expected[0] > "1582-10-15" or calendar == "proleptic_gregorian")
  )
  assert times.tolist() == [moments.parse(date, own) for date in expected]
  found = moments.texts(moments.to_dates(times, own))
  assert [text[:10] for text in found] == [date[:10] for date in expected]


@pytest.mark.parametrize(
  ("values", "units", "calendar", "dtype", "words"),
  [
    ([0.0, 1.3, 2], "months since 1850-01-01", "standard", "f8",
     "'time'.*months since 1850-01-01.*1.3 is no whole number.*data.step.*first_time"),
    ([0, 1, 2], "months since 1850-01-31", "standard", "f8", "day not all of them"),
    ([20200131, 20200230], "day as %Y%m%d", "standard", "i4", "20200230 is no date"),
    ([20200131, 20200201], "day as %Y%m%d.%f", "standard", "f4", "32-bit"),
    ([0, 1, 2], "days since 2001-02-30", "standard", "i4", "'2001-02-30' is no date"),
    ([0, 1, 2], "days since 2001-02-03", "lunar", "i4", "calendar 'lunar'"),
    ([0, 1, 2], "moons since 2001-02-03", "standard", "i4", "'moon' is no unit"),
    (738841 + HOURS / 24, "days since 1-1-1", "standard", "f4", "only .* s apart"),
    ([0, 1, 2, 5], "days", "standard", "i4", "'days'.*not equally.*data.first_time"),
    ([20200130, 20200131, 20200201], "", "", "i4", "no units.*not equally.*data.step"),
    ([0, np.nan, 2], "days since 2001-01-01", "standard", "f8",
     "'time' has a missing time stamp .NaT. at frame 1 of 3.*select.time=0,1.*step"),
  ],
)  # fmt: skip
def test_times_that_cannot_be_used_are_named(
  tmp_path, values, units, calendar, dtype, words
):
  path = save(tmp_path, values, units, calendar, dtype)
  with pytest.raises(errors.DataError, match=words) as caught:
    XarrayStore(path, variables=("t",))
  assert path in str(caught.value) and "cannot open" not in str(caught.value)
  # The remedy that the message names.
  store = XarrayStore(path, variables=("t",), step="6h", first_time="2001-01-01")
  first = moments.parse("2001-01-01")
  hours = np.arange(len(values)) * 6 * 3600 * moments.SECOND
  np.testing.assert_array_equal(store.times(0), first + hours)
  store = XarrayStore(path, variables=("t",), step="MS")
  assert store.times(0) is None and store.step == np.timedelta64(1, "M")


@pytest.mark.parametrize("units", ["days", ""])
def test_a_time_without_a_first_date_is_said_and_counts_frames(
  tmp_path, units, monkeypatch
):
  said = []
  monkeypatch.setattr(base, "say_once", lambda level, text: said.append(text))
  path = save(tmp_path, np.arange(5), units)
  store = XarrayStore(path, variables=("t",))
  assert store.times(0) is None and store.length(0) == 5
  assert len(said) == 1
  for word in (path, "'time'", "data.step", "data.first_time", units):
    assert word in said[0]


def test_missing_stamps_at_the_end_end_the_sequence(tmp_path):
  units = "minutes since 2020-01-01"
  stamps = np.full((3, 6), np.nan)
  for event, length in enumerate((4, 6, 3)):
    stamps[event, :length] = event * 1440 + 5 * np.arange(length)
  data = xr.Dataset(
    {
      "t": (("event", "frame", "y", "x"), np.zeros((3, 6, 2, 2), "f4")),
      "valid": (("event", "frame"), stamps, {"units": units, "calendar": "noleap"}),
    }
  )
  data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
  path = str(tmp_path / "a.nc")
  store = XarrayStore(path, variables=("t",), sample_dim="event")
  assert [store.length(i) for i in range(3)] == [4, 6, 3]
  assert store.space.attrs["calendar"] == "noleap"
  split = build(path, sample_dim="event", split={"fractions": (1.0, 0.0, 0.0)})
  assert split.num_examples == 2 + 4 + 1 and leads(split) == ["+5 min", "+10 min"]
  assert str(split.labels.valid_time.values[-1, -1]) == "2020-01-03 00:10:00"
  store = XarrayStore(save(tmp_path, [0, 60, np.nan], units, name="b.nc"), ("t",))
  assert store.length(0) == 2 == len(store.times(0))


MONTHS = np.arange("1999-11", "2002-04", dtype="datetime64[M]")
START, STOP = (m.astype("datetime64[h]").astype(int) for m in (MONTHS, MONTHS + 1))


@pytest.mark.parametrize(
  ("hours", "expected"),
  [
    (START, ["+1 month", "+2 months"]),
    (START + 14 * 24 + 6, ["+1 month", "+2 months"]),
    (STOP - 24, ["+1 month", "+2 months"]),
    (STOP - 1, ["+1 month", "+2 months"]),
    ((START + STOP) // 2, ["+1 month", "+2 months"]),
    (START[::3], ["+3 months", "+6 months"]),
    (START[::12], ["+1 year", "+2 years"]),
    (STOP[::12] - 24, ["+1 year", "+2 years"]),
    (np.delete(START, 9), ["+1 month", "+2 months"]),
    (np.arange(30) * 30 * 24, ["+30 d", "+60 d"]),
    (np.arange(30) * 24, ["+1 d", "+2 d"]),
    (np.cumsum([10, 10, 11] * 8) * 24, ["+1", "+2"]),
    ([0, 6, 12, 18, 48, 54, 60, 66], ["+6 h", "+12 h"]),
  ],
)
def test_lead_time_from_the_start_is_the_valid_time(tmp_path, hours, expected):
  path = save(tmp_path, hours, "hours since 1970-01-01")
  split = build(path)
  assert leads(split) == expected
  lead, named = split.coordinates.lead_time, split.labels
  unit = lead.attrs.get("units")
  for start, valid in zip(named.init_time.values, named.valid_time.values, strict=True):
    if lead.dtype.kind == "m":
      np.testing.assert_array_equal(valid, start + lead.values)
    elif unit:
      count = lead.values * {"months": 1, "years": 12}[unit]
      months = start.astype("datetime64[M]") + count
      np.testing.assert_array_equal(valid.astype("datetime64[M]"), months)


def test_a_model_calendar_keeps_its_dates_in_splits_and_labels(tmp_path):
  path = save(tmp_path, np.arange(720), "days since 2000-01-01", "360_day")
  cut = {"by": "time", "boundaries": ("2000-12-30", "2001-02-30")}
  test = build(path, "test", split=cut, calendar=("month", "day_of_year"))
  assert isinstance(test.labels.init_time.values[0], cftime.Datetime360Day)
  assert str(test.labels.init_time.values[0]) == "2001-02-30 00:00:00"
  assert test.coordinates.attrs["calendar"] == "360_day"
  batch = next(iter(test.batches))
  assert batch["calendar"][0].tolist() == [[1, 59], [2, 60], [2, 61]]
  assert batch["inputs"].shape[1] == 1 and leads(test) == ["+1 d", "+2 d"]
  written = test.labels.drop_vars("sample_id").to_netcdf()
  with xr.open_dataset(written, engine="h5netcdf", decode_times=False) as raw:
    assert raw.init_time.attrs["calendar"] == "360_day"
    assert raw.valid_time.attrs["units"].endswith("since 2001-03-01 00:00:00.000000")
  with pytest.raises(errors.DataError, match="boundaries=.*calendar '360_day'"):
    build(path, split={"by": "time", "boundaries": ("2000-12-31", "2001-02-30")})
  part = XarrayStore(path, ("t",), select={"time": ("2000-02-29", "2000-03")})
  assert part.length(0) == 2 + 30 and part.read(0, 0, 1)[0, 0, 0, 0] == 58


def test_dates_beyond_nanoseconds_are_labelled(tmp_path):
  far = build(save(tmp_path, np.arange(9), "days since 2500-01-01", "standard"))
  assert str(far.labels.valid_time.values[0, 0])[:10] == "2500-01-02"
  early = build(
    save(tmp_path, np.arange(9), "days since 0001-02-28", "noleap", name="b.nc")
  )
  assert str(early.labels.valid_time.values[0, 0]) == "0001-03-01 00:00:00"
  for split in (far, early):
    assert leads(split) == ["+1 d", "+2 d"]
    assert xr.load_dataset(
      split.labels.drop_vars("sample_id").to_netcdf(), engine="h5netcdf"
    )


@pytest.mark.parametrize(
  ("units", "calendar", "limits", "first", "last"),
  [
    ("days since 2500-01-01", "standard", ("2500-02", "2500-03-05"), 31, 63),
    ("days since 0001-01-01", "proleptic_gregorian", (None, "0001-01"), 0, 30),
    ("days since 1582-01-01", "standard", ("1582-10-04", "1582-10-15"), 276, 277),
    ("days since 2000-01-01", "360_day", ("2000-02-30", "2000-03"), 59, 89),
    ("days since 2001-01-01", "all_leap", ("2001-02-29", "2001-02-29"), 59, 59),
    ("days since 2001-01-01", "noleap", ("20010301", None), 59, 399),
  ],
)
def test_dates_select_in_their_own_calendar(units, calendar, limits, first, last):
  data = grid.decoded(dataset(np.arange(400), units, calendar))
  cut = grid.select(data, {"time": limits}, several_files=False)
  assert cut.t.values[[0, -1], 0, 0].tolist() == [first, last]
  assert cut.sizes["time"] == last - first + 1


def test_steps_of_a_thirtieth_of_a_second_do_not_drift(tmp_path):
  path = save(tmp_path, np.arange(300) / 30, "seconds since 2020-01-01")
  split = build(path)
  assert leads(split) == ["+0.0333333 s", "+0.0666667 s"] and split.num_examples == 298
  last = next(iter(split.batches))["time"][0] - moments.parse("2020") / 10**6
  np.testing.assert_allclose(last, np.arange(3) / 30 + last[0], atol=1e-6)
  assert XarrayStore(path, ("t",)).times(0)[299] == moments.parse("2020") + 9966667


def test_files_of_two_calendars_are_refused(tmp_path):
  save(tmp_path, [0, 1], "days since 2000-01-01", "noleap", name="a.nc")
  save(tmp_path, [2, 3], "days since 2000-01-01", "360_day", name="b.nc")
  with pytest.raises(errors.DataError, match="b.nc.*'360_day'.*a.nc.*'noleap'"):
    XarrayStore(str(tmp_path / "?.nc"), variables=("t",))
