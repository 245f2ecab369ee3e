"""Several files that make one data set: their order, axes, units and times."""

import contextlib
import dataclasses
import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import errors
from input_pipeline.stores import base, grid

# What strptime formats may hold in data.file_time, as regular expressions.
_DIRECTIVES = {
  "Y": r"\d{4}",
  "y": r"\d{2}",
  "m": r"\d{2}",
  "d": r"\d{2}",
  "j": r"\d{3}",
  "H": r"\d{2}",
  "M": r"\d{2}",
  "S": r"\d{2}",
  "f": r"\d{1,6}",
  "b": r"[A-Za-z]{3}",
}
_NO_TIME = np.iinfo(np.int64).min  # A date that is missing (NaT) as a number.
_LONGITUDE_NAMES = ("lon", "longitude", "nav_lon", "lons")
_LEVEL_NAMES = (
  *("level", "lev", "plev", "pressure", "pressure_level", "isobaric", "height"),
  *("altitude", "depth", "isobaricinhpa", "heightaboveground", "member"),
  *("number", "realization", "ensemble", "sigma", "model_level"),
)
_checked: set[tuple[str, int]] = set()  # Zarr arrays whose chunks are whole.


def say(message: str, *, warn: bool = False) -> None:
  """Logs a message, unless this process has logged it before."""
  base.say_once(logging.WARNING if warn else logging.INFO, message)


@contextlib.contextmanager
def reading(path: str, what: str) -> Iterator[None]:
  """Turns whatever a reader raises into a DataError that names file and part.

  Readers and decompressors raise errors of very many kinds.
  """
  try:
    yield
  except (errors.UserError, MemoryError):
    raise
  except Exception as error:
    reason = (str(error).splitlines() or [""])[0]
    raise errors.DataError(
      f"{path}: {what} cannot be read ({type(error).__name__}: {reason}). The file "
      "is damaged or incomplete: fetch or write it anew, or leave it out of data.path."
    ) from error


def find(path: str) -> tuple[str, ...]:
  """The absolute paths of a file, a folder or a pattern, in natural order.

  Args:
    path: one or, with commas between them, several of these.

  Raises:
    DataError: if there is none.
  """
  if "," in path and not os.path.exists(os.path.expanduser(path)):
    parts = [part.strip() for part in path.split(",") if part.strip()]
    return tuple(dict.fromkeys(file for part in parts for file in find(part)))
  if not glob.has_magic(path) or os.path.exists(path):
    return (base.existing_path(path),)
  pattern = os.path.abspath(os.path.expanduser(path))
  found = tuple(sorted(glob.glob(pattern, recursive=True), key=natural))
  if not found:
    raise errors.DataError(
      f"No file matches {pattern} (data.path={path!r}). Change data.path."
    )
  return found


def natural(text: str) -> list[tuple[int, int, str]]:
  """A key by which "frame_2" comes before "frame_10"."""
  parts = re.split(r"(\d+)", text)
  return [
    (1, int(part), part) if number % 2 else (0, 0, part)
    for number, part in enumerate(parts)
  ]


def date_in_name(path: str, pattern: str) -> np.datetime64:
  """The date in a file's name.

  Args:
    path: of the file.
    pattern: data.file_time, a strptime format that stands anywhere in the name,
      such as "%Y%m%d%H"; with a "/" in it, in the path.

  Raises:
    DataError: if the format cannot be used, or the name has no or several dates.
  """
  import datetime

  expression, directives = "", re.split(r"%(.)", pattern)
  for number, part in enumerate(directives):
    if number % 2 == 0 or part == "%":
      expression += re.escape(part)
    elif part in _DIRECTIVES:
      expression += f"({_DIRECTIVES[part]})"
    else:
      raise errors.DataError(
        f"data.file_time={pattern!r} has %{part}; expected a format made of "
        f"{', '.join(f'%{key}' for key in _DIRECTIVES)}, such as %Y%m%d%H."
      )
  if not {"Y", "y"} & set(directives[1::2]):
    raise errors.DataError(
      f"data.file_time={pattern!r} has no year; expected one such as %Y%m%d%H."
    )
  name = path if "/" in pattern else os.path.basename(path)
  # Digits beside it would belong to a longer number: another date.
  found = {match[0] for match in re.finditer(rf"(?<!\d){expression}(?!\d)", name)}
  dates = set()
  for text in found:
    with contextlib.suppress(ValueError):
      dates.add(datetime.datetime.strptime(text, pattern))
  if len(dates) != 1:
    several = " and ".join(sorted(found)) if dates else "no date"
    raise errors.DataError(
      f"{path}: the name has {several} of the form data.file_time={pattern!r}; "
      "expected one. Write what stands beside it into the format as well, such as "
      "rain_%Y%m%d."
    )
  return np.datetime64(dates.pop(), "us")


