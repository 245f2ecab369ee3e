"""Residual diffusion: a frozen mean and a diffusion model of what it misses.

Source: CoST (arXiv 2502.11013): a deterministic mean, a conditional diffusion
of the residual, and a prior z = +-q that tells where fluctuations are large.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.methods import base, diffusion, residual

SCALES = ("signal", "residual", "validation_residual", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualDiffusion(residual.Residual, diffusion.Diffusion):
  """Diffuses r = y - mean, shifted by a prior z that the denoiser is given.

  With A_t the schedule's alpha_bar, z = q s, s = +-1 drawn for every example,
  lead time and point,

      r_t = sqrt(A_t) r + (1 - sqrt(A_t)) z + sqrt(1 - A_t) noise,

  an ordinary diffusion of x = r - z, whose terminal law for r is N(z, 1). The
  other attributes are those of `residual.Residual` and `diffusion.Diffusion`.

  Attributes:
    mean_only: the mean alone is the forecast, and nothing is trained.
    scale: what q is: "signal", the training series without its strongest
      frequencies (CoST); "residual", "validation_residual", the spread of
      y - mean over that split by lead time; "none", z = 0.
    scale_threshold: "signal": share of a node's strongest frequency above
      which a frequency counts as regular.
  """

  mean_only: bool = False
  scale: str = "signal"
  scale_threshold: float = 0.1

  def __post_init__(self):
    residual.Residual.__post_init__(self)
    errors.pick("method.scale", self.scale, dict.fromkeys(SCALES))
    diffusion.Diffusion.__post_init__(self)

  @property
  def trainable(self) -> bool:
    return not self.mean_only

  @property
  def _scaled(self) -> bool:
    return self.trainable and self.scale != "none"

  def prepared_shapes(self, example):
    return {"scale": example["targets"]} if self._scaled else {}

  def prepare(self, frozen, material):
    if not self._scaled:
      return {}
    if self.scale == "signal":
      scale = residual.signal_spread(material, self.scale_threshold)
      return {"scale": np.repeat(scale[None], self.horizon, axis=0)}
    split = "train" if self.scale == "residual" else "validation"
    return {"scale": self.residual_spread(frozen, material, split)}

  def prior_shift(self, frozen, sign):
    if not self._scaled:
      return super().prior_shift(frozen, sign)
    return frozen["scale"].astype(jnp.float32) * sign

  def init(self, key, batch):
    return super().init(key, batch) if self.trainable else {"params": {}}

  def loss(self, variables, frozen, batch, key, train):
    if self.trainable:
      return super().loss(variables, frozen, batch, key, train)
    mean = self.mean_forecast(frozen, batch, jax.random.fold_in(key, 0))
    loss, count = residual.error_loss(mean, batch)
    return loss, base.Outputs({}, {}, count)

  def forecast(self, variables, frozen, batch, key, members=1):
    if self.trainable:
      return super().forecast(variables, frozen, batch, key, members)
    mean = self.mean_forecast(
      frozen, batch, jax.random.fold_in(key, np.uint32(2**32 - 1))
    )
    return jnp.broadcast_to(mean, (len(base.numbers(members)), *mean.shape))
