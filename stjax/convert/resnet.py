"""The names of ResNet's weights in torch and here."""

from stjax.convert.layout import LAYER
from stjax.convert.mapping import Entry, NameMap, unit
from stjax.models.resnet import ResNet


def name_map(network: ResNet) -> NameMap:
  """Maps the names of a ResNet of any depth.

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
