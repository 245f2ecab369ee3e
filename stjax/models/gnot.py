"""GNOT: linear attention among points, and of points to input functions.

Hao et al. 2023, "GNOT: A General Neural Operator Transformer for Operator
Learning". `GNOTCore` takes points anywhere; `GNOT` puts it on a grid.
"""

import functools
from collections.abc import Callable, Sequence

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.denoisers.common import dense
from stjax.models.fno import coordinates
from stjax.models.layers import checks
from stjax.models.layers.basic import LayerNorm
from stjax.models.layers.folding import unfold_frames
from stjax.models.translators.metaformer import gelu

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": gelu,
  "relu": nn.relu,
  "sigmoid": nn.sigmoid,
  "tanh": nn.tanh,
}


class ResidualMlp(nn.Module):
  """A layer, more layers with skips around them, and a layer to the result.

  All but the last are followed by the activation.

  Attributes:
    features: features of the result.
    hidden: hidden width.
    depth: number of layers with skips.
    activation: key of `ACTIVATIONS`.
    dtype: compute dtype.
  """

  features: int
  hidden: int
  depth: int
  activation: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., F] to [..., features]."""
    activate = ACTIVATIONS[self.activation]
    x = activate(dense(self.hidden, x.shape[-1], self.dtype, name="first")(x))
    for i in range(self.depth):
      y = dense(self.hidden, self.hidden, self.dtype, name=f"middle_{i}")(x)
      x = activate(y) + x
    return dense(self.features, self.hidden, self.dtype, name="last")(x)


class Layers(nn.Module):
  """Linear layers with an activation between them.

  Attributes:
    widths: features of each layer's result.
    activation: key of `ACTIVATIONS`.
    dtype: compute dtype.
  """

  widths: tuple[int, ...]
  activation: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., F] to [..., widths[-1]]."""
    for i, width in enumerate(self.widths):
      x = ACTIVATIONS[self.activation](x) if i else x
      x = dense(width, x.shape[-1], self.dtype, name=f"layer_{i}")(x)
    return x


class LinearAttention(nn.Module):
  """Attention of points to one or several sets of tokens (section 3.2).

  Queries and keys are softmaxes over their features. So what a set of tokens
  gives a query is q (k^T v) / (q . sum of k), at a cost that is linear in the
  number of points and of tokens. The queries are added to the results.

  Attributes:
    heads: number of heads, which must divide the width.
    dtype: compute dtype.
  """

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array, sets: Sequence[jax.Array]) -> jax.Array:
    """Maps points [B, N, F] to the same shape.

    Args:
      x: [B, N, F].
      sets: arrays [B, L, F], each with its own L.
    """
    width = x.shape[-1]

    def make(tokens, name):
      y = dense(width, width, self.dtype, name=name)(tokens)
      return einops.rearrange(y, "b n (h d) -> b h n d", h=self.heads)

    def shares(y):
      return jax.nn.softmax(y.astype(jnp.float32), axis=-1)

    q = shares(make(x, "query"))
    queries = q.astype(self.dtype)
    result = queries
    for i, tokens in enumerate(sets):
      k, v = shares(make(tokens, f"key_{i}")), make(tokens, f"value_{i}")
      # The sum over the tokens stays in float32, as there may be many.
      total = jnp.einsum("bhnd,bhd->bhn", q, k.sum(-2))[..., None]
      context = jnp.einsum("bhld,bhle->bhde", k.astype(self.dtype), v)
      result = result + (queries @ context / total).astype(self.dtype)
    result = einops.rearrange(result, "b h n d -> b n (h d)")
    return dense(width, width, self.dtype, name="project")(result)


class Block(nn.Module):
  """Attention to the input functions, then among the points.

  A mixture of experts follows each of them, weighed by the place of a point
  alone (section 3.3).

  Attributes:
    heads: heads of the attentions.
    experts: number of experts.
    mlp_ratio: hidden width of the experts and of their gate over the width.
    activation: key of `ACTIVATIONS`.
    dropout: rate after each attention.
    dtype: compute dtype.
  """

  heads: int
  experts: int
  mlp_ratio: int
  activation: str
  dropout: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: jax.Array, branches: Sequence[jax.Array], place: jax.Array, train: bool
  ) -> jax.Array:
    """Maps points [B, N, F] to the same shape.

    Args:
      x: [B, N, F].
      branches: tokens [B, L, F] of each input function.
      place: [B, N, D] coordinates.
      train: whether to use dropout.
    """
    width = x.shape[-1]
    hidden = self.mlp_ratio * width
    layers = functools.partial(Layers, activation=self.activation, dtype=self.dtype)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    gate = layers((hidden, hidden, self.experts), name="gate")(place)
    gate = jax.nn.softmax(gate.astype(jnp.float32), axis=-1).astype(self.dtype)

    def norm(number, y):
      return LayerNorm(name=f"norm_{number}")(y)

    def mixture(y, name):
      return sum(
        gate[..., i, None] * layers((hidden, width), name=f"{name}_{i}")(y)
        for i in range(self.experts)
      )

    def attend(y, sets, name):
      return drop(LinearAttention(self.heads, self.dtype, name=name)(y, sets))

    branches = [
      LayerNorm(name=f"norm_branch_{i}")(tokens) for i, tokens in enumerate(branches)
    ]
    x = x + attend(norm(1, x), branches, "cross_attention")
    x = x + norm(3, mixture(x, "first_expert"))
    y = norm(4, x)
    x = x + attend(y, [y], "self_attention")
    return x + norm(5, mixture(x, "second_expert"))


