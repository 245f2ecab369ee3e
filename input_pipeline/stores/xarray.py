"""Any netCDF file or Zarr store that xarray reads and that has a time axis."""

import glob
import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import base, grid, missing


class XarrayStore(base.Store):
  """Sequences of labelled grids, decoded by their CF attributes.

  Dimensions are found by name, in any order. Without `sample_dim` there is
  one sequence, and several files are joined along time; with it each entry
  of that dimension is a sequence. Further dimensions (pressure level, depth,
  ensemble member) become channels "name@value". A grid of one spatial
  dimension (sensors) gets W = 1.

  Args:
    path: a file, a Zarr folder, or a pattern such as "data/*.nc" (data.path).
    variables: names, or "name@value" for one level; () is an error that lists
      the choices.
    time_dim: "" finds it.
    time_variable: times [time] or [sample, time]; "" finds it. Without dates
      the frames count as equally spaced.
    sample_dim: dimension of independent sequences, or "".
    sample_variable: names of the sequences [sample], or "".
    event_variable: the event of each sequence [sample], or "".
    split_variable: "train", "val" or "test" for each sequence [sample], or "".
    spatial_dims: (H name, W name) or (H name,); () finds them.
    select: part of a dimension: {"lat": (-60., 60.), "time": ("2010", "2015"),
      "y": (0, 128)}. Whole numbers are positions (stop excluded, a third one
      is the step); numbers with a point and dates are values (both included).
    coarsen: factor by which H and W shrink: means of the observed cells.
    missing_value: what stands for missing besides what the files declare, in
      decoded units; see `missing.codes`.

  Raises:
    DataError: if files, variables or dimensions do not fit.
  """

  def __init__(
    self,
    path: str = "",
    variables: tuple[str, ...] = (),
    time_dim: str = "",
    time_variable: str = "",
    sample_dim: str = "",
    sample_variable: str = "",
    event_variable: str = "",
    split_variable: str = "",
    spatial_dims: tuple[str, ...] = (),
    select: Mapping[str, Sequence[Any]] | None = None,
    coarsen: int = 1,
    missing_value: tuple[float | str, ...] = (),
  ):
    if not isinstance(coarsen, int) or coarsen < 1:
      raise errors.DataError(
        f"data.coarsen={coarsen!r}; expected a whole number from 1."
      )
    self.files = _find(path)
    self._lock = threading.Lock()
    self._opened = {}
    self._select = dict(select or {})
    self._missing = missing.codes(missing_value)
    self._coarsen = coarsen
    self._sample_dim = sample_dim
    first = self._dataset(0)
    names = _requested(first, base.as_names(variables))
    self._time_dim = grid.time_dim(first, names, time_dim)
    for dim, what in (
      (sample_dim, "data.sample_dim"),
      *((dim, "data.select") for dim in self._select),
    ):
      if dim and dim not in first.sizes:
        raise errors.unknown(f"dimension ({what})", dim, first.sizes)
    fixed = {self._time_dim, sample_dim} - {""}
    self._spatial_dims = grid.spatial_dims(
      first, names, fixed, base.as_names(spatial_dims)
    )
    self._channels, self.variables = _channels(
      first, base.as_names(variables), fixed | set(self._spatial_dims)
    )
    self.declared = {
      variable.name: missing.of(first[name])
      for name, variable in zip(self._sources(), self.variables, strict=True)
    }
    self.space = _space(first, self._spatial_dims, coarsen)
    if calendar := grid.calendar(first, self._time_dim):
      self.space.attrs["calendar"] = calendar
    labels = {
      "sample": sample_variable,
      "event": event_variable,
      "split": split_variable,
    }
    if not sample_dim and any(labels.values()):
      raise errors.DataError(
        "data.sample_variable, data.event_variable and data.split_variable "
        "name the entries of data.sample_dim, which is not set."
      )
    self._pieces, self._times, self._labels = self._index(time_variable, labels)
    self.num_sequences = len(self._pieces)
    self.has_events = bool(event_variable)

  @classmethod
  def static_fields(cls, options: Mapping[str, Any]) -> tuple[np.ndarray, xr.Dataset]:
    """Reads fields that have no time axis, or one of length 1.

    Args:
      options: of the constructor; those that speak of time or of sequences are
        not used, and of several files the first is read.

    Returns:
      float32 [H, W, S], NaN where missing, and their `Store.space`.

    Raises:
      DataError: if a variable is not there or changes along another axis.
    """
    path, *more = _find(options["path"])
    codes = missing.codes(options["missing_value"])
    with open_file(path, codes.declared) as dataset:
      names = _requested(dataset, base.as_names(options["variables"]), least_dims=1)
      time = {*grid.time_dims(dataset, names[0]), options["time_dim"]}
      dims = grid.spatial_dims(
        dataset, names, time, base.as_names(options["spatial_dims"])
      )
      dataset = dataset[names]
      for name in names:
        other = {d: n for d, n in dataset[name].sizes.items() if d not in dims}
        if other and (more or max(other.values()) > 1):
          raise errors.DataError(
            f"Variable {name!r} changes along "
            f"{', '.join(f'{dim}={size}' for dim, size in other.items())}"
            f"{f' in each of {1 + len(more)} files' if more else ''}; expected one "
            f"field on {' and '.join(map(str, dims))}. Fields that change in time "
            "go in data.forcings."
          )
      dataset = dataset.isel(dict.fromkeys(set(dataset.dims) - set(dims), 0))
      ranges = {d: r for d, r in (options["select"] or {}).items() if d in dims}
      dataset = grid.select(dataset, ranges, several_files=False)
      fields = [dataset[name].transpose(*dims).values for name in names]
      fields = np.stack(fields, axis=-1).astype(np.float32)
      fields = fields.reshape(1, len(fields), -1, len(names))  # Points have W = 1.
      fields = codes.mask(fields, tuple(names))
      coarsen = options["coarsen"]
      return grid.coarsen(fields, coarsen)[0], _space(dataset, dims, coarsen)

  def length(self, sequence: int) -> int:
    return sum(frames for _, _, frames in self._pieces[sequence])

  def times(self, sequence: int) -> np.ndarray | None:
    return self._times[sequence]

  def sample_id(self, sequence: int) -> str:
    names = self._labels["sample"]
    return names[sequence] if names else str(sequence)

  def event(self, sequence: int) -> str:
    names = self._labels["event"]
    return names[sequence] if names else self.sample_id(sequence)

  def split_label(self, sequence: int) -> str | None:
    names = self._labels["split"]
    return names[sequence] if names else None

  def location(self, sequence: int) -> str:
    files = [self.files[file] for file, _, _ in self._pieces[sequence]]
    where = files[0] if len(files) == 1 else f"{files[0]} ... {files[-1]}"
    return f"{where}, sequence {self.sample_id(sequence)!r}"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    parts, offset = [], 0
    for file, sample, frames in self._pieces[sequence]:
      low, high = max(start - offset, 0), min(stop - offset, frames)
      if low < high:
        parts.append(self._read_piece(file, sample, low, high))
      offset += frames
    frames = parts[0] if len(parts) == 1 else np.concatenate(parts)
    frames = self._missing.mask(frames, self.names)
    return grid.coarsen(frames, self._coarsen)

  def _sources(self) -> list[str]:
    """The variable of the file behind each channel."""
    return [name for name, _, places in self._channels for _ in places]

  def __getstate__(self):
    return {**self.__dict__, "_lock": None, "_opened": {}}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.Lock())

  def _dataset(self, file: int) -> xr.Dataset:
    """One file, with `select` applied; opened once per process."""
    with self._lock:
      if file not in self._opened:
        self._opened[file] = grid.select(
          open_file(self.files[file], self._missing.declared),
          self._select,
          several_files=len(self.files) > 1,
        )
      return self._opened[file]

  def _read_piece(self, file, sample, low, high) -> np.ndarray:
    dataset = self._dataset(file)
    where = {self._time_dim: slice(low, high)}
    if self._sample_dim:
      where[self._sample_dim] = sample
    arrays = []
    for name, others, positions in self._channels:
      array = dataset[name].isel(where)
      if len(positions) == 1:
        array = array.isel(dict(zip(others, positions[0], strict=True)))
        array = array.transpose(self._time_dim, *self._spatial_dims)
        values = array.values.astype(np.float32)[..., None]
      else:
        array = array.transpose(self._time_dim, *self._spatial_dims, *others)
        values = array.values.astype(np.float32)
        values = values.reshape(*array.shape[: 1 + len(self._spatial_dims)], -1)
      if len(self._spatial_dims) == 1:
        values = values[:, :, None]
      arrays.append(values)
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)

  def _index(self, time_variable, label_variables):
    """Per sequence: pieces (file, sample, frames), times and labels."""
    found = []
    labels = {kind: [] for kind in label_variables}
    sizes = {dim: self._dataset(0).sizes[dim] for dim in self._spatial_dims}
    for file, path in enumerate(self.files):
      dataset = self._dataset(file)
      for name in {name for name, _, _ in self._channels}:
        if name not in dataset:
          raise errors.unknown(
            f"variable (data.variables) in {path}", name, dataset.data_vars
          )
      other = {dim: dataset.sizes.get(dim) for dim in sizes}
      if other != sizes:
        raise errors.DataError(
          f"{path} has the grid {other}, but {self.files[0]} has {sizes}. "
          "Expected one grid; change data.path."
        )
      times = grid.times(dataset, self._time_dim, self._sample_dim, time_variable)
      frames = dataset.sizes[self._time_dim]
      if not self._sample_dim:
        found.append(([(file, 0, frames)], times))
        continue
      samples = dataset.sizes[self._sample_dim]
      for sample in range(samples):
        axis = times[sample] if times is not None and times.ndim == 2 else times
        found.append(([(file, sample, frames)], axis))
      for kind, name in label_variables.items():
        labels[kind] += grid.labels(dataset, name, self._sample_dim, kind)
    if not self._sample_dim:
      if all(times is not None for _, times in found):
        found = [piece for piece in found if len(piece[1])]
        found.sort(key=lambda piece: int(piece[1][0]))
        joined = np.concatenate([times for _, times in found])
      else:
        joined = None
      found = [([p for pieces, _ in found for p in pieces], joined)]
    return [pieces for pieces, _ in found], [t for _, t in found], labels


