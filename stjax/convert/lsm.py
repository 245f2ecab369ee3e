"""The names of LSM's weights in torch and here."""

from stjax.convert.layout import LAYER, PARAMETER, SPREAD, unread_layout
from stjax.convert.mapping import Entry, NameMap, double_unit, entries
from stjax.models.lsm import LSM

# The names inside a spectral block: in torch, here, and the layout.
SPECTRAL = (
  ("weights", "weights", PARAMETER),
  ("latent", "latent", PARAMETER),
  ("encoder_attn", "read", LAYER),
  ("decoder_attn", "write", LAYER),
  # Some copies of the original hold i / basis.
  ("modes_list_buffer", "modes_list_buffer", unread_layout(PARAMETER)),
)


def name_map(network: LSM) -> NameMap:
  """Maps the names of an LSM of any depth."""
  depth = network.depth
  result = [
    Entry("outc.conv", "head", LAYER),
    Entry("fc0", "lift", LAYER),
    Entry("fc1", "readout_0", LAYER),
    Entry("fc2", "readout_1", LAYER),
  ]
  for level in range(depth + 1):
    # The original counts levels from 1, and on the way up from the coarsest.
    down = f"down{level}.maxpool_conv.1." if level else "inc."
    up = f"up{depth - level}."
    result += entries(f"process{level + 1}.", f"spectral_{level}/", SPECTRAL)
    result += double_unit(down, f"down_{level}")
    result += double_unit(f"{up}conv.", f"up_{level}")
    result.append(Entry(f"{up}up", f"double_{level}", SPREAD))
  return NameMap(result)
