"""Store over folders of numbered frames, or a JSON file that lists them."""

import pathlib
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
import xarray as xr

from input_pipeline.errors import DataError
from input_pipeline.stores import base, frame_lists

_ARCHIVE_KEY = "data"


class FoldersStore(base.Store):
  """Store over folders of frames: config `data.store = "folders"`.

  Frames are [H, W], [1, H, W] or [C, H, W] arrays in .npy files, or under the
  key "data" in .npz files. There is no time axis: lead times count frames.

  Args:
    path: directory of sample folders, or a loader JSON file, which also
      names the split of every sample.
    total_length: frames taken of each sample; 0 takes all of them.
    sample_start_index: first frame taken, or -1 for a random one per sample,
      drawn once from the seed.
    init_final_only: whether only the first and the last of the frames taken
      are kept.
    reverse: whether time runs backwards.
    num_samples: samples drawn from the directory; 0 keeps all. A loader JSON
      names its samples itself, so there it must stay 0.
    selection_seed: seed of the draws.
    variables: names of the channels; () makes them "channel_0", ...
    units: units of the channels, one each; () leaves them out.

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
  ):
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
    self._shape = _read_frame(self._samples[0].frames[0]).shape
    self.variables = base.channels(path, self._shape[-1], variables, units)

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
      frame = _read_frame(source)
      if frame.shape != self._shape:
        raise DataError(
          f"Frame {start + number} of sample {sample.sample_id} has the shape "
          f"{frame.shape} (height, width, channels), but the first frame of "
          f"the first sample has {self._shape}; all must agree."
        )
      frames[number] = frame
    return frames


def _read_frame(source: pathlib.Path | list) -> np.ndarray:
  """Reads one frame as [H, W, C] float32."""
  name = source if isinstance(source, pathlib.Path) else "An inline frame"
  try:
    if isinstance(source, list):
      frame = np.asarray(source, np.float32)
    elif source.suffix == ".npz":
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
  return np.moveaxis(frame, 0, -1).astype(np.float32)