def _find(path: str) -> tuple[str, ...]:
  """The absolute paths of a file, a folder or a pattern."""
  if not glob.has_magic(path) or os.path.exists(path):
    return (base.existing_path(path),)
  pattern = os.path.abspath(os.path.expanduser(path))
  found = tuple(sorted(glob.glob(pattern, recursive=True)))
  if not found:
    raise errors.DataError(
      f"No file matches {pattern} (data.path={path!r}). Change data.path."
    )
  return found


def open_file(path: str, declared: bool = True) -> xr.Dataset:
  """One file; DataError if xarray cannot read it.

  Args:
    path: the file or the Zarr folder.
    declared: whether what it declares as missing counts; see `missing.open_dataset`.
  """
  try:
    return missing.open_dataset(
      path, _engine(path), declared=declared, decode_timedelta=False
    )
  except (OSError, ValueError, KeyError, TypeError) as error:
    reason = (str(error).splitlines() or [""])[0]
    raise errors.DataError(
      f"xarray cannot open {path} ({type(error).__name__}: {reason}). "
      "Expected a netCDF file or a Zarr folder; change data.path."
    ) from error


def _space(dataset: xr.Dataset, dims: Sequence[str], coarsen: int) -> xr.Dataset:
  """`Store.space` of a dataset whose H and W shrink by a factor."""
  space = grid.coordinates(dataset, dims)
  if coarsen == 1:
    return space
  coarse = space.coarsen(dict.fromkeys(dims, coarsen), boundary="pad").mean()
  coarse.attrs = dict(space.attrs)
  return coarse


