"""The names of CNO's weights in torch and here."""

import numpy as np

from stjax.convert.layout import LAYER, unread_layout
from stjax.convert.mapping import Entry, NameMap, unit
from stjax.models.cno import CNO


def _unread(network: CNO) -> dict[int, int]:
  """Lists numbers and widths of the units for mixing that nothing calls.

  The original builds one of them too many, or all for nothing.
  """
  depth = network.depth
  widths = [network.width(depth)]
  widths += [2 * network.width(level) for level in reversed(range(depth))]
  first = depth if network.mix else 0
  return dict(enumerate(widths[first:], first))


def name_map(network: CNO) -> NameMap:
  """Maps the names of a CNO of any depth."""
  # The first entry that fits a name is taken.
  entries = [
    entry._replace(layout=unread_layout(entry.layout))
    for i in _unread(network)
    for entry in unit(f"decoder_inv.{i}.", f"mix_{i}", "convolution", "batch_norm")
  ]
  for name in ("lift", "project"):
    entries += [
      Entry(f"{name}.inter_CNOBlock.convolution", f"{name}_unit/conv", LAYER),
      Entry(f"{name}.convolution", name, LAYER),
    ]
  for torch, path in (
    ("encoder", "down"),
    ("ED_expansion", "bridge"),
    ("decoder_inv", "mix"),
    ("decoder", "up"),
  ):
    entries += unit(f"{torch}.{{i}}.", f"{path}_{{i}}", "convolution", "batch_norm")
  for number, path in ((1, "first"), (2, "second")):
    entries += unit(
      "res_nets.{i}.",
      f"residual_{{i}}/{path}",
      f"convolution{number}",
      f"batch_norm{number}",
    )
  return NameMap(entries)


def unread(network: CNO, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Makes zeros for the units that nothing calls, and ones for their variances.

  Args:
    network: any CNO.
    in_shape: (T, H, W, C) of one input, which is not needed.
  """
  del in_shape
  size = (network.kernel_size, network.kernel_size)
  arrays = {}
  for i, width in _unread(network).items():
    unit_arrays = {
      "convolution.weight": np.zeros((width, width, *size), np.float32),
      "convolution.bias": np.zeros(width, np.float32),
    }
    if network.batch_norm:
      for key in ("weight", "bias", "running_mean"):
        unit_arrays[f"batch_norm.{key}"] = np.zeros(width, np.float32)
      unit_arrays["batch_norm.running_var"] = np.ones(width, np.float32)
      counter = "batch_norm.num_batches_tracked"
      unit_arrays[counter] = np.zeros((), np.int64)
    arrays |= {f"decoder_inv.{i}.{k}": a for k, a in unit_arrays.items()}
  return arrays
