"""Where variables come from: another run, torch, or nothing.

What a method never trains (`frozen`) is loaded or computed once and kept in
the work directory, which needs nothing else from then on.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

import input_pipeline
from input_pipeline import files as files_lib
from stjax import config as config_lib
from stjax import convert, errors
from stjax import sharding as sharding_lib
from stjax.convert import files
from stjax.methods import base
from stjax.metrics import grid
from stjax.run import run as run_lib
from stjax.training import checkpoint as checkpoint_lib
from stjax.training import state as state_lib

PyTree = Any


def first_state(run: run_lib.Run) -> state_lib.TrainState:
  """Returns the state a run starts from when it has no checkpoint of its own.

  Args:
    run: the run; `config.init_from` names a finished run's work directory or
      a file of torch weights, or is empty for fresh parameters.

  Raises:
    ConfigError: the source does not exist or holds another network.
  """
  if not run.config.init_from:
    return run.fresh_state()
  variables = _variables_from(
    run, run.config.init_from, "init_from", run.config.model, run.abstract_variables
  )
  return with_variables(run.fresh_state(), variables)


def check_sources(run: run_lib.Run) -> None:
  """Looks for what other runs must have left, before anything is made.

  Raises:
    ConfigError: a source that is still needed does not exist.
  """
  if run.config.init_from and not _started(run):
    _find("init_from", run.config.init_from)
  _check_frozen_sources(run)


def _check_frozen_sources(run: run_lib.Run) -> None:
  if _frozen_place(run).is_dir():
    return  # They are not needed any more.
  for name in run.method.parts:
    section, key = run.config.frozen[name], f"frozen.{name}.init_from"
    if not section.init_from:
      raise errors.ConfigError(
        f"{key} is empty: give the work directory of a run that trained"
        f" model.name={section.model.name!r}, or a file of its torch"
        " weights."
      )
    _find(key, section.init_from)


def _started(run: run_lib.Run) -> bool:
  folder = run.workdir / "checkpoints"
  return folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir())


def _find(key: str, source: str) -> pathlib.Path:
  """The path of a work directory or file of weights; it must be there."""
  path = pathlib.Path(source)
  weights = path.suffix in files.SUFFIXES and path.is_file()
  if not weights and not (path / "checkpoints").is_dir():
    raise errors.ConfigError(
      f"{key}={source!r} ({path.absolute()}) is neither a work directory"
      " with checkpoints nor a file of torch weights"
      f" ({', '.join(files.SUFFIXES)})."
    )
  return path


def _variables_from(
  run: run_lib.Run,
  source: str,
  key: str,
  model: ml_collections.ConfigDict,
  expected: Mapping[str, PyTree],
) -> dict[str, Any]:
  """Variables out of a work directory or a file of torch weights.

  Args:
    run: the run that needs them.
    source: the path.
    key: config key of the path, for messages.
    model: the network's section of the config.
    expected: shapes and shardings of the variables.
  """
  path = _find(key, source)
  if (path / "checkpoints").is_dir():
    _check_statistics(run, path, key)
    return load_variables(run, path, "best", expected)
  try:
    variables = convert_weights(run, files.read(path), model=model, expected=expected)
  except convert.ConvertError as error:
    raise errors.ConfigError(
      f"{key}={source!r} cannot be used: {error}\n(python -m"
      " stjax.convert has more options.)"
    ) from error
  logging.info("Read the weights in %s", path)
  return variables


def _check_statistics(run: run_lib.Run, workdir: pathlib.Path, key: str):
  """Variables are worth nothing on data normalised in another way."""
  path = workdir / "statistics.json"
  if not path.exists() or key == "init_from":
    return  # Training goes on, and may adapt to other data.
  theirs = input_pipeline.Statistics.from_json(path.read_text())
  ours = run.statistics
  same = theirs.transform == ours.transform and all(
    np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-4, atol=0)
    for a, b in ((theirs.offset, ours.offset), (theirs.scale, ours.scale))
  )
  if not same:
    raise errors.ConfigError(
      f"{key}={str(workdir)!r} was trained on data normalised by offset"
      f" {theirs.offset}, scale {theirs.scale} ({theirs.transform}); here"
      f" they are {ours.offset}, {ours.scale} ({ours.transform}). Use the"
      " same data.* keys in both runs."
    )


def with_variables(
  state: state_lib.TrainState, variables: Mapping[str, Any]
) -> state_lib.TrainState:
  """Replaces a state's variables, averaged parameters included.

  Args:
    state: the state; step, optimiser and key stay.
    variables: {"params": ..., other collections}, on the state's shardings.
  """
  collections = {k: v for k, v in variables.items() if k != "params"}
  return state.replace(
    params=variables["params"],
    collections=collections,
    ema_params=None
    if state.ema_params is None
    else jax.tree.map(lambda x: x.copy(), variables["params"]),
  )


def network_options(
  run: run_lib.Run, model: ml_collections.ConfigDict | None = None
) -> dict[str, Any]:
  """What the converter must know of a network besides its name.

  Args:
    run: has the shape of its inputs.
    model: the network's section of the config; the trained one's by default.
  """
  *frames, channels = run.example_shape["inputs"]
  if model is None:
    model = run.config.model
    sizes = run.spec.sizes
    channels = run.method.input_channels(channels, sizes["forcing"] + sizes["static"])
  return {"in_shape": (*frames, channels), **config_lib.without(model, "name")}


def convert_weights(
  run: run_lib.Run,
  state_dict: Mapping[str, Any],
  allow_unused: str | None = None,
  *,
  model: ml_collections.ConfigDict | None = None,
  expected: Mapping[str, PyTree] | None = None,
) -> dict[str, Any]:
  """Converts a torch state dict to a run's variables, on its devices.

  Args:
    run: decides shapes and shardings.
    state_dict: names and arrays; see `stjax.convert.to_stjax`.
    allow_unused: regular expression of torch names that may stay unused.
    model: the network's section of the config; the trained one's by default.
    expected: shapes and shardings; the trained variables' by default.

  Raises:
    ConvertError: the weights are not those of the network.
    NetworkError: no names are known for this network.
    ConfigError: the method has variables besides those of the network.
  """
  model = run.config.model if model is None else model
  expected = run.abstract_variables if expected is None else expected
  variables = convert.to_stjax(
    model.name, state_dict, allow_unused=allow_unused, **network_options(run, model)
  )
  # What only torch reads.
  variables.pop("torch", None)
  differing = checkpoint_lib.differing_shapes(variables, expected)
  if differing:
    raise errors.ConfigError(
      f"The weights of network {model.name!r} are not all that"
      f" method {run.config.method.name!r} needs:\n"
      + "\n".join(
        f"  {path}: {theirs} in the file, {ours} in this config"
        for path, theirs, ours in differing[:10]
      )
    )
  return jax.tree.map(_on_devices, expected, variables)


def _on_devices(expected: jax.ShapeDtypeStruct, array: np.ndarray) -> jax.Array:
  return jax.make_array_from_callback(
    expected.shape, expected.sharding, lambda index: array[index]
  )


def load_variables(
  run: run_lib.Run,
  workdir: pathlib.Path,
  which: str,
  expected: Mapping[str, PyTree] | None = None,
) -> dict:
  """Loads the variables to forecast with: averaged ones where they exist.

  Args:
    run: decides shapes and shardings.
    workdir: whose checkpoints are read.
    which: "best" or "latest".
    expected: shapes and shardings; the trained variables' by default.

  Raises:
    ConfigError: no checkpoint, or one of another network.
  """
  expected = run.abstract_variables if expected is None else expected
  options = _checkpoint_options(run, workdir)
  checkpoints = checkpoint_lib.Checkpoints(
    workdir / "checkpoints",
    metric=options["best_metric"],
    mode=options["best_mode"],
    keep_latest=options["keep_latest"],
    keep_best=options["keep_best"],
  )
  try:
    step = checkpoints.step_named(which)
    if which == "best" and checkpoints.best_step is None and run.method.trainable:
      logging.warning(
        "%s has no checkpoint scored by %r: the latest is taken.",
        workdir,
        options["best_metric"],
      )
    variables = checkpoints.restore_variables(step, expected)
  finally:
    checkpoints.close()
  logging.info("Loaded step %d (%s) of %s", step, which, workdir)
  return variables


def _checkpoint_options(run: run_lib.Run, workdir: pathlib.Path) -> Mapping[str, Any]:
  """How a run chose its best checkpoint: its own config says."""
  path = workdir / "config.json"
  if workdir.absolute() == run.workdir or not path.exists():
    return run.config.checkpoint
  return json.loads(path.read_text())["checkpoint"]


def frozen(run: run_lib.Run) -> PyTree:
  """Returns what the method reads and never trains, on its devices.

  Made once, from `config.frozen` and the data, and kept in the work
  directory's `frozen`; `frozen.json` says which sources it was made from.

  Raises:
    ConfigError: a source does not exist or holds another network.
  """
  expected = run.abstract_frozen
  if not expected:
    return {}
  place = _frozen_place(run)
  _check_frozen_sources(run)
  checkpointer = ocp.StandardCheckpointer()
  if place.is_dir():
    _say_sources(run)
    try:
      return checkpointer.restore(place, expected)
    except (ValueError, OSError, KeyError) as error:
      raise errors.ConfigError(
        f"{place} cannot be restored into this config's frozen variables;"
        f" delete it to have it made again. The reason: {error}"
      ) from error
    finally:
      checkpointer.close()
  made = {}
  for name in run.method.parts:
    section, key = run.config.frozen[name], f"frozen.{name}.init_from"
    made[name] = _variables_from(
      run, section.init_from, key, section.model, expected[name]
    )
  with sharding_lib.use_mesh(run.mesh):
    prepared = run.method.prepare(made, _material(run))
  made |= {
    name: _on_devices(expected[name], np.asarray(array, np.float32))
    for name, array in prepared.items()
  }
  if jax.process_index() == 0:
    files_lib.write_json(_sources_path(run), _sources(run))
  _keep(checkpointer, place, made)
  return made


def _frozen_place(run: run_lib.Run) -> pathlib.Path:
  return run.workdir / "frozen"


def _sources_path(run: run_lib.Run) -> pathlib.Path:
  return run.workdir / "frozen.json"


def _sources(run: run_lib.Run) -> dict[str, str]:
  """Where the config has each part from, as absolute paths."""
  return {
    name: str(pathlib.Path(run.config.frozen[name].init_from).absolute())
    for name in run.method.parts
  }


def _say_sources(run: run_lib.Run) -> None:
  """Logs what was kept, and warns where the config now has another source."""
  path, place = _sources_path(run), _frozen_place(run)
  made = json.loads(path.read_text()) if path.exists() else {}
  for name, now in _sources(run).items():
    then = made.get(name, "an unknown source")
    logging.info("frozen.%s: kept in %s, made from %s", name, place, then)
    given = run.config.frozen[name].init_from
    # One that is gone has only been moved or deleted since.
    if given and name in made and then != now and pathlib.Path(now).exists():
      logging.warning(
        "frozen.%s.init_from=%s is not read: %s was made from %s. To have"
        " it made again, delete it; to keep both, use another --workdir.",
        name,
        given,
        place,
        then,
      )


def _keep(
  checkpointer: ocp.StandardCheckpointer, place: pathlib.Path, tree: PyTree
) -> None:
  """Writes a tree beside its place and moves it there when complete."""
  draft = place.with_name(f".{place.name}.draft")
  if jax.process_index() == 0:
    shutil.rmtree(draft, ignore_errors=True)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("frozen")
  checkpointer.save(draft, tree)
  checkpointer.close()
  if jax.process_index() == 0:
    os.replace(draft, place)


def _material(run: run_lib.Run) -> base.Material:
  """The data, as a method's `prepare` sees them."""

  def batches(split: str) -> Iterator[base.Batch]:
    data = run.split(split, run.config.evaluation.batch_size)
    for batch in data.batches:
      yield sharding_lib.put_batch(batch, run.mesh)

  def series() -> list[np.ndarray]:
    return input_pipeline.training_series(
      run.config.data.to_dict(),
      statistics=run.statistics,
      cache_dir=run.workdir / "data",
    )

  def areas(key: str, kind: str) -> np.ndarray:
    weights = grid.area_weights(key, kind, run.coordinates)
    weights = weights.reshape(weights.shape + (1,) * (2 - weights.ndim))
    shape = run.example_shape["targets"][1:3]
    return np.broadcast_to(weights / weights.mean(), shape)

  def climatology() -> np.ndarray:
    table = input_pipeline.climatology(
      run.config.data.to_dict(), cache_dir=run.workdir / "data"
    )
    table = input_pipeline.forward(run.statistics, table)
    return table.reshape(*run.spec.calendar.values(), *table.shape[1:])

  return base.Material(series, batches, sharding_lib.fetch, areas, climatology)
