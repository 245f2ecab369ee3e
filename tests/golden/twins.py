"""Modules of the project beside the modules of the originals: single passes."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from torch_weights import assert_same_weights

from golden import registry
from golden.case import GRADIENT_TOLERANCE, Case, assert_close
from stjax import convert, models
from stjax.convert import mapping
from stjax.convert.layout import COUNTERS

COUNTER = "num_batches_tracked"
# A gradient that adds up to zero, as that of the last bias may, is the rounding
# noise of terms as large as the other gradients: 1e-6 of them is allowed.
CANCELLATION = 1e-3
# Each program runs once, so compiling it counts, not its speed.
QUICK = {"xla_backend_optimization_level": 0}


def last_axes(array: np.ndarray) -> jax.Array:
  """Moves the channels last: [..., C, H, W] to [..., H, W, C]."""
  return jnp.moveaxis(array, -3, -1)


def first_axes(array: jax.Array) -> jax.Array:
  """Moves the channels forward: [..., H, W, C] to [..., C, H, W]."""
  return jnp.moveaxis(array, -1, -3)


class Axes(NamedTuple):
  """How arrays of an original become arrays of the module here.

  Attributes:
    to_here: brings the original's inputs into the axes here.
    to_original: the inverse, for outputs and gradients.
  """

  to_here: Callable[[np.ndarray], jax.Array] = last_axes
  to_original: Callable[[jax.Array], jax.Array] = first_axes


SAME = Axes(jnp.asarray, lambda y: y)
# [B, C, H, W] there, [B, 1, H, W, C] here.
ONE_FRAME = Axes(lambda x: last_axes(x)[:, None], lambda y: first_axes(y[:, 0]))


class Twin(NamedTuple):
  """A module here and how the original's weights come into it.

  Attributes:
    module: the module.
    names: its name map.
    constants: buffers that the original's options imply.
    method: the name of the module's method to call.
    unused: a regular expression of weights that the original never uses.
    cancelled: a regular expression of weights that change nothing, such as the
      bias before a norm of each channel. Their gradient is the rounding of its
      terms in both programs.
    axes: how the arrays' axes change.
  """

  module: nn.Module
  names: mapping.NameMap
  constants: Mapping[str, np.ndarray] = {}
  method: str = "__call__"
  unused: str | None = None
  cancelled: str | None = None
  axes: Axes = Axes()

  @property
  def takes_train(self) -> bool:
    """Whether the method has an argument `train`."""
    method = getattr(type(self.module), self.method)
    return "train" in inspect.signature(method).parameters


def twin(system: str, *models: str, **arguments):
  """Registers a function that makes the `Twin` of a case, which is then checked.

  Args:
    system: as of `registry.runner`.
    *models: as of `registry.runner`.
    **arguments: further arguments of the function.
  """

  def register(make: Callable[..., Twin]):
    @registry.runner(system, *models)
    def run(case: Case) -> None:
      check(case, make(case, **arguments))

    return make

  return register


def load(family: str, case: Case, options: Mapping[str, Any]) -> tuple[nn.Module, dict]:
  """Builds a whole network with the case's weights, by the public converter.

  Args:
    family: key of `convert.FAMILIES`.
    case: the case.
    options: the network's options, and in_shape (T, H, W, C).

  Returns:
    The network and its variables, which give back the same weights.
  """
  weights = case.group("param")
  variables = convert.to_stjax(family, weights, **options)
  assert_same_weights(convert.to_torch(family, variables, **options), weights)
  variables.pop(COUNTERS, None)
  arguments = {key: x for key, x in options.items() if key != "in_shape"}
  return models.build(family, **arguments), variables


def network(family: str, case: Case, options: Mapping[str, Any], **fields) -> Twin:
  """Makes the twin of a whole network; arguments as of `load`, fields of `Twin`."""
  module, _ = load(family, case, options)
  rules = convert.FAMILIES[family]
  constants = rules.constants(module, options["in_shape"])
  return Twin(module, rules.names(module), constants, **fields)


def _ramp_mean(y: jax.Array) -> jax.Array:
  return jnp.mean(y * np.linspace(-1, 1, y.size, dtype=np.float32).reshape(y.shape))


def _cosine_mean(y: jax.Array) -> jax.Array:
  return jnp.mean(y.reshape(-1) * np.cos(np.arange(y.size)).astype(np.float32))


# The loss whose gradients a system's cases hold is a sum over the outputs.
LOSSES = {
  "sfp": _cosine_mean,
  "simvp": _ramp_mean,
  "syncast": lambda y: jnp.mean(jnp.square(y)),
  "triton": lambda y: jnp.mean(jnp.square(y)),
}


def check(case: Case, twin: Twin) -> None:
  """Compares a module's outputs, batch statistics, loss and gradients."""
  inputs = {key: twin.axes.to_here(x) for key, x in case.group("input").items()}
  order = tuple(case.meta["inputs"])
  mode = {"train": case.train} if twin.takes_train else {}
  expected = jax.eval_shape(
    lambda key: twin.module.init(
      key, *map(inputs.get, order), **mode, method=twin.method
    ),
    jax.random.key(0),
  )
  state_dict = case.group("param")
  variables = mapping.to_variables(
    twin.names, expected, state_dict, constants=twin.constants, allow_unused=twin.unused
  )
  back = mapping.to_state_dict(twin.names, variables, constants=twin.constants)
  if twin.unused is not None:
    state_dict = {key: state_dict[key] for key in back}
  assert_same_weights(back, state_dict)
  params = variables["params"]
  collections = {"batch_stats": variables.get("batch_stats", {})}
  wanted = case.group("output")
  loss = wanted.pop("loss", None)

  def evaluate(params, inputs):
    outputs, updated = twin.module.apply(
      {"params": params, **collections},
      *map(inputs.get, order),
      **mode,
      method=twin.method,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(0)},
    )
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    outputs = tuple(map(twin.axes.to_original, outputs))
    value = sum(map(LOSSES[case.meta["system"]], outputs))
    return value, (dict(zip(wanted, outputs, strict=True)), updated)

  if case.group("grad") or case.group("grad_input"):
    evaluate = jax.value_and_grad(evaluate, (0, 1), has_aux=True)
    compiled = jax.jit(evaluate, compiler_options=QUICK)
    (value, (outputs, updated)), gradients = compiled(params, inputs)
    check_gradients(case, twin, *gradients)
  else:
    compiled = jax.jit(evaluate, compiler_options=QUICK)
    value, (outputs, updated) = compiled(params, inputs)

  for key, expected in wanted.items():
    assert_close(key, outputs[key], expected)
  if loss is not None:
    # Its terms may cancel: their size, not the sum's, is the scale.
    terms = sum(np.abs(y).mean() for y in wanted.values()) / 2
    assert_close("loss", value.reshape(loss.shape), loss, smallest_scale=terms)
  statistics = mapping.to_state_dict(twin.names, updated)
  for key, expected in (case.group("after") | case.group("buffer_after")).items():
    # Networks here count no batches: nothing depends on the number.
    if key.endswith(COUNTER):
      continue
    if twin.names.path(key)[1].collection == COUNTERS:
      np.testing.assert_array_equal(state_dict[key], expected, err_msg=key)
    else:
      assert_close(f"after/{key}", statistics[key], expected)


def check_gradients(case: Case, twin: Twin, of_params: Any, of_inputs: Any) -> None:
  """Compares gradients of parameters and inputs under the original's names."""
  wanted = {f"grad/{k}": g for k, g in case.group("grad").items()}
  wanted |= {f"grad_input/{k}": g for k, g in case.group("grad_input").items()}
  actual = mapping.to_state_dict(twin.names, {"params": of_params})
  actual = {f"grad/{key}": gradient for key, gradient in actual.items()}
  actual |= {f"grad_input/{k}": twin.axes.to_original(g) for k, g in of_inputs.items()}
  largest = max(np.abs(gradient).max() for gradient in wanted.values())
  for key, expected in wanted.items():
    if twin.cancelled and re.fullmatch(f"grad/{twin.cancelled}", key):
      slope = jax.grad(LOSSES[case.meta["system"]])
      terms = sum(np.abs(slope(y)).sum() for y in case.group("output").values())
      for gradient in (actual[key], expected):
        assert np.abs(gradient).max() < terms * np.finfo(np.float32).eps, key
      continue
    assert_close(
      key,
      actual[key],
      expected,
      GRADIENT_TOLERANCE,
      smallest_scale=largest * CANCELLATION,
    )
