"""Files of weights: .pth, .pt and the like (by torch), .safetensors and .npz."""

import argparse
import codecs
import functools
import os
import pathlib
import re
import types
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from absl import logging

from input_pipeline.files import replacing
from stjax.convert import checkpoints
from stjax.errors import ConvertError

# The last is that of "model_best.pth.tar", which is no archive of tar.
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".th", ".tar")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", ".npz")

_HALVES = ("bfloat16", "float16")
# What numpy raises for a cut, empty, pickled or plain .npy file.
_BAD_ARCHIVE = (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile)


def read(
  path: str | os.PathLike, *, ema: bool = False, weights: str = ""
) -> dict[str, np.ndarray]:
  """Reads a state dict, and says in the log what it took and what it left.

  Args:
    path: a .pth, .pt, .ckpt, .bin, .th or .pth.tar file (needs torch; read in its
      weights-only mode, so nothing in it is executed), .safetensors or .npz.
    ema: whether averaged weights are taken where trained ones are beside them.
    weights: the key of the state dict, where a file holds several; see
      `checkpoints.find`.

  Returns:
    Names and arrays. Floating-point numbers of 16 bits come as float32.

  Raises:
    ConvertError: no such file, a suffix that is not known, a file that holds
      something else or numbers that cannot be used, or torch missing.
  """
  path = pathlib.Path(path)
  suffix = check_suffix(path)
  if not path.is_file():
    raise ConvertError(f"no file of weights at {path}")
  content = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(
    suffix, _read_torch
  )(path)
  found = checkpoints.find(content, ema=ema, name=weights, where=str(path))
  arrays = {key: _array(path, key, value) for key, value in found.arrays.items()}
  _say(path, found)
  return arrays


def _say(path: pathlib.Path, found: checkpoints.Weights) -> None:
  if found.taken:
    left = f"; left: {checkpoints.few(found.left)}" if found.left else ""
    logging.info("%s: took %r%s", path, found.taken, left)
  if found.averaged:
    logging.warning(
      "%s holds averaged weights (EMA) too, in %s: they were left, and the trained ones"
      " taken. To have them, use python -m stjax.convert --ema.",
      path,
      checkpoints.few(found.averaged),
    )
  if found.mixed:
    # Statistics of batches are rarely averaged.
    only_buffers = all(map(checkpoints.is_buffer, found.mixed))
    logging.log(
      logging.INFO if only_buffers else logging.WARNING,
      "%s: %d arrays have no average, so the trained ones are taken: %s",
      path,
      len(found.mixed),
      checkpoints.few(found.mixed),
    )


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      return dict(archive)
  except _BAD_ARCHIVE as error:
    raise ConvertError(f"{path} is no archive of arrays: {error}") from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise ConvertError(f"{path} is no safetensors file: {error}") from error
  except (KeyError, TypeError, AttributeError) as error:
    raise ConvertError(
      f"{path} holds numbers of type {error}, which numpy does not have. Convert them"
      " to float32 in torch and save them again."
    ) from error


def _array(path: pathlib.Path, key: str, value: Any) -> np.ndarray:
  """An array of plain numbers; those of 16 bits become float32, which is exact."""
  kind = str(value.dtype).removeprefix("torch.")
  if hasattr(value, "detach"):
    layout = str(value.layout).removeprefix("torch.")
    how = ""
    if value.is_quantized:
      how = f"is quantised ({kind}): save its .dequantize()"
    elif layout != "strided":
      how = f"is sparse ({layout}): save its .to_dense()"
    elif value.device.type == "meta":
      how = "has no values (device 'meta'): save the weights after they are loaded"
    if how:
      raise ConvertError(f"{key} in {path} {how} instead.")
  if re.match(r"(float[468](_|$)|u?int[1-7]($|_)|bits)", kind):
    raise ConvertError(
      f"{key} in {path} has type {kind}, which is meaningless without the scales of its"
      " program. Convert the weights to float32 in torch and save them again."
    )
  if hasattr(value, "detach"):
    value = value.detach().resolve_conj().resolve_neg()
    value = (value.float() if kind in _HALVES else value).numpy()
  return value.astype(np.float32) if kind in _HALVES else value


