"""CoST's diffusion and its training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from denoising import GivenShift

from golden.case import Case, NotBuilt, assert_close
from golden.cost_networks import (
  DIVISORS,
  Network,
  as_features,
  check_gradients,
  columns_of,
)
from golden.registry import runner
from golden.training import trainer
from stjax import diffusion
from stjax.methods import regression
from stjax.methods.diffusion import Draws
from stjax.models.denoisers import common as denoisers

SCHEDULE_TOLERANCE = 1e-5
TRAJECTORY_TOLERANCE = 1e-4
# The states grow to hundreds, from differences of nearly equal numbers.
SAMPLING_TOLERANCE = 1e-3
# The original's program fixes these.
NAME, BETA_START, BETA_END, STEPS = "quadratic", 1e-4, 0.5, 50


def schedule_of(config) -> diffusion.NoiseSchedule:
  """Builds the noise schedule of a case's config."""
  return diffusion.build_schedule(
    NAME,
    config.get("diff_steps", STEPS),
    config.get("beta_start", BETA_START),
    config.get("beta_end", BETA_END),
  )


@dataclasses.dataclass(frozen=True)
class Reverse:
  """The original's reverse process in x - z, in the order of rising t.

  Attributes:
    x: the weight of x.
    eps: the weight of the predicted noise in the bracket that `x` multiplies.
    noise: the standard deviation of the noise that is added.
  """

  x: np.ndarray
  eps: np.ndarray
  noise: np.ndarray


def reverse(schedule: diffusion.NoiseSchedule) -> Reverse:
  """Computes the weights of x and of the noise from those of x and of x0."""
  c = diffusion.samplers.linear_coefficients("ddpm", schedule)
  assert list(c.step[::-1]) == list(range(schedule.num_steps))
  signal = np.sqrt(schedule.alpha_bar)
  sigma = np.sqrt(1 - schedule.alpha_bar)
  x0 = c.x0[::-1] / signal
  x = c.x[::-1] + x0
  return Reverse(x, x0 * sigma / x, c.noise[::-1])


@runner("cost", "noise schedule + diffusion step embedding table")
def tables(case: Case) -> None:
  """Compares the schedule, the reverse process's weights, the table of steps."""
  config, expected = case.meta["config"], case.group("output")
  schedule = schedule_of(config)
  weights = reverse(schedule)
  steps = jnp.arange(schedule.num_steps)
  actual = {
    "beta": schedule.beta,
    "alpha_hat": 1 - schedule.beta,
    "alpha": schedule.alpha_bar,
    "sqrt_alpha": schedule.signal(steps),
    "sqrt_one_minus_alpha": schedule.sigma(steps),
    "z_weight_forward": 1 - np.sqrt(schedule.alpha_bar),
    "rev_coeff_x": weights.x,
    "rev_coeff_z": 1 - weights.x,
    "rev_coeff_eps": weights.eps,
    "rev_sigma": weights.noise,
    "step_embedding_table": denoisers.step_table(
      config.get("embedding_steps", STEPS), config.get("embedding_dim", 128), "float32"
    ),
  }
  assert expected.keys() <= actual.keys()
  for key, value in expected.items():
    assert actual[key].shape == value.shape, key
    # Some are tiny at t = 0, where they matter, so values are compared, not scales.
    np.testing.assert_allclose(
      actual[key],
      value,
      rtol=SCHEDULE_TOLERANCE,
      atol=1e-6 if key == "step_embedding_table" else 0,
      err_msg=key,
    )


def network_of(case: Case) -> Network:
  """The denoiser of a case."""
  return Network(
    "stid_denoiser", case.meta["config"], case.group("param"), ("slot", "day")
  )


def method_of(case: Case, network: Network):
  """The diffusion of a case."""
  config = case.meta["config"]
  # The mean is given: what is left over is diffused as if it were the data.
  return GivenShift(
    horizon=config["predict_len"],
    network=network.module,
    schedule=NAME,
    num_steps=schedule_of(config).num_steps,
    beta_start=config.get("beta_start", BETA_START),
    beta_end=config.get("beta_end", BETA_END),
  )


def horizon_first(x: np.ndarray, horizon: int) -> jax.Array:
  """Maps the end of the original's [..., K, T] to [..., horizon, K, 1, 1]."""
  x = np.swapaxes(x[..., -horizon:], -1, -2)
  return jnp.asarray(x[..., None, None])


