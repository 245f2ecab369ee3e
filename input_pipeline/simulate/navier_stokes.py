"""Two-dimensional Navier-Stokes flow in a periodic box, pseudo-spectral.

The box is [0, 2 pi) in x and y; everything is dimensionless. The state is the
vorticity w = dv/dx - du/dy:

  dw/dt + u . grad w = viscosity * lap w - drag * w + curl f
  lap psi = -w,  u = dpsi/dy,  v = -dpsi/dx
  f = forcing_amplitude * sin(forcing_wavenumber * y), along x

Arrays of this module have the axes [x, y], their half spectra (rfft2)
[kx, ky]; only the frames that `simulate` returns are pictures, [y, x].

Products are taken in physical space and cut by the 2/3 rule. A time step has
five stages, low-storage Runge-Kutta of fourth order for advection and forcing
with Crank-Nicolson for viscosity and drag.

Source: the recipe, its wave numbers, filter and order of operations are those
of torch-cfd (S. Cao), which follows jax-cfd (Dresdner et al. 2022); the stages
are those of Carpenter & Kennedy 1994, as in Canuto et al. 2007, appendix D.3.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import errors
from input_pipeline.simulate import checks

VARIABLES = {
  "vorticity": {"units": "1", "long_name": "vorticity"},
  "u": {"units": "1", "long_name": "velocity along x"},
  "v": {"units": "1", "long_name": "velocity along y"},
}
DOWNSAMPLING = ("spectral", "bilinear")
PRECISIONS = ("float32", "float64")
# Cells that the flow may cross in one step. The scheme turns unstable near
# 1.6; well before that the smallest eddies are wrong.
MAX_COURANT = 1.0
# What the remedy of an error aims at, as the source's own choice of a step.
_GOOD_COURANT = 0.5

_LENGTH = 2 * math.pi
_ALPHAS = (0.0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1.0)
_BETAS = (0.0, -0.4178904745, -1.192151694643, -1.697784692471, -1.514183444257)
_GAMMAS = (
  0.1496590219993,
  0.3792103129999,
  0.8229550293869,
  0.6994504559488,
  0.1530572479681,
)


@dataclasses.dataclass(frozen=True)
class Flow:
  """The equation and the grid it is solved on.

  Attributes:
    grid: points n along each side.
    viscosity: of the vorticity, 1 / Reynolds number.
    drag: rate at which vorticity is damped at all scales.
    forcing_wavenumber: of the Kolmogorov forcing along y; 0 for none.
    forcing_amplitude: of the force.
    dealias: whether products are cut by the 2/3 rule.

  Raises:
    DataError: if a value is out of range.
  """

  grid: int = 64
  viscosity: float = 1e-3
  drag: float = 0.0
  forcing_wavenumber: int = 0
  forcing_amplitude: float = 1.0
  dealias: bool = True

  def __post_init__(self):
    checks.count("grid", self.grid, 4)
    checks.count("forcing_wavenumber", self.forcing_wavenumber, 0)
    for name in ("viscosity", "drag"):
      checks.number(name, getattr(self, name), lowest=0.0)
    checks.number("forcing_amplitude", self.forcing_amplitude)
    if self.forcing_wavenumber >= self.grid / 3:
      raise errors.DataError(
        f"forcing_wavenumber={self.forcing_wavenumber} is not resolved by "
        f"grid={self.grid}; expected less than a third of it. Change "
        "data.forcing_wavenumber or data.grid."
      )


def wavenumbers(grid: int) -> tuple[np.ndarray, np.ndarray]:
  """Angular wave numbers: kx [n, 1] and ky [1, n // 2 + 1], float64."""
  kx = np.fft.fftfreq(grid, 1 / grid)
  ky = np.fft.rfftfreq(grid, 1 / grid)
  return kx[:, None], ky[None, :]


def dealias_filter(grid: int) -> np.ndarray:
  """The 2/3 rule, [n, n // 2 + 1] float64: 1 where a product is kept."""
  rows = int(2 / 3 * grid)
  columns = int(2 / 3 * (grid // 2 + 1))
  kept = np.zeros((grid, grid // 2 + 1))
  kept[: rows // 2, :columns] = 1
  kept[grid - (rows + 1) // 2 :, :columns] = 1
  return kept


def explicit_terms(flow: Flow, vorticity_hat: jax.Array) -> jax.Array:
  """Advection and forcing, d(vorticity_hat)/dt without the linear terms.

  Args:
    flow: the equation.
    vorticity_hat: [n, n // 2 + 1] complex, half spectrum of the vorticity.

  Returns:
    [n, n // 2 + 1] complex.
  """
  real = vorticity_hat.real.dtype
  grid = flow.grid
  ikx, iky = _derivatives(grid, vorticity_hat.dtype)
  u_hat, v_hat = _velocity_hat(grid, vorticity_hat)
  u, v, along_x, along_y = jnp.fft.irfft2(
    jnp.stack([u_hat, v_hat, ikx * vorticity_hat, iky * vorticity_hat]), s=(grid, grid)
  )
  terms = -jnp.fft.rfft2(u * along_x + v * along_y)
  if flow.dealias:
    terms = terms * dealias_filter(grid).astype(real)
  if flow.forcing_wavenumber:
    terms = terms + _forcing_hat(flow).astype(vorticity_hat.dtype)
  return terms


@functools.partial(jax.jit, static_argnames=("flow", "num_steps"))
def advance(
  flow: Flow, vorticity_hat: jax.Array, time_step: jax.Array | float, num_steps: int
) -> jax.Array:
  """Several time steps of several trajectories.

  Args:
    flow: the equation.
    vorticity_hat: [N, n, n // 2 + 1] complex, half spectra of the vorticity.
    time_step: length of a step.
    num_steps: how many; each number is compiled once.

  Returns:
    [N, n, n // 2 + 1] complex, the half spectra that many steps later.
  """
  real = vorticity_hat.real.dtype
  linear = _linear(flow).astype(real)
  explicit = jax.vmap(functools.partial(explicit_terms, flow))

  def stage(carry, coefficients):
    state, slope = carry
    beta, gamma, share = coefficients
    slope = explicit(state) + beta * slope
    half = 0.5 * time_step * share
    state = state + gamma * time_step * slope + half * linear * state
    return (state / (1 - half * linear), slope), None

  # One loop over the stages of all steps: they differ in numbers only, and
  # the first of a step forgets the slope (beta = 0). It compiles in a third
  # of the time of a loop over steps with the stages written out.
  stages = np.stack([_BETAS, _GAMMAS, np.diff(_ALPHAS)], axis=1)
  stages = np.tile(stages, (num_steps, 1)).astype(real)
  start = (vorticity_hat, jnp.zeros_like(vorticity_hat))
  return jax.lax.scan(stage, start, stages)[0][0]


def budget(flow: Flow, vorticity_hat: jax.Array) -> dict[str, jax.Array]:
  """Energy and enstrophy of a field, and how fast the equation changes them.

  Advection changes neither; what is left is

    d energy / dt = -2 viscosity enstrophy - 2 drag energy + <u . f>
    d enstrophy / dt = -2 viscosity palinstrophy - 2 drag enstrophy
                       + <w curl f>

  Args:
    flow: the equation.
    vorticity_hat: [..., n, n // 2 + 1] complex.

  Returns:
    [...] means over the box: energy <|u|^2> / 2, enstrophy <w^2> / 2,
    palinstrophy <|grad w|^2> / 2, energy_rate and enstrophy_rate.
  """
  real = vorticity_hat.real.dtype
  kx, ky = wavenumbers(flow.grid)
  square = (kx**2 + ky**2).astype(real)
  inverse = _inverse_square(flow.grid).astype(real)
  power = jnp.abs(vorticity_hat) ** 2
  energy = _mean(flow.grid, power * inverse) / 2
  enstrophy = _mean(flow.grid, power) / 2
  palinstrophy = _mean(flow.grid, power * square) / 2
  energy_rate = -2 * flow.viscosity * enstrophy - 2 * flow.drag * energy
  enstrophy_rate = -2 * flow.viscosity * palinstrophy - 2 * flow.drag * enstrophy
  if flow.forcing_wavenumber:
    forcing = _forcing_hat(flow).astype(vorticity_hat.dtype)
    product = (vorticity_hat * forcing.conj()).real
    energy_rate += _mean(flow.grid, product * inverse)
    enstrophy_rate += _mean(flow.grid, product)
  return {
    "energy": energy,
    "enstrophy": enstrophy,
    "palinstrophy": palinstrophy,
    "energy_rate": energy_rate,
    "enstrophy_rate": enstrophy_rate,
  }


def random_stream_function(
  noise: np.ndarray, peak_wavenumber: float = 4.0, tau: float = 1.0
) -> np.ndarray:
  """A random stream function with the spectrum of decaying turbulence.

  White noise is multiplied by 1 / (k (tau^2 + (k / peak_wavenumber)^4)) and
  scaled to a mean kinetic energy <|u|^2> / 2 of 1/4.

  Args:
    noise: [n, n] white noise.
    peak_wavenumber: where the energy is largest.
    tau: smaller values give more to the largest scales.

  Returns:
    [n, n] float64.

  Source: McWilliams 1984, as in torch-cfd.
  """
  magnitude = _full_magnitude(len(noise))
  safe = np.where(magnitude > 0, magnitude, 1.0)
  density = np.where(
    magnitude > 0, 1 / (safe * (tau**2 + (safe / peak_wavenumber) ** 4)), 0.0
  )
  psi_hat = np.fft.fft2(np.asarray(noise, np.float64)) * density
  # Back and forth: the noise's share beyond a real field is dropped here.
  psi = np.fft.ifft2(psi_hat).real
  speed_hat = magnitude * np.fft.fft2(psi)
  return psi / np.sqrt(2 * np.sum(np.abs(speed_hat / psi.size) ** 2))


def vorticity_of(stream_function: np.ndarray) -> np.ndarray:
  """w = -lap psi of a [n, n] stream function, float64."""
  square = _full_magnitude(len(stream_function)) ** 2
  return np.fft.ifft2(square * np.fft.fft2(stream_function)).real


def initial_vorticity(
  sample: int,
  *,
  grid: int,
  seed: int = 0,
  peak_wavenumber: float = 4.0,
  tau: float = 1.0,
  max_speed: float = 0.0,
) -> np.ndarray:
  """The initial vorticity of one trajectory.

  It depends on the seed and its own number only, not on how many there are.
  The stream is numpy's legacy generator, which is frozen by numpy's
  compatibility policy.

  Args:
    sample: number of the trajectory.
    grid: points n along each side.
    seed: of all trajectories.
    peak_wavenumber: where the energy is largest.
    tau: as in `random_stream_function`.
    max_speed: the largest speed; 0 keeps a mean kinetic energy of 1/4.

  Returns:
    [n, n] float64, axes [x, y].

  Raises:
    DataError: if a value is out of range.
  """
  checks.count("num_samples", sample, 0)
  checks.count("simulation_seed", seed, 0)
  checks.number("peak_wavenumber", peak_wavenumber, above=0.0)
  checks.number("initial_tau", tau, lowest=0.0)
  checks.number("initial_max_speed", max_speed, lowest=0.0)
  bits = np.random.MT19937(np.random.SeedSequence([seed, sample]))
  noise = np.random.RandomState(bits).standard_normal((grid, grid))
  psi = random_stream_function(noise, peak_wavenumber, tau)
  if max_speed:
    kx, ky = wavenumbers(grid)
    psi_hat = np.fft.rfft2(psi)
    u, v = np.fft.irfft2(np.stack([1j * ky * psi_hat, -1j * kx * psi_hat]),
                         s=(grid, grid))  # fmt: skip
    psi *= max_speed / np.sqrt(u**2 + v**2).max()
  return vorticity_of(psi)


def steps_per_frame(frame_spacing: float, time_step: float) -> int:
  """Steps between two frames, none longer than time_step.

  Raises:
    DataError: if either is not a positive number.
  """
  checks.number("frame_spacing", frame_spacing, above=0.0)
  checks.number("time_step", time_step, above=0.0)
  # 0.055 / 0.0005 is a little more than 110 in floating point.
  return max(1, math.ceil(frame_spacing / time_step * (1 - 1e-9)))


def frame_axis(grid: int, image_size: int, downsample: str) -> np.ndarray:
  """Coordinates [m] of a frame's points along x or y, in [0, 2 pi)."""
  return _source_points(grid, image_size, downsample) * (_LENGTH / grid)


def check_frames(
  grid: int, image_size: int, downsample: str, variables: Sequence[str]
) -> None:
  """Raises DataError for frames that cannot be made of a grid."""
  checks.count("image_size", image_size, 2)
  if image_size > grid:
    raise errors.DataError(
      f"image_size={image_size} is more than grid={grid}; expected at most "
      "that. Change data.image_size or data.grid."
    )
  if downsample not in DOWNSAMPLING:
    raise errors.unknown("downsample (data.downsample)", downsample, DOWNSAMPLING)
  for name in variables:
    if name not in VARIABLES:
      raise errors.unknown("variable (data.variables)", name, VARIABLES)
  if not variables or len(set(variables)) < len(variables):
    raise errors.DataError(
      f"data.variables={tuple(variables)!r}; expected some of "
      f"{', '.join(VARIABLES)}, each once."
    )


def simulate(
  flow: Flow,
  initial: np.ndarray,
  *,
  num_frames: int,
  frame_spacing: float,
  time_step: float,
  spin_up: float = 0.0,
  image_size: int = 0,
  downsample: str = "spectral",
  variables: Sequence[str] = ("vorticity",),
  precision: str = "float32",
  first: int = 0,
  progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
  """Trajectories of frames, all computed at the same time.

  Args:
    flow: the equation.
    initial: [N, n, n] vorticity at time 0, axes [x, y].
    num_frames: frames kept, F; the first is that at the end of the spin-up.
    frame_spacing: time between frames.
    time_step: longest time step; whole numbers of equal steps are made
      between frames and in the spin-up.
    spin_up: time that is simulated and thrown away.
    image_size: points m along each side of a frame; 0 for those of the grid.
    downsample: how frames are made smaller: "spectral" cuts off what m points
      cannot show, "bilinear" interpolates between the grid's points, as the
      source does, and lets it alias.
    variables: of "vorticity", "u", "v".
    precision: "float32" or "float64", of all arithmetic.
    first: number of the first trajectory, for messages.
    progress: called with the number of segments done and that of all; a
      segment has as many steps as there are between frames.

  Returns:
    [N, F, m, m, C] float32 with the axes [trajectory, frame, y, x, variable].

  Raises:
    DataError: if an argument is out of range; if the flow crosses more than
      MAX_COURANT cells in a step; if the solution is no longer finite.
  """
  size = image_size or flow.grid
  check_frames(flow.grid, size, downsample, variables)
  checks.count("num_frames", num_frames, 1)
  checks.number("spin_up", spin_up, lowest=0.0)
  if precision not in PRECISIONS:
    raise errors.unknown("precision (data.precision)", precision, PRECISIONS)
  initial = np.asarray(initial)
  if initial.ndim != 3 or initial.shape[1:] != (flow.grid, flow.grid):
    raise errors.DataError(
      "initial must have the axes [trajectory, x, y] with grid="
      f"{flow.grid} points along x and y, but its shape is {initial.shape}."
    )
  num_steps = steps_per_frame(frame_spacing, time_step)
  # The spin-up has steps of its own, so that it ends on time.
  warming = math.ceil(spin_up / frame_spacing * (1 - 1e-9))
  spans = [spin_up / max(warming, 1)] * warming
  spans += [frame_spacing] * (num_frames - 1)
  frames = np.empty((len(initial), num_frames, size, size, len(variables)), np.float32)
  look = functools.partial(
    _look, flow=flow, size=size, downsample=downsample, variables=tuple(variables)
  )
  # The global flag and the other processes' devices stay out of it.
  device = jax.default_device(jax.local_devices()[0])
  with jax.enable_x64(precision == "float64"), device:
    state = jnp.fft.rfft2(jnp.asarray(initial, precision))
    seen, speed = look(state)
    time, last = 0.0, 0.0
    for number, span in enumerate([*spans, 0.0]):
      length = (span or frame_spacing) / num_steps
      # After the last step, 0 where the flow is finite.
      cells = np.asarray(speed, np.float64) * (flow.grid / _LENGTH)
      courant = cells * (span / num_steps)
      _check_courant(courant, last, time, length, first)
      last = courant.max()
      if number >= warming:
        frames[:, number - warming] = seen
      if progress is not None:
        progress(number, len(spans))
      if span:
        step_length = jnp.asarray(length, precision)
        state = advance(flow, state, step_length, num_steps)
        seen, speed = look(state)
        time += span
  return frames


@functools.partial(jax.jit, static_argnames=("flow", "size", "downsample", "variables"))
def _look(vorticity_hat, *, flow, size, downsample, variables):
  """Frames [N, m, m, C], axes [y, x], and the largest |u| + |v| [N]."""
  grid = flow.grid

  def one(w_hat):
    u_hat, v_hat = _velocity_hat(grid, w_hat)
    u, v = jnp.fft.irfft2(jnp.stack([u_hat, v_hat]), s=(grid, grid))
    hats = {"vorticity": w_hat, "u": u_hat, "v": v_hat}
    fields = jnp.stack([hats[name] for name in variables])
    if downsample == "spectral":
      fields = jnp.fft.irfft2(resize(fields, grid, size), s=(size, size))
    else:
      fields = _interpolate(jnp.fft.irfft2(fields, s=(grid, grid)), size)
    return fields.T.astype(jnp.float32), jnp.max(jnp.abs(u) + jnp.abs(v))

  return jax.vmap(one)(vorticity_hat)


def resize(half_spectrum: jax.Array, grid: int, size: int) -> jax.Array:
  """The half spectrum of the same field on another number of points.

  Wave numbers that one of the two grids cannot tell from another are zero.

  Args:
    half_spectrum: [..., n, n // 2 + 1] complex, of rfft2.
    grid: points n.
    size: points m.

  Returns:
    [..., m, m // 2 + 1] complex.
  """
  if size == grid:
    return half_spectrum
  highest = (min(grid, size) - 1) // 2
  kept = half_spectrum[..., : highest + 1] * (size / grid) ** 2
  gap = jnp.zeros((*kept.shape[:-2], size - 2 * highest - 1, highest + 1), kept.dtype)
  rows = [kept[..., : highest + 1, :], gap, kept[..., grid - highest :, :]]
  rows = jnp.concatenate(rows, axis=-2)
  pad = [(0, 0)] * (rows.ndim - 1) + [(0, size // 2 - highest)]
  return jnp.pad(rows, pad)


def _interpolate(fields: jax.Array, size: int) -> jax.Array:
  """[..., n, n] to [..., m, m], bilinear, cells (not points) aligned."""
  points = _source_points(fields.shape[-1], size, "bilinear")
  low = np.floor(points).astype(int)
  # The last point may be that of the grid itself, with nothing beyond.
  high = np.minimum(low + 1, fields.shape[-1] - 1)
  share = (points - low).astype(fields.dtype)
  fields = (
    fields[..., low, :] * (1 - share)[:, None] + fields[..., high, :] * share[:, None]
  )
  return fields[..., low] * (1 - share) + fields[..., high] * share


def _source_points(grid: int, size: int, downsample: str) -> np.ndarray:
  """Where the points of a frame lie, in points of the grid."""
  points = np.arange(size) * (grid / size)
  if downsample == "bilinear":
    points += 0.5 * (grid / size) - 0.5
  return points


def _check_courant(
  courant: np.ndarray, last: float, time: float, length: float, first: int
) -> None:
  """Raises for steps that are too long, or that have been.

  Args:
    courant: [N] Courant numbers, not finite where the solution is not.
    last: the largest one before.
    time: at which they were found.
    length: of the time step.
    first: number of the first trajectory.
  """
  if courant.max() <= MAX_COURANT:  # False with a NaN.
    return
  finite = np.isfinite(courant)
  largest = courant[finite].max(initial=last)
  good = length * _GOOD_COURANT / max(largest, MAX_COURANT)
  scale = 10.0 ** (math.floor(math.log10(good)) - 1)
  remedy = f"Set data.time_step to {math.floor(good / scale) * scale:.2g} or less"
  if not finite.all():
    raise errors.DataError(
      f"The flow of trajectory {first + int(np.argmin(finite))} is no longer "
      f"finite at time {time:.4g}, with time steps of {length:.3g} and a "
      f"Courant number of {last:.2g} when last finite. {remedy}; if it still "
      "is not finite then, raise data.viscosity or data.grid."
    )
  raise errors.DataError(
    f"Time steps of {length:.3g} are too long: at time {time:.4g} the flow of "
    f"trajectory {first + int(np.argmax(courant))} crosses {largest:.3g} cells "
    f"in one (Courant number), expected at most {MAX_COURANT:g}. {remedy}."
  )


@functools.cache
def _inverse_square(grid: int) -> np.ndarray:
  """1 / k^2 [n, n // 2 + 1], 0 for the mean."""
  kx, ky = wavenumbers(grid)
  square = kx**2 + ky**2
  square[0, 0] = 1.0
  inverse = 1 / square
  inverse[0, 0] = 0.0
  return inverse


def _derivatives(grid: int, dtype) -> tuple[np.ndarray, np.ndarray]:
  """Factors of the derivatives along x and y, each [n, n // 2 + 1].

  The half spectrum of a real field is real at some places. A derivative is
  imaginary there, and no real field has it: libraries drop it or, as cuFFT,
  leave the result open. It is zero here, which is what dropping it gives.
  """
  kx, ky = wavenumbers(grid)
  ones = np.ones((grid, grid // 2 + 1))
  ikx, iky = 1j * kx * ones, 1j * ky * ones
  if grid % 2 == 0:
    ikx[grid // 2, [0, -1]] = 0.0
    iky[:, -1] = 0.0
  return ikx.astype(dtype), iky.astype(dtype)


def _velocity_hat(grid: int, vorticity_hat: jax.Array):
  """Half spectra of u and v."""
  ikx, iky = _derivatives(grid, vorticity_hat.dtype)
  inverse = _inverse_square(grid).astype(vorticity_hat.real.dtype)
  psi_hat = vorticity_hat * inverse
  return iky * psi_hat, -ikx * psi_hat


def _linear(flow: Flow) -> np.ndarray:
  """Rates of viscosity and drag, [n, n // 2 + 1] float64."""
  kx, ky = wavenumbers(flow.grid)
  return -flow.viscosity * (kx**2 + ky**2) - flow.drag


def _forcing_hat(flow: Flow) -> np.ndarray:
  """Half spectrum of curl f = -amplitude k cos(k y)."""
  forcing = np.zeros((flow.grid, flow.grid // 2 + 1), np.complex128)
  wavenumber = flow.forcing_wavenumber
  forcing[0, wavenumber] = -flow.forcing_amplitude * wavenumber * flow.grid**2 / 2
  return forcing


def _mean(grid: int, power: jax.Array) -> jax.Array:
  """Mean over the box of a product, from its half spectrum (Parseval)."""
  weight = np.full(grid // 2 + 1, 2.0)
  weight[0] = 1.0
  if grid % 2 == 0:
    weight[-1] = 1.0
  # Scaled first: sums of squares of rfft2 overflow no float32 this way.
  scaled = power * (weight / grid**4).astype(power.dtype)
  return jnp.sum(scaled, axis=(-2, -1))


def _full_magnitude(grid: int) -> np.ndarray:
  """|k| [n, n] of the whole spectrum."""
  k = np.fft.fftfreq(grid, 1 / grid)
  return np.hypot(k[:, None], k[None, :])
