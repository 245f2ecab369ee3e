"""What the converters of networks of single images share."""

from collections.abc import Mapping
from typing import Any

from stjax.convert.layout import LAYER, NORM
from stjax.convert.mapping import Entry
from stjax.errors import ConvertError


def unit(torch: str, path: str, conv: str, norm: str) -> tuple[Entry, Entry]:
  """The names of a `ConvUnit`.

  Args:
    torch: prefix of the torch names.
    path: of the unit here.
    conv: torch name of its convolution, after the prefix.
    norm: likewise, of its norm.
  """
  return (
    Entry(f"{torch}{conv}", f"{path}/conv", LAYER),
    Entry(f"{torch}{norm}", f"{path}/norm", NORM),
  )


def image_options(
  shape_in: tuple[int, int, int, int], in_channels: int, out_channels: int
) -> Mapping[str, Any]:
  """Where an original's frames go, by the channels that it was built for.

  Args:
    shape_in: (T, C, H, W) of one input.
    in_channels: of the images: T C, or C for one frame at a time.
    out_channels: of the resulting images.

  Returns:
    The options frames and out_channels, and in_shape (T, H, W, C).

  Raises:
    ConvertError: channels that do not follow from shape_in.
  """
  t, c, h, w = shape_in
  if in_channels not in (c, t * c):
    raise ConvertError(
      f"the network is for {in_channels} channels; shape_in {shape_in} gives "
      f"{t * c}, or {c} for one frame at a time"
    )
  images = t if in_channels == t * c else 1
  if out_channels % images:
    raise ConvertError(
      f"the network has {out_channels} output channels; expected a multiple of T = {t}"
    )
  return {
    "in_shape": (t, h, w, c),
    "frames": "channels" if images == t else "batch",
    "out_channels": out_channels // images,
  }
