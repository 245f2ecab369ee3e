"""Files of weights, written and read."""

import os

import jax.numpy as jnp
import numpy as np
import pytest
from torch_weights import assert_same_weights

from stjax.convert import ConvertError, files

STATE_DICT = {
  "a.weight": np.arange(6, dtype=np.float32).reshape(3, 2).T,
  "a.num_batches_tracked": np.array(7, np.int64),
  "b": np.array([True, False]),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt"])
def test_weights_come_back_from_a_file(tmp_path, suffix):
  if suffix in files.TORCH_SUFFIXES:
    pytest.importorskip("torch")
  path = tmp_path / "deep" / f"weights{suffix}"
  files.write(path, {"old": np.zeros(2)})
  files.write(path, STATE_DICT)
  assert_same_weights(files.read(path), STATE_DICT)
  assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "weights.npz"
  files.write(path, STATE_DICT)

  def fail(descriptor):
    raise OSError("disk full")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="disk full"):
    files.write(path, {"other": np.zeros(3)})
  assert_same_weights(files.read(path), STATE_DICT)
  assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoints_weights_are_found_in_it(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "last.ckpt"
  weight = torch.tensor([1.5, -2.0]).bfloat16()
  torch.save({"epoch": 3, "state_dict": {"w": weight}}, path)
  assert_same_weights(files.read(path), {"w": np.array([1.5, -2.0], np.float32)})


def test_the_trained_network_is_found_beside_frozen_ones(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "checkpoint_latest_save_step100.pth"
  names = ("diffcast_ref", "diffcast", "diffcast_far")
  weights = {
    name: {"module.unet.init_conv.bias": torch.full((2,), float(number))}
    for number, name in enumerate(names)
  }
  torch.save({"step": 100, "model": weights, "optimizer": {}}, path)
  found = files.read(path)
  assert_same_weights(found, {"module.unet.init_conv.bias": np.ones(2, np.float32)})


def test_bfloat16_comes_as_float32_without_torch(tmp_path):
  path = tmp_path / "weights.safetensors"
  files.write(path, {"w": np.array([1.5, -2.0], jnp.bfloat16)})
  assert_same_weights(files.read(path), {"w": np.array([1.5, -2.0], np.float32)})


def test_a_torch_file_that_would_run_code_is_refused(tmp_path):
  torch = pytest.importorskip("torch")
  path = tmp_path / "weights.pth"
  torch.save({"w": torch.zeros(1), "path": tmp_path}, path)
  with pytest.raises(ConvertError, match="weights-only"):
    files.read(path)


def test_an_archive_with_objects_is_refused(tmp_path):
  path = tmp_path / "weights.npz"
  np.savez(path, w=np.array([{}], dtype=object))
  with pytest.raises(ConvertError, match="no archive of arrays"):
    files.read(path)


@pytest.mark.parametrize("content", [b"no weights", b"", b"PK cut short"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_broken_file_is_refused_by_name(tmp_path, suffix, content):
  path = tmp_path / f"weights{suffix}"
  path.write_bytes(content)
  with pytest.raises(ConvertError, match=f"weights{suffix}"):
    files.read(path)


def test_a_missing_file_and_an_unknown_suffix_are_refused(tmp_path):
  with pytest.raises(ConvertError, match="no file of weights"):
    files.read(tmp_path / "weights.npz")
  with pytest.raises(ConvertError, match="expected one of .pth"):
    files.write(tmp_path / "weights.h5", STATE_DICT)
