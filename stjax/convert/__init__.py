"""Conversion of the weights of torch networks to networks here, and back.

`to_stjax` and `to_torch` are inverses, bit for bit. Arrays are numpy arrays;
`stjax.convert.files` reads and writes them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from stjax import models
from stjax.convert import (
  cno,
  convlstm_states,
  diffcast,
  dit,
  earthfarseer,
  ffno,
  fourcastnet,
  gnot,
  lsm,
  mapping,
  mgno,
  recurrent,
  resnet,
  simvp,
  spectral,
  stid,
  triton,
  unet,
  unet_denoiser,
  uno,
  vq,
)
from stjax.convert.mapping import NameMap
from stjax.errors import ConvertError, unknown_name

__all__ = ["FAMILIES", "ConvertError", "Family", "to_stjax", "to_torch"]


Buffers = Callable[[nn.Module, tuple[int, ...]], dict[str, np.ndarray]]


def _none(network: nn.Module, in_shape: tuple[int, ...]) -> dict:
  del network, in_shape
  return {}


class Family(NamedTuple):
  """The converter's knowledge of a family of networks.

  Attributes:
    names: gives a network's name map.
    constants: gives torch names and values of the buffers that follow from a
      network and in_shape.
    unread: gives, in the same way, weights that the original holds and nothing reads.
  """

  names: Callable[[nn.Module], NameMap]
  constants: Buffers = _none
  unread: Buffers = _none


# A family has the name of its network in `stjax.models.MODELS`.
FAMILIES: dict[str, Family] = {
  "cno": Family(cno.name_map, unread=cno.unread),
  "convlstm": Family(recurrent.convlstm_names, unread=recurrent.convlstm_unread),
  "convlstm_states": Family(convlstm_states.name_map),
  "diffcast": Family(diffcast.name_map),
  "dit": Family(dit.name_map, dit.constants),
  "earthfarseer": Family(earthfarseer.name_map, unread=earthfarseer.unread),
  "ffno": Family(ffno.name_map, unread=ffno.unread),
  "fno": Family(spectral.fno_names),
  "fourcastnet": Family(fourcastnet.name_map, fourcastnet.constants),
  "gnot": Family(gnot.name_map),
  "kno": Family(spectral.kno_names),
  "lsm": Family(lsm.name_map),
  "mgno": Family(mgno.name_map, unread=mgno.unread),
  "predrnn": Family(recurrent.predrnn_names),
  "resnet": Family(resnet.name_map),
  "simvp": Family(simvp.name_map, simvp.constants),
  "stid": Family(stid.mean_names),
  "stid_denoiser": Family(stid.denoiser_names, unread=stid.denoiser_unread),
  "triton": Family(triton.name_map),
  "unet": Family(unet.pooled_names),
  "unet_denoiser": Family(unet_denoiser.name_map),
  "unet_strided": Family(unet.strided_names),
  "vq": Family(vq.name_map),
  "uno": Family(uno.name_map),
}


def to_stjax(
  family: str,
  state_dict: Mapping[str, Any],
  *,
  in_shape: tuple[int, ...],
  allow_unused: str | None = None,
  **network_kwargs,
) -> dict[str, Any]:
  """Converts a torch state dict to the variables of a network.

  Args:
    family: key of `FAMILIES`.
    state_dict: names and arrays; a checkpoint's nesting ("state_dict", "model" ...),
      one common prefix and those of wrappers ("module.", "_orig_mod." ...) are
      taken off.
    in_shape: (T, H, W, C) of one input; that of a denoiser is its history's.
    allow_unused: regular expression of torch names that may stay unused.
    **network_kwargs: options of `stjax.models.build(family, ...)`.

  Returns:
    {"params": ..., "batch_stats": ...} of numpy arrays, float32. Where the state
    dict has batch counters and the like, which only `to_torch` reads, they are
    in a further collection "torch".

  Raises:
    ConvertError: names are missing or unused, shapes or types differ, or weights
      are not finite; the message lists the first of each kind.
    NetworkError: the family or an option is unknown.
  """
  rules, network = _family(family, network_kwargs)
  arguments, fields = models.example_arguments(network, in_shape)
  expected = jax.eval_shape(
    lambda key: network.init(key, *arguments, train=False, **fields), jax.random.key(0)
  )
  return mapping.to_variables(
    rules.names(network),
    expected,
    state_dict,
    constants=rules.constants(network, tuple(in_shape)),
    allow_unused=allow_unused,
  )


def to_torch(
  family: str,
  variables: Mapping[str, Any],
  *,
  in_shape: tuple[int, ...],
  **network_kwargs,
) -> dict[str, np.ndarray]:
  """Converts the variables of a network to a torch state dict.

  Args:
    family: key of `FAMILIES`.
    variables: {collection: tree of arrays}; collections may be left out.
    in_shape: (T, H, W, C) of one input.
    **network_kwargs: options of `stjax.models.build(family, ...)`.

  Returns:
    The original network's names and arrays, with constant buffers, and with
    zeros for weights that nothing reads.

  Raises:
    ConvertError: there are variables that no torch name belongs to.
    NetworkError: the family or an option is unknown.
  """
  rules, network = _family(family, network_kwargs)
  return mapping.to_state_dict(
    rules.names(network),
    variables,
    constants=rules.constants(network, tuple(in_shape)),
    unread=rules.unread(network, tuple(in_shape)),
  )


def _family(name: str, options: Mapping[str, Any]) -> tuple[Family, nn.Module]:
  if name not in FAMILIES:
    raise unknown_name("family of weights", name, FAMILIES)
  return FAMILIES[name], models.build(name, **options)