def nodes_first(x) -> np.ndarray:
  """Maps [..., T, K, 1, 1] to the original's [..., K, T]."""
  return np.swapaxes(np.asarray(x)[..., 0, 0], -1, -2)


def batch_of(case: Case, network: Network) -> dict[str, jax.Array]:
  """A case's inputs and calendar."""
  inputs = case.group("input")
  history = case.meta["config"]["history_len"]
  known = np.arange(inputs["gt_mask"].shape[1]) < history
  if (inputs["gt_mask"] != known[None, :, None, None]).any():
    raise NotBuilt("a mask other than history known, horizon not")
  observed = jnp.asarray(inputs["observed_data"])
  batch = {"inputs": observed[:, :history, :, None]}
  if network.columns:
    batch["calendar"] = network.calendar(columns_of(inputs["timepoints"]))
  return batch


@runner("cost", "scale-aware diffusion training loss")
def train_loss(case: Case) -> None:
  """Compares the denoiser's loss and gradients for given draws."""
  inputs, expected = case.group("input"), case.group("output")
  history = case.meta["config"]["history_len"]
  horizon = case.meta["config"]["predict_len"]
  network = network_of(case)
  batch = batch_of(case, network)
  observed = inputs["observed_data"][:, history:, :, None]
  target = jnp.asarray(observed - inputs["prior"][:, :, :, None, None])
  prior = horizon_first(inputs["sign"] * inputs["scale_residual"][:, :, None], horizon)
  noise = horizon_first(inputs["noise"], horizon)
  number = jnp.asarray(inputs["t"], jnp.int32)

  draws = Draws(number, noise, sign=prior, keep=jnp.ones(len(number), bool))

  @jax.jit
  def run(variables):
    given = batch | {"targets": target}
    loss, _ = method_of(case, network).loss_for(
      variables, {}, given, draws, train=False, key=jax.random.key(0)
    )
    return loss

  loss, gradients = jax.value_and_grad(run)(network.variables)
  assert_close("loss", loss, expected["loss"])
  check_gradients(case, network, gradients)
  assert_close("residual_target", nodes_first(target), expected["residual_target"])
  side = expected["side_info"]
  for i, (name, column) in enumerate(
    sorted(columns_of(inputs["timepoints"]).items(), reverse=True)
  ):
    scaled = np.broadcast_to(column[:, :, None] / DIVISORS[name], side.shape[:3])
    assert_close(f"side_info {name}", scaled, side[..., i])
  schedule = schedule_of(case.meta["config"])
  rows = number[:, None, None, None, None]
  noisy = (
    schedule.signal(rows) * (target - prior) + schedule.sigma(rows) * noise + prior
  )
  both = expected["denoiser_input"]
  known = jnp.concatenate([batch["inputs"], prior], axis=1)
  unknown = jnp.concatenate([jnp.zeros_like(batch["inputs"]), noisy], axis=1)
  stacked = np.stack([nodes_first(known), nodes_first(unknown)], axis=1)
  assert_close("denoiser_input", stacked, both)
  assert_close(
    "eps_pred", predicted_window(network, both, number, batch), expected["eps_pred"]
  )


def predicted_window(network, window, number, batch) -> jax.Array:
  """Predicts the noise [B, K, T] of a whole window [B, 2, K, T]."""
  features, frames = as_features(window)
  y = network.module.apply(
    network.variables,
    features,
    number,
    frames,
    calendar=batch.get("calendar"),
    method="window",
  )
  return y[:, :, 0]


