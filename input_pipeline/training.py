"""The frames of the training split, and what is computed from all of them."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import cache, errors, files, normalise, options, stores, windows
from input_pipeline.stores import base, missing, resample

FRAMES = ("all", "history")
_CHUNK = 32  # Frames read at a time.
_CUTTING = ("history", "horizon", "stride")


def open_store(resolved: Mapping[str, Any], cache_dir: str | None) -> base.Store:
  """The store of a resolved data config, or its copy in memory or on disk."""
  store = stores.load(resolved["store"])
  given = options.store_options(resolved)
  if "cache_dir" in inspect.signature(store).parameters:
    given["cache_dir"] = cache_dir
  opened = store(**given)
  if "missing_value" not in given:
    opened = missing.apply(opened, resolved["missing_value"])
  opened = resample.apply(opened, resolved["resample"])
  return cache.apply(opened, resolved, cache_dir)


def cutting(resolved: Mapping[str, Any]) -> dict[str, Any]:
  """How a resolved data config cuts windows: arguments of windows.make."""
  return {**{key: resolved[key] for key in _CUTTING}, **resolved["split"]}


def check(resolved: Mapping[str, Any]) -> None:
  """Raises DataError for settings of the statistics that are out of range."""
  frames, ddof = (resolved["statistics"][key] for key in ("frames", "ddof"))
  if frames not in FRAMES:
    raise errors.unknown("choice of frames (data.statistics.frames)", frames, FRAMES)
  if ddof not in (0, 1):
    raise errors.DataError(
      f"data.statistics.ddof={ddof!r}; expected 0 (of a population) or 1 (of a sample)."
    )
  fixed = {key: resolved[key] for key in ("offset", "scale") if resolved[key] != ()}
  if resolved["normalise"] == "fixed" and "scale" not in fixed:
    raise errors.DataError(
      "data.normalise='fixed' needs data.scale, e.g. (255.0,): the normalised value "
      "is (x - offset) / scale."
    )
  if resolved["normalise"] != "fixed" and fixed:
    raise errors.DataError(
      f"{' and '.join(f'data.{key}={value!r}' for key, value in fixed.items())} "
      f"need data.normalise='fixed', but it is {resolved['normalise']!r}."
    )


def runs(store: base.Store, resolved: Mapping[str, Any]) -> list[tuple[int, int, int]]:
  """The training frames, each once, in pieces without a gap in time.

  All frames of the training windows, or with data.statistics.frames="history"
  only the first `history` of each.

  Returns:
    Disjoint (sequence, first frame, stop frame).
  """
  history = resolved["statistics"]["frames"] == "history"
  cut = windows.make(store, "train", **cutting(resolved))
  axes = [store.times(i) for i in range(store.num_sequences)]
  dated = not any(axis is None for axis in axes)
  step = windows.common_step(axes) if dated else None
  found = []
  for sequence, first, stop in cut.frames(resolved["history"] if history else None):
    pieces = [(0, stop - first)]
    if step:
      pieces = windows.segments(axes[sequence][first:stop], step)
    found += [(sequence, first + low, first + high) for low, high in pieces]
  return found


def chunks(
  store: base.Store, pieces: Sequence[tuple[int, int, int]], checked: bool
) -> Iterator[tuple[int, int, np.ndarray]]:
  """The frames of `runs`, a few at a time.

  Args:
    store: the frames.
    pieces: (sequence, first frame, stop frame).
    checked: whether a value that is not finite is an error.

  Yields:
    The sequence, the number of the first frame, and the frames [T, H, W, C]
    in physical units, not to be written into, NaN where missing.
  """
  for sequence, first, stop in pieces:
    for low in range(first, stop, _CHUNK):
      frames = store.read(sequence, low, min(low + _CHUNK, stop))
      if checked and not np.isfinite(frames).all():
        raise not_finite(store, sequence, low, np.isfinite(frames))
      yield sequence, low, frames


def place(store: base.Store) -> str:
  """The file of a store, or the first of several; "" where it has none."""
  more = f" (and {len(store.files) - 1} more)" if len(store.files) > 1 else ""
  return store.files[0] + more if store.files else ""


def not_finite(
  store: base.Store, sequence: int, start: int, finite: np.ndarray
) -> errors.DataError:
  """The error for frames from `start` on, of which finite says what is good."""
  frame, row, column, channel = np.argwhere(~finite)[0].tolist()
  return errors.DataError(
    f"{store.location(sequence)}, frame {start + frame}, variable "
    f"{store.variables[channel].name!r}: a missing or infinite value at row "
    f"{row}, column {column} (or one that data.transform cannot take). "
    "Expected finite numbers; set data.missing='mask' to train and score "
    "with missing values left out."
  )


def kept_path(
  kind: str,
  ending: str,
  store: base.Store,
  resolved: Mapping[str, Any],
  cache_dir: str | None,
  *parts: Any,
) -> str | None:
  """Where a result of the training frames is kept, None without a folder.

  Args:
    kind: what it is, the beginning of the file's name.
    ending: of the file's name.
    store: whose files it depends on.
    resolved: the data config; how frames are chosen and read counts.
    cache_dir: the folder, or None.
    *parts: plain values that it depends on besides.
  """
  if not cache_dir:
    return None
  name = options.digest(
    resolved["store"],
    options.reading(resolved),
    cache.files_state(store),
    cutting(resolved),
    resolved["missing"],
    resolved["statistics"],
    *parts,
  )
  return os.path.join(os.path.abspath(cache_dir), f"{kind}-{name}.{ending}")


def compute_statistics(
  store: base.Store,
  resolved: Mapping[str, Any],
  cache_dir: str | None,
  frames_of: base.Store | None = None,
  key: str = "data",
) -> normalise.Statistics:
  """Statistics of the training split, kept as JSON in cache_dir.

  Args:
    store: whose values are meant.
    resolved: its data config.
    cache_dir: the folder, or None.
    frames_of: the store whose training frames they are of; by default the
      same.
    key: the section of the config that names them.
  """
  frames_of = frames_of or store
  fixed = {}
  if resolved["normalise"] == "fixed":
    fixed = {key: resolved[key] for key in ("offset", "scale")}
  path = kept_path(
    "statistics",
    "json",
    store,
    resolved,
    cache_dir,
    resolved["normalise"],
    resolved["transform"],
    *fixed.values(),
    *cache.files_state(frames_of),
  )
  if path and os.path.exists(path):
    with open(path, encoding="utf-8") as file:
      return normalise.Statistics.from_json(file.read())
  frames = chunks(store, runs(frames_of, resolved), resolved["missing"] == "error")
  statistics = normalise.compute(
    (part for _, _, part in frames),
    [variable.name for variable in store.variables],
    kind=resolved["normalise"],
    transform=resolved["transform"],
    ddof=resolved["statistics"]["ddof"],
    labels=[variable.attrs for variable in store.variables],
    declared=[store.declared.get(n, missing.Declared()) for n in store.names],
    file=place(store),
    key=key,
    **fixed,
  )
  if path:
    files.write_atomically(path, statistics.to_json())
  return statistics


def training_series(
  data_config: Mapping[str, Any],
  *,
  statistics: normalise.Statistics | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> list[np.ndarray]:
  """The normalised training frames as whole series, in memory.

  They are the frames of the statistics (data.statistics.frames): one series
  for each run of frames that are one step apart. A sequence gives several
  where it has gaps in time or training windows in several places.

  Args:
    data_config: plain values, keys as in `defaults(store)`.
    statistics: of the training split, if known; else they are computed.
    cache_dir: folder for prepared copies and statistics.

  Returns:
    float32 arrays [T, H, W, C] in normalised units, each with its own T, NaN
    where missing.

  Raises:
    DataError: for settings or data that cannot be used.
  """
  resolved = options.resolve(data_config)
  check(resolved)
  cache_dir = os.fspath(cache_dir) if cache_dir else None
  store = open_store(resolved, cache_dir)
  if statistics is None:
    statistics = compute_statistics(store, resolved, cache_dir)
  check_statistics(statistics, store.names)
  height, width = (store.space.sizes[d] for d in store.space.attrs["spatial_dims"])
  series = []
  for piece in runs(store, resolved):
    sequence, first, stop = piece
    whole = np.empty((stop - first, height, width, len(store.variables)), np.float32)
    for _, low, frames in chunks(store, [piece], checked=False):
      part = whole[low - first : low - first + len(frames)]
      part[...] = frames
      normalise.forward_in_place(statistics, part)
      finite = np.isfinite(part)
      if resolved["missing"] == "error" and not finite.all():
        raise not_finite(store, sequence, low, finite)
      part[~finite] = np.nan
    series.append(whole)
  return series


def check_statistics(
  statistics: normalise.Statistics, names: Sequence[str], key: str = "data.variables"
) -> None:
  """Raises DataError for statistics of other variables than these."""
  if statistics.variables != tuple(names):
    raise errors.DataError(
      f"The statistics are of the variables {', '.join(statistics.variables)}"
      f", but the data have {', '.join(names)}. Change {key}, or "
      "train in another work directory."
    )
