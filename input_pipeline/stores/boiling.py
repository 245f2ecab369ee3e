"""The boiling plate, simulated on the spot: a data set that needs no file."""

import pathlib
import uuid
from collections.abc import Sequence

import numpy as np
import xarray as xr

from input_pipeline.errors import DataError
from input_pipeline.simulate import boiling
from input_pipeline.stores import base


class BoilingStore(base.Store):
  """Store of simulated boiling plates: config `data.store = "boiling"`.

  There is no time axis: lead times count frames. Temperatures are divided by
  the boiling point of 212 degrees.

  Args:
    num_samples: number of plates.
    num_frames: frames of each, the initial one included.
    image_size: side of a square plate, or (H, W).
    increment: heating per frame in degrees.
    simulation_seed: seed of the initial temperatures.
    cache_dir: where the frames are kept as a memory-mapped file; None keeps
      them in memory.

  Raises:
    DataError: if an option is out of range.
  """

  def __init__(
    self,
    num_samples: int = 100,
    num_frames: int = 20,
    image_size: int | Sequence[int] = 64,
    increment: float = boiling.DEFAULT_INCREMENT,
    simulation_seed: int = 0,
    cache_dir: str | None = None,
  ):
    self._file = None
    self._frames = None
    shape = (num_samples, num_frames) + boiling.plate_size(image_size)
    if cache_dir is not None:
      size = "x".join(str(length) for length in shape)
      self._file = pathlib.Path(cache_dir) / (
        f"boiling_{size}_increment{float(increment)!r}_seed{simulation_seed}.npy"
      )
      self._frames = _open(self._file, shape)
    if self._frames is None:
      raw = boiling.initial_conditions(num_samples, image_size, simulation_seed)
      self._frames = boiling.simulate(raw, num_frames, increment)
      if self._file is not None:
        _write(self._file, self._frames)
        self._frames = np.load(self._file, mmap_mode="r")
    self._shape = shape

  def __getstate__(self):
    state = dict(self.__dict__)
    if self._file is not None:
      state["_frames"] = None  # Opened again where the store arrives.
    return state

  @property
  def variables(self) -> tuple[base.Variable, ...]:
    """The one channel: temperature over boiling point."""
    return (base.Variable(boiling.VARIABLE, boiling.ATTRIBUTES),)

  @property
  def num_sequences(self) -> int:
    """The number of plates."""
    return self._shape[0]

  @property
  def space(self) -> xr.Dataset:
    """Row and column numbers as y and x."""
    return base.index_space(*self._shape[2:])

  def length(self, sequence: int) -> int:
    """Frames of a plate; the same for all."""
    del sequence
    return self._shape[1]

  def sample_id(self, sequence: int) -> str:
    """The number of the plate in its seed's stream, as boiling_<number>."""
    return boiling.sample_name(sequence)

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """Frames start to stop (excluded) of a plate, [T, H, W, 1] float32."""
    if self._frames is None:
      self._frames = np.load(self._file, mmap_mode="r")
    return self._frames[sequence, start:stop, ..., None]


def _open(file: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray | None:
  """Maps a cached file, or gives None where there is none."""
  if not file.exists():
    return None
  try:
    frames = np.load(file, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise DataError(
      f"{file} is no readable copy of the boiling data ({error}); remove it "
      "and it is made again."
    ) from error
  if frames.shape != shape or frames.dtype != np.float32:
    raise DataError(
      f"{file} holds {frames.dtype} {frames.shape} instead of float32 "
      f"{shape}; remove it and it is made again."
    )
  return frames


def _write(file: pathlib.Path, frames: np.ndarray) -> None:
  """Writes a file that other processes see whole or not at all."""
  file.parent.mkdir(parents=True, exist_ok=True)
  scratch = file.with_name(f".{uuid.uuid4().hex}.npy")
  try:
    np.save(scratch, frames)
    scratch.replace(file)
  finally:
    scratch.unlink(missing_ok=True)
