"""SFP's backbones against goldens: those that are networks here."""

import functools
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from golden_case import Case, NotBuilt
from golden_simvp_networks import Twin, check
from golden_triton_baselines import network, spectral_conv
from golden_triton_others import SFP_TWINS

from stjax.convert import cno, mapping, resnet, spectral, unet
from stjax.models.cno import CNO, Residual
from stjax.models.layers.basic import TransposedConv
from stjax.models.layers.conv_unit import ConvUnit, leaky_relu
from stjax.models.resnet import Block, ResNet
from stjax.models.unet_forecast import SLOPE, StridedUNet


def draw(seed: int, key: str, kind: str, scale: float, shape, bits: int):
  """One array of a case whose parameters are made by a recipe."""
  state = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0x7FFFFFFF)
  g = state.standard_normal(shape)
  if kind == "skip":
    return np.zeros(shape, np.int32)
  value = {"n": scale * g, "gain": 1 + 0.1 * g, "var": 0.5 + 0.5 * np.abs(g)}[kind]
  return (np.round(value * 2**bits) / 2**bits).astype(np.float32)


class RecipeCase:
  """A case with the parameters of its recipe, if it has one."""

  def __init__(self, case: Case):
    self._case = case

  def __getattr__(self, name: str):
    return getattr(self._case, name)

  @functools.cached_property
  def parameters(self) -> dict[str, np.ndarray]:
    recipe = self._case.meta.get("param_recipe")
    if recipe is None:
      return self._case.group("param")
    parameters = {
      key: draw(recipe["seed"], key, *how, recipe["bits"])
      for key, how in recipe["keys"].items()
    }
    drawn = [
      parameters[key].sum(dtype=np.float64)
      for key, how in recipe["keys"].items()
      if how[0] != "skip"
    ]
    np.testing.assert_allclose(
      drawn, self._case.arrays["check/param_sum"], rtol=1e-4, atol=1e-3
    )
    return parameters

  def group(self, prefix: str) -> dict[str, np.ndarray]:
    """As the case's own; without buffers that nothing updates."""
    if prefix == "param":
      return self.parameters
    arrays = self._case.group(prefix)
    if prefix != "after":
      return arrays
    changed = {
      key: x for key, x in arrays.items() if not np.array_equal(x, self.parameters[key])
    }
    same = arrays.keys() - changed.keys()
    assert all("decoder_inv" in key for key in same), same
    return changed


def cosine_mean(outputs: dict[str, jax.Array]) -> jax.Array:
  """The goldens' loss."""
  return sum(
    jnp.mean(y.reshape(-1) * np.cos(np.arange(y.size)).astype(np.float32))
    for _, y in sorted(outputs.items())
  )


def residual(case: Case) -> Twin:
  names = cno.name_map(CNO()).below("res_nets.{i}.", "residual_{i}/")
  has_norm = any("batch_norm" in key for key in case.group("param"))
  return Twin(Residual(batch_norm=has_norm), names, takes_train=True)


def resnet_block(case: Case) -> Twin:
  options = case.options("input_channels", "hidden_dim", "kernel_size")
  whole = ResNet(stem=False, project=True)
  module = Block(
    options["hidden_dim"], project=True, kernel_size=options["kernel_size"], slope=0.01
  )
  names = resnet.name_map(whole).below("model.{i}.", "block_{i}/")
  return Twin(module, names, takes_train=True)


class DownAndUp(nn.Module):
  """One step down and one up, as a strided U-Net's."""

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
    up = TransposedConv(self.out_features, kernel_size=4, name="up_1")
    return y, leaky_relu(up(y), SLOPE)


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
  return Twin(module, names, takes_train=True)


# By the name of the original class.
TWINS: dict[str, Callable[[Case], Twin]] = {
  **SFP_TWINS,
  "FNO2d": functools.partial(network, "fno", spectral.fno_options),
  "SpectralConv2d_fast": spectral_conv,
  "CNO": functools.partial(network, "cno", cno.original_options),
  "ResidualBlock": residual,
  "ResNet": functools.partial(network, "resnet", resnet.original_options),
  "Resblock": resnet_block,
  "U_net": functools.partial(network, "unet_strided", unet.strided_options),
  "conv(ci->co) then deconv(co->ci), keys conv.* and deconv.*": down_and_up,
}


def run(case: Case) -> None:
  """Runs a case of a backbone or of a part of one."""
  if case.meta["model"] not in TWINS:
    raise NotBuilt(case.meta["model"])
  case = RecipeCase(case)
  check(case, TWINS[case.meta["model"]](case), cosine_mean)