class GNOTCore(nn.Module):
  """Maps features of points, given input functions, to features of the points.

  Attributes:
    out_features: features of the result.
    features: width of the layers, a multiple of `heads`.
    depth: number of blocks.
    heads: heads of the attentions.
    experts: experts of each mixture.
    mlp_ratio: hidden width of the experts and of their gate over the width.
    mlp_depth: layers with skips in the MLPs before and after the blocks.
    activation: key of `ACTIVATIONS`; the last MLP always has GELUs.
    dropout: rate after each attention.
    place_features: number of coordinates of a point, its first features.
    remat: whether the backward pass recomputes the blocks.
    dtype: compute dtype.
  """

  out_features: int
  features: int = 64
  depth: int = 2
  heads: int = 1
  experts: int = 2
  mlp_ratio: int = 4
  mlp_depth: int = 2
  activation: str = "gelu"
  dropout: float = 0.0
  place_features: int = 2
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    points: jax.Array,
    branches: Sequence[jax.Array],
    parameters: jax.Array | None = None,
    train: bool = False,
  ) -> jax.Array:
    """Maps points [B, N, F] to [B, N, out_features] in the compute dtype.

    Args:
      points: [B, N, F], of which the coordinates come first. All N points see
        each other, also those that only fill up a batch.
      branches: tokens [B, L, F_i] of each input function, with its own L.
      parameters: [B, P] numbers that hold for all points, or None.
      train: whether to use dropout (random stream "dropout").
    """
    place = points[..., : self.place_features]
    if parameters is not None:
      shape = (*points.shape[:2], parameters.shape[-1])
      parameters = jnp.broadcast_to(parameters[:, None], shape)
      points = jnp.concatenate([points, parameters], axis=-1)
    mlp = functools.partial(
      ResidualMlp, hidden=self.features, depth=self.mlp_depth, dtype=self.dtype
    )
    embed = functools.partial(mlp, self.features, activation=self.activation)
    x = embed(name="points")(points)
    branches = [embed(name=f"branch_{i}")(tokens) for i, tokens in enumerate(branches)]
    block = nn.remat(Block, static_argnums=(4,)) if self.remat else Block
    for i in range(self.depth):
      x = block(
        self.heads,
        self.experts,
        self.mlp_ratio,
        self.activation,
        self.dropout,
        self.dtype,
        name=f"block_{i}",
      )(x, branches, place, train)
    return mlp(self.out_features, activation="gelu", name="readout")(x)


class GNOT(nn.Module):
  """Forecasts every point of a grid from all points of all frames.

  The points are the pixels, with row, column and the values of the newest
  frame. Each frame of the history, the newest one too, is an input function of
  its own: its pixels with row, column and values. The cost is linear in the
  number of pixels. The parameters fit any grid, but one length of the history.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    horizon: frames of the forecast; None means as many as the history has.
    features: width of the layers, a multiple of `heads`.
    depth: number of blocks.
    heads: heads of the attentions.
    experts: experts of each mixture, which divide the places among them.
    mlp_ratio: hidden width of the experts and of their gate over the width, a
      whole number.
    mlp_depth: layers with skips in the MLPs before and after the blocks.
    activation: "gelu", "relu", "sigmoid" or "tanh".
    dropout: rate after each attention.
    remat: whether the backward pass recomputes the blocks, to save memory.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  horizon: int | None = None
  features: int = 64
  depth: int = 2
  heads: int = 1
  experts: int = 2
  mlp_ratio: int = 4
  mlp_depth: int = 2
  activation: str = "gelu"
  dropout: float = 0.0
  remat: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    options = ("out_channels", "horizon", "depth", "heads", "experts", "mlp_ratio")
    checks.at_least(self, **dict.fromkeys(options, 1), mlp_depth=0)
    checks.multiple_of(self, "features", "heads")
    checks.one_of(self, "activation", tuple(ACTIVATIONS))
    checks.rate(self, "dropout")
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: whether to use dropout (random stream "dropout").

    Returns:
      [B, horizon, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the input has other axes.
    """
    checks.history(x.shape)
    b, frames, h, w, channels = x.shape
    dtype = jnp.dtype(self.dtype)
    horizon = self.horizon or frames
    place = jnp.broadcast_to(coordinates(h, w), (b, frames, h, w, 2))
    x = jnp.concatenate([place, x], axis=-1).astype(dtype)
    functions = list(x.reshape(b, frames, h * w, -1).swapaxes(0, 1))
    y = GNOTCore(
      horizon * (self.out_channels or channels),
      self.features,
      self.depth,
      self.heads,
      self.experts,
      self.mlp_ratio,
      self.mlp_depth,
      self.activation,
      self.dropout,
      remat=self.remat,
      dtype=dtype,
      name="core",
    )(functions[-1], functions, train=train)
    return unfold_frames(y.reshape(b, h, w, -1), horizon).astype(jnp.float32)
