"""STID: every node on its own, told which node and what time it is.

Shao et al. 2022, "Spatial-Temporal Identity: A Simple yet Effective Baseline
for Multivariate Time Series Forecasting", as CoST (arXiv 2502.11013) uses it:
`STID` forecasts the mean, `STIDDenoiser` is the same network within a
diffusion model. A grid's points are the nodes; none sees another one.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers import common as denoisers
from stjax.models.denoisers.common import dense


def fold_frames(x: jax.Array) -> jax.Array:
  """Maps [B, T, H, W, C] to [B, H, W, T C], the channel innermost."""
  b, t, h, w, c = x.shape
  return jnp.moveaxis(x, 1, 3).reshape(b, h, w, t * c)


def unfold_frames(x: jax.Array, frames: int) -> jax.Array:
  """Maps [B, H, W, T C] to [B, T, H, W, C]; undoes `fold_frames`."""
  b, h, w, features = x.shape
  x = x.reshape(b, h, w, frames, features // frames)
  return jnp.moveaxis(x, 3, 1)


class Block(nn.Module):
  """x + contract(dropout(relu(expand(x)))), all of one width.

  Attributes:
    dropout: rate.
    dtype: compute dtype.
  """

  dropout: float
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [B, H, W, F] to the same shape."""
    features = x.shape[-1]
    h = nn.relu(dense(features, features, self.dtype, name="expand")(x))
    h = nn.Dropout(self.dropout)(h, deterministic=not train)
    return x + dense(features, features, self.dtype, name="contract")(h)


