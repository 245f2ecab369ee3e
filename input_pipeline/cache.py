"""Copies of a store's frames that read faster than the store itself."""

import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import errors, files, options
from input_pipeline.stores import base

KINDS = ("auto", "memory", "disk", "none")
_CHUNK = 32  # Frames read at a time while copying.
# Splits of one data set share the copy in memory while any of them lives.
_in_memory: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
_lock = threading.Lock()


class CopiedStore(base.Wrapper):
  """A store whose frames are read from a copy [all frames, H, W, C].

  Args:
    store: the original; it still answers everything but `read`.
    frames: float32 [sum of lengths, H, W, C], or the path of a .npy file of
      that shape, which is memory-mapped once per process.
  """

  def __init__(self, store: base.Store, frames: np.ndarray | str):
    super().__init__(store)
    self._frames = frames
    self._mapped = None
    self._offsets = _offsets(store)

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    frames = self._frames
    if isinstance(frames, str):
      if self._mapped is None:
        # A plain view: slicing np.memmap objects is several times slower.
        self._mapped = np.load(frames, mmap_mode="r").view(np.ndarray)
      frames = self._mapped
    offset = self._offsets[sequence]
    return frames[offset + start : offset + stop]

  def __getstate__(self):
    return {**self.__dict__, "_mapped": None}


def files_state(store: base.Store) -> list[tuple[str, int | str, int]]:
  """What changes when any file that a store reads changes.

  Returns:
    Path, time of change and size of each file. For a Zarr, a digest of these of all
    the files in its folder and below it, and their number: chunks are rewritten
    without a trace on the folder itself. Other folders stand for themselves.
  """
  state = []
  for path in store.files:
    if _is_zarr(path):
      state.append((path, *_folder_state(path)))
    else:
      found = os.stat(path)
      state.append((path, found.st_mtime_ns, found.st_size))
  return state


def _is_zarr(path: str) -> bool:
  marks = (".zgroup", ".zarray", ".zmetadata", "zarr.json")
  return os.path.isdir(path) and (
    path.endswith(".zarr") or any(os.path.exists(os.path.join(path, m)) for m in marks)
  )


def _folder_state(path: str) -> tuple[str, int]:
  entries, folders, seen = [], [path], set()
  while folders:
    folder = folders.pop()
    identity = os.stat(folder)
    if (identity.st_dev, identity.st_ino) in seen:
      continue  # A link to a folder above it.
    seen.add((identity.st_dev, identity.st_ino))
    with os.scandir(folder) as found:
      for entry in found:
        if entry.is_dir():
          folders.append(entry.path)
        elif entry.is_file():
          state = entry.stat()
          name = os.path.relpath(entry.path, path)
          entries.append((name, state.st_mtime_ns, state.st_size))
  return options.digest(sorted(entries)), len(entries)


def apply(
  store: base.Store, resolved: Mapping[str, Any], cache_dir: str | None
) -> base.Store:
  """The store itself, or a copy of it in memory or on disk.

  Args:
    store: made from `resolved`.
    resolved: a resolved data config; its cache, memory_limit_gib and
      loader.workers are used.
    cache_dir: where copies on disk are kept.

  Raises:
    DataError: for an unknown kind, or "disk" without a cache_dir.
  """
  kind = resolved["cache"]
  if kind not in KINDS:
    raise errors.unknown("cache (data.cache)", kind, KINDS)
  if kind == "auto":
    # Worker processes would each get a copy of their own.
    fits = _nbytes(store) <= resolved["memory_limit_gib"] * 2**30
    kind = "memory" if fits and not resolved["loader"]["workers"] else "none"
  if kind == "none":
    return store
  key = options.digest(resolved["store"], options.reading(resolved), files_state(store))
  if kind == "memory":
    with _lock:
      copied = _in_memory.get(key)
      if copied is None:
        frames = np.empty(_shape(store), np.float32)
        _copy(store, frames)
        copied = _in_memory[key] = CopiedStore(store, frames)
      return copied
  if not cache_dir:
    raise errors.DataError(
      "data.cache='disk' needs a folder for the copy, but build() got no "
      "cache_dir. Give one or change data.cache to 'memory' or 'none'."
    )
  path = os.path.join(os.path.abspath(cache_dir), f"frames-{key}.npy")
  if not os.path.exists(path):
    _write(store, path)
  return CopiedStore(store, path)


def _offsets(store: base.Store) -> np.ndarray:
  lengths = [store.length(i) for i in range(store.num_sequences)]
  return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _shape(store: base.Store) -> tuple[int, ...]:
  height, width = (store.space.sizes[d] for d in store.space.attrs["spatial_dims"])
  return int(_offsets(store)[-1]), height, width, len(store.variables)


def _nbytes(store: base.Store) -> int:
  return int(np.prod(_shape(store), dtype=np.int64)) * 4


def _copy(store: base.Store, frames: np.ndarray) -> None:
  offsets = _offsets(store)
  for sequence in range(store.num_sequences):
    length = store.length(sequence)
    for start in range(0, length, _CHUNK):
      stop = min(start + _CHUNK, length)
      frames[offsets[sequence] + start : offsets[sequence] + stop] = store.read(
        sequence, start, stop
      )


def _write(store: base.Store, path: str) -> None:
  with files.replacing(path) as partial:
    frames = np.lib.format.open_memmap(
      partial, mode="w+", dtype=np.float32, shape=_shape(store)
    )
    _copy(store, frames)
    frames.flush()
