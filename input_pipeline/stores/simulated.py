"""What stores share whose frames are made on the spot and kept."""

import pathlib
import weakref
from collections.abc import Callable

import numpy as np

from input_pipeline import errors, files
from input_pipeline.stores import base

# Stores without a cache_dir share their frames while any of them lives.
_in_memory: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


class SimulatedStore(base.Store):
  """Sequences of one length, made when the store is first made.

  Args:
    name: tells every option that the frames depend on: the beginning of the
      file's name.
    shape: [sequences, T, H, W, C], or without C for one channel.
    simulate: is given a function to be called with the float32 frames of the
      next sequences, of the same axes.
    cache_dir: where the frames are kept as a memory-mapped file; None keeps
      them in memory.

  Raises:
    DataError: if the file that is there holds something else.
  """

  def __init__(
    self,
    name: str,
    shape: tuple[int, ...],
    simulate: Callable[[Callable[[np.ndarray], None]], None],
    cache_dir: str | None,
  ):
    self._shape = shape
    self.num_sequences = shape[0]
    self._file = None
    if cache_dir is None:
      self._frames = _in_memory.get(name)
      if self._frames is None:
        parts = []
        simulate(parts.append)
        self._frames = np.concatenate(parts) if len(parts) > 1 else parts[0]
        _in_memory[name] = self._frames
      return
    self._file = pathlib.Path(cache_dir) / f"{name}.npy"
    if not self._file.exists():
      header = {"descr": "<f4", "fortran_order": False, "shape": shape}
      # Not through a memory map: a full disk would end the process.
      with (
        files.replacing(self._file, keep=True) as partial,
        partial.open("wb") as stream,
      ):
        np.lib.format.write_array_header_1_0(stream, header)
        simulate(lambda frames: stream.write(np.ascontiguousarray(frames, "<f4")))
    self._frames = self._mapped()

  def __getstate__(self):
    state = dict(self.__dict__)
    if self._file is not None:
      state["_frames"] = None  # Opened again where the store arrives.
    return state

  def length(self, sequence: int) -> int:
    """Frames of a sequence; the same for all."""
    del sequence
    return self._shape[1]

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """Frames start to stop (excluded) of a sequence, [T, H, W, C] float32."""
    if self._frames is None:
      self._frames = self._mapped()
    frames = self._frames[sequence, start:stop]
    return frames if frames.ndim == 4 else frames[..., None]

  def _mapped(self) -> np.ndarray:
    """The file's frames."""
    try:
      frames = np.load(self._file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      raise errors.DataError(
        f"{self._file} is no readable copy of the simulated frames ({error}); "
        "remove it and it is made again."
      ) from error
    if frames.shape != self._shape or frames.dtype != np.float32:
      raise errors.DataError(
        f"{self._file} holds {frames.dtype} {frames.shape} instead of float32 "
        f"{self._shape}; remove it and it is made again."
      )
    # A plain view: slicing np.memmap objects is several times slower.
    return frames.view(np.ndarray)
