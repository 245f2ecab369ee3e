"""Weights in checkpoints as programs write them, and those that are refused."""

import argparse
import collections
import types

import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from torch_weights import assert_same_weights, to_stjax, to_torch, torch_weights

from stjax.convert import ConvertError, files

torch = pytest.importorskip("torch")

FAMILY = "unet"


def trained():
  return {key: torch.from_numpy(x) for key, x in torch_weights(FAMILY).items()}


def average():
  return {k: x + 1 if x.is_floating_point() else x for k, x in trained().items()}


def parameters(state_dict):
  return {
    key: x
    for key, x in state_dict.items()
    if not key.endswith(("running_mean", "running_var", "tracked"))
  }


def under(prefix, state_dict):
  return {f"{prefix}{key}": x for key, x in state_dict.items()}


def bare(prefix, state_dict):
  return {prefix + key.replace(".", ""): x for key, x in state_dict.items()}


def optimizer():
  return {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}},
    "param_groups": [{"lr": 1e-3, "params": [0]}],
  }


def saved(tmp_path, content, name="weights.pth", **options):
  path = tmp_path / name
  torch.save(content, path, **options)
  return path


def numbers(state_dict):
  return {key: np.asarray(x) for key, x in state_dict.items()}


LAYOUTS = {
  "model_state_dict": lambda: {
    "epoch": 3,
    "loss": torch.tensor(0.1),
    "model_state_dict": trained(),
    "optimizer_state_dict": optimizer(),
  },
  "model and optimizer": lambda: {
    "model": under("module.", trained()),
    "optimizer": optimizer(),
    "rng_state": torch.zeros(5000, dtype=torch.uint8),
  },
  "net": lambda: {"net": trained(), "acc": 0.5},
  "DeepSpeed": lambda: {"module": trained(), "dp_world_size": 2, "buffer_names": []},
  "generator beside discriminator": lambda: {
    "generator": trained(),
    "discriminator": {"conv.weight": torch.ones(3, 3)},
  },
  "generator of generators": lambda: {
    "discriminator": {"state_dict": {"conv.weight": torch.ones(3, 3)}},
    "generator": {"state_dict": trained()},
  },
  "Lightning": lambda: {
    "state_dict": under("model.", trained()),
    "hyper_parameters": {"weights": torch.ones(4)},
    "optimizer_states": [optimizer()],
    "callbacks": {},
  },
  "Lightning of another attribute": lambda: {"state_dict": under("net.", trained())},
  "deep prefix": lambda: under("system.module.forecaster.", trained()),
  "compiled and parallel": lambda: under("_orig_mod.module.", trained()),
  "compiled parts": lambda: {
    key.replace("double_conv.", "double_conv._orig_mod."): x
    for key, x in trained().items()
  },
  "statistics beside": lambda: {
    "mean": torch.zeros(2),
    "std": torch.ones(2),
    "model": trained(),
  },
  "counts among the weights": lambda: trained() | {"epoch": torch.tensor(5)},
  "torch's averaged model": lambda: (
    under("module.", trained()) | {"n_averaged": torch.tensor(4)}
  ),
  "list": lambda: [trained()],
  "tuple with optimizer": lambda: (trained(), optimizer()),
  "namespace and numpy": lambda: {
    "state_dict": trained(),
    "args": argparse.Namespace(lr=1e-3, sizes=[1, 2]),
    "more": types.SimpleNamespace(a=1),
    "best": np.float64(0.5),
    "step": np.int64(3),
    "flag": np.bool_(True),
    "history": np.arange(3.0),
  },
  "numpy arrays": lambda: {"state_dict": numbers(trained())},
  "parameters": lambda: {
    k: torch.nn.Parameter(x) if x.is_floating_point() else x
    for k, x in trained().items()
  },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_bit_for_bit(tmp_path, layout):
  found = files.read(saved(tmp_path, LAYOUTS[layout]()))
  assert_same_weights(to_torch(FAMILY, to_stjax(FAMILY, found)), torch_weights(FAMILY))


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pth.tar"])
def test_suffixes_and_the_old_format_are_read(tmp_path, suffix):
  options = {"_use_new_zipfile_serialization": False}
  path = saved(tmp_path, {"model": trained()}, f"best{suffix}", **options)
  assert_same_weights(files.read(path), torch_weights(FAMILY))


# Each holds the trained weights beside an average, with or without the statistics
# of batches.
AVERAGES = {
  "timm": lambda: {
    "state_dict": under("module.", trained()),
    "state_dict_ema": under("module.", average()),
  },
  "wrapped only while trained": lambda: {
    "model": under("module.", trained()),
    "ema": average(),
  },
  "parameters only": lambda: {"model": trained(), "model_ema": parameters(average())},
  "shadow": lambda: {
    "model": under("module.", trained()),
    "ema": {"decay": 0.9, "shadow": parameters(average())},
  },
  "names without dots": lambda: {
    "state_dict": {
      **under("model.", trained()),
      **bare("model_ema.", parameters(average())),
      "model_ema.decay": torch.tensor(0.999),
      "model_ema.num_updates": torch.tensor(5),
    }
  },
  "prefix": lambda: under("model.", trained()) | under("ema_model.", average()),
  "diffusers": lambda: {
    "state_dict": trained(),
    "ema": {"decay": 0.9, "shadow_params": list(parameters(average()).values())},
  },
  "ema_pytorch": lambda: {
    "model": trained(),
    "ema": {
      "initted": torch.tensor(True),
      "step": torch.tensor(7),
      **under("online_model.", trained()),
      **under("ema_model.", average()),
    },
  },
  "BasicSR": lambda: {"params": trained(), "params_ema": average()},
  "Lightning's averaging": lambda: {
    "state_dict": average(),
    "current_model_state": trained(),
    "averaging_state": {"n_averaged": torch.tensor(3)},
  },
}


@pytest.mark.parametrize("layout", AVERAGES)
def test_the_average_is_left_unless_it_is_asked_for(tmp_path, layout, monkeypatch):
  said = []
  monkeypatch.setattr(
    logging, "warning", lambda text, *words: said.append(text % words)
  )
  path = saved(tmp_path, AVERAGES[layout]())
  found = files.read(path)
  assert_same_weights(to_torch(FAMILY, to_stjax(FAMILY, found)), torch_weights(FAMILY))
  assert len(said) == 1 and "--ema" in said[0] and "averaged weights" in said[0]
  expected = numbers(average())
  # Statistics that are not averaged come from the trained weights.
  if layout in ("parameters only", "shadow", "names without dots", "diffusers"):
    expected = torch_weights(FAMILY) | numbers(parameters(average()))
  found = to_stjax(FAMILY, files.read(path, ema=True))
  assert_same_weights(to_torch(FAMILY, found), expected)


def test_an_average_alone_is_taken(tmp_path):
  path = saved(tmp_path, {"ema_state_dict": under("module.", average()), "step": 3})
  found = to_stjax(FAMILY, files.read(path))
  assert_same_weights(to_torch(FAMILY, found), numbers(average()))


@pytest.mark.parametrize(
  ("content", "weights"),
  [
    (lambda: {"ema_0.99": trained(), "ema_0.9": average()}, "ema_0.9"),
    (lambda: {"one": trained(), "two": under("model.", average())}, "two"),
    (lambda: {"one": {"net": trained()}, "two": {"net": average()}}, "two/net"),
    (lambda: {"model": under("a.", trained()) | under("b.", average())}, "b"),
  ],
)
def test_one_of_several_networks_is_chosen_by_name(tmp_path, content, weights):
  path = saved(tmp_path, content())
  with pytest.raises(ConvertError, match="--weights="):
    to_stjax(FAMILY, files.read(path))
  found = to_stjax(FAMILY, files.read(path, weights=weights))
  assert_same_weights(to_torch(FAMILY, found), numbers(average()))
  with pytest.raises(ConvertError, match="no weights under --weights=three"):
    files.read(path, weights="three")


def first():
  return next(key for key, x in trained().items() if x.ndim == 4)


def changed(change):
  return lambda: trained() | {first(): change(trained()[first()])}


def half_lost():
  kept = list(trained().items())[::2]
  return dict(kept) | under("head.", dict(kept))


class Unknown:
  """A class that no reader knows."""


REFUSED = {
  "network": (lambda: torch.nn.Linear(2, 2), "whole network.*state_dict"),
  "objects": (lambda: {"w": torch.ones(1), "x": Unknown()}, "Unknown.*state_dict"),
  "defaultdict": (
    lambda: {"w": torch.ones(1), "x": collections.defaultdict(list, a=[1])},
    "defaultdict.*state_dict",
  ),
  "optimizer": (optimizer, "optimiser.*state_dict"),
  "optimizer beside": (lambda: {"optimizer": optimizer()}, "optimiser"),
  "empty": (dict, "empty"),
  "no arrays": (lambda: {"a": 3}, "no arrays by name .it has a"),
  "number": (lambda: 3, "holds a int"),
  "sparse": (changed(lambda x: x.to_sparse()), r"sparse .*to_dense"),
  "float8": (changed(lambda x: x.to(torch.float8_e4m3fn)), "float8.*float32"),
  "quantised": (
    changed(lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
    "quantised.*dequantize",
  ),
  "meta": (changed(lambda x: x.to("meta")), "no values|cannot|can read"),
  "integers": (changed(lambda x: x.to(torch.int8)), "type int8.*dequantised"),
  "complex": (changed(lambda x: x * 1j), "complex|shape"),
  "NaN": (changed(lambda x: x * np.nan), r"NaN or Inf is in .*values\)"),
  "too large": (changed(lambda x: x.double() * 1e300), "NaN or Inf"),
  "average of another length": (
    lambda: {"model": trained(), "ema": {"shadow_params": [torch.ones(3)]}},
    "list of 1 averaged",
  ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_few_words(tmp_path, kind):
  content, words = REFUSED[kind]
  path = saved(tmp_path, content())
  with pytest.raises(ConvertError, match=words) as error:
    to_stjax(FAMILY, files.read(path, ema=kind.startswith("average")))
  message = str(error.value)
  assert len(message) < 600 and "weights_only=False" not in message
  if kind not in ("integers", "complex", "NaN", "too large"):
    assert path.name in message


def test_nothing_in_a_file_is_run(tmp_path):
  class Payload:
    def __reduce__(self):
      return (open, (str(tmp_path / "run"), "w"))

  path = saved(tmp_path, {"state_dict": trained(), "extra": Payload()})
  with pytest.raises(ConvertError, match="Python objects"):
    files.read(path)
  assert not (tmp_path / "run").exists()


def test_many_misfits_are_counted(tmp_path):
  with pytest.raises(ConvertError) as error:
    to_stjax(FAMILY, files.read(saved(tmp_path, half_lost())))
  lines = str(error.value).splitlines()
  assert len(lines) <= 15 and "more: missing" in str(error.value)
  with pytest.raises(ConvertError, match="of another network"):
    to_stjax(FAMILY, {"a.b": np.ones(3), "c.d": np.ones(2)})


def test_no_average_is_said(tmp_path):
  with pytest.raises(ConvertError, match="no averaged weights.*--ema"):
    files.read(saved(tmp_path, trained()), ema=True)


@pytest.mark.parametrize("kind", [jnp.bfloat16, np.float16])
def test_half_precision_is_converted_exactly(tmp_path, kind):
  path = tmp_path / "weights.safetensors"
  half = {k: x.astype(kind) for k, x in numbers(parameters(trained())).items()}
  files.write(path, torch_weights(FAMILY) | half)
  expected = torch_weights(FAMILY) | {k: np.float32(x) for k, x in half.items()}
  assert_same_weights(files.read(path), expected)
  assert_same_weights(to_torch(FAMILY, to_stjax(FAMILY, files.read(path))), expected)


def test_float8_of_safetensors_is_refused(tmp_path):
  from safetensors.torch import save_file

  path = tmp_path / "weights.safetensors"
  save_file({"w": torch.ones(3).to(torch.float8_e4m3fn)}, path)
  with pytest.raises(ConvertError, match="float32"):
    files.read(path)
