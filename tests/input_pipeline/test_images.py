"""Frames that are image files, in sample folders."""

import pickle
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from absl import logging

from input_pipeline.errors import DataError
from input_pipeline.stores import images
from input_pipeline.stores.array import ArrayStore
from input_pipeline.stores.folders import FoldersStore

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 9), np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), np.uint8)
DEEP = RANDOM.integers(0, 65536, (6, 9), np.uint16)
DEEP_COLOUR = RANDOM.integers(0, 65536, (6, 9, 3), np.uint16)


def record(monkeypatch, level):
  said = []

  def log(at, text, *words):
    said.extend([text % words] if at == level else [])

  monkeypatch.setattr(logging, "log", log)
  return said


@pytest.fixture
def warnings(monkeypatch):
  return record(monkeypatch, logging.WARNING)


def image(tmp_path, values, name="0.png", mode=None, **options):
  path = tmp_path / name
  path.parent.mkdir(parents=True, exist_ok=True)
  picture = PIL.Image.fromarray(values)
  (picture.convert(mode) if mode else picture).save(path, **options)
  return path


def paeth(left, up, corner):
  near = {"left": left, "up": up, "corner": corner}
  return min(near.values(), key=lambda value: abs(left + up - corner - value))


def deep_png(path, values):
  """Writes a PNG of 16 bits; its rows have all five filters in turn."""
  height, width, channels = values.shape
  rows = values.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
  pixel, data = 2 * channels, bytearray()
  for y, row in enumerate(rows):
    up = rows[y - 1] if y else 0 * row
    left = np.append(np.zeros(pixel, int), row[:-pixel])
    corner = np.append(np.zeros(pixel, int), up[:-pixel])
    guess = {
      0: 0 * row,
      1: left,
      2: up,
      3: (left + up) // 2,
      4: np.array([paeth(*x) for x in zip(left, up, corner, strict=True)]),
    }[y % 5]
    data += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()

  def chunk(name, content):
    checksum = zlib.crc32(name + content)
    return (
      struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    )

  colour = {2: 4, 3: 2, 4: 6}[channels]
  header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
  packed = zlib.compress(bytes(data))
  path.write_bytes(
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", packed[:50])
    + chunk(b"IDAT", packed[50:])
    + chunk(b"IEND", b"")
  )
  return path


@pytest.mark.parametrize(
  ("values", "name", "kind"),
  [
    (GREY, "0.png", "grey of 8 bits"),
    (COLOUR, "0.PNG", "colour of 8 bits"),
    (DEEP, "0.png", "grey of 16 bits"),
    (DEEP, "0.tif", "grey of 16 bits"),
    (COLOUR, "0.bmp", "colour of 8 bits"),
    (COLOUR, "0.tiff", "colour of 8 bits"),
    (GREY, "0.pgm", "grey of 8 bits"),
    (GREY > 100, "0.png", "grey of 1 bit"),
    (GREY.astype(np.float32) / 7, "0.tif", "grey of 32 bits"),
    (GREY.astype(np.int32) * 70000, "0.tif", "grey of 32 bits"),
  ],
)
def test_values_are_as_stored(tmp_path, values, name, kind):
  found = images.read(image(tmp_path, values, name))
  expected = values if values.ndim == 3 else values[..., None]
  np.testing.assert_array_equal(found.values, expected.astype(np.float32))
  assert found.values.dtype == np.float32
  assert (found.kind, found.alpha) == (kind, False)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_are_read_whole(tmp_path, channels):
  values = RANDOM.integers(1, 65536, (12, 9, channels), np.uint16)
  values[3:6, :4] = values[2, 2]
  found = images.read(deep_png(tmp_path / "0.png", values))
  expected = values if channels == 3 else values[..., :-1]
  np.testing.assert_array_equal(found.values, expected.astype(np.float32))
  assert found.kind.endswith("16 bits") and found.alpha == (channels != 3)


def test_few_bits_are_not_spread(tmp_path):
  values = RANDOM.integers(0, 16, (6, 8), np.uint8)
  header = struct.pack(">IIBBBBB", 8, 6, 4, 0, 0, 0, 0)
  rows = b"".join(b"\0" + (row[::2] * 16 + row[1::2]).tobytes() for row in values)
  content = b"\x89PNG\r\n\x1a\n"
  for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
    content += struct.pack(">I", len(data)) + name + data
    content += struct.pack(">I", zlib.crc32(name + data))
  path = tmp_path / "0.png"
  path.write_bytes(content)
  np.testing.assert_array_equal(images.read(path).values[..., 0], values)


