"""Rain cells that grow, decay and move with a known motion.

A sequence has one steady motion: a mean and a slight rotation and shear, so
that the air at the place x moves with mean + gradient (x - centre). It has no
divergence. Rain falls from elliptical cells, which come in storms. A cell is
born, grows to its peak, decays and is gone. The air carries it, turns it and
deforms it. Cells enter and leave the picture. The rain rate at a place is the
sum over the cells of peak * sin^2(pi * age / life) * exp(-r^2 / 2), where r is
the distance from the cell's centre in its own semi-axes. Less than 0.1 mm/h is
no rain, as for a radar.

Peaks are log-normal. Cells within storms follow the idea of the clustered point
processes of rain (Northrop 1998, Proc. R. Soc. A 454, 1875-1888); the life cycle,
the shapes and all numbers are chosen here.

Places and motions are (along the rows, along the columns), in cells of the grid
and cells per frame; time is in frames.
"""

import dataclasses
import math

import numpy as np

VARIABLE = "rain_rate"
ATTRIBUTES = {"units": "mm h-1", "long_name": "rain rate"}
# Of a frame and of a grid cell, for the labels of a forecast.
MINUTES, KILOMETRES = 5, 1.0
DRY_BELOW = 0.1  # mm/h

# At the edge of the picture, rotation and shear each change the motion by about this
# share of the mean.
_TURNING = 0.15
# Cells of a storm: their mean number, and how far they lie from its middle.
_PER_STORM, _STORM_RADIUS = 4, 10.0
# Median and standard deviation of the logarithm, of peaks (mm/h) and of the
# geometric mean of the semi-axes.
_PEAK, _PEAK_SPREAD = 4.0, 0.8
_RADIUS, _RADIUS_SPREAD = 3.0, 0.3
# The longest ratio of the semi-axes.
_ELONGATION = 3.0
# mm/h; where less falls from a cell, nothing does.
_FAINT = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
  """The steady motion of a sequence.

  Attributes:
    mean: [2] motion at the centre.
    gradient: [2, 2], the change of the motion (first axis) with the place (second
      axis); its trace is 0, so that areas stay as they are.
    centre: [2] place of the mean motion.
  """

  mean: np.ndarray
  gradient: np.ndarray
  centre: np.ndarray

  def at(self, places: np.ndarray) -> np.ndarray:
    """The motion [..., 2] at places [..., 2]."""
    return self.mean + (places - self.centre) @ self.gradient.T

  def field(self, height: int, width: int) -> np.ndarray:
    """The motion [H, W, 2] at each cell of a grid."""
    return self.at(np.moveaxis(np.indices((height, width), float), 0, -1))

  def moved(self, places: np.ndarray, time: np.ndarray | float) -> np.ndarray:
    """Where the air of places [..., 2] is after `time` [...], which may be negative."""
    once, twice = self._integrals(time)
    start = self.at(places)
    return places + once * start + twice * (start @ self.gradient.T)

  def deformation(self, time: np.ndarray) -> np.ndarray:
    """The matrices [..., 2, 2] that take offsets to those after `time` [...]."""
    once, twice = (x[..., None] for x in self._integrals(time))
    return np.eye(2) + once * self.gradient + twice * (self.gradient @ self.gradient)

  def _integrals(self, time) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [..., 1] of 1 and G in the integral of exp(G t) over `time`.

    They are sinh(r t) / r and (cosh(r t) - 1) / r^2, as G^2 = r^2 = -det(G).
    """
    time = np.asarray(time, float)[..., None]
    root = np.emath.sqrt(-np.linalg.det(self.gradient))
    # np.sinc needs no case of its own for r = 0.
    once = lambda t: (t * np.sinc(1j * root * t / np.pi)).real
    return once(time), 2 * once(time / 2) ** 2


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
  """The n rain cells of a sequence.

  Attributes:
    place: [n, 2] centre half-way through the life.
    time: [n] of that, in frames.
    life: [n] frames from birth to end.
    peak: [n] mm/h at the centre half-way through the life.
    axes: [n, 2, 2], takes an offset from the centre, half-way through the life, to
      semi-axes.
  """

  place: np.ndarray
  time: np.ndarray
  life: np.ndarray
  peak: np.ndarray
  axes: np.ndarray

  def strength(self, time: float) -> np.ndarray:
    """The share [n] of the peak that is there at a time, 0 before and after life."""
    age = np.clip((time - self.time) / self.life + 0.5, 0, 1)
    return np.sin(np.pi * age) ** 2


def draw(
  sequence: int,
  *,
  num_frames: int,
  size: tuple[int, int],
  speed: float,
  cells: float,
  lifetime: float,
  seed: int,
) -> tuple[Motion, Cells]:
  """Draws the motion and the cells of a sequence.

  Args:
    sequence: number of the sequence; another one does not depend on it.
    num_frames: frames in which cells are to be seen.
    size: (H, W).
    speed: of the mean motion, between half and one and a half times that.
    cells: mean number of cells within 64 x 64 grid cells at a time.
    lifetime: mean life in frames; lives lie between half and one and a half
      times that.
    seed: of all sequences.
  """
  rng = np.random.default_rng([seed, sequence])
  motion = _draw_motion(rng, size, speed)
  # From so far away a cell can reach the picture within a storm's life.
  farthest = 2.25 * lifetime * 2 * speed + 2 * _STORM_RADIUS
  room = np.array(size) + 2 * farthest
  duration = num_frames + 3 * lifetime
  mean = cells / 64**2 * room.prod() * duration / lifetime
  storms = rng.poisson(mean / _PER_STORM)
  storm = np.repeat(np.arange(storms), rng.poisson(_PER_STORM, storms))
  count = len(storm)
  times = rng.uniform(-1.5 * lifetime, num_frames + 1.5 * lifetime, storms)[storm]
  place = (rng.uniform(size=(storms, 2)) * room - farthest)[storm]
  place = place + _STORM_RADIUS * rng.standard_normal((count, 2))
  later = lifetime * rng.uniform(-0.75, 0.75, count)
  # The cells of a storm are elongated in much the same direction.
  angle = rng.uniform(0, np.pi, storms)[storm] + 0.3 * rng.standard_normal(count)
  radius = rng.lognormal(math.log(_RADIUS), _RADIUS_SPREAD, count)
  ratio = np.sqrt(rng.uniform(1, _ELONGATION, count))
  semi_axes = np.stack([radius * ratio, radius / ratio], axis=-1)
  turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
  return motion, Cells(
    place=motion.moved(place, later),
    time=times + later,
    life=lifetime * rng.uniform(0.5, 1.5, count),
    peak=rng.lognormal(math.log(_PEAK), _PEAK_SPREAD, count),
    axes=np.moveaxis(turned, -1, 0) / semi_axes[..., None],
  )


def rain(
  motion: Motion, cells: Cells, num_frames: int, size: tuple[int, int]
) -> np.ndarray:
  """The rain rate [T, H, W] float32 in mm/h of cells that move."""
  rows, columns = (np.arange(n, dtype=np.float32) for n in size)
  frames = np.zeros((num_frames, *size), np.float32)
  for time, frame in enumerate(frames):
    rates = cells.strength(time) * cells.peak
    alive = rates > _FAINT
    rates, away = rates[alive], time - cells.time[alive]
    place = motion.moved(cells.place[alive], away)
    # From offsets now to semi-axes, by way of the offsets half-way through the life.
    axes = cells.axes[alive] @ motion.deformation(-away)
    # Only the box around a cell is computed.
    reach = np.sqrt(2 * np.log(rates / _FAINT))[:, None]
    reach = reach * np.linalg.norm(np.linalg.inv(axes), axis=-1)
    low = np.clip(np.ceil(place - reach), 0, size).astype(int)
    high = np.clip(np.ceil(place + reach), 0, size).astype(int)
    for k in np.flatnonzero(np.all(low < high, axis=-1)):
      box = tuple(map(slice, low[k], high[k]))
      y = rows[box[0], None] - np.float32(place[k, 0])
      x = columns[box[1]] - np.float32(place[k, 1])
      (a, b), (c, d) = axes[k].astype(np.float32)
      square = (a * y + b * x) ** 2 + (c * y + d * x) ** 2
      frame[box] += np.float32(rates[k]) * np.exp(-0.5 * square)
  frames[frames < DRY_BELOW] = 0
  return frames


def _draw_motion(
  rng: np.random.Generator, size: tuple[int, int], speed: float
) -> Motion:
  towards = rng.uniform(0, 2 * np.pi)
  mean = speed * rng.uniform(0.5, 1.5) * np.array([np.sin(towards), np.cos(towards)])
  centre = (np.array(size) - 1) / 2
  spin, stretch, shear = _TURNING * speed / centre.max() * rng.standard_normal(3)
  gradient = np.array([[stretch, shear + spin], [shear - spin, -stretch]])
  return Motion(mean, gradient, centre)
