"""The boiling plate, simulated on the spot: a data set that needs no file."""

from collections.abc import Sequence

import xarray as xr

from input_pipeline.simulate import boiling, checks
from input_pipeline.stores import base, simulated


class BoilingStore(simulated.SimulatedStore):
  """Store of simulated boiling plates: config `data.store = "boiling"`.

  There is no time axis: lead times count frames. Temperatures are divided by
  the boiling point of 212 degrees.

  Args:
    num_samples: number of plates.
    num_frames: frames of each, the initial one included.
    image_size: side of a square plate, or (H, W).
    increment: heating per frame in degrees.
    simulation_seed: seed of the initial temperatures.
    cache_dir: where the frames are kept as a memory-mapped file; None keeps
      them in memory.

  Raises:
    DataError: if an option is out of range.
  """

  variables = (base.Variable(boiling.VARIABLE, boiling.ATTRIBUTES),)

  def __init__(
    self,
    num_samples: int = 100,
    num_frames: int = 20,
    image_size: int | Sequence[int] = 64,
    increment: float = boiling.DEFAULT_INCREMENT,
    simulation_seed: int = 0,
    cache_dir: str | None = None,
  ):
    shape = (num_samples, num_frames) + checks.size(image_size)
    size = "x".join(str(length) for length in shape)
    name = f"boiling_{size}_increment{float(increment)!r}_seed{simulation_seed}"

    def simulate(write):
      raw = boiling.initial_conditions(num_samples, image_size, simulation_seed)
      write(boiling.simulate(raw, num_frames, increment))

    super().__init__(name, shape, simulate, cache_dir)

  @property
  def space(self) -> xr.Dataset:
    """Row and column numbers as y and x."""
    return base.index_space(*self._shape[2:])

  def sample_id(self, sequence: int) -> str:
    """The number of the plate in its seed's stream, as boiling_<number>."""
    return boiling.sample_name(sequence)