def test_a_palette_gives_its_colours(tmp_path):
  values = np.array([[[255, 0, 0], [0, 9, 0]], [[0, 9, 0], [1, 2, 3]]], np.uint8)
  path = tmp_path / "0.png"
  PIL.Image.fromarray(values).quantize(4).save(path)
  assert PIL.Image.open(path).mode == "P"
  np.testing.assert_array_equal(images.read(path).values, values)


def test_transparent_pixels_are_missing(tmp_path, warnings):
  alpha = np.full((6, 9, 1), 255, np.uint8)
  alpha[1, 2], alpha[3, 4] = 0, 7
  for number in range(3):
    image(tmp_path, np.concatenate([COLOUR, alpha], -1), f"s/{number}.png")
  frames = FoldersStore(path=str(tmp_path)).read(0, 0, 1)
  expected = COLOUR.astype(np.float32)
  expected[1, 2] = np.nan
  np.testing.assert_array_equal(frames[0], expected)
  assert len(warnings) == 1 and "0.png has transparency" in warnings[0]
  path = image(tmp_path, GREY, "b.png", transparency=int(GREY[2, 2]))
  found = images.read(path).values[..., 0]
  np.testing.assert_array_equal(np.isnan(found), GREY == GREY[2, 2])


@pytest.mark.parametrize(
  ("values", "channels"), [(GREY, ("channel_0",)), (COLOUR, images.COLOURS)]
)
def test_sample_folders_are_read_in_natural_order(tmp_path, values, channels):
  for sample in ("v10", "v2"):
    for number in range(1, 12):
      image(tmp_path, values // 2 + number, f"{sample}/frame_{number}.png")
    (tmp_path / sample / ".DS_Store").write_bytes(b"x")
    (tmp_path / sample / "._frame_1.png").write_bytes(b"x")
    (tmp_path / sample / "notes.txt").write_text("x")
  store = pickle.loads(pickle.dumps(FoldersStore(path=str(tmp_path))))
  assert store.names == channels
  assert [store.length(i) for i in range(store.num_sequences)] == [11, 11]
  frames = store.read(1, 8, 11)
  expected = np.stack([values // 2 + number for number in (9, 10, 11)])
  np.testing.assert_array_equal(frames, expected.reshape(frames.shape))
  assert len(store.files) == 22


def test_one_folder_of_frames_is_one_sequence(tmp_path):
  for number in range(4):
    image(tmp_path, GREY // 2 + number, f"movie/{number:04}.png")
  store = FoldersStore(path=str(tmp_path / "movie"))
  assert (store.num_sequences, store.length(0), store.sample_id(0)) == (1, 4, "movie")
  assert store.read(0, 3, 4)[0, 0, 0, 0] == GREY[0, 0] // 2 + 3


@pytest.mark.parametrize(
  ("names", "words"),
  [
    (["f1.png", "f2.png", "f4.png"], "f4.png comes after f2.png"),
    (["00000007.png", "00000008.png", "00000010.png"], "comes after 00000008.png"),
    (["1.png", "01.png"], "same number"),
    (["1.png", "1.jpg", "2.png"], "same number"),
    (["f1.png", "mask1.png"], "several kinds.*f1.png, mask1.png"),
    (["f1.png", "last.png"], "named by their number.*last.png"),
    (["a0.25.png", "a0.5.png"], "order.*not clear"),
    (["01-02-2019.png", "01-01-2020.png"], "order.*not clear"),
  ],
)
def test_frames_without_a_clear_order_are_refused(tmp_path, names, words):
  for name in names:
    image(tmp_path, GREY, f"s/{name}")
  with pytest.raises(DataError, match=words):
    FoldersStore(path=str(tmp_path))


@pytest.mark.parametrize(
  ("names", "warned"),
  [
    (["f0.png", "f5.png", "f10.png"], False),
    (["r_202001010050.png", "r_202001010100.png", "r_202001010110.png"], False),
    (["2019-12-31_2300.png", "2020-01-01_0000.png", "2020-01-01_0100.png"], False),
    (["00000007.png", "00000008.png", "00000009.png"], False),
    (["t0050.png", "t0055.png", "t0100.png"], False),
    (["r_202001010050.png", "r_202001010100.png", "r_202001010120.png"], True),
  ],
)
def test_times_in_names_give_the_order(tmp_path, names, warned, warnings):
  for name in reversed(names):
    image(tmp_path, GREY, f"s/{name}")
  store = FoldersStore(path=str(tmp_path))
  assert [file.split("/")[-1] for file in store.files] == names
  assert len(warnings) == warned
  assert not warned or "0120.png comes after" in warnings[0]


@pytest.mark.parametrize(
  ("values", "mode", "words"),
  [
    (GREY[:, :5], None, r"s/1.png.*\(6, 5, 1\)"),
    (COLOUR, None, r"s/1.png.*colour of 8 bits.*grey of 8 bits"),
    (DEEP, None, r"s/1.png.*grey of 16 bits.*grey of 8 bits"),
  ],
)
def test_frames_that_differ_are_refused_by_name(tmp_path, values, mode, words):
  image(tmp_path, GREY, "s/0.png")
  image(tmp_path, values, "s/1.png", mode)
  with pytest.raises(DataError, match=words):
    FoldersStore(path=str(tmp_path)).read(0, 0, 2)


def test_files_that_are_no_frames_are_refused_by_name(tmp_path):
  image(tmp_path, COLOUR, "0.jpg", "CMYK")
  with pytest.raises(DataError, match="0.jpg.*mode CMYK"):
    images.read(tmp_path / "0.jpg")
  frames = [PIL.Image.fromarray(GREY), PIL.Image.fromarray(255 - GREY)]
  frames[0].save(tmp_path / "0.gif", save_all=True, append_images=frames[1:])
  with pytest.raises(DataError, match="0.gif holds 2 images"):
    images.read(tmp_path / "0.gif")
  path = image(tmp_path, RANDOM.integers(0, 255, (64, 64), np.uint8), "cut.png")
  for size in (500, 0):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="cut.png is no image"):
      images.read(path)
  path = deep_png(tmp_path / "16.png", DEEP_COLOUR)
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(DataError, match="16.png is no image"):
    images.read(path)


def test_what_a_folder_holds_instead_is_said(tmp_path):
  (tmp_path / "s").mkdir()
  (tmp_path / "s" / "a.mp4").write_bytes(b"x")
  with pytest.raises(DataError, match=r"no frames: .mp4 found.*.npy.*.png"):
    FoldersStore(path=str(tmp_path))
  image(tmp_path, GREY, "s/deep/0.png")
  (tmp_path / "s" / "a.mp4").unlink()
  with pytest.raises(DataError, match="further folders, such as deep"):
    FoldersStore(path=str(tmp_path))


def test_arrays_beside_images_are_said(tmp_path, warnings):
  for number in range(3):
    image(tmp_path, GREY, f"s/{number}.png")
  np.save(tmp_path / "s/mean.npy", GREY)
  store = FoldersStore(path=str(tmp_path))
  assert store.length(0) == 3 and store.files[0].endswith("0.png")
  assert "mean.npy, ... not" in warnings[0]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels_at_the_end_of_arrays_are_questioned(tmp_path, channels):
  values = RANDOM.random((2, 16, 12, channels)).astype(np.float32)
  (tmp_path / "s").mkdir()
  for number, frame in enumerate(values):
    np.save(tmp_path / "s" / f"{number}.npy", frame)
  with pytest.raises(DataError, match=r"0.npy.*data.layout=HWC"):
    FoldersStore(path=str(tmp_path))
  store = FoldersStore(path=str(tmp_path), layout="HWC")
  np.testing.assert_array_equal(store.read(0, 0, 2), values)
  store = FoldersStore(path=str(tmp_path), layout="CHW")
  np.testing.assert_array_equal(store.read(0, 0, 1)[0], np.moveaxis(values[0], 0, -1))


@pytest.mark.parametrize(
  ("shape", "guess", "likely"),
  [
    ((20, 16, 12, 3), "NTHW", "THWC"),
    ((20, 16, 3), "THW", "THC"),
    ((20, 3, 16, 12), "NTHW", "TCHW"),
    ((20, 9, 1, 16, 12), "NTHWC", "NTCHW"),
  ],
)
def test_a_likelier_layout_of_an_array_is_asked_for(tmp_path, shape, guess, likely):
  path = str(tmp_path / "a.npy")
  np.save(path, np.zeros(shape, np.float32))
  words = f"a.npy.*{guess[0]}=20.*data.layout={likely} or.*data.layout={guess}"
  with pytest.raises(DataError, match=words):
    ArrayStore(path)
  assert ArrayStore(path, layout=guess).num_sequences
  assert ArrayStore(path, layout=likely).num_sequences


def test_a_guessed_layout_is_said_with_sizes(tmp_path, monkeypatch):
  said = record(monkeypatch, logging.INFO)
  path = str(tmp_path / "a.npy")
  np.save(path, np.zeros((20, 16, 12), np.float32))
  ArrayStore(path)
  assert len(said) == 1 and "T=20, H=16, W=12" in said[0] and "data.layout" in said[0]
  ArrayStore(path, layout="THW")
  assert len(said) == 1
