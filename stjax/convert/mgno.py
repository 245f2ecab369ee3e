"""The names of MgNO's weights in torch and here."""

import numpy as np

from stjax.convert.layout import LAYER, NORM, SPREAD, unread_layout
from stjax.convert.mapping import Entry, NameMap
from stjax.models.mgno import MgNO

CYCLE = "conv_list.{i}."
CYCLE_PATH = "cycle_{i}/"
# These are the convolutions of smoothers and restrictions.
PARTS = {"A": "operator", "S": "smooth", "R": "restrict", "Pi": "project"}


def name_map(network: MgNO) -> NameMap:
  """Maps the names of an MgNO of any depth and grids."""
  last = len(network.iterations) - 1
  entries = [
    Entry(f"{CYCLE}{torch}.{part}", f"{CYCLE_PATH}{path}/{name}", layout)
    for torch, path, layout in (
      # The coarsest grid has no way up, but the original has smoothers for it.
      (f"post_smooth_layers.{last}.{{k}}", f"up_{last}_{{k}}", unread_layout(LAYER)),
      ("layers.{j}.{k}", "down_{j}_{k}", LAYER),
      ("post_smooth_layers.{j}.{k}", "up_{j}_{k}", LAYER),
    )
    for part, name in PARTS.items()
  ]
  return NameMap(
    [
      *entries,
      Entry(CYCLE + "norm_layer_list.{j}", CYCLE_PATH + "norm_{j}", NORM),
      Entry(CYCLE + "rt_layers.{j}", CYCLE_PATH + "prolong_{j}", SPREAD),
      # The original has neither, but whatever is written needs a name.
      Entry("first_layer", "lift", LAYER),
      Entry("last_layer", "readout", LAYER),
    ]
  )


def unread(network: MgNO, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Makes zeros for the smoothers for the way up on the coarsest grid.

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
