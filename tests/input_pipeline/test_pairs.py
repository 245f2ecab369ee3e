"""Windows with a chosen and a rejected forecast: what batches hold of them."""

import json
import pathlib

import numpy as np
import pytest
import zarr

import input_pipeline
from input_pipeline import options, pairs

CANDIDATES = 3
# Windows with a pair: window, row of the array, chosen, rejected. 3 is the mean.
NUMBERS = [(1, 1, 0, 2), (4, 2, 1, 0), (6, 3, [0, 1], [2, 2]), (8, 5, 3, 0)]


@pytest.fixture
def config(tmp_path):
  """Eight sequences of 5 frames, and pairs of windows of the preference split."""
  data = np.random.RandomState(0).rand(8, 5, 4, 4, 1).astype("f4")
  np.save(tmp_path / "frames.npy", data)
  made = {
    "store": "array",
    "path": str(tmp_path / "frames.npy"),
    "layout": "NTHWC",
    "history": 2,
    "horizon": 2,
    "split": {"by": "sample", "preference": 0.8, "fractions": (0.8, 0.2, 0.0)},
  }
  split = input_pipeline.build(made, "preference", batch_size=1)
  assert split.num_examples == 10
  folder = tmp_path / "pairs"
  fields = np.random.RandomState(1).rand(6, CANDIDATES, 2, 4, 4, 1).astype("f4")
  group = zarr.open_group(folder / pairs.CANDIDATES, mode="w")
  group.create_array("preference", data=fields, chunks=(1, *fields.shape[1:]))
  names = ("window", "row", "chosen", "rejected")
  statistics = split.statistics
  manifest = {
    "format": pairs.FORMAT,
    "data": pairs.about_data(options.resolve(made)),
    "statistics": {
      "offset": np.asarray(statistics.offset).tolist(),
      "scale": np.asarray(statistics.scale).tolist(),
    },
    "splits": {
      "preference": {
        "windows": 6,
        "fingerprint": pairs.fingerprint(split.labels),
        "pairs": [dict(zip(names, entry, strict=True)) for entry in NUMBERS],
        "dropped": {"have candidates of equal scores": 2},
      }
    },
  }
  (folder / pairs.MANIFEST).write_text(json.dumps(manifest))
  return made | {"pairs": str(folder)}


def batches(config, count, **given):
  split = input_pipeline.build(config, "train", train=True, **given)
  iterator = iter(split.batches)
  return [next(iterator) for _ in range(count)]


def test_training_reads_the_windows_that_have_a_pair_and_no_other(config):
  fields = zarr.open_group(f"{config['pairs']}/candidates.zarr", mode="r")
  fields = fields["preference"][:]
  wanted = {}
  for window, row, *numbers in NUMBERS:
    known = np.concatenate([fields[row], fields[row].mean(0, keepdims=True)])
    wanted[window] = [
      np.stack([known[n][t] for t, n in enumerate(np.broadcast_to(number, 2))])
      for number in numbers
    ]
  whole = input_pipeline.build(config | {"pairs": ""}, "preference", batch_size=10)
  plain = next(iter(whole.batches))
  split = input_pipeline.build(config, "train", batch_size=2)
  assert split.num_examples == len(NUMBERS)
  expected = whole.labels.sample_id.values[sorted(wanted)]
  np.testing.assert_array_equal(split.labels.sample_id.values, expected)
  seen = []
  for batch in batches(config, 2, batch_size=2):
    assert batch["paired"].all() and batch["valid"].all()
    for row, window in enumerate(batch["index"].tolist()):
      np.testing.assert_array_equal(batch["chosen"][row], wanted[window][0])
      np.testing.assert_array_equal(batch["rejected"][row], wanted[window][1])
      np.testing.assert_array_equal(batch["targets"][row], plain["targets"][window])
      seen.append(window)
  assert sorted(seen) == sorted(wanted)


def test_pairs_move_with_their_window_and_are_shared_between_processes(config):
  moved = config | {"augment": ("flip_h", "flip_w", "transpose")}
  plain = {
    (n, int(i)): b
    for n, b in enumerate(batches(config, 12, batch_size=2))
    for i in b["index"]
  }
  changed = 0
  for n, batch in enumerate(batches(moved, 12, batch_size=2)):
    for row, window in enumerate(batch["index"]):
      other = plain[n, int(window)]
      at = list(other["index"]).index(window)
      # The symmetry that takes the window to its moved one takes its pair along.
      for turn in (lambda x: x, lambda x: x.swapaxes(1, 2)):
        for flips in ((), (1,), (2,), (1, 2)):
          apply = lambda x, turn=turn, flips=flips: np.flip(turn(x), flips)  # noqa: E731
          if np.array_equal(apply(other["inputs"][at]), batch["inputs"][row]):
            np.testing.assert_array_equal(
              apply(other["chosen"][at]), batch["chosen"][row]
            )
            changed += not np.array_equal(other["inputs"][at], batch["inputs"][row])
            break
        else:
          continue
        break
      else:
        pytest.fail("no symmetry takes the window to the one that was read")
  assert changed
  one = batches(moved, 3, batch_size=2)
  for part in (0, 1):
    shared = batches(moved, 3, batch_size=2, process_index=part, process_count=2)
    for whole, own in zip(one, shared, strict=True):
      for key in ("index", "chosen", "rejected", "inputs"):
        np.testing.assert_array_equal(whole[key][part : part + 1], own[key])


def test_other_splits_and_evaluations_hold_no_pairs(config):
  for name, given in (("validation", {}), ("train", {"train": False})):
    split = input_pipeline.build(config, name, batch_size=2, **given)
    assert "chosen" not in split.spec.keys
  assert input_pipeline.build(config, "train", batch_size=2, train=False).num_examples


@pytest.mark.slow
def test_worker_processes_read_the_same_pairs(config):
  options_ = {"loader": {"threads": 0, "workers": 0}}
  workers = {"loader": {"threads": 2, "prefetch": 2, "workers": 2}, "cache": "none"}
  one, other = (batches(config | o, 3, batch_size=2) for o in (options_, workers))
  for a, b in zip(one, other, strict=True):
    np.testing.assert_array_equal(a["chosen"], b["chosen"])


def test_candidates_that_cannot_be_read_are_named(config):
  (pathlib.Path(config["pairs"]) / "candidates.zarr/zarr.json").unlink()
  with pytest.raises(input_pipeline.DataError, match=r"candidates.zarr.*--mode=prefer"):
    batches(config, 1, batch_size=2)
