"""The names of the weights of Triton's ConvLSTM in torch and here."""

from stjax.convert.layout import LAYER
from stjax.convert.mapping import Entry, NameMap
from stjax.models.convlstm_states import ConvLSTMStates


def name_map(network: ConvLSTMStates) -> NameMap:
  """Maps the names of a network of any depth."""
  del network
  return NameMap([Entry("cell_list.{i}.conv", "step/layer_{i}/gates", LAYER)])
