"""Distributions of what a trained mean leaves over: the common part.

forecast = mean + residual. The mean is a frozen network; what is learned, or
measured, is the distribution of the residual, in normalised units.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.methods import base, fluctuation, regression
from stjax.methods.sampling import Sampling

PyTree = Any
MEAN = "mean"  # Its name among the frozen variables.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual(base.Method):
  """A method whose forecast is a frozen mean plus something drawn.

  Attributes:
    horizon: frames T_out to forecast.
    mean_network: module of the mean, inputs [B, T_in, H, W, C] -> frames that
      are fed back or cut to the horizon; None: there is none, the mean is 0.
    mean_dropout: leave the mean's dropout on, as CoST's released code does;
      one draw for all members of an example.
  """

  horizon: int
  mean_network: Any = None
  mean_dropout: bool = False

  def __post_init__(self):
    regression.check_kind("frozen.mean.model", self.mean_network, False)

  @property
  def has_mean(self) -> bool:
    """Whether a mean is read."""
    return self.mean_network is not None

  @property
  def parts(self) -> dict[str, base.Method]:
    if not self.has_mean:
      return {}
    return {MEAN: regression.Regression(self.mean_network, self.horizon)}

  def mean_forecast(
    self, frozen: PyTree, batch: base.Batch, key: jax.Array
  ) -> jax.Array:
    """Returns the mean [B, T_out, H, W, C], without gradients."""
    if not self.has_mean:
      inputs = batch["inputs"]
      return jnp.zeros((len(inputs), self.horizon, *inputs.shape[2:]))
    mean = self.parts[MEAN]
    if self.mean_dropout:

      def one(example, key):
        batch = jax.tree.map(lambda x: x[None], example)
        forecast, _ = mean.apply(frozen[MEAN], batch, True, key)
        return forecast[0]

      # Each example has dropout of its own, whatever batch it is in.
      names = ("inputs", *getattr(mean.network, "extra_inputs", ()))
      examples = {name: batch[name] for name in names}
      keys = base.example_keys(key, batch["index"])
      forecast = jax.vmap(one)(examples, keys)
    else:
      forecast, _ = mean.apply(frozen[MEAN], batch, False, key)
    if forecast.shape[2:] != batch["inputs"].shape[2:]:
      raise ValueError(
        f"the mean's network forecasts frames of shape {forecast.shape[2:]}"
        f" where the data have {batch['inputs'].shape[2:]} (H, W, C); change"
        " frozen.mean.model.out_channels or data.variables"
      )
    return jax.lax.stop_gradient(forecast.astype(jnp.float32))

  def residual_spread(
    self, frozen: PyTree, material: base.Material, split: str
  ) -> np.ndarray:
    """Standard deviation [T_out, H, W, C] of the residual over a split.

    Points that were never observed get 0.
    """

    @jax.jit
    def moments(batch, frozen):
      targets = batch["targets"].astype(jnp.float32)
      residual = targets - self.mean_forecast(frozen, batch, jax.random.key(0))
      weight = jnp.broadcast_to(
        regression.example_weights(batch, targets), targets.shape
      )
      residual = jnp.where(weight > 0, residual, 0.0)
      return weight.sum(0), residual.sum(0), (residual**2).sum(0)

    totals = 0.0
    for batch in material.batches(split):
      new = moments(batch, frozen)
      totals = totals + np.stack([material.fetch(x).astype(np.float64) for x in new])
    count, first, second = totals
    count = np.maximum(count, 1.0)
    variance = second / count - (first / count) ** 2
    return np.sqrt(np.maximum(variance, 0.0)).astype(np.float32)


def signal_spread(material: base.Material, threshold: float) -> np.ndarray:
  """Fluctuation scale [H, W, C] of the training frames themselves.

  Sequences count by the number of frames that a point was observed in; see
  `fluctuation.signal_scale`.
  """
  variance = count = 0.0
  for frames in material.series():
    observed = np.isfinite(frames).sum(0)
    scale = fluctuation.signal_scale(frames, threshold).astype(np.float64)
    variance = variance + observed * scale**2
    count = count + observed
  return np.sqrt(variance / np.maximum(count, 1)).astype(np.float32)


def error_loss(forecast: jax.Array, batch: base.Batch) -> tuple[jax.Array, jax.Array]:
  """Mean squared error over what was observed, and the number of points."""
  values = jnp.square(forecast - batch["targets"].astype(jnp.float32))
  weight = jnp.broadcast_to(regression.example_weights(batch, values), values.shape)
  count = jnp.sum(weight)
  return jnp.sum(weight * values) / jnp.maximum(count, 1.0), count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualGaussian(Residual):
  """The mean plus independent Gaussian noise: the floor for any ensemble.

  The noise has mean 0 and, at every lead time and point, the standard
  deviation of the mean's residual over a split. Nothing is trained.

  Attributes:
    split: whose residuals are measured, "train" or "validation".
    sampling: its temperature, a factor on the spread, and its member_chunk.
  """

  split: str = "train"
  sampling: Sampling = Sampling()

  def __post_init__(self):
    super().__post_init__()
    splits = dict.fromkeys(("train", "validation"))
    errors.pick("method.split", self.split, splits)

  @property
  def trainable(self) -> bool:
    return False

  @property
  def member_chunk(self) -> int:
    return self.sampling.member_chunk

  def prepared_shapes(self, example):
    return {"spread": example["targets"]}

  def prepare(self, frozen, material):
    return {"spread": self.residual_spread(frozen, material, self.split)}

  def init(self, key, batch):
    del key, batch
    return {"params": {}}

  def loss(self, variables, frozen, batch, key, train):
    del variables, train
    loss, count = error_loss(self.mean_forecast(frozen, batch, key), batch)
    return loss, base.Outputs({}, {}, count)

  def forecast(self, variables, frozen, batch, key, members=1):
    del variables
    mean = self.mean_forecast(frozen, batch, key)

    def one(member):
      keys = base.member_keys(key, member, batch["index"])
      noise = base.draw_normal(keys, 0, mean.shape[1:])
      return mean + self.sampling.temperature * frozen["spread"] * noise

    return base.map_members(one, members, self.member_chunk, mean.size)
