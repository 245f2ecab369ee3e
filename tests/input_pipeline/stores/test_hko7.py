"""HKO-7's folders of images, masks and lists, as the public format has them."""

import pickle
import zlib

import numpy as np
import PIL.Image
import pytest
from worker_processes import assert_workers_change_nothing

import input_pipeline
from input_pipeline.stores import hko7

H, W = 6, 5
DAYS = ("20090328", "20090329", "20090401")


def pixels(day, frame):
  seed = int(day) + frame
  return np.random.RandomState(seed).randint(0, 256, (H, W)).astype(np.uint8)


def image(day, frame):
  name = f"RAD{day[2:]}{6 * frame // 60:02}{6 * frame % 60:02}00"
  return f"{day[:4]}/{day[4:6]}/{day[6:]}/{name}"


@pytest.fixture
def archive(tmp_path):
  """Three days of 30 frames; frame 10 of the second is missing."""
  for day in DAYS:
    for frame in range(30):
      if (day, frame) != (DAYS[1], 10):
        path = tmp_path / "radarPNG" / f"{image(day, frame)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels(day, frame)).save(path)
  return tmp_path


@pytest.fixture
def masks(archive):
  """The fixed mask, and the mask of one frame; gives where they keep values."""
  exclude = np.zeros((H, W), np.uint8)
  exclude[0, 1] = 1
  np.savez(archive / "mask_dat.npz", exclude_mask=exclude, outlier_mask=1 - exclude)
  keep = np.ones((H, W), bool)
  keep[2, 3] = False
  path = archive / "radarPNG_mask" / f"{image(DAYS[0], 1)}.mask"
  path.parent.mkdir(parents=True)
  path.write_bytes(zlib.compress(keep.tobytes()))
  return exclude == 0, keep


def lists(archive, **names):
  """Writes the lists of splits; gives the options that name them."""
  for split, lines in names.items():
    (archive / f"{split}.txt").write_text("\n".join(lines))
  return {f"{split}_list": str(archive / f"{split}.txt") for split in names}


def test_every_day_is_a_sequence_and_a_missing_image_a_gap(archive):
  for path in (archive, archive / "radarPNG"):
    store = hko7.Hko7Store(str(path))
    names = [store.sample_id(i) for i in range(store.num_sequences)]
    assert names == list(DAYS)
  assert [store.length(i) for i in range(3)] == [30, 29, 30]
  found = store.read(2, 3, 5)[..., 0]
  np.testing.assert_array_equal(found, [pixels(DAYS[2], 3), pixels(DAYS[2], 4)])
  assert found.dtype == np.float32
  np.testing.assert_array_equal(
    store.read_every(0, 0, 30, 7), store.read(0, 0, 30)[::7]
  )
  np.testing.assert_array_equal(store.read(1, 10, 11)[0, ..., 0], pixels(DAYS[1], 11))
  first = np.datetime64("2009-03-28T00:00", "us").astype(int)
  np.testing.assert_array_equal(store.times(0), first + 360 * 10**6 * np.arange(30))
  config = {
    "store": "hko7",
    "path": str(archive),
    "history": 5,
    "horizon": 5,
    "split": {"by": "time", "boundaries": ("2009-03-30", "2009-04-01")},
  }
  split = input_pipeline.build(config | {"horizon": 5}, "train", batch_size=1)
  assert split.num_examples == 21 + 1 + 10  # 30 frames; 10 and 19 around the gap.
  again = pickle.loads(pickle.dumps(store))
  np.testing.assert_array_equal(again.read(0, 2, 9), store.read(0, 2, 9))


@pytest.mark.slow
def test_worker_processes_read_the_same(archive, masks):
  config = {"store": "hko7", "path": str(archive), "missing": "mask"}
  config["exclude_mask"] = str(archive / "mask_dat.npz")
  resample = {"size": (3, 2), "rounding": "uint8"}
  assert_workers_change_nothing(
    config | {"history": 4, "horizon": 4, "resample": resample}
  )


@pytest.mark.parametrize(
  ("units", "expected"),
  [
    ("pixel", lambda p: p),
    ("dbz", lambda p: 70 * p / 255 - 10),
    ("rain_rate", lambda p: (10 ** ((70 * p / 255 - 10) / 10) / 58.53) ** (1 / 1.56)),
  ],
)
def test_pixels_come_in_the_units_that_are_asked_for(archive, units, expected):
  store = hko7.Hko7Store(str(archive), units=units)
  found = store.read(0, 4, 5)[0, ..., 0]
  np.testing.assert_allclose(
    found, expected(pixels(DAYS[0], 4).astype(float)), rtol=1e-5
  )
  assert store.variables[0].attrs["units"] in ("1", "dBZ", "mm h-1")


@pytest.mark.parametrize("excluded", ["missing", "zero"])
def test_masks_take_out_cells(archive, masks, excluded):
  fixed, keep = masks
  fill = np.nan if excluded == "missing" else 0
  options = {"exclude_mask": str(archive / "mask_dat.npz"), "excluded": excluded}
  found = hko7.Hko7Store(str(archive), **options).read(0, 0, 2)[..., 0]
  for frame, kept in ((0, fixed), (1, fixed & keep)):
    expected = np.where(kept, pixels(DAYS[0], frame), fill)
    np.testing.assert_array_equal(found[frame], expected)
  found = hko7.Hko7Store(str(archive), frame_masks="").read(0, 1, 2)[0, ..., 0]
  np.testing.assert_array_equal(found, pixels(DAYS[0], 1))


