"""Names of DiT's weights in torch and here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stjax.convert import simvp
from stjax.convert.layout import LAYER, NORM, TOKENS, TRANSPOSED, unread
from stjax.convert.mapping import Entry, NameMap
from stjax.errors import ConvertError
from stjax.models.dit import DiT, grid_sinusoids
from stjax.models.layers import checks
from stjax.models.simvp import sampling_pattern

CORE = "dit_block."
CORE_PATH = "transformer/"
BLOCK = CORE + "blocks.{i}."
BLOCK_PATH = CORE_PATH + "block_{i}/"
STEP = (CORE + "t_embedder.", CORE_PATH + "step/")
POSITION = CORE + "pos_embed"

ENTRIES = (
  Entry("enc.enc.{i}.conv", "encoder/layer_{i}/conv", LAYER),
  Entry("enc.enc.{i}.norm", "encoder/layer_{i}/norm", NORM),
  # All of them, whether they double the grid or not.
  Entry("dec.dec.{i}.conv", "decoder/layer_{i}/conv", TRANSPOSED),
  Entry("dec.dec.{i}.norm", "decoder/layer_{i}/norm", NORM),
  Entry("dec.readout", "decoder/readout", LAYER),
  Entry(CORE + "x_embedder.proj", CORE_PATH + "patches", LAYER),
  Entry(POSITION, CORE_PATH + "position", TOKENS),
  Entry(STEP[0] + "mlp.0", STEP[1] + "first", LAYER),
  Entry(STEP[0] + "mlp.2", STEP[1] + "second", LAYER),
  Entry(BLOCK + "attn.qkv", BLOCK_PATH + "attention/qkv", LAYER),
  Entry(BLOCK + "attn.proj", BLOCK_PATH + "attention/project", LAYER),
  Entry(BLOCK + "mlp.fc1", BLOCK_PATH + "mlp/expand", LAYER),
  Entry(BLOCK + "mlp.fc2", BLOCK_PATH + "mlp/project", LAYER),
  Entry(BLOCK + "adaLN_modulation.1", BLOCK_PATH + "modulation", LAYER),
  Entry(CORE + "final_layer.linear", CORE_PATH + "final/linear", LAYER),
  Entry(CORE + "final_layer.adaLN_modulation.1", CORE_PATH + "final/modulation", LAYER),
  # A copy of the original holds SimVP's translator as well.
  *(
    Entry(entry.torch, entry.torch.replace(".", "/"), unread(entry.layout))
    for entry in simvp.INCEPTION
  ),
)


def name_map(network: DiT) -> NameMap:
  """The names of a DiT of any depth."""
  del network
  return NameMap(ENTRIES)


def constants(network: DiT, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """The table of positions, where it is not learned.

  Args:
    network: the network.
    in_shape: (T, H, W, C) of one input.
  """
  if network.position == "learned":
    return {}
  factor = 2 ** sum(sampling_pattern(network.spatial_depth))
  h, w = (
    n // factor // patch
    for n, patch in zip(in_shape[1:3], checks.pair(network, "patch_size"), strict=True)
  )
  return {POSITION: grid_sinusoids(h, w, network.features)[None]}


def original_options(
  shape_in: Sequence[int],
  hid_S: int = 32,
  hid_T: int = 64,
  N_S: int = 4,
  time_step: int | Sequence[int] = 0,
  inner_hidden_size: int = 256,
  inner_depth: int = 12,
  inner_num_heads: int = 2,
) -> Mapping[str, Any]:
  """Translates the original constructor's arguments.

  Args:
    shape_in: (B, T, C, H, W), as the original.
    hid_S: channels of encoder and decoder.
    hid_T: not used by the original's network.
    N_S: layers of encoder and of decoder.
    time_step: the step that the original drew, one for all samples.
    inner_hidden_size: width of the transformer, fixed in the original.
    inner_depth: its blocks, likewise.
    inner_num_heads: its heads, likewise.

  Returns:
    Options of `stjax.models.build("dit", ...)`, and in_shape (T, H, W, C).

  Raises:
    ConvertError: a shape_in without five sizes, or steps that differ.
  """
  del hid_T
  steps = set(time_step if isinstance(time_step, Sequence) else [time_step])
  if len(shape_in) != 5 or len(steps) != 1:
    raise ConvertError(
      f"shape_in is {shape_in} and time_step is {time_step}; expected (B, T, "
      "C, H, W) and one step"
    )
  _, t, c, h, w = shape_in
  return {
    "in_shape": (t, h, w, c),
    "spatial_features": hid_S,
    "spatial_depth": N_S,
    "features": inner_hidden_size,
    "depth": inner_depth,
    "heads": inner_num_heads,
    "time_step": steps.pop(),
  }
