"""HKO-7: radar images of Hong Kong, every six minutes.

Format: Shi et al. 2017, "Deep learning for precipitation nowcasting: a benchmark and
a new model" (NeurIPS), and its repository sxjscience/HKO-7.
"""

import dataclasses
import os
import re
import zlib

import numpy as np
import PIL.Image
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base, moments, npz, split_lists

UNITS = {"pixel": "1", "dbz": "dBZ", "rain_rate": "mm h-1"}
EXCLUDED = ("missing", "zero")
# Z = 58.53 R^1.56.
_Z_FACTOR, _Z_EXPONENT = 58.53, 1.56
_FOLDER, _MASKS = "radarPNG", "radarPNG_mask"
_FRAME = re.compile(r"RAD(\d{10})00\.png")


@dataclasses.dataclass(frozen=True)
class _Sequence:
  """The frames of a day, or a block of a list."""

  name: str
  times: np.ndarray  # Seconds since 1970.
  split: str | None


class Hko7Store(base.Store):
  """Radar images of HKO-7: `data.store = "hko7"`.

  The images are 8-bit grey PNG files radarPNG/YYYY/MM/DD/RADyymmddHHMM00.png. Each
  day that is there, or in a list, is a sequence. A frame that is missing leaves a
  gap, which no window crosses. Times are those of the files' names, which are local.

  Lists name days ("20090328, 0.31": day and intensity) or single frames
  (200903281206, or a date with other signs between, or a file's name). Pickled
  lists are not read.

  Args:
    path: the folder radarPNG, or the one that holds it.
    train_list: a text file with the days, or the frames, of the training split, one
      a line. What is in no list is left out.
    validation_list: the same of the validation split.
    test_list: the same of the test split.
    block: how many frames of a list make a sequence; 0 makes one of each whole list
      of frames. Not used for days.
    units: "pixel" (0 to 255, as in the files), "dbz" (70 pixel / 255 - 10) or
      "rain_rate" (mm/h, by Z = 58.53 R^1.56).
    exclude_mask: an .npz file such as mask_dat.npz, whose array exclude_mask
      [row, column] is 1 where no value counts; "" for none.
    frame_masks: the folder of a .mask file for each frame (zlib, one byte a cell, 0
      where the value is noise); "auto" is radarPNG_mask beside radarPNG, if it is
      there; "" for none. A frame without such a file is taken whole.
    excluded: what the masks make of a cell: "missing" (data.missing="mask"), or
      "zero" for pixel 0 as in published work.

  Raises:
    DataError: if a file, a list or an option cannot be used.
  """

  has_events = True

  def __init__(
    self,
    path: str = "",
    train_list: str = "",
    validation_list: str = "",
    test_list: str = "",
    block: int = 0,
    units: str = "pixel",
    exclude_mask: str = "",
    frame_masks: str = "auto",
    excluded: str = "missing",
  ):
    errors.pick("data.units", units, UNITS)
    errors.pick("data.excluded", excluded, EXCLUDED)
    if not isinstance(block, int) or block < 0:
      raise errors.DataError(f"data.block={block!r}; expected a whole number from 0.")
    self._units = units
    self._excluded = np.float32(np.nan if excluded == "missing" else 0)
    self.variables = (base.Variable("radar", {"units": UNITS[units]}),)
    folder = base.existing_path(path)
    inner = os.path.join(folder, _FOLDER)
    self._folder = inner if os.path.isdir(inner) else folder
    if frame_masks == "auto":
      frame_masks = os.path.join(os.path.dirname(self._folder), _MASKS)
      frame_masks = frame_masks if os.path.isdir(frame_masks) else ""
    self._masks = base.existing_path(frame_masks) if frame_masks else ""
    lists = split_lists.read(
      {"train": train_list, "validation": validation_list, "test": test_list}
    )
    days = _Days(self._folder)
    if not lists:
      self._sequences = [_Sequence(day, days[day], None) for day in days.found()]
    elif all(_is_day(name) for name in lists):
      self._sequences = [_Sequence(d, days.listed(d), s) for d, s in lists.items()]
    else:
      self._sequences = _blocks(lists, block, days)
    self.num_sequences = len(self._sequences)
    # The folders stand for the images in them, of which there are too many to ask.
    self.files = tuple(sorted(days.read))
    self._shape = _image(self._path(self._sequences[0].times[0])).shape
    self._kept = np.ones(self._shape, bool)
    if exclude_mask:
      exclude_mask = base.existing_path(exclude_mask)
      self._kept = npz.read(exclude_mask, "exclude_mask") == 0
      self.files += (exclude_mask,)
      if self._kept.shape != self._shape:
        raise errors.DataError(
          f"{exclude_mask}: exclude_mask has the shape {self._kept.shape}, but the "
          f"images have {self._shape}."
        )

  @property
  def space(self) -> xr.Dataset:
    return base.index_space(*self._shape)

  def length(self, sequence: int) -> int:
    return len(self._sequences[sequence].times)

  def times(self, sequence: int) -> np.ndarray | None:
    return self._sequences[sequence].times * moments.SECOND

  def sample_id(self, sequence: int) -> str:
    return self._sequences[sequence].name

  def event(self, sequence: int) -> str:
    """The day, of which several blocks of a list may be parts."""
    return self.sample_id(sequence)[:8]

  def split_label(self, sequence: int) -> str | None:
    return self._sequences[sequence].split

  def location(self, sequence: int) -> str:
    first = self._path(self._sequences[sequence].times[0])
    return f"{first} and the {self.length(sequence) - 1} images after it"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    return self.read_every(sequence, start, stop, 1)

  def read_every(self, sequence: int, start: int, stop: int, every: int) -> np.ndarray:
    times = self._sequences[sequence].times[start:stop:every]
    frames = np.empty((len(times), *self._shape, 1), np.float32)
    for frame, seconds in zip(frames[..., 0], times, strict=True):
      path = self._path(seconds)
      pixels = _image(path)
      if pixels.shape != self._shape:
        raise errors.DataError(
          f"{path} has {pixels.shape} rows and columns, but the first image has "
          f"{self._shape}."
        )
      frame[...] = np.where(self._counts(seconds), pixels, self._excluded)
    return _in_units(frames, self._units)

  def _path(self, seconds: int) -> str:
    moment = np.datetime64(int(seconds), "s").item()
    return os.path.join(
      self._folder, f"{moment:%Y/%m/%d}", f"RAD{moment:%y%m%d%H%M}00.png"
    )

  def _counts(self, seconds: int) -> np.ndarray:
    """Where a frame has values, bool [H, W]."""
    if not self._masks:
      return self._kept
    name = os.path.relpath(self._path(seconds), self._folder)
    path = os.path.join(self._masks, name.removesuffix(".png") + ".mask")
    if not os.path.exists(path):
      return self._kept
    cells = int(np.prod(self._shape))
    try:
      with open(path, "rb") as file:
        # One byte more than there should be, so that a longer one is seen.
        content = zlib.decompressobj().decompress(file.read(), cells + 1)
    except (OSError, zlib.error) as error:
      raise errors.DataError(f"{path} is no compressed mask ({error}).") from error
    if len(content) != cells:
      raise errors.DataError(
        f"{path} does not hold one byte for each of {self._shape} cells."
      )
    return self._kept & (np.frombuffer(content, np.uint8) != 0).reshape(self._shape)


