"""One golden case: an original program's inputs, parameters and results."""

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# Largest error allowed, as a share of the expected array's own scale.
OUTPUT_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
SMALLEST_SCALE = 1e-6


class NotBuilt(Exception):
  """The case's system or model has no counterpart here."""


class Case:
  """NAME.json and NAME.npz.

  Attributes:
    meta: the json: system, model, source, config, mode, ...
    arrays: the npz, by its full keys.
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
    """Name of the original class or function, e.g. "ConvSC"."""
    return self.meta["source"].split(":")[-1].split(" ")[0]

  def group(self, prefix: str) -> dict[str, np.ndarray]:
    """The arrays under "prefix/", without it."""
    start = prefix + "/"
    return {
      key.removeprefix(start): value
      for key, value in self.arrays.items()
      if key.startswith(start)
    }

  def options(self, *names: str, **defaults) -> dict[str, Any]:
    """The original constructor's arguments by name.

    Args:
      *names: the constructor's parameters in their order.
      **defaults: values of those that are not given.
    """
    config = dict(self.meta["config"])
    positional = config.pop("args", [])
    return defaults | dict(zip(names, positional, strict=False)) | config


def find(root: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """All cases under a folder, with their names relative to it."""
  for path in sorted(root.rglob("*.json")):
    yield path.relative_to(root).with_suffix("").as_posix(), path


def assert_close(
  name: str,
  actual: Any,
  expected: np.ndarray,
  tolerance: float = OUTPUT_TOLERANCE,
  smallest_scale: float = SMALLEST_SCALE,
) -> None:
  """Compares at a share of the expected array's scale; integers exactly."""
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
