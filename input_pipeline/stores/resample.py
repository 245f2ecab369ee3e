"""Fewer frames, a part of the grid or another number of cells, of any store.

The rules are those of data.resample: frames are chosen first, then the grid is
cropped, then it is interpolated. Latitudes and other coordinates go with it.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base, grid

ROUNDINGS = ("none", "uint8")
# OpenCV computes with weights of so many bits after the point.
_WEIGHT = 2**11


@dataclasses.dataclass(frozen=True)
class Resampling:
  """What is kept of the frames of a store.

  Attributes:
    first: the first frame of each sequence that is kept.
    every: every so many frames are kept from there on.
    crop: (first row, stop row, first column, stop column) of the part of the
      grid that is kept; () keeps all of it.
    size: (rows, columns) to which the part is interpolated; () keeps its cells.
    rounding: "none", or "uint8" for whole numbers from 0 to 255, to which the
      interpolation rounds in the way of OpenCV.

  Raises:
    DataError: for settings out of range.
  """

  first: int = 0
  every: int = 1
  crop: tuple[int, ...] = ()
  size: tuple[int, ...] = ()
  rounding: str = "none"

  def __post_init__(self):
    for key, least in (("first", 0), ("every", 1)):
      value = getattr(self, key)
      if not isinstance(value, int) or value < least:
        raise errors.DataError(
          f"data.resample.{key}={value!r}; expected a whole number of at least {least}."
        )
    for key, count, what in (
      ("crop", 4, "(first row, stop row, first column, stop column)"),
      ("size", 2, "(rows, columns)"),
    ):
      value = getattr(self, key)
      whole = isinstance(value, tuple) and all(isinstance(n, int) for n in value)
      if not whole or len(value) not in (0, count):
        raise errors.DataError(f"data.resample.{key}={value!r}; expected {what} or ().")
    errors.pick("data.resample.rounding", self.rounding, ROUNDINGS)
    if self.rounding != "none" and not self.size:
      raise errors.DataError(
        f"data.resample.rounding={self.rounding!r} needs data.resample.size."
      )
    if self.size and min(self.size) < 1:
      raise errors.DataError(
        f"data.resample.size={self.size}; expected whole numbers from 1."
      )

  def check(self, space: xr.Dataset) -> None:
    """Raises DataError unless the part lies in the grid, and the grid has cells."""
    dim, column = space.attrs["spatial_dims"]
    points = column == "column" and space[dim].dtype.kind in "OSU"
    if points and self.size and self.size[0] != space.sizes[dim]:
      raise errors.DataError(
        f"data.resample.size={self.size} interpolates between neighbouring cells of a "
        f"grid, but the entries of {dim!r} are points without neighbours. Set "
        "data.resample.size=()."
      )
    if not self.crop:
      return
    height, width = (space.sizes[dim] for dim in space.attrs["spatial_dims"])
    top, bottom, left, right = self.crop
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
      raise errors.DataError(
        f"data.resample.crop={self.crop} is no part of the grid of {height} rows "
        f"and {width} columns; expected (first row, stop row, first column, stop "
        "column)."
      )

  def fields(self, fields: np.ndarray, where: str) -> np.ndarray:
    """Crops and interpolates fields.

    Args:
      fields: float32 [T, H, W, C], NaN where missing.
      where: what they are, for messages.

    Returns:
      float32 [T, rows, columns, C]. A cell of which any part comes from a missing
      cell is missing.

    Raises:
      DataError: if rounding="uint8" meets other values than 0, 1, ... 255.
    """
    if self.crop:
      top, bottom, left, right = self.crop
      fields = fields[:, top:bottom, left:right]
    if not self.size or fields.shape[1:3] == self.size:
      return fields
    if self.rounding == "uint8":
      return _bytes(fields, self.size, where)
    for axis, count in zip((1, 2), self.size, strict=True):
      fields = linear(fields, axis, count)
    return fields

  def coordinates(self, space: xr.Dataset) -> xr.Dataset:
    """The spatial coordinates of what `fields` gives, as `Store.space`."""
    dims = space.attrs["spatial_dims"]
    if self.crop:
      top, bottom, left, right = self.crop
      space = space.isel({dims[0]: slice(top, bottom), dims[1]: slice(left, right)})
    if not self.size:
      return space
    counts = dict(zip(dims, self.size, strict=True))
    changed = {}
    for name, coordinate in space.coords.items():
      values = coordinate.values
      if grid.is_longitude(name, coordinate.attrs):  # No mean of 359 and 1 is 180.
        values = grid.unwrapped(values)
      for axis, dim in enumerate(coordinate.dims):
        if values.dtype.kind in "iuf":
          values = linear(values.astype(np.float64), axis, counts[dim])
        else:  # Names cannot be interpolated: each cell takes the nearest one.
          low, high, weight = _places(len(coordinate[dim]), counts[dim])
          values = values.take(np.where(weight < 0.5, low, high), axis)
      changed[name] = (coordinate.dims, values, coordinate.attrs)
    return xr.Dataset(coords=changed, attrs=space.attrs)


class Resampled(base.Wrapper):
  """A store of which frames and cells are kept as a Resampling says.

  Raises:
    DataError: if the part does not lie in the grid.
  """

  def __init__(self, store: base.Store, resampling: Resampling):
    super().__init__(store)
    resampling.check(store.space)
    self._resampling = resampling
    self._space = resampling.coordinates(store.space)

  space = property(lambda self: self._space)

  @property
  def step(self) -> np.timedelta64 | None:
    step = self._store.step
    return None if step is None else step * self._resampling.every

  def length(self, sequence: int) -> int:
    return len(self._kept(sequence))

  def times(self, sequence: int) -> np.ndarray | None:
    times = self._store.times(sequence)
    if times is None:
      return None
    return times[self._resampling.first :: self._resampling.every]

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    kept = self._kept(sequence)[start:stop]
    if not kept:
      height, width = (self._space.sizes[d] for d in self._space.attrs["spatial_dims"])
      return np.zeros((0, height, width, len(self.variables)), np.float32)
    frames = self._store.read_every(sequence, kept[0], kept[-1] + 1, kept.step)
    return self._resampling.fields(frames, self.location(sequence))

  def _kept(self, sequence: int) -> range:
    """The store's numbers of the frames of a sequence."""
    first, every = self._resampling.first, self._resampling.every
    return range(first, max(self._store.length(sequence), first), every)


