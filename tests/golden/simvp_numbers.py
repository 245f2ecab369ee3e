"""SimVP's data, schedules, scores, rollout and training."""

import jax
import jax.numpy as jnp
import numpy as np

from golden.case import GRADIENT_TOLERANCE, Case, assert_close
from golden.registry import runner
from golden.simvp_networks import network_options
from golden.training import trainer
from golden.twins import COUNTER, first_axes, last_axes, load
from input_pipeline.simulate import boiling
from stjax import convert, metrics
from stjax.methods import regression
from stjax.methods import rollout as rollout_lib
from stjax.training import optim

# Schedules are formulas, so only float32 separates them from the originals.
SCHEDULE_TOLERANCE = 1e-5
TRAJECTORY_TOLERANCE = 1e-4
TIMM = ("cosine", "tanh", "step", "multistep")


@runner("simvp", "boiling simulator")
def simulator(case: Case) -> None:
  config = case.meta["config"]
  raw = case.group("input")["initial_raw"]
  expected = case.group("output")["frames"]
  frames = boiling.simulate(raw[:, 0], config["num_frames"], config["increment"])
  np.testing.assert_array_equal(frames[:, :, None], expected)
  drawn = boiling.initial_conditions(
    config["num_samples"], config["image_size"], config["numpy_legacy_seed"]
  )
  np.testing.assert_array_equal(drawn.reshape(raw.shape), raw)


@runner("simvp", *(f"timm {x} scheduler" for x in TIMM))
def timm_schedule(case: Case) -> None:
  config, name = case.meta["config"], case.meta["model"].split(" ")[1]
  options = {
    "warmup": config.get("warmup_epoch", 0),
    "warmup_learning_rate": config.get("warmup_lr", 0.0),
  }
  if "min_lr" in config:
    options["final_learning_rate"] = config["min_lr"]
  if "decay_rate" in config:
    options["decay_rate"] = config["decay_rate"]
  if name == "cosine":
    options["power"] = config.get("k", 1.0)
  elif name == "step":
    options["decay_every"] = config["decay_epoch"]
  elif name == "multistep":
    options["milestones"] = tuple(config["decay_epoch"])
  schedule = optim.learning_rate(name, config["lr"], config["epochs"], **options)
  expected = case.group("output")["lr"]
  actual = np.array([schedule(epoch) for epoch in range(len(expected))])
  np.testing.assert_allclose(actual, expected, rtol=SCHEDULE_TOLERANCE)


@runner("simvp", "OneCycleLR+Adam")
def one_cycle(case: Case) -> None:
  config = dict(case.meta["config"])
  total = config["total_steps"]
  options = {
    key: config[key]
    for key in ("pct_start", "div_factor", "final_div_factor")
    if key in config
  }
  rate = optim.learning_rate("one_cycle", config["max_lr"], total, **options)
  momentum = optim.one_cycle_momentum(total, config.get("pct_start", 0.3))
  expected = case.group("output")
  steps = jnp.arange(total)
  for key, schedule in (("lr", rate), ("beta1", momentum)):
    # The last rates come out of a difference of nearly equal numbers.
    np.testing.assert_allclose(
      jax.vmap(schedule)(steps),
      expected[key],
      rtol=SCHEDULE_TOLERANCE,
      atol=1e-7 * expected[key].max(),
    )


SCORES = {
  "psnr_minimal": "psnr_255",
  "ssim_minimal": "ssim",
  "ssim_openstl": "ssim_range2",
  "ssim_data_range_1": "ssim_range1",
  "psnr_openstl": "psnr",
  "snr_openstl": "snr",
}


@runner("simvp", "metrics")
def scores(case: Case, **options) -> None:
  inputs = {key: np.asarray(x) for key, x in case.group("input").items()}
  forecast, observation = inputs["pred"], inputs["true"]
  if "mean" in inputs:
    forecast = forecast * inputs["std"] + inputs["mean"]
    observation = observation * inputs["std"] + inputs["mean"]
  forecast, observation = last_axes(forecast), last_axes(observation)
  built = metrics.build(("openstl",), **options)
  total = metrics.Accumulator(built)
  total.add(
    metrics.evaluate(built, forecast[None], observation, jnp.ones(observation.shape))
  )
  results = total.compute()["openstl"]
  for key, expected in case.group("output").items():
    actual = results[SCORES.get(key, key)].overall
    assert_close(key, np.reshape(actual, (1,)), expected)


@runner("simvp", "metric() with mean/std, spatial_norm=True, channel_names")
def grouped_scores(case: Case) -> None:
  names = case.meta["config"]["channel_names"]
  scores(case, spatial_norm=True, channel_names=tuple(names))


@runner("simvp", "TAU.diff_div_reg")
def divergence(case: Case) -> None:
  config = case.meta["config"]
  inputs = {key: last_axes(x) for key, x in case.group("input").items()}

  def total(forecast):
    regulariser = regression.divergence_regulariser(
      forecast, inputs["true"], config["tau"]
    )
    error = jnp.mean(jnp.square(forecast - inputs["true"]))
    return error + config["alpha"] * regulariser, regulariser

  (loss, regulariser), gradient = jax.value_and_grad(total, has_aux=True)(
    inputs["pred"]
  )
  expected = case.group("output")
  assert_close("reg", regulariser[None], expected["reg"])
  assert_close("total_loss", loss[None], expected["total_loss"])
  for key, value in case.group("grad_input").items():
    assert key == "pred"
    assert_close(key, first_axes(gradient), value, GRADIENT_TOLERANCE)


@runner("simvp", "rollout")
def rollout(case: Case) -> None:
  network, variables = load("simvp", case, network_options(case.meta["config"]))
  expected = case.group("output")["out"]

  def step_fn(history, carry, number):
    del number
    return network.apply(variables, history, False), carry

  forecast, _ = jax.jit(
    lambda history: rollout_lib.feed_back(step_fn, history, (), expected.shape[1])
  )(last_axes(case.group("input")["x"]))
  assert_close("out", first_axes(forecast), expected)


@runner("simvp", "SimVP_Model (minimal) + Adam + OneCycleLR")
def trajectory(case: Case) -> None:
  config = dict(case.meta["config"])
  batch_size, steps = config.pop("batch_size"), config.pop("steps")
  peak = config.pop("max_lr")
  options = network_options(config)
  network, variables = load("simvp", case, options)
  x, y = (last_axes(case.group("input")[key]) for key in "xy")
  method = regression.Regression(network, y.shape[1])
  schedule = {"name": "one_cycle", "cycle_momentum": True, "pct_start": 0.3}
  state, update, _ = trainer(
    method, variables, steps, {"learning_rate": peak}, schedule
  )
  losses = []
  for number in range(steps):
    start = number * batch_size % len(x)
    part = slice(start, start + batch_size)
    state, scalars = update(state, {"inputs": x[part], "targets": y[part]}, {})
    losses.append(scalars["loss"])
  expected = case.group("output")
  np.testing.assert_allclose(losses, expected["losses"], rtol=TRAJECTORY_TOLERANCE)
  weights = convert.to_torch("simvp", state.variables(), **options)
  for key, value in case.group("after").items():
    if not key.endswith(COUNTER):
      assert_close(f"after/{key}", weights[key], value, GRADIENT_TOLERANCE)
  forecast = method.forecast(
    state.variables(), {}, {"inputs": x}, jax.random.key(0), 1
  )[0]
  assert_close("final_eval_pred", first_axes(forecast), expected["final_eval_pred"])
  assert_close(
    "final_eval_loss",
    jnp.mean(jnp.square(forecast - y))[None],
    expected["final_eval_loss"],
  )
