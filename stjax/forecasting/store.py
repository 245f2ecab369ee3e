"""Labelled forecast stores, Zarr or netCDF, which are written piece by piece."""

import io
import itertools
import json
import math
import pathlib
import shutil
import warnings
import zipfile
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr
import zarr
from absl import logging

from input_pipeline import files
from stjax.forecasting import layouts

# Values of a chunk, about 4 MB: forecasts of several members share a chunk up to
# this size.
_CHUNK_VALUES = 2**20

# The ending of a store's name for each value of forecast.format.
ENDINGS = {"zarr": ".zarr", "netcdf": ".nc"}

# Errors of numpy for files that are damaged, empty or no archive.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


def open_store(path: pathlib.Path) -> xr.Dataset:
  """Opens a finished store; its values are read when they are needed.

  Args:
    path: path of the store, which ends in .zarr or .nc.
  """
  if path.suffix == ENDINGS["netcdf"]:
    return xr.open_dataset(path, engine="h5netcdf", chunks=None, cache=False)
  return xr.open_zarr(path, chunks=None)


def _progress_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f".{path.name}.progress.npz")


def read_histories(path: pathlib.Path) -> np.ndarray:
  """Returns the histories [M, B, T_in, H, W, C] that a draft goes on from.

  Args:
    path: path of the store.
  """
  with np.load(_progress_path(path), allow_pickle=False) as saved:
    return saved["histories"]


