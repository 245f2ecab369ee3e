"""Triton's network and its parts against the originals' numbers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from golden_case import Case, NotBuilt
from golden_simvp_networks import (
  Twin,
  assert_same_weights,
  check,
  first_axes,
  last_axes,
)

from stjax import convert, models
from stjax.convert import mapping
from stjax.convert import triton as names_lib
from stjax.models import simvp, triton
from stjax.models.translators.attention import SelfAttention
from stjax.models.translators.metaformer import MetaFormer, ResizedBlock


def mean_squares(outputs: dict[str, jax.Array]) -> jax.Array:
  """The goldens' loss."""
  return sum(jnp.mean(jnp.square(y)) for y in outputs.values())


def network_options(case: Case) -> dict[str, Any]:
  """Options of a whole network; stochastic depth is off, as in the goldens."""
  known = (
    "shape_in",
    "spatial_hidden_dim",
    "output_channels",
    "temporal_hidden_dim",
    "num_spatial_layers",
    "num_temporal_layers",
    "in_time_seq_length",
    "out_time_seq_length",
  )
  config = case.meta["config"]
  options = names_lib.original_options(
    **{key: value for key, value in config.items() if key in known}
  )
  return options | {
    "core_first": names_lib.core_first(case.group("param")),
    "drop_path": 0.0,
  }


def build(case: Case):
  """The network, its variables and the options of both."""
  options = network_options(case)
  variables = convert.to_stjax("triton", case.group("param"), **options)
  back = convert.to_torch("triton", variables, **options)
  assert_same_weights(back, case.group("param"))
  variables.pop("torch", None)
  arguments = {k: v for k, v in options.items() if k != "in_shape"}
  return models.build("triton", **arguments), variables, options


def network(case: Case) -> Twin:
  """A whole Triton, through the public converter."""
  module, _, _ = build(case)
  twin = Twin(module, names_lib.name_map(module), takes_train=True)
  if len(case.meta["config"]["shape_in"]) == 4:
    return twin
  # The ocean's copy has no time axis.
  return twin._replace(
    to_here=lambda x: last_axes(x)[:, None], to_original=lambda y: first_axes(y[:, 0])
  )


def part_names(torch: str, path: str, **options) -> mapping.NameMap:
  """Names of a part of a Triton."""
  return names_lib.name_map(triton.Triton(**options)).below(torch, path)


def layer(case: Case) -> Twin:
  options = case.options(
    "C_in", "C_out", "stride", "transpose", "act_norm", transpose=False, act_norm=False
  )
  if options["stride"] not in (1, 2):
    raise NotBuilt(f"a layer of stride {options['stride']}")
  resampled = "up" if options["transpose"] else "down"
  sampling = resampled if options["stride"] == 2 else "same"
  module = simvp.FirstLayer(options["C_out"], sampling=sampling)
  # In a decoder of two layers, the first is transposed.
  number = 0 if sampling == "up" else 1
  names = part_names(
    f"{names_lib.DECODER}dec.{number}.", f"decoder/layer_{number}/", spatial_depth=2
  )
  norm = part_names(f"{names_lib.DECODER}dec.{{i}}.", "decoder/layer_{i}/")
  names = mapping.NameMap((*names.entries, *norm.entries))
  if options["act_norm"]:
    return Twin(module, names)
  return Twin(module, names, method="convolve", unused=r"\bnorm\.")


def encoder(case: Case) -> Twin:
  options = case.options("C_in", "spatial_hidden_dim", "num_spatial_layers")
  module = simvp.FirstEncoder(
    options["spatial_hidden_dim"], options["num_spatial_layers"]
  )
  return Twin(module, part_names(names_lib.ENCODER, "encoder/"))


def decoder(case: Case) -> Twin:
  options = case.options("spatial_hidden_dim", "C_out", "num_spatial_layers")
  depth = options["num_spatial_layers"]
  module = simvp.FirstDecoder(options["spatial_hidden_dim"], options["C_out"], depth)
  names = part_names(names_lib.DECODER, "decoder/", spatial_depth=depth)
  return Twin(module, names)


def attention(case: Case) -> Twin:
  options = case.options("dim", num_heads=8, qkv_bias=False, qk_scale=None)
  if options["qk_scale"] is not None:
    raise NotBuilt("attention of another scale")
  module = SelfAttention(options["num_heads"], qkv_bias=bool(options["qkv_bias"]))
  names = part_names(
    names_lib.BLOCK + "attn.", names_lib.BLOCK_PATH + "mixer/attention/"
  )
  same = lambda x: jnp.asarray(x)
  return Twin(module, names, takes_train=True, to_here=same, to_original=same)


def block(local: bool, case: Case) -> Twin:
  options = case.options(
    "dim",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
    "init_value",
    mlp_ratio=4.0,
    init_value=1e-6,
  )
  settings = {"mlp_ratio": options["mlp_ratio"]}
  heads = {}
  if not local:
    heads["heads"] = options.get("num_heads", 8)
    heads["qkv_bias"] = bool(options.get("qkv_bias", False))
  module = triton.uniformer(0, False, local, **heads)(**settings)
  names = part_names(names_lib.BLOCK, names_lib.BLOCK_PATH)
  return Twin(module, names, takes_train=True)


def resized_block(case: Case) -> Twin:
  options = case.options("in_channels", "out_channels", mlp_ratio=8.0, layer_i=0)
  resized = options["in_channels"] != options["out_channels"]
  factory = triton.core_block(names_lib.core_first(case.group("param")))
  core = functools.partial(
    factory(options["layer_i"], resized), mlp_ratio=options["mlp_ratio"]
  )
  return Twin(
    ResizedBlock(core, options["out_channels"]),
    part_names(names_lib.CORE + "enc.{i}.", "core/block_{i}/"),
    takes_train=True,
  )


def core(case: Case) -> Twin:
  options = case.options("channel_in", "channel_hid", "N2", mlp_ratio=4.0)
  module = MetaFormer(
    triton.core_block(names_lib.core_first(case.group("param"))),
    options["channel_hid"],
    options["N2"],
    options["mlp_ratio"],
  )
  return Twin(module, part_names(names_lib.CORE, "core/"), takes_train=True)


# By the name of the original class.
TWINS: dict[str, Callable[[Case], Twin]] = {
  "Triton": network,
  "ConvDynamicsLayer": layer,
  "AtmosphericEncoder": encoder,
  "AtmosphericDecoder": decoder,
  "Attention": attention,
  "SelfAttentionBlock": functools.partial(block, False),
  "ConvBlock": functools.partial(block, True),
  "SpatioTemporalEvolutionBlock": resized_block,
  "SpatioTemporalEvolution": core,
}


def run(case: Case) -> None:
  """Runs a case of a network or of a part of one."""
  if case.meta["model"] not in TWINS:
    raise NotBuilt(case.meta["model"])
  check(case, TWINS[case.meta["model"]](case), mean_squares)
