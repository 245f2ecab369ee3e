"""SynCast's diffusion: its schedule, samplers, training losses and optimiser."""

import fractions
import re
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from golden.case import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Case, assert_close
from golden.registry import runner
from golden.syncast_networks import load
from golden.twins import CANCELLATION, QUICK, first_axes, last_axes
from stjax import convert, diffusion, methods
from stjax.diffusion import preference, samplers
from stjax.methods.diffusion import Draws
from stjax.models.denoisers.common import Denoiser
from stjax.training import optim

# What the original's schedulers and weights are called here.
SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic"}
WEIGHTS = {"upstream": "released", "clean": "clean"}
# The smallest variance of the original's DDPM.
FLOOR = 1e-20
# The name of what a single step gives: x0 or the next state, t, eta, bound of x0.
STEP = re.compile(r"(x0|prev)_t(\d+)(?:_eta([\d.]+))?_clip([\d.]+)")
# Of an alpha_bar next to 1, in float32.
LAST_BIT = 2.0**-24


def schedule_options(config: dict[str, Any]) -> dict[str, Any]:
  """The options of a diffusion that describe the original's scheduler."""
  return {
    "schedule": SCHEDULES[config["beta_schedule"]],
    "num_steps": config["num_train_timesteps"],
    "beta_start": config["beta_start"],
    "beta_end": config["beta_end"],
    "prediction": config.get("prediction_type", "epsilon"),
  }


def method_of(network: nn.Module, config: dict[str, Any], horizon: int, **sampling):
  """Plain diffusion by the original's scheduler."""
  options = schedule_options(config)
  return methods.build(
    "diffusion", network, sampling=sampling, horizon=horizon, **options
  )


def schedule_of(config: dict[str, Any]) -> diffusion.NoiseSchedule:
  """The schedule alone."""
  options = schedule_options(config)
  del options["prediction"]
  return diffusion.build_schedule(options.pop("schedule"), *options.values())


def assert_weights(
  name: str, actual: np.ndarray, expected: np.ndarray, before: np.ndarray
) -> None:
  """Compares released weights, up to what the original's own rounding is worth.

  The original squares float32 square roots. These are not rounded alike on all
  processors, so that its A_t differ by two of their last bits from one to the
  other, which early weights multiply by 1 / (2 (1 - A_{t-1})).

  Args:
    name: for messages.
    actual: weights.
    expected: the original's, of the same steps.
    before: A_{t-1} of these steps.
  """
  scale = np.abs(expected).max()
  rounding = 2 * LAST_BIT / (2 * (1 - before))
  allowed = np.maximum(OUTPUT_TOLERANCE * scale, rounding)
  excess = np.abs(actual - expected) - allowed
  assert (excess <= 0).all(), f"{name}: {np.argmax(excess)} is off by {excess.max()}"


@runner("syncast", "schedule")
def tables(case: Case) -> None:
  """Compares the schedule, the samplers' steps and noise, and the weights."""
  config, expected = case.meta["config"], case.group("output")
  schedule = schedule_of(config)
  steps = {"betas": schedule.beta, "alphas": 1 - schedule.beta}
  steps["alphas_cumprod"] = schedule.alpha_bar
  for key, value in expected.items():
    kind, _, count = key.rpartition("_")
    if key in steps:
      assert_close(key, steps[key], value)
    elif kind in ("ddim_timesteps", "ddim_variance"):
      c = samplers.linear_coefficients("ddim", schedule, int(count), 1.0, "leading")
      actual = c.step if kind == "ddim_timesteps" else c.noise**2
      assert_close(key, actual, value)
    elif key == "ddpm_variance_fixed_small":
      c = samplers.linear_coefficients("ddpm", schedule)
      assert_close(key, np.maximum(c.noise**2, FLOOR)[::-1], value)
    else:
      weight = preference.weight_table(schedule, WEIGHTS[key.split("_")[-1]])
      if key.endswith("clean"):
        assert_close(key, weight, value)
      else:
        assert_weights(key, weight, value, np.roll(schedule.alpha_bar, 1))


@runner("syncast", "q_sample", "DDPMScheduler.add_noise")
def noising(case: Case) -> None:
  """Compares noisy fields."""
  x0, noise, t = (case.group("input")[key] for key in ("x0", "noise", "t"))
  schedule = schedule_of(case.meta["config"])
  t = t.reshape(-1, *(1,) * (x0.ndim - 1))
  found = schedule.signal(t) * x0 + schedule.sigma(t) * noise
  assert_close("xt", found, case.group("output")["xt"])


@runner("syncast", "ddpm_step", "DDPMScheduler.step")
def ddpm_step(case: Case) -> None:
  """Compares single steps of DDPM."""
  check_steps(case, "ddpm")


@runner("syncast", "ddim_step", "DDIMScheduler.step")
def ddim_step(case: Case) -> None:
  """Compares single steps of DDIM."""
  check_steps(case, "ddim")


