"""Reading a config: complete, consistent, or refused in words.

A config is an `ml_collections.ConfigDict` made by a file in `configs/`. Every
check that needs no data is made here, before anything is compiled.
"""

import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import logging

from configs import base
from input_pipeline import files, options
from stjax import errors

# The sections that decide what is trained. A work directory holds one run of
# one such choice; everything else may change from one call to the next.
_IDENTITY = (
  "seed",
  "precision",
  "global_batch_size",
  "accumulation_steps",
  "ema_decay",
  "num_epochs",
  "num_steps",
  "max_points",
  "method",
  "model",
  "data",
  "optimizer",
  "init_from",
  "frozen",
)
# What a run makes before its first step, besides prepared copies of the data, which
# are named after what they hold.
_MADE_FIRST = (
  "statistics.json",
  "forcing_statistics.json",
  "static_statistics.json",
  "coordinates.nc",
  "constants",
  "frozen",
  "guards.json",
)
# How the same examples are read does not change which run it is.
_READING = ("loader", "cache", "memory_limit_gib")
_PLACES = ("path", "data_dir", "pairs")  # May move: only the last part counts.
# Keys that older work directories do not have, with what holds for those.
_BEFORE = {
  "max_points": 0.0,
  "data.calendar": [],
  "data.offset": [],
  "data.scale": [],
  **{
    f"data.resample.{key}": list(value) if isinstance(value, tuple) else value
    for key, value in options.COMMON["resample"].items()
  },
  "data.forcings.variables": [],
  "data.forcings.path": "",
  "data.group": "",
  "data.file_time": "",
  "data.first_time": "",
  "data.layout": "",
  "data.step": "",
  "data.forcings.missing_value": [],
  "data.missing_value": [],
  "data.pairs": "",
  "data.slots_per_day": 0,
  "data.split.preference": 0.0,
  "data.static.variables": [],
  "data.static.path": "",
  "data.static.missing_value": [],
  "data.statistics.frames": "all",
  "data.statistics.ddof": 0,
  "method.pad_to_multiple": 1,
}

PRECISIONS = ("float32", "bfloat16")
SPLITS = ("train", "preference", "validation", "test")
CHECKPOINTS = ("best", "latest")
LAYOUTS = ("stjax", "weatherbench2")  # The layouts of forecast stores.
FORMATS = ("zarr", "netcdf")  # Their formats.
AUTO = ("auto",)  # The value of forecast.clip_range that asks the data.
# The keys of these sections depend on the name of a network, method or store.
_OPEN = ("frozen", "method", "model", "data", "guards")
# Keys and values that have another name than in earlier versions.
RENAMED = {
  "method.hold_missing": "method.zero_missing",
  "method.read_mask": "method.mask_as_input",
  "method.increments": "method.predict_tendency",
  "method.anomalies": "method.predict_anomaly",
  "method.pad_to": "method.pad_to_multiple",
  "forecast.beyond": "forecast.past_data_end",
  "forecast.valid_range": "forecast.clip_range",
  "forecast.blow_up": "forecast.abort_above_std",
  "evaluation.stride": "evaluation.window_stride",
}
# What method.mean of the method residual_diffusion chose.
_MEANS = {
  "network": "leave it out",
  "only": "set method.mean_only=True",
  "none": "set method.name='diffusion', which has no mean, and remove frozen.mean",
}
_RENAMED_BASELINES = {"lead_mean": "training_mean"}
# Options of networks that follow from other keys. They count as equal where a
# config leaves them out, as those of earlier versions did not.
_FROM_DATA = (
  "horizon",
  "out_channels",
  "calendar_names",
  "calendar_sizes",
  "calendar_dims",
  "num_steps",
)


def instead_of_mean(mean: str) -> str:
  """What to write instead of method.mean, as a clause."""
  return _MEANS.get(mean, "; or ".join(f"for {k!r}, {v}" for k, v in _MEANS.items()))


