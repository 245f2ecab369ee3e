"""Parts of the networks that Triton and SFP are compared with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from golden.case import Case, NotBuilt
from golden.registry import runner
from golden.twins import SAME, Axes, Twin, first_axes, last_axes, twin
from stjax.convert import cno, dit, fourcastnet, lsm, mapping, resnet, spectral, unet
from stjax.convert.layout import LAYER, NORM
from stjax.models import dit as dit_lib
from stjax.models import fourcastnet as fourcastnet_lib
from stjax.models import lsm as lsm_lib
from stjax.models.cno import CNO, Residual
from stjax.models.layers import basic as layers
from stjax.models.layers.conv_unit import ConvUnit, leaky_relu
from stjax.models.layers.spectral import SpectralConv
from stjax.models.resnet import Block, ResNet
from stjax.models.translators.metaformer import TwoBranchBlock
from stjax.models.unet_forecast import SLOPE, StridedUNet


@twin("sfp", "SpectralConv2d_fast")
@twin("triton", "SpectralConv2d_fast")
def spectral_conv(case: Case) -> Twin:
  options = case.options("in_channels out_channels modes1 modes2")
  module = SpectralConv(options["out_channels"], (options["modes1"], options["modes2"]))
  return Twin(module, mapping.NameMap([mapping.Entry("", "", spectral.SPECTRAL)]))


@twin("sfp", "ResidualBlock")
def residual(case: Case) -> Twin:
  names = cno.name_map(CNO()).below("res_nets.{i}.", "residual_{i}/")
  has_norm = any("batch_norm" in key for key in case.group("param"))
  return Twin(Residual(batch_norm=has_norm), names)


@twin("sfp", "Resblock")
def resnet_block(case: Case) -> Twin:
  options = case.options("input_channels hidden_dim kernel_size")
  whole = ResNet(stem=False, project=True)
  module = Block(
    options["hidden_dim"], project=True, kernel_size=options["kernel_size"], slope=0.01
  )
  return Twin(module, resnet.name_map(whole).below("model.{i}.", "block_{i}/"))


class DownAndUp(nn.Module):
  """One step down and one up, as a strided U-Net has them."""

  features: int
  out_features: int
  kernel_size: int
  stride: int

  @nn.compact
  def __call__(self, x, train):
    y = ConvUnit(
      self.features,
      self.kernel_size,
      self.stride,
      use_bias=False,
      slope=SLOPE,
      name="down_1",
    )(x, train)
    up = layers.TransposedConv(self.out_features, kernel_size=4, name="up_1")
    return y, leaky_relu(up(y), SLOPE)


@twin("sfp", "conv(ci->co) then deconv(co->ci), keys conv.* and deconv.*")
def down_and_up(case: Case) -> Twin:
  options = case.meta["config"]
  module = DownAndUp(options["co"], options["ci"], options["k"], options["st"])
  names = mapping.NameMap(
    entry._replace(
      torch=entry.torch.replace("{i}", ""), path=entry.path.replace("{i}", "1")
    )
    for entry in unet.strided_names(StridedUNet()).entries
    if "{i}" in entry.torch and "_1" not in entry.torch
  )
  return Twin(module, names)


def filter_options(options: dict) -> dict:
  """The options of a Fourier filter, from those of any module that has one."""
  return {
    "blocks": options.get("num_blocks", 8),
    "threshold": options.get("sparsity_threshold", 0.01),
    "modes": options.get("hard_thresholding_fraction", 1.0),
    "legacy_modes": True,
  }


def afno_names(torch: str, path: str) -> mapping.NameMap:
  whole = fourcastnet.name_map(fourcastnet_lib.FourCastNet())
  return whole.below(fourcastnet.BLOCK + torch, fourcastnet.BLOCK_PATH + path)


@twin("triton", "AFNO2DLayer")
def fourier_filter(case: Case) -> Twin:
  options = case.options(
    "hidden_size num_blocks sparsity_threshold hard_thresholding_fraction"
    " hidden_size_factor",
    hidden_size_factor=1,
  )
  module = fourcastnet_lib.FourierFilter(
    **filter_options(options), expansion=options["hidden_size_factor"]
  )
  return Twin(module, afno_names("filter.", "mixer/"), axes=SAME)


@twin("triton", "Block")
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
  return Twin(module, afno_names("", ""), axes=SAME)


def dit_names(torch: str, path: str) -> mapping.NameMap:
  return dit.name_map(dit_lib.DiT()).below(torch, path)


def as_float(step: np.ndarray) -> jax.Array:
  """Makes diffusion steps floats, with respect to which JAX can derive."""
  return jnp.asarray(step, jnp.float32)


@twin("triton", "DiT")
def dit_core(case: Case) -> Twin:
  options = case.options(
    "input_size patch_size in_channels hidden_size depth num_heads mlp_ratio"
    " class_dropout_prob learn_sigma",
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
  # Its inputs are fields and their steps.
  axes = Axes(
    lambda x: last_axes(x) if x.ndim > 1 else as_float(x),
    lambda x: first_axes(x) if x.ndim > 1 else x,
  )
  return Twin(module, dit_names(dit.CORE, dit.CORE_PATH), axes=axes)


@twin("triton", "DiTBlock")
def dit_block(case: Case) -> Twin:
  options = case.options("hidden_size num_heads mlp_ratio", mlp_ratio=4.0)
  module = dit_lib.DiTBlock(options["num_heads"], options["mlp_ratio"])
  return Twin(module, dit_names(dit.BLOCK, dit.BLOCK_PATH), axes=SAME)


@twin("triton", "TimestepEmbedder")
def dit_step(case: Case) -> Twin:
  options = case.options(
    "hidden_size frequency_embedding_size", frequency_embedding_size=256
  )
  module = dit_lib.StepEmbedding(
    options["hidden_size"], options["frequency_embedding_size"]
  )
  return Twin(module, dit_names(*dit.STEP), axes=SAME._replace(to_here=as_float))


@runner("triton", "get_2d_sincos_pos_embed")
def dit_positions(case: Case) -> None:
  options = case.options("embed_dim grid_size")
  size = options["grid_size"]
  h, w = (size, size) if isinstance(size, int) else size
  positions = dit_lib.grid_sinusoids(h, w, options["embed_dim"])
  (expected,) = case.group("output").values()
  # The converter compares the buffer with these numbers bit for bit.
  np.testing.assert_array_equal(positions, expected)


@twin("sfp", "NeuralSpectralBlock2d")
@twin("triton", "NeuralSpectralBlock2d")
def spectral_block(case: Case) -> Twin:
  options = case.options(
    "width num_basis patch_size num_token", num_basis=16, patch_size=(4, 4), num_token=4
  )
  module = lsm_lib.SpectralBlock(
    options["num_token"], options["num_basis"], tuple(options["patch_size"])
  )
  return Twin(module, lsm.name_map(lsm_lib.LSM()).below("process1.", "spectral_0/"))


class GroupedConv(nn.Module):
  """A module that the original defines and its networks do not use."""

  features: int
  options: dict
  groups: int
  act_norm: bool

  @nn.compact
  def __call__(self, x):
    x = layers.Conv(self.features, groups=self.groups, **self.options, name="conv")(x)
    if not self.act_norm:
      return x
    return nn.leaky_relu(layers.GroupNorm(self.groups, name="norm")(x), 0.2)


@twin("triton", "MultiGroupConv2d")
def grouped_conv(case: Case) -> Twin:
  options = case.options(
    "in_channels out_channels kernel_size stride padding groups act_norm",
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