def single_date(dataset: xr.Dataset, given: str) -> xr.DataArray | None:
  """The one date of a file without a time dimension; None if it has none.

  Args:
    dataset: one file.
    given: data.time_variable, or "".
  """
  found = []
  for name, array in dataset.variables.items():
    if array.size != 1 or not is_date(array) or (given and name != given):
      continue
    standard = array.attrs.get("standard_name", "")
    start = re.search(r"reference|init|analysis|creat|_bnds", f"{name} {standard}")
    if start and not given:
      continue  # When a forecast began is not when it holds.
    names = ("valid_time", "time", "t", "date", "datetime")
    rank = names.index(str(name).lower()) if str(name).lower() in names else 9
    found.append((standard != "time", rank, str(name)))
  return dataset[min(found)[2]] if found else None


def is_date(array: Any) -> bool:
  """Whether an array holds dates of any calendar."""
  if array.dtype.kind == "M":
    return True
  # Dates of other calendars are objects (cftime).
  return (
    array.dtype.kind == "O"
    and array.size > 0
    and hasattr(np.asarray(array.values).flat[0], "calendar")
  )


def check_chunks(path: str, group: str, name: str, axis: int | None) -> None:
  """Refuses a Zarr array of which a chunk is cut off.

  Blosc, the usual compressor, reads on behind the end of such a chunk and gives
  whatever numbers lie there, so the length in each chunk's header is compared.

  Args:
    path: the Zarr's folder.
    group: the group in it, or "".
    name: the array.
    axis: which of its axes is time, for the message.

  Raises:
    DataError: naming the chunk, the variable and the frames.
  """
  folder = os.path.join(path, group.strip("/"), name)
  for file in (".zarray", "zarr.json"):
    if os.path.exists(os.path.join(folder, file)):
      with reading(folder, "its description"), open(os.path.join(folder, file)) as text:
        about = json.load(text)
      break
  else:
    return
  codec = about.get("compressor") or about.get("codecs") or {}
  codec = codec.get("id") if isinstance(codec, dict) else codec[-1].get("name")
  state = folder, os.stat(folder).st_mtime_ns
  if codec != "blosc" or state in _checked:
    return
  grid_of = about.get("chunk_grid", {}).get("configuration", {})
  shape = about.get("chunks") or grid_of.get("chunk_shape")
  for parent, _, names in os.walk(folder):
    for chunk in names:
      if not re.fullmatch(r"[\d.]+", chunk):
        continue
      where = os.path.join(parent, chunk)
      with open(where, "rb") as file:
        header = file.read(16)
      if len(header) == 16:
        stated, found = int.from_bytes(header[12:], "little"), os.path.getsize(where)
        if stated == found:
          continue
      else:
        stated, found = "more", len(header)
      frames = ""
      if axis is not None and shape:
        place = re.findall(r"\d+", os.path.relpath(where, folder))
        first = int(place[axis]) * shape[axis]
        frames = f", frames {first} to {first + shape[axis] - 1}"
      raise errors.DataError(
        f"{where}: variable {name!r}{frames} cannot be read (the chunk has {found} "
        f"bytes, but {stated} were written). Fetch or write it anew."
      )
  _checked.add(state)


