"""A convolution with what commonly follows it; networks are built of these."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.layers.basic import BatchNorm, Conv


def leaky_relu(x: jax.Array, slope: float) -> jax.Array:
  """x where positive, else slope x; the derivative at 0 is the slope."""
  return jnp.where(x > 0, x, slope * x)


class ConvUnit(nn.Module):
  """Convolution, BatchNorm, leaky ReLU, dropout.

  Attributes:
    features: output channels.
    kernel_size: odd.
    stride: of the convolution.
    use_bias: of the convolution.
    batch_norm: whether to normalise.
    slope: of the activation where negative, 0 for ReLU; None: no activation.
    dropout: rate.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  use_bias: bool = True
  batch_norm: bool = True
  slope: float | None = 0.01
  dropout: float = 0.0
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H / stride, W / stride, features]."""
    x = Conv(
      self.features,
      self.kernel_size,
      self.stride,
      use_bias=self.use_bias,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      name="conv",
    )(x)
    if self.batch_norm:
      x = BatchNorm(name="norm")(x, train)
    if self.slope is not None:
      x = leaky_relu(x, self.slope)
    return nn.Dropout(self.dropout)(x, deterministic=not train)


def unit_class(remat: bool, module: type[nn.Module] = ConvUnit):
  """`module`, recomputed in the backward pass or not.

  Args:
    remat: whether.
    module: is called with (x, train).
  """
  return nn.remat(module, static_argnums=(2,)) if remat else module
