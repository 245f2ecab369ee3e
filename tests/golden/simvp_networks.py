"""The networks of SimVP and their parts."""

import functools
from typing import Any

from golden import originals, twins
from golden.case import Case, NotBuilt
from golden.twins import Twin, twin
from stjax.convert import mapping
from stjax.convert import simvp as names_lib
from stjax.models import simvp
from stjax.models.translators import BLOCKS, TRANSLATORS, gated, inception
from stjax.models.translators.metaformer import ResizedBlock


def network_options(config: dict[str, Any]) -> dict[str, Any]:
  """The options of a whole network, and in_shape."""
  options = originals.simvp(**config)
  check_translator(options["translator"], TRANSLATORS)
  return options


def check_translator(name: str, known) -> str:
  if name not in known:
    raise NotBuilt(f"translator {name}")
  return name


@twin("simvp", "SimVP_Model")
def network(case: Case) -> Twin:
  return twins.network("simvp", case, network_options(case.meta["config"]))


def part_names(translator: str, torch: str = "", path: str = "") -> mapping.NameMap:
  """The names of a part of a SimVP."""
  whole = names_lib.name_map(simvp.SimVP(translator=translator))
  return whole.below(torch, path)


def block_names(translator: str, torch: str = "", path: str = "") -> mapping.NameMap:
  """The names of a part of a translator's block."""
  return part_names(translator, names_lib.BLOCK + torch, names_lib.BLOCK_PATH + path)


@twin("simvp", "ConvSC")
def sampled_conv(case: Case) -> Twin:
  options = case.options(
    "C_in C_out kernel_size downsampling upsampling act_norm act_inplace",
    kernel_size=3,
    downsampling=False,
    upsampling=False,
    act_norm=True,
  )
  sampling = "down" if options["downsampling"] else "same"
  sampling = "up" if options["upsampling"] else sampling
  module = simvp.SampledConv(options["C_out"], options["kernel_size"], sampling)
  names = part_names("gsta", "dec.dec.{i}.", "decoder/layer_{i}/")
  if options["act_norm"]:
    return Twin(module, names)
  return Twin(module, names, method="convolve", unused=r"\bnorm\.")


@twin("simvp", "Encoder")
def encoder(case: Case) -> Twin:
  options = case.options("C_in C_hid N_S spatio_kernel")
  depth = options["N_S"] // 2 * 2
  module = simvp.Encoder(options["C_hid"], depth, options["spatio_kernel"])
  return Twin(module, part_names("gsta", "enc.", "encoder/"))


@twin("simvp", "Decoder")
def decoder(case: Case) -> Twin:
  options = case.options("C_hid C_out N_S spatio_kernel")
  depth = options["N_S"] // 2 * 2
  module = simvp.Decoder(
    options["C_hid"], options["C_out"], depth, options["spatio_kernel"]
  )
  return Twin(module, part_names("gsta", "dec.", "decoder/"))


@twin("simvp", "AttentionModule", gate=gated.SplitGate, translator="gsta")
@twin("simvp", "TemporalAttentionModule", gate=gated.TemporalGate, translator="tau")
def gate_alone(case: Case, gate, translator: str) -> Twin:
  options = case.options("dim kernel_size dilation reduction")
  known = {"kernel_size", "dilation", "reduction"} & options.keys()
  module = gate(**{key: options[key] for key in known})
  return Twin(
    module, block_names(translator, "attn.spatial_gating_unit.", "mixer/gate/")
  )


@twin("simvp", "SpatialAttention", gate=gated.SplitGate, translator="gsta")
@twin("simvp", "TemporalAttention", gate=gated.TemporalGate, translator="tau")
def gated_attention(case: Case, gate, translator: str) -> Twin:
  options = case.options("d_model kernel_size attn_shortcut")
  if not options.get("attn_shortcut", True):
    raise NotBuilt("gated attention without its shortcut")
  if "kernel_size" in options:
    gate = functools.partial(gate, kernel_size=options["kernel_size"])
  module = gated.GatedAttention(gate)
  return Twin(module, block_names(translator, "attn.", "mixer/"))


