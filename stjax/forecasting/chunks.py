"""Long forecasts, a few blocks of lead times at a time.

A forecast of a year need not fit into memory: the devices keep the newest
frames of each member, and hand over what they have made while they make more.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import spec
from stjax import sharding as sharding_lib
from stjax.methods import base, rollout
from stjax.run import run as run_lib

PyTree = Any
# Values of one piece, all members of a batch together: 256 MiB.
_PIECE_VALUES = 2**26
# Folded into the run's key, so that forecasts do not repeat training's draws.
FORECAST_STREAM = 1


def forecast_key(seed: int) -> jax.Array:
  """The base key of all forecasts of a run."""
  return jax.random.fold_in(jax.random.key(seed), FORECAST_STREAM)


def share(
  run: run_lib.Run,
  function: Callable[..., PyTree],
  batch_size: int,
  members: int,
  of_members: int = 0,
) -> Callable[..., PyTree]:
  """Lets the devices share an ensemble.

  They share the rows of the batch; where these do not divide, the members.

  Args:
    run: the run.
    function: (*arguments, members=...) -> arrays [M, B, ...].
    batch_size: examples over all devices.
    members: ensemble members M.
    of_members: how many of the last arguments are arrays [M, ...].

  Returns:
    (*arguments) -> the same arrays.
  """
  if batch_size % sharding_lib.row_parts(run.mesh) == 0:
    return functools.partial(function, members=members)

  def own(*arguments):
    return function(*arguments[:-1], members=arguments[-1])

  return sharding_lib.over_members(own, run.mesh, members, of_members)


def ensemble(
  run: run_lib.Run, batch_size: int, members: int, horizon: int
) -> Callable[..., jax.Array]:
  """Returns (variables, frozen, batch, key) -> [M, B, T_out, H, W, C].

  Args:
    run: the run.
    batch_size: examples over all devices.
    members: ensemble members M.
    horizon: frames T_out; more than the trained ones are fed back.
  """

  def forecast(variables, frozen, batch, key, members):
    return rollout.rollout(run.method, variables, frozen, batch, key, members, horizon)

  return share(run, forecast, batch_size, members)


class Piece(NamedTuple):
  """Consecutive lead times of a batch of forecasts.

  Attributes:
    lead: number of the first lead time.
    fields: [M, B, n, H, W, C] in physical units.
    extreme: [M, B, n, C] largest distance from the training mean, in standard
      deviations of training; not finite where the forecast is not.
    histories: [M, B, T_in, H, W, C] newest frames, normalised.
  """

  lead: int
  fields: jax.Array
  extreme: jax.Array
  histories: jax.Array


def piece_frames(
  run: run_lib.Run, batch_size: int, members: int, horizon: int, wanted: int
) -> int:
  """Lead times of a piece: whole blocks, or the horizon where that is less.

  Args:
    run: the run.
    batch_size: examples over all devices.
    members: ensemble members M.
    horizon: lead times of the whole forecast.
    wanted: at least so many; 0: as many as 256 MiB hold.
  """
  block = run.method.horizon
  grid = math.prod(run.example_shape["inputs"][1:])
  fit = wanted or _PIECE_VALUES // (members * batch_size * grid)
  rounded = -(-fit // block) if wanted else fit // block
  return min(max(rounded, 1) * block, horizon)


class Rollout:
  """Makes the forecasts of one batch after another; compiled at first use.

  Args:
    run: the run.
    batch_size: examples over all devices.
    members: ensemble members M.
    horizon: lead times; more than the trained ones are fed back.
    frames: lead times of a piece; see `piece_frames`.
  """

  def __init__(
    self, run: run_lib.Run, batch_size: int, members: int, horizon: int, frames: int
  ):
    self._run = run
    self._batch_size = batch_size
    self._members = members
    self._horizon = horizon
    self.frames = frames
    self._blocks = -(-frames // run.method.horizon)
    example = run.example_shape["inputs"]
    history = (members, batch_size, *example)
    whole = (members, batch_size, frames, *example[1:])
    by_rows = functools.partial(
      sharding_lib.axes_sharding, ("member", *spec.FIELDS), mesh=run.mesh
    )
    self._history = jax.ShapeDtypeStruct(
      history, jnp.float32, sharding=by_rows(history)
    )
    self._out = (by_rows(whole), sharding_lib.replicated(run.mesh), by_rows(history))

  def pieces(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    key: jax.Array,
    lead: int = 0,
    histories: np.ndarray | None = None,
  ) -> Iterator[Piece]:
    """Makes the forecasts of a batch; the next piece while one is used.

    Args:
      variables: the method's variables.
      frozen: what the method reads and never trains.
      batch: with what is known in advance up to the horizon; targets are
        not read.
      key: of `forecast_key`.
      lead: where to go on, a multiple of `frames`; 0: at the beginning.
      histories: of the piece before that one.
    """
    batch = spec.crop(batch, batch["inputs"].shape[1], 0)
    fixed = variables, frozen, batch, key
    if lead:
      histories = jax.make_array_from_callback(
        self._history.shape, self._history.sharding, lambda where: histories[where]
      )
      made = self._continue_rollout(*fixed, self._block(lead), histories)
    else:
      made = self._begin(*fixed)
    while True:
      further = lead + self.frames
      later = None
      if further < self._horizon:
        later = self._continue_rollout(*fixed, self._block(further), made[-1])
      count = min(self._horizon - lead, self.frames)
      fields, extreme, histories = made
      yield Piece(lead, fields[:, :, :count], extreme[:, :, :count], histories)
      if later is None:
        return
      made, lead = later, further

  def _block(self, lead: int) -> jax.Array:
    """Number of the block that begins at a lead time."""
    return jnp.int32(lead // self._run.method.horizon)

  def _describe(self, forecast, histories):
    """What a piece holds, of normalised forecasts."""
    statistics = self._run.statistics
    forecast = forecast[:, :, : self.frames]
    transformed = forecast * statistics.scale + statistics.offset
    spread = np.where(statistics.std > 0, statistics.std, 1.0)
    distance = (transformed - statistics.mean) / spread
    extreme = jnp.abs(distance).max((-3, -2))
    return self._run.to_physical(forecast), extreme, histories

  @functools.cached_property
  def _begin(self) -> jax.stages.Compiled:
    """Compiles (variables, frozen, batch, key) -> the first piece."""

    def function(variables, frozen, batch, key, members):
      return rollout.start_rollout(
        self._run.method, variables, frozen, batch, key, members, self._blocks
      )

    return self._compile(function)

  @functools.cached_property
  def _continue_rollout(self) -> jax.stages.Compiled:
    """Compiles (..., number of the block, histories) -> a later piece."""

    def function(variables, frozen, batch, key, number, histories, members):
      return rollout.continue_rollout(
        self._run.method,
        variables,
        frozen,
        batch,
        key,
        members,
        histories,
        number,
        self._blocks,
      )

    number = jax.ShapeDtypeStruct((), jnp.int32)
    return self._compile(function, number, of_members=(self._history,))

  def _compile(self, function, *more, of_members=()) -> jax.stages.Compiled:
    run = self._run
    # What is known in advance goes on to the last lead time.
    batch = run.abstract_batch(
      self._batch_size,
      horizon=max(self._horizon, run.config.data.horizon),
      targets=False,
    )
    made = share(run, function, self._batch_size, self._members, len(of_members))

    def whole(*arguments):
      return self._describe(*made(*arguments))

    return sharding_lib.lower_and_compile(
      whole,
      run.mesh,
      run.abstract_variables,
      run.for_forecast(run.abstract_frozen),
      batch,
      jax.eval_shape(functools.partial(forecast_key, 0)),
      *more,
      *of_members,
      out_shardings=self._out,
    )