def test_lists_of_days_give_the_splits(archive):
  options = lists(archive, train=["20090401, 0.31", "20090328,0.2"], test=["20090329"])
  store = hko7.Hko7Store(str(archive), **options)
  found = [(store.sample_id(i), store.split_label(i)) for i in range(3)]
  assert found == [("20090401", "train"), ("20090328", "train"), ("20090329", "test")]


@pytest.mark.parametrize(
  "write",
  [
    lambda day, frame: f"{day}{6 * frame // 60:02}{6 * frame % 60:02}",
    lambda day, frame: (
      f"{day[:4]}-{day[4:6]}-{day[6:]} {6 * frame // 60:02}:{6 * frame % 60:02}:00"
    ),
    lambda day, frame: f"{image(day, frame)}.png",
  ],
)
def test_lists_of_frames_are_cut_into_blocks(archive, write):
  train = [write(DAYS[0], n) for n in (0, 2, 4, 10, 12, 14)]
  options = lists(archive, train=train, test=[write(DAYS[2], n) for n in range(3)])
  store = hko7.Hko7Store(str(archive), block=3, **options)
  found = [(store.sample_id(i), store.split_label(i)) for i in range(3)]
  assert found == [
    ("200903280000", "train"),
    ("200903280100", "train"),
    ("200904010000", "test"),
  ]
  assert store.event(0) == store.event(1) != store.event(2)
  expected = [pixels(DAYS[0], n) for n in (10, 12, 14)]
  np.testing.assert_array_equal(store.read(1, 0, 3)[..., 0], expected)
  np.testing.assert_array_equal(np.diff(store.times(1)), 720 * 10**6)


@pytest.mark.parametrize(
  ("what", "options", "words"),
  [
    ("no image", {}, [f"{image(DAYS[0], 3)}.png", "no readable image"]),
    ("cut image", {}, [f"{image(DAYS[0], 3)}.png", "no readable image"]),
    ("colours", {}, [f"{image(DAYS[0], 3)}.png", "'RGB'"]),
    ("other size", {}, [f"{image(DAYS[0], 3)}.png", "(3, 3)"]),
    ("empty", {}, ["data.path", "YYYY/MM/DD"]),
    ("short mask", {}, [f"{image(DAYS[0], 1)}.mask", "one byte"]),
    ("long mask", {}, [f"{image(DAYS[0], 1)}.mask", "one byte"]),
    ("no mask", {}, [f"{image(DAYS[0], 1)}.mask", "compressed"]),
    ("list", {"train": ["20090330, 1"]}, ["2009/03/30"]),
    ("list", {"train": ["200903290100"]}, ["2009-03-29 01:00", "2009/03/29"]),
    ("list", {"train": ["20090328", "200903280000"]}, ["'20090328'", "in all"]),
    ("list", {"train": ["soon"]}, ["'soon'"]),
    ("list", {"train": ["20090328"], "test": ["20090328"]}, ["train split"]),
    ("list", {"train": ["200903280000"], "block": 2}, ["data.block=2", "1 frames"]),
    ("pickle", {}, ["days.pkl", "data.train_list", "pickled"]),
    ("list", {"train": []}, ["train.txt", "names nothing"]),
    ("", {"units": "mm"}, ["data.units", "'mm'"]),
    ("", {"excluded": "nan"}, ["data.excluded"]),
    ("", {"block": -1}, ["data.block=-1"]),
    ("", {"frame_masks": "none"}, ["none"]),
    ("fixed", {}, ["mask_dat.npz", "(2, 2)"]),
  ],
)
def test_what_cannot_be_used_is_named(archive, masks, what, options, words):
  path = archive / "radarPNG" / f"{image(DAYS[0], 3)}.png"
  mask = archive / "radarPNG_mask" / f"{image(DAYS[0], 1)}.mask"
  made = {
    "empty": lambda: path.parents[3].rename(archive / "radar"),
    "cut image": lambda: path.write_bytes(path.read_bytes()[:60]),
    "colours": lambda: PIL.Image.new("RGB", (W, H)).save(path),
    "other size": lambda: PIL.Image.new("L", (3, 3)).save(path),
    "short mask": lambda: mask.write_bytes(zlib.compress(bytes(3))),
    "long mask": lambda: mask.write_bytes(zlib.compress(bytes(H * W + 1))),
    "no mask": lambda: mask.write_bytes(b"none"),
    "fixed": lambda: np.savez(archive / "mask_dat.npz", exclude_mask=np.zeros((2, 2))),
  }
  made.get(what, lambda: None)()
  if what == "list":
    names = {key: options[key] for key in ("train", "test") if key in options}
    others = {key: options[key] for key in options if key not in names}
    options = others | lists(archive, **names)
  if what == "pickle":
    (archive / "days.pkl").write_bytes(pickle.dumps(["20090328"]))
    options = {"train_list": str(archive / "days.pkl")}
  if what == "fixed":
    options = {"exclude_mask": str(archive / "mask_dat.npz")}
  with pytest.raises(input_pipeline.DataError) as caught:
    store = hko7.Hko7Store(str(archive), **options)
    if what == "no image":  # It goes after it was found.
      path.unlink()
    store.read(0, 0, 5)
  for word in words:
    assert word in str(caught.value)
