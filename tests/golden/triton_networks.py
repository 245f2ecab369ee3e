"""The network of Triton and its parts."""

import functools

from golden import originals
from golden.case import Case, NotBuilt
from golden.twins import ONE_FRAME, SAME, Axes, Twin, load, twin
from stjax.convert import mapping
from stjax.convert import triton as names_lib
from stjax.models import simvp, triton
from stjax.models.translators.attention import SelfAttention
from stjax.models.translators.metaformer import MetaFormer, ResizedBlock


def build(case: Case):
  """The network of a case, its variables and the options of both."""
  # Rollouts and training steps have further options.
  known = {"shape_in", *originals.TRITON}
  config = {key: x for key, x in case.meta["config"].items() if key in known}
  options = originals.triton(**config)
  options["core_first"] = names_lib.core_first(case.group("param"))
  return *load("triton", case, options), options


@twin("triton", "Triton")
def network(case: Case) -> Twin:
  module, _, _ = build(case)
  # The ocean's copy has no time axis.
  axes = Axes() if len(case.meta["config"]["shape_in"]) == 4 else ONE_FRAME
  return Twin(module, names_lib.name_map(module), axes=axes)


def part_names(torch: str, path: str, **options) -> mapping.NameMap:
  """The names of a part of a Triton."""
  return names_lib.name_map(triton.Triton(**options)).below(torch, path)


@twin("triton", "ConvDynamicsLayer")
def layer(case: Case) -> Twin:
  options = case.options(
    "C_in C_out stride transpose act_norm", transpose=False, act_norm=False
  )
  if options["stride"] not in (1, 2):
    raise NotBuilt(f"a layer of stride {options['stride']}")
  resampled = "up" if options["transpose"] else "down"
  sampling = resampled if options["stride"] == 2 else "same"
  module = simvp.FirstLayer(options["C_out"], sampling=sampling)
  names = part_names(names_lib.DECODER + "dec.{i}.", "decoder/layer_{i}/")
  if sampling == "up":
    # In a decoder of two layers, the first is transposed.
    first = part_names(
      names_lib.DECODER + "dec.0.", "decoder/layer_0/", spatial_depth=2
    )
    names = mapping.NameMap((*first.entries, *names.entries))
  if options["act_norm"]:
    return Twin(module, names)
  return Twin(module, names, method="convolve", unused=r"\bnorm\.")


@twin("triton", "AtmosphericEncoder")
def encoder(case: Case) -> Twin:
  options = case.options("C_in spatial_hidden_dim num_spatial_layers")
  module = simvp.FirstEncoder(
    options["spatial_hidden_dim"], options["num_spatial_layers"]
  )
  return Twin(module, part_names(names_lib.ENCODER, "encoder/"))


@twin("triton", "AtmosphericDecoder")
def decoder(case: Case) -> Twin:
  options = case.options("spatial_hidden_dim C_out num_spatial_layers")
  depth = options["num_spatial_layers"]
  module = simvp.FirstDecoder(options["spatial_hidden_dim"], options["C_out"], depth)
  return Twin(module, part_names(names_lib.DECODER, "decoder/", spatial_depth=depth))


@twin("triton", "Attention")
def attention(case: Case) -> Twin:
  options = case.options("dim", num_heads=8, qkv_bias=False, qk_scale=None)
  if options["qk_scale"] is not None:
    raise NotBuilt("attention of another scale")
  module = SelfAttention(options["num_heads"], qkv_bias=bool(options["qkv_bias"]))
  names = part_names(
    names_lib.BLOCK + "attn.", names_lib.BLOCK_PATH + "mixer/attention/"
  )
  return Twin(module, names, axes=SAME)


@twin("triton", "SelfAttentionBlock", local=False)
@twin("triton", "ConvBlock", local=True)
def block(case: Case, local: bool) -> Twin:
  options = case.options(
    "dim num_heads mlp_ratio qkv_bias init_value", mlp_ratio=4.0, init_value=1e-6
  )
  heads = {}
  if not local:
    heads["heads"] = options.get("num_heads", 8)
    heads["qkv_bias"] = bool(options.get("qkv_bias", False))
  make = triton.uniformer(0, False, local, **heads)
  names = part_names(names_lib.BLOCK, names_lib.BLOCK_PATH)
  return Twin(make(mlp_ratio=options["mlp_ratio"]), names)


@twin("triton", "SpatioTemporalEvolutionBlock")
def resized_block(case: Case) -> Twin:
  options = case.options("in_channels out_channels", mlp_ratio=8.0, layer_i=0)
  resized = options["in_channels"] != options["out_channels"]
  factory = triton.core_block(names_lib.core_first(case.group("param")))
  core = functools.partial(
    factory(options["layer_i"], resized), mlp_ratio=options["mlp_ratio"]
  )
  names = part_names(names_lib.CORE + "enc.{i}.", "core/block_{i}/")
  return Twin(ResizedBlock(core, options["out_channels"]), names)


@twin("triton", "SpatioTemporalEvolution")
def core(case: Case) -> Twin:
  options = case.options("channel_in channel_hid N2", mlp_ratio=4.0)
  module = MetaFormer(
    triton.core_block(names_lib.core_first(case.group("param"))),
    options["channel_hid"],
    options["N2"],
    options["mlp_ratio"],
  )
  return Twin(module, part_names(names_lib.CORE, "core/"))
