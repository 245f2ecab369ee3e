"""Arrays in .npz files: rows read one by one, and dates without running a pickle."""

import contextlib
import datetime
import os
import pickletools
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import errors

# Compressed bytes that are expanded at a time; each may hold 1000 times as many.
_PIECE = 2**14
# Expanded bytes between two places from which reading can go on.
_SPACING = 2**26
_LOCAL_HEADER = struct.Struct("<26xHH")


class Rows:
  """The rows of one array of an .npz file, of which only those asked for are kept.

  numpy expands a compressed array whole, which may take gigabytes for a month of
  radar fields. Here the file is expanded up to the rows that are asked for. On the
  way, the state of the decompression is kept every 64 MiB, so that later reads
  begin near their rows. Reading forwards expands little twice.

  Args:
    path: the file.
    name: the array in it.

  Attributes:
    path: the file.
    shape: of the whole array.
    dtype: of its values.

  Raises:
    DataError: naming the file, if it cannot be read or holds no plain numbers.
  """

  def __init__(self, path: str, name: str):
    self.path = path
    self._name = name
    with _opened(path, name) as (archive, member):
      info = archive.getinfo(member.name)
      self.shape, fortran, self.dtype = _header(member)
      self._skipped = member.tell()
    if fortran or self.dtype.kind not in "iuf" or not self.shape:
      raise errors.DataError(
        f"Array {name!r} of {path} is {self.dtype} of shape {self.shape}"
        f"{' in Fortran order' if fortran else ''}; expected numbers, row by row."
      )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise errors.DataError(
        f"{path} is compressed in a way that numpy does not write; expected what "
        "numpy.savez or savez_compressed wrote."
      )
    self._compressed = info.compress_type == zipfile.ZIP_DEFLATED
    with open(path, "rb") as file:
      file.seek(info.header_offset)
      lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    self._begin = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
    self._end = self._begin + info.compress_size
    self._reset()

  def read(self, start: int, stop: int) -> np.ndarray:
    """Rows start to stop (excluded) of the array.

    Raises:
      DataError: naming the file, if it is damaged.
    """
    row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
    first, last = (self._skipped + n * row for n in (start, stop))
    try:
      with open(self.path, "rb") as file:
        if self._compressed:
          data = self._expanded(file, first, last)
        else:
          file.seek(self._begin + first)
          data = file.read(last - first)
    except (OSError, zlib.error) as error:
      raise errors.DataError(f"{self.path} cannot be read ({error}).") from error
    if len(data) != last - first:
      raise errors.DataError(
        f"{self.path} ends before row {stop} of {self._name!r}, of which it should "
        f"have {self.shape[0]}: it is damaged."
      )
    return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

  def _expanded(self, file, first: int, last: int) -> bytes:
    """Bytes first to last of the expanded array, or fewer where it ends."""
    with self._lock:
      candidates = [*self._places, self._cursor]
      position, place, state = max(
        (known for known in candidates if known[0] <= first), key=lambda known: known[0]
      )
      state = state.copy()
    parts = []
    while position < last and not state.eof:
      file.seek(place)
      before = position, place, state.copy()
      piece = file.read(min(_PIECE, self._end - place))
      if not piece:
        break
      expanded = state.decompress(piece)
      parts.append(expanded[max(first - position, 0) : max(last - position, 0)])
      position += len(expanded)
      place += len(piece)
      with self._lock:
        self._cursor = before
        if position >= self._places[-1][0] + _SPACING:
          self._places.append((position, place, state.copy()))
    return b"".join(parts)

  def _reset(self) -> None:
    self._lock = threading.Lock()
    # -15: the raw stream of a zip file, which has no header.
    start = (0, self._begin, zlib.decompressobj(-15))
    # Expanded position, place in the file, state of the decompression.
    self._places, self._cursor = [start], start

  def __getstate__(self):
    return {**self.__dict__, "_lock": None, "_places": None, "_cursor": None}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._reset()


def read(path: str, name: str) -> np.ndarray:
  """A small array of plain numbers, whole.

  Raises:
    DataError: naming the file, if it is not there or holds no plain numbers.
  """
  with _opened(path, name) as (_, member):
    shape, _, dtype = _header(member)
    if dtype.kind not in "fiub":
      raise errors.DataError(
        f"Array {name!r} of {path} is {dtype}; expected plain numbers."
      )
  rows = Rows(path, name)
  return rows.read(0, shape[0])


