"""What is trained and asked for forecasts, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

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
)
from stjax.methods.sampling import Sampling

METHODS: dict[str, type[base.Method]] = {
  "diffusion": diffusion.Diffusion,
  "persistence": persistence.Persistence,
  "preference": preference.Preference,
  "regression": regression.Regression,
  "residual_diffusion": residual_diffusion.ResidualDiffusion,
  "residual_gaussian": residual.ResidualGaussian,
}
# Methods that train another one: the option that names it, and the frozen part whose
# own parts and constants it reads.
WRAPPERS = {"preference": ("policy", preference.REFERENCE)}


def build(
  name: str,
  network: nn.Module | None,
  frozen: Mapping[str, base.Method] | None = None,
  sampling: Mapping[str, Any] | None = None,
  **options: Any,
) -> base.Method:
  """Builds a method around its network and the methods that it reads.

  Args:
    name: a key of METHODS.
    network: the network it trains; None for a method that has none.
    frozen: methods it reads and never trains, by name: "mean" ...
    sampling: fields of `Sampling`, for a method that draws.
    **options: the method's other fields, such as horizon. A method that trains
      another one takes its name and options as `policy`; without them it is what
      the frozen reference is.

  Raises:
    ConfigError: unknown name or option; lists the near ones.
  """
  method = errors.pick("method.name", name, METHODS)
  fields = base.field_names(method)
  errors.check_options("frozen", frozen or {}, method.part_names)
  given = {"network": network, "sampling": Sampling(**(sampling or {}))}
  given = {key: value for key, value in given.items() if key in fields}
  reserved = {"network", "sampling", *method.part_names}
  if name in WRAPPERS:
    option, part = WRAPPERS[name]
    wrapped = options.pop(option, None)
    if part not in (frozen or {}):
      raise errors.ConfigError(
        f"method.name={name!r} needs a {part}: give the work directory of the run that"
        f" it starts from in frozen.{part}.init_from."
      )
    given[option] = _wrapped(
      f"method.{option}", wrapped, frozen[part], network, sampling, options
    )
    reserved.add(option)
  errors.check_options("method", options, [f for f in fields if f not in reserved])
  return method(**given, **(frozen or {}), **options)


def _wrapped(where, wrapped, reference, network, sampling, options) -> base.Method:
  """The method that another one trains."""
  if wrapped:
    if "name" not in wrapped:
      raise errors.ConfigError(f"The config has no key {where}.name.")
    own = {key: value for key, value in wrapped.items() if key != "name"}
    return build(
      wrapped["name"],
      network,
      frozen=reference.parts,
      sampling=sampling,
      horizon=options.get("horizon", reference.horizon),
      **own,
    )
  if not hasattr(reference, "sampling"):
    return reference
  return dataclasses.replace(
    reference, network=network, sampling=Sampling(**(sampling or {}))
  )
