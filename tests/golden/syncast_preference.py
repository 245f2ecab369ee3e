"""SynCast's two stages of preference: the steps of training one after the other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from golden import training
from golden.case import Case, assert_close
from golden.registry import runner
from golden.syncast_diffusion import WEIGHTS, draws_of, schedule_options
from golden.syncast_networks import load
from golden.twins import first_axes, last_axes
from stjax import methods
from stjax.methods.diffusion import Diffusion

LOGGED = ("loss", "chosen_error", "rejected_error", "gap")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenDraws(Diffusion):
  """Plain diffusion that finds its random numbers in the batch."""

  def draw(self, key, batch, shape):
    return draws_of({"noise": batch["noise"], "timesteps": batch["step"]})


def batch_of(inputs: dict[str, np.ndarray], stage: int, step: int) -> dict[str, Any]:
  """The batch of a step, with its random numbers in the original's layout."""
  names = ("inputs", "win", "lose", "noise", "timesteps")
  history, chosen, rejected, noise, steps = (
    jnp.asarray(inputs[f"{name}{stage}"][step]) for name in names
  )
  rows = jnp.ones(len(history), bool)
  return {
    "inputs": last_axes(history),
    "targets": jnp.zeros_like(last_axes(chosen)),
    "chosen": last_axes(chosen),
    "rejected": last_axes(rejected),
    "paired": rows,
    "valid": rows,
    "index": jnp.arange(len(history)),
    "noise": noise,
    "step": steps,
  }


@runner("syncast", "two_stage_trajectory")
def two_stages(case: Case) -> None:
  """Compares DPO, then SPO held to its result, step by step."""
  config, inputs, expected = case.meta["config"], *map(case.group, ("input", "output"))
  network, base, options = load(case, inputs["probe_inp"])
  diffusion = GivenDraws(
    network=network, horizon=options["horizon"], **schedule_options(config["scheduler"])
  )
  b1, b2 = config["betas"]
  adamw = {"name": "adamw", "learning_rate": config["lr"], "b1": b1, "b2": b2}
  adamw |= {name: config[name] for name in ("weight_decay", "eps")}
  steps = config["steps_per_stage"]
  parts = {"reference": diffusion}
  frozen = {"reference": {"variables": base, "frozen": {}}}
  strengths = {"beta": config["beta_dpo"], "weight": WEIGHTS[config["weight"]]}

  def compare_probe(number, variables):
    probe = last_axes(inputs["probe_x"])
    found = jax.jit(network.apply)(
      variables,
      probe,
      jnp.asarray(inputs["probe_t"], jnp.int32),
      last_axes(inputs["probe_inp"]),
      jnp.zeros_like(probe),
    )
    name = f"probe{number}"
    assert_close(name, first_axes(found), expected[name])

  variables = base
  compare_probe(0, variables)
  for stage in (1, 2):
    if stage == 2:
      parts["previous"] = diffusion
      frozen["previous"] = {"variables": variables, "frozen": {}}
      strengths["alpha"] = config["alpha"]
    method = methods.build(
      "preference", network, parts, horizon=diffusion.horizon, **strengths
    )
    state, update, _ = training.trainer(
      method, variables, steps, adamw, {"name": "constant", "cycle_momentum": False}
    )
    logged = []
    for step in range(steps):
      state, scalars = update(state, batch_of(inputs, stage, step), frozen)
      logged.append([float(scalars[name]) for name in LOGGED])
    log = np.asarray(logged)
    assert log[0, -1] == 0  # The policy begins as what it is held to.
    assert_close(f"log{stage}", log, expected[f"log{stage}"])
    variables = state.variables()
    compare_probe(stage, variables)