@runner("cost", "scale-aware reverse process")
def sampling(case: Case) -> None:
  """Compares all reverse steps for given noise, and some of them one by one."""
  inputs, expected = case.group("input"), case.group("output")
  horizon = case.meta["config"]["predict_len"]
  network = network_of(case)
  # Members become rows, [n, B, ...] to [n B, ...].
  members = len(inputs["init_noise"])
  batch = {
    key: jnp.tile(value, (members, *(1,) * (value.ndim - 1)))
    for key, value in batch_of(case, network).items()
  }

  def rows(x):
    return x.reshape(-1, *x.shape[2:])

  prior = rows(
    horizon_first(inputs["sign"] * inputs["scale_residual"][None, :, :, None], horizon)
  )
  start = rows(horizon_first(inputs["init_noise"], horizon))
  noise = horizon_first(np.moveaxis(inputs["step_noise"], 1, 0), horizon)
  noise = noise.reshape(-1, *start.shape)
  schedule = schedule_of(case.meta["config"])
  assert len(noise) == schedule.num_steps - 1
  # The last draw is asked for and not used, so a NaN would show.
  noise = jnp.concatenate([noise, jnp.full_like(start, jnp.nan)[None]])

  def predict(x, number):
    return network.module.apply(
      network.variables,
      x,
      jnp.broadcast_to(number, (len(x),)),
      batch["inputs"],
      prior,
      calendar=batch.get("calendar"),
    )

  method = method_of(case, network)
  residuals = jax.jit(
    lambda start: method.sample(
      network.variables,
      method.contexts(network.variables, batch),
      prior,
      start,
      lambda i: noise[i],
    )
  )(start)
  shape = inputs["init_noise"].shape[:2]
  samples = nodes_first(residuals).reshape(*shape, *residuals.shape[2:0:-1])
  mean = np.swapaxes(inputs["prior"], -1, -2)
  assert_close(
    "samples",
    np.swapaxes(samples + mean, 0, 1),
    expected["samples"][..., -horizon:],
    SAMPLING_TOLERANCE,
  )
  weights = reverse(schedule)
  predict = jax.jit(predict)
  numbers = [int(k[3:]) for k in expected if k.startswith("x_t")]
  for t in numbers:
    before, eps, after = (
      # They have the original's axes [n, B, K, T].
      rows(horizon_first(expected[f"{key}_t{t}"], horizon))
      for key in ("x", "eps", "x_after")
    )
    if t == schedule.num_steps - 1:
      assert_close(f"x_t{t}", start + prior, np.asarray(before))
    found = predict(before, jnp.asarray(t))
    assert_close(f"eps_t{t}", found, np.asarray(eps))
    x = weights.x[t] * (before - prior - weights.eps[t] * found) + prior
    if t:
      x += weights.noise[t] * noise[schedule.num_steps - 1 - t]
    assert_close(f"x_after_t{t}", x, np.asarray(after))


@runner("cost", "optimiser trajectory (deterministic STID)")
def adam(case: Case) -> None:
  """Compares losses, learning rates and parameters of a few optimiser steps."""
  config, expected = case.meta["config"], case.group("output")
  inputs = {key: np.asarray(x) for key, x in case.group("input").items()}
  channels = config.get("input_dim", 1)
  network = Network("stid", config, case.group("param"), channels=channels)
  steps = len(inputs["x"])
  # The schedule "multistep" is timm's, one count ahead of torch's.
  milestones = tuple(m + 1 for m in config.get("milestones", ()))
  b1, b2 = config.get("betas", (0.9, 0.999))
  optimizer = {"learning_rate": config["lr"], "b1": b1, "b2": b2}
  optimizer |= {key: config[key] for key in ("weight_decay", "eps") if key in config}
  schedule = {
    "name": "multistep" if milestones else "constant",
    "cycle_momentum": False,
    "milestones": milestones,
    "decay_rate": config.get("gamma", 1.0),
  }
  # Dropout is on in training, but the case's network has none.
  module = network.module.copy(dropout=0.0)
  method = regression.Regression(module, config["predict_len"])
  state, update, learning_rate = trainer(
    method, network.variables, steps, optimizer, schedule
  )
  losses, rates = [], []
  for number in range(steps):
    batch = {
      "inputs": jnp.asarray(inputs["x"][number][:, :, :, None, :channels]),
      "targets": jnp.asarray(inputs["target"][number][:, :, :, None]),
    }
    if network.columns:
      times = inputs["timepoints"][number]
      # The mean does not look at the horizon's frames.
      times = np.pad(times, ((0, 0), (0, config["predict_len"]), (0, 0)), mode="edge")
      batch["calendar"] = network.calendar(columns_of(times))
    state, scalars = update(state, batch, {})
    losses.append(scalars["loss"])
    rates.append(learning_rate(number))
  np.testing.assert_allclose(losses, expected["losses"], rtol=TRAJECTORY_TOLERANCE)
  np.testing.assert_allclose(rates, expected["lrs"], rtol=1e-6)
  weights = network.to_torch(state.variables())
  for key, value in case.group("output/after").items():
    assert_close(f"after/{key}", weights[key], value, TRAJECTORY_TOLERANCE)
