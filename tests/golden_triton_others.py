"""Triton's baselines FourCastNet, DiT, LSM, SimVP, ConvLSTM and MgNO."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from golden_case import Case, NotBuilt
from golden_simvp_networks import (
  Twin,
  assert_same_weights,
  check,
  first_axes,
  inception_block,
  last_axes,
)
from golden_triton_networks import mean_squares

from stjax import convert, models
from stjax.convert import convlstm_states, dit, fourcastnet, lsm, mapping, mgno, simvp
from stjax.convert.layout import LAYER, NORM
from stjax.models import dit as dit_lib
from stjax.models import fourcastnet as fourcastnet_lib
from stjax.models import lsm as lsm_lib
from stjax.models.layers import basic as layers
from stjax.models.simvp import leaky_relu
from stjax.models.translators.metaformer import TwoBranchBlock


def same(x):
  return jnp.asarray(x)


def one_frame(x: np.ndarray) -> jax.Array:
  """[B, C, H, W] -> [B, 1, H, W, C]."""
  return last_axes(x)[:, None]


def without_time(y: jax.Array) -> jax.Array:
  """[B, 1, H, W, C] -> [B, C, H, W]."""
  return first_axes(y[:, 0])


def network(family: str, case: Case, options: dict, **twin) -> Twin:
  """A whole network, through the public converter.

  Args:
    family: key of `convert.FAMILIES`.
    case: the case.
    options: of the network, and perhaps in_shape (T, H, W, C).
    **twin: further fields of `Twin`.
  """
  weights = case.group("param")
  options = dict(options)
  if "in_shape" not in options:
    t, c, h, w = case.group("input")["x"].shape[1:]
    options["in_shape"] = t, h, w, c
  in_shape = options.pop("in_shape")
  variables = convert.to_stjax(family, weights, in_shape=in_shape, **options)
  back = convert.to_torch(family, variables, in_shape=in_shape, **options)
  assert_same_weights(back, weights)
  module = models.build(family, **options)
  rules = convert.FAMILIES[family]
  return Twin(
    module,
    rules.names(module),
    rules.constants(module, in_shape),
    takes_train=True,
    **twin,
  )


# FourCastNet.


def filter_options(options: dict) -> dict:
  """Options of a filter, of those of any module that has one."""
  return {
    "blocks": options.get("num_blocks", 8),
    "threshold": options.get("sparsity_threshold", 0.01),
    "modes": options.get("hard_thresholding_fraction", 1.0),
    "legacy_modes": True,
  }


def afno_names(torch: str, path: str) -> mapping.NameMap:
  whole = fourcastnet.name_map(fourcastnet_lib.FourCastNet())
  return whole.below(fourcastnet.BLOCK + torch, fourcastnet.BLOCK_PATH + path)


def fourier_filter(case: Case) -> Twin:
  options = case.options(
    "hidden_size",
    "num_blocks",
    "sparsity_threshold",
    "hard_thresholding_fraction",
    "hidden_size_factor",
    hidden_size_factor=1,
  )
  module = fourcastnet_lib.FourierFilter(
    **filter_options(options), expansion=options["hidden_size_factor"]
  )
  return Twin(
    module,
    afno_names("filter.", "mixer/"),
    takes_train=True,
    to_here=same,
    to_original=same,
  )


def fourier_block(case: Case) -> Twin:
  options = case.options("embed_dim", mlp_ratio=4.0, double_skip=True)
  if options.get("norm_eps", fourcastnet_lib.EPS) != fourcastnet_lib.EPS:
    raise NotBuilt("a norm of another epsilon")
  module = TwoBranchBlock(
    norm=functools.partial(layers.LayerNorm, fourcastnet_lib.EPS),
    mixer=functools.partial(fourcastnet_lib.FourierFilter, **filter_options(options)),
    first_skip=options["double_skip"],
    mlp_ratio=options["mlp_ratio"],
  )
  return Twin(
    module, afno_names("", ""), takes_train=True, to_here=same, to_original=same
  )


def fourcastnet_network(case: Case) -> Twin:
  options = fourcastnet.original_options(**case.meta["config"])
  return network(
    "fourcastnet", case, options, to_here=one_frame, to_original=without_time
  )


# DiT.


def tokens_or_steps(x: np.ndarray) -> jax.Array:
  """Channels last; steps as floats, with respect to which JAX can derive."""
  return last_axes(x) if x.ndim > 1 else jnp.asarray(x, jnp.float32)


def tokens_or_steps_back(x: jax.Array) -> jax.Array:
  return first_axes(x) if x.ndim > 1 else x


def dit_names(torch: str, path: str) -> mapping.NameMap:
  return dit.name_map(dit_lib.DiT()).below(torch, path)


def dit_core(case: Case) -> Twin:
  options = case.options(
    "input_size",
    "patch_size",
    "in_channels",
    "hidden_size",
    "depth",
    "num_heads",
    "mlp_ratio",
    "class_dropout_prob",
    "learn_sigma",
    patch_size=1,
    mlp_ratio=4.0,
    learn_sigma=True,
  )
  patch = options["patch_size"]
  patch = (patch, patch) if isinstance(patch, int) else tuple(patch)
  channels = options["in_channels"]
  module = dit_lib.Transformer(
    options["hidden_size"],
    options["depth"],
    options["num_heads"],
    options["mlp_ratio"],
    patch,
    2 * channels if options["learn_sigma"] else channels,
    "learned",
  )
  return Twin(
    module,
    dit_names(dit.CORE, dit.CORE_PATH),
    to_here=tokens_or_steps,
    to_original=tokens_or_steps_back,
  )


def dit_block(case: Case) -> Twin:
  options = case.options("hidden_size", "num_heads", "mlp_ratio", mlp_ratio=4.0)
  module = dit_lib.DiTBlock(options["num_heads"], options["mlp_ratio"])
  names = dit_names(dit.BLOCK, dit.BLOCK_PATH)
  return Twin(module, names, to_here=same, to_original=same)


def dit_step(case: Case) -> Twin:
  options = case.options(
    "hidden_size", "frequency_embedding_size", frequency_embedding_size=256
  )
  module = dit_lib.StepEmbedding(
    options["hidden_size"], options["frequency_embedding_size"]
  )
  return Twin(
    module,
    dit_names(*dit.STEP),
    to_here=lambda x: jnp.asarray(x, jnp.float32),
    to_original=same,
  )


def dit_positions(case: Case) -> None:
  options = case.options("embed_dim", "grid_size")
  size = options["grid_size"]
  h, w = (size, size) if isinstance(size, int) else size
  positions = dit_lib.grid_sinusoids(h, w, options["embed_dim"])
  (expected,) = case.group("output").values()
  # The converter compares the buffer with these numbers bit for bit.
  np.testing.assert_array_equal(positions, expected)


def dit_network(case: Case) -> Twin:
  options = dit.original_options(**case.meta["config"])
  # The goldens' positions are random.
  return network("dit", case, options | {"position": "learned"})


# The others.


def spectral_block(case: Case) -> Twin:
  options = case.options(
    "width",
    "num_basis",
    "patch_size",
    "num_token",
    num_basis=16,
    patch_size=(4, 4),
    num_token=4,
  )
  module = lsm_lib.SpectralBlock(
    options["num_token"], options["num_basis"], tuple(options["patch_size"])
  )
  names = lsm.name_map(lsm_lib.LSM()).below("process1.", "spectral_0/")
  return Twin(module, names)


def lsm_network(case: Case) -> Twin:
  """Of frames [B, T, C, H, W], or of one frame [B, H, W, C] as SFP's."""
  options = dict(lsm.original_options(**case.meta["config"]))
  x = case.group("input")["x"]
  if x.ndim == 5:
    return network("lsm", case, options)
  return network(
    "lsm",
    case,
    options | {"in_shape": (1, *x.shape[1:])},
    to_here=lambda x: jnp.asarray(x)[:, None],
    to_original=lambda y: y[:, 0],
  )


