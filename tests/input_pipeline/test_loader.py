"""Batches: contents, order, sharding between processes, exact restart."""

import json

import numpy as np
import pytest

import input_pipeline
from input_pipeline.stores import array

HISTORY, HORIZON = 3, 2
KEYS = ("inputs", "targets", "index", "valid")


@pytest.fixture
def config(tmp_path):
  """A data config of 11 sequences of 6 frames 5 x 3, 2 channels."""
  path = tmp_path / "frames.npy"
  np.save(path, np.random.RandomState(0).rand(11, 6, 5, 3, 2).astype("f4"))
  return {
    "store": "array",
    "path": str(path),
    "layout": "NTHWC",
    "history": HISTORY,
    "horizon": HORIZON,
    "normalise": "none",
    "split": {"seed": 3},
  }


def build(config, split="train", **options):
  options.setdefault("batch_size", 4)
  return input_pipeline.build(config, split, **options)


def take(split, count):
  iterator = iter(split.batches)
  return [next(iterator) for _ in range(count)]


def assert_equal_batches(actual, expected):
  assert len(actual) == len(expected)
  for one, other in zip(actual, expected, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_a_batch_holds_the_windows_that_its_index_names(config):
  split = build(config)
  data = np.load(config["path"])
  assert split.spec.history == 3 and split.spec.horizon == 2
  names = split.labels["sample_id"].values
  for batch in take(split, 5):
    assert batch["inputs"].dtype == np.float32 and batch["valid"].all()
    for row, index in enumerate(batch["index"]):
      sequence, start = map(int, names[index].split("/"))
      window = data[sequence, start : start + 5]
      np.testing.assert_array_equal(batch["inputs"][row], window[:3])
      np.testing.assert_array_equal(batch["targets"][row], window[3:])


def test_training_sees_every_window_once_an_epoch_in_another_order(config):
  split = build(config, batch_size=3)  # 16 windows: batches straddle epochs.
  assert split.num_examples == 16
  index = np.concatenate([b["index"] for b in take(split, 16)])
  epochs = index.reshape(3, 16)
  for epoch in epochs:
    assert sorted(epoch) == list(range(16))
  assert not (epochs[0] == epochs[1]).all()
  other = np.concatenate(
    [b["index"] for b in take(build(config, batch_size=3, seed=1), 16)]
  )
  assert not (index == other).all()


def test_a_batch_larger_than_the_split_straddles_several_epochs(config):
  (batch,) = take(build(config, batch_size=40), 1)
  assert sorted(np.bincount(batch["index"])) == [2] * 8 + [3] * 8


def test_verification_goes_once_in_order_and_marks_filled_rows(config):
  split = build(config, "train", train=False, batch_size=7)
  batches = list(split.batches)
  assert len(batches) == split.num_batches == 3
  index = np.concatenate([b["index"] for b in batches])
  valid = np.concatenate([b["valid"] for b in batches])
  assert index[valid].tolist() == list(range(16))
  assert (~valid).sum() == 5 and valid[:16].all()
  assert all(b["inputs"].shape == (7, 3, 5, 3, 2) for b in batches)


@pytest.mark.parametrize("train", [True, False])
def test_a_start_continues_exactly_where_the_run_stopped(config, train):
  whole = take(build(config, "train", train=train), 4)
  rest = take(build(config, "train", train=train, start=2), 2)
  assert_equal_batches(rest, whole[2:])


def test_a_start_reads_nothing_of_the_skipped_batches(config, monkeypatch):
  config |= {"cache": "none", "loader": {"threads": 0}}
  split = build(config, start=10**9)
  reads = []
  read = array.ArrayStore.read
  monkeypatch.setattr(
    array.ArrayStore,
    "read",
    lambda self, *where: reads.append(where) or read(self, *where),
  )
  take(split, 1)
  assert len(reads) == 4


@pytest.mark.parametrize("train", [True, False])
def test_two_processes_together_read_the_batches_of_one(config, train):
  options = {"split": "train", "train": train, "batch_size": 6}
  whole = take(build(config, **options), 3)
  parts = [
    take(build(config, process_index=i, process_count=2, **options), 3)
    for i in range(2)
  ]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a}
    for a, b in zip(*parts, strict=True)
  ]
  assert_equal_batches(joined, whole)


@pytest.mark.parametrize(
  "loader",
  [{"threads": 0}, {"threads": 3, "prefetch": 5}, {"workers": 2, "prefetch": 1}],
)
def test_threads_and_worker_processes_change_nothing(config, loader):
  expected = take(build({**config, "cache": "none"}), 5)
  actual = take(build({**config, "cache": "none", "loader": loader}), 5)
  assert_equal_batches(actual, expected)


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
def test_a_cache_changes_nothing(config, cache, tmp_path):
  expected = take(build({**config, "cache": "none"}), 5)
  for _ in range(2):  # Made, then found.
    split = build({**config, "cache": cache}, cache_dir=tmp_path / "cache")
    assert_equal_batches(take(split, 5), expected)


