"""Preference pairs: a chosen and a rejected forecast of a window.

They are made by `--mode=prefer` and lie in one folder:

    manifest.json      what was drawn, from which model and data, and every pair
    candidates.zarr    an array for each split, float32 [window, candidate, T_out,
                       H, W, C] in normalised units, a chunk for each window

Numbers of candidates in the manifest point into the arrays; the number that follows
the last one is the mean of all. A pair that was chosen
frame by frame has a number for each frame.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr

from input_pipeline import errors, normalise, options

MANIFEST = "manifest.json"
CANDIDATES = "candidates.zarr"
FORMAT = 1
# The keys of data that decide which windows there are and what they hold.
_DATA = (
  "store",
  "variables",
  "history",
  "horizon",
  "stride",
  "transform",
  "resample",
  "split",
)


def about_data(resolved: Mapping[str, Any]) -> dict[str, Any]:
  """The part of a resolved data config that pairs depend on, as plain values."""
  made = {key: resolved[key] for key in _DATA if key in resolved}
  return json.loads(json.dumps(made))


def fingerprint(labels: xr.Dataset) -> str:
  """A short name for the windows of a split.

  Args:
    labels: their names and first frames; see `input_pipeline.Split`.
  """
  return options.digest(
    labels.sample_id.values.astype(str).tolist(), labels.start.values.tolist()
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """The pairs of one split.

  Attributes:
    folder: where they lie.
    split: name of the split.
    numbers: {window: (row of the array, chosen, rejected)}, where each of the two is
      the number of a candidate, or [T_out] such numbers.
    windows: number of windows that candidates were drawn for.
    manifest: all that was written down.
  """

  folder: str
  split: str
  numbers: Mapping[int, tuple[int, Any, Any]]
  windows: int
  manifest: Mapping[str, Any]

  def read(self, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The chosen and the rejected forecast [T_out, H, W, C] of a window.

    Raises:
      DataError: the array cannot be read.
    """
    row, *numbers = self.numbers[window]
    try:
      candidates = _array(self.folder, self.split)[row]
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
      raise errors.DataError(
        f"{os.path.join(self.folder, CANDIDATES)}, split {self.split!r}: the"
        f" candidates of window {window} cannot be read ({error}). Run --mode=prefer"
        " again to have them drawn again."
      ) from error
    return tuple(_pick(candidates, number) for number in numbers)


def _pick(candidates, number):
  """A candidate by its number, of which the one past the last is their mean."""
  if np.max(number) == len(candidates):
    mean = candidates.mean(0, keepdims=True)
    candidates = np.concatenate([candidates, mean])
  if isinstance(number, int):
    return candidates[number]
  return candidates[np.asarray(number), np.arange(len(number))]


@functools.lru_cache(maxsize=8)
def _array(folder: str, split: str) -> zarr.Array:
  """Opened once in each process: workers do not share open files."""
  return zarr.open_group(os.path.join(folder, CANDIDATES), mode="r")[split]


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
  """What a folder of pairs says of itself.

  Raises:
    DataError: it is no such folder, or an earlier or later version wrote it.
  """
  path = pathlib.Path(folder) / MANIFEST
  try:
    manifest = json.loads(path.read_text())
    if manifest["format"] != FORMAT:
      raise ValueError(f"format {manifest['format']}, where {FORMAT} is read")
  except FileNotFoundError as error:
    raise errors.DataError(
      f"data.pairs={str(folder)!r}: there is no {path.absolute()}. Give the folder"
      " WORKDIR/preferences/NAME that --mode=prefer has made."
    ) from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.DataError(
      f"data.pairs={str(folder)!r}: {path} cannot be read ({error}). Run --mode=prefer"
      " again."
    ) from error
  return manifest


def read(folder: str, split: str) -> Pairs | None:
  """The pairs of a split; None where none were drawn for it.

  Args:
    folder: data.pairs.
    split: "train" for the split that training reads, or the name of one.

  Raises:
    DataError: there are no pairs.
  """
  manifest = read_manifest(folder)
  name = next(iter(manifest["splits"])) if split == "train" else split
  if name not in manifest["splits"]:
    return None
  section = manifest["splits"][name]
  numbers = {
    pair["window"]: (pair["row"], pair["chosen"], pair["rejected"])
    for pair in section["pairs"]
  }
  if not numbers:
    raise errors.DataError(
      f"data.pairs={folder!r} has no pair for the {name} split: of"
      f" {section['windows']} windows {_dropped(section)}. Draw more or more different"
      " candidates (prefer.candidates), or use another score (prefer.scores)."
    )
  return Pairs(os.path.abspath(folder), name, numbers, section["windows"], manifest)


def _dropped(section) -> str:
  return ", ".join(f"{count} {why}" for why, count in section["dropped"].items())


def check(
  pairs: Pairs,
  resolved: Mapping[str, Any],
  labels: xr.Dataset,
  statistics: normalise.Statistics,
) -> None:
  """Refuses pairs of other data, windows or statistics.

  Args:
    pairs: the pairs.
    resolved: the data config that they are to be used with.
    labels: of all windows of their split.
    statistics: of the training split.

  Raises:
    DataError: names the key in which the two differ, with both values.
  """

  def differs(what, theirs, ours):
    return errors.DataError(
      f"data.pairs={pairs.folder!r} was drawn with {what}={theirs}, but here it is"
      f" {ours}. Use the config of the run that drew the pairs, or draw them again with"
      " --mode=prefer."
    )

  ours = about_data(resolved)
  theirs = pairs.manifest["data"]
  for key in sorted(ours.keys() | theirs.keys()):
    if ours.get(key) != theirs.get(key):
      raise differs(f"data.{key}", theirs.get(key), ours.get(key))
  found = pairs.manifest["statistics"]
  for field in ("offset", "scale"):
    one, other = np.asarray(found[field]), getattr(statistics, field)
    if not np.allclose(one, other, rtol=1e-6, atol=0):
      raise differs(
        f"the {field} of the statistics", one.tolist(), np.asarray(other).tolist()
      )
  theirs = pairs.manifest["splits"][pairs.split]["fingerprint"]
  if theirs != fingerprint(labels):
    raise errors.DataError(
      f"data.pairs={pairs.folder!r} was drawn for other windows of the {pairs.split}"
      " split than the data have now: files were added, taken away or renamed. Draw"
      " them again with --mode=prefer."
    )
