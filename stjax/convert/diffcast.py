"""The names of the weights of DiffCast's denoiser in torch and here."""

from stjax.convert.layout import BIAS, CHANNELS, LAYER, NORM, Leaf
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.models.denoisers.diffcast import DiffCast

# A 1x1 convolution of patches of 2 x 2 pixels there, the channel outermost, and a
# strided convolution here.
PATCHES = (
  Leaf(
    "weight",
    "params",
    "kernel",
    lambda weight: weight.reshape(len(weight), -1, 2, 2).transpose(2, 3, 1, 0),
    lambda kernel: kernel.transpose(3, 2, 0, 1).reshape(kernel.shape[3], -1, 1, 1),
  ),
  BIAS,
)

RESIDUAL_BLOCK = (
  ("mlp.1", "/step", LAYER),
  ("block1.proj", "/first", LAYER),
  ("block1.norm", "/first_norm", NORM),
  ("block2.proj", "/second", LAYER),
  ("block2.norm", "/second_norm", NORM),
  ("res_conv", "/skip", LAYER),
)
GATE = (
  ("conv0", "/context/near", LAYER),
  ("conv_spatial", "/context/far", LAYER),
  ("conv1", "/context/pointwise", LAYER),
  ("fc.0", "/squeeze", LAYER),
  ("fc.2", "/excite", LAYER),
)
GATED_BLOCK = (
  ("fn.norm.g", "/norm/scale", CHANNELS),
  ("fn.fn.proj_1", "/gated/expand", LAYER),
  ("fn.fn.proj_2", "/gated/project", LAYER),
  *(
    (f"fn.fn.spatial_gating_unit.{torch}", f"/gated/gate{path}", layout)
    for torch, path, layout in GATE
  ),
)
ATTENTION = (
  ("fn.norm.g", "/norm/scale", CHANNELS),
  ("fn.fn.to_qkv", "/qkv", LAYER),
  ("fn.fn.to_out", "/project", LAYER),
)
HALVE = (("1", "/conv", PATCHES),)
DOUBLE = (("1", "/conv", LAYER),)
GRU = (
  ("conv_gates.0", "/cell/gates", LAYER),
  ("conv_cans.0", "/cell/candidate", LAYER),
)
SINUSOIDS = (("1", "/first", LAYER), ("3", "/second", LAYER))


def name_map(network: DiffCast) -> NameMap:
  """Maps the names of `stjax.models.denoisers.diffcast.DiffCast`."""
  last = len(network.multipliers) - 1
  unet = [
    Entry("init_conv", "stem", LAYER),
    *entries("time_mlp.", "step", SINUSOIDS),
    *entries("frag_idx_mlp.", "fragment", SINUSOIDS),
    *entries("downs.{i}.3.", "halve_{i}", HALVE),
    Entry(f"downs.{last}.3", "widen", LAYER),
    *entries("mid_block1.", "bottom_first", RESIDUAL_BLOCK),
    *entries("mid_attn.", "attention", ATTENTION),
    *entries("mid_block2.", "bottom_second", RESIDUAL_BLOCK),
    *entries("ups.{i}.3.", "double_{i}", DOUBLE),
    Entry(f"ups.{last}.3", "narrow", LAYER),
    *entries("final_res_block.", "last", RESIDUAL_BLOCK),
    Entry("final_conv", "readout", LAYER),
  ]
  for side in ("down", "up"):
    torch, path = f"{side}s.{{i}}.", f"{side}_{{i}}_"
    unet += entries(torch + "0.", path + "first", RESIDUAL_BLOCK)
    unet += entries(torch + "1.", path + "second", RESIDUAL_BLOCK)
    unet += entries(torch + "2.", path + "gate", GATED_BLOCK)
  context = [
    Entry("init_conv", "stem", LAYER),
    *entries("downs.{i}.0.", "block_{i}", RESIDUAL_BLOCK),
    *entries("downs.{i}.1.", "unit_{i}", GRU),
    *entries("downs.{i}.2.", "halve_{i}", HALVE),
  ]
  return NameMap(
    [
      entry._replace(torch=f"unet.{entry.torch}", path=f"unet/{entry.path}")
      for entry in unet
    ]
    + [
      entry._replace(torch=f"ctxNet.{entry.torch}", path=f"context/{entry.path}")
      for entry in context
    ]
  )
