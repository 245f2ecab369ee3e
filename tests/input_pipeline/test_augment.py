import numpy as np
import pytest

import input_pipeline
from input_pipeline import augment


def frames(height=5, width=5):
  return np.random.RandomState(0).rand(3, height, width, 2)


def test_the_same_position_gives_the_same_symmetry_and_others_differ():
  x = frames()
  results = [augment.apply(x, augment.OPERATIONS, 1, p) for p in range(20)]
  again = augment.apply(x, augment.OPERATIONS, 1, 7)
  np.testing.assert_array_equal(results[7], again)
  assert len({r.tobytes() for r in results}) > 15


@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_every_frame_moves_alike_and_no_value_is_lost(name):
  x = frames()
  moved = [augment.apply(x, (name,), 0, p) for p in range(12)]
  assert any(not np.array_equal(m, x) for m in moved)
  for result in moved:
    alone = augment.apply(x[1:2], (name,), 0, 3)[0]
    np.testing.assert_array_equal(augment.apply(x, (name,), 0, 3)[1], alone)
    np.testing.assert_array_equal(np.sort(result.ravel()), np.sort(x.ravel()))
    np.testing.assert_array_equal(result.sum((1, 2)).round(9), x.sum((1, 2)).round(9))


def test_only_training_batches_are_moved(tmp_path):
  data = np.random.RandomState(0).rand(6, 4, 5, 5).astype(np.float32)
  np.save(tmp_path / "a.npy", data)
  config = {
    "store": "array",
    "path": str(tmp_path / "a.npy"),
    "layout": "NTHW",
    "history": 2,
    "horizon": 2,
    "normalise": "none",
    "augment": ("flip_h", "roll_w"),
    "split": {"by": "sample", "fractions": (0.6, 0.2, 0.2)},
  }
  for train in (True, False):
    split = input_pipeline.build(config, "train", batch_size=2, train=train)
    batch = next(iter(split.batches))
    plain = input_pipeline.build(
      config | {"augment": ()}, "train", batch_size=2, train=train
    )
    same = next(iter(plain.batches))
    np.testing.assert_array_equal(batch["index"], same["index"])
    moved = not np.array_equal(batch["inputs"], same["inputs"])
    assert moved == train


def test_impossible_symmetries_are_refused():
  with pytest.raises(input_pipeline.DataError, match="square"):
    augment.check(("transpose",), 4, 5)
  with pytest.raises(input_pipeline.DataError, match="flip_h"):
    augment.check(("flip_x",), 4, 5)
