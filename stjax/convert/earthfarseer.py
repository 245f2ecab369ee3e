"""The names of EarthFarseer's weights in SFP's code and here."""

import numpy as np

from stjax.convert import fourcastnet, simvp
from stjax.convert.layout import (
  LAYER,
  NORM,
  POINTWISE_1D,
  SPREAD,
  TOKENS,
  unread_layout,
)
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.models.earthfarseer import DOUBLINGS, EarthFarseer

CONVOLUTIONS = ("multi_conv.", "convolutions/")
FOURIER = ("fourier_module.", "fourier/")
# Weights of a gated block and of a Fourier block that nothing reads.
GATE = "attn.spatial_gating_unit."
UNREAD_GATE = ("fc.0", "fc.2", "conv2_0", "conv2_spatial", "conv2_1")
UNREAD_MLP = "mlp.fc2"

BLOCK = (
  ("normlayer1", "norm_1", NORM),
  ("normlayer2", "norm_2", NORM),
  *fourcastnet.FILTER,
  ("filter.bias", "mixer/skip", POINTWISE_1D),
  ("mlp.fc1", "mlp/expand", LAYER),
  (UNREAD_MLP, UNREAD_MLP, unread_layout(LAYER)),
)
OUTSIDE = (
  ("patch_embed.projection", "patches", LAYER),
  ("pos_embed", "position", TOKENS),
  ("norm", "norm", NORM),
  *(
    (f"linearprojection.transposeconv{i + 1}", f"double_{i}", SPREAD)
    for i in range(DOUBLINGS)
  ),
)


def name_map(network: EarthFarseer) -> NameMap:
  """Maps the names of an EarthFarseer of any depth."""
  outside = simvp.frame("enc.", "dec.", network.spatial_depth, first_version=False)
  blocks = entries(simvp.BLOCK, simvp.BLOCK_PATH, simvp.BLOCKS["gsta"])
  resize = Entry("hid.enc.{i}.reduction", "translator/block_{i}/resize", LAYER)
  unread = [
    Entry(simvp.BLOCK + GATE + name, simvp.BLOCK_PATH + name, unread_layout(LAYER))
    for name in UNREAD_GATE
  ]
  fourier = [*entries("", "", OUTSIDE), *entries("blocks.{i}.", "block_{i}/", BLOCK)]
  return NameMap(
    [
      *entries(*CONVOLUTIONS, (*outside, *blocks, resize, *unread)),
      *entries(*FOURIER, fourier),
    ]
  )


def unread(network: EarthFarseer, in_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Makes zeros for the weights that nothing reads.

  Args:
    network: the network.
    in_shape: (T, H, W, C) of one input.
  """
  shapes = {}
  for i in range(network.temporal_depth):
    width = network.temporal_features
    if i == 0:
      width = in_shape[0] * network.spatial_features
    hidden = width // max(width // 16, 4)
    block = CONVOLUTIONS[0] + simvp.BLOCK.format(i=i) + GATE
    for name, shape in (
      ("fc.0.weight", (hidden, width)),
      ("fc.2.weight", (width, hidden)),
      ("conv2_0.weight", (width, 1, 5, 5)),
      ("conv2_0.bias", (width,)),
      ("conv2_spatial.weight", (width, 1, 7, 7)),
      ("conv2_spatial.bias", (width,)),
      ("conv2_1.weight", (width, width, 1, 1)),
      ("conv2_1.bias", (width,)),
    ):
      shapes[block + name] = shape
  width = network.fourier_features
  for i in range(network.fourier_depth):
    mlp = f"{FOURIER[0]}blocks.{i}.{UNREAD_MLP}."
    shapes[mlp + "weight"] = (width, int(width * network.fourier_mlp_ratio))
    shapes[mlp + "bias"] = (width,)
  return {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