def check_steps(case: Case, name: str) -> None:
  """Compares single steps of a sampler, which the outputs' names describe."""
  config, inputs = case.meta["config"], case.group("input")
  schedule, x = schedule_of(config), inputs["sample"]
  count = config["num_inference_steps"]
  for key, value in case.group("output").items():
    what, step, eta, bound = STEP.fullmatch(key).groups(default="0")
    step, eta, bound = int(step), float(eta), float(bound)
    c = samplers.linear_coefficients(name, schedule, count, eta, "leading")
    (row,) = np.flatnonzero(c.step == step)
    unclipped, _ = diffusion.to_x0_and_noise(
      config["prediction_type"],
      inputs["model_output"],
      x,
      schedule.signal(step),
      schedule.sigma(step),
    )
    x0 = jnp.clip(unclipped, -bound, bound)
    after = c.x[row] * x + c.x0[row] * x0 + c.kept[row] * (x0 - unclipped)
    after += c.noise[row] * inputs["noise"]
    assert_close(key, {"x0": x0, "prev": after}[what], value)


def check_sampling(case: Case, **options) -> None:
  """Compares samples that begin at a given noise."""
  config, inputs = case.meta["config"], case.group("input")
  network, variables, _ = load(case, inputs["inp"])
  start = last_axes(inputs["x_T"])
  bound = config["scheduler"]["clip_sample_range"]
  method = method_of(
    network,
    config["scheduler"],
    start.shape[1],
    name="ddim",
    steps=config["num_inference_steps"],
    eta=config["eta"],
    spacing="leading",
    clip_x0=(-bound, bound),
    **options,
  )
  batch = {"inputs": last_axes(inputs["inp"])}
  if "guide" in inputs:
    batch["targets"] = last_axes(inputs["guide"])

  def run(variables, batch, start):
    zeros = jnp.zeros_like(start)
    contexts, pull = method.contexts(variables, batch), method.pull(batch, zeros)
    return method.sample(variables, contexts, zeros, start, None, pull)

  found = jax.jit(run, compiler_options=QUICK)(variables, batch, start)
  assert_close("sample", first_axes(found), case.group("output")["sample"])


@runner("syncast", "ddim_sampling_20", "diffusion_model.denoise")
def sampling(case: Case) -> None:
  """Compares samples of DDIM."""
  check_sampling(case)


@runner("syncast", "dps_sampling_20", "diffusion_model.dps_guidance_denoise")
def guided_sampling(case: Case) -> None:
  """Compares samples that are pulled towards an observation."""
  strength = case.meta["config"]["guidance_scale"]
  check_sampling(case, guidance_strength=strength, guidance_norm="batch")


@runner("syncast", "base_train_step", "diffusion_model.train_one_step")
def base_train_step(case: Case) -> None:
  """Compares the noisy frames, the prediction, the loss and its gradients."""
  config, inputs = case.meta["config"], case.group("input")
  network, variables, options = load(case, inputs["inputs"])
  target = last_axes(inputs["data_samples"])
  method = method_of(network, config["scheduler"], target.shape[1])
  batch = {"inputs": last_axes(inputs["inputs"]), "targets": target}
  draws = draws_of(inputs)

  def run(variables):
    loss, _ = method.loss_for(
      variables, {}, batch, draws, train=True, key=jax.random.key(0)
    )
    return loss

  gradient = jax.jit(jax.value_and_grad(run), compiler_options=QUICK)
  loss, gradients = gradient(variables)
  expected = case.group("output")
  assert_close("loss", loss, expected["loss"])
  noisy = noisy_fields(method, target, draws)
  assert_close("noisy", first_axes(noisy), expected["noisy"])
  predict = jax.jit(network.apply, compiler_options=QUICK)
  said = predict(variables, noisy, draws.step, batch["inputs"], 0 * noisy)
  assert_close("eps_pred", first_axes(said), expected["eps_pred"])
  gradients = convert.to_torch("diffcast", gradients, **options)
  wanted = case.group("grad")
  assert wanted.keys() == gradients.keys()
  largest = max(np.abs(gradient).max() for gradient in wanted.values())
  for key, value in wanted.items():
    smallest = largest * CANCELLATION
    assert_close(key, gradients[key], value, GRADIENT_TOLERANCE, smallest)
  # The condition that the original never gets is its first input.
  dead = gradients["unet.init_conv.weight"][:, : target.shape[1]]
  np.testing.assert_array_equal(dead, 0)


def draws_of(inputs: dict[str, np.ndarray]) -> Draws:
  """The random numbers of a case."""
  noise = last_axes(inputs["noise"])
  step = jnp.asarray(inputs["timesteps"], jnp.int32)
  return Draws(step, noise, jnp.ones_like(noise), jnp.ones(len(step), bool))


def noisy_fields(method, fields: jax.Array, draws: Draws) -> jax.Array:
  """The noisy fields [..., B, T, H, W, C] of draws."""
  step = draws.step[:, None, None, None, None]
  schedule = method.noise_schedule
  return schedule.signal(step) * fields + schedule.sigma(step) * draws.noise


class Said(Denoiser):
  """Predicts what its parameter says, the fields of an example together."""

  shape: tuple[int, ...]

  def setup(self):
    self.said = self.param("said", nn.initializers.zeros, self.shape)

  def encode(self, history):
    return history[:, -1]

  def denoise(self, noisy, step, context, prior_shift, train=False):
    return self.said