def test_a_copy_on_disk_is_used_and_renewed_when_the_file_changes(config, tmp_path):
  config |= {"cache": "disk"}
  folder = tmp_path / "cache"
  build(config, cache_dir=folder)
  (copy,) = folder.glob("frames-*.npy")
  np.save(copy, np.load(copy) + 1)
  changed = take(build(config, cache_dir=folder), 1)[0]
  assert changed["inputs"].min() >= 1
  np.save(config["path"], np.load(config["path"])[:, :, :, :2] + 3)
  renewed = take(build(config, cache_dir=folder), 1)[0]
  assert renewed["inputs"].shape[-2] == 2 and renewed["inputs"].min() >= 3
  assert all(
    file.name.startswith("frames-") or file.suffix == ".json"
    for file in folder.iterdir()
  )


@pytest.mark.parametrize(("limit", "kept"), [(1.0, True), (1e-9, False)])
def test_what_fits_is_read_once_and_shared_by_the_splits(
  config, monkeypatch, limit, kept
):
  config |= {"memory_limit_gib": limit, "loader": {"threads": 0}}
  reads = []
  read = array.ArrayStore.read
  monkeypatch.setattr(
    array.ArrayStore,
    "read",
    lambda self, *where: reads.append(where) or read(self, *where),
  )
  splits = [build(config, name) for name in ("train", "validation", "test")]
  before = len(reads)
  take(splits[0], 3)
  assert (len(reads) == before == 11) == kept


def test_statistics_are_of_the_training_split_alone(config):
  data = np.load(config["path"])
  train = {int(name.split("/")[0]) for name in build(config).labels["sample_id"].values}
  for sequence in set(range(11)) - train:
    data[sequence] += 1000
  np.save(config["path"], data)
  config |= {"normalise": "standard"}
  expected = data[sorted(train)].astype(np.float64)
  for name in ("train", "validation", "test"):
    statistics = build(config, name).statistics
    np.testing.assert_allclose(statistics.mean, expected.mean((0, 1, 2, 3)))
    np.testing.assert_allclose(statistics.std, expected.std((0, 1, 2, 3)))
    assert statistics.count.tolist() == [expected[..., 0].size] * 2
  assert take(build(config, "test"), 1)[0]["inputs"].min() > 1000


def test_statistics_are_kept_as_json_and_can_be_given(config, tmp_path):
  config |= {"normalise": "standard"}
  first = build(config, cache_dir=tmp_path / "cache")
  (path,) = (tmp_path / "cache").glob("statistics-*.json")
  values = json.loads(path.read_text())
  values["offset"] = [5.0, 6.0]
  path.write_text(json.dumps(values))
  found = build(config, cache_dir=tmp_path / "cache")
  assert found.statistics.offset.tolist() == [5.0, 6.0]
  given = build(config, statistics=first.statistics)
  assert given.statistics is first.statistics


def test_missing_values_are_zero_and_masked(config):
  data = np.load(config["path"])
  data[:, 2, 0, 1, 0] = np.nan  # Both in histories and in horizons.
  data[:, 4, 3, 2, 1] = np.nan
  np.save(config["path"], data)
  split = build({**config, "missing": "mask", "normalise": "standard"})
  names = split.labels["sample_id"].values
  for batch in take(split, 4):
    frames = np.concatenate([batch["inputs"], batch["targets"]], axis=1)
    assert np.isfinite(frames).all()
    assert (frames[~batch["mask"]] == 0).all()
    for row, index in enumerate(batch["index"]):
      sequence, start = map(int, names[index].split("/"))
      np.testing.assert_array_equal(
        batch["mask"][row], np.isfinite(data[sequence, start : start + 5])
      )
  assert split.statistics.missing_share == pytest.approx([1 / 90, 1 / 90])


def test_a_missing_value_of_the_training_split_is_named_at_once(config):
  data = np.load(config["path"])
  data[:, 4, 3, 2, 1] = np.nan
  np.save(config["path"], data)
  with pytest.raises(input_pipeline.DataError) as caught:
    build(config)
  for word in (
    config["path"],
    "frame 4",
    "'channel_1'",
    "row 3",
    "column 2",
    "data.missing='mask'",
  ):
    assert word in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_missing_value_of_another_split_is_named_when_read(config, value):
  sequence = int(build(config, "test").labels["sample_id"].values[0][0])
  data = np.load(config["path"])
  data[sequence, 4, 3, 2, 1] = value
  np.save(config["path"], data)
  with pytest.raises(
    input_pipeline.DataError,
    match=(f"sequence {sequence}, frame 4, .*channel_1.*row 3, column 2"),
  ):
    list(build(config, "test").batches)


