"""Names of ResNet's weights in torch and here."""

from collections.abc import Mapping
from typing import Any

from stjax.convert.images import image_options, unit
from stjax.convert.layout import LAYER
from stjax.convert.mapping import Entry, NameMap
from stjax.models.resnet import ResNet


def name_map(network: ResNet) -> NameMap:
  """The names of a ResNet of any depth.

  The copies with a stem have other names than those without.
  """
  if network.stem:
    block, readout = "middle_layer.{i}.", "output_layer"
    stem = unit("input_layer.", "stem", conv="0", norm="1")
  else:
    block, readout, stem = "model.{i}.", f"model.{sum(network.blocks)}", ()
  return NameMap(
    (
      *stem,
      *unit(f"{block}layer1.", "block_{i}/first", conv="0", norm="1"),
      *unit(f"{block}layer2.", "block_{i}/second", conv="0", norm="1"),
      Entry(f"{block}upscale.0", "block_{i}/around", LAYER),
      Entry(readout, "readout", LAYER),
    )
  )


def original_options(
  shape_in: tuple[int, int, int, int],
  input_channels: int,
  output_channels: int,
  dropout_rate: float | None = None,
  kernel_size: int | None = None,
  base_width: int = 64,
) -> Mapping[str, Any]:
  """Translates the arguments of either original constructor.

  Args:
    shape_in: (T, C, H, W) of one input.
    input_channels: of the images, those of one frame or of all.
    output_channels: of the resulting images.
    dropout_rate: of Triton's copy, which has a stem.
    kernel_size: of SFP's copy, which has none; it leads convolutions around
      the blocks that change the width. Give one of both.
    base_width: channels of the first stage.

  Returns:
    Options of `stjax.models.build("resnet", ...)`, and in_shape (T, H, W, C).

  Raises:
    ConvertError: channels that do not follow from shape_in.
  """
  options = image_options(shape_in, input_channels, output_channels)
  options |= {"features": base_width}
  if kernel_size is None:
    rate = 0.5 if dropout_rate is None else dropout_rate
    return options | {"dropout": rate}
  return options | {
    "blocks": (3, 4, 4, 3),
    "stem": False,
    "project": True,
    "kernel_size": kernel_size,
    "slope": 0.01,
    "dropout": 0.0,
  }
