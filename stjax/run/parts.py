"""Frozen parts: whole methods that another run trained.

A part is read with every option that it was trained with: its own work directory
says network, method and options. What is read is copied once into the work
directory that uses it, in the layout of a small work directory of its own:

    frozen/NAME/config.json       the part's config
    frozen/NAME/statistics.json   normalisation of the data it was trained on
    frozen/NAME/variables/        its variables, as orbax saves them
    frozen/NAME/constants/        what its method made from its data, if anything
    frozen/NAME/frozen/...        its own parts, in the same way

From then on only the copy is read.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
import xarray as xr

import input_pipeline
from stjax import config as config_lib
from stjax import errors, methods
from stjax.convert import files as torch_files
from stjax.methods import base

FOLDER, CONSTANTS = "frozen", "constants"
# The normalisations that a work directory keeps, as `input_pipeline.Split` names
# them, with the config key of the variables that they are of.
STATISTICS = {
  "statistics": "data.variables",
  "forcing_statistics": "data.forcings.variables",
  "static_statistics": "data.static.variables",
}
# What must agree between the data of a part and of the run that uses it.
_SAME_DATA = ("calendar", "slots_per_day", "history", "resample")


@dataclasses.dataclass(frozen=True)
class Part:
  """A frozen part and where it is read from.

  Attributes:
    key: the config key that names it, such as "frozen.mean".
    config: its own config: model, method, data, forecast, frozen, checkpoint.
    method: its method, asked for the horizon of the run that uses it.
    source: the work directory or file of torch weights that it is from; None for a
      method without parameters, and where only the copy was looked at.
    copy: where it is, or will be, copied to.
    parts: its own parts, by name.
    network_options: of its network, those that follow from the data included.
    constants: where what its method made from its data was kept; None where it is
      made here.
  """

  key: str
  config: ml_collections.ConfigDict
  method: base.Method
  source: pathlib.Path | None
  copy: pathlib.Path
  parts: dict[str, "Part"]
  network_options: dict[str, Any]
  constants: pathlib.Path | None = None

  @property
  def copied(self) -> bool:
    """Whether the copy is there; then only it is read."""
    return (self.copy / "config.json").is_file()

  @property
  def folder(self) -> pathlib.Path | None:
    """The copy or the work directory; None without either."""
    if self.copied:
      return self.copy
    return self.source if self.source and self.source.is_dir() else None

  @property
  def horizon(self) -> int:
    """Frames of one forecast as the part was trained."""
    return self.config.data.horizon


def read(
  key: str,
  section: Mapping[str, Any],
  config: ml_collections.ConfigDict,
  copy: pathlib.Path,
  make_method: Callable[..., tuple[base.Method, dict[str, Any]]],
) -> Part:
  """Reads what a part is, without its arrays.

  Args:
    key: the config key that names it, such as "frozen.mean".
    section: what the config says there: init_from; for torch weights model and
      perhaps method; or only the method, where it has no parameters.
    config: of the run that uses it.
    copy: where the part is, or will be, copied to.
    make_method: (prefix of config keys, config, parts by name) -> the part's method
      and the options of its network.

  Raises:
    ConfigError: there is no such source, or the config says of it what its own
      work directory says.
  """
  source = section.get("init_from") or ""
  own = {name: section[name] for name in ("model", "method") if section.get(name)}
  path = None
  if (copy.parent / "_METADATA").is_file():
    raise errors.ConfigError(
      f"{copy.parent} was written by an earlier version of stjax, which kept less of a"
      f" frozen part. Delete it to have it made again from {key}.init_from."
    )
  folder = copy
  if not (copy / "config.json").is_file():
    path = find(f"{key}.init_from", source) if source else None
    folder = path if path and path.is_dir() else None
  if folder and folder is path and own:
    raise errors.ConfigError(
      f"{key}.{next(iter(own))} is given beside {key}.init_from={source!r}, whose own"
      f" config.json says it: {_names(folder)}. Remove {key}.{next(iter(own))}."
    )
  place = folder / FOLDER if folder else copy / FOLDER
  constants = folder / CONSTANTS if folder else None
  if folder:
    theirs = _config_of(folder, key)
    if theirs.method.name in methods.WRAPPERS:
      # It is what it wraps, which may read what its reference read.
      wrapper = methods.WRAPPERS[theirs.method.name]
      reference = place / wrapper.part
      theirs = _unwrapped(theirs, wrapper, reference, key)
      if wrapper.like_part:
        place, constants = reference / FOLDER, reference / CONSTANTS
  else:
    if path and "model" not in own:
      raise errors.ConfigError(
        f"{key}.init_from={source!r} is a file of torch weights, which does not say"
        f" of which network: set {key}.model, as in the config of that network."
      )
    theirs = _config_of_ours(config, own)
  inner = {}
  for name, part in theirs.frozen.items():
    where = f"{key}.{FOLDER}.{name}"
    inner[name] = read(where, part, theirs, place / name, make_method)
  try:
    read_by = {name: part.method for name, part in inner.items()}
    method, options = make_method(f"{key}.", theirs, read_by)
    # What reconstructs does so frame by frame, and for any number of them.
    forecasts = method.kind == "forecast"
    if forecasts and theirs.data.horizon < config.data.horizon:
      raise errors.ConfigError(
        f"it was trained to forecast data.horizon={theirs.data.horizon} frames, but"
        f" {config.data.horizon} are needed here."
      )
    if method.horizon != config.data.horizon:
      method = method.for_horizon(config.data.horizon)
  except errors.UserError as error:
    raise errors.ConfigError(
      f"{key} ({folder or path or 'this config'}) cannot be used: {error}"
    ) from error
  if method.trainable and not (folder or path):
    raise errors.ConfigError(
      f"{key}.method.name={theirs.method.name!r} has parameters: give the work"
      f" directory of a run that trained it in {key}.init_from."
    )
  return Part(key, theirs, method, path, copy, inner, options, constants)


def _unwrapped(
  theirs, wrapper: methods.Wrapper, reference: pathlib.Path, key
) -> ml_collections.ConfigDict:
  """The config of a run as that of the method which it trained by another one."""
  made = ml_collections.ConfigDict(config_lib.plain(theirs))
  wrapped = theirs.method.get(wrapper.option)
  if not wrapper.like_part:
    made.method = ml_collections.ConfigDict(
      config_lib.plain(wrapped or {"name": "regression"})
    )
    made.frozen = ml_collections.ConfigDict()
    return made
  source = _config_of(reference, key)
  wrapped = wrapped or source.method
  made.method = ml_collections.ConfigDict(config_lib.plain(wrapped))
  made.frozen = ml_collections.ConfigDict(config_lib.plain(source.frozen))
  return made


def find(key: str, source: str) -> pathlib.Path:
  """The path of a work directory or a file of torch weights.

  Args:
    key: the config key that names it, for the message.
    source: the path.

  Raises:
    ConfigError: there is neither.
  """
  path = pathlib.Path(source)
  weights = path.suffix in torch_files.SUFFIXES and path.is_file()
  if not weights and not (path / "checkpoints").is_dir():
    raise errors.ConfigError(
      f"{key}={source!r} ({path.absolute()}) is neither a work directory with"
      f" checkpoints nor a file of torch weights ({', '.join(torch_files.SUFFIXES)})."
    )
  return path


def _config_of(folder: pathlib.Path, key: str) -> ml_collections.ConfigDict:
  """The config that a part was trained with."""
  path = folder / "config.json"
  try:
    return ml_collections.ConfigDict(
      config_lib.migrate(json.loads(path.read_text())), convert_dict=True
    )
  except (OSError, ValueError) as error:
    raise errors.ConfigError(
      f"{key}: {path} cannot be read ({error}), so that nobody knows which network and"
      " method were trained there."
    ) from error


def _config_of_ours(config, own) -> ml_collections.ConfigDict:
  """A config for a part that has no work directory: it shares our data."""
  made = ml_collections.ConfigDict(config_lib.plain(config))
  made.frozen = ml_collections.ConfigDict()
  made.model = ml_collections.ConfigDict(
    config_lib.plain(own.get("model", {"name": "none"}))
  )
  made.method = ml_collections.ConfigDict(
    config_lib.plain(own.get("method", {"name": "regression"}))
  )
  return made


def _names(folder: pathlib.Path) -> str:
  config = _config_of(folder, str(folder))
  return f"network {config.model.name!r}, method {config.method.name!r}"


def check_data(
  part: Part, config: ml_collections.ConfigDict, data: input_pipeline.Split
) -> None:
  """Refuses a part that was trained on data of another kind, key by key.

  Args:
    part: the part.
    config: of the run that uses it.
    data: a split of that run's data.

  Raises:
    ConfigError: names the key in which the two differ, with both values.
  """
  if part.folder:
    theirs, ours = (
      config_lib.plain(input_pipeline.options.common() | config_lib.plain(c.data))
      for c in (part.config, config)
    )
    for key in _SAME_DATA:
      if theirs[key] != ours[key]:
        raise _differs(part, f"data.{key}", theirs[key], ours[key])
    for name, key in STATISTICS.items():
      _check_statistics(part, name, key, getattr(data, name))
    _check_grid(part, data)
  for inner in part.parts.values():
    check_data(inner, config, data)


def _check_grid(part, data) -> None:
  path = part.folder / "coordinates.nc"
  if not path.exists():
    return
  with xr.open_dataset(path, engine="h5netcdf") as theirs:
    sizes = [
      " x ".join(
        str(fields.sizes[name])
        for name in np.atleast_1d(fields.attrs["spatial_dims"])
        if name in fields.sizes
      )
      for fields in (theirs, data.coordinates)
    ]
  if sizes[0] != sizes[1]:
    raise _differs(part, "grid", *sizes)


def _check_statistics(part, name, key, ours) -> None:
  path = part.folder / f"{name}.json"
  theirs = None
  if path.exists():
    theirs = input_pipeline.Statistics.from_json(path.read_text())
  variables = [s.variables if s else () for s in (theirs, ours)]
  if variables[0] != variables[1]:
    raise _differs(part, key, *map(list, variables))
  if ours is None:
    return
  if theirs.transform != ours.transform:
    raise _differs(part, "data.transform", theirs.transform, ours.transform)
  for field in ("offset", "scale"):
    values = getattr(theirs, field), getattr(ours, field)
    if not np.allclose(*values, rtol=1e-4, atol=0):
      raise _differs(
        part,
        f"the {field} of the normalisation (data.normalise, data.statistics,"
        " data.split)",
        *(np.asarray(v).tolist() for v in values),
      )


def _differs(part, key, theirs, ours) -> errors.ConfigError:
  return errors.ConfigError(
    f"{part.key} ({part.folder}) was trained with {key}={theirs}, but here it is"
    f" {ours}. Use the same in both runs."
  )
