"""Windows never cross gaps, sequences or split borders."""

import datetime

import numpy as np
import pytest

from input_pipeline import errors, windows
from input_pipeline.stores import base, moments

HOUR = 3600 * 10**6


class Sequences(base.Store):
  """Sequences known by their times (or lengths), labels and events."""

  def __init__(self, axes, labels=None, events=None):
    self._axes = axes
    self._labels = labels
    self._events = events
    self.has_events = bool(events)

  variables = (base.Variable("x"),)
  fills_splits = True
  space = base.index_space(3, 2)

  @property
  def num_sequences(self):
    return len(self._axes)

  def length(self, sequence):
    axis = self._axes[sequence]
    return axis if isinstance(axis, int) else len(axis)

  def times(self, sequence):
    axis = self._axes[sequence]
    return None if isinstance(axis, int) else np.asarray(axis, np.int64)

  def split_label(self, sequence):
    return self._labels[sequence] if self._labels else None

  def event(self, sequence):
    return self._events[sequence] if self._events else str(sequence)

  def read(self, sequence, start, stop):
    raise AssertionError("Windows are made without reading frames.")


def make(store, split="train", *, history=2, horizon=1, **options):
  return windows.make(store, split, history=history, horizon=horizon, **options)


def seen(cut):
  """The set of (sequence, frame) in any window."""
  return {
    (int(s), int(a) + k)
    for s, a in zip(cut.sequence, cut.start, strict=True)
    for k in range(cut.length)
  }


def test_one_sequence_gives_every_start_of_the_split():
  cut = make(Sequences([20]), fractions=(0.5, 0.25, 0.25))
  assert cut.start.tolist() == list(range(8))  # Frames 0-9, 3 at a time.
  assert cut.length == 3


def test_stride_leaves_out_starts():
  cut = make(Sequences([20]), fractions=(0.5, 0.25, 0.25), stride=3)
  assert cut.start.tolist() == [0, 3, 6]


@pytest.mark.parametrize(
  "options",
  [
    {"by": "time"},
    {"by": "time", "boundaries": ("1970-01-01T20", "1970-01-02T03")},
    {"by": "sample", "seed": 5},
    {"by": "event", "seed": 1, "fractions": (0.5, 0.25, 0.25)},
  ],
)
def test_splits_never_share_a_frame_and_windows_are_unique(options):
  axes = [np.arange(31) * HOUR + k * 5 * HOUR for k in range(9)]
  store = Sequences(axes, events=list("aabbccdde"))
  cuts = {split: make(store, split, **options) for split in windows.SPLITS}
  for one, other in (
    ("train", "validation"),
    ("train", "test"),
    ("validation", "test"),
  ):
    assert not seen(cuts[one]) & seen(cuts[other])
  for cut in cuts.values():
    pairs = list(zip(cut.sequence.tolist(), cut.start.tolist(), strict=True))
    assert pairs == sorted(set(pairs))


