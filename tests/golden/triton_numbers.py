"""Triton's losses, training steps, rollouts and scores."""

import jax
import jax.numpy as jnp
import numpy as np

from golden.case import GRADIENT_TOLERANCE, Case, NotBuilt, assert_close
from golden.registry import runner
from golden.triton_networks import build
from golden.twins import QUICK, first_axes, last_axes
from stjax import convert
from stjax.methods import losses, regression
from stjax.methods import rollout as rollout_lib
from stjax.metrics import fields, spectra


def check_gradients(case: Case, options: dict, gradients) -> None:
  """Compares gradients of a whole network under the original's names."""
  actual = convert.to_torch("triton", {"params": gradients}, **options)
  for key, expected in case.group("grad").items():
    assert_close(f"grad/{key}", actual[key], expected, GRADIENT_TOLERANCE)


@runner("triton", "Triton_finetune")
def fine_tuned(case: Case) -> None:
  """Compares forecasts of any length, and gradients through all their blocks."""
  network, variables, options = build(case)
  inputs = last_axes(case.group("input")["x"])
  expected = case.group("output")
  horizon = case.meta["config"].get("out_time_seq_length", 40)
  method = regression.Regression(network, horizon)

  def loss(variables):
    y, _ = method.apply(variables, {"inputs": inputs}, case.train, jax.random.key(0))
    return jnp.mean(jnp.square(y)), y

  compiled = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)
  (value, y), gradients = compiled(variables)
  assert_close("y", first_axes(y), expected["y"])
  if "loss" in expected:
    assert_close("loss", value, expected["loss"])
  check_gradients(case, options, gradients["params"])


@runner("triton", "Triton rollout")
def rollout(case: Case) -> None:
  """Compares forecasts fed back in blocks, in a sliding window, or with forcing."""
  network, variables, _ = build(case)
  inputs, expected = case.group("input"), case.group("output")["y"]
  if "data" in inputs:
    return ocean_rollout(network, variables, inputs, expected)
  history = last_axes(inputs["x"])
  horizon = expected.shape[1]
  if "inference_ns" in case.meta["source"]:

    def step(history, carry, number):
      del number
      # All but the newest frame of a forecast are thrown away.
      return network.apply(variables, history)[:, -1:], carry

    forecast = lambda x: rollout_lib.feed_back(step, x, (), horizon)[0]
  else:
    method = regression.Regression(network, history.shape[1])
    forecast = lambda x: rollout_lib.rollout(
      method, variables, {}, {"inputs": x}, jax.random.key(0), 1, horizon
    )[0]
  y = jax.jit(forecast, compiler_options=QUICK)(history)
  assert_close("y", first_axes(y), expected)


def forced_step(apply, mask: jax.Array, after=lambda y: y):
  """Makes a step for `feed_back` that reads forcing and masks land.

  Args:
    apply: forecasts one frame from inputs and the forcing of the target's day.
    mask: [H, W, C], 0 on land.
    after: is applied to each masked forecast.
  """

  def step(history, carry, number, forcing):
    del number
    y = apply(jnp.concatenate([history, forcing[:, 1:2]], -1))
    return after(jnp.where(mask != 0, y, 0)), carry

  return step


def ocean_rollout(network, variables, inputs, expected) -> None:
  """Compares an ocean's forecast with the atmosphere as forcing."""
  data, mask = last_axes(inputs["data"])[None], last_axes(inputs["mask"])
  ocean = mask.shape[-1]
  frames = len(expected)
  method = regression.Regression(network, frames - 1, zero_missing=True)
  batch = {
    "inputs": data[:, :1, ..., :ocean],
    "mask": jnp.broadcast_to(mask != 0, (1, frames, *mask.shape)),
    "forcings": data[:, :frames, ..., ocean:],
  }
  compiled = jax.jit(
    lambda batch: method.forecast(variables, {}, batch, jax.random.key(0), 1),
    compiler_options=QUICK,
  )
  y = jnp.concatenate([batch["inputs"], compiled(batch)[0]], 1)
  assert_close("y", first_axes(y)[0], expected)


