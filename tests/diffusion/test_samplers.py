"""Samplers against Gaussians, whose score is known, and the released CoST."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import diffusion
from stjax.diffusion import samplers

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "cost"
MEAN, SPREAD = 0.7, 0.4
DETERMINISTIC = ("ddim", "heun", "dpm++")


@functools.cache
def fine():
  """A long schedule, whose steps are small."""
  return diffusion.build_schedule("linear", 1000, 1e-4, 0.02)


@functools.cache
def coarse():
  """The released CoST's."""
  return diffusion.build_schedule("quadratic", 50, 1e-4, 0.5)


def gaussian(schedule, kind="epsilon"):
  """The exact predictor for data of N(MEAN, SPREAD^2)."""

  def predict(x, step):
    signal, sigma = schedule.signal(step), schedule.sigma(step)
    variance = signal**2 * SPREAD**2 + sigma**2
    noise = sigma * (x - signal * MEAN) / variance
    x0 = MEAN + signal * SPREAD**2 * (x - signal * MEAN) / variance
    return diffusion.target(kind, x0, noise, signal, sigma)

  return predict


def keyed_draw(shape, seed=1):
  key = jax.random.key(seed)
  return lambda i: jax.random.normal(jax.random.fold_in(key, i), shape)


def no_draw(i):
  raise AssertionError("a deterministic sampler asked for noise")


def run(name, schedule, start, draw=no_draw, kind="epsilon", **options):
  predict = gaussian(schedule, kind)
  return np.asarray(
    jax.jit(
      lambda x: diffusion.sample(name, predict, schedule, x, draw, kind=kind, **options)
    )(start)
  )


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("ddpm", {}),
    ("ddpm", {"num_steps": 500}),
    ("ddim", {}),
    ("ddim", {"eta": 1.0}),
    ("ddim", {"eta": 0.5, "num_steps": 250}),
    ("heun", {"num_steps": 25}),
    ("dpm++", {"num_steps": 25}),
  ],
)
def test_samples_have_the_mean_and_spread_of_the_data(name, options):
  shape = (200, 101)
  start = jax.random.normal(jax.random.key(0), shape)
  draw = keyed_draw(shape)
  x = run(name, fine(), start, draw, **options)
  # Of 20,200 samples: standard errors .0028 and .0020. Few steps of ancestral
  # sampling have a little too narrow a law.
  assert x.mean() == pytest.approx(MEAN, abs=0.012)
  assert x.std() == pytest.approx(SPREAD, abs=0.012)


def exact_flow(schedule, start):
  """Where the probability flow takes each start, down to no noise."""
  share = schedule.alpha_bar[-1]
  variance = share * SPREAD**2 + 1 - share
  return MEAN + SPREAD * (start - np.sqrt(share) * MEAN) / np.sqrt(variance)


def flow_error(name, num_steps):
  start = np.linspace(-3, 3, 31, dtype=np.float32)
  got = run(name, fine(), start, num_steps=num_steps)
  return np.abs(got - exact_flow(fine(), start)).max()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_converge_to_the_probability_flow(name):
  errors = [flow_error(name, n) for n in (6, 20, 60, 200)]
  assert errors == sorted(errors, reverse=True)
  assert errors[0] > 0.04  # There was something to gain.
  assert errors[-1] < (0.03 if name == "ddim" else 1e-3)


@pytest.mark.parametrize(
  ("name", "calls"),
  [("heun", 39), ("heun", 79), ("dpm++", 9), ("dpm++", 39), ("dpm++", 79)],
)
def test_second_order_samplers_beat_ddim_at_equal_network_calls(name, calls):
  steps = (calls + 1) // 2 if name == "heun" else calls
  assert flow_error(name, steps) < 0.4 * flow_error("ddim", calls)


def test_ddim_is_of_first_order_and_dpm_of_second():
  # Half the step width: half the error, or a quarter of it.
  assert 1.6 < flow_error("ddim", 40) / flow_error("ddim", 80) < 2.4
  assert flow_error("dpm++", 40) / flow_error("dpm++", 80) > 3.0


