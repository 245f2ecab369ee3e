"""Frames that are image files: how one is read, and in which order many are."""

import datetime
import pathlib
import re
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from input_pipeline.errors import DataError

SUFFIXES = (
  ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".ppm",
)  # fmt: skip
COLOURS = ("red", "green", "blue")
_DATE_FORMATS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # By colour type; grey and palettes are read by PIL.
# Grey of fewer bits comes from PIL spread over 0 ... 255.
_SPREAD = {"L;2": 85, "L;4": 17}


class Image(NamedTuple):
  """An image.

  Attributes:
    values: [H, W, C] float32, as stored; NaN where it is wholly transparent.
    kind: whether it is grey or colour, and of how many bits.
    alpha: whether it has an alpha channel or a transparent colour.
  """

  values: np.ndarray
  kind: str
  alpha: bool


def read(path: pathlib.Path) -> Image:
  """Reads an image file: grey has one channel, colour (and a palette) three.

  An alpha channel is left out, but wholly transparent pixels are missing.

  Raises:
    DataError: naming the file, if it is damaged, or no single image of grey or
      colour.
  """
  import PIL.Image

  try:
    with PIL.Image.open(path) as image:
      if getattr(image, "n_frames", 1) > 1:
        raise DataError(
          f"{path} holds {image.n_frames} images. Save each as a file of its own."
        )
      raw = _raw_mode(image)
      if ";16" in raw and not image.mode.startswith("I"):
        if image.format != "PNG":
          raise DataError(
            f"{path} is a {image.format} of colours of 16 bits, of which only 8 can be"
            " read. Save it as .png or as an array [H, W, C] in .npy."
          )
        return _image(_deep_png(path), "16 bits", True)
      return _shallow(image, raw, path)
  except DataError:
    raise
  except (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
  ) as error:
    raise DataError(f"{path} is no image that can be read: {error}") from error
  except PIL.Image.DecompressionBombError as error:
    raise DataError(f"{path} is too large for an image: {error}") from error


def _raw_mode(image) -> str:
  """How the file stores its pixels, as PIL calls it."""
  if not image.tile:
    return ""
  arguments = image.tile[0][3]
  if isinstance(arguments, (tuple, list)):
    arguments = arguments[0] if arguments else ""
  return arguments if isinstance(arguments, str) else ""


def _shallow(image, raw: str, path: pathlib.Path) -> Image:
  transparent = image.info.get("transparency")
  mode = image.mode
  if mode in ("P", "PA"):
    has_alpha = mode == "PA" or transparent is not None
    image, transparent = image.convert("RGBA" if has_alpha else "RGB"), None
    mode = image.mode
  values = np.asarray(image)
  if mode == "L" and raw in _SPREAD:
    values = values // _SPREAD[raw]
    transparent = None if transparent is None else transparent // _SPREAD[raw]
  if mode in ("RGBA", "LA", "RGB", "L"):
    bits = {"L;2": "2 bits", "L;4": "4 bits"}.get(raw, "8 bits")
  elif mode in ("I", "F") or mode.startswith("I;16"):
    bits = "16 bits" if mode.startswith("I;16") else "32 bits"
  elif mode == "1":
    bits = "1 bit"
  else:
    raise DataError(
      f"{path} is an image of mode {mode}; expected grey or RGB colours. Convert it,"
      " for example by PIL.Image.open(...).convert('RGB')."
    )
  found = _image(values, bits, mode in ("RGBA", "LA"))
  if transparent is None or isinstance(transparent, bytes):
    return found
  clear = np.all(found.values == np.asarray(transparent, np.float32), -1, keepdims=True)
  return found._replace(
    values=np.where(clear, np.float32(np.nan), found.values), alpha=True
  )


def _image(values: np.ndarray, bits: str, maybe_alpha: bool) -> Image:
  values = values[..., None] if values.ndim == 2 else values
  alpha = maybe_alpha and values.shape[-1] in (2, 4)
  colours = values[..., :-1] if alpha else values
  result = np.asarray(colours, np.float32)
  if alpha:
    result = np.where(values[..., -1:] == 0, np.float32(np.nan), result)
  kind = ("grey" if colours.shape[-1] == 1 else "colour") + f" of {bits}"
  return Image(result, kind, alpha)


def _deep_png(path: pathlib.Path) -> np.ndarray:
  """Decodes a PNG of 16 bits a channel, of which PIL keeps 8.

  The filters are those of the PNG specification (W3C 2003), section 9.

  Returns:
    [H, W, C] uint16.
  """
  content = path.read_bytes()
  place, packed, header = 8, [], b""
  while place + 8 <= len(content):
    size, name = struct.unpack(">I4s", content[place : place + 8])
    chunk = content[place + 8 : place + 8 + size]
    header = chunk if name == b"IHDR" else header
    packed += [chunk] if name == b"IDAT" else []
    place += size + 12
  width, height, _, colours, _, _, interlaced = struct.unpack(">IIBBBBB", header)
  if interlaced:
    raise DataError(
      f"{path} is an interlaced .png of 16 bits, which is not read. Save it without"
      " interlacing."
    )
  pixel = 2 * _PNG_CHANNELS[colours]
  lines = np.frombuffer(zlib.decompress(b"".join(packed)), np.uint8)
  lines = lines.reshape(height, 1 + width * pixel)
  above = np.zeros(width * pixel, np.uint8)
  rows = np.empty((height, width * pixel), np.uint8)
  for number, line in enumerate(lines):
    above = rows[number] = _unfiltered(line[0], line[1:], above, pixel)
  return rows.view(">u2").reshape(height, width, -1).astype(np.uint16)


