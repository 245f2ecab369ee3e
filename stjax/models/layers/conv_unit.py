"""A convolution with norm, activation and dropout: the unit of many networks."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.layers.basic import BatchNorm, Conv


def leaky_relu(x: jax.Array, slope: float) -> jax.Array:
  """Returns x where it is positive and slope * x elsewhere.

  The derivative at 0 is the slope, as in torch (`nn.leaky_relu` has 1 there).
  """
  return jnp.where(x > 0, x, slope * x)


class ConvUnit(nn.Module):
  """Convolution, BatchNorm, leaky ReLU, dropout.

  Attributes:
    features: output channels.
    kernel_size: odd size of the kernel.
    stride: stride of the convolution.
    use_bias: whether the convolution has a bias.
    batch_norm: whether to normalise.
    slope: slope of the activation for negative values; 0 makes it a ReLU, and
      None leaves it out.
    dropout: rate of the dropout.
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


class DoubleConv(nn.Module):
  """Two units of convolution, BatchNorm and ReLU.

  Attributes:
    features: output channels.
    hidden: channels between the units; None means the output channels.
    use_bias: whether the convolutions have biases.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
  """

  features: int
  hidden: int | None = None
  use_bias: bool = True
  padding_mode: str = "zeros"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H, W, features]."""
    options = dict(padding_mode=self.padding_mode, dtype=self.dtype, slope=0.0)
    options["use_bias"] = self.use_bias
    widths = {"first": self.hidden or self.features, "second": self.features}
    for name, width in widths.items():
      x = ConvUnit(width, **options, name=name)(x, train)
    return x


def unit_class(remat: bool, module: type[nn.Module] = ConvUnit):
  """Returns a module class, wrapped if the backward pass recomputes it.

  Args:
    remat: whether the backward pass recomputes the module.
    module: class whose calls have the arguments (x, train).
  """
  return nn.remat(module, static_argnums=(2,)) if remat else module