@pytest.mark.parametrize(
  ("by", "share"), [("time", 0.25), ("event", 0.5), ("window", 0.5)]
)
def test_the_preference_split_is_a_share_of_the_training_split(by, share):
  axes = [np.arange(24) * HOUR, np.arange(10, 34) * HOUR]
  store = Sequences(axes if by != "event" else axes * 4, events=list("aabbccdd"))
  cut = {"by": by, "fractions": (1.0, 0.0, 0.0)}
  whole = make(store, **cut)
  own, kept = (make(store, s, preference=share, **cut) for s in ("train", "preference"))
  if by == "window":
    counts = [len(c.start) for c in (own, kept, whole)]
    assert counts == [22, 22, 44]
    return
  assert not seen(own) & seen(kept)
  assert seen(own) | seen(kept) <= seen(whole)
  if by == "event":
    events = [{store.event(s) for s, _ in seen(c)} for c in (own, kept)]
    assert len(events[1]) == 2 and events[0] | events[1] == set("abcd")
  else:  # The last quarter of the 34 hours, less those that start no window.
    hours = [sorted({int(axes[s][f]) // HOUR for s, f in seen(c)}) for c in (own, kept)]
    assert hours == [list(range(26)), list(range(26, 34))]


def test_without_a_share_there_is_no_preference_split():
  for by in ("time", "sample", "window"):
    with pytest.raises(errors.DataError, match=r"data\.split\.preference"):
      make(Sequences([20] * 9), "preference", by=by)
  with pytest.raises(errors.DataError, match="leaves nothing"):
    make(Sequences([20] * 9), by="sample", preference=0.95)
  with pytest.raises(errors.DataError, match="ranges"):
    make(Sequences([20]), ranges={"train": (("0", 0, 9),)}, preference=0.5)


def test_splits_by_time_share_no_hour_even_between_sequences():
  axes = [np.arange(31) * HOUR, np.arange(10, 41) * HOUR]
  store = Sequences(axes)
  hours = []
  for split in windows.SPLITS:
    cut = make(store, split, by="time")
    hours.append({int(axes[s][frame]) for s, frame in seen(cut)})
  assert max(hours[0]) < min(hours[1]) and max(hours[1]) < min(hours[2])
  # 41 distinct hours, cut after 70 and 85 %.
  assert max(hours[0]) == 28 * HOUR and min(hours[2]) == 35 * HOUR


def test_boundaries_are_the_first_dates_of_validation_and_test():
  store = Sequences([np.arange(72) * HOUR])
  edges = ("1970-01-02", "1970-01-03")
  spans = []
  for split in windows.SPLITS:
    frames = sorted(frame for _, frame in seen(make(store, split, boundaries=edges)))
    spans.append((frames[0], frames[-1]))
  assert spans == [(0, 23), (24, 47), (48, 71)]


def test_boundaries_are_frame_numbers_without_a_time_axis():
  cut = make(Sequences([20]), "validation", boundaries=(8, 12))
  assert cut.start.tolist() == [8, 9]


def test_windows_never_cross_a_gap():
  times = np.delete(np.arange(30), [7, 8, 20]) * HOUR
  store = Sequences([times])
  cut = make(store, fractions=(1.0, 0.0, 0.0))
  for start in cut.start:
    assert np.ptp(times[start : start + 3]) == 2 * HOUR
  # Runs of 7, 11 and 9 frames hold 5, 9 and 7 windows of 3.
  assert len(cut) == 5 + 9 + 7


def test_calendar_months_are_no_gaps_but_a_lost_month_is():
  months = np.arange("2001-01", "2004-01", dtype="datetime64[M]")
  times = months.astype("datetime64[us]").astype(np.int64)
  whole = (1.0, 0.0, 0.0)
  assert len(make(Sequences([times]), fractions=whole)) == 34
  lost = np.delete(times, 10)
  assert len(make(Sequences([lost]), fractions=whole)) == 8 + 23


def test_windows_never_cross_sequences():
  store = Sequences([4, 3, 2, 5], labels=["train"] * 4)
  cut = make(store, fractions=(1.0, 0.0, 0.0))
  pairs = list(zip(cut.sequence.tolist(), cut.start.tolist(), strict=True))
  assert pairs == [(0, 0), (0, 1), (1, 0), (3, 0), (3, 1), (3, 2)]


def test_labels_of_the_data_decide_over_fractions():
  store = Sequences([5] * 4, labels=["train", "val", "Test", "train"])
  assert set(make(store).sequence) == {0, 3}
  assert set(make(store, "validation").sequence) == {1}
  assert set(make(store, "test").sequence) == {2}


def test_samples_are_dealt_by_the_seeded_permutation():
  store = Sequences([3] * 60)
  order = np.random.RandomState(1).permutation(60)
  for split, part in (
    ("train", order[:42]),
    ("validation", order[42:51]),
    ("test", order[51:]),
  ):
    assert set(make(store, split, seed=1).sequence) == set(part)
  assert set(make(store, seed=1).sequence) != set(make(store, seed=2).sequence)


def test_an_event_is_never_split():
  events = [str(i // 4) for i in range(40)]
  store = Sequences([3] * 40, events=events)
  found = [
    {events[s] for s in make(store, split, by="event").sequence}
    for split in windows.SPLITS
  ]
  assert sum(map(len, found)) == 10 and len(set.union(*found)) == 10


def test_distinct_frames_of_overlapping_windows_come_once():
  cut = windows.Windows(np.array([1, 0, 0, 0]), np.array([2, 0, 1, 6]), 3)
  assert cut.frames() == [(0, 0, 4), (0, 6, 9), (1, 2, 5)]


@pytest.mark.parametrize(
  ("options", "words"),
  [
    (
      {"history": 12, "horizon": 7},
      [
        "at most 14 frames",
        "data.history=12",
        "data.horizon=7",
        "need 19",
        "data.split.fractions",
      ],
    ),
    ({"history": 0}, ["data.history=0"]),
    ({"horizon": 2.5}, ["data.horizon=2.5"]),
    ({"stride": 0}, ["data.stride=0"]),
    ({"seed": -1}, ["data.split.seed=-1"]),
    ({"fractions": (0.7, 0.7, 0.1)}, ["data.split.fractions"]),
    ({"fractions": ("a", "b", "c")}, ["data.split.fractions"]),
    ({"by": "tine"}, ["'tine'", "did you mean 'time'", "data.split.by"]),
    ({"by": "sample", "boundaries": (1, 2)}, ["data.split.boundaries"]),
    ({"boundaries": (9, 3)}, ["data.split.boundaries", "frame numbers"]),
    ({"boundaries": ("x", 3)}, ["data.split.boundaries", "frame numbers"]),
    ({"split": "training"}, ["'training'", "did you mean 'train'"]),
  ],
)
def test_unusable_settings_are_named(options, words):
  with pytest.raises(errors.DataError) as caught:
    make(Sequences([20]), **options)
  for word in words:
    assert word in str(caught.value)


def test_a_split_without_a_sequence_is_named():
  store = Sequences([5] * 4)
  with pytest.raises(
    errors.DataError,
    match=("validation split gets none of the 4 .*split.by=time.*split.fractions"),
  ):
    make(store, "validation", fractions=(0.9, 0.0, 0.1))


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_few_sequences_give_each_split_one_at_least(count):
  splits = [set(make(Sequences([5] * count), s).sequence) for s in windows.SPLITS]
  assert sorted(i for split in splits for i in split) == list(range(count))
  assert all(splits) and len(splits[0]) >= max(len(splits[1]), len(splits[2]))


@pytest.mark.parametrize("events", [None, ["a", "a", "b"]])
def test_one_or_two_groups_are_cut_by_time(events):
  axis = np.arange(40) * HOUR
  store = Sequences([axis] * (3 if events else 2), events=events)
  starts = {s: make(store, s).start for s in windows.SPLITS}
  # 28, 6 and 6 frames of each sequence.
  assert starts["train"].max() < 28 <= starts["validation"].min()
  assert starts["validation"].max() < 34 <= starts["test"].min()


def test_what_the_labels_leave_out_is_taken_from_training():
  labels = ["train"] * 6 + ["test"] * 2
  store = Sequences([5] * 8, labels=labels)
  train, validation, test = (set(make(store, s).sequence) for s in windows.SPLITS)
  assert test == {6, 7}
  assert len(validation) == 1 and train | validation == set(range(6))
  assert not train & validation
  # Crops of one event stay together.
  store = Sequences([5] * 8, labels=labels, events=list("aabbccdd"))
  train, validation, _ = (set(make(store, s).sequence) for s in windows.SPLITS)
  assert validation in ({0, 1}, {2, 3}, {4, 5}) and not train & validation
  store.fills_splits = False  # Years, or lists of days, that a config names.
  assert set(make(store).sequence) == set(range(6))


def test_a_time_axis_that_goes_back_is_named():
  with pytest.raises(errors.DataError, match="after frame 2"):
    make(Sequences([np.array([0, 1, 2, 2, 3]) * HOUR]))


def test_an_unknown_split_label_is_named():
  with pytest.raises(errors.DataError, match="'tset'.*'test'"):
    make(Sequences([5, 5], labels=["train", "tset"]))


def test_windows_are_shared_out_by_their_number():
  # 18 windows of 3 frames: round(10.8), round(3.6) and what is left.
  cuts = [
    make(Sequences([20]), split, by="window", fractions=(0.6, 0.2, 0.2))
    for split in windows.SPLITS
  ]
  assert [len(cut) for cut in cuts] == [11, 4, 3]
  starts = np.concatenate([cut.start for cut in cuts])
  assert starts.tolist() == list(range(18))


@pytest.mark.parametrize(
  ("frames", "counts"),
  [(2016, (1196, 399, 398)), (1440, (850, 283, 284)), (504, (289, 96, 96))],
)
def test_counts_of_the_published_splits(frames, counts):
  for split, count in zip(windows.SPLITS, counts, strict=True):
    cut = make(
      Sequences([frames]),
      split,
      history=12,
      horizon=12,
      by="window",
      fractions=(0.6, 0.2, 0.2),
    )
    assert len(cut) == count


def test_windows_left_over_by_smaller_fractions_are_in_no_split():
  cuts = [
    make(Sequences([20]), split, by="window", fractions=(0.5, 0.1, 0.1))
    for split in windows.SPLITS
  ]
  assert [cut.start.tolist() for cut in cuts] == [list(range(9)), [9, 10], [11, 12]]


def test_each_sequence_and_no_gap_is_in_the_list_of_windows():
  times = np.delete(np.arange(14), 6) * HOUR  # Runs of 6 and 7 frames.
  store = Sequences([times, np.arange(7) * HOUR])
  cuts = [
    make(store, split, by="window", fractions=(0.6, 0.2, 0.2))
    for split in windows.SPLITS
  ]
  pairs = [
    list(zip(cut.sequence.tolist(), cut.start.tolist(), strict=True)) for cut in cuts
  ]
  assert pairs == [
    [(0, 0), (0, 1), (0, 2), (0, 3), (0, 6), (1, 0), (1, 1), (1, 2)],
    [(0, 7), (0, 8), (1, 3)],
    [(0, 9), (0, 10), (1, 4)],
  ]


def test_a_share_of_windows_that_rounds_to_none_is_named():
  with pytest.raises(
    errors.DataError,
    match=("validation split gets none of the 4 windows.*data.split.fractions"),
  ):
    make(Sequences([6]), "validation", by="window", fractions=(0.8, 0.1, 0.1))


RANGES = {
  "train": (("1", None, None), ("0", 0, 5), ("0", 5, 9)),
  "validation": [["0", 9, 13]],
  "test": ((0, 13, None),),
}


def test_ranges_name_the_frames_of_each_split():
  store = Sequences([17, 4])
  for by in ("ranges", "auto"):
    cuts = [make(store, split, by=by, ranges=RANGES) for split in windows.SPLITS]
    pairs = [
      list(zip(cut.sequence.tolist(), cut.start.tolist(), strict=True)) for cut in cuts
    ]
    # No window crosses from frames 0-4 to 5-8.
    assert pairs == [
      [(0, 0), (0, 1), (0, 2), (0, 5), (0, 6), (1, 0), (1, 1)],
      [(0, 9), (0, 10)],
      [(0, 13), (0, 14)],
    ]


def test_windows_of_a_range_never_cross_a_gap():
  times = np.delete(np.arange(14), 6) * HOUR
  cut = make(Sequences([times]), by="ranges", ranges={"train": (("0", 2, 12),)})
  assert cut.start.tolist() == [2, 3, 6, 7, 8, 9]


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"by": "ranges"}, ["needs data.split.ranges"]),
    ({"by": "time", "ranges": RANGES}, ["needs data.split.by='ranges'"]),
    ({"boundaries": (1, 2), "ranges": RANGES}, ["data.split.boundaries"]),
    ({"ranges": {"tran": ()}}, ["'tran'", "did you mean 'train'"]),
    ({"ranges": {"train": (("sst", 0, 9),)}}, ["'sst'", "ranges['train']"]),
    ({"ranges": {"train": (("0", 0, 21),)}}, ["'0', 0, 21", "20 frames"]),
    ({"ranges": {"train": (("0", 9, 9),)}}, ["first frame < stop"]),
    ({"ranges": {"train": (("0", -1, 9),)}}, ["0 <= first frame"]),
    ({"ranges": {"train": ("0", 0, 9)}}, ["expected (sample id, first frame"]),
    ({"ranges": {"train": (("0", 0, "9"),)}}, ["expected (sample id"]),
    (
      {"ranges": {"train": (("0", 0, 9),), "test": (("0", 8, 20),)}},
      ["train has frames 0 to 9", "test 8 to 20", "no frame twice"],
    ),
    ({"ranges": {"train": (("0", 0, 9), ("0", 8, 20))}}, ["no frame twice"]),
    (
      {"ranges": {"test": (("0", 0, 9),)}},
      ["train split gets none", "data.split.ranges"],
    ),
    (
      {"ranges": {"train": (("0", 0, 9),)}, "history": 9},
      ["1 ranges with at most 9 frames", "need 10", "data.split.ranges"],
    ),
  ],
)
def test_unusable_ranges_are_named(options, words):
  with pytest.raises(errors.DataError) as caught:
    make(Sequences([20]), **options)
  for word in words:
    assert word in str(caught.value)


def test_frames_can_be_those_of_the_histories_alone():
  cut = windows.Windows(np.array([0, 0, 1]), np.array([0, 3, 2]), 4)
  assert cut.frames() == [(0, 0, 7), (1, 2, 6)]
  assert cut.frames(2) == [(0, 0, 2), (0, 3, 5), (1, 2, 4)]


def test_monthly_axes_go_on_by_months_and_others_by_their_step():
  months = np.array(["2019-11-01", "2019-12-01", "2020-01-01"], "datetime64[us]")
  longer = windows.continued(months.astype(np.int64), 2)
  days = longer[3:].astype("datetime64[us]").astype("datetime64[D]")
  assert days.tolist() == [datetime.date(2020, 2, 1), datetime.date(2020, 3, 1)]
  np.testing.assert_array_equal(
    windows.continued(np.array([0, 3600, 7200]), 2)[3:], [10800, 14400]
  )


@pytest.mark.parametrize(
  ("calendar", "dates", "later"),
  [
    ("", ["2019-12-31", "2020-01-31"], ["2020-02-29", "2020-03-31"]),
    ("", ["2019-12-16T12", "2020-01-16T12", "2020-02-15T12"], ["2020-03-16T12"]),
    ("", ["2019-10-05", "2020-01-05"], ["2020-04-05", "2020-07-05"]),
    ("360_day", ["2000-12-16", "2001-01-16"], ["2001-02-16"]),
    ("360_day", ["2001-02-29", "2001-02-30"], ["2001-03-01", "2001-03-02"]),
    ("noleap", ["2019-12-31", "2020-01-31"], ["2020-02-28", "2020-03-31"]),
    ("noleap", ["2020-02-27", "2020-02-28"], ["2020-03-01"]),
  ],
)
def test_axes_go_on_in_their_own_calendar(calendar, dates, later):
  known, expected = (
    [moments.parse(date, calendar) for date in given] for given in (dates, later)
  )
  longer = windows.continued(np.array(known), len(later), calendar)
  assert longer.tolist() == known + expected


def test_windows_beyond_the_data_belong_to_the_last_split():
  store = Sequences([np.arange(20) * HOUR])
  cut = dict(history=2, horizon=3, by="time", fractions=(0.5, 0.25, 0.25))
  for split, more in (("train", 0), ("validation", 0), ("test", 3)):
    inside = windows.make(store, split, **cut)
    beyond = windows.make(store, split, **cut, beyond=3)
    assert len(beyond) == len(inside) + more
    np.testing.assert_array_equal(beyond.start[: len(inside)], inside.start)
  with pytest.raises(errors.DataError, match="forecast.past_data_end"):
    windows.make(store, "test", **cut | {"by": "window"}, beyond=3)
