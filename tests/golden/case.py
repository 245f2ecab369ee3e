"""One golden case: the inputs, parameters and results of an original program."""

import functools
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# The largest error that is allowed, as a share of the expected array's scale.
OUTPUT_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
SMALLEST_SCALE = 1e-6
# Complex weights, which some cases hold as real and imaginary part.
COMPLEX = ("weights1", "weights2", "koopman_matrix")


class NotBuilt(Exception):
  """The project has no counterpart of a case's model, or of one of its options."""


class Case:
  """A case of two files, NAME.json and NAME.npz.

  Attributes:
    meta: the content of the json: system, model, source, config, mode and more.
    arrays: the arrays of the npz by their full keys.
  """

  def __init__(self, path: pathlib.Path):
    self.meta: dict[str, Any] = json.loads(path.read_text())
    self._archive = path.with_suffix(".npz")

  @functools.cached_property
  def arrays(self) -> Mapping[str, np.ndarray]:
    with np.load(self._archive, allow_pickle=False) as archive:
      return dict(archive)

  @property
  def has_arrays(self) -> bool:
    return self._archive.is_file()

  @property
  def train(self) -> bool:
    return self.meta["mode"] == "train"

  @property
  def original(self) -> str:
    """The name of the original class or function, for example "ConvSC"."""
    return self.meta.get("source", "").split(":")[-1].split(" ")[0]

  def group(self, prefix: str) -> dict[str, np.ndarray]:
    """The arrays under "prefix/", by their names without it.

    Parameters are made by the case's recipe if it has one. Complex weights are
    complex arrays, whichever way the case holds them.
    """
    if prefix == "param" and "param_recipe" in self.meta:
      return dict(self._made_parameters)
    start = prefix + "/"
    return {
      key.removeprefix(start): _as_complex(key, value)
      for key, value in self.arrays.items()
      if key.startswith(start)
    }

  @functools.cached_property
  def _made_parameters(self) -> dict[str, np.ndarray]:
    recipe = self.meta["param_recipe"]
    complex_keys = recipe.get("complex_keys", ())
    parameters = {}
    for key, (kind, scale, shape) in recipe["keys"].items():
      draw = functools.partial(
        _draw, recipe["seed"], kind=kind, shape=shape, bits=recipe["bits"]
      )
      if key in complex_keys:
        part = scale / np.sqrt(2)
        real, imaginary = (draw(name, scale=part) for name in (key, f"{key}#imag"))
        parameters[key] = real + np.complex64(1j) * imaginary
      else:
        parameters[key] = draw(key, scale=scale)
    sums = [
      parameters[key].real.sum(dtype=np.float64)
      for key, how in recipe["keys"].items()
      if how[0] != "skip"
    ]
    np.testing.assert_allclose(
      sums, self.arrays["check/param_sum"], rtol=1e-4, atol=1e-3
    )
    return parameters

  def options(self, names: str, **defaults) -> dict[str, Any]:
    """The original constructor's arguments by their names.

    Args:
      names: the constructor's parameters in their order, with spaces between.
      **defaults: the values of those that the case does not give.
    """
    config = dict(self.meta["config"])
    positional = config.pop("args", [])
    return defaults | dict(zip(names.split(), positional, strict=False)) | config


def _as_complex(key: str, value: np.ndarray) -> np.ndarray:
  if key.split(".")[-1].split("/")[-1] in COMPLEX and not np.iscomplexobj(value):
    return value.view(np.complex64)[..., 0]
  return value


def _draw(seed: int, key: str, kind: str, scale: float, shape, bits: int) -> np.ndarray:
  """Makes one array of a case whose parameters are made by a recipe."""
  state = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0x7FFFFFFF)
  g = state.standard_normal(shape)
  if kind == "skip":
    return np.zeros(shape, np.int32)
  value = {"n": scale * g, "gain": 1 + 0.1 * g, "var": 0.5 + 0.5 * np.abs(g)}[kind]
  return (np.round(value * 2**bits) / 2**bits).astype(np.float32)


def find(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """Finds all cases under a folder; yields their names relative to it and paths."""
  for path in sorted(root.rglob("*.json")):
    yield path.relative_to(root).with_suffix("").as_posix(), path


def assert_close(
  name: str,
  actual: Any,
  expected: np.ndarray,
  tolerance: float = OUTPUT_TOLERANCE,
  smallest_scale: float = SMALLEST_SCALE,
) -> None:
  """Compares at a share of the expected array's scale, and integers exactly."""
  actual = np.asarray(actual)
  assert actual.shape == expected.shape, (
    f"{name}: shape {actual.shape}; expected {expected.shape}"
  )
  if not np.issubdtype(expected.dtype, np.inexact):
    np.testing.assert_array_equal(actual, expected, err_msg=name)
    return
  np.testing.assert_array_equal(
    np.isfinite(actual), np.isfinite(expected), err_msg=name
  )
  finite = np.isfinite(expected)
  np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=name)
  difference = np.abs(actual[finite] - expected[finite]).max(initial=0)
  scale = max(np.abs(expected[finite]).max(initial=0), smallest_scale)
  assert difference <= tolerance * scale, (
    f"{name}: largest error {difference:.3g} is {difference / scale:.3g} of "
    f"the scale {scale:.3g}; allowed {tolerance:.3g}"
  )