def test_times_come_with_the_batch_and_the_labels(config):
  config |= {"step": "6h", "first_time": "2001-02-03"}
  split = build(config, "train", train=False, batch_size=16)
  (batch,) = split.batches
  first = np.datetime64("2001-02-03", "s").astype(np.int64)
  start = split.labels["start"].values
  expected = first + 6 * 3600 * (start[:, None] + np.arange(5))
  np.testing.assert_array_equal(batch["time"], expected)
  np.testing.assert_array_equal(
    split.labels["init_time"].values.astype("datetime64[s]"),
    expected[:, 2].astype("datetime64[s]"),
  )
  np.testing.assert_array_equal(
    split.labels["valid_time"].values.astype("datetime64[s]"),
    expected[:, 3:].astype("datetime64[s]"),
  )
  np.testing.assert_array_equal(
    split.coordinates["lead_time"].values,
    np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"),
  )


def test_without_a_time_axis_leads_are_counted(config):
  split = build({**config, "variables": ("u", "v"), "units": ("m/s", "m/s")})
  assert "time" not in take(split, 1)[0]
  assert split.coordinates["lead_time"].values.tolist() == [1, 2]
  assert list(split.coordinates.data_vars) == ["u", "v"]
  assert split.coordinates["u"].attrs["units"] == "m/s"
  assert split.coordinates.attrs["spatial_dims"] == ["y", "x"]
  assert split.coordinates.sizes == {"lead_time": 2, "y": 5, "x": 3}


@pytest.mark.parametrize(
  ("changes", "options", "words"),
  [
    ({"store": "aray"}, {}, ["data.store", "'aray'", "did you mean 'array'"]),
    ({"store": ""}, {}, ["data.store", "array"]),
    ({"histroy": 3}, {}, ["data.histroy", "did you mean 'history'"]),
    ({"coarsen": 2}, {}, ["data.coarsen", "store 'array'"]),
    ({"split": {"fraction": 1}}, {}, ["data.split.fraction", "'fractions'"]),
    ({"split": "time"}, {}, ["data.split='time'", "a dict"]),
    ({"loader": {"threads": -1}}, {}, ["data.loader.threads=-1"]),
    ({"missing": "maks"}, {}, ["data.missing", "'mask'"]),
    ({"cache": "ram"}, {}, ["data.cache", "memory"]),
    ({"cache": "disk"}, {}, ["data.cache='disk'", "cache_dir"]),
    ({"normalise": "z"}, {}, ["data.normalise", "standard"]),
    ({}, {"batch_size": 5, "process_count": 2}, ["5", "2 processes"]),
    ({}, {"process_index": 1}, ["process_index=1"]),
    ({}, {"start": -1}, ["start=-1"]),
    ({}, {"seed": -2}, ["seed=-2"]),
  ],
)
def test_unusable_settings_are_named(config, changes, options, words):
  with pytest.raises(input_pipeline.DataError) as caught:
    build({**config, **changes}, **options)
  for word in words:
    assert word in str(caught.value)


def test_statistics_of_other_variables_are_refused(config):
  statistics = build({**config, "variables": ("a", "b")}).statistics
  with pytest.raises(input_pipeline.DataError, match="a, b.*channel_0"):
    build(config, statistics=statistics)


def test_defaults_name_every_key_and_build_a_config(config):
  for store in ("array", "xarray"):
    known = input_pipeline.defaults(store)
    assert {"store", "path", "history", "variables", "split"} <= set(known)
    known["split"]["by"] = "changed"
    assert input_pipeline.defaults(store)["split"]["by"] == "auto"
  full = {**input_pipeline.defaults("array"), **config}
  assert_equal_batches(take(build(full), 2), take(build(config), 2))


def test_only_every_so_many_windows_can_be_read(config):
  config |= {"normalise": "standard"}
  whole = build(config, "train", train=False, batch_size=20)
  split = build(config, "train", train=False, batch_size=20, every=3)
  assert split.num_examples == split.labels.sizes["sample"] == 6  # Of 16.
  kept = whole.labels.isel(sample=slice(None, None, 3))
  assert split.labels.identical(kept)
  assert split.statistics.to_json() == whole.statistics.to_json()
  (batch,) = split.batches
  (expected,) = whole.batches
  assert batch["index"][batch["valid"]].tolist() == list(range(0, 16, 3))
  np.testing.assert_array_equal(batch["inputs"][:6], expected["inputs"][:16:3])
  with pytest.raises(input_pipeline.DataError, match="every=0"):
    build(config, every=0)