# Axes of one file against those of the first.


def order(
  reference: xr.Dataset, dataset: xr.Dataset, dims: Sequence[str], path: str, first: str
) -> dict[str, np.ndarray]:
  """How the entries of a file are to be taken to have the axes of the first one.

  Args:
    reference: the first file.
    dataset: another file.
    dims: dimensions of the grid, and of levels.
    path: of the other file.
    first: path of the first one.

  Returns:
    For each dimension with entries in another order, which of them to take in
    turn. Latitudes may run the other way, longitudes may count from another
    origin, levels may be permuted: labels say it exactly.

  Raises:
    DataError: if entries have other values, naming file and coordinate.
  """
  found = {}
  sizes, other = ({d: ds.sizes.get(d) for d in dims} for ds in (reference, dataset))
  if sizes != other:
    raise errors.DataError(
      f"{path} has the grid {other}, but {first} has {sizes}. Expected one grid; "
      "keep what they share with data.select, or change data.path."
    )
  for dim in dims:
    known = [dim in ds.variables for ds in (reference, dataset)]
    if not all(known):
      if any(known):
        bare, other = (path, first) if known[0] else (first, path)
        say(
          f"{bare} has no coordinate {dim!r}, but {other} has: their entries are "
          "joined in the order in which they stand.",
          warn=True,
        )
      continue
    _same_units(reference[dim], dataset[dim], f"coordinate {dim!r}", path, first)
    taken = _matching(reference[dim], dataset[dim])
    if taken is None:
      raise _other_values(reference[dim], dataset[dim], dim, path, first)
    if (taken != np.arange(len(taken))).any():
      found[dim] = taken
      say(
        f"{path}: {dim!r} runs otherwise than in {first}; its entries are taken by "
        "their labels."
      )
  dataset = dataset.isel(found)
  here, there = (_places(ds, dims) for ds in (reference, dataset))
  for flips in ((), *((dim,) for dim in dims), tuple(dims)):
    turned = there.isel(dict.fromkeys(flips, slice(None, None, -1)))
    wrong = [
      name
      for name in here.variables
      if name in turned.variables and not _equal(here[name], turned[name])
    ]
    if not wrong:
      break
    if any(dim in reference.variables for dim in dims):
      break  # Their own labels say the order.
  if wrong:
    name = wrong[0]
    raise _other_values(reference[name], dataset[name], name, path, first)
  for dim in flips:
    found[dim] = np.arange(sizes[dim])[::-1]
    say(
      f"{path}: {dim!r} runs otherwise than in {first} by its coordinates "
      f"{', '.join(map(str, here.variables))}, and is turned."
    )
  return found


def _places(dataset: xr.Dataset, dims: Sequence[str]) -> xr.Dataset:
  """Positions on the grid that are no coordinates of a dimension."""
  names = [
    name
    for name, array in grid.coordinates(dataset, dims).variables.items()
    if name in dataset.variables and name not in dims and array.dims
  ]
  return xr.Dataset({name: dataset[name].variable for name in names})


def _equal(one: xr.DataArray, other: xr.DataArray) -> bool:
  if set(one.dims) != set(other.dims):
    return False
  here, there = one.values, other.transpose(*one.dims).values
  if here.dtype.kind not in "iuf" or there.dtype.kind not in "iuf":
    return here.shape == there.shape and (_texts(here) == _texts(there)).all()
  apart = there.astype(np.float64) - here.astype(np.float64)
  if is_longitude(one):
    apart = (apart + 180) % 360 - 180
  scale = np.nanmax(np.abs(here), initial=0.0)
  return bool(
    (np.isnan(here) == np.isnan(there)).all()
    and (np.abs(np.nan_to_num(apart)) <= 1e-6 * scale + 1e-12).all()
  )