class _Days:
  """The times of the images of each day, int64 seconds since 1970."""

  def __init__(self, folder: str):
    self._folder = folder
    self._times: dict[str, np.ndarray] = {}
    self.read: list[str] = []

  def found(self) -> list[str]:
    """The days that have images, as YYYYMMDD.

    Raises:
      DataError: if there is none.
    """
    days = [
      year + month + day
      for year in _numbered(self._folder, 4)
      for month in _numbered(os.path.join(self._folder, year), 2)
      for day in _numbered(os.path.join(self._folder, year, month), 2)
    ]
    days = [day for day in days if len(self[day])]
    # A day without images is an error only where a list names it.
    if not days:
      raise errors.DataError(
        f"{self._folder} has no images YYYY/MM/DD/RADyymmddHHMM00.png. Change "
        "data.path."
      )
    return days

  def listed(self, day: str) -> np.ndarray:
    """The times of a day that must have images."""
    if not len(self[day]):
      raise errors.DataError(
        f"The lists of the splits name {day}, but its folder in {self._folder} has "
        "no images."
      )
    return self[day]

  def __getitem__(self, day: str) -> np.ndarray:
    if day not in self._times:
      folder = os.path.join(self._folder, day[:4], day[4:6], day[6:])
      if not os.path.isdir(folder):
        raise errors.DataError(
          f"There is no folder {folder} with the images of {day}. Change data.path "
          "or the lists of the splits."
        )
      names = map(_FRAME.fullmatch, sorted(os.listdir(folder)))
      stamps = [name[1] for name in names if name and name[1][:6] == day[2:]]
      try:
        times = [_seconds(day + stamp[6:]) for stamp in stamps]
      except ValueError as error:
        raise errors.DataError(
          f"{folder} has an image that is not named after a time ({error})."
        ) from error
      self._times[day] = np.array(times, np.int64)
      self.read.append(folder)
    return self._times[day]


