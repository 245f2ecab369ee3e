"""Copies of a store's frames that read faster than the store itself."""

import contextlib
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from input_pipeline import errors, options
from input_pipeline.stores import base

KINDS = ("auto", "memory", "disk", "none")
_CHUNK = 32  # Frames read at a time while copying.
# Splits of one data set share the copy in memory while any of them lives.
_in_memory: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
_lock = threading.Lock()


class CopiedStore(base.Store):
  """A store whose frames are read from a copy [all frames, H, W, C].

  Args:
    store: the original; it still answers everything but `read`.
    frames: float32 [sum of lengths, H, W, C], or the path of a .npy file of
      that shape, which is memory-mapped once per process.
  """

  def __init__(self, store: base.Store, frames: np.ndarray | str):
    self._store = store
    self._frames = frames
    self._mapped = None
    self._offsets = _offsets(store)

  @property
  def variables(self) -> tuple[base.Variable, ...]:
    return self._store.variables

  @property
  def num_sequences(self) -> int:
    return self._store.num_sequences

  @property
  def space(self) -> xr.Dataset:
    return self._store.space

  @property
  def step(self) -> np.timedelta64 | None:
    return self._store.step

  @property
  def files(self) -> tuple[str, ...]:
    return self._store.files

  def length(self, sequence: int) -> int:
    return self._store.length(sequence)

  def times(self, sequence: int) -> np.ndarray | None:
    return self._store.times(sequence)

  def sample_id(self, sequence: int) -> str:
    return self._store.sample_id(sequence)

  @property
  def has_events(self) -> bool:
    return self._store.has_events

  def event(self, sequence: int) -> str:
    return self._store.event(sequence)

  def split_label(self, sequence: int) -> str | None:
    return self._store.split_label(sequence)

  def location(self, sequence: int) -> str:
    return self._store.location(sequence)

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


def files_state(store: base.Store) -> list[tuple[str, int, int]]:
  """Path, time of change and size of every file a store reads."""
  state = []
  for path in store.files:
    found = os.stat(path)
    state.append((path, found.st_mtime_ns, found.st_size))
  return state


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
  key = options.digest(
    resolved["store"], options.store_options(resolved), files_state(store)
  )
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


def write_text(path: str, text: str) -> None:
  """Writes a file that is there whole or not at all."""
  with _replacing(path) as temporary:
    with open(temporary, "w", encoding="utf-8") as file:
      file.write(text)


def write_array(path: str, array: np.ndarray) -> None:
  """Writes a .npy file that is there whole or not at all."""
  with _replacing(path) as temporary:
    with open(temporary, "wb") as file:
      np.save(file, array, allow_pickle=False)


def _write(store: base.Store, path: str) -> None:
  with _replacing(path) as temporary:
    frames = np.lib.format.open_memmap(
      temporary, mode="w+", dtype=np.float32, shape=_shape(store)
    )
    _copy(store, frames)
    frames.flush()


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
  """A temporary path beside `path` that takes its place at the end."""
  folder = os.path.dirname(path)
  os.makedirs(folder, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
  os.close(handle)
  try:
    yield temporary
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise
