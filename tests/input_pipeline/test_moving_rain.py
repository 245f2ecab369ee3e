"""The moving rain: its motion is the true one, its cells grow and decay, its store."""

import pickle

import numpy as np
import pytest

import input_pipeline
from input_pipeline import DataError
from input_pipeline.simulate import moving_rain
from input_pipeline.stores.moving_rain import MovingRainStore

_SMALL = dict(num_samples=3, num_frames=6, image_size=(24, 32))


def frames_of(store):
  return np.stack(
    [store.read(k, 0, store.length(k)) for k in range(store.num_sequences)]
  )


def moved(frame, motion):
  """A frame [H, W] after one frame's time, NaN where air came in; bilinear."""
  sources = motion.moved(np.moveaxis(np.indices(frame.shape, float), 0, -1), -1.0)
  low = np.floor(sources).astype(int)
  (y, x), (i, j) = np.moveaxis(sources - low, -1, 0), np.moveaxis(low, -1, 0)
  inside = (i >= 0) & (j >= 0) & (i < len(frame) - 1) & (j < frame.shape[1] - 1)
  i, j = np.where(inside, i, 0), np.where(inside, j, 0)
  above = (1 - x) * frame[i, j] + x * frame[i, j + 1]
  below = (1 - x) * frame[i + 1, j] + x * frame[i + 1, j + 1]
  return np.where(inside, (1 - y) * above + y * below, np.nan)


def test_a_frame_moved_by_the_motion_is_nearly_the_next_one():
  store = MovingRainStore(num_samples=8, num_frames=12)
  still, advected = [], []
  for k in range(8):
    frames = store.read(k, 0, 12)[..., 0]
    for now, after in zip(frames, frames[1:], strict=False):
      expected = moved(now, store.motion(k))
      known = np.isfinite(expected)
      left = lambda x: np.square(x - after)[known].sum() / np.square(after[known]).sum()
      still.append(left(now))
      advected.append(left(expected))
  assert np.median(advected) < 0.05 < 0.2 < np.median(still)
  assert np.mean(np.less(advected, still)) > 0.95


def test_places_go_along_the_motion_and_areas_stay():
  motion = MovingRainStore(num_samples=1, num_frames=1).motion(0)
  place = np.array([[3.0, 50.0], [31.5, 31.5]])
  walked = place
  for _ in range(1000):  # The midpoint rule in steps of 0.01 frames.
    walked = walked + 0.01 * motion.at(walked + 0.005 * motion.at(walked))
  np.testing.assert_allclose(motion.moved(place, 10.0), walked, atol=1e-4)
  np.testing.assert_allclose(motion.moved(walked, -10.0), place, atol=1e-4)
  offset = motion.moved(place + [0.3, -0.2], 10.0) - motion.moved(place, 10.0)
  deformation = motion.deformation(10.0)
  np.testing.assert_allclose(offset[0], deformation @ [0.3, -0.2], atol=1e-9)
  assert np.linalg.det(deformation) == pytest.approx(1)
  field = motion.field(64, 64)
  assert field.shape == (64, 64, 2)
  np.testing.assert_allclose(field[3, 50], motion.at(place[0]))


def test_a_cell_grows_to_its_peak_and_decays_where_the_air_is():
  turning = np.array([[0.0, 0.02], [-0.02, 0.0]])
  motion = moving_rain.Motion(np.array([1.0, 2.0]), turning, np.array([20.0, 20.0]))
  cells = moving_rain.Cells(
    place=np.array([[20.0, 20.0]]),
    time=np.array([6.0]),
    life=np.array([10.0]),
    peak=np.array([30.0]),
    axes=np.array([[[1 / 4, 0], [0, 1 / 2]]]),
  )
  frames = moving_rain.rain(motion, cells, 13, (40, 40))
  mass = frames.sum((1, 2))
  assert (mass[[0, 1, 11, 12]] == 0).all()
  assert (np.diff(mass[1:7]) > 0).all() and (np.diff(mass[6:12]) < 0).all()
  # An ellipse of a normal shape holds 2 pi times the product of its semi-axes.
  assert mass[6] == pytest.approx(30 * 2 * np.pi * 8, rel=0.02)
  assert frames[6].max() == frames[6, 20, 20] == 30
  for time in range(3, 10):
    where = np.moveaxis(np.indices((40, 40)), 0, -1) * frames[time, ..., None]
    expected = motion.moved(cells.place[0], time - 6.0)
    np.testing.assert_allclose(where.sum((0, 1)) / mass[time], expected, atol=0.05)