class NodeNetwork(nn.Module):
  """What `STID` and `STIDDenoiser` share.

  A node's window becomes `embed_dim` features; those of the node and of the
  time are looked up in tables and put behind them, and blocks follow. All
  nodes of a batch are rows of the same matrix products.

  Attributes:
    horizon: frames T_out to forecast.
    node_dim: features of a node's own; 0: none. Otherwise the network is for
      the grid that it was initialised with.
    embed_dim: features of the window.
    num_layers: number of blocks.
    calendar_names: what the columns of `calendar` mean, in their order, as
      data.calendar; () for a network that does not know the time. The names
      of the tables.
    calendar_sizes: number of values of each column.
    calendar_dims: features of each column.
    calendar_divisors: () to look up the values themselves; otherwise a number
      for each column, and trunc(value / divisor) is looked up. CoST's
      released denoiser looks up scaled values, slot / 24 and day / 7, so that
      it sees row 0 of its tables: (24, 7) for its weights.
    dropout: rate within the blocks.
    remat: recompute the blocks in the backward pass.
    dtype: compute dtype; parameters and the result stay float32.
  """

  horizon: int
  node_dim: int = 32
  embed_dim: int = 32
  num_layers: int = 4
  calendar_names: tuple[str, ...] = ()
  calendar_sizes: tuple[int, ...] = ()
  calendar_dims: tuple[int, ...] = ()
  calendar_divisors: tuple[int, ...] = ()
  dropout: float = 0.15
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    names = tuple(self.calendar_names)
    for option in ("names", "sizes", "dims", "divisors"):
      # Lists come out of JSON; modules must be hashable.
      option = f"calendar_{option}"
      values = tuple(getattr(self, option))
      setattr(self, option, values)
      if option == "calendar_divisors" and not values:
        continue
      if len(values) != len(names):
        raise NetworkError(
          f"model.{option} is {values}; expected {len(names)} values, one for "
          f"each of model.calendar_names = {names}, the columns of data.calendar"
        )
      if option != "calendar_names" and min(values, default=1) < 1:
        raise NetworkError(f"model.{option} is {values}; expected numbers from 1 on")
    if len(set(names)) != len(names):
      raise NetworkError(f"model.calendar_names is {names}; expected different names")
    for option in ("horizon", "embed_dim"):
      if getattr(self, option) < 1:
        raise NetworkError(
          f"model.{option} is {getattr(self, option)}; expected at least 1"
        )
    for option in ("node_dim", "num_layers"):
      if getattr(self, option) < 0:
        raise NetworkError(
          f"model.{option} is {getattr(self, option)}; expected at least 0"
        )
    if not 0 <= self.dropout < 1:
      raise NetworkError(f"model.dropout is {self.dropout}; expected 0 <= dropout < 1")
    super().__post_init__()

  @property
  def extra_inputs(self) -> tuple[str, ...]:
    """What it reads of a batch besides frames, each a keyword argument."""
    return ("calendar",) if self.calendar_names else ()

  @nn.compact
  def rows(
    self,
    window: jax.Array,
    out_features: int,
    train: bool = False,
    *,
    calendar: jax.Array | None = None,
    sinusoids: jax.Array | None = None,
  ) -> jax.Array:
    """The network on the features of each node's window.

    Args:
      window: [B, H, W, F].
      out_features: F_out.
      train: use dropout (random stream "dropout").
      calendar: [B, K] integers, of the time that the window belongs to. A
        value beyond its table gives NaN, so that it cannot go unnoticed.
      sinusoids: [B, F_step] of the diffusion step, if there is one.

    Returns:
      [B, H, W, F_out] float32.
    """
    dtype = jnp.dtype(self.dtype)
    b, h, w, features = window.shape
    window = window.astype(dtype)
    x = dense(self.embed_dim, features, dtype, name="window")(window)
    if sinusoids is not None:
      step = denoisers.StepEmbedding(dtype, name="step")(sinusoids)
      step = dense(self.embed_dim, step.shape[-1], dtype, name="step_readout")(step)
      x = x + step[:, None, None]
    known = [x]
    xavier = nn.initializers.xavier_uniform()
    if self.node_dim:
      shape = (h * w, self.node_dim)
      table = self.param("node_embedding", xavier, shape, jnp.float32)
      known.append(table.reshape(1, h, w, -1))
    for i, name in enumerate(self.calendar_names):
      shape = (self.calendar_sizes[i], self.calendar_dims[i])
      table = self.param(f"{name}_embedding", xavier, shape, jnp.float32)
      index = calendar[:, i]
      if self.calendar_divisors:
        index = index // self.calendar_divisors[i]
      row = (
        jnp.asarray(table)
        .at[index]
        .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
      )
      known.append(row[:, None, None])
    x = jnp.concatenate(
      [
        jnp.broadcast_to(part, (b, h, w, part.shape[-1])).astype(dtype)
        for part in known
      ],
      axis=-1,
    )
    block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    for i in range(self.num_layers):
      x = block(self.dropout, dtype, name=f"block_{i}")(x, train)
    y = dense(out_features, x.shape[-1], dtype, name="readout")(x)
    return y.astype(jnp.float32)

  def calendar_at(self, calendar: jax.Array | None, frame: int) -> jax.Array | None:
    """The calendar [B, K] of one frame.

    Args:
      calendar: [B, T, K] integers.
      frame: which frame's; the calendar must reach to it.

    Raises:
      NetworkError: no calendar, or one of other columns or too few frames.
    """
    names, sizes = self.calendar_names, self.calendar_sizes
    if not names:
      return None
    if calendar is None:
      raise NetworkError(
        f"model.calendar_sizes = {sizes} needs the calendar {names}, and none "
        f"came: set data.calendar = {names}, or model.calendar_names, _sizes "
        "and _dims to ()"
      )
    if calendar.ndim != 3 or calendar.shape[-1] != len(sizes):
      raise NetworkError(
        f"the calendar has shape {calendar.shape}; expected [B, T, "
        f"{len(sizes)}], a column for each of model.calendar_sizes = {sizes}: "
        f"set data.calendar = {names}"
      )
    if calendar.shape[1] <= frame:
      raise NetworkError(
        f"the calendar has {calendar.shape[1]} frames; expected at least "
        f"{frame + 1}, those of data.history and, for a denoiser, those of "
        "data.horizon"
      )
    return calendar[:, frame]


class STID(NodeNetwork):
  """Forecasts from each node's own history; see `NodeNetwork`.

  The time is that of the last history frame.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
  """

  out_channels: int | None = None

  def __call__(
    self, x: jax.Array, train: bool = False, *, calendar: jax.Array | None = None
  ) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T_in, H, W, C] history, normalised.
      train: use dropout (random stream "dropout").
      calendar: [B, >= T_in, K] integers, columns as `calendar_names`.

    Returns:
      [B, horizon, H, W, C_out] float32 forecast, normalised.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    if x.ndim != 5:
      raise NetworkError(f"the input has shape {x.shape}; expected [B, T, H, W, C]")
    now = self.calendar_at(calendar, x.shape[1] - 1)
    features = self.horizon * (self.out_channels or x.shape[-1])
    y = self.rows(fold_frames(x), features, train, calendar=now)
    return unfold_frames(y, self.horizon)