@runner("triton", "Triton ocean training step")
def ocean_train_step(case: Case) -> None:
  """Compares the loss of one or more forced steps, and its gradients."""
  network, variables, options = build(case)
  config, expected = case.meta["config"], case.group("output")
  inputs = {key: last_axes(x) for key, x in case.group("input").items()}
  ocean = np.asarray(config["ocean_channels"])
  atmosphere = np.asarray(config["atmos_channels"])
  history = inputs["inp"][:, None][..., ocean]
  # The inputs already hold the forcing of the first step's target.
  first = inputs["inp"][:, None][..., atmosphere]
  later = inputs["tar"][:, 1:][..., atmosphere]
  forcing = jnp.concatenate([first, first, later], 1)
  targets = inputs["tar"][..., ocean]

  def loss(variables):
    step = forced_step(
      lambda x: network.apply(variables, x, case.train),
      inputs["mask"],
      losses.equalise_gradients,
    )
    y, _ = rollout_lib.feed_back(
      step, history, (), targets.shape[1], {"forcing": forcing}
    )
    errors = losses.relative_l2(y, targets, inputs["mask"])
    by_channel = errors.mean(0).sum(0)
    return by_channel.mean(), (by_channel, y)

  compiled = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)
  (value, (by_channel, y)), gradients = compiled(variables)
  assert_close("loss", value, expected["loss"])
  assert_close("channel_loss", by_channel, expected["channel_loss"])
  assert_close("preds", first_axes(y), expected["preds"])
  check_gradients(case, options, gradients["params"])


@runner("triton", "LpLoss / channel_wise_LpLoss / LossScaler")
def field_losses(case: Case) -> None:
  """Compares relative errors of fields and their gradients."""
  config, expected = case.meta["config"], case.group("output")
  if config.get("p", 2) != 2:
    raise NotBuilt("norms other than the Euclidean one")
  if config.get("scaler_eps", losses.SMALLEST_NORM) != losses.SMALLEST_NORM:
    raise NotBuilt("another smallest norm of a gradient")
  inputs = {key: last_axes(x) for key, x in case.group("input").items()}
  observation = inputs["target"]

  def loss(forecast, scaler=lambda x: x):
    return losses.relative_l2(scaler(forecast), observation).mean()

  by_channel = losses.relative_l2(inputs["pred"], observation).mean(0)
  value, gradient = jax.value_and_grad(loss)(inputs["pred"])
  scaled = jax.grad(loss)(inputs["pred"], losses.equalise_gradients)
  whole = losses.relative_l2(inputs["pred"], observation, axes=(-3, -2, -1))
  _, transpose = jax.vjp(losses.equalise_gradients, inputs["pred"])
  actual = {
    "rel_l2": whole.mean(),
    "channelwise": value,
    "channelwise_per_channel": by_channel,
    # Weights that make every channel's share the mean leave the mean as it is.
    "channelwise_scaled": value,
    "channelwise_scaled_per_channel": jnp.full_like(by_channel, value),
    "grad_channelwise": first_axes(gradient),
    "grad_channelwise_with_scaler": first_axes(scaled),
    "scaler_vjp": first_axes(transpose(inputs["cotangent"])[0]),
  }
  for key, wanted in expected.items():
    tolerance = {} if not key.startswith("grad") else {"tolerance": GRADIENT_TOLERANCE}
    assert_close(key, actual[key], wanted, **tolerance)


@runner("triton", "metrics")
def scores(case: Case) -> None:
  """Compares scores of fields, and spectra."""
  inputs, expected = case.group("input"), case.group("output")
  forecast, observation = (last_axes(inputs[key]) for key in ("pred", "target"))
  mask = inputs["mask"][..., None]
  height = forecast.shape[-3]
  globe = fields.latitude_weights(np.linspace(90, -90, height))
  region = fields.latitude_weights(np.linspace(10, 42, height))
  vorticity = inputs["vorticity"][..., None]
  hidden = jnp.where(mask == 0, jnp.nan, observation)
  actual = {
    "rmse": fields.field_rmse(forecast, observation, globe),
    "rmse_nan_target": fields.field_rmse(
      forecast, hidden, globe, mask, share_by_area=False
    ),
    "acc": fields.field_acc(forecast, observation, globe),
    "acc_masked": fields.field_acc(forecast, hidden, globe, mask),
    "acc_kuroshio": fields.field_acc(forecast, observation, region),
    "spectral_error": spectra.error_spectrum(forecast[0], observation[0]).T,
    "enstrophy_upstream": spectra.enstrophy_shares(vorticity)[:, 0],
    "enstrophy_shell": spectra.shell_enstrophy(vorticity)[:, 0],
    "energy_shell": spectra.shell_enstrophy(vorticity, energy=True)[:, 0],
  }
  for key, wanted in expected.items():
    assert_close(key, actual[key], wanted)
