"""Builds a run, and refuses at once what would fail later."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

import input_pipeline
from input_pipeline import files
from input_pipeline import pairs as pairs_lib
from stjax import config as config_lib
from stjax import errors, methods, models
from stjax import sharding as sharding_lib
from stjax.methods import base
from stjax.run import parts as parts_lib
from stjax.run import run as run_lib

# (config) -> the number of variables or None, and the sizes of the calendar's
# columns by name, 0 where they are not known before the data are open.
_Facts = Callable[[ml_collections.ConfigDict], tuple[int | None, Mapping[str, int]]]


def _before_data(config):
  columns = input_pipeline.calendar.columns(config.data.calendar)
  return None, dict.fromkeys(columns, 0)


def _method(
  where: str,
  config: ml_collections.ConfigDict,
  frozen: Mapping[str, base.Method],
  facts: _Facts,
) -> tuple[base.Method, dict[str, Any]]:
  """A method and the options of its network.

  Args:
    where: prefix of its config keys, "" or "frozen.mean.".
    config: its config.
    frozen: the methods that it reads, by name.
    facts: what the data say.
  """
  network, options = None, {}
  if config.model.name != "none":
    channels, calendar = facts(config)
    options = models.complete(
      f"{where}model",
      config.model.name,
      config_lib.without(config.model, "name"),
      horizon=config.data.horizon,
      channels=channels,
      calendar=calendar,
      num_steps=_noise_steps(config.method, frozen),
    )
    dtype = jnp.dtype(config.precision)
    network = models.build(config.model.name, dtype=dtype, **options)
  method = methods.build(
    config.method.name,
    network,
    frozen=frozen,
    sampling=config_lib.plain(config.forecast.sampler)
    | {"member_chunk": config.forecast.member_chunk},
    units={
      "transform": config.data.get("transform", "identity"),
      "clip_range": config_lib.clip_range(config),
    },
    horizon=config.data.horizon,
    **config_lib.without(config.method, "name"),
  )
  return method, options


def _noise_steps(options, frozen: Mapping[str, base.Method]) -> int | None:
  """Steps of the noise schedule of a method, or of the one that it trains."""
  if options.name in methods.WRAPPERS:
    option, part, like_part = methods.WRAPPERS[options.name]
    reference = frozen.get(part) if like_part else None
    options = options.get(option) or {
      "num_steps": getattr(reference, "num_steps", None)
    }
  return options.get("num_steps")


def _read_parts(config, workdir, facts: _Facts) -> dict[str, parts_lib.Part]:
  return {
    name: parts_lib.read(
      f"frozen.{name}",
      section,
      config,
      workdir / parts_lib.FOLDER / name,
      functools.partial(_method, facts=facts),
    )
    for name, section in config.frozen.items()
  }


def _load_statistics(path: pathlib.Path) -> input_pipeline.Statistics | None:
  if not path.exists():
    return None
  try:
    return input_pipeline.Statistics.from_json(path.read_text())
  except (ValueError, KeyError, TypeError) as error:
    raise errors.ConfigError(
      f"{path} cannot be read ({error}). Delete it to have it computed"
      " again from the training split."
    ) from error


def _pairs_are_there(config, workdir: pathlib.Path) -> bool:
  """Tells whether the run can train, or has lost the pairs that it trained on."""
  folder = config.data.get("pairs")
  if not folder or (pathlib.Path(folder) / pairs_lib.MANIFEST).is_file():
    return True
  if not (workdir / "checkpoints").is_dir():
    return True  # They are looked for, and missed in words.
  logging.warning(
    "data.pairs=%r is not there any more. %s is evaluated and makes forecasts all the"
    " same, but it cannot be trained on.",
    folder,
    workdir,
  )
  return False


def _num_steps(config, train) -> int:
  """The number of optimiser steps, one at least."""
  batch = config.global_batch_size
  steps = config.num_steps
  if steps <= 0:
    steps = math.ceil(config.num_epochs * train.num_examples / batch)
  if config.max_points:
    frames = config.data.history + config.data.horizon
    points = batch * frames * train.spec.sizes["height"] * train.spec.sizes["width"]
    steps = max(min(steps, math.floor(config.max_points / points)), 1)
  return steps


def _settle_clip_range(config, statistics: input_pipeline.Statistics) -> None:
  """Puts what "auto" means for the data into forecast.clip_range, and says it."""
  if tuple(config.forecast.clip_range) != config_lib.AUTO:
    return
  ends = config_lib.clip_range(config, statistics.minimum.min())
  if ends:
    logging.info(
      "Forecasts are clipped at 0, because the data are never below it and"
      " data.transform='log1p'; --config.forecast.clip_range='()' turns this off."
    )
  elif statistics.transform == "log1p":
    number = int(statistics.minimum.argmin())
    logging.info(
      "Forecasts are not clipped at 0, because the training data of %r go down to"
      " %.3g; --config.forecast.clip_range=0,None clips them.",
      statistics.variables[number],
      np.expm1(statistics.minimum[number]),
    )
  config.forecast.clip_range = ends


def build(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  devices: list[jax.Device] | None = None,
) -> run_lib.Run:
  """Builds a run, and leaves its config and labels in the work directory.

  Args:
    config: the config; every key that `configs/base.py` has.
    workdir: the work directory; made if missing.
    devices: the devices to use; all by default.

  Raises:
    ConfigError: the config cannot be run here.
    DataError: the data do not fit the config.
  """
  config_lib.validate(config)
  if "://" in str(workdir):
    raise errors.ConfigError(
      f"--workdir={workdir} is not a path; mount the bucket and give the"
      " folder it is mounted on."
    )
  workdir = pathlib.Path(workdir).absolute()
  mesh = sharding_lib.make_mesh(config.mesh, devices)
  # Made now only to refuse, before any data are read or made, what cannot be.
  parts = _read_parts(config, workdir, _before_data)
  _method("", config, {n: p.method for n, p in parts.items()}, _before_data)
  if jax.process_index() == 0:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      config_lib.claim_workdir(config, workdir)
    except OSError as error:
      raise errors.ConfigError(
        f"--workdir={workdir} cannot be written: {error}"
      ) from error
  if jax.process_count() > 1:  # Nobody reads what process 0 removes.
    multihost_utils.sync_global_devices("work directory")
  kept = {name: workdir / f"{name}.json" for name in parts_lib.STATISTICS}
  pairs = _pairs_are_there(config, workdir)
  train = run_lib.open_data(
    config,
    workdir,
    mesh,
    "train",
    config.global_batch_size,
    pairs=pairs,
    **{name: _load_statistics(path) for name, path in kept.items()},
  )
  _settle_clip_range(config, train.statistics)
  channels, calendar = len(train.statistics.variables), train.spec.calendar
  for part in parts.values():
    parts_lib.check_data(part, config, train)

  def known(config):
    del config  # The parts' data are of the same kind.
    return channels, calendar

  parts = _read_parts(config, workdir, known)
  method, network_options = _method(
    "", config, {n: p.method for n, p in parts.items()}, known
  )
  if method.kind != "forecast" and config.ema_decay:
    raise errors.ConfigError(
      f"ema_decay={config.ema_decay} averages the parameters of the encoder, but not"
      f" the codes of method {config.method.name!r} that belong to them: set it to 0."
    )
  height = train.spec.sizes["height"]
  check = functools.partial(sharding_lib.check_batch, mesh)
  check(
    "global_batch_size", config.global_batch_size, config.accumulation_steps, height
  )
  members = config.forecast.members
  check("forecast.batch_size", config.forecast.batch_size, 1, height, members)
  if method.trainable:  # Then it is also scored while training.
    members = min(members, config.evaluation.validation_members)
  size = config.evaluation.batch_size
  check("evaluation.batch_size", size, 1, height, members)
  num_steps = _num_steps(config, train) if method.trainable else 0
  run = run_lib.Run(
    config=config,
    workdir=workdir,
    mesh=mesh,
    method=method,
    **{name: getattr(train, name) for name in kept},
    coordinates=train.coordinates,
    labels=train.labels,
    spec=train.spec,
    num_examples=train.num_examples,
    num_steps=num_steps,
    parts=parts,
    network_options=network_options,
  )
  try:
    for _, part in run.phases():
      sharding_lib.eval_shape(
        functools.partial(part.loss, train=pairs),
        mesh,
        run.abstract_variables,
        run.abstract_frozen,
        run.abstract_batch(config.global_batch_size, pairs=True),
        jax.random.key(0),
      )
  except errors.ConfigError:
    raise  # A method's own, which names its key.
  except ValueError as error:
    raise errors.ConfigError(
      f"The network does not fit the data (inputs"
      f" {run.example_shape['inputs']}, targets"
      f" {run.example_shape['targets']}, axes T, H, W, C): {error}"
    ) from error
  if jax.process_index() == 0:
    for name, path in kept.items():
      statistics = getattr(run, name)
      if statistics is not None and not path.exists():
        files.write_atomically(path, statistics.to_json())
    with files.replacing(workdir / "coordinates.nc") as partial:
      run.coordinates.to_netcdf(partial, engine="h5netcdf")
  logging.info("Work directory: %s", workdir)
  return run
