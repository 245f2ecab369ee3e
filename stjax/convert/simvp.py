"""The names of SimVP's weights in simvp_minimal, OpenSTL, Triton's code and here."""

import numpy as np

from stjax.convert.layout import CHANNELS, LAYER, NORM, PARAMETER, TRANSPOSED
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.models.simvp import SimVP, sampling_pattern
from stjax.models.translators.attention import relative_position_index, window_and_shift

BLOCK = "hid.enc.{i}.block."
BLOCK_PATH = "translator/block_{i}/core/"

# The names inside a block: in torch, here, and the layout.
NORMS = (("norm1", "norm_1", NORM), ("norm2", "norm_2", NORM))
MLP = (("mlp.fc1", "mlp/expand", LAYER), ("mlp.fc2", "mlp/project", LAYER))
LAYER_SCALES = (
  ("layer_scale_1", "scale_1", PARAMETER),
  ("layer_scale_2", "scale_2", PARAMETER),
)
GATE = (
  ("attn.spatial_gating_unit.conv0", "mixer/gate/context/near", LAYER),
  ("attn.spatial_gating_unit.conv_spatial", "mixer/gate/context/far", LAYER),
  ("attn.spatial_gating_unit.conv1", "mixer/gate/context/pointwise", LAYER),
)
GATED = (
  *NORMS,
  *MLP,
  *LAYER_SCALES,
  ("mlp.dwconv.dwconv", "mlp/depthwise", LAYER),
  ("attn.proj_1", "mixer/expand", LAYER),
  ("attn.proj_2", "mixer/project", LAYER),
  *GATE,
)
ATTENTION = (
  ("attn.qkv", "mixer/attention/qkv", LAYER),
  ("attn.proj", "mixer/attention/project", LAYER),
)

BLOCKS = {
  "convmixer": (
    ("conv_dw", "depthwise", LAYER),
    ("norm_1", "norm_1", NORM),
    ("conv_pw", "pointwise", LAYER),
    ("norm_2", "norm_2", NORM),
  ),
  "convnext": (
    ("gamma", "scale", PARAMETER),
    ("conv_dw", "depthwise", LAYER),
    ("norm", "norm", NORM),
    *MLP,
  ),
  "gsta": GATED,
  "hornet": (
    *NORMS,
    ("gamma1", "scale_1", PARAMETER),
    ("gamma2", "scale_2", PARAMETER),
    ("gnconv.proj_in", "mixer/expand", LAYER),
    ("gnconv.dwconv", "mixer/depthwise", LAYER),
    ("gnconv.pws.{j}", "mixer/order_{j}", LAYER),
    ("gnconv.proj_out", "mixer/project", LAYER),
    ("pwconv1", "mlp/expand", LAYER),
    ("pwconv2", "mlp/project", LAYER),
  ),
  "mlpmixer": (
    *NORMS,
    ("mlp_tokens.fc1", "mixer/tokens/expand", LAYER),
    ("mlp_tokens.fc2", "mixer/tokens/project", LAYER),
    ("mlp_channels.fc1", "mlp/expand", LAYER),
    ("mlp_channels.fc2", "mlp/project", LAYER),
  ),
  "moganet": (
    *NORMS,
    *MLP,
    ("layer_scale_1", "scale_1", CHANNELS),
    ("layer_scale_2", "scale_2", CHANNELS),
    ("attn.sigma", "mixer/sigma", CHANNELS),
    ("attn.proj_1", "mixer/expand", LAYER),
    ("attn.gate", "mixer/gate", LAYER),
    ("attn.value.DW_conv0", "mixer/value/near", LAYER),
    ("attn.value.DW_conv1", "mixer/value/middle", LAYER),
    ("attn.value.DW_conv2", "mixer/value/wide", LAYER),
    ("attn.value.PW_conv", "mixer/value/pointwise", LAYER),
    ("attn.proj_2", "mixer/project", LAYER),
    ("mlp.dwconv", "mlp/depthwise", LAYER),
    ("mlp.sigma", "mlp/refine/sigma", CHANNELS),
    ("mlp.decompose", "mlp/refine/decompose", LAYER),
  ),
  "poolformer": (*NORMS, *MLP, *LAYER_SCALES),
  "swin": (
    *NORMS,
    *MLP,
    *ATTENTION,
    ("attn.relative_position_bias_table", "mixer/position_bias", PARAMETER),
  ),
  "tau": (
    *GATED,
    ("attn.spatial_gating_unit.fc.0", "mixer/gate/squeeze", LAYER),
    ("attn.spatial_gating_unit.fc.2", "mixer/gate/excite", LAYER),
  ),
  "uniformer": (
    *NORMS,
    *MLP,
    ("pos_embed", "position", LAYER),
    ("conv1", "mixer/expand", LAYER),
    ("attn", "mixer/depthwise", LAYER),
    ("conv2", "mixer/project", LAYER),
    *ATTENTION,
    ("gamma_1", "scale_1", PARAMETER),
    ("gamma_2", "scale_2", PARAMETER),
  ),
  "van": GATED,
  "vit": (*NORMS, *MLP, *ATTENTION),
}

