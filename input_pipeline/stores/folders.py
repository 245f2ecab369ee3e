"""Store over folders of numbered frames, or a JSON file that lists them."""

import pathlib
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline.errors import DataError
from input_pipeline.stores import base, frame_lists, images

_ARCHIVE_KEY = "data"
_LAYOUTS = ("", "CHW", "HWC")
_MOST_COLOURS = 4


class FoldersStore(base.Store):
  """Store over folders of frames: config `data.store = "folders"`.

  Frames are [H, W], [1, H, W] or [C, H, W] arrays in .npy files, or under the
  key "data" in .npz files, or images: grey ones have one channel, colour has
  three, and the values are as stored (0 ... 255 or 0 ... 65535). There is no time
  axis: lead times count frames.

  Args:
    path: directory of sample folders, or the folder of one sample's frames, or
      a loader JSON file, which also names the split of every sample.
    total_length: frames taken of each sample; 0 takes all of them.
    sample_start_index: first frame taken, or -1 for a random one per sample,
      drawn once from the seed.
    init_final_only: whether only the first and the last of the frames taken
      are kept.
    reverse: whether time runs backwards.
    num_samples: samples drawn from the directory; 0 keeps all. A loader JSON
      names its samples itself, so there it must stay 0.
    selection_seed: seed of the draws.
    variables: names of the channels; () makes them "channel_0", ..., and "red",
      "green" and "blue" of colour images.
    units: units of the channels, one each; () leaves them out.
    layout: axes of arrays of three: "CHW" or "HWC"; "" takes "CHW".

  Raises:
    DataError: if the layout is not as described, no sample is long enough, or
      an option is out of range.
  """

  def __init__(
    self,
    path: str,
    total_length: int = 0,
    sample_start_index: int = 0,
    init_final_only: bool = False,
    reverse: bool = False,
    num_samples: int = 0,
    selection_seed: int = 0,
    variables: str | Sequence[str] = (),
    units: str | Sequence[str] = (),
    layout: str = "",
  ):
    if layout.upper() not in _LAYOUTS:
      raise DataError(f"data.layout={layout!r} is not known; expected 'CHW' or 'HWC'.")
    self._layout = layout.upper()
    selection = frame_lists.Selection(
      total_length, sample_start_index, init_final_only, reverse
    )
    path = base.existing_path(path)
    random = np.random.RandomState(selection_seed)
    if path.endswith(".json"):
      if num_samples:
        raise DataError(
          f"num_samples is {num_samples}, but the loader JSON {path} names "
          "its samples itself; write one with fewer samples, or set "
          "data.num_samples to 0."
        )
      self._samples = frame_lists.read_loader_json(path, selection, random=random)
    else:
      self._samples = frame_lists.list_samples(
        path, selection, num_samples=num_samples, random=random
      )
    self.num_sequences = len(self._samples)
    first = self._samples[0].frames[0]
    frame, self._kind = self._read_frame(first)
    self._shape = frame.shape
    known = None
    if self._kind:
      self._describe(path, first, frame)
      known = dict.fromkeys(images.COLOURS) if frame.shape[-1] == 3 else None
    known = {name: {} for name in known or ()}
    self.variables = base.channels(path, self._shape[-1], variables, units, known)

  @property
  def space(self) -> xr.Dataset:
    """Row and column numbers as y and x."""
    height, width, _ = self._shape
    return base.index_space(height, width)

  def length(self, sequence: int) -> int:
    """The number of frames chosen of a sample."""
    return len(self._samples[sequence].frames)

  def sample_id(self, sequence: int) -> str:
    """The name of the sample's folder, or its place in the loader JSON."""
    return self._samples[sequence].sample_id

  def split_label(self, sequence: int) -> str | None:
    """The split that the loader JSON names; None for a directory."""
    return self._samples[sequence].split

  def location(self, sequence: int) -> str:
    """The sample and its first file."""
    sample = self._samples[sequence]
    first = sample.frames[0]
    where = first if isinstance(first, pathlib.Path) else "inline frames"
    return f"sample {sample.sample_id!r} ({where}, ...)"

  @property
  def files(self) -> tuple[str, ...]:
    """Every frame file, in reading order."""
    return tuple(
      str(frame)
      for sample in self._samples
      for frame in sample.frames
      if isinstance(frame, pathlib.Path)
    )

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """Frames start to stop (excluded) of a sequence, [T, H, W, C] float32."""
    sample = self._samples[sequence]
    chosen = sample.frames[start:stop]
    frames = np.empty((len(chosen),) + self._shape, np.float32)
    for number, source in enumerate(chosen):
      frame, kind = self._read_frame(source)
      if frame.shape != self._shape or kind != self._kind:
        name = source if isinstance(source, pathlib.Path) else "inline"
        raise DataError(
          f"Frame {start + number} of sample {sample.sample_id} ({name}) has the shape "
          f"{frame.shape} (height, width, channels){_of_kind(kind)}, but the first "
          f"frame of the first sample has {self._shape}{_of_kind(self._kind)}; all must"
          " agree. Convert the file, or take it out of data.path."
        )
      frames[number] = frame
    return frames

  def _describe(self, path, first, frame) -> None:
    """Says how images are taken."""
    height, width, channels = frame.shape
    files = self._samples[0].frames
    base.say_once(
      logging.INFO,
      f"{path}: {len(self._samples)} samples of images, H={height}, W={width},"
      f" C={channels} ({self._kind}, values as stored); frames in the order"
      f" {', '.join(file.name for file in files[:2])}, ..., {files[-1].name}",
    )
    if images.read(first).alpha:
      base.say_once(
        logging.WARNING,
        f"{first} has transparency: alpha is left out, and wholly transparent pixels"
        " count as missing (data.missing says what becomes of them).",
      )
    if channels == 3 and np.array_equal(frame[..., :1] + 0 * frame, frame):
      base.say_once(
        logging.WARNING,
        f"{first} is stored as colour, but its three channels are the same; grey images"
        " would make one channel of them.",
      )

  def _read_frame(self, source: pathlib.Path | list) -> tuple[np.ndarray, str]:
    """A frame [H, W, C] float32, and of images their kind."""
    if isinstance(source, pathlib.Path) and source.suffix.lower() in images.SUFFIXES:
      image = images.read(source)
      return image.values, image.kind
    return _read_array(source, self._layout), ""