@runner("syncast", "dpo_loss")
def dpo(case: Case) -> None:
  """Compares the loss of direct preferences and its gradient."""
  check_preferences(case, ("policy", "ref"))


@runner("syncast", "spo_loss")
def spo(case: Case) -> None:
  """Compares the loss of sequential preferences and its gradient."""
  check_preferences(case, ("policy", "far", "ref"))


def check_preferences(case: Case, roles: tuple[str, ...]) -> None:
  """Compares errors, gaps, weights, losses and the policy's gradient.

  Args:
    case: the case.
    roles: the networks' names, the policy first and the reference last.
  """
  config, inputs, expected = case.meta["config"], *map(case.group, ("input", "output"))
  draws = draws_of(inputs)
  fields = jnp.stack([last_axes(inputs["win"]), last_axes(inputs["lose"])])
  # The original has all chosen forecasts, then all rejected ones.
  together = "(f b) t c h w -> (b f) t h w c"
  said = [
    einops.rearrange(jnp.asarray(inputs[f"{role}_pred"]), together, f=2)
    for role in roles
  ]
  method = method_of(Said(said[0].shape), config["scheduler"], fields.shape[2])
  batch = {"inputs": fields[0]}

  def errors(said):
    return method.errors(
      {"params": {"said": said}},
      {},
      batch,
      fields,
      draws,
      train=False,
      key=jax.random.key(0),
      units="epsilon",
    )[0]

  options = {"beta": config["beta_dpo"]}
  if len(roles) == 3:
    options["alpha"] = config["alpha"]
  compare = preference.spo if len(roles) == 3 else preference.dpo
  tables = {
    kind: preference.weight_table(method.noise_schedule, kind)[draws.step]
    for kind in preference.WEIGHTS
  }

  def run(policy, weight):
    found = [errors(policy), *map(errors, said[1:])]
    loss, *gaps = compare(*found, weight, **options)
    return loss.mean(), (found, gaps)

  step = jax.value_and_grad(run, has_aux=True)
  (loss, (found, gaps)), gradient = jax.jit(step)(said[0], tables["released"])
  loss_clean, _ = run(said[0], tables["clean"])
  actual = {"loss": loss, "loss_clean": loss_clean, "log_inter": gaps[0].mean()}
  noisy = first_axes(noisy_fields(method, fields, draws))
  actual["noisy"] = einops.rearrange(noisy, "f b ... -> (f b) ...")
  actual["timesteps2"] = np.tile(draws.step, 2)
  actual["grad_policy_pred"] = einops.rearrange(
    gradient, "(b f) t h w c -> (f b) t c h w", f=2
  )
  actual |= {"delta": gaps[0], "delta_policy_vs_far": gaps[0]}
  actual["delta_far_vs_ref"] = gaps[-1]
  for prefix, error in zip(("", "ref_"), (found[0], found[-1]), strict=True):
    actual |= {f"{prefix}w_loss": error[0], f"{prefix}l_loss": error[1]}
  actual |= {f"log_model_{x}_loss": actual[f"{x}_loss"].mean() for x in "wl"}
  before = method.noise_schedule.alpha_bar[draws.step - 1]
  for key, value in expected.items():
    if key == "w_t":
      assert_weights(key, tables["released"], value, before)
    else:
      tolerance = GRADIENT_TOLERANCE if key.startswith("grad") else OUTPUT_TOLERANCE
      assert_close(key, actual[key], value, tolerance)


@runner("syncast", "optimiser")
def optimiser(case: Case) -> None:
  """Compares steps of AdamW at the highest rate, and all learning rates."""
  config, inputs = case.meta["config"], case.group("input")
  b1, b2 = config["betas"]
  adamw = {
    "name": "adamw",
    "learning_rate": config["lr"],
    "weight_decay": config["weight_decay"],
    "b1": b1,
    "b2": b2,
    "eps": config["eps"],
    "clip_norm": 0.0,
    "momentum": 0.0,
  }
  fixed = {"per": "step", "cycle_momentum": False}
  steps = config["max_step"]
  constant = optim.build(
    adamw | {"schedule": fixed | {"name": "constant"}}, steps, fractions.Fraction(1)
  ).transformation
  params = jnp.asarray(inputs["p0"])
  state, after = constant.init(params), []
  for gradient in inputs["grads"]:
    updates, state = constant.update(jnp.asarray(gradient), state, params)
    params = optax.apply_updates(params, updates)
    after.append(params)
  expected = case.group("output")
  assert_close("params_after", np.stack(after), expected["params_after"])
  cosine = fixed | {
    "name": "cosine",
    "warmup": config["warmup_steps"],
    "warmup_learning_rate": config["warmup_lr"],
    "final_learning_rate": config["min_lr"],
  }
  built = optim.build(adamw | {"schedule": cosine}, steps, fractions.Fraction(1))
  rates = built.learning_rate(jnp.arange(steps))
  np.testing.assert_allclose(rates, expected["lr_by_step"], rtol=1e-5)