INCEPTION = tuple(
  Entry(f"hid.{torch}.{{i}}.{name}", f"translator/{side}_{{i}}/{path}", layout)
  for torch, side in (("enc", "down"), ("dec", "up"))
  for name, path, layout in (
    ("conv1", "reduce", LAYER),
    ("layers.{j}.conv", "conv_{j}", LAYER),
    ("layers.{j}.norm", "norm_{j}", NORM),
  )
)


def name_map(network: SimVP) -> NameMap:
  """Maps the names of a SimVP with any translator."""
  outside = frame("enc.", "dec.", network.spatial_depth, network.first_version)
  if network.translator == "incepu":
    return NameMap((*outside, *INCEPTION))
  blocks = entries(BLOCK, BLOCK_PATH, BLOCKS[network.translator])
  resize = Entry("hid.enc.{i}.reduction", "translator/block_{i}/resize", LAYER)
  return NameMap((*outside, *blocks, resize))


def frame(encoder: str, decoder: str, depth: int, first_version: bool) -> list[Entry]:
  """Maps the names of encoder and decoder.

  Args:
    encoder: prefix of the encoder's torch names.
    decoder: prefix of the decoder's torch names.
    depth: the number of layers of each.
    first_version: whether the layers that double the grid are transposed; their
      names do not tell.
  """
  transposed = [
    Entry(f"{decoder}dec.{i}.conv.conv", f"decoder/layer_{i}/conv", TRANSPOSED)
    for i, up in enumerate(sampling_pattern(depth)[::-1])
    if up and first_version
  ]
  return [
    *transposed,
    Entry(encoder + "enc.{i}.conv.conv", "encoder/layer_{i}/conv", LAYER),
    Entry(encoder + "enc.{i}.conv.norm", "encoder/layer_{i}/norm", NORM),
    Entry(decoder + "dec.{i}.conv.conv", "decoder/layer_{i}/conv", LAYER),
    Entry(decoder + "dec.{i}.conv.conv.0", "decoder/layer_{i}/upsample", LAYER),
    Entry(decoder + "dec.{i}.conv.norm", "decoder/layer_{i}/norm", NORM),
    Entry(decoder + "readout", "decoder/readout", LAYER),
  ]


def constants(
  network: SimVP, in_shape: tuple[int, int, int, int]
) -> dict[str, np.ndarray]:
  """Makes the buffers of the torch network that follow from options and grid.

  Args:
    network: the network.
    in_shape: (T, H, W, C) of one input.
  """
  if network.translator != "swin":
    return {}
  factor = 2 ** (network.spatial_depth // 2)
  h, w = in_shape[1] // factor, in_shape[2] // factor
  return {
    BLOCK.format(i=i) + name: value
    for i in range(network.temporal_depth)
    for name, value in swin_constants(h, w, i % 2 == 1).items()
  }


def swin_constants(h: int, w: int, shifted: bool) -> dict[str, np.ndarray]:
  """Makes Swin's index of position biases and its unused attention mask.

  Args:
    h: rows of the latent grid.
    w: columns of the latent grid.
    shifted: whether the block shifts its windows.
  """
  window, shift = window_and_shift(h, w, shifted)
  index = relative_position_index(window)
  result = {"attn.relative_position_index": index.astype(np.int64)}
  if shift:
    # Pixels that meet by wrapping around belong to other regions.
    def region(n):
      return np.digitize(np.arange(n), [n - window, n - shift])

    regions = 3 * region(h)[:, None] + region(w)[None]
    regions = regions.reshape(h // window, window, w // window, window)
    regions = regions.swapaxes(1, 2).reshape(-1, window**2)
    apart = regions[:, None] != regions[:, :, None]
    result["attn_mask"] = np.where(apart, np.float32(-100), np.float32(0))
  return result
