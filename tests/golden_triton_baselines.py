"""Baselines of Triton on grids against the originals' numbers.

FNO, KNO, the two U-Nets, ResNet and CNO.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from golden_case import Case, NotBuilt
from golden_simvp_networks import Twin, assert_same_weights, check
from golden_triton_networks import mean_squares

from stjax import convert, models
from stjax.convert import cno, mapping, resnet, spectral, unet
from stjax.models.layers.spectral import SpectralConv

# Complex weights, which these goldens hold as real and imaginary part.
COMPLEX = ("weights1", "weights2", "koopman_matrix")


class ComplexCase:
  """A case whose complex weights and gradients are complex arrays."""

  def __init__(self, case: Case):
    self._case = case

  def __getattr__(self, name: str):
    return getattr(self._case, name)

  def group(self, prefix: str) -> dict[str, np.ndarray]:
    """As the case's own."""
    return {
      key: value.view(np.complex64)[..., 0]
      if key.split(".")[-1] in COMPLEX and not np.iscomplexobj(value)
      else value
      for key, value in self._case.group(prefix).items()
    }


def shape_in(case: Case) -> tuple[int, ...]:
  """(T, C, H, W) of the case's input."""
  return tuple(case.meta["inputs"]["x"])[1:]


def network(
  family: str, translate: Callable[..., Mapping[str, Any]], case: Case
) -> Twin:
  """A whole network, through the public converter."""
  options = dict(translate(shape_in(case), **case.meta["config"]))
  state_dict = case.group("param")
  variables = convert.to_stjax(family, state_dict, **options)
  back = convert.to_torch(family, variables, **options)
  assert_same_weights(back, state_dict)
  options.pop("in_shape")
  module = models.build(family, **options)
  names = convert.FAMILIES[family].names(module)
  return Twin(module, names, takes_train=True)


def kno(case: Case) -> Twin:
  def translate(shape, encoder, decoder, t_len, **options):
    if (encoder, decoder) != ("encoder_mlp", "decoder_mlp"):
      raise NotBuilt(f"KNO with {encoder} and {decoder}")
    assert t_len == shape[0]
    return spectral.kno_options(shape, **options)

  twin = network("kno", translate, case)
  return twin._replace(method="forecast_and_reconstruct")


def spectral_conv(case: Case) -> Twin:
  options = case.options("in_channels", "out_channels", "modes1", "modes2")
  module = SpectralConv(options["out_channels"], (options["modes1"], options["modes2"]))
  return Twin(module, mapping.NameMap([mapping.Entry("", "", spectral.SPECTRAL)]))


# By the name of the original class.
TWINS: dict[str, Callable[[Case], Twin]] = {
  "FNO2d": functools.partial(network, "fno", spectral.fno_options),
  "SpectralConv2d_fast": spectral_conv,
  "KNO2d": kno,
  "U_net": functools.partial(network, "unet_strided", unet.strided_options),
  "UNet": functools.partial(network, "unet", unet.pooled_options),
  "ResNet": functools.partial(network, "resnet", resnet.original_options),
  "CNO": functools.partial(network, "cno", cno.original_options),
}


def run(case: Case) -> None:
  """Runs a case of a baseline."""
  case = ComplexCase(case)
  check(case, TWINS[case.meta["model"]](case), mean_squares)