@pytest.mark.parametrize(
  ("name", "num_steps", "low", "high"),
  [
    ("ddpm", 0, 0.91, 0.93),
    ("ddpm", 25, 0.84, 0.87),
    ("ddim", 0, 0.95, 0.97),
    ("dpm++", 25, 0.99, 1.01),
  ],
)
def test_fifty_coarse_steps_of_ddpm_are_too_narrow_and_dpm_is_not(
  name, num_steps, low, high
):
  # The table of docs/diffusion.md.
  shape = (300, 101)
  start = jax.random.normal(jax.random.key(0), shape)
  x = run(name, coarse(), start, keyed_draw(shape), num_steps=num_steps)
  assert low < x.std() / SPREAD < high


def cost_reverse(schedule, eps_hat, r, z, draws):
  """The spec's reverse process of the shifted diffusion, in float64."""
  beta, alpha_bar = schedule.beta, schedule.alpha_bar
  used = 0
  for t in reversed(range(len(beta))):
    root = (1 - beta[t]) ** -0.5
    bracket = r - beta[t] / np.sqrt(1 - alpha_bar[t]) * eps_hat(r, t)
    r = root * bracket + (1 - root) * z
    if t > 0:
      variance = beta[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
      r = r + np.sqrt(variance) * draws[used]
      used += 1
  return r


def test_ddpm_makes_the_whole_trajectory_of_the_shifted_process():
  rng = np.random.default_rng(2)
  shape = (2, 3, 5)
  start, z = rng.standard_normal((2, *shape))
  # A row too many, so that a draw at the last step would be noticed.
  draws = rng.standard_normal((50, *shape))
  draws[-1] = np.nan

  def eps_hat(r, t):
    return 0.9 * r + 0.1 * z - 0.01 * t  # No network, but of (r, z, t).

  want = cost_reverse(coarse(), eps_hat, start + z, z, draws)
  table = jnp.asarray(draws, jnp.float32)

  def predict(x, step):
    return eps_hat(x + z.astype(np.float32), step.astype(jnp.float32))

  x = diffusion.sample("ddpm", predict, coarse(), start, lambda i: table[i])
  np.testing.assert_allclose(x + z, want, rtol=0, atol=2e-5 * np.abs(want).max())


def test_ddpm_coefficients_are_those_of_the_released_cost():
  with np.load(GOLDENS / "schedule_50.npz") as archive:
    golden = {k.removeprefix("output/"): archive[k] for k in archive}
  c = samplers.linear_coefficients("ddpm", coarse())
  np.testing.assert_array_equal(c.step, np.arange(50)[::-1])
  signal = golden["sqrt_alpha"][::-1]
  sigma = golden["sqrt_one_minus_alpha"][::-1]
  # x0 = (x - sigma eps) / signal, sorted by x and eps.
  np.testing.assert_allclose(
    c.x + c.x0 / signal, golden["rev_coeff_x"][::-1], rtol=2e-6
  )
  np.testing.assert_allclose(
    c.x0 * sigma / signal,
    (golden["rev_coeff_x"] * golden["rev_coeff_eps"])[::-1],
    rtol=2e-6,
  )
  np.testing.assert_allclose(c.noise, golden["rev_sigma"][::-1], rtol=2e-6)
  # The shift z: x = r - z, hence r' has 1 - (its weight of r).
  np.testing.assert_allclose(
    1 - (c.x + c.x0 / signal), golden["rev_coeff_z"][::-1], atol=1e-5
  )


@pytest.mark.parametrize("step", [49, 48, 25, 1, 0])
def test_single_reverse_steps_of_the_released_cost(step):
  with np.load(GOLDENS / "sampling.npz") as golden:
    before, eps, after = (
      golden[f"output/{name}_t{step}"] for name in ("x", "eps", "x_after")
    )  # [n, B, K, P]
    sign = golden["input/sign"]
    scale = golden["input/scale_residual"]
    noises = golden["input/step_noise"]  # [n, 49, B, K, L + P]
  z = sign * scale[..., None]
  noise = noises[:, 49 - step][..., -4:] if step else np.zeros_like(z)
  c = samplers.linear_coefficients("ddpm", coarse())
  row = 49 - step
  x = before - z
  x0, _ = diffusion.to_x0_and_noise(
    "epsilon", eps, x, coarse().signal(step), coarse().sigma(step)
  )
  got = c.x[row] * x + c.x0[row] * x0 + c.noise[row] * noise + z
  np.testing.assert_allclose(got, after, rtol=1e-5, atol=1e-5)


def test_ddim_with_full_eta_is_ddpm_on_any_steps():
  for num_steps in (0, 7):
    ddpm = samplers.linear_coefficients("ddpm", coarse(), num_steps)
    ddim = samplers.linear_coefficients("ddim", coarse(), num_steps, 1.0)
    for name in ("step", "x", "x0", "noise"):
      np.testing.assert_array_equal(getattr(ddpm, name), getattr(ddim, name))


def test_strided_ddpm_takes_the_betas_between_the_kept_steps():
  c = samplers.linear_coefficients("ddpm", coarse(), 3)
  np.testing.assert_array_equal(c.step, [49, 25, 0])
  a = coarse().alpha_bar[c.step]
  beta = 1 - a[:2] / a[1:]
  np.testing.assert_allclose(c.noise[:2], np.sqrt(beta * (1 - a[1:]) / (1 - a[:2])))
  np.testing.assert_allclose(  # The posterior mean: Ho et al., equation 7.
    c.x[:2], np.sqrt(1 - beta) * (1 - a[1:]) / (1 - a[:2])
  )
  np.testing.assert_allclose(c.x0[:2], np.sqrt(a[1:]) * beta / (1 - a[:2]))
  assert (c.x[2], c.x0[2], c.noise[2]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 17, 49, 50, 0])