def _engine(path: str) -> str | None:
  """The reader of a file by its first bytes; None leaves it to xarray."""
  if os.path.isdir(path):
    return "zarr"
  with open(path, "rb") as file:
    magic = file.read(8)
  if magic == b"\x89HDF\r\n\x1a\n":
    # Not netCDF4-python: it crashes when one thread closes a file (garbage
    # collection) while another one reads. h5py holds one lock for both.
    return "h5netcdf"
  return "scipy" if magic[:4] in (b"CDF\x01", b"CDF\x02") else None


def _requested(
  dataset: xr.Dataset, names: tuple[str, ...], least_dims: int = 2
) -> list[str]:
  """The variables of the file behind the requested channels."""
  choices = [
    str(name)
    for name, array in dataset.data_vars.items()
    if array.ndim >= least_dims and array.dtype.kind in "fiub"
  ]
  if not names:
    raise errors.DataError(
      "data.variables is empty. Choose from: "
      f"{', '.join(choices) or 'none, the file has no gridded variable'}."
    )
  found = []
  for name in names:
    plain = name if name in dataset else name.rpartition("@")[0]
    while plain and plain not in dataset:
      plain = plain.rpartition("@")[0]
    if plain not in choices:
      raise errors.unknown("variable (data.variables)", name, choices)
    found.append(plain)
  return found


def _channels(dataset, requested, grid_dims):
  """Which parts of which variables become channels, and their labels."""
  channels, variables = [], []
  for name, plain in zip(requested, _requested(dataset, requested), strict=True):
    array = dataset[plain]
    others = [dim for dim in array.dims if dim not in grid_dims]
    attrs = {
      key: value.item() if isinstance(value, np.generic) else value
      for key, value in array.attrs.items()
      if isinstance(value, (str, int, float, np.generic))
    }
    levels = [
      array[dim].values if dim in array.coords else np.arange(array.sizes[dim])
      for dim in others
    ]
    entries = {}
    for position in itertools.product(*(range(len(v)) for v in levels)):
      values = [v[i] for v, i in zip(levels, position, strict=True)]
      several = np.prod([len(v) for v in levels], dtype=int) > 1
      label = "@".join([plain, *map(_text, values)]) if several else plain
      extra = {
        dim: v.item() if v.dtype.kind in "iuf" else str(v)
        for dim, v in zip(others, values, strict=True)
      }
      entries[label] = (position, base.Variable(label, {**attrs, **extra}))
    if name != plain:
      if name not in entries:
        raise errors.unknown("variable (data.variables)", name, entries)
      entries = {name: entries[name]}
    channels.append((plain, others, [p for p, _ in entries.values()]))
    variables += [variable for _, variable in entries.values()]
  return channels, tuple(variables)


def _text(value: Any) -> str:
  return f"{value:g}" if np.asarray(value).dtype.kind in "iuf" else str(value)
