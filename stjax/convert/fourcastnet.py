"""Names of FourCastNet's weights in torch and here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stjax.convert.layout import LAYER, NORM, PARAMETER, TOKENS
from stjax.convert.mapping import Entry, NameMap
from stjax.models.fourcastnet import FourCastNet

BLOCK = "blocks.{i}."
BLOCK_PATH = "block_{i}/"

FILTER = (
  ("w1", "kernel_1", PARAMETER),
  ("b1", "bias_1", PARAMETER),
  ("w2", "kernel_2", PARAMETER),
  ("b2", "bias_2", PARAMETER),
)
ENTRIES = (
  Entry("patch_embed.proj", "patches", LAYER),
  Entry("pos_embed", "position", TOKENS),
  *(
    Entry(f"{BLOCK}filter.{torch}", f"{BLOCK_PATH}mixer/{path}", layout)
    for torch, path, layout in FILTER
  ),
  Entry(BLOCK + "norm1", BLOCK_PATH + "norm_1", NORM),
  Entry(BLOCK + "norm2", BLOCK_PATH + "norm_2", NORM),
  Entry(BLOCK + "mlp.fc1", BLOCK_PATH + "mlp/expand", LAYER),
  Entry(BLOCK + "mlp.fc2", BLOCK_PATH + "mlp/project", LAYER),
  Entry("head", "head", LAYER),
)


def name_map(network: FourCastNet) -> NameMap:
  """The names of a FourCastNet of any depth."""
  del network
  return NameMap(ENTRIES)


def constants(network: FourCastNet, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """The original's empty buffer, by which it knows its device."""
  del network, in_shape
  return {"device_buffer": np.zeros(0, np.float32)}


def original_options(
  inp_shape: Sequence[int] = (120, 240),
  in_channels: int = 97,
  out_channels: int = 93,
  patch_size: Sequence[int] = (2, 2),
  embed_dim: int = 256,
  depth: int = 4,
  mlp_ratio: float = 4.0,
  drop_rate: float = 0.0,
  drop_path_rate: float = 0.0,
  num_blocks: int = 16,
  sparsity_threshold: float = 0.01,
  hard_thresholding_fraction: float = 1.0,
  double_skip: bool = True,
) -> Mapping[str, Any]:
  """Translates the original constructor's arguments.

  Args:
    inp_shape: (H, W).
    in_channels: channels of the input.
    out_channels: channels of the forecast.
    patch_size: (H, W) of a patch.
    embed_dim: width.
    depth: number of blocks.
    mlp_ratio: hidden width of the MLPs over the width.
    drop_rate: dropout rate.
    drop_path_rate: stochastic depth rate of the last block.
    num_blocks: of the channels in a filter.
    sparsity_threshold: of the soft shrinkage.
    hard_thresholding_fraction: share of the modes that are kept.
    double_skip: whether each filter has a skip.

  Returns:
    Options of `stjax.models.build("fourcastnet", ...)` with the modes that the
    original keeps, and in_shape (1, H, W, C).
  """
  return {
    "in_shape": (1, *inp_shape, in_channels),
    "out_channels": out_channels,
    "patch_size": tuple(patch_size),
    "features": embed_dim,
    "depth": depth,
    "mlp_ratio": mlp_ratio,
    "dropout": drop_rate,
    "drop_path": drop_path_rate,
    "blocks": num_blocks,
    "threshold": sparsity_threshold,
    "modes": hard_thresholding_fraction,
    "legacy_modes": True,
    "double_skip": double_skip,
  }
