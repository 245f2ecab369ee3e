"""Networks: Flax modules that know arrays only.

A network maps inputs [B, T, H, W, C] to [B, T_out, H, W, C_out]:
`module.apply(variables, inputs, train=..., rngs={"dropout": key},
mutable=["batch_stats"])`. Its collections are "params" and "batch_stats".
"""

import dataclasses

from flax import linen as nn

from stjax.models.errors import NetworkError, unknown_name
from stjax.models.recurrent import ConvLSTM, PredRNN
from stjax.models.simvp import SimVP
from stjax.models.threshold import ThresholdRule

__all__ = ["MODELS", "NetworkError", "build"]

MODELS: dict[str, type[nn.Module]] = {
  "convlstm": ConvLSTM,
  "predrnn": PredRNN,
  "simvp": SimVP,
  "threshold_rule": ThresholdRule,
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
