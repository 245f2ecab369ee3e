"""ConvLSTM that reads the history and forecasts from the states of its last layer.

Shi et al. 2015, "Convolutional LSTM Network", as Triton's authors use it for a
baseline: the states after each frame of the history are the forecast of the
frame that is T frames later. SFP's authors make all frames of the forecast out of the
last state by a convolution.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.layers import checks
from stjax.models.layers.basic import Conv
from stjax.models.layers.folding import unfold_frames
from stjax.models.recurrent import Cell, States, lstm


class JointCell(Cell):
  """A convolutional LSTM with one convolution of input and hidden state."""

  @nn.compact
  def __call__(self, x: jax.Array, states: States) -> States:
    """Maps input [B, H, W, C] and states (h, c) to the new states."""
    h, c = states
    i, f, o, g = self.gates(jnp.concatenate([x, h], -1), 4, "gates")
    return lstm(i, f, g, o, c)


class Step(nn.Module):
  """One time step of all layers.

  Attributes:
    widths: channels of the layers' states.
    options: the other fields of `Cell`.
  """

  widths: tuple[int, ...]
  options: dict

  @nn.compact
  def __call__(self, carry: tuple[States, ...], x: jax.Array):
    """Maps states of the layers and a frame to new states and the last h."""
    states = []
    for i, (width, old) in enumerate(zip(self.widths, carry, strict=True)):
      new = JointCell(width, **self.options, name=f"layer_{i}")(x, old)
      states.append(new)
      x = new[0]
    return tuple(states), x


class ConvLSTMStates(nn.Module):
  """Forecasts frames from the states that the history leaves behind.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    horizon: frames that a 3x3 convolution makes out of the last state; None means
      that the states after each frame of the history are the forecast, which then
      has as many frames, and values between -1 and 1.
    features: channels of the states, one number for all layers or one for each;
      None means those of the input. Without a horizon, the last layer is left out,
      as its states are the forecast.
    depth: number of layers.
    kernel_size: odd kernel size of the convolutions, one number or (H, W).
    use_bias: whether the convolutions have biases.
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: whether the backward pass recomputes each time step.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  horizon: int | None = None
  features: int | Sequence[int] | None = None
  depth: int = 6
  kernel_size: int | tuple[int, int] = 3
  use_bias: bool = True
  padding_mode: str = "zeros"
  remat: bool = True
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1, depth=1, horizon=1)
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    if any(size % 2 == 0 for size in checks.pair(self, "kernel_size")):
      raise NetworkError(
        f"model.kernel_size is {self.kernel_size}; expected odd numbers"
      )
    widths = self._widths(1)
    if len(widths) != self.depth or min(widths) < 1:
      raise NetworkError(
        f"model.features is {self.features}; expected one number of channels "
        f"for all layers{'' if self.horizon else ' but the last'}, or one each: "
        f"{self._free_layers} as model.depth is {self.depth}"
      )
    super().__post_init__()

  @property
  def _free_layers(self) -> int:
    """Number of layers whose width does not follow from the forecast."""
    return self.depth if self.horizon else self.depth - 1

  def _widths(self, channels: int) -> tuple[int, ...]:
    features = channels if self.features is None else self.features
    if not isinstance(features, Sequence):
      features = (features,) * self._free_layers
    last = () if self.horizon else (self.out_channels or channels,)
    return (*features, *last)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: makes no difference, as nothing here depends on the mode.

    Returns:
      [B, T or horizon, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    del train
    checks.history(x.shape)
    dtype = jnp.dtype(self.dtype)
    batch, _, h, w, channels = x.shape
    widths = self._widths(channels)
    zeros = [jnp.zeros((batch, h, w, width), dtype) for width in widths]
    step = nn.remat(Step, prevent_cse=False) if self.remat else Step
    scanned = nn.scan(
      step,
      variable_broadcast="params",
      split_rngs={"params": False},
      in_axes=1,
      out_axes=1,
    )(
      widths,
      {
        "kernel_size": checks.pair(self, "kernel_size"),
        "layer_norm": False,
        "padding_mode": self.padding_mode,
        "dtype": dtype,
        "use_bias": self.use_bias,
      },
      name="step",
    )
    _, y = scanned(tuple((z, z) for z in zeros), x.astype(dtype))
    if self.horizon:
      made = Conv(
        self.horizon * (self.out_channels or channels),
        3,
        padding_mode=self.padding_mode,
        dtype=dtype,
        name="readout",
      )(y[:, -1])
      y = unfold_frames(made, self.horizon)
    return y.astype(jnp.float32)
