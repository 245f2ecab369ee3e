"""SFP's rewards, its turbulent kinetic energy, and its choice of candidates."""

import jax
import jax.numpy as jnp
import numpy as np

from golden.case import Case, assert_close
from golden.registry import runner
from stjax.metrics import rewards, tke
from stjax.planning import search

# The original's names of rewards and ours.
REWARDS = {"csi": "sfp_csi", "tke": "sfp_tke", "ssim": "sfp_ssim", "neg_mse": "mse"}
DEFAULTS = {"csi": 0.5, "ssim": 1.0}  # The threshold and the data range.


def build(name: str, value: float | None = None) -> rewards.Reward:
  """One of the original's rewards, with its threshold or data range."""
  value = DEFAULTS.get(name) if value is None else value
  ours = REWARDS[name]
  return rewards.build(
    ours,
    thresholds=(value,) if name == "csi" else (),
    options={ours: {"data_range": value}} if name == "ssim" else {},
  )


def fields(x: np.ndarray) -> np.ndarray:
  """[..., C, H, W] as [..., H, W, C]."""
  return np.moveaxis(x, -3, -1)


@runner("sfp", "calculate_csi / calculate_negative_tke_error / calculate_ssim")
def released_rewards(case: Case) -> None:
  config, inputs = case.meta["config"], case.group("input")
  forecast, target = (fields(inputs[name]) for name in ("prediction", "target"))
  never = float(max(forecast.max(), target.max())) + 1
  made = {
    "csi": (build("csi", config["threshold"]), forecast),
    "csi_default_0.5": (build("csi"), forecast),
    "csi_no_event": (build("csi", never), forecast),
    "tke": (build("tke"), forecast),
    "ssim": (build("ssim", config["data_range"]), forecast),
    "ssim_default_1.0": (build("ssim"), forecast),
    "ssim_self": (build("ssim", config["data_range"]), target),
  }
  for name, wanted in case.group("output").items():
    reward, candidate = made[name]
    found = jax.jit(reward)(candidate[None], target)
    assert_close(name, found[0], wanted)


@runner("sfp", "TKE, tke2spectrum")
def kinetic_energy(case: Case) -> None:
  velocities = np.moveaxis(case.group("input")["uv"], 0, -1)
  energy = tke.energy(velocities)
  found = {"tke": energy, "spectrum": tke.profile(energy)}
  for name, wanted in case.group("output").items():
    assert_close(name, found[name], wanted)


@runner("sfp", "BeamSearchPlanner")
def planner(case: Case) -> None:
  """Compares rewards, choices and pseudo-labels of a toy world model."""
  inputs = case.group("input")
  scale = 1 + inputs["action"].mean((1, 2, 3), dtype=np.float32)
  candidates = inputs["s_t"] * scale[:, None, None, None, None]  # [B, K, C, H, W].
  candidates = np.moveaxis(fields(candidates), 1, 0)[:, :, None]
  check_plans(case, candidates, len(candidates))


def check_plans(case: Case, candidates: jax.Array, width: int) -> None:
  """Compares rewards, choices and pseudo-labels.

  Args:
    case: the case.
    candidates: [K, B, T, H, W, C].
    width: number of candidates that are looked at, where an output does not say.
  """
  observation = fields(case.group("input")["ground_truth"])
  outputs = {key: x for key, x in case.group("output").items() if "." in key}
  names = {key.split(".")[1] for key in outputs if "rewards" in key}
  values = {n: jax.jit(build(n))(candidates, observation) for n in names}
  for key, wanted in outputs.items():
    kind, name, *said = key.split(".")
    looked_at = int(said[0].removeprefix("w")) if said else width
    if name == "all_nan":
      index = search.select(jnp.full(candidates.shape[:2], jnp.nan), looked_at)
    else:
      index = search.select(values[name], looked_at)
    if kind == "rewards":
      found = values[name].T
    elif kind == "index":
      found = index
    else:
      chosen = candidates[np.asarray(index), np.arange(len(index))]
      found = np.moveaxis(chosen, -1, -3)
    assert_close(key, found, wanted)


@runner("sfp", "multi-step beam search")
def beam(case: Case) -> None:
  config, inputs = case.meta["config"], case.group("input")
  start = fields(inputs["s0"])
  truth = jnp.asarray(fields(inputs["ground_truth"]))
  slope, shift = (inputs[name][:, None, None, None] for name in ("w", "b"))
  value = build("neg_mse")

  def expand(state):
    candidates = jnp.tanh(state * slope + shift)
    return candidates, candidates

  def reward(candidates, step):
    return value(candidates[:, None, None], truth[step][None, None])[:, 0]

  for width in config["widths"]:
    plan = jax.jit(
      lambda state, width=width: search.beam(
        expand, reward, state, config["depth"], width, config["gamma"]
      )
    )(start)
    found = {
      "scores": plan.scores,
      "choices": plan.choices,
      "best_trajectory": np.moveaxis(plan.trajectories[0], -1, -3),
    }
    for name, actual in found.items():
      key = f"{name}.w{width}"
      assert_close(key, actual, case.group("output")[key])
