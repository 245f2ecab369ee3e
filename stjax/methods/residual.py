"""Methods that add something random to the forecast of a trained mean.

forecast = mean + residual. The mean is a frozen part, a whole method that another
run trained. The distribution of the residual is learned, or measured, in normalised
units.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import spec
from stjax import errors
from stjax.methods import base, fluctuation, regression
from stjax.methods.sampling import Sampling

PyTree = Any
MEAN = "mean"  # Its name among the frozen parts.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual(base.Method):
  """A method whose forecast is a frozen mean plus something drawn.

  Attributes:
    horizon: frames T_out to forecast.
    mean: the trained method whose forecast is the mean.
    mean_dropout: leave the mean's dropout on, as CoST's released code does;
      one draw for all members of an example. Only a regression has it.
  """

  part_names: ClassVar[tuple[str, ...]] = (MEAN,)

  horizon: int
  mean: base.Method | None = None
  mean_dropout: bool = False

  def __post_init__(self):
    if self.mean is None:
      raise errors.ConfigError(
        "The method needs a mean: give the work directory of the run that trained it"
        " in frozen.mean.init_from. Diffusion without a mean is"
        " method.name='diffusion'."
      )
    if self.mean_dropout and not isinstance(self.mean, regression.Regression):
      raise errors.ConfigError(
        "method.mean_dropout=True needs a mean that method 'regression' trained."
      )

  def mean_forecast(
    self, frozen: PyTree, batch: base.Batch, key: jax.Array
  ) -> jax.Array:
    """Returns the mean [B, T_out, H, W, C] in normalised units."""
    part = frozen[MEAN]
    if not self.mean_dropout:
      forecast = self.mean.forecast(part["variables"], part["frozen"], batch, key, 1)
      return forecast[0]
    # What else differs between training and forecasting stays off.
    mean = dataclasses.replace(self.mean, input_noise=0.0, push_forward=0)

    def one(example, key):
      rows = jax.tree.map(lambda x: x[None], example) | shared
      forecast, _ = mean.apply(part["variables"], rows, True, key, part["frozen"])
      return forecast[0]

    # Each example has dropout of its own, whatever batch it is in.
    shared = spec.shared(batch)
    examples = {name: x for name, x in batch.items() if name not in shared}
    keys = base.example_keys(key, batch["index"])
    return jax.vmap(one)(examples, keys).astype(jnp.float32)

  def residual_spread(
    self, frozen: PyTree, material: base.Material, split: str
  ) -> np.ndarray:
    """Returns the standard deviation [T_out, H, W, C] of a split's residuals.

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
  """Returns the fluctuation scale [H, W, C] of the training frames themselves.

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
      spread = frozen["spread"][: self.horizon]
      return mean + self.sampling.temperature * spread * noise

    return base.map_members(one, members, self.member_chunk, mean.size)
