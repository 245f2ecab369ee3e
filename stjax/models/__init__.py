"""Networks: Flax modules that know arrays only.

There are four kinds. All are trained in the same way, and have the same
collections, "params" and "batch_stats".

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

The network "vq" (`reconstructs = True`) maps frames to themselves through a codebook,
the collection "codebook"; "latent_head" (`forecasts_latents = True`) forecasts its
latents.

A network that reads more of a batch names it in its attribute `extra_inputs`, e.g.
("calendar",), and takes each as a keyword argument: calendar [B, T_in + T_out,
K], integers. It begins at the first frame of the history; forecasting networks
need no more of it than the history's part.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.errors import NetworkError, unknown_name
from stjax.models.cno import CNO
from stjax.models.convlstm_states import ConvLSTMStates
from stjax.models.denoisers.diffcast import DiffCast
from stjax.models.denoisers.stid import STIDDenoiser
from stjax.models.denoisers.unet import UNetDenoiser
from stjax.models.dit import DiT
from stjax.models.earthfarseer import EarthFarseer
from stjax.models.ffno import FFNO
from stjax.models.fno import FNO
from stjax.models.fourcastnet import FourCastNet
from stjax.models.gnot import GNOT
from stjax.models.kno import KNO
from stjax.models.latent_head import LatentHead
from stjax.models.latent_head import options as backbone_options
from stjax.models.lsm import LSM
from stjax.models.mgno import MgNO
from stjax.models.recurrent import ConvLSTM, PredRNN
from stjax.models.resnet import ResNet
from stjax.models.simvp import SimVP
from stjax.models.stid import STID
from stjax.models.threshold import ThresholdRule
from stjax.models.triton import Triton
from stjax.models.unet_forecast import StridedUNet, UNet
from stjax.models.uno import UNO
from stjax.models.vq import VQ

__all__ = ["MODELS", "NetworkError", "build", "complete", "example_arguments"]

MODELS: dict[str, type[nn.Module]] = {
  "cno": CNO,
  "convlstm": ConvLSTM,
  "convlstm_states": ConvLSTMStates,
  "diffcast": DiffCast,
  "dit": DiT,
  "earthfarseer": EarthFarseer,
  "ffno": FFNO,
  "fno": FNO,
  "fourcastnet": FourCastNet,
  "gnot": GNOT,
  "kno": KNO,
  "latent_head": LatentHead,
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
  "vq": VQ,
  "uno": UNO,
}


# Features of each column of a calendar, where a config does not say.
_CALENDAR_FEATURES = 32


def build(name: str, **options) -> nn.Module:
  """Builds a network by name.

  Args:
    name: key of `MODELS`.
    **options: the network's options, plain values.

  Raises:
    NetworkError: the name or an option is unknown (near ones are listed), or
      the network refuses a value.
  """
  if name not in MODELS:
    raise unknown_name("network (model.name)", name, MODELS)
  network = MODELS[name]
  known = {field.name for field in dataclasses.fields(network)}
  known -= {"parent", "name"}
  for option in options:
    if option not in known:
      raise unknown_name(f"option of network {name!r} (model.*)", option, known)
  if "backbone" in known:
    inner = dict(backbone_options(options.get("backbone")))
    inner.setdefault("dtype", options.get("dtype", "float32"))
    options = options | {"backbone": build(inner.pop("name"), **inner)}
  return network(**options)


def complete(
  where: str,
  name: str,
  options: Mapping[str, Any],
  *,
  horizon: int,
  channels: int | None,
  calendar: Mapping[str, int],
  num_steps: int | None = None,
) -> dict[str, Any]:
  """Adds to a network's options those that follow from the data.

  An option that is given all the same must agree with the data. Only a forecasting
  network may have another horizon: fewer frames are fed back, more are cut.

  Args:
    where: the config section of the options, for messages.
    name: key of `MODELS`.
    options: the options that are given.
    horizon: frames to forecast, T_out.
    channels: number of variables to forecast; None where it is not known yet.
    calendar: number of values of each column of the data's calendar, by name;
      0 where it is not known yet.
    num_steps: steps of the noise schedule that a denoiser is told of.

  Raises:
    NetworkError: unknown name, or an option that contradicts the data.
  """
  if name not in MODELS:
    raise unknown_name(f"network ({where}.name)", name, MODELS)
  fields = {field.name: field for field in dataclasses.fields(MODELS[name])}
  options = dict(options)
  if "backbone" in fields:
    inner = dict(backbone_options(options.get("backbone")))
    own = inner.pop("name")
    options["backbone"] = {"name": own} | complete(
      f"{where}.backbone",
      own,
      inner,
      horizon=horizon,
      channels=channels,
      calendar=calendar,
    )

  def contradicts(option, key, expected):
    return NetworkError(
      f"{where}.{option} is {options[option]}, but {key} gives {expected}. Leave"
      f" {where}.{option} out: it follows from the data."
    )

  if "horizon" in fields and fields["horizon"].default is dataclasses.MISSING:
    given = options.setdefault("horizon", horizon)
    if getattr(MODELS[name], "denoises", False) and given != horizon:
      raise contradicts("horizon", "data.horizon", horizon)
  if "num_steps" in fields and num_steps is not None:
    if options.setdefault("num_steps", num_steps) < num_steps:
      raise contradicts("num_steps", "method.num_steps", num_steps)
  if "out_channels" in fields and channels is not None:
    if options.get("out_channels") is None:
      options["out_channels"] = channels
    if options["out_channels"] != channels:
      raise contradicts("out_channels", "data.variables", channels)
  if "calendar_names" in fields:
    names = tuple(options.setdefault("calendar_names", tuple(calendar)))
    # A network without names does not know the time, whatever the data know.
    if names and names != tuple(calendar):
      raise contradicts("calendar_names", "data.calendar", tuple(calendar))
    known = [max(size, 1) for size in calendar.values()] if names else []
    sizes = options.setdefault("calendar_sizes", known)
    # Tables may have more rows than there are values; weights may bring them.
    enough = len(sizes) == len(known) and all(
      size >= least for size, least in zip(sizes, known, strict=True)
    )
    if not enough and not options.get("calendar_divisors"):
      raise contradicts("calendar_sizes", f"data.calendar={names}", tuple(known))
    options.setdefault("calendar_dims", [_CALENDAR_FEATURES] * len(names))
  return options


def example_arguments(
  network: nn.Module, in_shape: tuple[int, ...], batch_size: int = 1
) -> tuple[tuple[jax.Array, ...], dict[str, Any]]:
  """Returns zeros that a network can be initialised with.

  Args:
    network: network of either kind.
    in_shape: (T_in, H, W, C) of one input, which is a denoiser's history.
    batch_size: number of examples B.

  Returns:
    The positional and the keyword arguments of its call, without `train`.
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
