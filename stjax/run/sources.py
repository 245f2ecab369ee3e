"""Where variables come from: another run, a file of torch weights, or a fresh start.

What a method never trains is loaded or computed once and kept in the work directory;
`stjax.run.parts` has the layout.
"""

import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

import input_pipeline
from input_pipeline import files as files_lib
from input_pipeline import pairs as pairs_lib
from stjax import config as config_lib
from stjax import convert, errors
from stjax import sharding as sharding_lib
from stjax.convert import files
from stjax.methods import base
from stjax.metrics import grid
from stjax.run import parts as parts_lib
from stjax.run import run as run_lib
from stjax.training import checkpoint as checkpoint_lib
from stjax.training import state as state_lib

PyTree = Any
# What a work directory and the copy of a part hold besides their config.
_VARIABLES, _SOURCE = "variables", "source.json"


def first_state(run: run_lib.Run) -> state_lib.TrainState:
  """Returns the state a run starts from when it has no checkpoint of its own.

  Args:
    run: the run; `config.init_from` names a finished run's work directory or
      a file of torch weights, or is empty for fresh parameters.

  Raises:
    ConfigError: the source does not exist or holds another network.
  """
  source = run.config.init_from
  if not source:
    return run.fresh_state()
  path = parts_lib.find("init_from", source)
  if path.is_dir():
    variables = load_variables(run, path, "best")
  else:
    variables = _read_weights(
      "init_from", path, functools.partial(convert_weights, run)
    )
  return with_variables(run.fresh_state(), variables)


def check_sources(run: run_lib.Run) -> None:
  """Looks for what another run must have left, before anything is made.

  Raises:
    ConfigError: a source that is still needed does not exist.
  """
  folder = run.workdir / "checkpoints"
  started = folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir())
  if run.config.init_from and not started:
    parts_lib.find("init_from", run.config.init_from)


def _read_weights(key, path, convert_weights) -> dict[str, Any]:
  """Variables out of a file of torch weights."""
  try:
    variables = convert_weights(files.read(path))
  except errors.ConvertError as error:
    raise errors.ConfigError(
      f"{key}={str(path)!r} cannot be used: {error}\n(python -m"
      " stjax.convert has more options.)"
    ) from error
  logging.info("Read the weights in %s", path)
  return variables


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
  run: run_lib.Run, part: parts_lib.Part | None = None
) -> dict[str, Any]:
  """What the converter must know of a network besides its name.

  Args:
    run: has the shape of its inputs.
    part: the frozen part whose network is meant; by default the trained one.
  """
  *frames, channels = run.example_shape["inputs"]
  sizes = run.spec.sizes
  channels = (part or run).method.input_channels(
    channels, sizes["forcing"] + sizes["static"]
  )
  return {"in_shape": (*frames, channels), **(part or run).network_options}


def convert_weights(
  run: run_lib.Run,
  state_dict: Mapping[str, Any],
  allow_unused: str | None = None,
  *,
  part: parts_lib.Part | None = None,
  expected: Mapping[str, PyTree] | None = None,
) -> dict[str, Any]:
  """Converts a torch state dict to a run's variables, on its devices.

  Args:
    run: decides shapes and shardings.
    state_dict: names and arrays; see `stjax.convert.to_stjax`.
    allow_unused: regular expression of torch names that may stay unused.
    part: the frozen part whose weights they are; by default the trained network's.
    expected: shapes and shardings; the trained variables' by default.

  Raises:
    ConvertError: the weights are not those of the network.
    NetworkError: no names are known for this network.
    ConfigError: the method has variables besides those of the network.
  """
  config = part.config if part else run.config
  expected = run.abstract_variables if expected is None else expected
  variables = convert.to_stjax(
    config.model.name,
    state_dict,
    allow_unused=allow_unused,
    **network_options(run, part),
  )
  # What only torch reads.
  variables.pop("torch", None)
  differing = checkpoint_lib.differing_shapes(variables, expected)
  if differing:
    raise errors.ConfigError(
      f"The weights of network {config.model.name!r} are not all that"
      f" method {config.method.name!r} needs:\n"
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
  part: parts_lib.Part | None = None,
  expected: Mapping[str, PyTree] | None = None,
) -> dict:
  """Loads the variables to forecast with: averaged ones where they exist.

  Args:
    run: decides shapes and shardings.
    workdir: whose checkpoints are read.
    which: "best" or "latest".
    part: the frozen part whose work directory it is; by default the run's own, or
      that of a run of the same network.
    expected: shapes and shardings; the trained variables' by default.

  Raises:
    ConfigError: no checkpoint, or one of another network.
  """
  expected = run.abstract_variables if expected is None else expected
  options = part.config.checkpoint if part else _checkpoint_options(run, workdir)
  checkpoints = checkpoint_lib.Checkpoints(
    workdir / "checkpoints",
    metric=options["best_metric"],
    mode=options["best_mode"],
    keep_latest=options["keep_latest"],
    keep_best=options["keep_best"],
  )
  try:
    step = checkpoints.step_named(which)
    trainable = (part or run).method.trainable
    if which == "best" and checkpoints.best_step is None and trainable:
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


