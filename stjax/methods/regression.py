"""Deterministic forecasting: a network regressed on the future frames."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stjax import config as config_lib
from stjax.methods import base, losses

PyTree = Any

_LOSSES = {
    "mse": jnp.square,
    "mae": jnp.abs,
    "mse_mae": lambda error: jnp.square(error) + jnp.abs(error),
}
_RELATIVE = "relative_l2"


def divergence_regulariser(
    forecast: jax.Array, observation: jax.Array, temperature: float = 0.1
) -> jax.Array:
  """Divergence between the forecast's and the observed changes in time.

  With p and q the softmax over (C, H, W) of the differences between
  consecutive frames over the temperature, the mean over batch, time and
  points of p log(p / q).

  Args:
    forecast: [B, T, H, W, C].
    observation: [B, T, H, W, C].
    temperature: divides the differences.

  Returns:
    A scalar; 0 for fewer than three frames.

  Source: Tan et al. 2023 (TAU), equation 8; a mean where the paper has a sum.
  """
  batch, frames = forecast.shape[:2]
  if frames <= 2:
    return jnp.zeros(())

  def changes(x):
    return jnp.diff(x, axis=1).reshape(batch, frames - 1, -1) / temperature

  p = jax.nn.softmax(changes(forecast), axis=-1)
  q = jax.nn.softmax(changes(observation), axis=-1)
  tiny = 1e-12
  return jnp.mean(p * jnp.log(p / (q + tiny) + tiny))


def check_kind(key: str, network: nn.Module | None, denoises: bool) -> None:
  """Raises ConfigError for a denoiser where a forecaster goes, or reversed.

  Args:
    key: config key of the network.
    network: None passes.
    denoises: whether it should be a denoiser.
  """
  if network is None or getattr(network, "denoises", False) == denoises:
    return
  kinds = ("a network of forecasts", "a denoiser")
  raise config_lib.ConfigError(
      f"{key}.name: {type(network).__name__} is {kinds[not denoises]}, but"
      f" {kinds[denoises]} is needed here."
  )


@dataclasses.dataclass(frozen=True)
class Regression(base.Method):
  """Trains a network on the (masked) mean error over all frames.

  A network that returns fewer frames than the horizon is fed its own output,
  and trained through all of it; one that returns more is cut.

  Attributes:
    network: module of inputs [B, T_in, H, W, C] -> [B, T, H, W, C].
    horizon: frames T_out to forecast.
    loss_name: "mse", "mae", "mse_mae" (their sum) or "relative_l2", the mean
      of `losses.relative_l2` over examples, frames and variables.
    divergence_weight: weight of `divergence_regulariser`.
    equal_gradients: give the gradients of all variables equal norms; see
      `losses.equalise_gradients`.
  """

  network: nn.Module
  horizon: int
  loss_name: str = "mse"
  divergence_weight: float = 0.0
  equal_gradients: bool = False

  def __post_init__(self):
    if self.network is None:
      raise config_lib.ConfigError(
          "model.name='none', but method 'regression' needs a network."
      )
    check_kind("model", self.network, False)
    known = _LOSSES | {_RELATIVE: None}
    config_lib.pick("method.loss_name", self.loss_name, known)

  def init(self, key: jax.Array, batch: base.Batch) -> base.Variables:
    return dict(
        self.network.init(
            key, batch["inputs"], train=False, **self._reads(batch)
        )
    )

  def _reads(self, batch):
    frames = batch["inputs"].shape[1] + self.horizon
    return base.reads(self.network, batch, frames)

  def apply(
      self,
      variables: base.Variables,
      batch: base.Batch,
      train: bool,
      key: jax.Array,
  ) -> tuple[jax.Array, dict[str, PyTree]]:
    """Returns the forecast [B, T_out, H, W, C] and the new collections."""
    params = variables["params"]
    collections = {k: v for k, v in variables.items() if k != "params"}

    def step(history, collections, number, **known):
      arguments = {"params": params, **collections}, history
      if not train:
        forecast = self.network.apply(*arguments, train=False, **known)
        return forecast, collections
      rngs = {"dropout": jax.random.fold_in(key, number)}
      forecast, updated = self.network.apply(
          *arguments,
          train=True,
          rngs=rngs,
          mutable=list(collections),
          **known,
      )
      return forecast, dict(updated)

    return base.feed_back(
        step, batch["inputs"], collections, self.horizon, self._reads(batch)
    )

  def loss(
      self,
      variables: base.Variables,
      frozen: PyTree,
      batch: base.Batch,
      key: jax.Array,
      train: bool,
  ) -> tuple[jax.Array, base.Outputs]:
    del frozen
    targets = batch["targets"].astype(jnp.float32)
    forecast, collections = self.apply(variables, batch, train, key)
    if forecast.shape != targets.shape:
      raise ValueError(
          f"the network forecasts {forecast.shape} where the targets are"
          f" {targets.shape} (B, T, H, W, C); change model.out_channels or"
          " data.variables"
      )
    if self.equal_gradients:
      forecast = losses.equalise_gradients(forecast)
    weight = example_weights(batch, targets)
    weight = jnp.broadcast_to(weight, targets.shape)
    if self.loss_name == _RELATIVE:
      values = losses.relative_l2(
          forecast.astype(jnp.float32), targets, weight
      )
      weight = jnp.max(weight, axis=(-3, -2))  # Fields with a point observed.
    else:
      values = _LOSSES[self.loss_name](forecast.astype(jnp.float32) - targets)
    count = jnp.sum(weight)
    loss = jnp.sum(weight * values) / jnp.maximum(count, 1.0)
    terms = {}
    if self.divergence_weight:
      terms["divergence"] = divergence_regulariser(forecast, targets)
      loss = loss + self.divergence_weight * terms["divergence"]
    return loss, base.Outputs(terms, collections, count)

  def forecast(
      self,
      variables: base.Variables,
      frozen: PyTree,
      batch: base.Batch,
      key: jax.Array,
      members: base.Members = 1,
  ) -> jax.Array:
    """Returns [M, B, T_out, H, W, C]; all members of a regression agree."""
    del frozen
    forecast, _ = self.apply(variables, batch, False, key)
    return jnp.broadcast_to(
        forecast.astype(jnp.float32),
        (len(base.numbers(members)), *forecast.shape),
    )


def example_weights(batch: base.Batch, targets: jax.Array) -> jax.Array:
  """Weights that broadcast to the targets: 0 where missing or padding."""
  weight = jnp.ones((1, 1, 1, 1, 1), jnp.float32)
  if "mask" in batch:
    weight = batch["mask"][:, -targets.shape[1] :].astype(jnp.float32)
  if "valid" in batch:
    rows = batch["valid"].astype(jnp.float32)
    weight = weight * rows[:, None, None, None, None]
  return weight
