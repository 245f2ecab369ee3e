"""The names of the two U-Nets' weights in torch and here."""

from stjax.convert.layout import LAYER, TRANSPOSED
from stjax.convert.mapping import Entry, NameMap, double_unit, unit
from stjax.models.unet_forecast import StridedUNet, UNet


def pooled_names(network: UNet) -> NameMap:
  """Maps the names of a `UNet` of any depth."""
  del network
  return NameMap(
    (
      *double_unit("inc.", "stem"),
      *double_unit("down{i}.maxpool_conv.1.", "down_{i}"),
      *double_unit("up{i}.conv.", "up_{i}"),
      Entry("up{i}.up", "grow_{i}", TRANSPOSED),
      Entry("outc.conv", "readout", LAYER),
    )
  )


def strided_names(network: StridedUNet) -> NameMap:
  """Maps the names of a `StridedUNet` of any depth."""
  del network
  return NameMap(
    (
      *unit("conv{i}.", "down_{i}", conv="0", norm="1"),
      *unit("conv{i}_1.", "again_{i}", conv="0", norm="1"),
      Entry("deconv{i}.0", "up_{i}", TRANSPOSED),
      Entry("output_layer", "readout", LAYER),
    )
  )