def _unfiltered(kind, line, above, pixel: int) -> np.ndarray:
  if kind == 0:
    return line
  if kind == 1:
    return line.reshape(-1, pixel).cumsum(0, dtype=np.uint8).reshape(-1)
  if kind == 2:
    return line + above
  if kind not in (3, 4):
    raise ValueError(f"unknown filter {kind}")
  # Each byte depends on that of the pixel before: no array operation does it.
  done, above, line = (
    bytearray(pixel) + bytearray(len(line)),
    above.tolist(),
    line.tolist(),
  )
  for i, (value, up) in enumerate(zip(line, above, strict=True)):
    left = done[i]
    if kind == 3:
      guess = (left + up) // 2
    else:
      corner = above[i - pixel] if i >= pixel else 0
      near = up - corner, left - corner, left + up - 2 * corner
      to_left, to_up, to_corner = map(abs, near)
      guess = corner
      if to_left <= to_up and to_left <= to_corner:
        guess = left
      elif to_up <= to_corner:
        guess = up
    done[i + pixel] = (value + guess) & 255
  return np.frombuffer(bytes(done[pixel:]), np.uint8)


def in_order(files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """Sorts the image files of a folder by the numbers in their names.

  Args:
    files: at least one; "frame_2.png" comes before "frame_10.png".

  Raises:
    DataError: names without a number, of several kinds or with the same number, a
      frame left out, or numbers whose order is not clear.
  """
  folder = files[0].parent
  kinds = {}
  for file in files:
    kinds.setdefault(re.sub(r"\d+", "#", file.stem), file.name)
  if not all("#" in kind for kind in kinds):
    raise DataError(
      f"Frame files must be named by their number, like frame_12.png, but in {folder}"
      f" one is not: {next(name for kind, name in kinds.items() if '#' not in kind)}"
    )
  if len(kinds) > 1:
    raise DataError(
      f"The frames of {folder} have names of several kinds"
      f" ({', '.join(list(kinds.values())[:4])}). Keep one sequence in a folder."
    )
  texts = {file: re.findall(r"\d+", file.stem) for file in files}
  ordered = sorted(files, key=lambda file: [int(text) for text in texts[file]])
  columns = list(zip(*(texts[file] for file in ordered), strict=True))
  varying = [column for column in columns if len({int(x) for x in column}) > 1]
  numbers = [[int(text) for text in column] for column in varying]
  if len(files) > 1 and len(set(zip(*numbers, strict=True))) < len(files):
    raise DataError(
      f"The frames of {folder} must be numbered without gaps or doubles, but two have"
      " the same number."
    )
  by_value = lambda file: [float(x) for x in re.findall(r"\d+\.\d+|\d+", file.stem)]
  year_last = [len(column[0]) == 4 for column in varying] == [
    *[False] * (len(varying) - 1),
    True,
  ]
  year_last &= bool(varying) and all(1900 <= x <= 2100 for x in numbers[-1])
  if sorted(ordered, key=by_value) != ordered or (len(varying) > 1 and year_last):
    raise DataError(
      f"The order of the frames of {folder} is not clear from their names, such as"
      f" {ordered[0].name} and {ordered[-1].name}. Rename them to frame_0001.png, ..."
    )
  _check_steps(folder, ordered, varying)
  return ordered


def _check_steps(folder, files, varying) -> None:
  """Looks for frames that are not there, and warns of times that are not even."""
  if not varying or len(files) < 3:
    return
  steps = _times(files, varying)
  dated = steps is not None
  if not dated and len(varying) > 1:
    return
  if not dated:
    (texts,) = varying
    numbers = [int(text) for text in texts]
    steps = np.diff(np.array(numbers, object))
    hours = all(len(t) == 4 and int(t) < 2400 and int(t) % 100 < 60 for t in texts)
    if hours and len(set(steps)) > 1:
      steps = np.diff([n // 100 * 60 + n % 100 for n in numbers])
  if len(set(steps)) == 1:
    return
  usual = min(steps)
  late = next(i for i, step in enumerate(steps) if step != usual)
  what = f"{files[late + 1].name} comes after {files[late].name}"
  if dated:
    logging.warning(
      "The times in the names of the frames of %s are not evenly spaced: %s. They are"
      " taken as frames in a row.",
      folder,
      what,
    )
    return
  raise DataError(
    f"The frames of {folder} must be numbered without gaps or doubles, but {what}."
    " Add the missing ones, or put what follows into a folder of its own."
  )


def _times(files, varying) -> np.ndarray | None:
  """Seconds between frames that have dates in their names, else None."""
  changing = ["".join(parts) for parts in zip(*varying, strict=True)]
  # Where the year does not change, the names may have it all the same.
  for texts in (changing, [re.sub(r"\D", "", file.stem) for file in files]):
    form = _DATE_FORMATS.get(len(texts[0]))
    if form is None or len({len(text) for text in texts}) > 1:
      continue
    try:
      times = [datetime.datetime.strptime(text, form) for text in texts]
    except ValueError:
      continue
    return np.diff(np.array(times, "datetime64[s]")).astype(np.int64)
  return None
