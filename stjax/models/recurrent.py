"""Recurrent baselines: ConvLSTM and PredRNN, as in OpenSTL.

Shi et al. 2015, "Convolutional LSTM Network"; Wang et al. 2017, "PredRNN",
eqs. 4-5. Frames are cut into patches, whose pixels become channels, and one
step of the network maps a frame to the next one. OpenSTL's ConvLSTM cells hold
weights that they never use (conv_o, conv_last). They are left out here; in its
Moving MNIST configuration they are 3.4 of 15.1 million.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.layers import checks
from stjax.models.layers.basic import Conv, LayerNorm

States = tuple[jax.Array, ...]


def to_patches(x: jax.Array, patch: int) -> jax.Array:
  """Maps [..., H, W, C] to [..., H / p, W / p, p p C], patches row by row."""
  *batch, h, w, c = x.shape
  n = len(batch)
  x = x.reshape(*batch, h // patch, patch, w // patch, patch, c)
  return x.swapaxes(n + 1, n + 2).reshape(
    *batch, h // patch, w // patch, patch * patch * c
  )


def from_patches(x: jax.Array, patch: int) -> jax.Array:
  """Maps [..., h, w, p p C] to [..., h p, w p, C]; the inverse of `to_patches`."""
  *batch, h, w, c = x.shape
  n = len(batch)
  c //= patch * patch
  x = x.reshape(*batch, h, w, patch, patch, c)
  return x.swapaxes(n + 1, n + 2).reshape(*batch, h * patch, w * patch, c)


class Cell(nn.Module):
  """Base of the cells, with the convolutions of their gates.

  Attributes:
    features: channels of the states.
    kernel_size: odd kernel size of the convolutions.
    layer_norm: whether a norm over the whole frame follows the convolutions.
    padding_mode: "zeros" or "circular".
    dtype: compute dtype.
    use_bias: whether the convolutions have biases.
  """

  features: int
  kernel_size: int | tuple[int, int]
  layer_norm: bool
  padding_mode: str
  dtype: jnp.dtype
  use_bias: bool = False

  def gates(self, x: jax.Array, number: int, name: str) -> list[jax.Array]:
    """Maps [B, h, w, C] to `number` arrays [B, h, w, features]."""
    x = Conv(
      number * self.features,
      self.kernel_size,
      use_bias=self.use_bias,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      name=name,
    )(x)
    if self.layer_norm:
      x = LayerNorm(axes=3, name=f"{name}_norm")(x)
    return jnp.split(x, number, axis=-1)


def lstm(i, f, g, o, c: jax.Array) -> States:
  """Returns the new states (h, c) from the gates, not yet activated, and c."""
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
  return nn.sigmoid(o) * nn.tanh(c), c


class ConvLSTMCell(Cell):
  """A convolutional LSTM without peepholes.

  Every layer has states of its own: the hidden state h and the cell state c.
  """

  OWN_STATES: ClassVar[int] = 2
  SHARED_STATES: ClassVar[int] = 0

  @nn.compact
  def __call__(self, x: jax.Array, own: States, shared: States):
    """Maps input [B, h, w, C] and states to the new states, h first."""
    h, c = own
    inputs = self.gates(x, 4, "input")
    recurrent = self.gates(h, 4, "recurrent")
    i, f, g, o = (a + b for a, b in zip(inputs, recurrent, strict=True))
    return lstm(i, f, g, o, c), shared


class SpatioTemporalCell(Cell):
  """PredRNN's ST-LSTM.

  Every layer has its own h and c. The memory m is shared: it goes through all
  layers, and from the last one on to the next time step.
  """

  OWN_STATES: ClassVar[int] = 2
  SHARED_STATES: ClassVar[int] = 1
  FORGET_BIAS: ClassVar[float] = 1.0

  @nn.compact
  def __call__(self, x: jax.Array, own: States, shared: States):
    """Maps input [B, h, w, C] and states to the new states, h first."""
    (h, c), (m,) = own, shared
    i_x, f_x, g_x, i_xm, f_xm, g_xm, o_x = self.gates(x, 7, "input")
    i_h, f_h, g_h, o_h = self.gates(h, 4, "recurrent")
    i_m, f_m, g_m = self.gates(m, 3, "memory")
    forget = nn.sigmoid(f_x + f_h + self.FORGET_BIAS)
    c = forget * c + nn.sigmoid(i_x + i_h) * nn.tanh(g_x + g_h)
    forget = nn.sigmoid(f_xm + f_m + self.FORGET_BIAS)
    m = forget * m + nn.sigmoid(i_xm + i_m) * nn.tanh(g_xm + g_m)
    both = jnp.concatenate([c, m], axis=-1)
    (o_both,) = self.gates(both, 1, "output")
    mixed = Conv(self.features, 1, use_bias=False, dtype=self.dtype, name="mix")(both)
    h = nn.sigmoid(o_x + o_h + o_both) * nn.tanh(mixed)
    return (h, c), (m,)


class Step(nn.Module):
  """One time step of all layers.

  Attributes:
    cell: class of the cells.
    depth: number of layers.
    out_channels: channels of the forecast frame.
    options: fields of `Cell`.
  """

  cell: type[Cell]
  depth: int
  out_channels: int
  options: dict

  @nn.compact
  def __call__(self, carry, inputs):
    """Maps the states and a frame to the new states and the next frame.

    Args:
      carry: states of the layers, shared states, and the forecast
        [B, h, w, p p C] of the step before.
      inputs: the frame, and whether it is observed.

    Returns:
      The new carry, and the forecast of the next frame.
    """
    states, shared, forecast = carry
    frame, observed = inputs
    # Beyond the history, the network reads its own forecast.
    x = jnp.where(observed, frame, forecast)
    new_states = []
    for i, own in enumerate(states):
      cell = self.cell(**self.options, name=f"layer_{i}")
      own, shared = cell(x, own, shared)
      new_states.append(own)
      x = own[0]
    forecast = Conv(
      self.out_channels, 1, use_bias=False, dtype=self.options["dtype"], name="readout"
    )(x)
    return (tuple(new_states), shared, forecast), forecast


class Recurrent(nn.Module):
  """Reads the history frame by frame, then goes on with its own forecasts.

  Attributes:
    horizon: number of frames to forecast.
    features: channels of the states.
    depth: number of layers.
    kernel_size: odd kernel size of the cells' convolutions.
    patch_size: side of the patches that frames are cut into.
    layer_norm: whether norms follow the cells' convolutions; with them, the
      parameters fit one grid only.
    padding_mode: "zeros" or "circular".
    remat: whether the backward pass recomputes each time step.
    dtype: compute dtype; parameters and the result stay float32.
  """

  horizon: int
  features: int = 128
  depth: int = 4
  kernel_size: int = 5
  patch_size: int = 4
  layer_norm: bool = False
  padding_mode: str = "zeros"
  remat: bool = True
  dtype: str | jnp.dtype = "float32"

  CELL: ClassVar[type[Cell]]

  def __post_init__(self):
    checks.at_least(self, horizon=1, features=1, depth=1, patch_size=1)
    checks.odd(self, "kernel_size")
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of
        patch_size.
      train: makes no difference, as nothing here depends on the mode.

    Returns:
      [B, horizon, H, W, C] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    del train
    checks.history(x.shape)
    checks.tiled(x.shape[2:4], (self.patch_size, self.patch_size))
    dtype = jnp.dtype(self.dtype)
    frames = to_patches(x.astype(dtype), self.patch_size).swapaxes(0, 1)
    history, *shape = frames.shape
    # The step that reads the last frame of the history makes the first forecast.
    steps = history + self.horizon - 1
    frames = jnp.pad(frames, ((0, self.horizon - 1), *((0, 0),) * 4))
    zeros = jnp.zeros((*shape[:-1], self.features), dtype)
    carry = (
      ((zeros,) * self.CELL.OWN_STATES,) * self.depth,
      (zeros,) * self.CELL.SHARED_STATES,
      jnp.zeros(shape, dtype),
    )
    step = nn.remat(Step, prevent_cse=False) if self.remat else Step
    scanned = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})(
      self.CELL,
      self.depth,
      shape[-1],
      {
        "features": self.features,
        "kernel_size": self.kernel_size,
        "layer_norm": self.layer_norm,
        "padding_mode": self.padding_mode,
        "dtype": dtype,
      },
      name="step",
    )
    _, forecasts = scanned(carry, (frames, jnp.arange(steps) < history))
    forecasts = forecasts[history - 1 :].swapaxes(0, 1)
    return from_patches(forecasts, self.patch_size).astype(jnp.float32)


class ConvLSTM(Recurrent):
  """Layers of convolutional LSTM cells; see `Recurrent` for the options."""

  CELL = ConvLSTMCell


class PredRNN(Recurrent):
  """Layers of spatiotemporal LSTM cells; see `Recurrent` for the options."""

  CELL = SpatioTemporalCell
