"""Names of the two U-Nets' weights in torch and here."""

from collections.abc import Mapping
from typing import Any

from stjax.convert.images import image_options, unit
from stjax.convert.layout import LAYER, TRANSPOSED
from stjax.convert.mapping import Entry, NameMap
from stjax.models.unet_forecast import StridedUNet, UNet


def pooled_names(network: UNet) -> NameMap:
  """The names of a `UNet` of any depth."""
  del network
  entries = [
    Entry("up{i}.up", "grow_{i}", TRANSPOSED),
    Entry("outc.conv", "readout", LAYER),
  ]
  for torch, path in (
    ("inc.double_conv.", "stem"),
    ("down{i}.maxpool_conv.1.double_conv.", "down_{i}"),
    ("up{i}.conv.double_conv.", "up_{i}"),
  ):
    entries += unit(torch, f"{path}/first", conv="0", norm="1")
    entries += unit(torch, f"{path}/second", conv="3", norm="4")
  return NameMap(entries)


def strided_names(network: StridedUNet) -> NameMap:
  """The names of a `StridedUNet` of any depth."""
  del network
  return NameMap(
    (
      *unit("conv{i}.", "down_{i}", conv="0", norm="1"),
      *unit("conv{i}_1.", "again_{i}", conv="0", norm="1"),
      Entry("deconv{i}.0", "up_{i}", TRANSPOSED),
      Entry("output_layer", "readout", LAYER),
    )
  )


def pooled_options(
  shape_in: tuple[int, int, int, int],
  n_channels: int,
  n_classes: int,
  base_width: int = 64,
) -> Mapping[str, Any]:
  """Translates the arguments of the original constructor of UNet.

  Args:
    shape_in: (T, C, H, W) of one input.
    n_channels: of the images, those of one frame or of all.
    n_classes: channels of the resulting images.
    base_width: channels of the finest level.

  Returns:
    Options of `stjax.models.build("unet", ...)`, and in_shape (T, H, W, C).

  Raises:
    ConvertError: channels that do not follow from shape_in.
  """
  options = image_options(shape_in, n_channels, n_classes)
  return options | {"features": base_width}


def strided_options(
  shape_in: tuple[int, int, int, int],
  input_channels: int,
  output_channels: int,
  kernel_size: int = 3,
  dropout_rate: float = 0.5,
  base_width: int = 64,
) -> Mapping[str, Any]:
  """Translates the arguments of the original constructor of U_net.

  Args:
    shape_in: (T, C, H, W) of one input.
    input_channels: of the images, those of one frame or of all.
    output_channels: of the resulting images.
    kernel_size: of the convolutions.
    dropout_rate: after each of them.
    base_width: channels of the first level.

  Returns:
    Options of `stjax.models.build("unet_strided", ...)`, and in_shape (T, H,
    W, C).

  Raises:
    ConvertError: channels that do not follow from shape_in.
  """
  return image_options(shape_in, input_channels, output_channels) | {
    "features": base_width,
    "kernel_size": kernel_size,
    "dropout": dropout_rate,
  }
