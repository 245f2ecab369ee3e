"""The names of DiT's weights in torch and here."""

import numpy as np

from stjax.convert import simvp
from stjax.convert.layout import LAYER, NORM, TOKENS, TRANSPOSED, unread_layout
from stjax.convert.mapping import Entry, NameMap, entries
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
  # All of them are transposed, whether they double the grid or not.
  Entry("dec.dec.{i}.conv", "decoder/layer_{i}/conv", TRANSPOSED),
  Entry("dec.dec.{i}.norm", "decoder/layer_{i}/norm", NORM),
  Entry("dec.readout", "decoder/readout", LAYER),
  Entry(CORE + "x_embedder.proj", CORE_PATH + "patches", LAYER),
  Entry(POSITION, CORE_PATH + "position", TOKENS),
  Entry(STEP[0] + "mlp.0", STEP[1] + "first", LAYER),
  Entry(STEP[0] + "mlp.2", STEP[1] + "second", LAYER),
  Entry(BLOCK + "attn.qkv", BLOCK_PATH + "attention/qkv", LAYER),
  Entry(BLOCK + "attn.proj", BLOCK_PATH + "attention/project", LAYER),
  *entries(BLOCK, BLOCK_PATH, simvp.MLP),
  Entry(BLOCK + "adaLN_modulation.1", BLOCK_PATH + "modulation", LAYER),
  Entry(CORE + "final_layer.linear", CORE_PATH + "final/linear", LAYER),
  Entry(CORE + "final_layer.adaLN_modulation.1", CORE_PATH + "final/modulation", LAYER),
  # A copy of the original holds SimVP's translator as well.
  *(
    Entry(entry.torch, entry.torch.replace(".", "/"), unread_layout(entry.layout))
    for entry in simvp.INCEPTION
  ),
)


def name_map(network: DiT) -> NameMap:
  """Maps the names of a DiT of any depth."""
  del network
  return NameMap(ENTRIES)


def constants(network: DiT, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Makes the table of positions where it is not learned.

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