def _of_kind(kind: str) -> str:
  return f" and is {kind}" if kind else ""


def _read_array(source: pathlib.Path | list, layout: str) -> np.ndarray:
  """Reads one frame as [H, W, C] float32."""
  name = source if isinstance(source, pathlib.Path) else "An inline frame"
  try:
    if isinstance(source, list):
      frame = np.asarray(source, np.float32)
    elif source.suffix.lower() == ".npz":
      with np.load(source, allow_pickle=False) as archive:
        frame = archive[_ARCHIVE_KEY]
    else:
      frame = np.load(source, allow_pickle=False)
  except KeyError as error:
    raise DataError(
      f'{name} must hold its frame under the key "{_ARCHIVE_KEY}": {error}'
    ) from error
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise DataError(f"{name} is no readable array: {error}") from error
  if frame.ndim not in (2, 3) or frame.dtype.kind not in "fiub":
    raise DataError(
      f"{name} must be numbers of shape [H, W] or [C, H, W], but is "
      f"{frame.dtype} of shape {frame.shape}."
    )
  if frame.ndim == 2:
    frame = frame[None]
  elif not layout and frame.shape[2] <= _MOST_COLOURS < min(frame.shape[:2]):
    raise DataError(
      f"{name} has the shape {frame.shape}, which looks like [H, W, C], but [C, H, W]"
      " is expected. Say which it is: --config.data.layout=HWC or"
      " --config.data.layout=CHW."
    )
  elif layout == "HWC":
    return frame.astype(np.float32)
  return np.moveaxis(frame, 0, -1).astype(np.float32)
