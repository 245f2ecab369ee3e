"""UNO: a U-shaped neural operator on a grid.

Rahman et al. 2023, "U-NO: U-shaped Neural Operators", in the three versions
that SFP is compared with.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers.common import dense
from stjax.models.fno import Layer, coordinates
from stjax.models.layers import checks
from stjax.models.layers.folding import fold_frames, unfold_frames
from stjax.models.translators.metaformer import gelu

Grid = tuple[int, int]
# The width of each layer but the last over `factor` times the network's width.
WIDTHS = (2, 4, 8, 8, 4, 2)
DEPTH = len(WIDTHS) + 1


class Variant(NamedTuple):
  """One of the original's networks.

  Attributes:
    factor: its `UNO.factor`.
    shares: size of each layer's grid over that of the padded field; None means
      `UNO.factor`.
    modes: modes of each layer along H and along W.
    lift: width of the first map; None means half the network's width.
    readout: hidden width of the readout over the network's width.
    skip: whether the readout also sees the result of the first map.
  """

  factor: float
  shares: tuple[float | None, ...]
  modes: tuple[Grid, ...]
  lift: int | None
  readout: int
  skip: bool


def _square(*modes: int) -> tuple[Grid, ...]:
  return tuple((number, number) for number in modes)


VARIANTS = {
  "standard": Variant(
    factor=3 / 4,
    shares=(None, 1 / 2, 1 / 4, 1 / 4, 1 / 2, None, 1),
    modes=_square(22, 14, 6, 6, 6, 14, 22),
    lift=None,
    readout=4,
    skip=False,
  ),
  "p": Variant(
    factor=1,
    shares=(1 / 2, 1 / 4, 1 / 8, 1 / 8, 1 / 4, 1 / 2, 1),
    modes=_square(14, 6, 3, 3, 3, 6, 14),
    lift=None,
    readout=3,
    skip=True,
  ),
  "s256": Variant(
    factor=1,
    shares=(1 / 4, 1 / 16, 1 / 32, 1 / 32, 1 / 16, 1 / 4, 1),
    modes=((32, 33), (8, 9), (4, 5), (4, 5), (4, 5), (8, 9), (32, 32)),
    lift=16,
    readout=3,
    skip=True,
  ),
}


def kernel_init(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
  """Draws real and imaginary parts of variance 1 / (4 C_in).

  Args:
    key: random key.
    shape: [2, M_h, M_w, C_in, C_out].
    dtype: dtype of the result.
  """
  return jax.random.normal(key, shape, dtype) / (2 * shape[-2] ** 0.5)


class UNO(nn.Module):
  """Forecasts from all frames of the history, as channels, and from the place.

  Seven spectral layers map the field to ever coarser grids and back; the last
  three also see the result of an earlier layer. The places of the pixels are
  inputs as sines and cosines of one turn along each axis.

  Attributes:
    horizon: frames of the forecast.
    out_channels: channels of the forecast; None means those of the input.
    variant: key of `VARIANTS`, which says grids and modes: "standard" (the
      original's UNO), "p" (UNO_P), or "s256" (UNO_S256).
    features: width of the first and of the last layer.
    factor: the widths of the other layers are 2, 4, 8, 8, 4 and 2 times
      `factor * features`, rounded down. In the standard variant, it is also the
      size of the first layer's grid over that of the field. None means the
      variant's own, 3/4 for the standard one and 1 for the others.
    padding: number of zeros on each side of the field.
    modes: (M_h, M_w) of each of the seven layers. None means the original's
      modes, for which padded fields need 30 x 56 pixels (standard), 28 x 52 (p)
      or 128 x 256 (s256). Where an axis of a smaller grid has too few for a
      layer, it then gets H // 2 of either sign along H, or W // 2 + 1 along W.
    instance_norm: whether the layers normalise each channel of each sample.
    legacy_crop: whether only the zeros below and to the right are cut off, as
      the released standard variant does. Its forecast then has `padding` rows
      and columns more than the field, so this is for comparisons only.
    dtype: compute dtype, which is always float32 between the Fourier
      transforms; parameters and the result stay float32.
  """

  horizon: int
  out_channels: int | None = None
  variant: str = "standard"
  features: int = 32
  factor: float | None = None
  padding: int = 0
  modes: Sequence[Grid] | None = None
  instance_norm: bool = False
  legacy_crop: bool = False
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, horizon=1, out_channels=1, features=2, padding=0)
    checks.one_of(self, "variant", tuple(VARIANTS))
    if min(self.widths) < 1:
      raise NetworkError(
        f"model.factor is {self.factor}, which leaves layers without channels; "
        f"expected at least {1 / (WIDTHS[0] * self.features):.3g}"
      )
    if self.modes is not None and (
      len(self.modes) != DEPTH
      or any(len(pair) != 2 or min(pair) < 1 for pair in self.modes)
    ):
      raise NetworkError(
        f"model.modes is {self.modes!r}; expected {DEPTH} pairs (M_h, M_w) of "
        "numbers, at least 1"
      )
    if self.legacy_crop and self.variant != "standard":
      raise NetworkError(
        f"model.legacy_crop is for model.variant='standard', not {self.variant!r}"
      )
    super().__post_init__()

  def _factor(self) -> float:
    return VARIANTS[self.variant].factor if self.factor is None else self.factor

  @property
  def widths(self) -> tuple[int, ...]:
    """Output channels of the layers."""
    factor = self._factor()
    return *(int(n * factor * self.features) for n in WIDTHS), self.features

  def grids(self, h: int, w: int) -> list[Grid]:
    """Returns the grids of the layers for fields of h x w pixels.

    Raises:
      NetworkError: a grid has no pixels.
    """
    padded = [size + 2 * self.padding for size in (h, w)]
    grids = []
    for i, share in enumerate(VARIANTS[self.variant].shares):
      share = self._factor() if share is None else share
      rows, columns = (int(size * share) for size in padded)
      if min(rows, columns) < 1:
        raise NetworkError(
          f"layer {i} of model.variant={self.variant!r} has {rows} x {columns} "
          f"pixels for a field of {h} x {w}; expected at least 1 x 1: choose "
          "another variant, or add zeros by model.padding"
        )
      grids.append((rows, columns))
    return grids

  def layer_modes(self, h: int, w: int) -> list[Grid]:
    """Returns the modes (M_h, M_w) of the layers for fields of h x w pixels.

    Raises:
      NetworkError: a grid has no pixels, or fewer modes than were asked for.
    """
    grids = self.grids(h, w)
    # A layer has the modes that the grids before and after it share. The last
    # grid is that of the padded field, where the first layer begins.
    shared = [
      tuple(map(min, zip(*pair, strict=True)))
      for pair in zip([grids[-1], *grids], grids, strict=False)
    ]
    if self.modes is None:
      return [
        (rows if rows <= height else max(height // 2, 1), min(columns, width // 2 + 1))
        for (rows, columns), (height, width) in zip(
          VARIANTS[self.variant].modes, shared, strict=True
        )
      ]
    for i, ((rows, columns), (height, width)) in enumerate(
      zip(self.modes, shared, strict=True)
    ):
      if rows > height or columns > width // 2 + 1:
        raise NetworkError(
          f"model.modes has {rows} x {columns} modes for layer {i}, but its "
          f"smaller grid is {height} x {width}; expected at most {height} x "
          f"{width // 2 + 1}"
        )
    return list(self.modes)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: makes no difference, as nothing here depends on the mode.

    Returns:
      [B, horizon, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    del train
    checks.history(x.shape)
    h, w, channels = x.shape[2:]
    modes, grids = self.layer_modes(h, w), self.grids(h, w)
    variant, dtype, pad = VARIANTS[self.variant], jnp.dtype(self.dtype), self.padding

    def linear(x, features, name):
      return dense(features, x.shape[-1], dtype, name=name)(x)

    angles = 2 * jnp.pi * coordinates(h, w)
    place = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    x = fold_frames(x)
    place = jnp.broadcast_to(place, (*x.shape[:-1], 4))
    x = jnp.concatenate([x, place], axis=-1).astype(dtype)
    lifted = gelu(linear(x, variant.lift or self.features // 2, "lift_0"))
    x = gelu(linear(lifted, self.features, "lift_1"))
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    skips = [x]
    for i, (pair, width, grid) in enumerate(
      zip(modes, self.widths, grids, strict=True)
    ):
      x = Layer(
        pair,
        activate=True,
        dtype=dtype,
        features=width,
        grid=grid,
        norm=self.instance_norm,
        kernel_init=kernel_init,
        name=f"layer_{i}",
      )(x)
      if i < 2:
        skips.append(x)
      elif i >= DEPTH - 3:
        x = jnp.concatenate([x, skips.pop()], axis=-1)
    first = 0 if self.legacy_crop else pad
    x = x[:, first : pad + h, first : pad + w]
    x = gelu(linear(x, variant.readout * self.features, "expand"))
    if variant.skip:
      x = jnp.concatenate([x, lifted], axis=-1)
    y = linear(x, self.horizon * (self.out_channels or channels), "readout")
    return unfold_frames(y, self.horizon).astype(jnp.float32)
