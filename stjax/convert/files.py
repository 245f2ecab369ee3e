"""Files of weights: .pth, .pt and .ckpt (by torch), .safetensors and .npz."""

import functools
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from input_pipeline.files import replacing
from stjax.convert.mapping import strip_nesting
from stjax.errors import ConvertError

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", ".npz")

# What numpy raises for a cut, empty, pickled or plain .npy file.
_BAD_ARCHIVE = (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a state dict.

  Args:
    path: a .pth, .pt or .ckpt file (needs torch; read in its weights-only
      mode, so nothing in it is executed), .safetensors or .npz.

  Returns:
    Names and arrays, out of a checkpoint's "state_dict" if it has one.
    bfloat16 comes as float32.

  Raises:
    ConvertError: no such file, a suffix that is not known, a file that holds
      something else, or torch missing.
  """
  path = pathlib.Path(path)
  suffix = check_suffix(path)
  if not path.is_file():
    raise ConvertError(f"no file of weights at {path}")
  if suffix == ".npz":
    try:
      with np.load(path, allow_pickle=False) as archive:
        return dict(archive)
    except _BAD_ARCHIVE as error:
      raise ConvertError(f"{path} is no archive of arrays: {error}") from error
  if suffix == ".safetensors":
    try:
      arrays = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
      raise ConvertError(f"{path} is no safetensors file: {error}") from error
    return {
      key: value.astype(np.float32) if value.dtype.name == "bfloat16" else value
      for key, value in arrays.items()
    }
  return _read_torch(path)


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


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  torch = _torch(path)
  try:
    content = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # torch raises pickle's, zip's and its own.
    raise ConvertError(
      f"torch cannot read {path} in its weights-only mode: {error}"
    ) from error
  if not isinstance(content, Mapping):
    raise ConvertError(
      f"{path} holds a {type(content).__name__}; expected a state dict"
    )

  def array(value):
    value = value.detach()
    if value.dtype == torch.bfloat16:
      value = value.float()
    return value.numpy()

  return {
    key: array(value)
    for key, value in strip_nesting(content).items()
    if isinstance(value, torch.Tensor)
  }