class ForecastStore:
  """A store that forecasts are written into, batch by batch.

  The store is written as a draft beside its place, and moved there when it is
  complete, so that a crash never leaves half a store under the final name. If
  the same forecast has left a draft, it is continued. The draft is always a Zarr
  store: a netCDF file that is killed while it grows is lost as a whole. It becomes
  a netCDF file chunk by chunk at the end.

  Args:
    path: path of the store, which ends in .zarr, or in .nc for a netCDF file.
    coordinates: variables, attributes, lead times and grid; see
      `input_pipeline.Split`.
    labels: names and times of the examples, on the dimension "sample".
    members: number of ensemble members M.
    attributes: attributes of the whole store.
    layout: name of the layout; see `stjax.forecasting.layouts`.
    frames: number of lead times that are written together; 0 means all.
    about: plain values that identify the forecast; a draft is continued only if
      its values are the same. None means that no draft is continued.

  Raises:
    ConfigError: the layout has no place for such data.
  """

  def __init__(
    self,
    path: pathlib.Path,
    coordinates: xr.Dataset,
    labels: xr.Dataset,
    members: int,
    attributes: dict[str, str],
    layout: str = "stjax",
    frames: int = 0,
    about: dict[str, Any] | None = None,
  ):
    self._path = path
    self.draft = path.with_name(f".{path.name}.draft")
    self._progress = _progress_path(path)
    self._about = json.dumps(about, sort_keys=True)
    self._layout = layouts.build(layout, coordinates, labels, members)
    if self._layout.off:
      logging.warning(
        "In %s, init_time + lead_time is not valid_time for %.3g %% of the forecast"
        " frames, because the steps of the data are not equal. Read the dates from"
        " valid_time, which are those of the data.",
        path,
        100 * self._layout.off,
      )
    self._frame, self._encoding = _encoded(self._layout.coords.assign_attrs(attributes))
    # The example and lead time to go on from, or None.
    self.reached = self._find_progress() if about else None
    if self.reached is None:
      self._create(coordinates, members, attributes, frames)
    self._group = zarr.open_group(self.draft, mode="a")

  def _find_progress(self):
    if not (self._progress.exists() and self.draft.exists()):
      return None
    try:
      with np.load(self._progress, allow_pickle=False) as saved:
        same = str(saved["about"]) == self._about
        reached = int(saved["example"]), int(saved["lead"])
    except _UNREADABLE as error:
      logging.warning(
        "%s cannot be read (%s). The forecast begins anew.", self._progress, error
      )
      return None
    return reached if same else None

  def _create(self, coordinates, members, attributes, frames):
    """Makes an empty draft in place of any other."""
    self._progress.unlink(missing_ok=True)
    shutil.rmtree(self.draft, ignore_errors=True)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._frame.to_zarr(
      self.draft, mode="w", consolidated=False, encoding=self._encoding
    )
    group = zarr.open_group(self.draft, mode="a")
    lead = coordinates.sizes["lead_time"]
    frames = min(frames or lead, lead)
    space = coordinates.attrs["spatial_dims"]
    grid = tuple(coordinates.sizes[d] for d in space)
    # If each member had a chunk of its own, small fields of many members would
    # become many tiny files.
    together = max(_CHUNK_VALUES // (frames * math.prod(grid)), 1)
    for name, one in self._layout.arrays.items():
      inner = len(one.dims) - len(grid) - self._layout.by_member
      array = group.create_array(
        name,
        shape=one.sizes,
        chunks=(
          *((min(members, together),) if self._layout.by_member else ()),
          *(1, frames, 1)[:inner],  # Starts, lead times, levels.
          *grid,
        ),
        dtype="float32",
        fill_value=float("nan"),
        dimension_names=one.dims,
      )
      array.attrs.update(one.attrs)

  def write(self, first: int, forecast: np.ndarray, lead: int = 0) -> None:
    """Writes some lead times of consecutive examples.

    Args:
      first: number of the first example.
      forecast: [M, B, n, H, W, C] in physical units.
      lead: number of the first lead time.
    """
    rows = slice(first, first + forecast.shape[1])
    leads = slice(lead, lead + forecast.shape[2])
    for name, index, values in self._layout.parts(forecast, rows, leads):
      self._group[name][index] = values

  def keep_progress(
    self, example: int, lead: int, histories: np.ndarray | None
  ) -> None:
    """Records how far the draft is written.

    Args:
      example: number of the first example that is not complete.
      lead: number of its lead times that are written.
      histories: frames that the forecast goes on from, if lead is not 0.
    """
    parts = {"about": self._about, "example": example, "lead": lead}
    if histories is not None:
      parts["histories"] = histories
    content = io.BytesIO()
    np.savez(content, **parts)
    files.write_atomically(self._progress, content.getvalue())

  def close(self) -> None:
    """Completes the store and moves it to its place."""
    if self._path.suffix == ENDINGS["netcdf"]:
      self._convert()
      shutil.rmtree(self.draft)
    else:
      self._move()
    self._progress.unlink(missing_ok=True)
    for ending in ENDINGS.values():
      other = self._path.with_suffix(ending)
      if other != self._path and other.exists():
        logging.warning(
          "%s is of an earlier forecast; the new one is in %s. Remove the one that"
          " you do not need.",
          other,
          self._path,
        )

  def _move(self):
    with warnings.catch_warnings():
      # Zarr 3 does not specify consolidated metadata yet, and warns of that, but
      # xarray looks for them.
      warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
      zarr.consolidate_metadata(self.draft)
    # An older store keeps its place until the new one is ready to take it.
    old = self._path.with_name(f".{self._path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if self._path.exists():
      self._path.rename(old)
    self.draft.rename(self._path)
    shutil.rmtree(old, ignore_errors=True)

  def _convert(self):
    """Makes a netCDF file of the draft, of which one chunk is in memory."""
    # A process that was killed here has left its part of a file.
    for left in self._path.parent.glob(f".{self._path.stem}.*{self._path.suffix}"):
      left.unlink()
    with files.replacing(self._path) as partial:
      self._frame.to_netcdf(partial, engine="h5netcdf", encoding=self._encoding)
      with h5netcdf.File(partial, "a") as file:
        for name, one in self._layout.arrays.items():
          source = self._group[name]
          target = file.create_variable(
            name,
            one.dims,
            source.dtype,
            fillvalue=source.fill_value,
            chunks=source.chunks,
            compression="gzip",
            compression_opts=1,
            shuffle=True,
          )
          target.attrs.update(one.attrs)
          for region in _regions(source.shape, source.chunks):
            target[region] = source[region]


def _encoded(coords: xr.Dataset) -> tuple[xr.Dataset, dict[str, dict[str, Any]]]:
  """Returns coordinates as they are written, and how their numbers are.

  They are written as plain variables, as the forecasts' own attributes name them.
  """
  frame = coords.reset_coords()
  # Zarr has a stable type only for strings of any length.
  texts = [n for n, c in frame.variables.items() if c.dtype.kind == "U"]
  frame = frame.assign({n: frame[n].astype(object) for n in texts})
  for variable in frame.variables.values():
    variable.encoding.clear()
  # CF knows no missing coordinates.
  return frame, {str(name): {"_FillValue": None} for name in frame.variables}


def _regions(shape: tuple[int, ...], chunks: tuple[int, ...]):
  """Yields the parts of an array that are chunks of it, as indices."""
  for first in itertools.product(*map(range, (0,) * len(shape), shape, chunks)):
    yield tuple(slice(f, f + c) for f, c in zip(first, chunks, strict=True))
