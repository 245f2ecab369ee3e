"""What a network is shown of a history, and what its forecast stands for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stjax import config as config_lib
from stjax.methods import base

PyTree = Any
CLIMATOLOGY = "climatology"  # In `frozen`.
# Along time, beside what the network itself reads.
_OBSERVED, _CELLS = "observed", "cells"


@dataclasses.dataclass(frozen=True)
class Representation:
  """How fields are turned for a network, and back.

  Attributes:
    increments: the network forecasts the change since the newest frame that
      is observed, at each place.
    anomalies: it is shown, and forecasts, what exceeds the climatology.
    hold_missing: what every history frame lacks, such as land, is 0 in the
      forecast.
    read_mask: it gets one more input per variable, 1 where observed, else 0.
    pad_to: its grid is continued by the last row and column to multiples of
      this.
  """

  increments: bool = False
  anomalies: bool = False
  hold_missing: bool = False
  read_mask: bool = False
  pad_to: int = 1

  def __post_init__(self):
    if self.pad_to < 1:
      raise config_lib.ConfigError(
          f"method.pad_to={self.pad_to} must be 1 (as it is) or more."
      )

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
    elif self.hold_missing or self.read_mask:
      raise config_lib.ConfigError(
          "method.hold_missing and method.read_mask need data.missing='mask'."
      )
    if self.anomalies:
      if "calendar" not in batch:
        raise config_lib.ConfigError(
            "method.anomalies needs data.calendar, such as ('month',)."
        )
      known[_CELLS] = batch["calendar"][:, : history + horizon]
    return known

  def through(
      self,
      network: Callable[..., tuple[jax.Array, PyTree]],
      history: jax.Array,
      known: dict[str, jax.Array],
      climatology: jax.Array | None = None,
  ) -> tuple[jax.Array, PyTree]:
    """Asks a network for a forecast.

    Args:
      network: (what it is shown [B, T_in, H', W', C'], **what it reads) ->
        forecast [B, T, H', W', C] and anything.
      history: [B, T_in, H, W, C], normalised, 0 where missing.
      known: along time from the history's first frame on: of `known`, and
        what the network reads.
      climatology: [*calendar sizes, H, W, C], normalised; for anomalies.

    Returns:
      Normalised forecast [B, T, H, W, C], and what else the network gave.
    """
    known = dict(known)
    observed = known.pop(_OBSERVED, None)
    cells = known.pop(_CELLS, None)
    frames, height, width = history.shape[1:4]
    if observed is not None:
      observed = observed[:, :frames]
    if self.anomalies:
      history = history - _at(climatology, cells[:, :frames])
      if observed is not None:
        history = jnp.where(observed, history, 0)
    shown = history
    if self.read_mask:
      mask = observed.astype(history.dtype)
      shown = jnp.concatenate([history, mask], axis=-1)
    forecast, other = network(self._padded(shown), **known)
    forecast = forecast[:, :, :height, :width]
    if self.increments:
      forecast = forecast + _newest_observed(history, observed)
    if self.anomalies:
      end = frames + forecast.shape[1]
      forecast = forecast + _at(climatology, cells[:, frames:end])
    if self.hold_missing:
      ever = jnp.any(observed, axis=1, keepdims=True)
      forecast = jnp.where(ever, forecast, 0)
    return forecast, other

  def _padded(self, x: jax.Array) -> jax.Array:
    more = [(0, -size % self.pad_to) for size in x.shape[2:4]]
    return jnp.pad(x, ((0, 0), (0, 0), *more, (0, 0)), mode="edge")


def _at(climatology: jax.Array, cells: jax.Array) -> jax.Array:
  """The climatology [B, T, H, W, C] of calendar cells [B, T, K]."""
  return climatology[tuple(jnp.moveaxis(cells, -1, 0))]


def _newest_observed(
    history: jax.Array, observed: jax.Array | None
) -> jax.Array:
  """The last value [B, 1, H, W, C] that each place has."""
  if observed is None:
    return history[:, -1:]
  age = jnp.argmax(observed[:, ::-1], axis=1, keepdims=True)
  return jnp.take_along_axis(history, history.shape[1] - 1 - age, axis=1)