def without(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
  """Returns `options` as a plain dict of plain values, `names` left out."""
  return {k: v for k, v in plain(options).items() if k not in names}


def plain(config: Any) -> Any:
  """Turns a ConfigDict (nested, with tuples) into plain JSON-able values."""
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  if isinstance(config, Mapping):
    return {str(k): plain(v) for k, v in config.items()}
  if isinstance(config, tuple | list):
    return [plain(v) for v in config]
  return config


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks a config on its own, without data or devices.

  Args:
    config: the resolved config.

  Raises:
    ConfigError: names the key, what came, and what is expected.
  """
  _check_renamed(config)
  _check_keys("", config, base.get_config())
  if config.precision not in PRECISIONS:
    raise errors.ConfigError(
      f"precision={config.precision!r} is not known:"
      f" {errors.near(config.precision, PRECISIONS)}."
    )
  for key in ("global_batch_size", "accumulation_steps"):
    _positive(key, config[key])
  if config.global_batch_size % config.accumulation_steps:
    raise errors.ConfigError(
      f"global_batch_size={config.global_batch_size} does not divide into"
      f" accumulation_steps={config.accumulation_steps} equal parts."
    )
  if not 0.0 <= config.ema_decay < 1.0:
    raise errors.ConfigError(
      f"ema_decay={config.ema_decay} must be in [0, 1); 0 turns it off."
    )
  if config.num_steps <= 0 and config.num_epochs <= 0:
    raise errors.ConfigError(
      "Set num_epochs or num_steps to a positive number (num_steps, when"
      f" positive, wins); got num_epochs={config.num_epochs},"
      f" num_steps={config.num_steps}."
    )
  if not config.max_points >= 0:
    raise errors.ConfigError(
      f"max_points={config.max_points} must not be negative; 0 sets no bound."
    )
  for section in ("method", "model"):
    if "name" not in config[section]:
      raise errors.ConfigError(f"The config has no key {section}.name.")
  for name, part in config.frozen.items():
    _check_frozen(f"frozen.{name}", part)
  for key in ("history", "horizon"):
    if key not in config.data:
      raise errors.ConfigError(f"The config has no key data.{key}.")
    _positive(f"data.{key}", config.data[key])
  for section in ("evaluation", "forecast"):
    for key in ("history", "horizon"):
      value, trained = config[section][key], config.data[key]
      needed = trained if (section, key) != ("forecast", "horizon") else 1
      if value and value < needed:
        raise errors.ConfigError(
          f"{section}.{key}={value} must be 0 (as trained) or at least"
          f" {needed} (data.{key}={trained})."
        )
  _positive("evaluation.batch_size", config.evaluation.batch_size)
  _positive("forecast.batch_size", config.forecast.batch_size)
  _positive("forecast.members", config.forecast.members)
  for key in ("window_stride", "validation_stride", "validation_members"):
    _positive(f"evaluation.{key}", config.evaluation[key])
  ends = tuple(config.forecast.clip_range)
  closed = [end for end in ends if end is not None]
  if ends not in ((), AUTO) and not (
    len(ends) == 2
    and closed
    and all(isinstance(end, int | float) and math.isfinite(end) for end in closed)
    and closed == sorted(set(closed))
  ):
    raise errors.ConfigError(
      f"forecast.clip_range={ends} must be auto, empty as () or (lowest, highest),"
      " in physical units; None leaves one end open."
    )
  for section in ("evaluation", "forecast"):
    errors.pick(f"{section}.split", config[section].split, dict.fromkeys(SPLITS))
    errors.pick(
      f"{section}.checkpoint", config[section].checkpoint, dict.fromkeys(CHECKPOINTS)
    )
  errors.pick("forecast.layout", config.forecast.layout, dict.fromkeys(LAYOUTS))
  errors.pick("forecast.format", config.forecast.format, dict.fromkeys(FORMATS))
  _positive("checkpoint.keep_latest", config.checkpoint.keep_latest)
  for key in (
    "checkpoint.keep_best",
    "checkpoint.every_steps",
    "checkpoint.every_epochs",
    "evaluation.every_steps",
    "evaluation.every_epochs",
    "evaluation.figures",
    "evaluation.data_range",
    "evaluation.max_points",
    "log.every_steps",
    "log.histograms_every_steps",
    "forecast.member_chunk",
    "forecast.lead_chunk",
    "forecast.abort_above_std",
    "optimizer.clip_norm",
    "optimizer.weight_decay",
  ):
    section, name = key.split(".")
    if not config[section][name] >= 0:
      raise errors.ConfigError(f"{key}={config[section][name]} must not be negative.")
  _check_finite(plain(config))
  if config.checkpoint.best_mode not in ("min", "max"):
    raise errors.ConfigError(
      f"checkpoint.best_mode={config.checkpoint.best_mode!r} must be 'min' or 'max'."
    )


def clip_range(
  config: ml_collections.ConfigDict, lowest: float = 0.0
) -> tuple[float | None, ...]:
  """Returns the ends to which forecasts are clipped; () clips nothing.

  Args:
    config: of a run, or of a part of one.
    lowest: the lowest value of the training data, in transformed units.
  """
  ends = tuple(config.forecast.clip_range)
  if ends != AUTO:
    return ends
  log1p = config.data.get("transform") == "log1p"
  return (0.0, None) if log1p and lowest >= 0 else ()


def _check_renamed(config: ml_collections.ConfigDict) -> None:
  for old, new in RENAMED.items():
    section, key = old.split(".")
    if key in config.get(section, {}):
      raise errors.ConfigError(f"{old} is now called {new}.")
  if (mean := config.get("method", {}).get("mean")) in _MEANS:
    raise errors.ConfigError(f"method.mean={mean!r} is gone: {instead_of_mean(mean)}.")
  for old, new in _RENAMED_BASELINES.items():
    if old in config.get("evaluation", {}).get("baselines", ()):
      raise errors.ConfigError(
        f"The baseline {old!r} of evaluation.baselines is now called {new!r}."
      )


def migrate(config: Mapping[str, Any]) -> dict[str, Any]:
  """Gives the keys of an earlier version's config.json their present names."""
  config = plain(config)
  data = config.get("data") or {}
  if "missing_value" in data and not isinstance(data["missing_value"], list):
    code = data["missing_value"]
    data["missing_value"] = [] if code is None else [code]
  for old, new in RENAMED.items():
    section, key = old.split(".")
    if key in config.get(section, {}):
      config[section][new.split(".")[1]] = config[section].pop(key)
  method = config.get("method", {})
  mean = method.pop("mean", None)
  if mean == "none":
    config["method"] = {"name": "diffusion"} | {
      key: value
      for key, value in method.items()
      if key not in ("name", "mean_dropout", "scale", "scale_threshold")
    }
  elif mean:
    method["mean_only"] = mean == "only"
  evaluation = config.get("evaluation", {})
  if "baselines" in evaluation:
    evaluation["baselines"] = [
      _RENAMED_BASELINES.get(name, name) for name in evaluation["baselines"]
    ]
  return config


def _check_keys(
  where: str, section: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
  """Refuses keys that configs/base.py does not have, and missing ones."""
  errors.check_options(where or "config", section, known)
  prefix = f"{where}." if where else ""
  for key, default in known.items():
    if key not in section:
      raise errors.ConfigError(
        f"The config has no key {prefix + key!r}. Start from configs/base.py, which"
        " has every key with a default."
      )
    if isinstance(default, ml_collections.ConfigDict) and key not in _OPEN:
      _check_keys(prefix + key, section[key], default)


def _check_frozen(where: str, part: Any) -> None:
  """Checks what a config says of a part that is never trained."""
  if not isinstance(part, Mapping | ml_collections.ConfigDict):
    raise errors.ConfigError(f"{where}={part!r} must have the key init_from.")
  errors.check_options(where, part, ("init_from", "model", "method"))
  if not part.get("init_from") and not part.get("method"):
    raise errors.ConfigError(
      f"{where}.init_from is empty: give the work directory of a finished run or a"
      f" file of torch weights; or name a method without parameters in"
      f" {where}.method.name."
    )
  for key in ("model", "method"):
    if part.get(key) and "name" not in part[key]:
      raise errors.ConfigError(f"The config has no key {where}.{key}.name.")


def _check_finite(config: Mapping[str, Any]) -> None:
  """config.json has no word for what is not finite."""

  def finite(value):
    if isinstance(value, list):
      return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)

  for key, value in _flatten(config).items():
    if not finite(value):
      raise errors.ConfigError(f"{key}={value} must be finite.")


def _positive(key: str, value: int) -> None:
  if not value >= 1:
    raise errors.ConfigError(f"{key}={value} must be at least 1.")


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
  if isinstance(tree, Mapping):
    leaves = {}
    for key, value in tree.items():
      leaves |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves
  return {prefix: tree}


def _last_parts(place: str | list[str]) -> str | list[str]:
  """Names of a file, or of several files, without their folders."""
  several = place.split(",") if isinstance(place, str) else place
  names = [pathlib.PurePath(name.strip()).name for name in several]
  return names[0] if len(names) == 1 else names


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
  config = migrate(config)
  chosen = {key: config.get(key, _BEFORE.get(key)) for key in _IDENTITY}
  chosen["data"] = {
    k: _last_parts(v) if k in _PLACES else v
    for k, v in (chosen["data"] or {}).items()
    if k not in _READING
  }
  for name in {"forcings", "static"} & chosen["data"].keys():
    section = chosen["data"][name]
    place = _last_parts(section.get("path", ""))
    chosen["data"][name] = section | {"path": place}
  # What a part holds is kept in the work directory: its source says so itself.
  chosen["frozen"] = {
    name: pathlib.PurePath(part.get("init_from") or "").name
    for name, part in (chosen["frozen"] or {}).items()
  }
  return _BEFORE | _flatten(chosen)


def _has_checkpoint(workdir: pathlib.Path) -> bool:
  return any(path.name.isdigit() for path in workdir.glob("checkpoints/*"))


def _begin_anew(workdir: pathlib.Path) -> None:
  """Removes what was made for a config with which nothing was trained."""
  for name in _MADE_FIRST:
    path = workdir / name
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink(missing_ok=True)
  logs = workdir / "logs"
  if logs.exists():  # They speak of the other config, but are nobody's to delete.
    number = 1
    while (old := workdir / f"logs.{number}").exists():
      number += 1
    logs.rename(old)


def claim_workdir(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> None:
  """Writes config.json into a work directory, or checks the one in it.

  A directory without a checkpoint, in which nothing was trained, takes any config:
  what was made for another one is removed, and its logs are renamed.

  Args:
    config: the resolved config of this call.
    workdir: the work directory; made if it does not exist.

  Raises:
    ConfigError: if the directory holds a trained run of another config; lists
      every differing key with both values.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / "config.json"
  if path.exists():
    try:
      found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
      raise errors.ConfigError(
        f"{path} is not valid JSON ({error}). Restore it or use another --workdir."
      ) from error
    theirs, ours = _identity(found), _identity(config)
    for key in (f"model.{option}" for option in _FROM_DATA):
      if theirs.get(key) is None or ours.get(key) is None:
        theirs.pop(key, None)
        ours.pop(key, None)
    differing = [
      f"  {key}: {theirs.get(key)!r} in the work directory, {ours.get(key)!r} now"
      for key in sorted(theirs.keys() | ours.keys())
      if theirs.get(key) != ours.get(key)
    ]
    if differing and _has_checkpoint(workdir):
      raise errors.ConfigError(
        f"The work directory {workdir} belongs to another config:\n"
        + "\n".join(differing)
        + "\nChoose a new --workdir, or give these keys their old values."
      )
    if differing:
      logging.warning(
        "Nothing was trained in %s, which takes the config of this call:\n%s",
        workdir,
        "\n".join(differing),
      )
      _begin_anew(workdir)
  files.write_json(path, plain(config))
