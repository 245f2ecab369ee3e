"""The names of the weights of OpenSTL's ConvLSTM and PredRNN in torch and here."""

import numpy as np

from stjax.convert.layout import LAYER, Leaf, unread_layout
from stjax.convert.mapping import Entry, NameMap
from stjax.models.recurrent import ConvLSTM, PredRNN, Recurrent


def _last(array: np.ndarray) -> np.ndarray:
  return np.moveaxis(array, 0, -1)


def _first(array: np.ndarray) -> np.ndarray:
  return np.moveaxis(array, -1, 0)


# A layer norm over a whole frame has [C, h, w] in torch and [h, w, C] here.
_FRAME_NORM = (
  Leaf("weight", "params", "scale", _last, _first),
  Leaf("bias", "params", "bias", _last, _first),
)


def _gates(torch: str, path: str) -> list[Entry]:
  cell, here = f"cell_list.{{i}}.{torch}", f"step/layer_{{i}}/{path}"
  return [
    Entry(f"{cell}.0", here, LAYER),
    Entry(f"{cell}.1", f"{here}_norm", _FRAME_NORM),
  ]


_SHARED = [
  *_gates("conv_x", "input"),
  *_gates("conv_h", "recurrent"),
  Entry("conv_last", "step/readout", LAYER),
]


def convlstm_names(network: ConvLSTM) -> NameMap:
  """Maps the names of a `ConvLSTM` of any depth."""
  del network
  unread = [
    Entry(f"cell_list.{{i}}.{name}", f"layer_{{i}}_{name}", unread_layout(LAYER))
    for name in ("conv_o.0", "conv_o.1", "conv_last")
  ]
  return NameMap([*_SHARED, *unread])


def predrnn_names(network: PredRNN) -> NameMap:
  """Maps the names of a `PredRNN` of any depth."""
  del network
  return NameMap(
    [
      *_SHARED,
      *_gates("conv_m", "memory"),
      *_gates("conv_o", "output"),
      Entry("cell_list.{i}.conv_last", "step/layer_{i}/mix", LAYER),
    ]
  )


def convlstm_unread(
  network: Recurrent, in_shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
  """Makes zeros for the weights of ConvLSTM's cells that nothing reads.

  Args:
    network: any ConvLSTM.
    in_shape: (T, H, W, C) of one input.
  """
  features, size = network.features, network.kernel_size
  _, height, width, _ = in_shape
  frame = (features, height // network.patch_size, width // network.patch_size)
  shapes = {
    "conv_o.0.weight": (features, 2 * features, size, size),
    "conv_last.weight": (features, 2 * features, 1, 1),
  }
  if network.layer_norm:
    shapes |= {"conv_o.1.weight": frame, "conv_o.1.bias": frame}
  return {
    f"cell_list.{i}.{name}": np.zeros(shape, np.float32)
    for i in range(network.depth)
    for name, shape in shapes.items()
  }