def test_kept_steps_fall_from_the_last_to_the_first(name, num_steps):
  steps = samplers.kept_steps(name, coarse(), num_steps)
  assert len(steps) == (num_steps or 50)
  assert steps[0] == 49
  assert num_steps == 1 or steps[-1] == 0
  assert (np.diff(steps) < 0).all()


def test_dpm_keeps_steps_evenly_spread_in_the_log_of_signal_to_noise():
  steps = samplers.kept_steps("dpm++", fine(), 11)
  share = fine().alpha_bar[steps]
  ratio = np.log(share / (1 - share))
  np.testing.assert_allclose(np.diff(ratio), np.ptp(ratio) / 10, rtol=0.2)


@pytest.mark.parametrize(
  ("num_steps", "first", "width"), [(20, 950, 50), (30, 957, 33), (0, 999, 1)]
)
def test_leading_steps_are_multiples_down_to_zero(num_steps, first, width):
  steps = samplers.kept_steps("ddim", fine(), num_steps, "leading")
  assert len(steps) == (num_steps or 1000)
  assert (steps[0], steps[-1]) == (first, 0) and (np.diff(steps) == -width).all()


def test_ddim_keeps_the_predicted_noise_where_x0_is_clipped():
  start, noise = jnp.asarray([3.0, 0.1]), jnp.asarray([-1.0, 0.2])
  signal = np.sqrt(fine().alpha_bar[[500, 0]])
  sigma = np.sqrt(1 - fine().alpha_bar[[500, 0]])

  def first_only(x, step):
    # The second of the two steps, at t = 0, then sees no noise at all.
    return jnp.where(step == 500, noise, 0.0)

  x = diffusion.sample(
    "ddim",
    first_only,
    fine(),
    start,
    no_draw,
    num_steps=2,
    spacing="leading",
    clip_x0=(-0.6, 0.6),
  )
  x0 = np.clip((start - sigma[0] * noise) / signal[0], -0.6, 0.6)
  assert (np.abs(x0) == 0.6).any() and (np.abs(x0) < 0.6).any()
  after = signal[1] * x0 + sigma[1] * noise
  np.testing.assert_allclose(x, np.clip(after / signal[1], -0.6, 0.6), rtol=1e-5)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("kind", ["x0", "v"])
