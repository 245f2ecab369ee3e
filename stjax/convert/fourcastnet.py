"""The names of FourCastNet's weights in torch and here."""

import numpy as np

from stjax.convert.layout import LAYER, PARAMETER, TOKENS
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.convert.simvp import MLP, NORMS
from stjax.models.fourcastnet import FourCastNet

BLOCK = "blocks.{i}."
BLOCK_PATH = "block_{i}/"

FILTER = (
  ("filter.w1", "mixer/kernel_1", PARAMETER),
  ("filter.b1", "mixer/bias_1", PARAMETER),
  ("filter.w2", "mixer/kernel_2", PARAMETER),
  ("filter.b2", "mixer/bias_2", PARAMETER),
)
ENTRIES = (
  Entry("patch_embed.proj", "patches", LAYER),
  Entry("pos_embed", "position", TOKENS),
  *entries(BLOCK, BLOCK_PATH, (*FILTER, *NORMS, *MLP)),
  Entry("head", "head", LAYER),
)


def name_map(network: FourCastNet) -> NameMap:
  """Maps the names of a FourCastNet of any depth."""
  del network
  return NameMap(ENTRIES)


def constants(network: FourCastNet, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Makes the original's empty buffer, by which it knows its device."""
  del network, in_shape
  return {"device_buffer": np.zeros(0, np.float32)}
