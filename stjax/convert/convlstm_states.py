"""The names of the weights of Triton's and SFP's ConvLSTM in torch and here."""

from stjax.convert.layout import LAYER
from stjax.convert.mapping import Entry, NameMap
from stjax.models.convlstm_states import ConvLSTMStates


def name_map(network: ConvLSTMStates) -> NameMap:
  """Maps the names of a network of any depth; those of SFP's have a readout."""
  cells = "clstm.cell_list" if network.horizon else "cell_list"
  return NameMap(
    [
      Entry(f"{cells}.{{i}}.conv", "step/layer_{i}/gates", LAYER),
      Entry("output_layer", "readout", LAYER),
    ]
  )