def test_rain_is_rare_and_its_thresholds_are_all_met():
  frames = frames_of(MovingRainStore(num_samples=20, num_frames=12))
  assert frames.dtype == np.float32
  rates = [np.mean(frames >= threshold) for threshold in (0.1, 0.5, 1.0, 5.0)]
  assert 0.1 < rates[0] < 0.4 and rates[1] > rates[2] > rates[3] > 0.003
  rain = frames[frames > 0]
  assert rain.min() >= moving_rain.DRY_BELOW and 20 < rain.max() < 200
  # New rain comes in at the edges: the last frames have as much as the first ones.
  assert 0.6 < frames[:, 6:].mean() / frames[:, :6].mean() < 1.6


def test_a_sequence_depends_on_its_number_and_the_seed_alone():
  frames = frames_of(MovingRainStore(**_SMALL))
  again = frames_of(MovingRainStore(**_SMALL | {"num_samples": 2}))
  np.testing.assert_array_equal(again, frames[:2])
  assert not np.array_equal(frames[0], frames[1])
  other = frames_of(MovingRainStore(**_SMALL, simulation_seed=1))
  assert not np.array_equal(other, frames)


def test_the_store_is_labelled_and_read_in_the_pipeline():
  store = MovingRainStore(**_SMALL)
  assert [v.name for v in store.variables] == ["rain_rate"]
  assert store.variables[0].attrs["units"] == "mm h-1"
  assert store.step == np.timedelta64(5, "m")
  assert dict(store.space.sizes) == {"y": 24, "x": 32}
  assert store.space.x.values[-1] == 31 and store.space.x.attrs["units"] == "km"
  config = dict(store="moving_rain", history=2, horizon=3, **_SMALL)
  split = input_pipeline.build(config, "train", batch_size=1)
  assert split.spec.shapes(1)["inputs"] == (1, 2, 24, 32, 1)
  assert store.sample_id(2) == "moving_rain_2"


def test_a_cached_store_reads_its_file_and_survives_pickling(tmp_path, monkeypatch):
  first = MovingRainStore(**_SMALL, cache_dir=str(tmp_path))
  np.testing.assert_array_equal(frames_of(first), frames_of(MovingRainStore(**_SMALL)))
  monkeypatch.setattr(moving_rain, "rain", lambda *_: pytest.fail("simulated"))
  again = MovingRainStore(**_SMALL, cache_dir=str(tmp_path))
  sent = pickle.loads(pickle.dumps(again))
  for store in (again, sent):
    np.testing.assert_array_equal(frames_of(store), frames_of(first))
  monkeypatch.undo()
  for change in (
    {"speed": 1.0}, {"cells": 3.0}, {"lifetime": 9.0}, {"simulation_seed": 1},
    {"image_size": (32, 24)}, {"num_frames": 5},
  ):  # fmt: skip
    MovingRainStore(**_SMALL | change, cache_dir=str(tmp_path))
  assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    (dict(num_samples=0), "data.num_samples"),
    (dict(num_frames=1.5), "data.num_frames"),
    (dict(image_size=1), "image_size"),
    (dict(speed=-1.0), "data.speed"),
    (dict(cells=float("nan")), "data.cells"),
    (dict(lifetime=0.0), "data.lifetime"),
    (dict(simulation_seed=-1), "data.simulation_seed"),
  ],
)
def test_a_store_out_of_range_is_refused(changes, named):
  with pytest.raises(DataError, match=named):
    MovingRainStore(**_SMALL | changes)