def write(path: str | os.PathLike, state_dict: Mapping[str, Any]) -> None:
  """Writes a state dict; the file appears complete or not at all.

  Args:
    path: as for `read`; an existing file is replaced.
    state_dict: names and arrays.

  Raises:
    ConvertError: a suffix that is not known, or torch missing.
  """
  path = pathlib.Path(path)
  suffix = check_suffix(path)
  arrays = {key: np.array(value, order="C") for key, value in state_dict.items()}
  if suffix == ".npz":
    save = functools.partial(np.savez, **arrays)
  elif suffix == ".safetensors":
    save = functools.partial(safetensors.numpy.save_file, arrays)
  else:
    torch = _torch(path)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    save = functools.partial(torch.save, tensors)
  with replacing(path) as partial:
    save(partial)


def check_suffix(path: pathlib.Path) -> str:
  """The suffix of a file of weights; ConvertError if it is not known."""
  if path.suffix not in SUFFIXES:
    raise ConvertError(
      f"{path} ends in {path.suffix!r}; expected one of {', '.join(SUFFIXES)}"
    )
  return path.suffix


def _torch(path: pathlib.Path):
  try:
    import torch
  except ImportError as error:
    raise ConvertError(
      f"{path} needs torch: install stjax[torch], or use .safetensors or .npz"
    ) from error
  return torch


def _harmless() -> list:
  """Types beside weights that only hold numbers and words: nothing they do is run."""
  core = getattr(np, "_core", None) or np.core
  scalar, array = core.multiarray.scalar, core.multiarray._reconstruct
  numbers = [
    type(np.dtype(kind)) for kind in (*np.typecodes["AllInteger"], *"efdgFDG?SU")
  ]
  return [
    argparse.Namespace,
    types.SimpleNamespace,
    np.ndarray,
    np.dtype,
    *dict.fromkeys(numbers),
    *(
      (value, f"numpy.{folder}.multiarray.{name}")
      for folder in ("core", "_core")  # Before and since numpy 2.
      for name, value in (("scalar", scalar), ("_reconstruct", array))
    ),
    (codecs.encode, "_codecs.encode"),
  ]


def _read_torch(path: pathlib.Path) -> Any:
  torch = _torch(path)
  try:
    with torch.serialization.safe_globals(_harmless()):
      return torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # torch raises pickle's, zip's and its own.
    raise ConvertError(_refusal(torch, path, str(error))) from error


def _refusal(torch, path: pathlib.Path, message: str) -> str:
  """Our own words: torch's advise to load a file that may run any program."""
  alone = "torch.save(model.state_dict(), 'weights.pth')"
  if not path.stat().st_size:
    return f"{path} is empty: it holds no weights."
  if "TorchScript" in message:
    return (
      f"{path} is a program (TorchScript). Save its weights alone, in torch:"
      f" torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
    )
  try:
    with torch.serialization.safe_globals(_harmless()):
      names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
  except Exception:  # Old files and damaged ones cannot be listed.
    names = []
  if not names and (found := re.search(r"(?:GLOBAL |<class ')([\w.]+)", message)):
    names = [found[1]]
  if any(name.startswith("torch.nn.modules.") for name in names):
    return (
      f"{path} holds a whole network as a Python object, which torch's weights-only"
      " mode does not read. In the program that wrote it, save the weights alone:"
      f" {alone}"
    )
  if names:
    return (
      f"{path} holds Python objects beside the weights ({checkpoints.few(names)}),"
      " which torch's weights-only mode does not read. In the program that wrote it,"
      f" save the weights alone: {alone}"
    )
  return f"{path} is no file of weights that torch can read, or it is damaged."