class STIDDenoiser(NodeNetwork):
  """Predicts a diffusion's noise from each node's own window.

  See `NodeNetwork` for the options that it shares with `STID`. The time is
  that of the window's last frame.

  Attributes:
    num_steps: steps of the diffusion, rows of the table of sines.
    step_dim: columns of that table and width of the layers behind it.
    step_table: "exact", or "float32" for CoST's released weights; see
      `denoisers.step_table`.
    full_window: the released layout: the window's T_in + T_out frames, each
      with the channels of [history | prior_shift] and those of [0 | noisy], and as
      many frames out, of which the last T_out are the prediction. Otherwise
      the features are those of history, prior_shift and noisy, one after the other,
      and only the prediction is computed.
  """

  denoises: ClassVar[bool] = True

  embed_dim: int = 128
  num_layers: int = 8
  num_steps: int = 50
  step_dim: int = 128
  step_table: str = "exact"
  full_window: bool = False

  def __post_init__(self):
    if self.num_steps < 1:
      raise NetworkError(f"model.num_steps is {self.num_steps}; expected at least 1")
    denoisers.step_table(1, self.step_dim, self.step_table)
    super().__post_init__()

  def sinusoids(self, step: jax.Array) -> jax.Array:
    """Rows [B, step_dim] of the table; NaN for steps that it has not."""
    table = denoisers.step_table(self.num_steps, self.step_dim, self.step_table)
    return (
      jnp.asarray(table)
      .at[step]
      .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    )

  def window(
    self,
    x: jax.Array,
    step: jax.Array,
    out_features: int,
    train: bool = False,
    *,
    calendar: jax.Array | None = None,
  ) -> jax.Array:
    """The network on the features of each node's window.

    Args:
      x: [B, H, W, F].
      step: [B] integers.
      out_features: F_out.
      train: use dropout.
      calendar: [B, T_in + T_out, K] integers.

    Returns:
      [B, H, W, F_out] float32.
    """
    last = None if calendar is None else calendar.shape[1] - 1
    return self.rows(
      x,
      out_features,
      train,
      calendar=self.calendar_at(calendar, last),
      sinusoids=self.sinusoids(step),
    )

  def __call__(
    self,
    noisy: jax.Array,
    step: jax.Array,
    history: jax.Array,
    prior_shift: jax.Array,
    train: bool = False,
    *,
    calendar: jax.Array | None = None,
  ) -> jax.Array:
    """Predicts what the diffusion is parameterised by, e.g. the noise.

    Args:
      noisy: [B, T_out, H, W, C] noisy residual.
      step: [B] (or []) integers, 0 .. num_steps - 1.
      history: [B, T_in, H, W, C], normalised.
      prior_shift: [B, T_out, H, W, C], what the diffusion is shifted by; 0: nothing.
      train: use dropout (random stream "dropout").
      calendar: [B, T_in + T_out, K] integers, columns as `calendar_names`.

    Returns:
      [B, T_out, H, W, C] float32.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    step = denoisers.check_inputs(noisy, step, history, prior_shift, self.horizon)
    channels, frames = noisy.shape[-1], history.shape[1] + self.horizon
    if calendar is not None and self.calendar_names:
      if calendar.ndim != 3 or calendar.shape[1] != frames:
        raise NetworkError(
          f"the calendar has shape {calendar.shape}; expected [B, {frames}, "
          f"{len(self.calendar_sizes)}]: all frames of history and horizon, "
          "columns as model.calendar_names and data.calendar"
        )
    if self.full_window:
      known = jnp.concatenate([history, prior_shift], axis=1)
      unknown = jnp.concatenate([jnp.zeros_like(history), noisy], axis=1)
      x = fold_frames(jnp.concatenate([known, unknown], axis=-1))
      y = self.window(x, step, frames * channels, train, calendar=calendar)
      return unfold_frames(y, frames)[:, -self.horizon :]
    x = jnp.concatenate(
      [fold_frames(part) for part in (history, prior_shift, noisy)], axis=-1
    )
    y = self.window(x, step, self.horizon * channels, train, calendar=calendar)
    return unfold_frames(y, self.horizon)