def _matching(one: xr.DataArray, other: xr.DataArray) -> np.ndarray | None:
  """The entries of `other` in the order of `one`; None if they differ."""
  here, there = one.values, other.values
  count = len(here)
  if here.dtype.kind not in "iuf" or there.dtype.kind not in "iuf":
    here, there = _texts(here), _texts(there)
    if (here == there).all():
      return np.arange(count)
    ranks = [np.argsort(values, kind="stable") for values in (here, there)]
    unique = len(set(here.tolist())) == count
    if not unique or (here[ranks[0]] != there[ranks[1]]).any():
      return None
  else:
    here, there = here.astype(np.float64), there.astype(np.float64)
    steps = np.diff(np.unique(here))
    spacing = steps.min() if len(steps) else max(abs(here[0]), 1e-6) if count else 1.0
    # Coordinates are often rounded to single precision in one of the files.
    allowed = min(
      0.25 * spacing, max(0.01 * spacing, 4e-7 * np.abs(here).max(initial=0))
    )
    if (np.abs(here - there) <= allowed).all():
      return np.arange(count)
    if is_longitude(one):
      origin = here.min() - 10 * allowed
      here, there = (here - origin) % 360, (there - origin) % 360
    ranks = [np.argsort(values, kind="stable") for values in (here, there)]
    ordered = here[ranks[0]]
    if (np.abs(ordered - there[ranks[1]]) > allowed).any():
      return None
    if (np.diff(ordered) <= 2 * allowed).any():
      return None  # Two entries with the same label: which is which?
  taken = np.empty(count, int)
  taken[ranks[0]] = ranks[1]
  return taken


def is_longitude(array: xr.DataArray) -> bool:
  """Whether an array holds longitudes, in degrees."""
  return (
    str(array.name).lower() in _LONGITUDE_NAMES
    or array.attrs.get("standard_name") == "longitude"
    or str(array.attrs.get("units", "")).lower().startswith(("degrees_e", "degree_e"))
  )


def _texts(values: np.ndarray) -> np.ndarray:
  return np.array(
    [v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel().tolist()],
    object,
  ).reshape(values.shape)


def _other_values(one, other, name, path, first) -> errors.DataError:
  here, there = one.values, other.values
  if here.shape == there.shape and here.size:
    differ = here != there
    if here.dtype.kind in "iuf" and there.dtype.kind in "iuf":
      differ = ~np.isclose(here, there, rtol=1e-6, equal_nan=True)
    place = tuple(np.argwhere(differ)[0].tolist()) if differ.any() else ()
    entry = f"entry {place[0] if len(place) == 1 else place} is "
    entry += f"{there[place]} there and {here[place]} here"
  else:
    entry = f"it has the sizes {dict(other.sizes)} there and {dict(one.sizes)} here"
  return errors.DataError(
    f"{path}: coordinate {name!r} is not that of {first}: {entry}. Expected the same "
    "grid and levels in every file: interpolate one of them, keep what they share "
    f"with data.select.{name}, or change data.path."
  )


def check_variable(
  one: xr.DataArray, other: xr.DataArray, free: Sequence[str], path: str, first: str
) -> None:
  """Raises DataError unless a variable is the same quantity in two files.

  Args:
    one: of the first file.
    other: of another file.
    free: dimensions that either may lack, such as time.
    path: of the other file.
    first: path of the first one.
  """
  name = one.name
  here, there = (set(array.dims) - set(free) for array in (one, other))
  if here != there:
    raise errors.DataError(
      f"{path}: variable {name!r} has the dimensions "
      f"{', '.join(map(str, other.dims))}, but {', '.join(map(str, one.dims))} in "
      f"{first}. Expected the same in every file; change data.path."
    )
  _same_units(one, other, f"variable {name!r}", path, first)
  for key in set(one.coords) & set(other.coords):
    a, b = one.coords[key], other.coords[key]
    level = str(key).lower() in _LEVEL_NAMES or "positive" in a.attrs
    if a.ndim or b.ndim or is_date(a) or a.dtype.kind == "m" or not level:
      continue
    if _texts(a.values) != _texts(b.values):
      raise errors.DataError(
        f"{path}: variable {name!r} is at {key} {b.item()}, but at {key} {a.item()} "
        f"in {first}. Expected one {key} in all files; change data.path."
      )


