"""Persistence: the newest observation is the forecast; nothing is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from stjax.methods import base, residual


def persistence(
  batch: base.Batch, horizon: int, mean: np.ndarray | float = 0.0
) -> jax.Array:
  """Returns the last observed value of every point for every lead time.

  Args:
    batch: inputs [B, T_in, H, W, C] in any units; mask where there is one.
    horizon: number of frames T_out.
    mean: [C] what stands where nothing was observed, in the same units.

  Returns:
    [B, T_out, H, W, C].
  """
  inputs = batch["inputs"]
  last = inputs[:, -1]
  if "mask" in batch:
    observed = batch["mask"][:, : inputs.shape[1]]
    age = jnp.argmax(observed[:, ::-1], axis=1, keepdims=True)
    newest = inputs.shape[1] - 1 - age
    last = jnp.take_along_axis(inputs, newest, axis=1)[:, 0]
    last = jnp.where(observed.any(axis=1), last, mean)
  return jnp.repeat(last[:, None], horizon, axis=1)


@dataclasses.dataclass(frozen=True)
class Persistence(base.Method):
  """Forecasts the newest observed value of each point, for every lead time.

  A point that the history never observed gets 0 in normalised units. As the
  frozen mean of a residual diffusion it leaves the whole change to be diffused.

  Attributes:
    horizon: frames T_out to forecast.
  """

  horizon: int

  @property
  def trainable(self) -> bool:
    return False

  def init(self, key, batch):
    del key, batch
    return {"params": {}}

  def loss(self, variables, frozen, batch, key, train):
    del train
    forecast = self.forecast(variables, frozen, batch, key)[0]
    loss, count = residual.error_loss(forecast, batch)
    return loss, base.Outputs({}, {}, count)

  def forecast(self, variables, frozen, batch, key, members=1):
    """Returns [M, B, T_out, H, W, C]; all members agree."""
    del variables, frozen, key
    forecast = persistence(batch, self.horizon)
    return jnp.broadcast_to(forecast, (len(base.numbers(members)), *forecast.shape))
