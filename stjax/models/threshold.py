"""A one-frame network for local rules with thresholds.

Many fields change smoothly until a cell passes a threshold (boiling, freezing,
failure). Smooth activations blur that step, and once a forecast is fed back,
each blurred cell spoils its neighbours, too. Here the field goes through a
linear convolution, and only then through gates whose steepness is learned:
sigmoid(exp(s) (a x + b)).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers.basic import Conv, torch_conv_default


class ThresholdRule(nn.Module):
  """Forecasts the next frame from the newest one.

  z = convolution(x); g = gates(z); forecast = linear(z, g).

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    features: number of linear features z of each cell's neighbourhood.
    gates: number of gates.
    kernel_size: odd size of the neighbourhood.
    hard: whether the gates are steps in the forward pass, with the gradient of
      the sigmoid in the backward pass (a straight-through estimator).
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  out_channels: int | None = None
  features: int = 16
  gates: int = 16
  kernel_size: int = 3
  hard: bool = False
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps [B, T, H, W, C] to [B, 1, H, W, C_out]."""
    del train
    if self.kernel_size % 2 == 0:
      raise NetworkError(
        f"model.kernel_size={self.kernel_size} must be odd, so that a cell"
        " has a neighbourhood around it."
      )
    newest = x[:, -1].astype(self.dtype)
    options = dict(
      dtype=self.dtype, kernel_init=torch_conv_default, padding_mode="zeros"
    )
    field = Conv(
      self.features,
      self.kernel_size,
      name="neighbourhood",
      **options | {"padding_mode": self.padding_mode},
    )(newest)
    level = Conv(
      self.gates,
      1,
      name="level",
      # Gates begin with different thresholds, so that they learn different ones.
      bias_init=nn.initializers.normal(1.0),
      **options,
    )(field)
    steepness = self.param("steepness", nn.initializers.zeros, (self.gates,))
    gate = nn.sigmoid(jnp.exp(steepness).astype(self.dtype) * level)
    if self.hard:
      step = (level > 0).astype(self.dtype)
      gate = gate + jax.lax.stop_gradient(step - gate)
    forecast = Conv(self.out_channels or x.shape[-1], 1, name="combine", **options)(
      jnp.concatenate([field, gate], axis=-1)
    )
    return forecast[:, None]