def _same_units(one, other, what, path, first) -> None:
  here, there = one.attrs.get("units"), other.attrs.get("units")
  if (here is None) != (there is None):
    say(
      f"{path if there is None else first}: {what} states no units, but in "
      f"{first if there is None else path} they are {there or here!r}; the values are "
      "joined as they stand.",
      warn=True,
    )
  elif here is not None and _unit(here) != _unit(there):
    raise errors.DataError(
      f"{path}: {what} is in {there!r}, but in {here!r} in {first}. Expected the same "
      "units in every file: convert one of them, or change data.path."
    )


_UNIT_NAMES = {
  name: unit
  for unit, names in {
    "degC": "degc celsius deg_c degree_c degrees_c °c degree_celsius degrees_celsius",
    "K": "kelvin degk deg_k degrees_k",
    "m": "meter meters metre metres",
    "s": "sec second seconds",
    "h": "hr hrs hour hours",
    "min": "minute minutes",
    "%": "percent",
    "hPa": "mb mbar millibar millibars hpa hectopascal",
    "Pa": "pascal pascals",
    "degrees_north": "degree_north degrees_n degree_n degreen degreesn",
    "degrees_east": "degree_east degrees_e degree_e degreee degreese",
    "1": "- dimensionless unitless none",
  }.items()
  for name in names.split()
}


def _unit(text: Any) -> tuple[str, ...]:
  """Units without the ways of writing them: m/s, m s-1, m s**-1 are the same."""
  words = []
  for number, part in enumerate(re.sub(r"\*\*|\^|\(|\)", "", str(text)).split("/")):
    for word in re.split(r"[\s·*]+", part.strip()):
      base_name, power = re.fullmatch(r"(.*?)([+-]?\d+)?", word).groups()
      if not base_name:
        words += [word] if word and word != "1" else []
        continue
      base_name = _UNIT_NAMES.get(base_name.lower(), base_name)
      exponent = int(power or 1) * (-1 if number else 1)
      words.append(f"{base_name}{exponent}" if exponent != 1 else base_name)
  return tuple(sorted(words)) or ("1",)


# Frames of several files, one after the other.


@dataclasses.dataclass
class Part:
  """The frames of one file.

  Attributes:
    file: its number.
    frames: how many.
    times: int64 [frames], or None without dates.
    rank: int [frames] or None; of two frames of one time the lowest is kept.
  """

  file: int
  frames: int
  times: np.ndarray | None
  rank: np.ndarray | None = None


