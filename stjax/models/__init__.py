"""Networks: Flax modules that know arrays only.

There are two kinds, with the same ways of training and the same collections,
"params" and "batch_stats".

Forecasting networks map inputs [B, T_in, H, W, C] to [B, T_out, H, W, C_out]:
`module.apply(variables, inputs, train=..., rngs={"dropout": key},
mutable=["batch_stats"])`.

Denoisers, which say so by the attribute `denoises = True`, are called as
`module.apply(variables, noisy, step, history, prior_shift, train=...)`:
  noisy [B, T_out, H, W, C]: what is denoised (CoST: a noisy residual);
  step [B] int32: its noise level, an index of the training schedule;
  history [B, T_in, H, W, C]: the frames that are known, normalised;
  prior_shift [B, T_out, H, W, C]: what the noise is centred on; zeros where nothing.
They return [B, T_out, H, W, C] float32: the noise, the clean field or the
velocity, as the diffusion is parameterised. `horizon` is their T_out. That call
runs their two methods `encode`, which reads the history alone, and `denoise`;
see `denoisers.common.Denoiser`.

A network that reads more of a batch names it in its attribute `extra_inputs`, e.g.
("calendar",), and takes each as a keyword argument: calendar [B, T_in + T_out,
K], integers. (Forecasting networks get it from the first history frame on and
need no more than the history's.)
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError, unknown_name
from stjax.models.cno import CNO
from stjax.models.convlstm_states import ConvLSTMStates
from stjax.models.denoisers.stid import STIDDenoiser
from stjax.models.denoisers.unet import UNetDenoiser
from stjax.models.dit import DiT
from stjax.models.fno import FNO
from stjax.models.fourcastnet import FourCastNet
from stjax.models.kno import KNO
from stjax.models.lsm import LSM
from stjax.models.mgno import MgNO
from stjax.models.recurrent import ConvLSTM, PredRNN
from stjax.models.resnet import ResNet
from stjax.models.simvp import SimVP
from stjax.models.stid import STID
from stjax.models.threshold import ThresholdRule
from stjax.models.triton import Triton
from stjax.models.unet_forecast import StridedUNet, UNet

__all__ = ["MODELS", "NetworkError", "build", "example_arguments"]

MODELS: dict[str, type[nn.Module]] = {
  "cno": CNO,
  "convlstm": ConvLSTM,
  "convlstm_states": ConvLSTMStates,
  "dit": DiT,
  "fno": FNO,
  "fourcastnet": FourCastNet,
  "kno": KNO,
  "lsm": LSM,
  "mgno": MgNO,
  "predrnn": PredRNN,
  "resnet": ResNet,
  "simvp": SimVP,
  "stid": STID,
  "stid_denoiser": STIDDenoiser,
  "threshold_rule": ThresholdRule,
  "triton": Triton,
  "unet": UNet,
  "unet_denoiser": UNetDenoiser,
  "unet_strided": StridedUNet,
}


def build(name: str, **options) -> nn.Module:
  """Builds a network by name.

  Args:
    name: key of `MODELS`.
    **options: the network's options, plain values.

  Raises:
    NetworkError: unknown name or option (near ones are listed), or a value
      that the network refuses.
  """
  if name not in MODELS:
    raise unknown_name("network (model.name)", name, MODELS)
  network = MODELS[name]
  known = {field.name for field in dataclasses.fields(network)}
  known -= {"parent", "name"}
  for option in options:
    if option not in known:
      raise unknown_name(f"option of network {name!r} (model.*)", option, known)
  return network(**options)


def example_arguments(
  network: nn.Module, in_shape: tuple[int, ...], batch_size: int = 1
) -> tuple[tuple[jax.Array, ...], dict[str, Any]]:
  """Zeros that a network can be initialised with.

  Args:
    network: of either kind.
    in_shape: (T_in, H, W, C) of one input; a denoiser's is its history.
    batch_size: B.

  Returns:
    Positional and keyword arguments of its call, without `train`.
  """
  t, h, w, c = in_shape
  inputs = jnp.zeros((batch_size, t, h, w, c))
  arguments = (inputs,)
  if getattr(network, "denoises", False):
    targets = jnp.zeros((batch_size, network.horizon, h, w, c))
    arguments = (targets, jnp.zeros(batch_size, jnp.int32), inputs, targets)
  fields = {}
  if "calendar" in getattr(network, "extra_inputs", ()):
    fields["calendar"] = jnp.zeros(
      (batch_size, t + network.horizon, len(network.calendar_sizes)), jnp.int32
    )
  return arguments, fields
