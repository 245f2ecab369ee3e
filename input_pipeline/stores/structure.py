"""Which variables of a file are to be forecast, and what names its sequences."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from input_pipeline import errors
from input_pipeline.stores import file_sets, grid

NONE = "none"  # Turns off that a sample dimension or a label is looked for.
VERSIONS = "expver"  # Of ERA5: final and preliminary data side by side.
MEMBERS = ("member", "members", "number", "realization", "ensemble", "ens", "r")
LEADS = (
  "step",
  "lead",
  "lead_time",
  "prediction_timedelta",
  "forecast_period",
  "leadtime",
)
_FRAMES = (
  *("frame", "frames", "timestep", "time_step", "timesteps", "times", "datetime"),
  *("date_time", "forecast_time", "month", "year", "day", "hour", "week", "n_frames"),
)
_SAMPLES = (
  *("sample", "samples", "event", "events", "sequence", "sequences", "seq", "episode"),
  *("episodes", "storm", "storms", "case", "cases", "trajectory", "trajectories"),
  *("simulation", "simulations", "sim", "scene", "scenes", "series", "run", "runs"),
  *("sample_id", "event_id", "episode_id", "storm_id", "case_id", "n_samples", "batch"),
)
_SAMPLE_LABELS = (
  *("sample_id", "sample", "sequence_id", "sequence", "id", "name", "sample_name"),
  *("case_id", "case", "trajectory_id", "trajectory"),
)
_EVENT_LABELS = (
  *("event", "event_id", "event_name", "storm", "storm_id", "storm_name"),
  *("episode", "episode_id"),
)
_SPLIT_LABELS = ("split", "subset", "partition", "set", "dataset_split", "data_split")
_SPLITS = (
  *("train", "training", "val", "valid", "validation", "test", "testing", "preference"),
)
# Words in a name, and endings of a standard name, of what is no field to forecast.
_FLAG_WORDS = {
  "flag",
  "flags",
  "mask",
  "qc",
  "qa",
  "quality",
  "status",
  "qflag",
  "nobs",
}
_FLAG_NAMES = (
  "status_flag",
  "quality_flag",
  "standard_error",
  "number_of_observations",
)
_BOUND_DIMS = ("nv", "bnds", "bounds", "vertices", "nbnd", "nbnds", "nvertex", "bound")


@dataclasses.dataclass(frozen=True)
class Main:
  """The variables that share the main grid.

  Attributes:
    names: of the variables.
    left_out: what was left out, and why.
    time_dim: the time dimension.
    sample_dim: the dimension of independent sequences, or "".
  """

  names: tuple[str, ...]
  left_out: Mapping[str, str]
  time_dim: str
  sample_dim: str


def numeric(dataset: xr.Dataset, least_dims: int = 1) -> list[str]:
  """The data variables that hold numbers."""
  return [
    str(name)
    for name, array in dataset.data_vars.items()
    if array.ndim >= least_dims and array.dtype.kind in "fiub"
  ]


def time_dim(dataset: xr.Dataset, name: str, given: str = "") -> str:
  """The time dimension of a variable, or "" if it has none.

  Args:
    dataset: one file.
    name: the variable.
    given: data.time_dim; "" finds it by its dates or its name.
  """
  dims = dataset[name].dims
  if given:
    return given if given in dims else ""
  if found := grid.time_dims(dataset, name):
    return str(found[0])
  for array in dataset.variables.values():
    if 1 <= array.ndim <= 2 and file_sets.is_date(array):
      named = [d for d in array.dims if d in dims and str(d).lower() not in _SAMPLES]
      if len(named) == 1:
        return str(named[0])
  return next((str(dim) for dim in dims if str(dim).lower() in _FRAMES), "")


def sample_dim(
  dataset: xr.Dataset, name: str, time: str, spatial: Sequence[str] = ()
) -> str:
  """The dimension of independent sequences that a variable has, or "".

  It is told by its name, by the split or the name of each entry, or by dates of its
  own for each. One dimension at least must be left for the grid.
  """
  dims = [dim for dim in dataset[name].dims if dim != time and dim not in spatial]
  marks = {*_SPLIT_LABELS, "sample_id", "sequence_id", *_EVENT_LABELS}
  for dim in dims:
    rest = [d for d in dataset[name].dims if d not in (time, dim, VERSIONS)]
    if not rest or str(dim).lower() in MEMBERS:
      continue
    labelled = any(
      array.dims == (dim,) and str(key).lower() in marks and key != dim
      for key, array in dataset.variables.items()
    )
    dated = any(
      set(array.dims) == {dim, time} and file_sets.is_date(array)
      for array in dataset.variables.values()
    )
    if str(dim).lower() in _SAMPLES or labelled or dated:
      return str(dim)
  return ""


def labels(dataset: xr.Dataset, dim: str) -> tuple[dict[str, str], list[str]]:
  """The variables that name the entries of the sample dimension.

  Args:
    dataset: one file.
    dim: the sample dimension.

  Returns:
    {"sample", "event", "split": the variable, or ""}, and a sentence for each
    variable that looks like one but cannot be used.
  """
  here = {
    str(name).lower(): str(name)
    for name, array in dataset.variables.items()
    if array.dims == (dim,) and array.dtype.kind in "OSUTiu"
  }
  found, refused = dict.fromkeys(("sample", "event", "split"), ""), []
  for kind, known in (
    ("split", _SPLIT_LABELS),
    ("sample", (*_SAMPLE_LABELS, dim.lower())),
    ("event", _EVENT_LABELS),
  ):
    for name in known:
      if name not in here or found[kind]:
        continue
      texts = grid.labels(dataset, here[name], dim, kind)
      odd = [text for text in texts if text.lower() not in _SPLITS]
      if kind == "split" and odd:
        refused.append(f"{here[name]} names no split ({odd[0]!r})")
      elif kind == "sample" and len(set(texts)) < len(texts):
        pass  # It groups the sequences, and names none.
      elif kind == "event" and len(set(texts)) == 1:
        refused.append(f"{here[name]} is the same for every sequence")
      else:
        found[kind] = here[name]
  return found, refused


def is_field(dataset: xr.Dataset, name: str) -> bool:
  """Whether a variable may be a field to forecast, whatever its dimensions."""
  return not _no_field(dataset, name)


def main(
  dataset: xr.Dataset,
  where: str,
  given_time: str,
  given_sample: str,
  given_spatial: Sequence[str],
  odd: Mapping[str, str],
) -> Main:
  """The variables to forecast where a config names none.

  Those on the grid that most variables share, rows and columns before points, and of
  two such grids the one with more cells.

  Args:
    dataset: the structure of the files.
    where: what it is, for messages.
    given_time: data.time_dim, or "".
    given_sample: data.sample_dim, "" or "none".
    given_spatial: data.spatial_dims, or ().
    odd: variables of further files that cannot be joined, and why.

  Raises:
    DataError: if no variable is on a grid and has a time axis.
  """
  left_out = dict(odd)
  groups: dict[tuple, list[str]] = {}
  for name in map(str, dataset.data_vars):
    if reason := _no_field(dataset, name):
      left_out[name] = reason
      continue
    time = time_dim(dataset, name, given_time)
    if not time:
      left_out[name] = "it has no time axis"
      continue
    sample = given_sample
    if not sample:
      sample = sample_dim(dataset, name, time, given_spatial)
    if sample == NONE:
      sample = ""
    if sample and sample not in dataset[name].dims:
      left_out[name] = f"it has no dimension {sample!r}"
      continue
    fixed = {time, sample, VERSIONS}
    rest = [d for d in dataset[name].dims if d not in fixed]
    if not rest:
      left_out[name] = "it is one series without a grid"
      continue
    if set(map(str.lower, map(str, rest))) & set(_BOUND_DIMS):
      left_out[name] = "it holds bounds"
      continue
    try:
      dims = grid.spatial_dims(dataset, [name], fixed, given_spatial)
    except errors.DataError:
      left_out[name] = "its rows and columns cannot be told (data.spatial_dims)"
      continue
    groups.setdefault((time, sample, tuple(dims)), []).append(name)
  if not groups:
    found = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "none"
    raise errors.DataError(
      f"{where} has no variable of numbers on a grid with a time axis ({found}). Name "
      "the time dimension in data.time_dim, the date's place in the files' names in "
      "data.file_time, or change data.path."
    )

  def size(key):
    _, _, dims = key
    points = np.prod([dataset.sizes[dim] for dim in dims], dtype=np.int64)
    return len(dims), len(groups[key]), int(points)

  best = max(groups, key=size)
  time, sample, dims = best
  for other, names in groups.items():
    for name in names if other != best else ():
      sizes = {d: dataset.sizes[d] for d in (*other[2], other[1]) if d}
      left_out[name] = "another grid: " + ", ".join(
        f"{d}={n}" for d, n in sizes.items()
      )
      if other[0] != time:
        left_out[name] = f"another time axis: {other[0]}"
  names = [name for name in map(str, dataset.data_vars) if name in groups[best]]
  return Main(tuple(names), left_out, time, sample)


def _no_field(dataset: xr.Dataset, name: str) -> str:
  """Why a variable is no field to forecast; "" if it may be one."""
  array = dataset[name]
  attrs = array.attrs
  referred = {
    key: {
      word
      for other in dataset.variables.values()
      for source in (other.attrs, other.encoding)
      for word in str(source.get(key, "")).replace(":", " ").split()
    }
    for key in ("bounds", "climatology", "grid_mapping", "cell_measures")
    + ("ancillary_variables",)
  }
  words = set(re.split(r"[^a-z0-9]+", name.lower()))
  standard = str(attrs.get("standard_name", ""))
  units = str(attrs.get("units", "")).lower()
  span = str(attrs.get("dtype", "")).startswith("timedelta64")
  if span or array.dtype.kind in "Mm" or file_sets.is_date(array):
    return "it holds dates or times"
  if array.dtype.kind == "b":
    return "it is true or false"
  if array.dtype.kind not in "fiu":
    return "it is text"
  if name in referred["bounds"] | referred["climatology"] or words & {"bnds", "bounds"}:
    return "it holds bounds"
  if name in referred["grid_mapping"] or "grid_mapping_name" in attrs:
    return "it describes the map projection"
  if name in referred["cell_measures"]:
    return "it measures the cells"
  if (
    any(key in attrs for key in ("flag_values", "flag_meanings", "flag_masks"))
    or words & _FLAG_WORDS
    or standard.endswith(_FLAG_NAMES)
  ):
    return "it is a flag or a mask"
  if name in referred["ancillary_variables"]:
    return "it only says how good another variable is"
  if standard in ("latitude", "longitude") or units.startswith(
    ("degrees_north", "degree_north", "degrees_east", "degree_east")
  ):
    return "it holds positions"
  return ""
