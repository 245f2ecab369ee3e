"""Names of MgNO's weights in torch and here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stjax.convert.layout import LAYER, NORM, SPREAD
from stjax.convert.layout import unread as unread_layout
from stjax.convert.mapping import Entry, NameMap
from stjax.errors import ConvertError
from stjax.models.mgno import MgNO

CYCLE = "conv_list.{i}."
CYCLE_PATH = "cycle_{i}/"
# Convolutions of smoothers and restrictions.
PARTS = {"A": "operator", "S": "smooth", "R": "restrict", "Pi": "project"}


def name_map(network: MgNO) -> NameMap:
  """The names of an MgNO of any depth and grids."""
  last = len(network.iterations) - 1
  # There are smoothers for the way up on the coarsest grid, which has none.
  entries = [
    Entry(
      f"{CYCLE}post_smooth_layers.{last}.{{k}}.{torch}",
      f"{CYCLE_PATH}up_{last}_{{k}}/{path}",
      unread_layout(LAYER),
    )
    for torch, path in PARTS.items()
  ]
  for torch, path in PARTS.items():
    entries += [
      Entry(
        f"{CYCLE}layers.{{j}}.{{k}}.{torch}",
        f"{CYCLE_PATH}down_{{j}}_{{k}}/{path}",
        LAYER,
      ),
      Entry(
        f"{CYCLE}post_smooth_layers.{{j}}.{{k}}.{torch}",
        f"{CYCLE_PATH}up_{{j}}_{{k}}/{path}",
        LAYER,
      ),
    ]
  return NameMap(
    [
      *entries,
      Entry(CYCLE + "norm_layer_list.{j}", CYCLE_PATH + "norm_{j}", NORM),
      Entry(CYCLE + "rt_layers.{j}", CYCLE_PATH + "prolong_{j}", SPREAD),
      # The original has none, but whatever is written needs a name.
      Entry("first_layer", "lift", LAYER),
      Entry("last_layer", "readout", LAYER),
    ]
  )


def unread(network: MgNO, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """The smoothers for the way up on the coarsest grid, all zeros.

  Args:
    network: the network.
    in_shape: (T, H, W, C) of one input.
  """
  together = network.frames == "channels"
  features = network.features or in_shape[-1] * (in_shape[0] if together else 1)
  last = len(network.iterations) - 1
  shapes = {"weight": (features, features, 3, 3), "bias": (features,)}
  return {
    f"{CYCLE.format(i=i)}post_smooth_layers.{last}.{k}.{part}.{leaf}": np.zeros(
      shape, np.float32
    )
    for i in range(network.depth)
    for k in range(network.iterations[-1][1])
    for part in ("A", "S")
    for leaf, shape in shapes.items()
  }


def original_options(
  num_layer: int,
  out_channel: int,
  in_channel: int,
  num_iteration: Sequence[Sequence[int]],
  output_dim: int,
  height: int,
  width: int,
  activation: str = "gelu",
  frames: int = 1,
) -> Mapping[str, Any]:
  """Translates the original constructor's arguments.

  Args:
    num_layer: number of cycles.
    out_channel: channels within, which must be those of the input.
    in_channel: channels of the input.
    num_iteration: (before, after) of each grid.
    output_dim: channels of the forecast.
    height: H.
    width: W.
    activation: "gelu".
    frames: T, no argument of the original's.

  Returns:
    Options of `stjax.models.build("mgno", ...)`, and in_shape (T, H, W, C).

  Raises:
    ConvertError: what the original cannot run, or another activation.
  """
  if in_channel != out_channel or activation != "gelu":
    raise ConvertError(
      f"in_channel is {in_channel}, out_channel {out_channel} and activation "
      f"{activation!r}; expected equal channels and 'gelu'"
    )
  return {
    "in_shape": (frames, height, width, in_channel),
    "out_channels": output_dim,
    "depth": num_layer,
    "iterations": tuple(map(tuple, num_iteration)),
  }
