"""Names of LSM's weights in torch and here."""

from collections.abc import Mapping, Sequence
from typing import Any

from stjax.convert.layout import LAYER, NORM, PARAMETER, SPREAD, unread
from stjax.convert.mapping import Entry, NameMap
from stjax.models.lsm import LSM

# Names inside a spectral block; a line is (torch, here, layout).
SPECTRAL = (
  ("weights", "weights", PARAMETER),
  ("latent", "latent", PARAMETER),
  ("encoder_attn", "read", LAYER),
  ("decoder_attn", "write", LAYER),
  # i / basis, in some copies of the original.
  ("modes_list_buffer", "modes_list_buffer", unread(PARAMETER)),
)
DOUBLE_CONV = (
  ("double_conv.0", "first/conv", LAYER),
  ("double_conv.1", "first/norm", NORM),
  ("double_conv.3", "second/conv", LAYER),
  ("double_conv.4", "second/norm", NORM),
)


def name_map(network: LSM) -> NameMap:
  """The names of an LSM of any depth."""
  depth = network.depth
  modules = []
  for level in range(depth + 1):
    # The original counts levels from 1, and on the way up from the coarsest.
    down = f"down{level}.maxpool_conv.1" if level else "inc"
    up = f"up{depth - level}"
    modules += [
      (f"process{level + 1}", f"spectral_{level}", SPECTRAL),
      (down, f"down_{level}", DOUBLE_CONV),
      (f"{up}.conv", f"up_{level}", DOUBLE_CONV),
      (up, f"double_{level}", (("up", "", SPREAD),)),
    ]
  entries = [
    Entry(f"{torch}.{name}", f"{path}/{here}".rstrip("/"), layout)
    for torch, path, names in modules
    for name, here, layout in names
  ]
  return NameMap(
    [
      *entries,
      Entry("outc.conv", "head", LAYER),
      Entry("fc0", "lift", LAYER),
      Entry("fc1", "readout_0", LAYER),
      Entry("fc2", "readout_1", LAYER),
    ]
  )


def numbers(value: str | Sequence[int]) -> tuple[int, ...]:
  """Numbers that the original takes as "4,4" or as a list."""
  if isinstance(value, str):
    value = [int(number) for number in value.split(",")]
  return tuple(value)


def original_options(
  in_dim: int,
  out_dim: int,
  d_model: int = 64,
  num_token: int = 4,
  num_basis: int = 16,
  patch_size: str | Sequence[int] = "4,4",
  padding: str | Sequence[int] = "0,0",
  bilinear: bool = True,
) -> Mapping[str, Any]:
  """Translates the original constructor's arguments.

  Args:
    in_dim: channels of the input, of all frames together; not used here.
    out_dim: channels of the forecast.
    d_model: channels of the finest level.
    num_token: tokens of a patch.
    num_basis: sines, and cosines, of a spectral block.
    patch_size: (H, W) of a patch.
    padding: zeros to the right of the field, and below it: (W, H).
    bilinear: whether the grid is doubled by interpolation.

  Returns:
    Options of `stjax.models.build("lsm", ...)` for one frame.
  """
  del in_dim
  right, below = numbers(padding)
  return {
    "out_channels": out_dim,
    "features": d_model,
    "tokens": num_token,
    "basis": num_basis,
    "patch_size": numbers(patch_size),
    "padding": (below, right),
    "bilinear": bilinear,
  }
