"""KNO: the Koopman neural operator on a grid.

Xiong et al. 2024, "Koopman neural operator as a mesh-free solver of non-linear
partial differential equations". The values of a pixel over time become
observables that evolve linearly: one matrix for each of the lowest Fourier
modes is applied several times.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.denoisers.common import dense
from stjax.models.layers import checks
from stjax.models.layers.basic import BatchNorm
from stjax.models.layers.spectral import check_modes, map_modes, uniform_from_zero

# Factor of the evolved observables, which the original has.
SHARE = 0.1


class KNO(nn.Module):
  """Forecasts as many frames as it is shown, each channel on its own.

  The T values of a channel at a pixel are the inputs, so the weights fit
  histories of one length only. All channels share them.

  Attributes:
    features: number of observables that a pixel's history becomes.
    modes_h: modes along H of either sign, at most H.
    modes_w: modes along W, at most W // 2 + 1.
    steps: how often the matrices are applied.
    linear: whether the evolution is linear; otherwise a tanh follows each step.
    batch_norm: whether to normalise what by-passes the evolution.
    dtype: compute dtype, which is always float32 between the Fourier
      transforms; parameters and the result stay float32.
  """

  features: int = 16
  modes_h: int = 16
  modes_w: int = 16
  steps: int = 8
  linear: bool = True
  batch_norm: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, features=1, modes_h=1, modes_w=1, steps=1)
    super().__post_init__()

  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: whether to use the batch's own statistics.

    Returns:
      [B, T, H, W, C] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    return self.forecast_and_reconstruct(x, train)[0]

  @nn.compact
  def forecast_and_reconstruct(
    self, x: jax.Array, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the forecast, and the history decoded from its observables.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: whether to use the batch's own statistics.

    Returns:
      Two fields [B, T, H, W, C] float32, the forecast first.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    checks.history(x.shape)
    b, frames, h, w, channels = x.shape
    check_modes(self, (h, w))
    dtype, features = jnp.dtype(self.dtype), self.features
    encode = dense(features, frames, dtype, name="encode")
    decode = dense(frames, features, dtype, name="decode")
    matrices = self.param(
      "matrices",
      uniform_from_zero(1 / features**2),
      (2, self.modes_h, self.modes_w, features, features),
      jnp.float32,
    )
    x = x.transpose(0, 4, 2, 3, 1).reshape(b * channels, h, w, frames)
    observed = jnp.tanh(encode(x.astype(dtype)))
    y = observed.astype(jnp.float32)
    for _ in range(self.steps):
      y = y + map_modes(y, matrices, matrices)
      y = y if self.linear else jnp.tanh(y)
    passed = dense(features, features, dtype, name="pass")(observed)
    if self.batch_norm:
      passed = BatchNorm(name="norm")(passed, train)
    y = SHARE * jnp.tanh(passed + y.astype(dtype))

    def fields(y):
      y = y.astype(jnp.float32).reshape(b, channels, h, w, frames)
      return y.transpose(0, 4, 2, 3, 1)

    return fields(decode(y)), fields(decode(observed))
