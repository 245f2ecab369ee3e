"""What the options of simulators must be."""

import math
from collections.abc import Sequence

import numpy as np

from input_pipeline import errors


def count(name: str, value: int, lowest: int) -> None:
  """Raises DataError unless an option is a whole number from lowest."""
  if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
    raise errors.DataError(
      f"{name}={value!r}; expected a whole number. Change data.{name}."
    )
  if value < lowest:
    raise errors.DataError(
      f"{name}={value}; expected at least {lowest}. Change data.{name}."
    )


def number(
  name: str, value: float, *, lowest: float = -math.inf, above: float = -math.inf
) -> None:
  """Raises DataError unless an option is a finite number within its bounds."""
  given = isinstance(value, (int, float, np.number)) and math.isfinite(value)
  if isinstance(value, bool) or not given or value < lowest or value <= above:
    bound = "" if lowest == -math.inf else f" of at least {lowest:g}"
    bound = bound if above == -math.inf else f" above {above:g}"
    raise errors.DataError(
      f"{name}={value!r}; expected a finite number{bound}. Change data.{name}."
    )


def size(image_size: int | Sequence[int]) -> tuple[int, int]:
  """(H, W) from a side or a pair; raises DataError unless each is at least 2."""
  sizes = np.atleast_1d(np.asarray(image_size))
  if sizes.dtype.kind not in "iu" or sizes.ndim != 1 or len(sizes) > 2:
    raise errors.DataError(
      "image_size must be a whole number or a pair (height, width), but is "
      f"{image_size!r}."
    )
  height, width = int(sizes[0]), int(sizes[-1])
  if height < 2 or width < 2:
    raise errors.DataError(
      f"image_size must be at least 2 in each direction, but is {height} x {width}."
    )
  return height, width
