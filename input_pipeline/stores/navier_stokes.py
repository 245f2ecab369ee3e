"""Navier-Stokes flow, simulated on the spot: data that need no file."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import options
from input_pipeline.simulate import checks, navier_stokes
from input_pipeline.stores import base, simulated

# Part of the cached file's name: to be raised when the same options come to
# give other frames.
_VERSION = 1
# Memory for the trajectories that are simulated at the same time, and the
# half spectra and fields of one grid that a time step needs for each.
_GROUP_BYTES = 2**28
_FIELDS = 40
_LOG_SECONDS = 10.0


class NavierStokesStore(simulated.SimulatedStore):
  """Store of simulated flows: config `data.store = "navier_stokes"`.

  The box is [0, 2 pi) in x and y and periodic; everything is dimensionless.
  There is no time axis: lead times count frames. The defaults are decaying
  turbulence at a Reynolds number of 1000. Frames are made in the process that
  makes the store, on its first device, never by worker processes.

  Args:
    num_samples: number of trajectories.
    num_frames: frames of each.
    image_size: points along each side of a frame.
    grid: points along each side of the simulation; 0 for image_size.
    downsample: "spectral" or "bilinear", where grid is more than image_size.
    variables: channels, of "vorticity", "u", "v".
    frame_spacing: time between frames.
    time_step: longest time step of the simulation.
    spin_up: time before the first frame.
    viscosity: of the vorticity, 1 / Reynolds number.
    drag: rate at which vorticity is damped at all scales.
    forcing_wavenumber: of the Kolmogorov forcing, a force along x that varies
      as sin(forcing_wavenumber * y); 0 for none.
    forcing_amplitude: of that force.
    peak_wavenumber: of the random initial flow's energy.
    initial_tau: smaller values give more to its largest scales.
    initial_max_speed: its largest speed; 0 for a mean kinetic energy of 1/4.
    precision: "float32" or "float64", of the simulation.
    simulation_seed: seed of the initial flows.
    group: trajectories simulated at the same time; 0: as many as 256 MiB hold.
    cache_dir: where the frames are kept as a memory-mapped file; None keeps
      them in memory.

  Raises:
    DataError: if an option is out of range, or if time_step is too long.
  """

  def __init__(
    self,
    num_samples: int = 100,
    num_frames: int = 20,
    image_size: int = 64,
    grid: int = 0,
    downsample: str = "spectral",
    variables: str | Sequence[str] = ("vorticity",),
    frame_spacing: float = 0.1,
    time_step: float = 1e-2,
    spin_up: float = 4.5,
    viscosity: float = 1e-3,
    drag: float = 0.0,
    forcing_wavenumber: int = 0,
    forcing_amplitude: float = 1.0,
    peak_wavenumber: float = 4.0,
    initial_tau: float = 1.0,
    initial_max_speed: float = 0.0,
    precision: str = "float32",
    simulation_seed: int = 0,
    group: int = 0,
    cache_dir: str | None = None,
  ):
    checks.count("num_samples", num_samples, 1)
    checks.count("num_frames", num_frames, 1)
    checks.count("group", group, 0)
    names = base.as_names(variables)
    grid = grid or image_size
    navier_stokes.check_frames(grid, image_size, downsample, names)
    shape = (num_samples, num_frames, image_size, image_size, len(names))
    attributes = {"frame_spacing": float(frame_spacing)}
    self.variables = tuple(
      base.Variable(name, navier_stokes.VARIABLES[name] | attributes) for name in names
    )
    self._axis = navier_stokes.frame_axis(grid, image_size, downsample)
    recipe = _Recipe(
      flow=navier_stokes.Flow(
        grid=grid,
        viscosity=viscosity,
        drag=drag,
        forcing_wavenumber=forcing_wavenumber,
        forcing_amplitude=forcing_amplitude,
      ),
      initial=dict(
        grid=grid,
        seed=simulation_seed,
        peak_wavenumber=peak_wavenumber,
        tau=initial_tau,
        max_speed=initial_max_speed,
      ),
      frames=dict(
        num_frames=num_frames,
        frame_spacing=frame_spacing,
        time_step=time_step,
        spin_up=spin_up,
        image_size=image_size,
        downsample=downsample,
        variables=names,
        precision=precision,
      ),
      group=min(num_samples, group or _group(grid, shape, precision)),
    )
    # The size of a group counts: it may change the last digits.
    key = options.digest(_VERSION, shape, dataclasses.asdict(recipe))
    super().__init__(
      f"navier_stokes-{key}",
      shape,
      functools.partial(_simulate, recipe, num_samples),
      cache_dir,
    )

  @property
  def space(self) -> xr.Dataset:
    """Positions y and x in the box, within [0, 2 pi)."""
    return xr.Dataset(
      coords={
        name: (name, self._axis, {"units": "1", "long_name": f"position along {name}"})
        for name in ("y", "x")
      },
      attrs={"spatial_dims": ["y", "x"]},
    )

  def sample_id(self, sequence: int) -> str:
    """The number of the trajectory, as navier_stokes_<number>."""
    return f"navier_stokes_{sequence}"


@dataclasses.dataclass(frozen=True)
class _Recipe:
  """Arguments of the simulator, and trajectories simulated at a time."""

  flow: navier_stokes.Flow
  initial: Mapping[str, Any]
  frames: Mapping[str, Any]
  group: int


def _group(grid: int, shape: Sequence[int], precision: str) -> int:
  """How many trajectories _GROUP_BYTES hold, at least one."""
  width = 8 if precision == "float64" else 4
  bytes_each = _FIELDS * grid**2 * width + 4 * int(np.prod(shape[1:]))
  return max(1, _GROUP_BYTES // bytes_each)


def _simulate(
  recipe: _Recipe, num_samples: int, write: Callable[[np.ndarray], None]
) -> None:
  """Simulates trajectories group by group and logs how far it is.

  Args:
    recipe: what is simulated.
    num_samples: number of trajectories.
    write: called with [n, F, H, W, C] float32 frames of the next ones.
  """
  start = logged = time.monotonic()
  num_groups = -(-num_samples // recipe.group)
  logging.info("Simulating %d Navier-Stokes trajectories", num_samples)
  for number in range(num_groups):

    def progress(done, total, number=number):
      nonlocal logged
      now = time.monotonic()
      share = (number + done / total) / num_groups if total else 0.0
      if now - logged >= _LOG_SECONDS and 0 < share < 1:
        logged = now
        logging.info(
          "Simulating: %3.0f %%, %.0f s to go",
          100 * share,
          (now - start) * (1 - share) / share,
        )

    first = number * recipe.group
    # A last group is filled up, so that no other shape is compiled.
    samples = np.minimum(np.arange(first, first + recipe.group), num_samples - 1)
    initial = np.stack(
      [
        navier_stokes.initial_vorticity(int(sample), **recipe.initial)
        for sample in samples
      ]
    )
    frames = navier_stokes.simulate(
      recipe.flow, initial, **recipe.frames, first=first, progress=progress
    )
    write(frames[: num_samples - first])
  logging.info("Simulated in %.1f s", time.monotonic() - start)
