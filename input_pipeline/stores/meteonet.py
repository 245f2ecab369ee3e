"""MeteoNet: rain rates and reflectivities over north-west and south-east France.

Format: Larvor et al. 2020, "MeteoNet, an open reference weather dataset by
Meteo-France"; the archives are taken to be unpacked.
"""

import os
import re
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base, moments, npz

# The unit of a product's frames, the factor of its numbers, and what stands for
# missing.
_PRODUCTS = {
  "rainfall": ("mm h-1", 0.12, -1),
  "reflectivity_old": ("dBZ", 1.0, 255),
  "reflectivity_new": ("dBZ", 1.0, 255),
}


class MeteonetStore(base.Store):
  """Radar fields of MeteoNet: `data.store = "meteonet"`.

  Two layouts are read:

  - the public one: files <product>_<zone>_<year>_<month>.<part>.npz anywhere below
    the path, with `data` [T, H, W] and `dates` [T]. All of them together are one
    sequence. Frames are missing now and then; no window crosses such a gap. The
    dates are kept as a pickle, which is not run: see `npz.dates`. Coordinates come
    from radar_coords_<zone>.npz;
  - .npy files named by a number, [frame, row, column] in dBZ, each of them a
    sequence. They have no dates.

  Rainfall comes as hundredths of a millimetre in five minutes and is read as mm/h;
  reflectivity as the lower bound of its class in dBZ.

  Args:
    path: the folder of the files.
    zone: "NW" or "SE".
    product: "rainfall", "reflectivity_old" (up to October 2018) or
      "reflectivity_new".
    numbered_splits: of numbered .npy files: the numbers of the first ones of the
      validation split and of the test split; () leaves the split to data.split.
    numbered_step: of numbered .npy files: the time between frames, such as "5min".

  Raises:
    DataError: if a file or an option cannot be used.
  """

  def __init__(
    self,
    path: str = "",
    zone: str = "NW",
    product: str = "rainfall",
    numbered_splits: tuple[int, ...] = (6978, 9212),
    numbered_step: str = "5min",
  ):
    errors.pick("data.product", product, _PRODUCTS)
    folder = base.existing_path(path)
    numbered = _numbered(folder)
    self._numbers = [number for number, _ in numbered]
    if numbered:
      self._product = "reflectivity_old"
      self.files = tuple(file for _, file in numbered)
      first = base.memory_mapped(self.files[0])
      self._array_shape = first.shape
      if first.ndim != 3:
        raise errors.DataError(
          f"{self.files[0]} has the shape {first.shape}; expected [frame, row, column]."
        )
      self._grid = first.shape[1:]
      self.space = base.index_space(*self._grid)
      self.step = _step(numbered_step)
      self._edges = _edges(numbered_splits)
      self.num_sequences = len(numbered)
    else:
      self._product = product
      self._read_index(folder, zone)
      self.num_sequences = 1
    name = self._product.partition("_")[0]
    self.variables = (base.Variable(name, {"units": _PRODUCTS[self._product][0]}),)

  def length(self, sequence: int) -> int:
    del sequence
    return self._array_shape[0] if self._numbers else len(self._times)

  def times(self, sequence: int) -> np.ndarray | None:
    del sequence
    return None if self._numbers else self._times

  def sample_id(self, sequence: int) -> str:
    return str(self._numbers[sequence] if self._numbers else sequence)

  def split_label(self, sequence: int) -> str | None:
    if not self._numbers or self._edges is None:
      return None
    place = np.searchsorted(self._edges, self._numbers[sequence], side="right")
    return ("train", "validation", "test")[int(place)]

  def location(self, sequence: int) -> str:
    if self._numbers:
      return self.files[sequence]
    return f"{self._archives[0].path} and the files after it"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    if self._numbers:
      array = base.memory_mapped(self.files[sequence])
      if array.shape != self._array_shape or array.dtype.kind not in "fiu":
        raise errors.DataError(
          f"{self.files[sequence]} holds {array.dtype} of shape {array.shape}; "
          f"expected numbers of shape {self._array_shape}, as in the first file."
        )
      parts = [array[start:stop]]
    else:
      parts = []
      for rows, offset in zip(self._archives, self._offsets, strict=True):
        low, high = max(start - offset, 0), min(stop - offset, rows.shape[0])
        if low < high:
          parts.append(rows.read(low, high))
    _, factor, missing = _PRODUCTS[self._product]
    frames = [np.where(part == missing, np.float32(np.nan), part) for part in parts]
    if not frames:
      return np.zeros((0, *self._grid, 1), np.float32)
    frames = np.concatenate(frames).astype(np.float32, copy=False)
    if factor != 1:
      frames *= np.float32(factor)
    return frames[..., None]

  def _read_index(self, folder: str, zone: str) -> None:
    """Finds the archives of a zone, their frames in order, and the coordinates."""
    pattern = re.compile(rf"{self._product}_{re.escape(zone)}_\d{{4}}_\d{{2}}\.\d\.npz")
    found = {}
    for parent, _, names in os.walk(folder):
      for name in names:
        if pattern.fullmatch(name) or name == f"radar_coords_{zone}.npz":
          if name in found:
            raise errors.DataError(
              f"{found[name]} and {os.path.join(parent, name)} have the same name. "
              "Change data.path to a folder that has one of them."
            )
          found[name] = os.path.join(parent, name)
    places = found.pop(f"radar_coords_{zone}.npz", None)
    if not found:
      raise errors.DataError(
        f"{folder} has no files like {self._product}_{zone}_2016_08.3.npz below it, "
        "nor .npy files named by a number. Unpack the archives, or change data.path, "
        "data.zone or data.product."
      )
    parts = [(npz.dates(path, "dates"), path) for path in found.values()]
    parts = sorted((p for p in parts if len(p[0])), key=lambda part: part[0][0])
    if not parts:
      raise errors.DataError(f"The files of {folder} have no frame: no dates.")
    self._archives = [npz.Rows(path, "data") for _, path in parts]
    shape = self._archives[0].shape
    for (dates, path), rows in zip(parts, self._archives, strict=True):
      if rows.shape != (len(dates), *shape[1:]) or len(shape) != 3:
        raise errors.DataError(
          f"{path}: data has the shape {rows.shape}; expected [T, H, W] with "
          f"T = {len(dates)} dates and the grid {shape[1:]} of {parts[0][1]}."
        )
    for (before, path), (after, other) in zip(parts, parts[1:], strict=False):
      if after[0] <= before[-1]:
        raise errors.DataError(
          f"{other} begins before {path} ends. Expected files of different times."
        )
    lengths = [len(dates) for dates, _ in parts]
    self._offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).tolist()
    self._times = np.concatenate([dates for dates, _ in parts]) * moments.SECOND
    self._grid = shape[1:]
    self.files = tuple(path for _, path in parts)
    if places is None:
      warnings.warn(
        f"{folder} has no radar_coords_{zone}.npz: rows and columns are numbered.",
        stacklevel=3,
      )
      self.space = base.index_space(*self._grid)
    else:
      self.files += (places,)
      self.space = _space(places, self._grid)


