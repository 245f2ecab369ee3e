"""The names of the U-Net denoiser's weights in torch and here.

Its modules have the names of their counterparts in diffusers' UNet2DModel, whose
blocks with `resnet_time_scale_shift="scale_shift"` compute the same. The whole differs
(there is no attention, each level has one skip, and the grid is doubled before the
blocks of a level), so weights of a UNet2DModel do not fit.
"""

from stjax.convert.layout import LAYER, NORM
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.models.denoisers.unet import UNetDenoiser

_BLOCK = (
  ("norm1", "/first_norm", NORM),
  ("conv1", "/first", LAYER),
  ("time_emb_proj", "/step", LAYER),
  ("norm2", "/second_norm", NORM),
  ("conv2", "/second", LAYER),
  ("conv_shortcut", "/skip", LAYER),
)


def name_map(network: UNetDenoiser) -> NameMap:
  """Maps the names of a `UNetDenoiser` of any depth."""
  found = [
    Entry("conv_in", "stem", LAYER),
    Entry("time_embedding.linear_1", "step/first", LAYER),
    Entry("time_embedding.linear_2", "step/second", LAYER),
    Entry("conv_norm_out", "norm", NORM),
    Entry("conv_out", "readout", LAYER),
  ]
  for level in range(network.depth + 1):
    down = f"down_blocks.{level}"
    found += entries(f"{down}.resnets.{{i}}.", f"down_{level}_{{i}}", _BLOCK)
    if level < network.depth:
      # On the way up, they are counted from the coarsest level on.
      up = f"up_blocks.{network.depth - 1 - level}"
      found += entries(f"{up}.resnets.{{i}}.", f"up_{level}_{{i}}", _BLOCK)
      found += [
        Entry(f"{down}.downsamplers.0.conv", f"halve_{level + 1}", LAYER),
        Entry(f"{up}.upsamplers.0.conv", f"double_{level}", LAYER),
      ]
  return NameMap(found)