def test_every_parameterisation_gives_the_same_samples(name, kind):
  start = jax.random.normal(jax.random.key(3), (5, 7))
  draw = keyed_draw(start.shape)
  want = run(name, coarse(), start, draw)
  got = run(name, coarse(), start, draw, kind=kind)
  np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_samplers_call_the_network_as_often_as_they_say(name):
  steps = []

  def predict(x, step):
    jax.debug.callback(lambda s: steps.append(int(s)), step, ordered=True)
    return gaussian(coarse())(x, step)

  jax.jit(
    lambda x: diffusion.sample(
      name, predict, coarse(), x, keyed_draw(x.shape), num_steps=4
    )
  )(jnp.ones(3)).block_until_ready()
  jax.effects_barrier()
  kept = samplers.kept_steps(name, coarse(), 4).tolist()
  if name == "heun":  # Every step but the first ends one interval as well.
    assert steps == [kept[0], *(s for s in kept[1:] for _ in range(2))]
  else:
    assert steps == kept


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 0.3)])
def test_noise_is_drawn_with_consecutive_numbers(name, eta):
  numbers = []

  def draw(i):
    jax.debug.callback(lambda i: numbers.append(int(i)), i, ordered=True)
    return jnp.zeros(3)

  run(name, coarse(), jnp.ones(3), draw, num_steps=6, eta=eta)
  jax.effects_barrier()
  assert numbers == list(range(6))


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_samples_do_not_depend_on_how_the_batch_is_split(name):
  key = jax.random.key(5)
  predict = gaussian(coarse())

  @jax.jit
  def of(examples):
    keys = jax.vmap(lambda e: jax.random.fold_in(key, e))(examples)

    def draw(i):
      return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, i), (7,)))(keys)

    return diffusion.sample(name, predict, coarse(), draw(99), draw, num_steps=9)

  whole = of(jnp.arange(6))
  halves = [of(jnp.arange(3)), of(jnp.arange(3, 6))]
  np.testing.assert_allclose(whole, np.concatenate(halves), atol=1e-6)
  assert len(np.unique(np.round(whole, 4))) > 30


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_samplers_work_under_jit_and_vmap(name):
  starts = jax.random.normal(jax.random.key(6), (4, 3, 2))
  keys = jax.random.split(jax.random.key(7), 4)

  def one(start, key):
    return diffusion.sample(
      name,
      gaussian(coarse()),
      coarse(),
      start,
      lambda i: jax.random.normal(jax.random.fold_in(key, i), (3, 2)),
      num_steps=5,
    )

  got = jax.jit(jax.vmap(one))(starts, keys)
  want = [one(s, k) for s, k in zip(starts, keys, strict=True)]
  np.testing.assert_allclose(got, np.stack(want), atol=1e-5)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_samples_of_bfloat16_predictions_are_float32(name):
  def predict(x, step):
    return gaussian(coarse())(x, step).astype(jnp.bfloat16)

  start = jnp.linspace(-2, 2, 5).astype(jnp.bfloat16)
  x = diffusion.sample(name, predict, coarse(), start, keyed_draw((5,)))
  assert x.dtype == jnp.float32
  # The state itself was never rounded to eight bits.
  assert (x != x.astype(jnp.bfloat16)).any()


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_x0_is_clipped_to_bounds_of_any_shape(name):
  start = 3 * jax.random.normal(jax.random.key(8), (40, 5))
  low = jnp.linspace(0.2, 0.6, 5)
  draw = keyed_draw(start.shape)
  free = run(name, coarse(), start, draw)
  x = run(name, coarse(), start, draw, clip_x0=(low, 1.0))
  assert (free < low).any() and (free > 1.0).any()
  assert (x >= low - 1e-6).all() and (x <= 1.0 + 1e-6).all()


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_one_step_returns_the_first_guess_of_x0(name):
  start = jnp.linspace(-2, 2, 5)
  predict = gaussian(coarse(), "x0")
  x = diffusion.sample(name, predict, coarse(), start, no_draw, kind="x0", num_steps=1)
  np.testing.assert_allclose(x, predict(start, 49), rtol=1e-4)


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("ddmi", {}, "forecast.sampler.name='ddmi'.*'ddim'"),
    ("ddim", {"num_steps": 51}, "forecast.sampler.steps=51.*50"),
    ("ddim", {"num_steps": -1}, "forecast.sampler.steps=-1"),
    ("ddim", {"eta": 1.5}, "forecast.sampler.eta=1.5"),
    ("heun", {"eta": 0.5}, "forecast.sampler.eta=0.5.*'heun'"),
    ("ddpm", {"kind": "eps"}, "method.prediction='eps'"),
    ("ddpm", {"spacing": "trailing"}, "forecast.sampler.spacing.*'leading'"),
    ("heun", {"spacing": "leading"}, "spacing='leading' is for.*'heun'"),
    ("ddim", {"spacing": "leading", "num_steps": 26}, "at most 25 steps"),
    ("dpm++", {"pull": lambda clean, x: x}, "guide.*'ddim'"),
  ],
)
def test_what_no_sampler_can_do_is_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    diffusion.sample(
      name, gaussian(coarse()), coarse(), jnp.ones(2), no_draw, **options
    )
