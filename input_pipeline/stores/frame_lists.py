"""Sequences kept as folders of numbered frame files, or listed in a JSON file.

A directory of samples looks like

  DIR/<sample>/0.npy, 1.npy, 2.npy, ...

or has images in it (frame_1.png, frame_2.png, ...), or is itself the folder of one
sample's frames; and a loader JSON names the files of every sample and the split it
belongs to:

  {"train": {"ratio": 0.7, "samples": [["a/0.npy", "a/1.npy", ...], ...]},
   "validation": {...}, "test": {...}, "id": "..."}

Both layouts are those of simvp_minimal (CCU-LANL-AIML); `python -m
input_pipeline.loader_json` writes the second from the first.
"""

import collections
import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from absl import logging

from input_pipeline.errors import DataError
from input_pipeline.stores import images

SPLITS = ("train", "validation", "test")
RANDOM_START = -1

_ARRAY_SUFFIXES = (".npy", ".npz")
_FRAME_SUFFIXES = (*_ARRAY_SUFFIXES, *images.SUFFIXES)
_PICKLE_SUFFIXES = (".pkl", ".pickle")


class ShortSampleWarning(UserWarning):
  """Samples were left out because they hold too few frames."""


@dataclasses.dataclass(frozen=True)
class Sample:
  """One sample: its name and its frames in reading order.

  A frame is a file, or the frame itself (nested lists) where a loader JSON
  holds it inline. The split is None where the layout names none.
  """

  sample_id: str
  frames: tuple[pathlib.Path | list, ...]
  split: str | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which frames of a sample are taken.

  Attributes:
    total_length: frames taken; 0 takes all from the start index on.
    sample_start_index: first frame taken, or -1 for a random one per sample.
    init_final_only: whether only the first and the last of the frames taken
      are kept.
    reverse: whether time runs backwards.
  """

  total_length: int = 0
  sample_start_index: int = 0
  init_final_only: bool = False
  reverse: bool = False

  def __post_init__(self):
    if self.total_length < 0:
      raise DataError(
        f"total_length must be 0 (all frames) or more, but is {self.total_length}."
      )
    if self.sample_start_index < RANDOM_START:
      raise DataError(
        "sample_start_index must be -1 (random) or more, but is "
        f"{self.sample_start_index}."
      )
    if self.init_final_only and self.total_length == 1:
      raise DataError(
        "init_final_only needs a first and a last frame, but total_length "
        "is 1; use 0 (all frames) or at least 2."
      )

  def frames_needed(self) -> int:
    """The fewest frames that a sample must have to be used."""
    length = self.total_length or (2 if self.init_final_only else 1)
    return max(self.sample_start_index, 0) + length

  def apply(self, frames: Sequence, random: np.random.RandomState) -> tuple:
    """The chosen ones of at least frames_needed() frames."""
    length = self.total_length
    start = self.sample_start_index
    if start == RANDOM_START:
      start = random.randint(0, len(frames) - length + 1) if length else 0
    chosen = tuple(frames[start : start + length if length else None])
    if self.init_final_only:
      chosen = (chosen[0], chosen[-1])
    return chosen[::-1] if self.reverse else chosen


def list_samples(
  path: str | os.PathLike,
  selection: Selection,
  *,
  num_samples: int = 0,
  random: np.random.RandomState,
) -> list[Sample]:
  """Lists a directory of sample folders, sorted by name.

  Samples with too few frames are left out with one ShortSampleWarning.

  Args:
    path: the directory.
    selection: the frames wanted of every sample.
    num_samples: how many samples are drawn without replacement; 0 keeps all.
    random: draws the samples first, then the start of each, in sorted order.

  Returns:
    The samples, none of them empty, without split names.

  Raises:
    DataError: if the path is no directory of sample folders, frames are
      pickled, misnumbered or missing, or no sample is long enough.
  """
  directory = pathlib.Path(path)
  if not directory.is_dir():
    raise DataError(
      f"data.path must be a directory of sample folders, but {directory} is "
      f"{'a file' if directory.exists() else 'not there'}."
    )
  folders = sorted(
    entry
    for entry in directory.iterdir()
    if entry.is_dir() and not entry.name.startswith(".")
  )
  loose = [file for file in directory.iterdir() if _is_frame(file)]
  inside = [file for folder in folders for file in folder.iterdir()]
  if loose and not any(map(_is_frame, inside)):
    folders = [directory]
  elif loose:
    logging.warning(
      "%s holds sample folders, which are read, and %d frames beside them (%s, ...),"
      " which are not.",
      directory,
      len(loose),
      min(file.name for file in loose),
    )
  if not folders:
    raise DataError(
      f"{directory} holds no sample folders; each sample is a folder of "
      f"0.npy, 1.npy, ... or of images. {_others(directory.iterdir())}Change data.path."
    )
  if not any(_is_frame(f) or f.suffix in _PICKLE_SUFFIXES for f in inside + loose):
    raise DataError(
      f"The folders of {directory} hold no frames: {_others(inside)}Expected files of"
      f" {', '.join(_FRAME_SUFFIXES)}; change data.path."
    )
  if num_samples < 0:
    raise DataError(f"num_samples must be 0 (all) or more, not {num_samples}.")
  if 0 < num_samples < len(folders):
    drawn = random.choice(len(folders), num_samples, replace=False)
    folders = [folders[index] for index in sorted(drawn)]
  samples = [Sample(folder.name, tuple(_frame_files(folder))) for folder in folders]
  return _select(samples, selection, random, str(directory))


def read_loader_json(
  path: str | os.PathLike, selection: Selection, *, random: np.random.RandomState
) -> list[Sample]:
  """Lists the samples of a loader JSON, split by split, in the file's order.

  Relative frame paths are looked up beside the file, then in the working
  directory, then in the directories above the file (where a file that was
  written from a parent directory has them).

  Args:
    path: the JSON file.
    selection: the frames wanted of every sample's list.
    random: draws the start of each sample where the selection asks for it.

  Returns:
    The samples with their split names.

  Raises:
    DataError: if the file is no loader JSON, a frame is absent or pickled, or
      no sample is long enough.
  """
  file = pathlib.Path(path)
  try:
    content = json.loads(file.read_text())
  except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise DataError(
      f"data.path {file} cannot be read as a loader JSON: {error}"
    ) from error
  if not isinstance(content, dict) or not set(SPLITS) & set(content):
    raise DataError(
      f"{file} is no loader JSON: it must be an object with at least one of "
      f"the keys {', '.join(SPLITS)}."
    )
  samples = []
  uses = collections.Counter()
  for split in SPLITS:
    if split not in content:
      continue
    try:
      entries = [list(entry) for entry in content[split]["samples"]]
    except (KeyError, TypeError) as error:
      raise DataError(
        f'{file}: "{split}" must hold "samples", a list of lists of frame files.'
      ) from error
    for number, entry in enumerate(entries):
      frames = tuple(_resolve(entry, file))
      name = f"{split}_{number}"
      if frames and isinstance(frames[0], pathlib.Path):
        name = frames[0].parent.name
      uses[name] += 1
      if uses[name] > 1:  # Two windows of one folder stay apart by name.
        name = f"{name}_{uses[name]}"
      samples.append(Sample(name, frames, split))
  return _select(samples, selection, random, str(file))


def _is_frame(file: pathlib.Path) -> bool:
  hidden = file.name.startswith(".")
  return not hidden and file.suffix.lower() in _FRAME_SUFFIXES and file.is_file()


def _others(files) -> str:
  """Says what else there is."""
  files = [file for file in files if not file.name.startswith(".")]
  if folders := [file.name for file in files if file.is_dir()]:
    return f"There are further folders, such as {min(folders)}. "
  suffixes = sorted({file.suffix or file.name for file in files})
  return f"{', '.join(suffixes[:5])} found. " if suffixes else ""


def _frame_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The frame files of a sample, by number."""
  files = [file for file in folder.iterdir() if file.is_file()]
  frames = [file for file in files if _is_frame(file)]
  if not frames:
    for file in files:
      _refuse_pickle(file)
    return []
  pictures = [file for file in frames if file.suffix.lower() in images.SUFFIXES]
  arrays = [file for file in frames if file.suffix.lower() in _ARRAY_SUFFIXES]
  if pictures and arrays:
    taken, left = (arrays, pictures)
    if len(pictures) > len(arrays):
      taken, left = (pictures, arrays)
    logging.warning(
      "%s holds arrays and images: %s, ... are read as its frames; %s, ... not.",
      folder,
      min(file.name for file in taken),
      min(file.name for file in left),
    )
    frames = taken
  if frames[0].suffix.lower() in images.SUFFIXES:
    return images.in_order(frames)
  try:
    numbered = sorted((int(file.stem), file) for file in frames)
  except ValueError as error:
    raise DataError(
      f"Frame files must be named by their number, like 0.npy or 12.npz, but "
      f"in {folder} one is not: {error}"
    ) from error
  numbers = [number for number, _ in numbered]
  expected = list(range(numbers[0], numbers[0] + len(numbers)))
  if numbers != expected:
    raise DataError(
      f"The frames of {folder} must be numbered without gaps or doubles, but "
      f"the numbers are {numbers}."
    )
  return [file for _, file in numbered]


