"""Reports on a conversion: a table of layers, and errors against torch."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from stjax import convert, models
from stjax.convert import files, mapping

# The arrays in a reference file have these names.
INPUTS = ("inputs", "input/x")
OUTPUTS = ("outputs", "output/out")


def layers(
  family: str,
  variables: Mapping[str, Any],
  *,
  in_shape: tuple[int, ...],
  state_dict: Mapping[str, Any] | None = None,
  **network_kwargs,
) -> str:
  """Lists every array by its two names.

  Args:
    family: key of `stjax.convert.FAMILIES`.
    variables: {collection: tree of arrays}.
    in_shape: (T, H, W, C) of one input.
    state_dict: the weights that were converted; those that no variable holds
      (counters, constants, unused ones) are listed last.
    **network_kwargs: options of the network.

  Returns:
    A table of torch name, path here, shape in torch and Euclidean norm.
  """
  rules = convert.FAMILIES[family]
  network = models.build(family, **network_kwargs)
  names = rules.names(network)
  constants = rules.constants(network, tuple(in_shape))
  rows, listed = [], set()
  for path, value in traverse_util.flatten_dict(dict(variables), sep="/").items():
    key, leaf = names.key(path)
    listed.add(key)
    rows.append((key, path, leaf.to_torch(np.asarray(value))))
  size = sum(array.size for _, path, array in rows if _is_parameter(path))
  weights = mapping.plain_names(state_dict, names, constants) if state_dict else {}
  for original, (key, value) in weights.items():
    if key not in listed:
      known = key in constants or names.path(key) is not None
      rows.append(
        (original, "(not needed)" if known else "(unused)", np.asarray(value))
      )
  cells = [("torch", "stjax", "shape", "norm")] + [
    (key, path, "x".join(map(str, array.shape)) or "-", f"{_norm(array):.6g}")
    for key, path, array in rows
  ]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = [
    "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
    for row in cells
  ]
  lines.insert(1, "  ".join("-" * width for width in widths))
  lines.append(f"{size:,} parameters in {len(listed)} arrays")
  return "\n".join(line.rstrip() for line in lines)


def _is_parameter(path: str) -> bool:
  return path.startswith("params/")


def _norm(array: np.ndarray) -> float:
  return float(np.linalg.norm(np.asarray(array, np.float64).ravel()))


def errors(
  family: str,
  variables: Mapping[str, Any],
  reference: str | os.PathLike,
  **network_kwargs,
) -> dict[str, tuple[float, float]]:
  """Compares the network with torch's outputs, in float32 and in eval mode.

  Args:
    family: key of `stjax.models.MODELS`.
    variables: the network's variables.
    reference: file of "inputs" (or "input/x") and "outputs" (or
      "output/out"), both [B, T, C, H, W], and of what else the network reads
      ("calendar" [B, T, K]).
    **network_kwargs: options of the network.

  Returns:
    The largest absolute error, and that error over the output's largest
    absolute value, by the name of the output.

  Raises:
    ConvertError: arrays are missing or do not fit.
  """
  arrays = files.read(reference)
  inputs = _array(arrays, INPUTS, reference)[1]
  name, expected = _array(arrays, OUTPUTS, reference)
  network = models.build(family, **network_kwargs | {"dtype": "float32"})
  if getattr(network, "denoises", False):
    raise convert.ConvertError(
      f"network {family!r} is a denoiser: a file of inputs and outputs does"
      " not say which step and noise they belong to. Leave out --reference."
    )
  fields = {
    name: jnp.asarray(arrays[name])
    for name in getattr(network, "extra_inputs", ())
    if name in arrays
  }
  try:
    with jax.default_matmul_precision("highest"):
      outputs = jax.jit(
        lambda v, x, fields: network.apply(v, x, train=False, **fields)
      )(variables, jnp.asarray(np.moveaxis(inputs, 2, -1), jnp.float32), fields)
  except (ValueError, TypeError) as error:  # flax and jax raise both for shapes.
    raise convert.ConvertError(
      f"the network cannot take the inputs {inputs.shape} of {reference}"
      f" (axes B, T, C, H, W): {error}"
    ) from error
  actual = np.moveaxis(np.asarray(outputs), -1, 2)
  if actual.shape != expected.shape:
    raise convert.ConvertError(
      f"{name} in {reference} has shape {expected.shape}; the network"
      f" returns {actual.shape} (axes B, T, C, H, W)"
    )
  error = float(np.abs(actual - expected).max())
  scale = float(np.abs(expected).max())
  return {name: (error, error / max(scale, np.finfo(np.float32).tiny))}


def _array(arrays, names, path) -> tuple[str, np.ndarray]:
  found = next((name for name in names if name in arrays), None)
  if found is None:
    raise convert.ConvertError(
      f"{path} has no array {' or '.join(map(repr, names))}; it has"
      f" {', '.join(arrays) or 'none'}"
    )
  if arrays[found].ndim != 5:
    raise convert.ConvertError(
      f"{found} in {path} has shape {arrays[found].shape}; expected [B, T, C, H, W]"
    )
  return found, arrays[found]
