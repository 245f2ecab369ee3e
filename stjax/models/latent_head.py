"""A head that makes latents of a world model out of another network's forecast."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv
from stjax.models.layers.conv_unit import leaky_relu


class LatentHead(nn.Module):
  """Forecasts latents: another network, and convolutions that coarsen its grid.

  Method "self_training" has a world model decode them.

  Attributes:
    backbone: module of inputs [B, T_in, H, W, C] -> [B, T_out, H, W, C].
    features: channels D of the latents, those of the world model (model.features).
    factor: how many times coarser their grid is, a power of 2: 2 to the power of half
      the world model's model.depth.
    dtype: compute dtype; parameters and the result stay float32.
  """

  forecasts_latents = True

  backbone: nn.Module
  features: int = 256
  factor: int = 2
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, features=1, factor=1)
    if self.factor & (self.factor - 1):
      raise NetworkError(f"model.factor is {self.factor}; expected a power of 2")
    super().__post_init__()

  @property
  def extra_inputs(self) -> tuple[str, ...]:
    """What the backbone reads besides the history."""
    return getattr(self.backbone, "extra_inputs", ())

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, **extra: jax.Array):
    """Maps [B, T_in, H, W, C] to latents [B, T_out, H / f, W / f, D], float32."""
    y = self.backbone(x, train=train, **extra)
    if y.shape[2] % self.factor or y.shape[3] % self.factor:
      raise NetworkError(
        f"the grid is {y.shape[2]} x {y.shape[3]}; expected multiples of"
        f" model.factor = {self.factor}: crop the data"
      )
    dtype = jnp.dtype(self.dtype)
    images = y.reshape(-1, *y.shape[2:]).astype(dtype)
    for i in range(round(math.log2(self.factor))):
      conv = Conv(self.features, 3, 2, padding=1, dtype=dtype, name=f"coarsen_{i}")
      images = leaky_relu(conv(images), 0.2)
    latents = Conv(self.features, 1, dtype=dtype, name="latents")(images)
    return latents.reshape(*y.shape[:2], *latents.shape[1:]).astype(jnp.float32)


def options(value: Any) -> Mapping[str, Any]:
  """The name and the options of a backbone, as a config has them.

  Raises:
    NetworkError: there is no name.
  """
  if not isinstance(value, Mapping) or "name" not in value:
    raise NetworkError(
      f"model.backbone={value!r} must name a network and its options, such as"
      " {'name': 'simvp', 'spatial_features': 16}"
    )
  return value
