"""What is trained and asked for forecasts, by name."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from stjax import errors
from stjax.methods import base, diffusion, regression, residual, residual_diffusion
from stjax.methods.sampling import Sampling

METHODS: dict[str, type[base.Method]] = {
  "diffusion": diffusion.Diffusion,
  "regression": regression.Regression,
  "residual_diffusion": residual_diffusion.ResidualDiffusion,
  "residual_gaussian": residual.ResidualGaussian,
}


def build(
  name: str,
  network: nn.Module | None,
  frozen: Mapping[str, nn.Module] | None = None,
  sampling: Mapping[str, Any] | None = None,
  **options: Any,
) -> base.Method:
  """Builds a method around its networks.

  Args:
    name: a key of METHODS.
    network: the network it trains; None for a method that has none.
    frozen: networks it reads and never trains, by name: "mean" ...
    sampling: fields of `Sampling`, for a method that draws.
    **options: the method's other fields, such as horizon.

  Raises:
    ConfigError: unknown name or option; lists the near ones.
  """
  method = errors.pick("method.name", name, METHODS)
  fields = base.field_names(method)
  networks = {f"{key}_network": value for key, value in (frozen or {}).items()}
  for key in frozen or {}:
    if f"{key}_network" not in fields:
      known = [f[:-8] for f in fields if f.endswith("_network")]
      errors.check_options("frozen", {key: None}, known)
  given = {"network": network, "sampling": Sampling(**(sampling or {}))}
  given = {key: value for key, value in given.items() if key in fields}
  reserved = {"network", "sampling", *networks}
  known = [f for f in fields if f not in reserved]
  errors.check_options("method", options, known)
  return method(**given, **networks, **options)