def _numbered(folder: str, digits: int) -> list[str]:
  """The names of so many digits in a folder, in order."""
  return sorted(n for n in os.listdir(folder) if n.isdecimal() and len(n) == digits)


def _is_day(name: str) -> bool:
  return len(name) == 8 and name.isdecimal()


def _seconds(digits: str) -> int:
  """Seconds since 1970 of YYYYMMDDHHMM."""
  year, month, day, hour, minute = (
    digits[a:b] for a, b in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12))
  )
  moment = np.datetime64(f"{year}-{month}-{day}T{hour}:{minute}:00", "s")
  return int(moment.astype(np.int64))


def _blocks(lists: dict[str, str], block: int, days: _Days) -> list[_Sequence]:
  """The sequences of lists of frames."""
  moments = {}
  for name, split in lists.items():
    image = _FRAME.fullmatch(os.path.basename(name))
    digits = f"20{image[1]}" if image else re.sub(r"[-/: T_]", "", name)
    try:
      if not re.fullmatch(r"\d{12}(00)?", digits):
        raise ValueError("not so many digits")
      seconds = _seconds(digits)
    except ValueError as error:
      raise errors.DataError(
        f"The lists of the splits name {name!r} ({error}); expected days like "
        "20090328 in all of them, or times like 200903281206 in all of them."
      ) from error
    moments.setdefault(split, []).append(seconds)
  found = []
  for split, times in moments.items():
    if block and len(times) % block:
      raise errors.DataError(
        f"The list of the {split} split names {len(times)} frames, which do not "
        f"make sequences of data.block={block}."
      )
    for start in range(0, len(times), block or len(times)):
      part = np.array(times[start : start + (block or len(times))])
      name = np.datetime64(int(part[0]), "s").item().strftime("%Y%m%d%H%M")
      found.append(_Sequence(name, part, split))
  for sequence in found:
    for seconds in sequence.times.tolist():
      moment = np.datetime64(seconds, "s").item()
      if seconds not in days[f"{moment:%Y%m%d}"]:
        raise errors.DataError(
          f"The lists of the splits name the frame of {moment:%Y-%m-%d %H:%M}, but "
          f"there is no image RAD{moment:%y%m%d%H%M}00.png in {days.read[-1]}."
        )
  return found


def _image(path: str) -> np.ndarray:
  """The pixels of an 8-bit grey image, uint8 [H, W]."""
  try:
    with PIL.Image.open(path) as image:
      mode = image.mode
      pixels = np.asarray(image)
  except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
    raise errors.DataError(f"{path} is no readable image ({error}).") from error
  if mode != "L":
    raise errors.DataError(
      f"{path} is an image of mode {mode!r}; expected 8-bit grey ('L')."
    )
  return pixels


def _in_units(pixels: np.ndarray, units: str) -> np.ndarray:
  """float32 pixels 0 to 255 in other units."""
  if units == "pixel":
    return pixels
  dbz = pixels * np.float32(70 / 255) - np.float32(10)
  if units == "dbz":
    return dbz
  exponent = (dbz - np.float32(10 * np.log10(_Z_FACTOR))) / (10 * _Z_EXPONENT)
  return np.power(np.float32(10), exponent, dtype=np.float32)
