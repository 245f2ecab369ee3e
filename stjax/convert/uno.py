"""The names of UNO's weights in torch and here."""

from stjax.convert.layout import LAYER, NORM, POINTWISE
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.convert.spectral import SPECTRAL
from stjax.models.uno import UNO

# The names inside a layer: in torch, here, and the layout.
BLOCK = (
  ("conv", "spectral", SPECTRAL),
  ("w.conv", "pointwise", POINTWISE),
  ("normalize_layer", "norm", NORM),
)


def name_map(network: UNO) -> NameMap:
  """Maps the names of a UNO of any variant."""
  del network
  return NameMap(
    (
      Entry("fc", "lift_0", LAYER),
      Entry("fc0", "lift_1", LAYER),
      *entries("L{i}.", "layer_{i}/", BLOCK),
      Entry("fc1", "expand", LAYER),
      Entry("fc2", "readout", LAYER),
    )
  )
