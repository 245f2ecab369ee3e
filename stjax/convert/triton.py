"""Names of Triton's weights in torch and here."""

from collections.abc import Mapping
from typing import Any

from stjax.convert.layout import LAYER, NORM, TRANSPOSED
from stjax.convert.mapping import Entry, NameMap
from stjax.convert.simvp import BLOCKS
from stjax.errors import ConvertError
from stjax.models.simvp import sampling_pattern
from stjax.models.triton import Triton

ENCODER = "atmospheric_encoder."
DECODER = "atmospheric_decoder."
CORE = "temporal_evolution."
BLOCK = "temporal_evolution.enc.{i}.block."
BLOCK_PATH = "core/block_{i}/core/"


def name_map(network: Triton) -> NameMap:
  """The names of a Triton of any depth and core."""
  upwards = sampling_pattern(network.spatial_depth)[::-1]
  entries = [
    Entry(ENCODER + "enc.{i}.conv.conv", "encoder/layer_{i}/conv", LAYER),
    Entry(ENCODER + "enc.{i}.conv.norm", "encoder/layer_{i}/norm", NORM),
    # Whether a layer is transposed is not in its name, only in its weights.
    *(
      Entry(
        f"{DECODER}dec.{i}.conv.conv",
        f"decoder/layer_{i}/conv",
        TRANSPOSED if up else LAYER,
      )
      for i, up in enumerate(upwards)
    ),
    Entry(DECODER + "dec.{i}.conv.norm", "decoder/layer_{i}/norm", NORM),
    Entry(DECODER + "readout", "decoder/readout", LAYER),
    *(
      Entry(BLOCK + torch, BLOCK_PATH + path, layout)
      for torch, path, layout in BLOCKS["uniformer"]
    ),
    Entry(CORE + "enc.{i}.reduction", "core/block_{i}/resize", LAYER),
  ]
  return NameMap(entries)


def core_first(names: Mapping[str, Any]) -> str:
  """`Triton.core_first` of weights, by their torch names."""
  local = any(key.split(".")[-2:] == ["conv1", "weight"] for key in names)
  return "conv" if local else "attention"


def original_options(
  shape_in: tuple[int, ...],
  spatial_hidden_dim: int,
  output_channels: int,
  temporal_hidden_dim: int,
  num_spatial_layers: int = 4,
  num_temporal_layers: int = 8,
  in_time_seq_length: int = 10,
  out_time_seq_length: int = 10,
) -> Mapping[str, Any]:
  """Translates the original constructor's arguments.

  Args:
    shape_in: (T, C, H, W), or (C, H, W) of one frame, as the originals.
    spatial_hidden_dim: channels of encoder and decoder.
    output_channels: channels of the forecast.
    temporal_hidden_dim: width of the core.
    num_spatial_layers: layers of encoder and of decoder.
    num_temporal_layers: blocks of the core.
    in_time_seq_length: not used here.
    out_time_seq_length: not used here: a longer forecast is fed back by the
      method's horizon.

  Returns:
    Options of `stjax.models.build("triton", ...)`, and in_shape (T, H, W, C).
    The copies of the original differ in `core_first`: see the function of this
    name.

  Raises:
    ConvertError: a shape_in without three or four sizes.
  """
  del in_time_seq_length, out_time_seq_length
  if len(shape_in) not in (3, 4):
    raise ConvertError(f"shape_in is {shape_in}; expected (T, C, H, W) or (C, H, W)")
  *frames, c, h, w = shape_in
  return {
    "in_shape": (*(frames or (1,)), h, w, c),
    "out_channels": output_channels,
    "spatial_features": spatial_hidden_dim,
    "temporal_features": temporal_hidden_dim,
    "spatial_depth": num_spatial_layers,
    "temporal_depth": num_temporal_layers,
  }