def _refuse_pickle(file: pathlib.Path) -> None:
  if file.suffix in _PICKLE_SUFFIXES:
    raise DataError(
      f"{file} is a pickle, which can run any program when it is opened, so "
      'it is not read. Convert files that you trust once: python -c "import '
      "pickle, numpy; numpy.save('0.npy', pickle.load(open('0.pkl', 'rb')))\""
    )


def _resolve(entry: list, file: pathlib.Path) -> list[pathlib.Path | list]:
  """Turns the frames of one JSON entry into files or inline frames."""
  named = [pathlib.Path(frame) for frame in entry if isinstance(frame, str)]
  for frame in named:
    _refuse_pickle(frame)
    if frame.suffix.lower() not in _FRAME_SUFFIXES:
      raise DataError(
        f"{file} names {frame}, but frames must be .npy or .npz files or images"
        f" ({', '.join(images.SUFFIXES)})."
      )
  bases = [file.parent, pathlib.Path(), *file.resolve().parent.parents]
  base = next((base for base in bases if named and (base / named[0]).is_file()), None)
  if named and base is None:
    raise DataError(
      f"{file} names {named[0]}, which is neither beside it, nor in the "
      "working directory, nor in a directory above. Start from the directory "
      "where the file was written, or write it again with python -m "
      "input_pipeline.loader_json."
    )
  frames = [base / frame if isinstance(frame, str) else frame for frame in entry]
  for frame in frames:
    if isinstance(frame, pathlib.Path) and not frame.is_file():
      raise DataError(f"{file} names {frame}, which does not exist.")
  return frames


def _select(
  samples: list[Sample], selection: Selection, random: np.random.RandomState, where: str
) -> list[Sample]:
  """Cuts every sample to the selection and leaves out the short ones."""
  needed = selection.frames_needed()
  kept = [
    dataclasses.replace(sample, frames=selection.apply(sample.frames, random))
    for sample in samples
    if len(sample.frames) >= needed
  ]
  short = [s.sample_id for s in samples if len(s.frames) < needed]
  what = (
    f"{len(short)} of {len(samples)} samples of {where} hold fewer than the "
    f"{needed} frames that sample_start_index {selection.sample_start_index} "
    f"and total_length {selection.total_length} ask for"
  )
  if not kept:
    raise DataError(
      f"{what}, so none is left. Change data.total_length, "
      "data.sample_start_index or data.path."
    )
  if short:
    names = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
    warnings.warn(f"{what}; left out: {names}", ShortSampleWarning, stacklevel=4)
  return kept
