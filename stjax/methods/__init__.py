"""What is trained and asked for forecasts, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from stjax import errors
from stjax.methods import (
  base,
  diffusion,
  persistence,
  preference,
  regression,
  residual,
  residual_diffusion,
  self_training,
  world_model,
)
from stjax.methods.sampling import Sampling

METHODS: dict[str, type[base.Method]] = {
  "diffusion": diffusion.Diffusion,
  "persistence": persistence.Persistence,
  "preference": preference.Preference,
  "regression": regression.Regression,
  "residual_diffusion": residual_diffusion.ResidualDiffusion,
  "residual_gaussian": residual.ResidualGaussian,
  "self_training": self_training.SelfTraining,
  "world_model": world_model.WorldModel,
}


class Wrapper(NamedTuple):
  """A method that trains another one.

  Attributes:
    option: the option that names the other one.
    part: the frozen part without which it does not work.
    like_part: whether the other method is that of the part, whose own parts and
      constants it reads; otherwise it has none but those of the run.
  """

  option: str
  part: str
  like_part: bool


WRAPPERS = {
  "preference": Wrapper("policy", preference.REFERENCE, like_part=True),
  "self_training": Wrapper("agent", self_training.WORLD, like_part=False),
}


def build(
  name: str,
  network: nn.Module | None,
  frozen: Mapping[str, base.Method] | None = None,
  sampling: Mapping[str, Any] | None = None,
  units: Mapping[str, Any] | None = None,
  **options: Any,
) -> base.Method:
  """Builds a method around its network and the methods that it reads.

  Args:
    name: a key of METHODS.
    network: the network it trains; None for a method that has none.
    frozen: methods it reads and never trains, by name: "mean" ...
    sampling: fields of `Sampling`, for a method that draws.
    units: fields of `base.Units`, for a method that scores in physical units.
    **options: the method's other fields, such as horizon. A method that trains
      another one takes its name and options as `policy` or `agent`; without them a
      policy is what the frozen reference is, and an agent a regression.

  Raises:
    ConfigError: unknown name or option; lists the near ones.
  """
  method = errors.pick("method.name", name, METHODS)
  fields = base.field_names(method)
  errors.check_options("frozen", frozen or {}, method.part_names)
  for key, part in (frozen or {}).items():
    if part.kind != "forecast" and key != self_training.WORLD:
      raise errors.ConfigError(
        f"frozen.{key}: {type(part).__name__} makes reconstructions of what it is"
        " shown, but a method of forecasts is needed here."
      )
  given = {
    "network": network,
    "sampling": Sampling(**(sampling or {})),
    "units": base.Units(**(units or {})),
  }
  given = {key: value for key, value in given.items() if key in fields}
  reserved = {"network", "sampling", "units", *method.part_names}
  if name in WRAPPERS:
    option, part, like_part = WRAPPERS[name]
    wrapped = options.pop(option, None)
    if part not in (frozen or {}):
      raise errors.ConfigError(
        f"method.name={name!r} needs a {part}: give the work directory of the run that"
        f" made it in frozen.{part}.init_from."
      )
    horizon = options.get("horizon", frozen[part].horizon)
    where = f"method.{option}"
    if like_part:
      given[option] = _policy(where, wrapped, frozen[part], network, sampling, horizon)
    else:
      given[option] = _agent(where, wrapped, frozen[part], network, sampling, horizon)
    reserved.add(option)
  errors.check_options("method", options, [f for f in fields if f not in reserved])
  return method(**given, **(frozen or {}), **options)


def _named(where, wrapped, network, parts, sampling, horizon) -> base.Method:
  """The method that a section of another one's options names."""
  if "name" not in wrapped:
    raise errors.ConfigError(f"The config has no key {where}.name.")
  own = {key: value for key, value in wrapped.items() if key != "name"}
  return build(
    wrapped["name"], network, frozen=parts, sampling=sampling, horizon=horizon, **own
  )


def _agent(where, wrapped, world, network, sampling, horizon) -> base.Method:
  """The method that learns by itself."""
  wrapped = dict(wrapped or {"name": "regression"})
  if not getattr(network, "forecasts_latents", False):
    return _named(where, wrapped, network, {}, sampling, horizon)
  errors.pick(f"{where}.name", wrapped.pop("name", ""), {"regression": None})
  fields = base.field_names(self_training.LatentAgent)
  errors.check_options(where, wrapped, set(fields) - {"network", "horizon", "world"})
  return self_training.LatentAgent(
    network=network, horizon=horizon, world=world, **wrapped
  )


def _policy(where, wrapped, reference, network, sampling, horizon) -> base.Method:
  """The method that is trained by preferences."""
  if wrapped:
    return _named(where, wrapped, network, reference.parts, sampling, horizon)
  if not hasattr(reference, "sampling"):
    return reference
  return dataclasses.replace(
    reference, network=network, sampling=Sampling(**(sampling or {}))
  )
