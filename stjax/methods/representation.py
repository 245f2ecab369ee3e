"""How a history is presented to a network, and how its output becomes a forecast."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.methods import base

PyTree = Any
# The names of the constants in `frozen`.
_CLIMATOLOGY, _SCALES = "climatology", "scales"
# The names of the arrays along time that are read besides those of the network.
_OBSERVED, _CELLS, _FORCINGS = "observed", "cells", "forcings"


@dataclasses.dataclass(frozen=True)
class Representation:
  """The way from fields to a network's inputs and from its outputs to fields.

  Attributes:
    predict_tendency: whether the network forecasts the change since the newest
      observed value of each place, in units of the usual change from one training
      frame to the next.
    predict_anomaly: whether the network is shown, and forecasts, deviations from the
      climatology, in units of their usual size in training.
    zero_missing: whether points that no frame of the history observed, such as land,
      are 0 in the forecast.
    mask_as_input: whether the network gets one more input for each variable, which
      is 1 where the variable is observed and 0 elsewhere.
    pad_to_multiple: number of which H and W are made multiples by repeating the last
      row and the last column; 1 leaves the grid as it is.
  """

  predict_tendency: bool = False
  predict_anomaly: bool = False
  zero_missing: bool = False
  mask_as_input: bool = False
  pad_to_multiple: int = 1

  def __post_init__(self):
    if self.pad_to_multiple < 1:
      raise errors.ConfigError(
        f"method.pad_to_multiple={self.pad_to_multiple} must be 1 (as it is) or more."
      )

  def prepared_shapes(
    self, example: dict[str, tuple[int, ...]]
  ) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the constants; see `base.Method.prepared_shapes`."""
    shapes, grid = {}, example["targets"][1:]
    if self.predict_anomaly:
      shapes[_CLIMATOLOGY] = (*example["calendar"], *grid)
    if self.predict_anomaly or self.predict_tendency:
      shapes[_SCALES] = (2, grid[-1])
    return shapes

  def prepare(self, material: base.Material) -> dict[str, np.ndarray]:
    """The climatology, and sizes of what is shown and what is forecast."""
    made = {}
    if self.predict_anomaly:
      made[_CLIMATOLOGY] = material.climatology()
    if self.predict_anomaly or self.predict_tendency:
      made[_SCALES] = self._scales(material, made.get(_CLIMATOLOGY))
    return made

  def _scales(self, material, climatology) -> np.ndarray:
    """Root mean squares of anomalies and of changes [2, C] in training.

    Source: Lam et al. 2023 (GraphCast), section 4 of the supplement, scales
    the residuals by those of time differences.
    """

    @jax.jit
    def moments(batch, climatology):
      fields = jnp.concatenate([batch["inputs"], batch["targets"]], axis=1)
      valid = batch["valid"][:, None, None, None, None]
      observed = batch.get("mask", jnp.ones(fields.shape, bool)) & valid
      if self.predict_anomaly:
        fields = fields - _at(climatology, batch["calendar"])
      both = observed[:, 1:] & observed[:, :-1]
      axes = (0, 1, 2, 3)
      return [
        jnp.stack([jnp.sum(w, axes), jnp.sum(w * jnp.square(x), axes)])
        for x, w in (
          (fields, observed.astype(jnp.float32)),
          (jnp.diff(fields, axis=1), both.astype(jnp.float32)),
        )
      ]

    table = None if climatology is None else jnp.asarray(climatology)
    totals = 0.0
    for batch in material.batches("train"):
      totals = totals + np.stack(
        [material.fetch(x).astype(np.float64) for x in moments(batch, table)]
      )
    count, squares = np.moveaxis(totals, 1, 0)
    sizes = np.sqrt(squares / np.maximum(count, 1))
    # What never changes cannot be scaled.
    values, changes = np.where(sizes > 1e-6, sizes, 1.0)
    shown = values if self.predict_anomaly else np.ones_like(values)
    forecast = changes if self.predict_tendency else shown
    return np.stack([shown, forecast]).astype(np.float32)

  def scale(self, frozen: PyTree) -> jax.Array | float:
    """The units [C] in which the network forecasts, of what `prepare` made."""
    scaled = self.predict_anomaly or self.predict_tendency
    return frozen[_SCALES][1] if scaled else 1.0

  def blank(self, example: dict[str, tuple[int, ...]]) -> PyTree:
    """What `prepare` gives, without its values, for shapes."""
    return {
      name: jnp.ones(shape) for name, shape in self.prepared_shapes(example).items()
    }

  def known(self, batch: base.Batch, horizon: int) -> dict[str, jax.Array]:
    """What `through` reads along time, [B, T_in + horizon, ...], by name.

    Raises:
      ConfigError: the data do not have it.
    """
    known = {}
    history = batch["inputs"].shape[1]
    if "mask" in batch:
      observed = batch["mask"][:, :history]
      # What is forecast counts as observed where the history ever was.
      ever = jnp.any(observed, axis=1, keepdims=True)
      later = jnp.repeat(ever, horizon, axis=1)
      known[_OBSERVED] = jnp.concatenate([observed, later], axis=1)
    elif self.zero_missing or self.mask_as_input:
      raise errors.ConfigError(
        "method.zero_missing and method.mask_as_input need data.missing='mask'."
      )
    if self.predict_anomaly:
      if "calendar" not in batch:
        raise errors.ConfigError(
          "method.predict_anomaly needs data.calendar, such as ('month',)."
        )
      known[_CELLS] = batch["calendar"][:, : history + horizon]
    if "forcings" in batch:
      known[_FORCINGS] = batch["forcings"][:, : history + horizon]
    return known

  def through(
    self,
    network: Callable[..., tuple[jax.Array, PyTree]],
    history: jax.Array,
    known: dict[str, jax.Array],
    frozen: PyTree,
    static: jax.Array | None = None,
  ) -> tuple[jax.Array, PyTree]:
    """Asks a network for a forecast.

    Forcings are inputs like the variables, after these. A network that
    forecasts T frames at a time is shown those of T frames later with each
    frame of the history: the newest are those of its last forecast frame.
    Static fields are the last inputs, the same with every frame.

    Args:
      network: (what it is shown [B, T_in, H', W', C'], **what it reads) ->
        forecast [B, T, H', W', C] and anything.
      history: [B, T_in, H, W, C], normalised, 0 where missing.
      known: along time from the history's first frame on: of `known`, and
        what the network reads.
      frozen: holds what `prepare` made.
      static: [H, W, S], normalised.

    Returns:
      Normalised forecast [B, T, H, W, C], and what else the network gave.

    Raises:
      ConfigError: a network that forecasts other channels than the data's
        variables or, with forcings, more frames than it is shown.
    """
    known = dict(known)
    observed = known.pop(_OBSERVED, None)
    cells = known.pop(_CELLS, None)
    forcings = known.pop(_FORCINGS, None)
    frames, height, width = history.shape[1:4]
    climatology = frozen.get(_CLIMATOLOGY)
    of_shown = of_forecast = 1.0
    if self.predict_anomaly or self.predict_tendency:
      of_shown, of_forecast = frozen[_SCALES]
    if observed is not None:
      observed = observed[:, :frames]
    if self.predict_anomaly:
      history = history - _at(climatology, cells[:, :frames])
      if observed is not None:
        history = jnp.where(observed, history, 0)
    shown = [history / of_shown]
    if forcings is not None:
      shown += [jnp.zeros_like(forcings[:, :frames])]
    if self.mask_as_input:
      shown += [observed.astype(history.dtype)]
    ask = functools.partial(self._ask, network, static=static)
    if forcings is not None:
      later = _block(ask, shown, known)
      shown[1] = forcings[:, later : later + frames]
    forecast, other = ask(shown, known)
    made, wanted = forecast.shape[-1], history.shape[-1]
    if made != wanted:
      raise errors.ConfigError(
        f"The network forecasts {made} channels, but the data have {wanted}"
        f" variables (data.variables). Set model.out_channels={wanted}."
      )
    forecast = forecast[:, :, :height, :width] * of_forecast
    if cells is not None:
      # A block may be longer than the horizon; nobody asks for its end.
      forecast = forecast[:, : cells.shape[1] - frames]
    if self.predict_tendency:
      forecast = forecast + _newest_observed(history, observed)
    if self.predict_anomaly:
      end = frames + forecast.shape[1]
      forecast = forecast + _at(climatology, cells[:, frames:end])
    if self.zero_missing:
      ever = jnp.any(observed, axis=1, keepdims=True)
      forecast = jnp.where(ever, forecast, 0)
    return forecast, other

  def _ask(self, network, shown, known, static):
    """Shows a network arrays [B, T_in, H, W, *] and [H, W, S] as its inputs."""
    shown = self._padded(jnp.concatenate(shown, axis=-1))
    if static is not None:
      static = self._padded(static[None, None]).astype(shown.dtype)
      static = jnp.broadcast_to(static, (*shown.shape[:-1], static.shape[-1]))
      shown = jnp.concatenate([shown, static], axis=-1)
    return network(shown, **known)

  def _padded(self, x: jax.Array) -> jax.Array:
    more = [(0, -size % self.pad_to_multiple) for size in x.shape[2:4]]
    return jnp.pad(x, ((0, 0), (0, 0), *more, (0, 0)), mode="edge")


def _block(ask, shown, known) -> int:
  """How many frames a network forecasts at a time."""
  block = jax.eval_shape(lambda *given: ask(*given)[0], shown, known).shape[1]
  frames = shown[0].shape[1]
  if block > frames:
    raise errors.ConfigError(
      f"The network forecasts {block} frames at a time, but is shown"
      f" forcings (data.forcings) with {frames} frames of history only."
      f" Set data.history to {block} or more, or have it forecast fewer."
    )
  return block


def _at(climatology: jax.Array, cells: jax.Array) -> jax.Array:
  """The climatology [B, T, H, W, C] of calendar cells [B, T, K]."""
  return climatology[tuple(jnp.moveaxis(cells, -1, 0))]


def _newest_observed(history: jax.Array, observed: jax.Array | None) -> jax.Array:
  """The last value [B, 1, H, W, C] that each place has."""
  if observed is None:
    return history[:, -1:]
  age = jnp.argmax(observed[:, ::-1], axis=1, keepdims=True)
  return jnp.take_along_axis(history, history.shape[1] - 1 - age, axis=1)
