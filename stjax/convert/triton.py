"""The names of Triton's weights in torch and here."""

from collections.abc import Mapping
from typing import Any

from stjax.convert.layout import LAYER
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.convert.simvp import BLOCKS, frame
from stjax.models.triton import Triton

ENCODER = "atmospheric_encoder."
DECODER = "atmospheric_decoder."
CORE = "temporal_evolution."
BLOCK = "temporal_evolution.enc.{i}.block."
BLOCK_PATH = "core/block_{i}/core/"


def name_map(network: Triton) -> NameMap:
  """Maps the names of a Triton of any depth and core."""
  return NameMap(
    (
      *frame(ENCODER, DECODER, network.spatial_depth, first_version=True),
      *entries(BLOCK, BLOCK_PATH, BLOCKS["uniformer"]),
      Entry(CORE + "enc.{i}.reduction", "core/block_{i}/resize", LAYER),
    )
  )


def core_first(names: Mapping[str, Any]) -> str:
  """Tells `Triton.core_first` of weights by their torch names."""
  local = any(key.split(".")[-2:] == ["conv1", "weight"] for key in names)
  return "conv" if local else "attention"