def dates(path: str, name: str) -> np.ndarray:
  """The dates of an array of datetime objects, which numpy keeps as a pickle.

  The pickle is not run: its instructions are followed by `_Instructions`, which
  knows a dozen of them, imports nothing and calls nothing.

  Args:
    path: the .npz file.
    name: the array in it, [T] of datetime objects without a time zone, or of
      datetime64.

  Returns:
    int64 [T] seconds since 1970.

  Raises:
    DataError: naming the file, if it holds anything else.
  """
  with _opened(path, name) as (_, member):
    shape, _, dtype = _header(member)
    content = member.read()
  where = f"Array {name!r} of {path}"
  if dtype.kind == "M":
    found = np.frombuffer(content, dtype).astype("datetime64[s]").astype(np.int64)
  elif dtype.kind == "O":
    moments = _Instructions(where).follow(content)
    epoch = datetime.datetime(1970, 1, 1)
    found = [(moment - epoch) // datetime.timedelta(seconds=1) for moment in moments]
    found = np.array(found, np.int64)
  else:
    raise errors.DataError(f"{where} is {dtype}; expected dates.")
  if found.shape != tuple(shape):
    raise errors.DataError(
      f"{where} has {len(found)} dates, but its shape is {tuple(shape)}."
    )
  return found


class _Pickled:
  """What a pickle names or makes, as far as dates need it: a name, and items."""

  def __init__(self, name: str, items: Any = None):
    self.name = name
    self.items = items


_MARK = _Pickled("mark")
_NAMES = (
  "_codecs encode",
  "datetime datetime",
  "numpy dtype",
  "numpy ndarray",
  "numpy._core.multiarray _reconstruct",
  "numpy.core.multiarray _reconstruct",
)
_VALUES = (
  "BINBYTES BINBYTES8 BINSTRING BINUNICODE BINUNICODE8 SHORT_BINBYTES"
  " SHORT_BINSTRING SHORT_BINUNICODE BININT BININT1 BININT2"
).split()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Instructions:
  """Follows the instructions of a pickled array of datetime objects.

  `pickletools.genops` only takes the bytes apart. What would be imported here
  stays a text, and what would be called is looked at: the ten bytes of a datetime
  become a date. Anything else is an error.

  Args:
    where: the array, for messages.
  """

  def __init__(self, where: str):
    self._where = where
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}

  def follow(self, content: bytes) -> list[datetime.datetime]:
    """The dates, in their order.

    Raises:
      DataError: for instructions that no array of dates needs.
    """
    try:
      for instruction, argument, _ in pickletools.genops(content):
        self._step(instruction.name, argument)
      (found,) = self._stack
      if isinstance(found, _Pickled) and found.items is not None:
        if all(isinstance(item, datetime.datetime) for item in found.items):
          return found.items
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
      raise self._refused(f"it cannot be followed: {error}") from error
    raise self._refused("it holds other things than dates")

  def _step(self, name: str, argument: Any) -> None:
    stack, memo = self._stack, self._memo
    if name in ("PROTO", "FRAME", "STOP"):
      return
    if name in _VALUES:
      stack.append(argument)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name == "EMPTY_LIST":
      stack.append([])
    elif name == "MARK":
      stack.append(_MARK)
    elif name in ("BINPUT", "LONG_BINPUT"):
      memo[argument] = stack[-1]
    elif name == "MEMOIZE":
      memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
      stack.append(memo[argument])
    elif name in ("GLOBAL", "STACK_GLOBAL"):
      if name == "STACK_GLOBAL":
        argument = " ".join(self._taken(2))
      if argument not in _NAMES:
        raise self._refused(f"it names {argument!r}")
      stack.append(_Pickled(argument))
    elif name in _TUPLES:
      stack.append(tuple(self._taken(_TUPLES[name])))
    elif name == "TUPLE":
      stack.append(tuple(self._since_mark()))
    elif name == "APPEND":
      (item,) = self._taken(1)
      stack[-1].append(item)
    elif name == "APPENDS":
      items = self._since_mark()
      stack[-1].extend(items)
    elif name == "REDUCE":
      stack.append(self._made(*self._taken(2)))
    elif name == "BUILD":
      (state,) = self._taken(1)
      if stack[-1].name.endswith("_reconstruct"):
        _, _, _, _, stack[-1].items = state  # The last one is the list of items.
    else:
      raise self._refused(f"it has the instruction {name}")

  def _made(self, called: _Pickled, arguments: tuple) -> Any:
    """What a call of one of the known names stands for."""
    if called.name == "datetime datetime":
      (packed,) = arguments
      if isinstance(packed, str):  # Python 2 had no bytes.
        packed = packed.encode("latin1")
      high, low, month, day, hour, minute, second, *micro = packed
      if len(micro) != 3:
        raise ValueError(f"a date of {len(packed)} bytes")
      return datetime.datetime(high * 256 + low, month, day, hour, minute, second)
    if called.name == "_codecs encode":
      text, encoding = arguments
      if encoding != "latin1":
        raise self._refused(f"it has text in {encoding!r}")
      return text.encode("latin1")
    return _Pickled(called.name)

  def _taken(self, count: int) -> list[Any]:
    if len(self._stack) < count:
      raise IndexError("too few values")
    taken = self._stack[-count:]
    del self._stack[-count:]
    return taken

  def _since_mark(self) -> list[Any]:
    taken = []
    while (value := self._stack.pop()) is not _MARK:
      taken.append(value)
    return taken[::-1]

  def _refused(self, why: str) -> errors.DataError:
    return errors.DataError(
      f"{self._where} is not read, because {why}. Expected a pickled array of "
      "datetime objects without time zones, and nothing is run to find out."
    )


@contextlib.contextmanager
def _opened(path: str, name: str) -> Iterator[tuple[zipfile.ZipFile, Any]]:
  """An .npz file and one of its arrays, as a file behind numpy's magic bytes."""
  try:
    with zipfile.ZipFile(path) as archive:
      known = [os.path.splitext(member)[0] for member in archive.namelist()]
      if name not in known:
        raise errors.unknown(f"array in {path}", name, known)
      with archive.open(f"{name}.npy") as member:
        yield archive, member
  except errors.DataError:
    raise
  except (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
  ) as error:
    raise errors.DataError(f"{path} is no readable .npz file ({error}).") from error


def _header(member) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Shape, whether in Fortran order, and type of a .npy file."""
  version = np.lib.format.read_magic(member)
  if version == (1, 0):
    return np.lib.format.read_array_header_1_0(member)
  return np.lib.format.read_array_header_2_0(member)
