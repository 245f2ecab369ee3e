"""What is trained and asked for forecasts, by name."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from stjax import errors
from stjax.methods import (
  base,
  diffusion,
  persistence,
  regression,
  residual,
  residual_diffusion,
)
from stjax.methods.sampling import Sampling

METHODS: dict[str, type[base.Method]] = {
  "diffusion": diffusion.Diffusion,
  "persistence": persistence.Persistence,
  "regression": regression.Regression,
  "residual_diffusion": residual_diffusion.ResidualDiffusion,
  "residual_gaussian": residual.ResidualGaussian,
}


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
    **options: the method's other fields, such as horizon.

  Raises:
    ConfigError: unknown name or option; lists the near ones.
  """
  method = errors.pick("method.name", name, METHODS)
  fields = base.field_names(method)
  errors.check_options("frozen", frozen or {}, method.part_names)
  given = {"network": network, "sampling": Sampling(**(sampling or {}))}
  given = {key: value for key, value in given.items() if key in fields}
  reserved = {"network", "sampling", *method.part_names}
  errors.check_options("method", options, [f for f in fields if f not in reserved])
  return method(**given, **(frozen or {}), **options)
