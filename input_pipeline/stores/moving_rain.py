"""Moving rain, simulated on the spot: data that need no file."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from input_pipeline import options
from input_pipeline.simulate import checks, moving_rain
from input_pipeline.stores import base, simulated

# Part of the cached file's name: to be raised when the same options come to
# give other frames.
_VERSION = 1


class MovingRainStore(simulated.SimulatedStore):
  """Store of simulated rain: config `data.store = "moving_rain"`.

  Frames are rain rates in mm/h, 5 minutes apart, on a grid of 1 km. There are no
  dates: lead times are minutes.

  Args:
    num_samples: number of sequences.
    num_frames: frames of each.
    image_size: grid cells along each side, or (H, W).
    speed: of the mean motion in cells per frame, between half and one and a
      half times that.
    cells: mean number of rain cells within 64 x 64 grid cells at a time.
    lifetime: mean life of a rain cell in frames.
    simulation_seed: seed of all sequences.
    cache_dir: where the frames are kept as a memory-mapped file; None keeps
      them in memory.

  Raises:
    DataError: if an option is out of range.
  """

  variables = (base.Variable(moving_rain.VARIABLE, moving_rain.ATTRIBUTES),)
  step = np.timedelta64(moving_rain.MINUTES, "m")

  def __init__(
    self,
    num_samples: int = 100,
    num_frames: int = 24,
    image_size: int | Sequence[int] = 64,
    speed: float = 2.0,
    cells: float = 8.0,
    lifetime: float = 18.0,
    simulation_seed: int = 0,
    cache_dir: str | None = None,
  ):
    checks.count("num_samples", num_samples, 1)
    checks.count("num_frames", num_frames, 1)
    checks.count("simulation_seed", simulation_seed, 0)
    checks.number("speed", speed, lowest=0.0)
    checks.number("cells", cells, lowest=0.0)
    checks.number("lifetime", lifetime, above=0.0)
    self._recipe = dict(
      num_frames=num_frames,
      size=checks.size(image_size),
      speed=float(speed),
      cells=float(cells),
      lifetime=float(lifetime),
      seed=simulation_seed,
    )
    shape = (num_samples, num_frames, *self._recipe["size"])
    key = options.digest(_VERSION, shape, self._recipe)
    simulate = functools.partial(_simulate, self._recipe, num_samples)
    super().__init__(f"moving_rain-{key}", shape, simulate, cache_dir)

  @property
  def space(self) -> xr.Dataset:
    """Distances y and x from the first row and column, in km."""
    return xr.Dataset(
      coords={
        name: (
          name,
          np.arange(length) * moving_rain.KILOMETRES,
          {"units": "km", "long_name": f"distance from the first {what}"},
        )
        for name, length, what in zip(
          ("y", "x"), self._recipe["size"], ("row", "column"), strict=True
        )
      },
      attrs={"spatial_dims": ["y", "x"]},
    )

  def sample_id(self, sequence: int) -> str:
    """The number of the sequence, as moving_rain_<number>."""
    return f"moving_rain_{sequence}"

  def motion(self, sequence: int) -> moving_rain.Motion:
    """The true motion of a sequence, in cells per frame."""
    return moving_rain.draw(sequence, **self._recipe)[0]


def _simulate(recipe, num_samples: int, write: Callable[[np.ndarray], None]) -> None:
  """Hands the frames [1, T, H, W] of one sequence after the other to `write`."""
  for sequence in range(num_samples):
    motion, cells = moving_rain.draw(sequence, **recipe)
    frames = moving_rain.rain(motion, cells, recipe["num_frames"], recipe["size"])
    write(frames[None])
