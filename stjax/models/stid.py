"""STID: every node on its own, told which node and what time it is.

Shao et al. 2022, "Spatial-Temporal Identity: A Simple yet Effective Baseline
for Multivariate Time Series Forecasting", as CoST (arXiv 2502.11013) uses it:
`STID` forecasts the mean, `denoisers.stid.STIDDenoiser` is the same network
within a diffusion model. A grid's points are the nodes; none sees another one.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers.common import dense
from stjax.models.layers import checks
from stjax.models.layers.folding import fold_frames, unfold_frames


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
    checks.at_least(self, horizon=1, embed_dim=1, node_dim=0, num_layers=0)
    checks.rate(self, "dropout")
    super().__post_init__()

  @property
  def extra_inputs(self) -> tuple[str, ...]:
    """What it reads of a batch besides frames, each a keyword argument."""
    return ("calendar",) if self.calendar_names else ()

  @nn.compact
  def identity(
    self, grid: tuple[int, int, int], calendar: jax.Array | None
  ) -> list[jax.Array]:
    """Features that say which node it is and what time.

    Args:
      grid: (B, H, W).
      calendar: [B, K] integers, of the time that the window belongs to. A
        value beyond its table gives NaN, so that it cannot go unnoticed.

    Returns:
      Arrays [B, H, W, F], one for each table that the network has.
    """
    _, h, w = grid
    known = []
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
    dtype = jnp.dtype(self.dtype)
    return [
      jnp.broadcast_to(part, (*grid, part.shape[-1])).astype(dtype) for part in known
    ]

  @nn.compact
  def decode(
    self, x: jax.Array, identity: list[jax.Array], out_features: int, train: bool
  ) -> jax.Array:
    """The blocks behind the first layer.

    Args:
      x: [B, H, W, embed_dim], features of the window.
      identity: of `identity`.
      out_features: F_out.
      train: use dropout (random stream "dropout").

    Returns:
      [B, H, W, F_out] float32.
    """
    dtype = jnp.dtype(self.dtype)
    x = jnp.concatenate([x, *identity], axis=-1)
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

  @nn.compact
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
    window = fold_frames(x)
    b, h, w, fan_in = window.shape
    layer = dense(self.embed_dim, fan_in, jnp.dtype(self.dtype), name="window")
    y = self.decode(layer(window), self.identity((b, h, w), now), features, train)
    return unfold_frames(y, self.horizon)
