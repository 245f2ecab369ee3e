"""Random symmetries of the plane, for data that have no preferred place.

All frames of an example are moved in the same way, so that the dynamics stay true. Use
an operation only where the physics allow it: rolls need a periodic domain, and
flips one without a preferred direction (no Coriolis force, no prevailing
wind).
"""

from collections.abc import Sequence

import numpy as np

from input_pipeline import errors

OPERATIONS = ("flip_h", "flip_w", "transpose", "roll_h", "roll_w")


def check(operations: Sequence[str], height: int, width: int) -> None:
  """Raises DataError for an unknown or impossible operation.

  Args:
    operations: names out of `OPERATIONS`.
    height: rows of the grid.
    width: columns of the grid.
  """
  for name in operations:
    if name not in OPERATIONS:
      raise errors.unknown("symmetry (data.augment)", name, OPERATIONS)
  if "transpose" in operations and height != width:
    raise errors.DataError(
      f"data.augment has 'transpose', which needs a square grid; the data "
      f"have {height} x {width}. Leave it out."
    )


def apply(
  frames: np.ndarray, operations: Sequence[str], seed: int, position: int
) -> np.ndarray:
  """Moves the frames of one example by a random choice of symmetries.

  Args:
    frames: [T, H, W, C].
    operations: flips and the transpose happen in half of the examples, rolls
      by any number of cells.
    seed: of the run.
    position: number of the example in the endless training series; the same
      seed and position always give the same choice.

  Returns:
    [T, H, W, C], a view where possible.
  """
  random = np.random.default_rng([seed, position])
  shift = [0, 0]
  for name in operations:
    if name.startswith("flip"):
      if random.random() < 0.5:
        frames = np.flip(frames, 1 if name == "flip_h" else 2)
    elif name == "transpose":
      if random.random() < 0.5:
        frames = frames.swapaxes(1, 2)
    else:
      axis = 0 if name == "roll_h" else 1
      shift[axis] = int(random.integers(frames.shape[1 + axis]))
  return np.roll(frames, shift, (1, 2)) if any(shift) else frames
