"""The names of F-FNO's weights in torch and here."""

import numpy as np

from stjax.convert.layout import (
  BIAS,
  LAYER,
  NORM,
  POINTWISE,
  Leaf,
  kernel_from_torch,
  kernel_to_torch,
  unread_layout,
)
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.convert.spectral import modes_from_torch
from stjax.models.ffno import FFNO


def _pairs_to_torch(kernel: np.ndarray) -> np.ndarray:
  """Turns [2, M, C_in, C_out] into [C_in, C_out, M, 2], which stays real."""
  return np.moveaxis(kernel, (0, -2, -1), (-1, 0, 1))


# These are matrices of the modes along one axis.
MODES = (Leaf("", "params", "", modes_from_torch, _pairs_to_torch),)
SPECTRAL = (
  ("fourier_weight.0", "along_w", MODES),
  ("fourier_weight.1", "along_h", MODES),
)
# This is a linear layer with weight norm.
NORMED = (
  Leaf(
    "weight_g",
    "params",
    "scale",
    lambda lengths: lengths[:, 0],
    lambda scale: scale[:, None],
  ),
  Leaf("weight_v", "params", "kernel", kernel_from_torch, kernel_to_torch),
  BIAS,
)
# This is a convolution of kernel size 1 along one axis there and a linear layer here.
LINE = (
  Leaf(
    "weight",
    "params",
    "kernel",
    lambda weight: weight[:, :, 0].T,
    lambda kernel: kernel.T[:, :, None],
  ),
  BIAS,
)


def feed_forward_names(network: FFNO) -> tuple:
  """Lists the names in a block of its second half: in torch, here, the layout."""
  linear = NORMED if network.weight_norm else LAYER
  last = network.feed_forward_depth - 1
  return (
    ("backcast_ff.layers.{j}.0", "feed_forward/linear_{j}", linear),
    (f"backcast_ff.layers.{last}.3", "feed_forward/norm", NORM),
  )


def name_map(network: FFNO) -> NameMap:
  """Maps the names of an FFNO."""
  feed_forward, last = feed_forward_names(network), f"convs.{network.depth}."
  unread_names = (
    (torch, path, unread_layout(layout)) for torch, path, layout in feed_forward
  )
  return NameMap(
    (
      Entry("fc0", "lift", LAYER),
      *entries(last, "last/", SPECTRAL),
      *entries(last, "last/", unread_names),
      *entries("convs.{i}.", "block_{i}/spectral/", SPECTRAL),
      *entries("convs.{i}.", "block_{i}/", feed_forward),
      Entry("ws.{i}", "unread_{i}", unread_layout(LAYER)),
      Entry("bs.0", "grid_place", POINTWISE),
      Entry("bs.1", "place", LINE),
      Entry("fc1", "expand", LAYER),
      Entry("fc2", "readout", LAYER),
    )
  )


def unread(network: FFNO, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Makes zeros for the layers that the original holds and never calls.

  Args:
    network: any FFNO.
    in_shape: (T, H, W, C) of one input, which is not needed.
  """
  del in_shape
  width, depth = network.features, network.feed_forward_depth
  shapes = {}
  for i in range(network.depth - 1):
    shapes |= {f"ws.{i}.weight": (width, width, 1, 1), f"ws.{i}.bias": (width,)}
  widths = [width, *[network.expansion * width] * (depth - 1), width]
  layers = f"convs.{network.depth}.backcast_ff.layers."
  for i in range(depth):
    before, after = widths[i : i + 2]
    shapes[f"{layers}{i}.0.bias"] = (after,)
    if network.weight_norm:
      shapes[f"{layers}{i}.0.weight_g"] = (after, 1)
      shapes[f"{layers}{i}.0.weight_v"] = (after, before)
    else:
      shapes[f"{layers}{i}.0.weight"] = (after, before)
  if network.layer_norm:
    for leaf in ("weight", "bias"):
      shapes[f"{layers}{depth - 1}.3.{leaf}"] = (width,)
  return {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
