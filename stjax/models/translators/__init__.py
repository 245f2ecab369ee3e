"""SimVP's translators, the part of the network between encoder and decoder.

A translator maps the latent [B, T, h, w, S] to the same shape. All but
"incepu" are `MetaFormer` stacks that differ in their block. The table of blocks
holds functions that take the block's place in the stack and return the
constructor of the block.
"""

import functools
from collections.abc import Callable

from flax import linen as nn

from stjax.models.translators import attention, convolutional, gated, mlp
from stjax.models.translators.inception import InceptionUNet
from stjax.models.translators.metaformer import MetaFormer

__all__ = ["BLOCKS", "TRANSLATORS"]

BLOCKS: dict[str, Callable[..., nn.Module]] = {
  "convmixer": convolutional.convmixer,
  "convnext": convolutional.convnext,
  "gsta": gated.gsta,
  "hornet": convolutional.hornet,
  "mlpmixer": mlp.mlpmixer,
  "moganet": convolutional.moganet,
  "poolformer": mlp.poolformer,
  "swin": attention.swin,
  "tau": gated.tau,
  "uniformer": attention.uniformer,
  "van": gated.van,
  "vit": attention.vit,
}

TRANSLATORS: dict[str, Callable[..., nn.Module]] = {
  "incepu": InceptionUNet,
  **{
    name: functools.partial(MetaFormer, block=block) for name, block in BLOCKS.items()
  },
}
