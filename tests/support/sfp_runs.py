"""A small world model, and runs that learn from what it imagines; for tests."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from small_runs import TINY

from configs import simvp_boiling
from stjax import methods, models
from stjax.methods import base

HORIZON = 2
GRID = (4, 4)
_DATA = {key: x for key, x in TINY.items() if not key.startswith("model.")}
_WORLD = {"name": "world_model", "candidates": 3}
_VQ = {"name": "vq", "features": 4, "depth": 2, "codes": 8}
_AGENT = {"name": "threshold_rule", "features": 4, "gates": 2}
_PLANNING = {"name": "self_training", "reward": "csi", "thresholds": (0.1,)}


def batch(rows=4, channels=1, history=2, horizon=HORIZON, seed=0, grid=GRID, **more):
  """Smooth waves that move, [rows, T, *grid, channels]; `more` is added."""
  rng = np.random.default_rng(seed)
  shape = (rows, 1, 1, 1, channels)
  phase, slope, speed = (rng.uniform(0, 2 * np.pi, shape) for _ in range(3))
  time = np.arange(history + horizon)[:, None, None, None]
  y, x = (
    np.arange(n).reshape(s) for n, s in zip(grid, ((-1, 1, 1), (-1, 1)), strict=True)
  )
  fields = np.sin(0.7 * x + slope * y / 4 + phase + 0.3 * speed * time)
  fields = fields + 0.1 * rng.standard_normal(fields.shape)
  fields = jnp.asarray(fields, jnp.float32)
  return {
    "inputs": fields[:, :history],
    "targets": fields[:, history:],
    "index": jnp.arange(rows, dtype=jnp.int32),
  } | more


def world(network=None, **options):
  """A world model of fields of one variable, or of network.out_channels."""
  given = {"out_channels": 1, "features": 4, "depth": 1, "codes": 8} | (network or {})
  network = models.build("vq", **given)
  options = {"horizon": HORIZON, "candidates": 3} | options
  return methods.build("world_model", network, **options)


@dataclasses.dataclass(frozen=True)
class _Named:
  """A method, which cannot be hashed where it has options by name."""

  options: str
  method: base.Method = dataclasses.field(compare=False)


def _compiled(name, *numbers):
  """A function of a method and its arguments that is one program instead of many."""

  def call(named, *given):
    return getattr(named.method, name)(*given)

  program = jax.jit(call, static_argnums=(0, *numbers))
  return lambda method, *given: program(_Named(repr(method), method), *given)


init, forecast = _compiled("init"), _compiled("forecast")
loss, imagine = _compiled("loss", 5), _compiled("imagine", 6, 7)


def placed(method, batch):
  """Variables of a world model whose codes are latents of a batch."""
  variables = init(method, jax.random.key(0), batch)
  _, outputs = loss(method, variables, {}, batch, jax.random.key(1), True)
  return variables | method.update(outputs.collections, outputs.summed)


def config(method, model, frozen=None, **changes) -> ml_collections.ConfigDict:
  """A run on tiny boiling plates; keys with dots written with two underscores."""
  c = simvp_boiling.get_config("default")
  c.model = ml_collections.ConfigDict(model)
  c.method = ml_collections.ConfigDict(method)
  if frozen:
    c.frozen = ml_collections.ConfigDict({"world": {"init_from": str(frozen)}})
  c.update_from_flattened_dict(_DATA)
  new = {k.replace("__", "."): v for k, v in changes.items()}
  for section in ("model", "method"):
    own = {k: v for k, v in new.items() if k.startswith(f"{section}.")}
    c[section].update({k.split(".", 1)[1]: new.pop(k) for k in own})
  c.update_from_flattened_dict(new)
  return c


def tiny_world(**changes) -> ml_collections.ConfigDict:
  return config(_WORLD, _VQ, **{"optimizer__learning_rate": 1e-2} | changes)


def tiny_agent(**changes) -> ml_collections.ConfigDict:
  return config({"name": "regression"}, _AGENT, **changes)


def tiny_planning(world, **changes) -> ml_collections.ConfigDict:
  """Self-training of the agent above with the world model in a work directory."""
  return config(_PLANNING | {"candidates": 3}, _AGENT, world, **changes)
