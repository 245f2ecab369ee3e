"""Names of CNO's weights in torch and here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stjax.convert.images import image_options, unit
from stjax.convert.layout import COUNTERS, LAYER
from stjax.convert.mapping import Entry, NameMap
from stjax.models.cno import CNO

# Arguments that the original reads and that change nothing.
WITHOUT_EFFECT = frozenset(
  (
    "in_size_h",
    "in_size_w",
    "out_size",
    "out_size_h",
    "out_size_w",
    "cutoff_den",
    "filter_size",
    "lrelu_upsampling",
    "half_width_mult",
    "radial",
    "expand_input",
    "activation",
  )
)


def _unread(network: CNO) -> dict[int, int]:
  """Numbers and widths of the units for mixing that nothing calls.

  The original builds one of them too many, or all for nothing.
  """
  depth = network.depth
  widths = [network.width(depth)]
  widths += [2 * network.width(level) for level in reversed(range(depth))]
  first = depth if network.mix else 0
  return dict(enumerate(widths[first:], first))


def name_map(network: CNO) -> NameMap:
  """The names of a CNO of any depth."""
  # The first entry that fits a name is taken.
  entries = [
    entry._replace(
      layout=tuple(leaf._replace(collection=COUNTERS) for leaf in entry.layout)
    )
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
  """Zeros for the units that nothing calls, and ones for their variances.

  Args:
    network: any CNO.
    in_shape: not needed.
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


def original_options(
  shape_in: tuple[int, int, int, int],
  in_dim: int,
  N_layers: int,
  N_res: int = 1,
  N_res_neck: int = 6,
  channel_multiplier: int = 32,
  conv_kernel: int = 3,
  batch_norm: bool = True,
  out_dim: int = 1,
  latent_lift_proj_dim: int = 64,
  add_inv: bool = True,
  in_size: int | None = None,
  **without_effect,
) -> Mapping[str, Any]:
  """Translates the original constructor's arguments.

  Args:
    shape_in: (T, C, H, W) of one input.
    in_dim: channels of the images, those of one frame or of all.
    N_layers: depth.
    N_res: residual blocks of each level.
    N_res_neck: those of the deepest level.
    channel_multiplier: features.
    conv_kernel: kernel size.
    batch_norm: whether to normalise.
    out_dim: channels of the resulting images.
    latent_lift_proj_dim: hidden width of the first and the last map.
    add_inv: units that mix each level on the way up.
    in_size: the grid's size, for SFP's copy; Triton's is given in_size_h and
      in_size_w. The one calls the neck's blocks last to first, the other first
      to last.
    **without_effect: any of `WITHOUT_EFFECT`: sizes, and options of filters
      that these copies have not.

  Returns:
    Options of `stjax.models.build("cno", ...)`, and in_shape (T, H, W, C).

  Raises:
    ConvertError: channels that do not follow from shape_in.
    TypeError: an argument that the original has not.
  """
  if surplus := without_effect.keys() - WITHOUT_EFFECT:
    raise TypeError(f"arguments that CNO has not: {sorted(surplus)}")
  return image_options(shape_in, in_dim, out_dim) | {
    "features": channel_multiplier,
    "depth": N_layers,
    "blocks": N_res,
    "neck_blocks": N_res_neck,
    "neck_reversed": in_size is not None,
    "lift_features": latent_lift_proj_dim,
    "kernel_size": conv_kernel,
    "batch_norm": batch_norm,
    "mix": add_inv,
  }
