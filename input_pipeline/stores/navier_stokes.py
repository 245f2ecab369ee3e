"""Navier-Stokes flow, simulated on the spot: data that need no file."""

import contextlib
import dataclasses
import pathlib
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import options
from input_pipeline.errors import DataError
from input_pipeline.simulate import navier_stokes
from input_pipeline.stores import base

# Part of the cached file's name: to be raised when the same options come to
# give other frames.
_VERSION = 1
# Memory for the trajectories that are simulated at the same time, and the
# half spectra and fields of one grid that a time step needs for each.
_GROUP_BYTES = 2**28
_FIELDS = 40
_LOG_SECONDS = 10.0
# Stores without a cache_dir share their frames while any of them lives.
_in_memory: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


class NavierStokesStore(base.Store):
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
    navier_stokes.check_count("num_samples", num_samples, 1)
    navier_stokes.check_count("num_frames", num_frames, 1)
    navier_stokes.check_count("group", group, 0)
    names = base.as_names(variables)
    grid = grid or image_size
    navier_stokes.check_frames(grid, image_size, downsample, names)
    self._shape = (num_samples, num_frames, image_size, image_size, len(names))
    attributes = {"frame_spacing": float(frame_spacing)}
    self._variables = tuple(
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
      group=min(num_samples, group or _group(grid, self._shape, precision)),
    )
    # The size of a group counts: it may change the last digits.
    key = options.digest(_VERSION, self._shape, dataclasses.asdict(recipe))
    self._file = None
    if cache_dir is not None:
      self._file = pathlib.Path(cache_dir) / f"navier_stokes-{key}.npy"
    self._frames = _in_memory.get(key) if cache_dir is None else None
    if self._file is not None:
      if not self._file.exists():
        with _appearing(self._file, self._shape) as write:
          _simulate(recipe, num_samples, write)
      self._frames = _open(self._file, self._shape)
    elif self._frames is None:
      parts = []
      _simulate(recipe, num_samples, parts.append)
      self._frames = _in_memory[key] = (
        np.concatenate(parts) if len(parts) > 1 else parts[0]
      )

  def __getstate__(self):
    state = dict(self.__dict__)
    if self._file is not None:
      state["_frames"] = None  # Opened again where the store arrives.
    return state

  @property
  def variables(self) -> tuple[base.Variable, ...]:
    """The channels; their attributes tell the time between frames."""
    return self._variables

  @property
  def num_sequences(self) -> int:
    """The number of trajectories."""
    return self._shape[0]

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

  def length(self, sequence: int) -> int:
    """Frames of a trajectory; the same for all."""
    del sequence
    return self._shape[1]

  def sample_id(self, sequence: int) -> str:
    """The number of the trajectory, as navier_stokes_<number>."""
    return f"navier_stokes_{sequence}"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    """Frames start to stop (excluded) of a trajectory, [T, H, W, C]."""
    if self._frames is None:
      self._frames = _open(self._file, self._shape)
    return self._frames[sequence, start:stop]


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


def _open(file: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
  """Maps a cached file."""
  try:
    frames = np.load(file, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise DataError(
      f"{file} is no readable copy of the simulated flow ({error}); remove it "
      "and it is made again."
    ) from error
  if frames.shape != shape or frames.dtype != np.float32:
    raise DataError(
      f"{file} holds {frames.dtype} {frames.shape} instead of float32 "
      f"{shape}; remove it and it is made again."
    )
  # A plain view: slicing np.memmap objects is several times slower.
  return frames.view(np.ndarray)


@contextlib.contextmanager
def _appearing(
  file: pathlib.Path, shape: tuple[int, ...]
) -> Iterator[Callable[[np.ndarray], None]]:
  """A .npy file written part by part, seen by others whole or not at all.

  Yields:
    A function that writes the next float32 frames.
  """
  file.parent.mkdir(parents=True, exist_ok=True)
  scratch = file.with_name(f".{uuid.uuid4().hex}.npy")
  header = {"descr": "<f4", "fortran_order": False, "shape": shape}
  try:
    # Not through a memory map: a full disk would end the process.
    with open(scratch, "wb") as stream:
      np.lib.format.write_array_header_1_0(stream, header)
      yield lambda frames: stream.write(np.ascontiguousarray(frames, "<f4"))
    # Another process may have been faster; its frames may be in use already.
    if not file.exists():
      scratch.replace(file)
  finally:
    scratch.unlink(missing_ok=True)