def apply(store: base.Store, options: dict[str, Any]) -> base.Store:
  """The store, or what data.resample keeps of it.

  Args:
    store: the frames.
    options: the fields of a Resampling by their names.

  Raises:
    DataError: for options out of range.
  """
  resampling = Resampling(**options)
  return store if resampling == Resampling() else Resampled(store, resampling)


def linear(values: np.ndarray, axis: int, count: int) -> np.ndarray:
  """Linear interpolation to the centres of other cells, without antialiasing.

  The axis is cut into `count` equal cells, and each takes the value at its centre;
  beyond the centres of the outermost cells their value stands. So 384 cells become
  128 by taking every third, from number 1 on.

  Args:
    values: floating-point numbers, NaN where missing.
    axis: the axis.
    count: its new length.

  Returns:
    Of the type of the values. NaN where a NaN has any weight.
  """
  low, high, weight = _places(values.shape[axis], count)
  near = values.take(low, axis)
  if not weight.any():
    return near
  weight = weight.reshape(-1, *(1,) * (values.ndim - axis - 1)).astype(values.dtype)
  return near * (1 - weight) + values.take(high, axis) * weight


@functools.cache
def _places(cells: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The neighbours of each new centre, and the weight of the second one."""
  place = (np.arange(count) + 0.5) * (cells / count) - 0.5
  place = np.clip(place, 0, cells - 1)
  # Rounding must not give a cell beside an exact place a weight: it may be missing.
  exact = np.abs(place - np.rint(place)) < 1e-9
  place = np.where(exact, np.rint(place), place)
  low = np.floor(place).astype(int)
  return low, np.where(exact, low, low + 1), place - low


def _bytes(fields: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
  """Interpolates whole numbers from 0 to 255 as OpenCV does.

  OpenCV's resize (INTER_LINEAR) of 8-bit images multiplies whole numbers by weights
  of 11 bits, drops bits between the passes, and rounds at the end; these are its
  very values. See modules/imgproc/src/resize.cpp of OpenCV.

  Args:
    fields: float32 [T, H, W, C], NaN where missing.
    size: (rows, columns).
    where: what they are, for messages.

  Returns:
    float32 [T, rows, columns, C] of whole numbers, NaN where missing.
  """
  missing = np.isnan(fields)
  codes = np.where(missing, np.float32(0), fields)
  if codes.min() < 0 or codes.max() > 255 or (codes != np.rint(codes)).any():
    raise errors.DataError(
      f"{where}: data.resample.rounding='uint8' needs whole numbers from 0 to 255, "
      f"but the values go from {codes.min():g} to {codes.max():g}. Set it to "
      "'none', or data.units to the numbers of the files."
    )
  codes = codes.astype(np.int32)
  near, far, weight, other = _byte_places(fields.shape[2], size[1])
  across = codes[:, :, near] * other[:, None] + codes[:, :, far] * weight[:, None]
  near, far, weight, other = _byte_places(fields.shape[1], size[0])
  above, below = across[:, near] >> 4, across[:, far] >> 4
  weight, other = weight[:, None, None], other[:, None, None]
  result = ((above * other >> 16) + (below * weight >> 16) + 2 >> 2).astype(np.float32)
  if missing.any():
    share = linear(missing.astype(np.float32), 1, size[0])
    result[linear(share, 2, size[1]) > 0] = np.nan
  return result


@functools.cache
def _byte_places(cells: int, count: int) -> tuple[np.ndarray, ...]:
  """Both neighbours of each new centre, weights of the second and the first."""
  place = ((np.arange(count) + 0.5) * (cells / count) - 0.5).astype(np.float32)
  low = np.floor(place)
  share = place - low
  near, far = (np.clip(low + k, 0, cells - 1).astype(int) for k in (0, 1))
  weight, other = (
    np.rint(part * _WEIGHT).astype(np.int32) for part in (share, np.float32(1) - share)
  )
  return near, far, weight, other
