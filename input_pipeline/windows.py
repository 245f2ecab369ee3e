"""History/horizon windows over sequences, and their splits.

A window is `history + horizon` frames in a row. It never crosses a gap in
time, the end of a sequence or the border of a split, so no frame is seen by
two splits; only the rule "window", made to repeat published numbers, lets the
last windows of one split share frames with the first ones of the next.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from input_pipeline import errors
from input_pipeline.stores import base, moments

SPLITS = ("train", "validation", "test")
# Kept apart from the training split, for preferences; see data.split.preference.
PREFERENCE = "preference"
_NAMES = (*SPLITS, PREFERENCE)
RULES = ("auto", "time", "sample", "event", "window", "ranges")
# A step counts as regular within this share of the usual step: calendar
# months (28 to 31 days) and years are regular, a lost frame is not.
_TOLERANCE = 0.2
_LABELS = {
  "train": "train",
  "training": "train",
  PREFERENCE: PREFERENCE,
  "val": "validation",
  "valid": "validation",
  "validation": "validation",
  "test": "test",
  "testing": "test",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
  """The windows of one split.

  Attributes:
    sequence: int32 [N], the sequence of each window.
    start: int32 [N], its first frame.
    length: frames in a window (history + horizon).
  """

  sequence: np.ndarray
  start: np.ndarray
  length: int

  def __len__(self) -> int:
    return len(self.start)

  def frames(self, length: int | None = None) -> list[tuple[int, int, int]]:
    """Distinct frames, as disjoint runs (sequence, start, stop).

    Args:
      length: how many frames of each window count, from its first one on; all
        by default.
    """
    length = self.length if length is None else length
    runs = []
    for sequence, start in sorted(
      zip(self.sequence.tolist(), self.start.tolist(), strict=True)
    ):
      stop = start + length
      if runs and runs[-1][0] == sequence and start <= runs[-1][2]:
        runs[-1][2] = max(stop, runs[-1][2])
      else:
        runs.append([sequence, start, stop])
    return [tuple(run) for run in runs]


def common_step(times: Sequence[np.ndarray]) -> int | None:
  """The most common difference of the time axes, in microseconds."""
  differences = np.concatenate([np.diff(axis) for axis in times])
  if not differences.size:
    return None
  values, counts = np.unique(differences, return_counts=True)
  return int(values[counts.argmax()])


def segments(times: np.ndarray, step: int) -> list[tuple[int, int]]:
  """Runs [start, stop) of frames that are one step apart."""
  edges = [0, *(np.flatnonzero(~_regular(times, step)) + 1).tolist(), len(times)]
  return list(zip(edges[:-1], edges[1:], strict=True))


def constant_step(
  times: Sequence[np.ndarray], calendar: str = ""
) -> np.timedelta64 | None:
  """The step from frame to frame, in whatever unit it is the same everywhere.

  Args:
    times: time axes, as `Store.times`.
    calendar: their calendar, "" for the civil one.

  Returns:
    A timedelta64 of months, for axes on the same day of each month, on its last day
    or in its middle; else of micro- or nanoseconds. None where the steps within a
    run of frames differ, or where there are none.
  """
  times = [axis for axis in times if len(axis) > 1]
  step = common_step(times) if times else None
  if step is None:
    return None
  regular = [_regular(axis, step) for axis in times]
  months = {0}
  if step > 27 * moments.DAY:
    months = set()
    for axis, inside in zip(times, regular, strict=True):
      number, _ = _by_month(axis, calendar)
      months |= set(np.diff(number)[inside].tolist()) if number is not None else {0}
  if len(months) == 1 and months != {0}:
    return np.timedelta64(months.pop(), "M")
  steps = [np.diff(a)[inside] for a, inside in zip(times, regular, strict=True)]
  steps = np.concatenate(steps)
  if (steps == step).all():
    return np.timedelta64(step, "us")
  if (np.abs(steps - step) <= 1).all():  # Such as 1/30 s.
    return np.timedelta64(round(steps.mean() * 1000), "ns")
  return None


def continued(times: np.ndarray, frames: int, calendar: str = "") -> np.ndarray:
  """A time axis that goes on: by months where it does so.

  Args:
    times: int64 [L], as `Store.times`.
    frames: how many more.
    calendar: of the times, "" for the civil one.

  Returns:
    [L + frames].
  """
  step = constant_step([times], calendar)
  if step is not None and np.datetime_data(step)[0] == "M":
    number, place = _by_month(times, calendar)
    every = int(step.astype(np.int64))
    later = number[-1] + every * np.arange(1, frames + 1)
    start, stop = (moments.month_start(n, calendar) for n in (later, later + 1))
    return np.concatenate([times, place(start, stop)])
  step = common_step([times]) or 0
  return np.concatenate([times, times[-1] + step * np.arange(1, frames + 1)])


def _regular(times: np.ndarray, step: int) -> np.ndarray:
  """bool [L - 1]: whether the next frame follows one step later."""
  return np.abs(np.diff(times) - step) <= _TOLERANCE * abs(step)


def _by_month(times: np.ndarray, calendar: str):
  """The months of an axis that has at most one frame a month, in the same place.

  Returns:
    number: int64 [L] of the months, or None.
    place: (starts, stops of months) -> moments of the frames in them.
  """
  number, start, stop = moments.months(times, calendar)
  if (np.diff(number) > 0).all():
    into, left = times - start, stop - times
    # Of 31 December and 31 January, the next is no 31 February.
    if (into == into[0]).all() and into[0] < 28 * moments.DAY:
      return number, lambda start, _: start + into[0]
    if (left == left[0]).all():
      return number, lambda _, stop: stop - left[0]
    if (np.abs(into - left) <= 3 * moments.DAY).all():  # 1.5 days from the middle.
      return number, lambda start, stop: (start + stop) // 2
  return None, None


def make(
  store: base.Store,
  split: str,
  *,
  history: int,
  horizon: int,
  stride: int = 1,
  by: str = "auto",
  fractions: Sequence[float] = (0.7, 0.15, 0.15),
  seed: int = 0,
  boundaries: Sequence[str | int] = (),
  ranges: Mapping[str, Any] | None = None,
  preference: float = 0.0,
  beyond: int = 0,
) -> Windows:
  """The windows of one split of a store.

  Args:
    store: the sequences.
    split: one of SPLITS, or PREFERENCE.
    history: frames given.
    horizon: frames to forecast.
    stride: frames between the starts of neighbouring windows.
    by: "time" cuts the common time axis; "sample" deals out sequences and
      "event" groups of them, by the labels of the data if there are any, else
      at random by `seed`; "window" cuts the list of windows of each sequence,
      so that neighbouring splits share history + horizon - 1 frames; "ranges"
      takes `ranges`; "auto" is "ranges" where they are given, "event" where
      the data name events, "sample" for several sequences, else "time", also for
      one or two events or sequences without split labels.
    fractions: shares of train, validation and test, of which each gets one
      sequence or event at least where there are enough. A split that the labels of a
      file leave out is taken from its training data. For "window" each count
      is rounded as Python rounds, and test takes what is left when the sum
      is 1.
    seed: of the permutation that deals out sequences or events.
    boundaries: for "time", two dates (or frame numbers without a time axis):
      the first validation frame and the first test frame; () means by
      fractions.
    ranges: for "ranges", the frames of each split, {"train": ((sample id,
      first frame or None, stop frame or None), ...), ...}; no frame may be
      named twice.
    preference: share of the training sequences or events (of the training
      times, its end) that training never sees: the split "preference".
    beyond: frames that windows may reach beyond the end of a sequence.

  Returns:
    Windows ordered by sequence and start.

  Raises:
    DataError: for settings out of range, or a split without a window.
  """
  if split not in _NAMES:
    raise errors.unknown("split", split, _NAMES)
  if by not in RULES:
    raise errors.unknown("split rule (data.split.by)", by, RULES)
  for key, value, least in (
    ("history", history, 1),
    ("horizon", horizon, 1),
    ("stride", stride, 1),
    ("split.seed", seed, 0),
  ):
    if not isinstance(value, int) or value < least:
      raise errors.DataError(
        f"data.{key}={value!r}; expected a whole number of at least {least}."
      )
  numbers = all(isinstance(share, (int, float)) for share in fractions)
  if (
    len(fractions) != 3
    or not numbers
    or min(fractions) < 0
    or not 0 < sum(fractions) <= 1 + 1e-6
  ):
    raise errors.DataError(
      f"data.split.fractions={tuple(fractions)}; expected three shares for "
      "train, validation and test, each at least 0, with a sum of at most 1."
    )
  if not isinstance(preference, (int, float)) or not 0 <= preference < 1:
    raise errors.DataError(
      f"data.split.preference={preference!r}; expected a share of the training split, "
      "from 0 to below 1."
    )
  by = _rule(store, by, boundaries, ranges)
  if by == "ranges" and preference:
    raise errors.DataError(
      f"data.split.preference={preference} has no meaning beside data.split.ranges: "
      "name the frames of the split in data.split.ranges['preference']."
    )
  axes = _time_axes(store)
  step = common_step(axes) if axes else None
  if split == PREFERENCE and not preference and by in ("time", "window"):
    parts = []
  elif by == "time":
    parts = _parts_by_time(store, axes, split, fractions, boundaries, preference)
  elif by == "ranges":
    parts = _parts_by_range(store, split, ranges)
  elif by == "window":
    if beyond:
      raise errors.DataError(
        "Windows beyond the end of the data (forecast.past_data_end) have no share "
        "in data.split.by='window'. Cut by 'time' or 'ranges'."
      )
    parts = [(i, 0, store.length(i)) for i in range(store.num_sequences)]
  else:
    parts = _parts_by_sequence(store, split, by, fractions, seed, preference)
  if not parts and split == PREFERENCE:
    raise errors.DataError(
      "There is no preference split: set data.split.preference to the share of the "
      "training split that is kept apart for it (a run that has seen these windows "
      "in training does not forget them)."
    )
  if not parts:
    raise errors.DataError(
      f"The {split} split gets none of the {store.num_sequences} sequences "
      f"(data.split.by={by!r}). Cut each of them by time, "
      "--config.data.split.by=time, or change data.split.fractions, "
      "data.split.ranges or the split labels in the "
      "data (data.split_variable)."
    )
  length, longest, available = history + horizon, 0, 0
  sequences, starts = [], []
  for sequence, low, high in parts:
    runs = segments(axes[sequence], step) if step else [(low, high)]
    if high == store.length(sequence):
      runs = [*runs[:-1], (runs[-1][0], runs[-1][1] + beyond)]
      high += beyond
    found = []
    for run_start, run_stop in runs:
      first, stop = max(low, run_start), min(high, run_stop)
      longest = max(longest, stop - first)
      found.append(np.arange(first, stop - length + 1, stride))
    found = np.concatenate(found)
    available += len(found)
    if by == "window":
      found = found[_cut(len(found), split, fractions, preference)]
    sequences.append(np.full(len(found), sequence, np.int32))
    starts.append(found.astype(np.int32))
  if available and not sum(map(len, starts)):
    raise errors.DataError(
      f"The {split} split gets none of the {available} windows: "
      f"data.split.fractions={tuple(fractions)} of those of each sequence "
      "round to 0. Change data.split.fractions or data.split.by."
    )
  if not available:
    raise errors.DataError(
      f"Too few frames for a window: the {split} split has {len(parts)} "
      f"{'ranges' if by == 'ranges' else 'sequences'} with at most {longest} "
      f"frames in a row, but data.history={history} and data.horizon="
      f"{horizon} need {length}. Make them smaller, or give the split more "
      "data with data.split.fractions, data.split.boundaries or "
      "data.split.ranges."
    )
  return Windows(np.concatenate(sequences), np.concatenate(starts), length)


def _rule(store, by, boundaries, ranges) -> str:
  """The rule that "auto" means, checked against what only one rule reads."""
  if by == "auto" and not (boundaries and ranges):
    by = "time"
    if ranges:
      by = "ranges"
    elif store.num_sequences > 1 and not boundaries:
      by = "event" if store.has_events else "sample"
      groups, labels = _groups(store, by)
      if len(set(groups)) < 3 and not any(labels):
        logging.log_first_n(
          logging.INFO,
          "There are only %d %ss, too few to deal them out: each is cut by time into"
          " the splits (data.split.by='time').",
          1,
          len(set(groups)),
          by,
        )
        by = "time"
  for key, value, rule in (
    ("boundaries", boundaries, "time"),
    ("ranges", ranges, "ranges"),
  ):
    if value and by != rule:
      raise errors.DataError(
        f"data.split.{key}={value!r} needs data.split.by={rule!r}, but it is {by!r}."
      )
  return by


def _cut(
  count: int, split: str, fractions: Sequence[float], preference: float
) -> slice:
  """The windows of a split out of all of a sequence."""
  train, validation, test = (round(float(f) * count) for f in fractions)
  if sum(fractions) > 1 - 1e-6:
    test = count
  edges = [0, train, train + validation, train + validation + test]
  own = train - round(preference * train)
  if split == PREFERENCE:
    return slice(own, train)
  if split == "train":
    return slice(0, own)
  index = SPLITS.index(split)
  return slice(edges[index], edges[index + 1])


def _time_axes(store: base.Store) -> list[np.ndarray]:
  """The time axis of every sequence; [] when there is none."""
  axes = [store.times(i) for i in range(store.num_sequences)]
  if any(axis is None for axis in axes):
    return []
  for sequence, axis in enumerate(axes):
    if (np.diff(axis) <= 0).any():
      frame = int(np.flatnonzero(np.diff(axis) <= 0)[0])
      raise errors.DataError(
        f"{store.location(sequence)}: time does not increase after frame "
        f"{frame}. Expected a sorted time axis without repeats; change "
        "data.path or data.select."
      )
  return axes


def _parts_by_time(store, axes, split, fractions, boundaries, preference):
  """[(sequence, first, stop)] of a split of the time axis."""
  if not axes:  # Every sequence is cut at the same frame numbers.
    axes = [np.arange(store.length(i)) for i in range(store.num_sequences)]
    dated = False
  else:
    dated = True
  # Sequences of the same hour must fall into the same split.
  moments = np.unique(np.concatenate(axes))
  if boundaries:
    calendar = store.space.attrs.get("calendar", "")
    edges = [-np.inf, *_edges(boundaries, dated, calendar), np.inf]
  else:
    edges = [-np.inf]
    for share in np.cumsum(fractions):
      cut = round(len(moments) * float(share))
      edges.append(moments[cut] if cut < len(moments) else np.inf)
  trained = moments[moments < edges[1]]
  own = len(trained) - round(preference * len(trained))
  edges.insert(1, trained[own] if own < len(trained) else edges[1])
  index = ("train", PREFERENCE, *SPLITS[1:]).index(split)
  return [
    (
      sequence,
      int(np.searchsorted(axis, edges[index])),
      int(np.searchsorted(axis, edges[index + 1])),
    )
    for sequence, axis in enumerate(axes)
  ]


def _edges(boundaries, dated: bool, calendar: str) -> list[int]:
  try:
    if dated:
      edges = [moments.parse(boundary, calendar) for boundary in boundaries]
    else:
      edges = [int(b) for b in boundaries]
  except ValueError:
    edges = []
  if len(edges) != 2 or edges[0] > edges[1]:
    kind = "dates like '2017-01-01'" if dated else "frame numbers"
    if calendar:
      kind += f" of the data's calendar {calendar!r}"
    raise errors.DataError(
      f"data.split.boundaries={tuple(boundaries)}; expected two {kind} in "
      "order: the first frame of validation and of test."
    )
  return edges


def _parts_by_range(store, split, ranges):
  """[(sequence, first, stop)] that the config names, in their order."""
  if not ranges:
    raise errors.DataError(
      "data.split.by='ranges' needs data.split.ranges, e.g. {'train': "
      "(('0', 0, 700),), 'validation': (('0', 700, 850),), 'test': (('0', "
      "850, None),)}."
    )
  numbers = {store.sample_id(i): i for i in range(store.num_sequences)}
  parts = {}
  for name, entries in ranges.items():
    key = f"data.split.ranges[{name!r}]"
    if name not in _NAMES:
      raise errors.unknown("split in data.split.ranges", name, _NAMES)
    parts[name] = []
    for entry in entries:
      if not _is_range(entry):
        raise errors.DataError(
          f"{key} has {entry!r}; expected (sample id, first frame, stop "
          "frame), with None for the first or last end of the sequence."
        )
      sample, first, stop = entry
      if str(sample) not in numbers:
        raise errors.unknown(f"sample id in {key}", str(sample), numbers)
      sequence = numbers[str(sample)]
      length = store.length(sequence)
      first = 0 if first is None else first
      stop = length if stop is None else stop
      if not 0 <= first < stop <= length:
        raise errors.DataError(
          f"{key} has {entry!r}, but {store.location(sequence)} has {length} "
          "frames. Expected 0 <= first frame < stop frame <= their number."
        )
      parts[name].append((sequence, first, stop))
  ordered = sorted((part, name) for name in parts for part in parts[name])
  for (one, name), (other, other_name) in zip(ordered, ordered[1:], strict=False):
    if one[0] == other[0] and other[1] < one[2]:
      raise errors.DataError(
        f"data.split.ranges: {name} has frames {one[1]} to {one[2]} and "
        f"{other_name} {other[1]} to {other[2]} of "
        f"{store.location(one[0])}. Expected no frame twice."
      )
  return sorted(parts.get(split, []))


def _is_range(entry) -> bool:
  return (
    isinstance(entry, (list, tuple))
    and len(entry) == 3
    and isinstance(entry[0], (str, int))
    and all(v is None or isinstance(v, int) for v in entry[1:])
  )


def _groups(store, by: str) -> tuple[list, list]:
  """What each sequence stays together with, and its split label or None."""
  every = range(store.num_sequences)
  groups = [store.event(i) if by == "event" else i for i in every]
  return groups, [store.split_label(i) for i in every]


def _parts_by_sequence(store, split, by, fractions, seed, preference):
  """[(sequence, 0, length)] of the sequences of a split."""
  groups, labels = _groups(store, by)
  if any(label is not None for label in labels):
    for label in labels:
      if str(label).lower() not in _LABELS:
        raise errors.unknown(
          "split label in the data (data.split_variable)", label, _LABELS
        )
    found = [_LABELS[str(label).lower()] for label in labels]
    if store.fills_splits:
      found = _unlabelled_splits(found, groups, fractions, seed)
  else:
    distinct = list(dict.fromkeys(groups))
    order = np.random.RandomState(seed).permutation(len(distinct))
    cuts = [0, *np.cumsum(_shares(len(order), fractions))]
    names = dict.fromkeys(distinct)
    for name, low, high in zip(SPLITS, cuts[:-1], cuts[1:], strict=True):
      names.update((distinct[i], name) for i in order[low:high])
    found = [names[group] for group in groups]
  if preference:
    trained = [g for g, name in zip(groups, found, strict=True) if name == "train"]
    kept = _kept_apart(list(dict.fromkeys(trained)), preference, seed)
    found = [
      PREFERENCE if name == "train" and group in kept else name
      for group, name in zip(groups, found, strict=True)
    ]
  return [(i, 0, store.length(i)) for i, name in enumerate(found) if name == split]


def _shares(count: int, fractions: Sequence[float]) -> list[int]:
  """How many of `count` groups each split gets: one at least, where it can be."""
  cuts = [0, *(round(count * float(share)) for share in np.cumsum(fractions))]
  sizes = np.diff(cuts).tolist()
  for split, share in enumerate(fractions):
    if share > 0 and not sizes[split] and max(sizes) > 1:
      sizes[sizes.index(max(sizes))] -= 1
      sizes[split] = 1
  return sizes


def _unlabelled_splits(found: list, groups: list, fractions, seed: int) -> list:
  """Takes from training what the labels of the data leave out."""
  for name, share in zip(SPLITS[1:], fractions[1:], strict=True):
    trained = [g for g, split in zip(groups, found, strict=True) if split == "train"]
    trained = list(dict.fromkeys(trained))
    count = max(round(float(share) * len(trained)), 1)
    if name in found or not share or count >= len(trained):
      continue
    order = np.random.RandomState(seed).permutation(len(trained))
    taken = {trained[i] for i in order[:count]}
    found = [
      name if split == "train" and group in taken else split
      for group, split in zip(groups, found, strict=True)
    ]
    logging.log_first_n(
      logging.WARNING,
      "The data label nothing as %s: %d of the %d training sequences or events"
      " (data.split.fractions, data.split.seed) are taken for it.",
      2,
      name,
      count,
      len(trained),
    )
  return found


def _kept_apart(groups: list, share: float, seed: int) -> set:
  """The sequences or events that training does not see."""
  count = max(round(share * len(groups)), 1)
  if count >= len(groups):
    raise errors.DataError(
      f"data.split.preference={share} leaves nothing of the {len(groups)} training "
      "sequences or events. Make it smaller, or cut by another rule (data.split.by)."
    )
  order = np.random.RandomState(seed).permutation(len(groups))
  return {groups[i] for i in order[-count:]}
