"""Recurrent baselines: ConvLSTM and PredRNN, as in OpenSTL.

Shi et al. 2015, "Convolutional LSTM Network"; Wang et al. 2017, "PredRNN",
eqs. 4-5. Frames are cut into patches, which become channels; one step of the
network maps a frame to the next one. OpenSTL's ConvLSTM cells hold weights
that they never use (conv_o, conv_last): these are left out here, 3.4 of 15.1
million in its Moving MNIST configuration.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from stjax.errors import NetworkError
from stjax.models.layers.basic import Conv

States = tuple[jax.Array, ...]


def to_patches(x: jax.Array, patch: int) -> jax.Array:
  """Maps [..., H, W, C] to [..., H / p, W / p, p p C], a patch row by row."""
  *batch, h, w, c = x.shape
  n = len(batch)
  x = x.reshape(*batch, h // patch, patch, w // patch, patch, c)
  return x.swapaxes(n + 1, n + 2).reshape(
    *batch, h // patch, w // patch, patch * patch * c
  )


def from_patches(x: jax.Array, patch: int) -> jax.Array:
  """Maps [..., h, w, p p C] to [..., h p, w p, C]; undoes `to_patches`."""
  *batch, h, w, c = x.shape
  n = len(batch)
  c //= patch * patch
  x = x.reshape(*batch, h, w, patch, patch, c)
  return x.swapaxes(n + 1, n + 2).reshape(*batch, h * patch, w * patch, c)


class FrameNorm(nn.Module):
  """Normalises a whole frame; params "scale" and "bias" [h, w, C].

  Attributes:
    eps: added to the variance.
  """

  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, h, w, C] to the same shape and dtype."""
    shape = x.shape[1:]
    scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean((1, 2, 3), keepdims=True)
    var = jnp.square(centred).mean((1, 2, 3), keepdims=True)
    return (centred * lax.rsqrt(var + self.eps) * scale + bias).astype(x.dtype)


class Cell(nn.Module):
  """What the cells share: convolutions of the gates.

  Attributes:
    features: channels of the states.
    kernel_size: of the convolutions, odd.
    layer_norm: whether a `FrameNorm` follows each gate's convolution.
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
    """[B, h, w, C] -> `number` arrays [B, h, w, features]."""
    x = Conv(
      number * self.features,
      self.kernel_size,
      use_bias=self.use_bias,
      padding_mode=self.padding_mode,
      dtype=self.dtype,
      name=name,
    )(x)
    if self.layer_norm:
      x = FrameNorm(name=f"{name}_norm")(x)
    return jnp.split(x, number, axis=-1)


def lstm(i, f, g, o, c: jax.Array) -> States:
  """New states (h, c) of the gates before their activation and the old c."""
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * nn.tanh(g)
  return nn.sigmoid(o) * nn.tanh(c), c


class ConvLSTMCell(Cell):
  """A convolutional LSTM without peepholes.

  States: hidden h and cell c, of every layer its own.
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

  States: h and c of every layer its own, and the memory m, which goes through
  all layers and on to the next time step.
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
    out_channels: channels of the frame it returns.
    options: `Cell`'s fields.
  """

  cell: type[Cell]
  depth: int
  out_channels: int
  options: dict

  @nn.compact
  def __call__(self, carry, inputs):
    """(states, shared, last forecast), (frame, observed?) -> same, forecast.

    The forecast [B, h, w, p p C] of the step before takes the frame's place
    where no frame is observed.
    """
    states, shared, forecast = carry
    frame, observed = inputs
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
    kernel_size: of the cells' convolutions, odd.
    patch_size: side of the patches that frames are cut into.
    layer_norm: whether norms follow the cells' convolutions; they fix the
      grid.
    padding_mode: "zeros" or "circular".
    remat: recompute each time step in the backward pass.
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
    for option in ("horizon", "features", "depth", "patch_size"):
      if getattr(self, option) < 1:
        raise NetworkError(
          f"model.{option} is {getattr(self, option)}; expected at least 1"
        )
    if self.kernel_size < 1 or self.kernel_size % 2 == 0:
      raise NetworkError(
        f"model.kernel_size is {self.kernel_size}; expected an odd number"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised; H and W are multiples of
        patch_size.
      train: no difference; nothing here depends on the mode.

    Returns:
      [B, horizon, H, W, C] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    del train
    if x.ndim != 5:
      raise NetworkError(f"the input has shape {x.shape}; expected [B, T, H, W, C]")
    if x.shape[2] % self.patch_size or x.shape[3] % self.patch_size:
      raise NetworkError(
        f"the grid is {x.shape[2]} x {x.shape[3]}; expected multiples of "
        f"model.patch_size = {self.patch_size}: change it, or crop or pad the "
        "data"
      )
    dtype = jnp.dtype(self.dtype)
    frames = to_patches(x.astype(dtype), self.patch_size).swapaxes(0, 1)
    history, *shape = frames.shape
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