def _space(path: str, grid: tuple[int, int]) -> xr.Dataset:
  """Latitudes and longitudes of the cells' centres, as `Store.space`."""
  lats, lons = (npz.read(path, name) for name in ("lats", "lons"))
  if not lats.shape == lons.shape == grid:
    raise errors.DataError(
      f"{path} has coordinates of the shapes {lats.shape} and {lons.shape}, but the "
      f"fields have the grid {grid}."
    )
  lat, lon = lats[:, 0], lons[0]
  if not (np.allclose(lats, lat[:, None]) and np.allclose(lons, lon)):
    raise errors.DataError(
      f"{path}: the latitudes change along a row, or the longitudes along a column; "
      "expected a grid of both."
    )
  return xr.Dataset(
    coords={
      "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
      "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    },
    attrs={"spatial_dims": ["lat", "lon"]},
  )


def _numbered(folder: str) -> list[tuple[int, str]]:
  """The .npy files of a folder that are named by a number, in order."""
  parts = [(name, *os.path.splitext(name)) for name in os.listdir(folder)]
  return sorted(
    (int(stem), os.path.join(folder, name))
    for name, stem, ending in parts
    if ending == ".npy" and stem.isdecimal()
  )


def _step(text: str) -> np.timedelta64:
  try:
    step = pd.Timedelta(text)
    if not step > pd.Timedelta(0):
      raise ValueError("not positive")
  except ValueError as error:
    raise errors.DataError(
      f"data.numbered_step={text!r} is no time between frames ({error}); expected "
      "e.g. '5min'."
    ) from error
  return step.to_timedelta64().astype("timedelta64[ns]")


def _edges(numbers: Sequence[int]) -> np.ndarray | None:
  """The first numbers of validation and test; None to split by data.split."""
  if not numbers:
    return None
  if len(numbers) != 2 or numbers[0] > numbers[1]:
    raise errors.DataError(
      f"data.numbered_splits={tuple(numbers)}; expected the first number of the "
      "validation split and that of the test split, or ()."
    )
  return np.array(numbers)