def frozen(run: run_lib.Run, training: bool = True) -> PyTree:
  """Returns what the method reads and never trains, on its devices.

  Parts are read from their sources, and constants made from the data, only once:
  both are kept in the work directory, which needs nothing else from then on.

  Args:
    run: the run.
    training: whether all parts are needed, or only those of a forecast.

  Returns:
    {part: {"variables": ..., "frozen": ...}, constant: array}.

  Raises:
    ConfigError: a source does not exist or holds another network.
  """
  expected = run.abstract_frozen
  if not training:
    expected = run.for_forecast(expected)
  arrays = {}
  for name, part in run.parts.items():
    if name not in expected:
      continue
    _say_source(run, name, part)
    arrays[name] = _read_part(run, part, expected[name])
    place = run.workdir / parts_lib.FOLDER / name
    if not part.copied:
      _copy_part(run, part, arrays[name], place)
  constants = _constants_of(expected, run.parts)
  return arrays | _own_constants(run, arrays, constants)


def digest(variables: Mapping[str, PyTree]) -> str:
  """Returns a short name for variables; other values get another name."""
  content = hashlib.sha256()
  for path, array in jax.tree.leaves_with_path(variables):
    content.update(jax.tree_util.keystr(path).encode())
    content.update(np.ascontiguousarray(sharding_lib.fetch(array)).tobytes())
  return content.hexdigest()[:16]


def check_frozen(run: run_lib.Run, arrays: Mapping[str, PyTree]) -> None:
  """Refuses frozen arrays that a training cannot use together.

  Args:
    run: the run.
    arrays: what `frozen` returned.

  Raises:
    ConfigError: parts do not go together, or the preference pairs were drawn from
      another network than any of them.
  """
  run.method.check_frozen(arrays, sharding_lib.fetch)
  arrays = {name: arrays[name] for name in run.parts}
  folder = run.config.data.get("pairs")
  if not folder or not arrays:
    return
  source = pairs_lib.read_manifest(folder)["source"]
  if not {digest(part["variables"]) for part in arrays.values()} & set(source["from"]):
    raise errors.ConfigError(
      f"data.pairs={folder!r} was drawn from step {source['step']} of"
      f" {source['workdir']}, which none of the frozen parts"
      f" ({', '.join(arrays)}) is. Give the run that drew the pairs in"
      " frozen.reference.init_from, or draw pairs from the reference."
    )


def _constants_of(tree: Mapping[str, PyTree], parts) -> dict[str, PyTree]:
  return {name: array for name, array in tree.items() if name not in parts}


def _own_constants(run, arrays, expected) -> dict[str, jax.Array]:
  """Makes the constants of the run's method, or reads those that were kept."""
  place = run.workdir / parts_lib.CONSTANTS
  if not expected:
    return {}
  if place.is_dir():
    return _restore(place, expected)
  made = _prepare(run, run.method, arrays, expected)
  _write(place, lambda draft: _save(draft, made))
  return made


def _prepare(run, method, arrays, expected) -> dict[str, jax.Array]:
  with sharding_lib.use_mesh(run.mesh):
    prepared = method.prepare(arrays, _material(run))
  return {
    name: _on_devices(expected[name], np.asarray(array, np.float32))
    for name, array in prepared.items()
  }