@twin("simvp", "MixMlp")
def mix_mlp(case: Case) -> Twin:
  options = case.options("in_features hidden_features out_features act_layer drop")
  core = BLOCKS["gsta"](0, False)
  hidden = options.get("hidden_features") or options["in_features"]
  module = core.keywords["mlp"](hidden=hidden)
  return Twin(module, block_names("gsta", "mlp.", "mlp/"))


def block(case: Case, translator: str) -> Twin:
  """A translator's block; the original's classes differ in defaults only."""
  options = case.options("dim", mlp_ratio=4.0, layer_i=0)
  # A stack puts Uniformer's global block where neither end of it is.
  index = options["layer_i"] + (options.get("block_type") == "MHSA")
  settings = {"mlp_ratio": options["mlp_ratio"]}
  if translator == "convmixer":
    settings["kernel_size"] = options.get("kernel_size", 9)
  constants = {}
  if translator == "swin":
    h, w = options["input_resolution"]
    constants = names_lib.swin_constants(h, w, index % 2 == 1)
  module = BLOCKS[translator](index, False)(**settings)
  return Twin(module, block_names(translator), constants)


for _original, _translator in {
  "ConvMixerSubBlock": "convmixer",
  "ConvNeXtSubBlock": "convnext",
  "GASubBlock": "gsta",
  "HorNetSubBlock": "hornet",
  "MLPMixerSubBlock": "mlpmixer",
  "MogaSubBlock": "moganet",
  "PoolFormerSubBlock": "poolformer",
  "SwinSubBlock": "swin",
  "TAUSubBlock": "tau",
  "UniformerSubBlock": "uniformer",
  "VANSubBlock": "van",
  "ViTSubBlock": "vit",
}.items():
  twin("simvp", _original, translator=_translator)(block)


@twin("simvp", "MetaBlock")
def meta_block(case: Case) -> Twin:
  options = case.options("in_channels out_channels", mlp_ratio=8.0, layer_i=0)
  translator = translator_of(options)
  resized = options["in_channels"] != options["out_channels"]
  core = functools.partial(
    BLOCKS[translator](options["layer_i"], resized), mlp_ratio=options["mlp_ratio"]
  )
  names = part_names(translator, "hid.enc.{i}.", "translator/block_{i}/")
  return Twin(ResizedBlock(core, options["out_channels"]), names)


@twin("simvp", "MidMetaNet")
def meta_net(case: Case) -> Twin:
  options = case.options("channel_in channel_hid N2", mlp_ratio=4.0)
  translator = translator_of(options)
  module = TRANSLATORS[translator](
    features=options["channel_hid"], depth=options["N2"], mlp_ratio=options["mlp_ratio"]
  )
  constants = {}
  if translator == "swin":
    h, w = options["input_resolution"]
    constants = {
      f"enc.{i}.block.{key}": value
      for i in range(options["N2"])
      for key, value in names_lib.swin_constants(h, w, i % 2 == 1).items()
    }
  return Twin(module, part_names(translator, "hid.", "translator/"), constants)


def translator_of(options: dict[str, Any]) -> str:
  """The translator of a part's "model_type"."""
  return check_translator(originals.translator_name(options.get("model_type")), BLOCKS)


@twin("simvp", "MidIncepNet")
def inception_net(case: Case) -> Twin:
  options = case.options("channel_in channel_hid N2")
  if {"incep_ker", "groups"} & options.keys():
    raise NotBuilt("a U-Net of other kernels or groups")
  module = inception.InceptionUNet(options["channel_hid"], options["N2"])
  return Twin(module, part_names("incepu", "hid.", "translator/"))


@twin("simvp", "gInception_ST")
@twin("triton", "Inception")
def inception_block(case: Case) -> Twin:
  options = case.options(
    "C_in C_hid C_out incep_ker groups", incep_ker=inception.KERNELS, groups=8
  )
  module = inception.InceptionBlock(
    options["C_hid"], options["C_out"], tuple(options["incep_ker"]), options["groups"]
  )
  return Twin(module, part_names("incepu", "hid.enc.{i}.", "translator/down_{i}/"))
