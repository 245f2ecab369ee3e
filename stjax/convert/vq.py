"""The names of the weights of SFP's world model in torch and here."""

from stjax.convert import simvp
from stjax.convert.layout import LAYER, Leaf
from stjax.convert.mapping import Entry, NameMap
from stjax.models.vq import VQ

ROOT = "BV_module."
ENCODER, DECODER, QUANTISER = (
  f"{ROOT}{part}." for part in ("_encoder", "_decoder", "_vq_vae")
)
CODEBOOK = (
  Leaf("_embedding.weight", "codebook", "embedding"),
  Leaf("_ema_w", "codebook", "sums"),
  Leaf("_ema_cluster_size", "codebook", "counts"),
)


def name_map(network: VQ) -> NameMap:
  """Maps the names of a network of any depth."""
  return NameMap(
    [
      *simvp.frame(ENCODER, DECODER, network.depth, first_version=True),
      Entry(f"{ROOT}_pre_vq_conv", "pre_quantise", LAYER),
      Entry(f"{DECODER}proj", "decoder/project", LAYER),
      Entry(QUANTISER.removesuffix("."), "", CODEBOOK),
    ]
  )
