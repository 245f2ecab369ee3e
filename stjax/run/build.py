"""Builds a run, and refuses at once what would fail later."""

import functools
import math
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

import input_pipeline
from input_pipeline import files
from stjax import config as config_lib
from stjax import errors, methods, models
from stjax import sharding as sharding_lib
from stjax.run import run as run_lib


def _network(section: ml_collections.ConfigDict, dtype: jnp.dtype):
  """The network of a config's section; None where its name is "none"."""
  if section.name == "none":
    return None
  return models.build(section.name, dtype=dtype, **config_lib.without(section, "name"))


def _model_sections(config) -> dict[str, ml_collections.ConfigDict]:
  """The sections that name networks, by their keys."""
  frozen = {f"frozen.{k}.model": v.model for k, v in config.frozen.items()}
  return {"model": config.model} | frozen


def _check_calendar(where, section, columns: Mapping[str, int]) -> None:
  """A network must read the data's columns, with a row for every value.

  Args:
    where: key of the network.
    section: of the config.
    columns: number of values of each column of data.calendar.
  """
  names, rows = section.get("calendar_names"), section.get("calendar_sizes")
  if not names:
    return  # It does not know the time, whatever the data know.
  if tuple(names) != tuple(columns):
    raise errors.ConfigError(
      f"{where}.calendar_names={tuple(names)} are not the data's columns,"
      f" data.calendar={tuple(columns)}. Make them equal, in one order."
    )
  if rows is None or section.get("calendar_divisors"):
    return
  sizes = columns.values()
  fits = len(rows) == len(sizes)
  if not fits or any(r < s for r, s in zip(rows, sizes, strict=True)):
    raise errors.ConfigError(
      f"{where}.calendar_sizes={tuple(rows)} do not fit the data's calendar"
      f" features (data.calendar), which have {tuple(sizes)} values."
    )


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
  dtype = jnp.dtype(config.precision)
  method = methods.build(
    config.method.name,
    _network(config.model, dtype),
    frozen={name: _network(part.model, dtype) for name, part in config.frozen.items()},
    sampling=config_lib.plain(config.forecast.sampler)
    | {"member_chunk": config.forecast.member_chunk},
    horizon=config.data.horizon,
    **config_lib.without(config.method, "name"),
  )
  if jax.process_index() == 0:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      config_lib.claim_workdir(config, workdir)
    except OSError as error:
      raise errors.ConfigError(
        f"--workdir={workdir} cannot be written: {error}"
      ) from error
  kept = {
    name: workdir / f"{name}.json"
    for name in ("statistics", "forcing_statistics", "static_statistics")
  }
  train = run_lib.open_data(
    config,
    workdir,
    mesh,
    "train",
    config.global_batch_size,
    **{name: _load_statistics(path) for name, path in kept.items()},
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
  for where, section in _model_sections(config).items():
    _check_calendar(where, section, train.spec.calendar)
  num_steps = config.num_steps
  if not method.trainable:
    num_steps = 0
  elif num_steps <= 0:
    num_steps = math.ceil(
      config.num_epochs * train.num_examples / config.global_batch_size
    )
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
  )
  try:
    for _, part in run.phases():
      sharding_lib.eval_shape(
        functools.partial(part.loss, train=True),
        mesh,
        run.abstract_variables,
        run.abstract_frozen,
        run.abstract_batch(config.global_batch_size),
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
