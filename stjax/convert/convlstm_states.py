"""Names of the weights of Triton's ConvLSTM in torch and here."""

from collections.abc import Mapping, Sequence
from typing import Any

from stjax.convert.layout import LAYER
from stjax.convert.mapping import Entry, NameMap
from stjax.errors import ConvertError
from stjax.models.convlstm_states import ConvLSTMStates


def name_map(network: ConvLSTMStates) -> NameMap:
  """The names of a network of any depth."""
  del network
  return NameMap([Entry("cell_list.{i}.conv", "step/layer_{i}/gates", LAYER)])


def original_options(
  input_dim: int,
  hidden_dim: int | Sequence[int],
  kernel_size: Sequence[int],
  num_layers: int,
  batch_first: bool = False,
  bias: bool = True,
  return_all_layers: bool = False,
) -> Mapping[str, Any]:
  """Translates the original constructor's arguments.

  Args:
    input_dim: channels of the input; not used here.
    hidden_dim: channels of the states, of all layers or of each.
    kernel_size: (H, W).
    num_layers: number of layers.
    batch_first: not used: here the batch is always first.
    bias: whether the convolutions have biases.
    return_all_layers: whether the states of all layers are returned.

  Returns:
    Options of `stjax.models.build("convlstm_states", ...)`.

  Raises:
    ConvertError: if all layers are to be returned, or a kernel each.
  """
  del input_dim, batch_first
  if return_all_layers or not all(isinstance(k, int) for k in kernel_size):
    raise ConvertError(
      f"return_all_layers is {return_all_layers} and kernel_size is "
      f"{kernel_size}; expected False and one (H, W) for all layers"
    )
  if isinstance(hidden_dim, int):
    hidden_dim = (hidden_dim,) * num_layers
  *features, out_channels = hidden_dim
  return {
    "out_channels": out_channels,
    "features": tuple(features),
    "depth": num_layers,
    "kernel_size": tuple(kernel_size),
    "use_bias": bias,
  }