def join(
  parts: Sequence[Part],
  files: Sequence[str],
  same: Callable[[tuple[int, int], tuple[int, int]], bool],
  date: Callable[[int], str] = str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """Where each frame of a sequence lies that goes on from file to file.

  Args:
    parts: the files' frames, in natural order of the files.
    files: the files' paths.
    same: whether the frames (file, frame) and (file, frame) hold the same values.
    date: writes a time, for messages.

  Returns:
    int32 [L] files, int32 [L] frames in them, and int64 [L] times, or None where no
    file has dates: the files then follow each other as they came.

  Raises:
    DataError: if only some have dates, or two files have other values for one time.
  """
  parts = [part for part in parts if part.frames] or list(parts[:1])
  bare = [part for part in parts if part.times is None]
  if bare and len(bare) < len(parts):
    dated = next(part for part in parts if part.times is not None)
    raise errors.DataError(
      f"{files[bare[0].file]} has no dates, but {files[dated.file]} has. Expected "
      "them in all files or in none; change data.path, or give data.file_time if the "
      "names have them."
    )
  if bare:
    if len(parts) > 1:
      names = [os.path.basename(files[part.file]) for part in parts]
      shown = ", ".join(
        names[:4] + (["..."] if len(names) > 5 else []) + names[4:][-1:]
      )
      say(
        f"The {len(names)} files have no dates, and follow one another in this order: "
        f"{shown}. If the names hold dates, give data.file_time."
      )
    return (*_places_of(parts), None)

  def reach(part):
    known = part.times[part.times != _NO_TIME]
    return (int(known.min()), int(known.max())) if len(known) else (_NO_TIME, _NO_TIME)

  parts = sorted(parts, key=reach)
  where, frames = _places_of(parts)
  times = np.concatenate([part.times for part in parts])
  rank = np.concatenate(
    [np.zeros(part.frames, int) if part.rank is None else part.rank for part in parts]
  )
  reaches = [reach(part) for part in parts]
  latest = np.maximum.accumulate([last for _, last in reaches])
  overlap = any(
    first <= before and first != _NO_TIME
    for (first, _), before in zip(reaches[1:], latest[:-1], strict=True)
  )
  if not overlap and not rank.any():
    return where, frames, times
  by_time = np.lexsort((where, rank, times))
  where, frames, times, rank = (v[by_time] for v in (where, frames, times, rank))
  again = np.flatnonzero(np.diff(times) == 0) + 1
  again = again[times[again] != _NO_TIME]
  dropped = np.zeros(len(times), bool)
  equal: dict[tuple[int, int], list[int]] = {}
  for place in again:
    kept = place - 1
    while dropped[kept]:
      kept -= 1
    if rank[kept] < rank[place]:
      dropped[place] = True
    elif where[kept] != where[place]:
      pair = (
        (int(where[kept]), int(frames[kept])),
        (int(where[place]), int(frames[place])),
      )
      if not same(*pair):
        raise errors.DataError(
          f"{files[where[kept]]} and {files[where[place]]} both have a frame at "
          f"{date(int(times[place]))}, with other values. Expected each time once: "
          "leave one of the files out of data.path, or cut it."
        )
      dropped[place] = True
      equal.setdefault((pair[0][0], pair[1][0]), []).append(place)
  for (one, other), places in equal.items():
    say(
      f"{files[one]} and {files[other]} share {len(places)} frames with equal values "
      f"from {date(int(times[places[0]]))} on; each is taken once."
    )
  kept = ~dropped
  return where[kept], frames[kept], times[kept]


def _places_of(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
  where = np.repeat([part.file for part in parts], [part.frames for part in parts])
  frames = np.concatenate([np.arange(part.frames) for part in parts])
  return where.astype(np.int32), frames.astype(np.int32)


def version_rank(dataset: xr.Dataset, dim: str, frames: int) -> np.ndarray | None:
  """How preliminary each frame is by its `expver`: 1 is final, 5 is not yet.

  Args:
    dataset: one file.
    dim: the time dimension.
    frames: how many there are.

  Returns:
    int [frames], or None where the file has no expver on its time axis.
  """
  if "expver" not in dataset.variables:
    return None
  array = dataset["expver"]
  if array.dims not in ((), (dim,)):
    return None
  numbers = [int(re.sub(r"\D", "", text) or 0) for text in _texts(array.values.ravel())]
  return np.broadcast_to(np.array(numbers, int)[:frames], frames).copy()


def versions(values: np.ndarray) -> list[int]:
  """Positions of the entries of an expver axis, the final one first."""
  texts = _texts(np.asarray(values))
  numbers = [int(re.sub(r"\D", "", text) or 0) for text in texts]
  return sorted(range(len(numbers)), key=lambda i: (numbers[i], texts[i]))


def runs(files: np.ndarray, frames: np.ndarray) -> Iterator[tuple[int, slice]]:
  """Frames in a row that lie in a row in one file: (file, frames of the file)."""
  if not len(files):
    return
  breaks = np.flatnonzero((np.diff(files) != 0) | (np.diff(frames) != 1)) + 1
  for piece in np.split(np.arange(len(files)), breaks):
    first = int(frames[piece[0]])
    yield int(files[piece[0]]), slice(first, first + len(piece))
