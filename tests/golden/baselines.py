"""The whole networks that Triton and SFP are compared with."""

import inspect
from collections.abc import Callable

import jax.numpy as jnp

from golden import originals, twins
from golden.case import Case
from golden.twins import ONE_FRAME, Axes, Twin, twin


def network(case: Case, family: str, translate: Callable, **fields) -> Twin:
  """A whole network; not every original is told the shape of its input."""
  config = dict(case.meta["config"])
  if "shape_in" in inspect.signature(translate).parameters:
    config.setdefault("shape_in", case.meta["inputs"]["x"][1:])
  return twins.network(family, case, translate(**config), **fields)


for _systems, _model, _family, _translate in (
  (("sfp",), "CLSTM", "convlstm_states", originals.clstm),
  (("sfp", "triton"), "CNO", "cno", originals.cno),
  (("triton",), "ConvLSTM", "convlstm_states", originals.convlstm_states),
  (("sfp", "triton"), "FNO2d", "fno", originals.fno),
  (("triton",), "MgNO", "mgno", originals.mgno),
  (("sfp", "triton"), "ResNet", "resnet", originals.resnet),
  (("sfp", "triton"), "SimVP", "simvp", originals.first_simvp),
  (("sfp", "triton"), "U_net", "unet_strided", originals.unet_strided),
  (("triton",), "UNet", "unet", originals.unet),
):
  for _system in _systems:
    twin(_system, _model, family=_family, translate=_translate)(network)
twin(
  "triton",
  "Fourcastnet",
  family="fourcastnet",
  translate=originals.fourcastnet,
  axes=ONE_FRAME,
)(network)


@twin("triton", "nmo_dit", "Dit")
def dit(case: Case) -> Twin:
  # The goldens' positions are random.
  options = originals.dit(**case.meta["config"]) | {"position": "learned"}
  return twins.network("dit", case, options)


@twin("triton", "KNO2d")
def kno(case: Case) -> Twin:
  twin = network(case, "kno", originals.kno)
  return twin._replace(method="forecast_and_reconstruct")


@twin("sfp", "LSM")
@twin("triton", "LSM")
def lsm(case: Case) -> Twin:
  """Triton's copy takes frames [B, T, C, H, W], SFP's takes one [B, H, W, C]."""
  options = originals.lsm(**case.meta["config"])
  shape = case.meta["inputs"]["x"][1:]
  if len(shape) == 4:
    in_shape, axes = originals.channels_last(shape), Axes()
  else:
    in_shape = (1, *shape)
    axes = Axes(lambda x: jnp.asarray(x)[:, None], lambda y: y[:, 0])
  return twins.network("lsm", case, options | {"in_shape": in_shape}, axes=axes)
