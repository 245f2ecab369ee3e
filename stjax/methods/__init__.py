"""What is trained and asked for forecasts, by name."""

from typing import Any

import flax.linen as nn

from stjax import config as config_lib
from stjax.methods import base, regression

METHODS = {"regression": regression.Regression}


def build(name: str, network: nn.Module, **options: Any) -> base.Method:
  """Builds a method around a network.

  Args:
    name: a key of METHODS.
    network: the network it trains.
    **options: the method's fields, such as horizon.

  Raises:
    ConfigError: unknown name or option; lists the near ones.
  """
  method = config_lib.pick("method.name", name, METHODS)
  known = [f for f in base.field_names(method) if f != "network"]
  config_lib.check_options("method", options, known)
  return method(network=network, **options)
