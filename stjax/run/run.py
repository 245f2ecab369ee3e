"""A run: all that a config and a work directory determine together.

Training, evaluation and forecasting all start here, so that they see the same data,
the same network and the same mesh.
"""

import dataclasses
import fractions
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import xarray as xr
from clu import parameter_overview

import input_pipeline
from input_pipeline import spec as spec_lib
from stjax import sharding as sharding_lib
from stjax.methods import base
from stjax.run import parts as parts_lib
from stjax.training import checkpoint as checkpoint_lib
from stjax.training import optim
from stjax.training import state as state_lib
from stjax.training import step as step_lib

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything that is fixed before the first batch is read.

  Attributes:
    config: the resolved config.
    workdir: where the run keeps all it makes.
    mesh: the device mesh.
    method: what is trained.
    statistics: normalisation of the training split.
    coordinates: template of the forecast's labels.
    labels: names and times of the training windows.
    spec: what the batches of the training split hold.
    forcing_statistics: normalisation of the forcings, if there are any.
    static_statistics: normalisation of the static fields, if there are any.
    num_examples: examples in the training split.
    num_steps: optimiser steps of the whole run.
    parts: what the method reads and never trains, by name.
    network_options: of the trained network, those that follow from the data
      included.
  """

  config: ml_collections.ConfigDict
  workdir: pathlib.Path
  mesh: jax.sharding.Mesh
  method: base.Method
  statistics: input_pipeline.Statistics
  coordinates: xr.Dataset
  labels: xr.Dataset
  spec: spec_lib.Spec
  forcing_statistics: input_pipeline.Statistics | None
  static_statistics: input_pipeline.Statistics | None
  num_examples: int
  num_steps: int
  parts: dict[str, parts_lib.Part]
  network_options: dict[str, Any]

  @property
  def example_shape(self) -> dict[str, tuple[int, ...]]:
    """Shapes of the "inputs" and "targets" of one example."""
    shapes = self.spec.shapes(1)
    return {name: shapes[name][1:] for name in ("inputs", "targets")}

  @property
  def steps_per_epoch(self) -> fractions.Fraction:
    """Optimiser steps in one pass over the training split, exactly."""
    return fractions.Fraction(self.num_examples, self.config.global_batch_size)

  def every(self, options: ml_collections.ConfigDict, step: int) -> bool:
    """Whether something due every so many steps or epochs is due at `step`.

    Args:
      options: has every_steps and every_epochs; the steps win if positive,
        and a period of 0 means never but at the end.
      step: the number of steps made.
    """
    if step >= self.num_steps:
      return True
    if options.every_steps > 0:
      return step % options.every_steps == 0
    if options.every_epochs <= 0:
      return False
    period = fractions.Fraction(options.every_epochs) * self.steps_per_epoch
    # The first step at which another whole period has passed.
    return math.floor(step / period) > math.floor((step - 1) / period)

  def split(
    self,
    name: str,
    batch_size: int,
    *,
    train: bool = False,
    start: int = 0,
    history: int = 0,
    horizon: int = 0,
    every: int = 1,
    targets: bool = True,
    beyond: int = 0,
    pairs: bool = False,
  ) -> input_pipeline.Split:
    """Opens a split of the data; see `input_pipeline.build`.

    A history or horizon other than 0 is used instead of the trained one;
    of the windows, every `every`-th is taken. Preference pairs are read in
    training, and where `pairs` asks for them.
    """
    return open_data(
      self.config,
      self.workdir,
      self.mesh,
      name,
      batch_size,
      pairs=train or pairs,
      train=train,
      start=start,
      statistics=self.statistics,
      forcing_statistics=self.forcing_statistics,
      static_statistics=self.static_statistics,
      history=history,
      horizon=horizon,
      every=every,
      targets=targets,
      beyond=beyond,
    )

  def forecast_split(self, start: int = 0) -> input_pipeline.Split:
    """Opens what `config.forecast` names; its batches have no targets.

    Args:
      start: number of the first batch.
    """
    options = self.config.forecast
    # Whole blocks: what is known in advance reaches to their end.
    horizon = max(options.horizon, self.config.data.horizon)
    return self.split(
      options.split,
      options.batch_size,
      start=start,
      history=options.history,
      horizon=horizon,
      targets=False,
      beyond=horizon if options.past_data_end else 0,
    )

  def checkpoints(self) -> checkpoint_lib.Checkpoints:
    """Opens the work directory's checkpoints."""
    options = self.config.checkpoint
    return checkpoint_lib.Checkpoints(
      self.workdir / "checkpoints",
      metric=options.best_metric,
      mode=options.best_mode,
      keep_latest=options.keep_latest,
      keep_best=options.keep_best,
    )

  def optimizer(self) -> optim.Optimizer:
    """Builds the optimiser with its schedule over the whole run."""
    return optim.build(self.config.optimizer, self.num_steps, self.steps_per_epoch)

  def example_batch(self) -> dict[str, np.ndarray]:
    """Returns a batch of one example, all zeros, from which shapes are taken."""
    return spec_lib.on_device(self.spec.zeros(1))

  def init_state(self, key: jax.Array) -> state_lib.TrainState:
    """Returns the state before the first step. It is pure, so that it can be jitted."""
    init_key, run_key = jax.random.split(key)
    variables = self.method.init(init_key, self.example_batch())
    transformation = self.optimizer().transformation
    return state_lib.create(run_key, variables, transformation, self.config.ema_decay)

  @functools.cached_property
  def abstract_state(self) -> state_lib.TrainState:
    """Shapes, types and shardings of the whole state."""
    abstract = sharding_lib.eval_shape(
      self.init_state, self.mesh, jax.random.key(self.config.seed)
    )
    shardings = sharding_lib.state_shardings(abstract, self.mesh)
    return jax.tree.map(
      lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
      abstract,
      shardings,
    )

  @functools.cached_property
  def abstract_frozen(self) -> PyTree:
    """Shapes, types and shardings of the arrays that are read and never trained."""
    abstract = self._frozen_shapes(self.method, self.parts, self.config.data.horizon)
    return jax.tree.map(
      lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
      abstract,
      sharding_lib.state_shardings(abstract, self.mesh),
    )

  def for_forecast(self, frozen: PyTree) -> PyTree:
    """What a forecast needs of the frozen arrays; see `Method.forecast_parts`."""
    unread = set(self.parts) - set(self.method.forecast_parts)
    return {name: array for name, array in frozen.items() if name not in unread}

  def _frozen_shapes(self, method, parts, horizon) -> PyTree:
    """Shapes of the parts and constants of a method trained for a horizon."""
    shapes = {
      name: {
        "variables": sharding_lib.eval_shape(
          part.method.init, self.mesh, jax.random.key(0), self.example_batch()
        ),
        "frozen": self._frozen_shapes(part.method, part.parts, part.horizon),
      }
      for name, part in parts.items()
    }
    constants = method.prepared_shapes(
      self.example_shape
      | {
        "targets": (horizon, *self.example_shape["targets"][1:]),
        "calendar": tuple(self.spec.calendar.values()),
      }
    )
    return shapes | {
      name: jax.ShapeDtypeStruct(shape, jnp.float32)
      for name, shape in constants.items()
    }

  @property
  def abstract_variables(self) -> dict[str, PyTree]:
    """Shapes, types and shardings of the variables."""
    return self.abstract_state.variables()

  def crop_to_training_window(
    self, batch: dict[str, jax.Array | np.ndarray]
  ) -> dict[str, jax.Array | np.ndarray]:
    """Cuts a batch of longer windows down to the trained one around now."""
    return spec_lib.crop(batch, self.spec.history, self.spec.horizon)

  def to_physical(self, forecast: jax.Array) -> jax.Array:
    """A forecast [..., C] in physical units, within its valid range."""
    fields = input_pipeline.inverse(self.statistics, forecast, xp=jnp)
    if self.config.forecast.clip_range:
      # An end that is None is open.
      fields = jnp.clip(fields, *self.config.forecast.clip_range)
    return fields

  def fresh_state(self) -> state_lib.TrainState:
    """Makes the first state directly on its devices."""
    shardings = jax.tree.map(lambda a: a.sharding, self.abstract_state)
    options = {}
    if self.mesh.devices.flat[0].platform == "cpu":
      # Random numbers are long programs that run once: six times faster to
      # compile like this.
      options = {"xla_backend_optimization_level": 0}
    key = jax.random.key(self.config.seed)
    init = sharding_lib.lower_and_compile(
      self.init_state,
      self.mesh,
      jax.ShapeDtypeStruct(key.shape, key.dtype),
      out_shardings=shardings,
      options=options,
    )
    return init(key)

  def phases(self) -> tuple[tuple[int, base.Method], ...]:
    """Returns pairs (first step, method) of the training; see `Method.phases`."""
    return self.method.phases(self.steps_per_epoch)

  def compile_train_step(
    self, method: base.Method | None = None
  ) -> jax.stages.Compiled:
    """Compiles (state, batch, frozen) -> (state, scalars) once.

    Args:
      method: of the phase; by default the run's.
    """
    optimizer = self.optimizer()
    function = functools.partial(
      step_lib.train_step,
      method=method or self.method,
      transformation=optimizer.transformation,
      learning_rate=optimizer.learning_rate,
      accumulation_steps=self.config.accumulation_steps,
      ema_decay=self.config.ema_decay,
    )
    batch = self.abstract_batch(self.config.global_batch_size, pairs=True)
    shardings = jax.tree.map(lambda a: a.sharding, self.abstract_state)
    return sharding_lib.lower_and_compile(
      function,
      self.mesh,
      self.abstract_state,
      batch,
      self.abstract_frozen,
      out_shardings=(shardings, sharding_lib.replicated(self.mesh)),
      donate=0,
    )

  def abstract_batch(
    self,
    batch_size: int,
    history: int = 0,
    horizon: int = 0,
    targets: bool = True,
    pairs: bool = False,
  ) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and shardings of a global batch as the step receives it."""
    spec = self.spec.resized(history, horizon, targets)
    if not pairs:
      spec = spec.without_pairs()
    shapes = spec_lib.on_device(spec.shapes(batch_size))
    shardings = sharding_lib.batch_shardings(shapes, self.mesh)
    return {
      name: jax.ShapeDtypeStruct(
        shape, spec_lib.KEYS[name].dtype, sharding=shardings[name]
      )
      for name, shape in shapes.items()
    }

  def describe(self) -> str:
    """The parameter table and the mesh, for people."""
    variables = {
      "params": self.abstract_state.params,
      **self.abstract_state.collections,
    }
    table = parameter_overview.get_parameter_overview(variables, include_stats=False)
    mesh = ", ".join(f"{k}={v}" for k, v in self.mesh.shape.items())
    device = self.mesh.devices.flat[0]
    return (
      f"{table}\nMesh: {mesh} on {self.mesh.size} x {device.device_kind}"
      f" ({device.platform}), {jax.process_count()} process(es)"
    )


def open_data(
  config,
  workdir,
  mesh,
  name,
  batch_size,
  *,
  history=0,
  horizon=0,
  pairs=False,
  **options,
) -> input_pipeline.Split:
  part, parts = sharding_lib.process_rows(mesh)
  data = config.data.to_dict()
  data["history"] = history or data["history"]
  data["horizon"] = horizon or data["horizon"]
  if not pairs:
    data["pairs"] = ""
  return input_pipeline.build(
    data,
    name,
    batch_size=batch_size,
    seed=config.seed,
    process_index=part,
    process_count=parts,
    cache_dir=workdir / "data",
    **options,
  )