def _read_part(run: run_lib.Run, part: parts_lib.Part, expected: PyTree) -> PyTree:
  """Variables, parts and constants of a part, from its copy or its source."""
  inner = {
    name: _read_part(run, further, expected["frozen"][name])
    for name, further in part.parts.items()
  }
  constants = _constants_of(expected["frozen"], part.parts)
  if constants and part.constants:
    place = part.constants
    if not place.is_dir():
      raise errors.ConfigError(
        f"{part.key}: {place} does not exist, which holds what its method made from its"
        " data. Start the run in that work directory again (--mode=evaluate is enough)"
        " to have it made."
      )
    constants = _restore(place, constants)
  elif constants:
    constants = _prepare(run, part.method, inner, constants)
  variables = expected["variables"]
  if part.copied and jax.tree.leaves(variables):
    variables = _restore(part.folder / _VARIABLES, variables)
  elif part.folder and not part.copied:
    variables = load_variables(run, part.folder, "best", part, variables)
  elif part.source and not part.copied:
    variables = _read_weights(
      f"{part.key}.init_from",
      part.source,
      functools.partial(convert_weights, run, part=part, expected=variables),
    )
  return {"variables": variables, "frozen": inner | constants}


def _copy_part(run, part: parts_lib.Part, arrays: PyTree, place: pathlib.Path):
  """Keeps a part in the layout that `stjax.run.parts` describes."""

  def write(draft):
    if jax.process_index() == 0:
      draft.mkdir(parents=True)
      files_lib.write_json(draft / "config.json", config_lib.plain(part.config))
      if part.source:
        files_lib.write_json(draft / _SOURCE, str(part.source.absolute()))
      for name in parts_lib.STATISTICS:
        path = (part.folder or run.workdir) / f"{name}.json"
        if path.exists():
          shutil.copy(path, draft / path.name)
    _synchronise()
    if jax.tree.leaves(arrays["variables"]):
      _save(draft / _VARIABLES, arrays["variables"])
    constants = _constants_of(arrays["frozen"], part.parts)
    if constants:
      _save(draft / parts_lib.CONSTANTS, constants)
    for name, inner in part.parts.items():
      _copy_part(run, inner, arrays["frozen"][name], draft / parts_lib.FOLDER / name)

  _write(place, write)


def _say_source(run: run_lib.Run, name: str, part: parts_lib.Part) -> None:
  """Logs where a part is from, and warns where the config names another source."""
  if not part.copied:
    logging.info("%s is read from %s", part.key, part.source)
    return
  path = part.folder / _SOURCE
  then = json.loads(path.read_text()) if path.exists() else None
  logging.info("%s: kept in %s, made from %s", part.key, part.folder, then)
  given = run.config.frozen[name].get("init_from")
  now = pathlib.Path(given).absolute() if given else None
  # One that is gone has only been moved or deleted since.
  if then and now and str(now) != then and now.exists():
    logging.warning(
      "%s.init_from=%s is not read: %s was made from %s. To have it made again,"
      " delete it; to keep both, use another --workdir.",
      part.key,
      given,
      part.folder,
      then,
    )


def _restore(place: pathlib.Path, expected: PyTree) -> PyTree:
  """Restores arrays; those that a wrapper kept beside them are left out."""
  with ocp.StandardCheckpointer() as checkpointer:
    try:
      kept = checkpointer.metadata(place).item_metadata
      others = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in kept.items()
        if name not in expected and hasattr(array, "shape")
      }
      restored = checkpointer.restore(place, dict(expected) | others)
      return {name: restored[name] for name in expected}
    except (ValueError, OSError, KeyError) as error:
      raise errors.ConfigError(
        f"{place} cannot be restored into the frozen arrays of this config; delete"
        f" {place.parent} to have it made again. The reason: {error}"
      ) from error


def _save(place: pathlib.Path, tree: PyTree) -> None:
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(place, tree)


def _write(place: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
  """Writes a folder beside its place and moves it there when it is complete."""
  draft = place.with_name(f".{place.name}.draft")
  if jax.process_index() == 0:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)
  _synchronise()
  write(draft)
  _synchronise()
  if jax.process_index() == 0:
    shutil.rmtree(place, ignore_errors=True)  # It was not complete.
    os.replace(draft, place)
  _synchronise()


def _synchronise() -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("frozen parts")


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
    weights = np.ones(1) if weights is None else weights
    weights = weights.reshape(weights.shape + (1,) * (2 - weights.ndim))
    shape = run.example_shape["targets"][1:3]
    return np.broadcast_to(weights / weights.mean(), shape)

  def climatology() -> np.ndarray:
    table = input_pipeline.climatology(
      run.config.data.to_dict(), cache_dir=run.workdir / "data"
    )
    table = input_pipeline.forward(run.statistics, table)
    return table.reshape(*run.spec.calendar.values(), *table.shape[1:])

  return base.Material(
    series, batches, sharding_lib.fetch, areas, climatology, run.statistics
  )
