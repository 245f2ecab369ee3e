"""Any netCDF file or Zarr store that xarray reads and that has a time axis."""

import functools
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from absl import logging

from input_pipeline import errors
from input_pipeline.stores import base, file_sets, grid, missing, moments, structure

_MOST_OPEN = 2048  # Files of which the structure is kept in memory.
_CHECKED_CELLS = 2**26  # Larger frames are not read to see whether they change.


class XarrayStore(base.Store):
  """Sequences of labelled grids, decoded by their CF attributes.

  Dimensions are found by name, in any order. Without `sample_dim` there is
  one sequence, and several files are joined along time; with it each entry
  of that dimension is a sequence. Further dimensions (pressure level, depth,
  ensemble member) become channels "name@value". A grid of one spatial
  dimension (sensors) gets W = 1. Several files may hold different variables,
  or one frame each. Their grids, levels and units must be those of the first:
  entries in another order are taken by their labels. Of ERA5's `expver` the
  final values are taken, and the preliminary ones where these are missing.

  Args:
    path: a file, a Zarr folder, or a pattern such as "data/*.nc" (data.path).
    variables: names, or "name@value" for one level; () takes every variable on
      the main grid, and the log says which, and what was left out.
    group: the group of each file that is read, such as "forecast/surface".
    file_time: where the files' names hold the time of their one frame: a strptime
      format that stands anywhere in the name, such as "%Y%m%d%H".
    time_dim: "" finds it.
    time_variable: times [time] or [sample, time]; "" finds it. Without dates
      the frames count as equally spaced.
    step: time between frames as pandas writes it ("10min", "1h", "MS": month
      starts), in place of the times of the files; "" takes those.
    first_time: date of the first frame ("1850-01-01"), for all sequences or one
      for each; needs `step`. "": unknown.
    sample_dim: dimension of independent sequences; "" finds one by its name or
      its labels, "none" looks for none.
    sample_variable: names of the sequences [sample]; "" finds them, "none" does not.
    event_variable: the event of each sequence [sample]; "" and "none" as above.
    split_variable: "train", "val" or "test" for each sequence [sample]; "" and
      "none" as above.
    spatial_dims: (H name, W name) or (H name,); () finds them.
    select: part of a dimension: {"lat": (-60., 60.), "time": ("2010", "2015"),
      "y": (0, 128)}. Numbers and dates are values (first and last, both
      included), whole numbers too where the dimension has a coordinate of
      numbers. Elsewhere, with None or with a third one (the step), whole numbers
      are positions, the stop excluded. Longitudes go east from the first to the
      last, also across 0 or 180 degrees; see `grid.select`.
    coarsen: factor by which H and W shrink: means of the observed cells.
    missing_value: what stands for missing besides what the files declare, in
      decoded units; see `missing.codes`.

  Raises:
    DataError: if files, variables or dimensions do not fit.
  """

  fills_splits = True

  def __init__(
    self,
    path: str = "",
    variables: tuple[str, ...] = (),
    group: str = "",
    file_time: str = "",
    time_dim: str = "",
    time_variable: str = "",
    step: str = "",
    first_time: str | Sequence[str] = "",
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
    self.files = file_sets.find(path)
    self._lock = threading.RLock()
    self._opened = OrderedDict()
    self._group, self._file_time = group, file_time
    self._select = dict(select or {})
    self._missing = missing.codes(missing_value)
    self._coarsen = coarsen
    self._orders = {}  # How the entries of a file come to be as in the first one.
    requested, spatial_dims = base.as_names(variables), base.as_names(spatial_dims)
    template, holders, odd = self._structure(requested, time_dim)
    left_out = {}
    if requested:
      names = _requested(template, requested, odd=odd)
      if not self._single:
        found = time_dim or structure.time_dim(template, names[0])
        self._time_dim = grid.time_dim(template, names, found)
      if not sample_dim:
        sample_dim = structure.sample_dim(
          template, names[0], self._time_dim, spatial_dims
        )
    else:
      chosen = structure.main(
        template,
        self._where(),
        self._time_dim if self._single else time_dim,
        sample_dim,
        spatial_dims,
        odd,
      )
      names, left_out = list(chosen.names), dict(chosen.left_out)
      self._time_dim, sample_dim = chosen.time_dim, chosen.sample_dim
    self._sample_dim = "" if sample_dim == structure.NONE else sample_dim
    for dim, what in (
      (self._sample_dim, "data.sample_dim"),
      *((dim, "data.select") for dim in self._select),
    ):
      if dim and dim not in template.sizes:
        raise errors.unknown(f"dimension ({what})", dim, template.sizes)
    fixed = {self._time_dim, self._sample_dim, structure.VERSIONS} - {""}
    self._spatial_dims = grid.spatial_dims(template, names, fixed, spatial_dims)
    if coarsen > 1 and len(self._spatial_dims) == 1:
      _check_line(template, self._spatial_dims[0], coarsen)
    labels = self._label_variables(
      template, sample_variable, event_variable, split_variable
    )
    ranges = {d: r for d, r in self._select.items() if d != self._time_dim}
    selected = grid.select(template, ranges, several_files=False)
    self.space = _space(selected, self._spatial_dims, coarsen)
    grid.say_selected(selected, ranges)
    self.step = None if base.as_names(first_time) else moments.step(step)
    self._given_step, self._first_calendar = bool(step), None
    fixed |= set(self._spatial_dims)
    self._channels, self.variables = _channels(selected, requested or names, fixed)
    self._join(template, names, holders, time_variable, labels)
    self.num_sequences = len(self._times)
    self._give_times(step, base.as_names(first_time))
    if not requested:
      for name in self._constant(names):
        names.remove(name)
        left_out[name] = "it is the same at all times"
      self._channels, self.variables = _channels(selected, names, fixed)
      named = {*labels.values(), time_variable}
      self._say_taken({k: why for k, why in left_out.items() if k not in named})
    self.declared = {
      variable.name: missing.of(selected[name])
      for name, variable in zip(self._sources(), self.variables, strict=True)
    }
    self._say_structure(selected, names, labels)
    self._opened.clear()
    del self._dates

  @classmethod
  def static_fields(cls, options: Mapping[str, Any]) -> tuple[np.ndarray, xr.Dataset]:
    """Reads fields that have no time axis, or one of length 1.

    Args:
      options: of the constructor; those that speak of time or of sequences are
        not used, and of several files the first that has the fields is read.

    Returns:
      float32 [H, W, S], NaN where missing, and their `Store.space`.

    Raises:
      DataError: if a variable is not there or changes along another axis.
    """
    path, *more = _holding(options)
    codes = missing.codes(options["missing_value"])
    with open_file(path, options.get("group", ""), codes.declared) as dataset:
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
    return len(self._places[0][sequence][0])

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
    files = self._places[0][sequence][0]
    first, last = (self.files[file] for file in (files.min(), files.max()))
    where = first if first == last else f"{first} ... {last}"
    return f"{where}, sequence {self.sample_id(sequence)!r}"

  def read(self, sequence: int, start: int, stop: int) -> np.ndarray:
    arrays = [
      self._read_channel(channel, sequence, slice(start, stop))
      for channel in self._channels
    ]
    frames = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
    frames = self._missing.mask(frames, self.names)
    return grid.coarsen(frames, self._coarsen)

  def _sources(self) -> list[str]:
    """The variable of the file behind each channel."""
    return [name for name, _, places in self._channels for _ in places]

  def __getstate__(self):
    return {**self.__dict__, "_lock": None, "_opened": OrderedDict()}

  def __setstate__(self, state):
    self.__dict__.update(state, _lock=threading.RLock())

  def _where(self) -> str:
    return " ... ".join(dict.fromkeys((self.files[0], self.files[-1])))

  def _raw(self, file: int) -> xr.Dataset:
    """One file as it is; opened once per process, while few others are."""
    return self._once((file, "raw"), lambda: self._open(file))

  def _open(self, file: int) -> xr.Dataset:
    return open_file(self.files[file], self._group, self._missing.declared)

  def _dataset(self, file: int) -> xr.Dataset:
    """One file, its entries in the order of the first one, and `select` applied."""
    return self._once((file, "ready"), lambda: self._ready(file))

  def _once(self, key, make):
    with self._lock:
      if key not in self._opened:
        self._opened[key] = make()
        while len(self._opened) > _MOST_OPEN:
          self._opened.popitem(last=False)
      self._opened.move_to_end(key)
      return self._opened[key]

  def _ready(self, file: int) -> xr.Dataset:
    dataset = self._dated(file)
    taken, selected_first = self._orders.get(file, ({}, False))
    if not selected_first:
      dataset = self._in_order(dataset, taken)
    dataset = self._cut(dataset)
    return dataset.isel(taken) if selected_first else dataset

  def _give_times(self, step: str, firsts: tuple[str, ...]) -> None:
    """Makes the time axes that data.step and data.first_time ask for."""
    if firsts and not step:
      raise errors.DataError(
        f"data.first_time={','.join(firsts)!r} needs data.step, e.g. '1h'."
      )
    if not firsts:
      return
    if len(firsts) not in (1, self.num_sequences):
      raise errors.DataError(
        f"data.first_time={','.join(firsts)!r} gives {len(firsts)} dates for "
        f"{self.num_sequences} sequences of {self.files[0]}; expected one, or one "
        "for each."
      )
    if len(firsts) == 1:
      firsts *= self.num_sequences
    self._times = [
      moments.axis(first, step, self.length(i), self.location(i))
      for i, first in enumerate(firsts)
    ]

  def _calendar(self, file: int, time_variable: str) -> None:
    """Takes the calendar of a file's dates, which is that of all files."""
    calendar = grid.calendar(
      self._dataset(file), self._time_dim, self._sample_dim, time_variable
    )
    first, known = self._first_calendar or (file, calendar)
    if calendar != known and {calendar, known} != {"", "standard"}:
      raise errors.DataError(
        f"{self.files[file]} has times in the calendar {calendar or 'standard'!r}, "
        f"but {self.files[first]} in {known or 'standard'!r}. Expected one calendar; "
        "change data.path, or give the times with data.step and data.first_time."
      )
    self._first_calendar = first, known or calendar
    if calendar:
      self.space.attrs["calendar"] = calendar

  def _date(self, time: int) -> str:
    """A moment in words."""
    dates = moments.to_dates(np.array([time]), self.space.attrs.get("calendar", ""))
    return moments.texts(dates)[0]

  def _dated(self, file: int) -> xr.Dataset:
    """One file, with the date in its name if that is asked for."""
    dataset, dim, path = self._raw(file), self._time_dim, self.files[file]
    if not self._file_time or self._single or dim not in dataset.sizes:
      return dataset
    if dim in dataset.variables and file_sets.is_date(dataset[dim]):
      raise errors.DataError(
        f"{path} has dates of its own on {dim!r}, so data.file_time="
        f"{self._file_time!r} is not needed. Leave data.file_time empty."
      )
    if dataset.sizes[dim] != 1:
      raise errors.DataError(
        f"{path} has {dataset.sizes[dim]} frames, but data.file_time="
        f"{self._file_time!r} dates one frame a file. Leave data.file_time empty."
      )
    date = file_sets.date_in_name(path, self._file_time)
    return dataset.assign_coords({dim: (dim, [date.astype("datetime64[ns]")])})

  def _in_order(self, dataset: xr.Dataset, taken) -> xr.Dataset:
    dataset = dataset.isel(taken)
    # The very numbers of the first file, so that `select` cuts all of them alike.
    return dataset.assign_coords(
      {
        dim: axis
        for dim, axis in self._axes.items()
        if dim in dataset.variables and dataset.sizes[dim] == axis.size
      }
    )

  def _cut(self, dataset: xr.Dataset) -> xr.Dataset:
    return grid.select(dataset, self._select, several_files=len(self.files) > 1)

  def _structure(self, requested, given_time):
    """What all files hold together, one frame long.

    Returns:
      A dataset like the first file, which has the variables of the other files as
      well; {variable: the files that have it}; and {variable: why it cannot be
      joined with the others}.
    """
    holders: dict[str, list[int]] = {}
    for file, path in enumerate(self.files):
      with file_sets.reading(path, "its list of variables"):
        for name in structure.numeric(self._raw(file)):
          holders.setdefault(name, []).append(file)
    if not holders:
      raise errors.DataError(_no_variables(self.files[0], self._group))
    wanted = {_plain_name(name, holders) for name in requested} & holders.keys()

    def frames_dim(dataset):
      fields = (n for n in structure.numeric(dataset) if structure.is_field(dataset, n))
      return next(filter(None, (structure.time_dim(dataset, n) for n in fields)), "")

    candidates = sorted({file for name in wanted for file in holders[name]})
    candidates = candidates or range(len(self.files))
    reference = candidates[0]
    if not requested:
      reference = self._likeliest(holders, frames_dim)
    self._reference = reference
    dataset = self._raw(reference)
    dim = given_time if given_time in dataset.dims else frames_dim(dataset)
    dated = file_sets.single_date(dataset, "") is not None
    self._single = not dim and (len(self.files) > 1 or dated or bool(self._file_time))
    self._time_dim = (given_time or "time") if self._single else ""
    template = dataset.isel({d: slice(0, 1) for d in {dim} - {""}})
    if self._single:
      template = template.drop_vars(self._time_dim, errors="ignore")
    odd = {}
    for name, files in holders.items():
      if name in template and not self._single:
        continue
      if wanted and name not in wanted:
        continue
      other = self._raw(files[0])
      array = other[name]
      apart = {
        d: n
        for d, n in array.sizes.items()
        if d in template.sizes and d != dim and n != template.sizes[d]
      }
      if apart:
        sizes = ", ".join(f"{d}={n}" for d, n in apart.items())
        odd[name] = f"another grid: {sizes} in {self.files[files[0]]}"
        continue
      dims, frames = array.dims, {}
      if self._single and structure.is_field(other, name):
        dims, frames = (self._time_dim, *dims), {self._time_dim: 1}
      elif dim in dims:
        frames = {dim: template.sizes[dim]}
      sizes = {**array.sizes, **frames}
      new = {d: other[d] for d in array.dims if d in other and d not in template.sizes}
      template = template.assign_coords(new)
      # Only its form counts here, and this takes no memory.
      values = np.broadcast_to(np.zeros((), array.dtype), [sizes[d] for d in dims])
      template[name] = xr.Variable(dims, values, array.attrs, array.encoding)
    self._axes = {
      d: template[d].variable for d in template.sizes if d in template.variables
    }
    self._axes.pop(dim, None)
    return template, holders, odd

  def _likeliest(self, holders, frames_dim) -> int:
    """The file whose grid most variables share, so not one of constants."""
    first = {name: files[0] for name, files in holders.items()}
    fields = {}
    for name, file in first.items():
      dataset = self._raw(file)
      time = frames_dim(dataset)
      if structure.is_field(dataset, name) and (not time or time in dataset[name].dims):
        sizes = {d: n for d, n in dataset[name].sizes.items() if d != time}
        fields[name] = bool(time), sizes

    def rank(file):
      own = [fields[name] for name in fields if first[name] == file]
      sizes = {d: n for _, some in own for d, n in some.items()}
      shared = [
        dated
        for dated, some in fields.values()
        if sizes and all(sizes.get(d, n) == n for d, n in some.items())
      ]
      points = np.prod(list(sizes.values()), dtype=np.int64)
      return any(dated for dated, _ in own), len(shared), int(points), -file

    return max(set(first.values()), key=rank)

  def _label_variables(self, template, sample, event, split):
    given = {"sample": sample, "event": event, "split": split}
    self._labels_found = set()
    if not self._sample_dim:
      if any(name not in ("", structure.NONE) for name in given.values()):
        raise errors.DataError(
          "data.sample_variable, data.event_variable and data.split_variable "
          "name the entries of data.sample_dim, which is not set."
        )
      return dict.fromkeys(given, "")
    found, refused = structure.labels(template, self._sample_dim)
    for reason in refused:
      file_sets.say(f"{self._where()}: {reason}, and is not used.")
    for kind, name in given.items():
      if name == structure.NONE:
        given[kind] = ""
      elif not name and found[kind]:
        given[kind] = found[kind]
        self._labels_found.add(kind)
    return given

  def _fit(self, file: int, template, holders) -> None:
    """Brings the axes of a file into the order of the first one's, or refuses it.

    Args:
      file: its number.
      template: the structure of all files.
      holders: {variable of this file that is used: the files that have it}.
    """
    dataset, path = self._raw(file), self.files[file]
    first = self.files[self._reference]
    free = {self._time_dim, self._sample_dim, structure.VERSIONS}
    dims = [
      d for d in template.sizes if d not in free and d in _dims(template, holders)
    ]
    cut = {dim: self._select[dim] for dim in dims if dim in self._select}
    with file_sets.reading(path, "its coordinates"):
      for name, files in holders.items():
        file_sets.check_variable(
          template[name],
          dataset[name],
          [self._time_dim, self._sample_dim],
          path,
          first if self._reference in files else self.files[files[0]],
        )
      try:
        found = file_sets.order(template, dataset, dims, path, first), False
      except errors.DataError:
        if not cut:
          raise
        one, other = (
          grid.select(ds, cut, several_files=True) for ds in (template, dataset)
        )
        found = file_sets.order(one, other, dims, path, first), True
    self._orders[file] = found

  def _join(self, template, names, holders, time_variable, labels) -> None:
    """Where every frame of every sequence lies, for each set of files."""
    chains: dict[tuple[int, ...], list[str]] = {}
    for name in dict.fromkeys(names):
      chains.setdefault(tuple(holders[name]), []).append(name)
    self._chain = {
      name: number for number, group in enumerate(chains.values()) for name in group
    }
    self._places, axes = [], []
    self._dates = {}  # Of files that are one frame.
    self._labels = {kind: [] for kind in labels}
    found: dict[int, file_sets.Part] = {}
    for file, path in enumerate(self.files):
      here = {name: holders[name] for name in names if file in holders[name]}
      if not here:
        file_sets.say(
          f"{path} has none of the variables {', '.join(names)}, and is left out.",
          warn=True,
        )
        continue
      if file != self._reference:
        self._fit(file, template, here)
      for name in here if os.path.isdir(path) else ():
        dims = self._raw(file)[name].dims
        axis = dims.index(self._time_dim) if self._time_dim in dims else None
        file_sets.check_chunks(path, self._group, name, axis)
      # Here, since of very many files not all stay open.
      found[file] = self._part(file, time_variable)
    for number, files in enumerate(chains):
      group = chains[files]
      parts = [found[file] for file in files]
      if self._sample_dim:
        places, times = self._samples(parts, labels if not number else {})
      else:
        places, times = self._one_sequence(parts, group)
      self._places.append(places)
      axes.append(times)
      if number:
        self._same_times(names[0], group[0], axes[0], times)
    self._times = axes[0]
    samples, events = self._labels.get("sample"), self._labels.get("event")
    if "sample" in self._labels_found and len(set(samples)) < len(samples):
      self._labels["sample"] = []  # Counted anew in each file.
    if "event" in self._labels_found and len(set(events)) == 1:
      file_sets.say(
        f"{self._where()}: {labels['event']!r} is the same for every sequence, and is "
        "not used as their event."
      )
      self._labels["event"] = []
    self.has_events = bool(self._labels["event"])

  def _part(self, file: int, time_variable: str) -> file_sets.Part:
    dataset, path = self._dataset(file), self.files[file]
    with file_sets.reading(path, "its times"):
      if self._single:
        date = self._dates[file] = self._single_date(file, time_variable)
        times = None
        if date is not None:
          coords = {"time": ("time", np.array([date]))}
          times = grid.times(xr.Dataset(coords=coords), "time", "", "")
        return file_sets.Part(
          file, 1, times, file_sets.version_rank(dataset, self._time_dim, 1)
        )
      times, frames = None, dataset.sizes[self._time_dim]
      if not self._given_step:
        times = grid.times(dataset, self._time_dim, self._sample_dim, time_variable)
        self._calendar(file, time_variable)
      elif self._time_dim in dataset.coords:
        base.say_once(
          logging.INFO,
          f"data.step takes the place of the times of {path}, which are not used",
        )
      if times is not None and not self._sample_dim:
        times = grid.until_missing(times, path, self._time_dim)
        frames = len(times)
      rank = file_sets.version_rank(dataset, self._time_dim, frames)
      return file_sets.Part(file, frames, times, rank)

  def _single_date(self, file: int, time_variable: str) -> Any:
    """The date of a file that is one frame, or None."""
    path = self.files[file]
    own = file_sets.single_date(self._raw(file), time_variable)
    if own is None and time_variable:
      raise errors.DataError(
        f"data.time_variable={time_variable!r} is no date of {path}. Change it, or "
        "give data.file_time if the files' names hold the times."
      )
    own = None if own is None else own.values.flat[0]
    if not self._file_time:
      return own
    date = file_sets.date_in_name(path, self._file_time)
    if own is not None and isinstance(own, np.datetime64) and own != date:
      file_sets.say(
        f"{path}: the name says {date} (data.file_time), which is taken, but the file "
        f"itself says {own}.",
        warn=True,
      )
    return date.astype("datetime64[ns]")

  def _samples(self, parts, labels):
    """Places and times of one sequence for each entry of the sample dimension."""
    places, axes = [], []
    for part in parts:
      dataset = self._dataset(part.file)
      for sample in range(dataset.sizes[self._sample_dim]):
        axis, length = part.times, part.frames
        if axis is not None:
          axis = axis[sample] if axis.ndim == 2 else axis
          where = f"{self.files[part.file]}, entry {sample} of {self._sample_dim!r}"
          axis = grid.until_missing(axis, where, self._time_dim)
          length = len(axis)
        frames = np.arange(length, dtype=np.int32)
        places.append((np.full(length, part.file, np.int32), frames, sample))
        axes.append(axis)
      for kind, name in labels.items():
        self._labels[kind] += grid.labels(dataset, name, self._sample_dim, kind)
    return places, axes

  def _one_sequence(self, parts, names):
    def same(one, other):
      return all(
        np.array_equal(
          *(
            self._values(channel, file, 0, slice(frame, frame + 1))
            for file, frame in (one, other)
          ),
          equal_nan=True,
        )
        for channel in self._channels
        if channel[0] in names
      )

    files, frames, times = file_sets.join(parts, self.files, same, self._date)
    if any(part.rank is not None for part in parts):
      self._say_versions(parts)
    if self._single and self._time_dim in self._select:
      axis = {"frame": (self._time_dim, np.arange(len(files)))}
      if times is not None:
        dates = [self._dates[file] for file in files.tolist()]
        axis[self._time_dim] = (self._time_dim, np.array(dates))
      ranges = {self._time_dim: self._select[self._time_dim]}
      kept = grid.select(xr.Dataset(coords=axis), ranges, several_files=False)
      kept = kept["frame"].values
      files, frames = files[kept], frames[kept]
      times = None if times is None else times[kept]
    times = None if times is None else moments.snapped(times)
    return [(files, frames, 0)], [times]

  def _same_times(self, one, other, here, there) -> None:
    """Raises DataError unless variables of different files have the same times."""
    lengths = [
      [len(frames) for _, frames, _ in places]
      for places in (self._places[0], self._places[-1])
    ]
    dated = [[axis is not None for axis in axes] for axes in (here, there)]
    if dated[0] != dated[1] or len(here) != len(there):
      raise errors.DataError(
        f"Variables {one!r} and {other!r} lie in different files, of which only some "
        "have dates, or which have other sequences. Expected the same; change "
        "data.path or data.variables."
      )
    equal = lengths[0] == lengths[1] and all(
      a is None or np.array_equal(a, b) for a, b in zip(here, there, strict=True)
    )
    if equal:
      return
    if here[0] is None or self._sample_dim:
      raise errors.DataError(
        f"Variables {one!r} and {other!r} lie in different files, whose frames or "
        f"times differ ({lengths[0][0]} and {lengths[1][0]} frames). Expected the "
        "same; change data.path or data.variables."
      )
    a, b = here[0], there[0]
    shared = np.intersect1d(a, b)
    remedy = "change data.path or data.variables"
    if len(shared):
      within = [x[(x >= shared[0]) & (x <= shared[-1])] for x in (a, b)]
      if np.array_equal(*within):
        first, last = (
          self._date(int(end)).replace(" ", "T") for end in (shared[0], shared[-1])
        )
        remedy = (
          f"keep what they share: --config.data.select.{self._time_dim}={first},{last}"
        )
    raise errors.DataError(
      f"{one!r} has {len(a)} frames from {self._date(int(a[0]))} to "
      f"{self._date(int(a[-1]))}, but {other!r} has {len(b)} from "
      f"{self._date(int(b[0]))} to {self._date(int(b[-1]))} in other files "
      f"(data.path). Expected the same times; {remedy}."
    )

  def _constant(self, names) -> list[str]:
    """Those variables that do not change in time, as far as three frames show.

    A field without any structure is none of these: it may be a dry day.
    """
    length = self.length(0)
    frames = sorted({0, length // 2, length - 1})
    found = []
    for name, others, positions in self._channels if length > 2 else ():
      cells = np.prod(list(self.space.sizes.values()), dtype=np.int64)
      if cells * len(positions) > _CHECKED_CELLS:
        continue
      first, *more = (
        self._read_channel((name, others, positions), 0, slice(frame, frame + 1))
        for frame in frames
      )
      seen = first[np.isfinite(first)]
      varied = len(seen) and seen.max() > seen.min()
      if varied and all(np.array_equal(first, m, equal_nan=True) for m in more):
        found.append(name)
    return found if len(found) < len(names) else []

  def _say_taken(self, left_out) -> None:
    grid_text = " x ".join(
      f"{dim}={size}" for dim, size in self.space.sizes.items() if dim != "column"
    )
    file_sets.say(
      f"{self._where()}: data.variables is empty, so every variable on the main grid "
      f"({grid_text}) is forecast: {', '.join(self.names)}."
    )
    if left_out:
      static = any("time axis" in w or "all times" in w for w in left_out.values())
      hint = " Fields that do not change go in data.static.variables." if static else ""
      listed = "; ".join(f"{name} ({why})" for name, why in left_out.items())
      file_sets.say(f"{self._where()}: left out are {listed}.{hint}")

  def _say_structure(self, selected, names, labels) -> None:
    """Says what became of dimensions that one might have taken otherwise."""
    where = self._where()
    if self._sample_dim:
      kinds = {"sample": "names", "event": "events", "split": "splits"}
      used = ", ".join(
        f"{kinds[kind]} by {labels[kind]!r}"
        for kind, found in self._labels.items()
        if found
      )
      file_sets.say(
        f"{where}: {self._sample_dim!r} holds {self.num_sequences} independent "
        "sequences (data.sample_dim; 'none' takes it for levels), with "
        f"{used or 'no labels'}."
      )
    for dim in dict.fromkeys(d for _, others, _ in self._channels for d in others):
      size = selected.sizes[dim]
      lead = dim in selected.variables and selected[dim].dtype.kind == "m"
      lead = lead or str(dim).lower() in structure.LEADS
      if size > 1 and (lead or str(dim).lower() in structure.MEMBERS):
        kind = "lead times" if lead else "ensemble members"
        one = next(v.name for v in self.variables if dim in v.attrs)
        file_sets.say(
          f"{where}: the {size} {kind} of {dim!r} become channels of each frame. "
          f"--config.data.variables={one} takes the first one only, and "
          f"--config.data.sample_dim={dim} takes each as a sequence of its own.",
          warn=True,
        )
    for name in names:
      if structure.VERSIONS in selected[name].dims:
        labels = np.arange(selected.sizes[structure.VERSIONS])
        if structure.VERSIONS in selected.variables:
          labels = selected[structure.VERSIONS].values
        labels = [str(labels[i]) for i in file_sets.versions(labels)]
        file_sets.say(
          f"{where}: {name!r} has the versions (expver) {', '.join(labels)}; each "
          "value is the first of them that is not missing."
        )

  def _say_versions(self, parts) -> None:
    ranks = np.concatenate([p.rank for p in parts if p.rank is not None])
    counts = ", ".join(
      f"{count} of version {rank}"
      for rank, count in zip(*np.unique(ranks, return_counts=True), strict=True)
    )
    file_sets.say(
      f"{self._where()}: by expver the frames are {counts}; of two for one time the "
      "lowest version, which is the final one, is taken."
    )

  def _read_channel(self, channel, sequence: int, part: slice) -> np.ndarray:
    """Frames of a variable, float32 [T, H, W, its channels]."""
    files, frames, sample = self._places[self._chain[channel[0]]][sequence]
    pieces = [
      self._read_piece(channel, file, sample, piece)
      for file, piece in file_sets.runs(files[part], frames[part])
    ]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

  def _read_piece(self, channel, file, sample, frames: slice) -> np.ndarray:
    try:
      return self._values(channel, file, sample, frames)
    except (errors.UserError, MemoryError):
      raise
    except Exception:
      # The reader knows the file only; reading one by one tells the frame.
      path, name = self.files[file], channel[0]
      for frame in range(frames.start, frames.stop):
        with file_sets.reading(path, f"variable {name!r}, frame {frame}"):
          self._values(channel, file, sample, slice(frame, frame + 1))
      with file_sets.reading(
        path, f"variable {name!r}, frames {frames.start} to {frames.stop - 1}"
      ):
        raise

  def _values(self, channel, file, sample, frames: slice) -> np.ndarray:
    name, others, positions = channel
    dataset = self._dataset(file)
    array = dataset[name]
    where = {self._time_dim: frames, self._sample_dim: sample}
    where = {dim: index for dim, index in where.items() if dim in array.dims}
    if len(positions) == 1:
      where |= dict(zip(others, positions[0], strict=True))
      others = []
    array = array.isel(where)
    versions = structure.VERSIONS in array.dims
    front = [d for d in (structure.VERSIONS, self._time_dim) if d in array.dims]
    array = array.transpose(*front, *self._spatial_dims, *others)
    values = array.values.astype(np.float32)
    if versions:
      labels = np.arange(len(values))
      if structure.VERSIONS in dataset.variables:
        labels = dataset[structure.VERSIONS].values
      first, *later = (values[i] for i in file_sets.versions(labels))
      for value in later:
        first = np.where(np.isnan(first), value, first)
      values = first
    if self._time_dim not in front:
      values = values[None]
    values = values.reshape(*values.shape[: 1 + len(self._spatial_dims)], -1)
    return values[:, :, None] if len(self._spatial_dims) == 1 else values


def open_file(path: str, group: str = "", declared: bool = True) -> xr.Dataset:
  """One file, or one group of it; DataError if xarray cannot read it.

  Args:
    path: the file or the Zarr folder.
    group: data.group.
    declared: whether what it declares as missing counts; see `missing.open_dataset`.
  """
  group = group.strip("/")
  open_ = functools.partial(
    missing.open_dataset, path, _engine(path), declared=declared, decode_times=False
  )
  try:
    dataset = open_(group=group)
    return grid.decoded(_with_outer(dataset, open_, group) if group else dataset)
  except (OSError, ValueError, KeyError, TypeError) as error:
    reason = (str(error).splitlines() or [""])[0]
    raise errors.DataError(
      f"xarray cannot open {path} ({type(error).__name__}: {reason}). Expected a "
      f"netCDF file or a Zarr folder{_instead(path, group)}; change data.path."
    ) from error


def _instead(path: str, group: str) -> str:
  """What else a path that cannot be opened may be, as a clause."""
  if group and (groups := _groups(path)):
    return f" with the group data.group={group!r} (it has {', '.join(groups)})"
  if path.endswith((".npy", ".npz")):
    return "; for arrays of NumPy there is data.store='array'"
  if os.path.isdir(path):
    for ending in (".nc", ".nc4", ".zarr"):
      if any(name.endswith(ending) for name in os.listdir(path)):
        return f"; for those in this folder, {os.path.join(path, '*' + ending)}"
  return ""


def _with_outer(
  dataset: xr.Dataset, open_: Callable[..., xr.Dataset], group: str
) -> xr.Dataset:
  """A group with the coordinates that it has from the groups around it."""
  parts = group.split("/")
  for depth in range(len(parts) - 1, -1, -1):
    outer = open_(group="/".join(parts[:depth]))
    dataset = dataset.assign_coords(
      {
        name: array
        for name, array in outer.variables.items()
        if array.dims
        and name not in dataset.variables
        and all(dataset.sizes.get(d) == n for d, n in array.sizes.items())
      }
    )
  return dataset


def _groups(path: str) -> list[str]:
  """The groups of a netCDF-4 file or a Zarr, as far as they can be listed."""
  found: list[str] = []
  try:
    if _engine(path) == "h5netcdf":
      import h5py

      def note(name, item):
        arrays = item.values() if isinstance(item, h5py.Group) else ()
        if any(isinstance(a, h5py.Dataset) and a.ndim > 1 for a in arrays):
          found.append(name)

      with h5py.File(path) as file:
        file.visititems(note)
    elif os.path.isdir(path):
      import zarr

      for name, item in zarr.open_group(path, mode="r").members(max_depth=None):
        if isinstance(item, zarr.Group) and any(a.ndim > 1 for _, a in item.arrays()):
          found.append(name)
  except Exception:  # It is only for a message.
    return []
  return found


def _no_variables(path: str, group: str) -> str:
  where = f"{path}, group {group!r}," if group else path
  groups = [name for name in _groups(path) if name != group]
  if groups:
    return (
      f"{where} has no variable of numbers, but its groups {', '.join(groups)} have. "
      f"Name one of them: --config.data.group={groups[0]}."
    )
  return f"{where} has no variable of numbers. Change data.path or data.group."


def _holding(options: Mapping[str, Any]) -> list[str]:
  """The files of a data config that have its variables."""
  files = list(file_sets.find(options["path"]))
  if len(files) == 1:
    return files
  names = base.as_names(options["variables"])
  having = []
  for path in files:
    with open_file(path, options.get("group", "")) as dataset:
      if all(_plain_name(name, dataset.data_vars) in dataset for name in names):
        having.append(path)
  return having or files


def _dims(dataset: xr.Dataset, names: Sequence[str]) -> set[str]:
  return {dim for name in names for dim in dataset[name].dims}


def _plain_name(name: str, known: Any) -> str:
  """The variable behind a channel "name@value"."""
  plain = name
  while plain and plain not in known:
    plain = plain.rpartition("@")[0]
  return plain


def _check_line(dataset: xr.Dataset, dim: str, coarsen: int) -> None:
  """Raises DataError unless the entries of a dimension are equally far apart."""
  steps = np.zeros(0)
  if dim in dataset.variables and dataset[dim].dtype.kind == "f":
    steps = np.diff(dataset[dim].values.astype(np.float64))
  if not len(steps) or not np.allclose(steps, steps[0], rtol=1e-3, atol=0):
    raise errors.DataError(
      f"data.coarsen={coarsen} takes means over neighbouring cells of a grid, but the "
      f"entries of {dim!r} are points without neighbours. Set data.coarsen=1."
    )


def _space(dataset: xr.Dataset, dims: Sequence[str], coarsen: int) -> xr.Dataset:
  """`Store.space` of a dataset whose H and W shrink by a factor."""
  space = grid.coordinates(dataset, dims)
  if coarsen == 1:
    return space
  return grid.coarsen_coordinates(space, dims, coarsen)


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
  dataset: xr.Dataset,
  names: tuple[str, ...],
  least_dims: int = 2,
  odd: Mapping[str, str] | None = None,
) -> list[str]:
  """The variables of the file behind the requested channels.

  Args:
    dataset: the file.
    names: data.variables.
    least_dims: how many dimensions a variable has at least.
    odd: variables of other files that cannot be joined, and why.
  """
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
    if reason := (odd or {}).get(_plain_name(name, odd or {})):
      raise errors.DataError(
        f"Variable {name!r} cannot be joined with the others: it is on {reason}. "
        "Change data.variables or data.path."
      )
    plain = _plain_name(name, dataset)
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