def simvp_network(case: Case) -> Twin:
  options = simvp.first_version_options(**case.meta["config"])
  return network("simvp", case, options)


def convlstm_network(case: Case) -> Twin:
  config = case.meta["config"]
  if config.get("return_all_layers"):
    raise NotBuilt("a ConvLSTM that returns the states of all layers")
  options = convlstm_states.original_options(**config)
  return network("convlstm_states", case, options)


def mgno_network(case: Case) -> Twin:
  frames = case.group("input")["x"].shape[1]
  options = mgno.original_options(**case.meta["config"], frames=frames)
  return network("mgno", case, options)


class GroupedConv(nn.Module):
  """What the original defines and its networks do not use."""

  features: int
  options: dict
  groups: int
  act_norm: bool

  @nn.compact
  def __call__(self, x):
    x = layers.Conv(self.features, groups=self.groups, **self.options, name="conv")(x)
    if not self.act_norm:
      return x
    return leaky_relu(layers.GroupNorm(self.groups, name="norm")(x))


def grouped_conv(case: Case) -> Twin:
  options = case.options(
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "groups",
    "act_norm",
    act_norm=False,
  )
  groups = options["groups"]
  groups = groups if options["in_channels"] % groups == 0 else 1
  module = GroupedConv(
    options["out_channels"],
    {key: options[key] for key in ("kernel_size", "stride", "padding")},
    groups,
    options["act_norm"],
  )
  names = mapping.NameMap(
    (mapping.Entry("conv", "conv", LAYER), mapping.Entry("norm", "norm", NORM))
  )
  return Twin(module, names, unused=None if options["act_norm"] else r"^norm\.")


# By the name of the original class.
TWINS: dict[str, Callable[[Case], Twin]] = {
  "AFNO2DLayer": fourier_filter,
  "Block": fourier_block,
  "Fourcastnet": fourcastnet_network,
  "DiT": dit_core,
  "DiTBlock": dit_block,
  "TimestepEmbedder": dit_step,
  "nmo_dit": dit_network,
  "Dit": dit_network,
  "NeuralSpectralBlock2d": spectral_block,
  "LSM": lsm_network,
  "SimVP": simvp_network,
  "Inception": inception_block,
  "ConvLSTM": convlstm_network,
  "MgNO": mgno_network,
  "MultiGroupConv2d": grouped_conv,
}
# Those that SFP's code has as well.
SFP_TWINS = {name: TWINS[name] for name in ("LSM", "NeuralSpectralBlock2d", "SimVP")}


def run(case: Case) -> None:
  """Runs a case of a network or of a part of one."""
  check(case, TWINS[case.meta["model"]](case), mean_squares)


# By the name of the original class or function.
RUNS: dict[str, Callable[[Case], None]] = {
  **dict.fromkeys(TWINS, run),
  "get_2d_sincos_pos_embed": dit_positions,
}
