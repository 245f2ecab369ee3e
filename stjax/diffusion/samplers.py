"""Samplers: from noise to data by calls of a denoiser, in one `lax.scan`.

Every sampler reads its network only through x0(x, t), the clean data that the
prediction stands for, and moves along a subset of the training schedule's own
integer steps, from the last to 0 and then to no noise at all.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.diffusion import parameterisations
from stjax.diffusion.schedules import NoiseSchedule

SAMPLERS = ("ddpm", "ddim", "heun", "dpm++")
SPACINGS = ("ends", "leading")
# Those that visit any steps, and that a guide may pull.
_ANCESTRAL = ("ddpm", "ddim")
Predict = Callable[[jax.Array, jax.Array], jax.Array]
Draw = Callable[[jax.Array], jax.Array]
# (x0 as a function of x, x) -> what is taken off the next state.
Pull = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
# Lower and upper bound of x0; each a number or broadcasts against x.
Bounds = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Coefficients:
  """x' = x_ x + x0_ x0 + previous_ (x0 of the step before) + noise_ draw.

  Where x0 is clipped, kept_ (clipped x0 - x0) is added besides.

  Attributes:
    step: [n] int32, the training steps visited, falling.
    x: [n] float64, and so are those that follow.
    x0: [n].
    previous: [n].
    noise: [n], 0 at the last step.
    kept: [n], not 0 only for "ddim", whose noise stays as it was predicted.
  """

  step: np.ndarray
  x: np.ndarray
  x0: np.ndarray
  previous: np.ndarray
  noise: np.ndarray
  kept: np.ndarray


def kept_steps(
  name: str, schedule: NoiseSchedule, num_steps: int = 0, spacing: str = "ends"
) -> np.ndarray:
  """Returns n of the steps 0 ... N-1, falling.

  They are evenly spread: over the steps, or, for "dpm++", whose extrapolation
  needs equal intervals, over the logarithm of the signal-to-noise ratio.

  Args:
    name: of the sampler.
    schedule: of the training.
    num_steps: n; 0: all.
    spacing: "ends" keeps both ends (of one step: N-1), as sampling starts at the
      noise of N-1; "leading" keeps the multiples of N // n, from (n - 1) (N // n)
      to 0, as diffusers does by default.
  """
  if spacing == "leading":
    count = num_steps or schedule.num_steps
    return (np.arange(count)[::-1] * (schedule.num_steps // count)).astype(np.int32)
  every = np.arange(schedule.num_steps)
  rank = np.arange(num_steps or schedule.num_steps)
  place = -every
  if name == "dpm++":
    place = _half_log_snr(schedule.alpha_bar)
  wanted = np.linspace(place[-1], place[0], len(rank))
  steps = np.floor(np.interp(wanted, place[::-1], every[::-1]) + 0.5)
  # Those that round to the same step move apart, inside 0 ... N-1.
  steps = np.minimum.accumulate(steps + rank) - rank
  return np.maximum(steps, rank[::-1]).astype(np.int32)


def _half_log_snr(alpha_bar: np.ndarray) -> np.ndarray:
  return 0.5 * (np.log(alpha_bar) - np.log1p(-alpha_bar))


def linear_coefficients(
  name: str,
  schedule: NoiseSchedule,
  num_steps: int = 0,
  eta: float = 0.0,
  spacing: str = "ends",
) -> Coefficients:
  """The coefficients of a sampler with one network call a step.

  Args:
    name: "ddpm", "ddim" or "dpm++"; see `sample`.
    schedule: of the training.
    num_steps: how many steps of it; 0: all.
    eta: of "ddim".
    spacing: of the steps, see `kept_steps`.
  """
  step = kept_steps(name, schedule, num_steps, spacing)
  alpha_bar = schedule.alpha_bar[step]
  after = np.append(alpha_bar[1:], 1.0)
  if name == "dpm++":
    return _multistep(step, alpha_bar, after)
  eta, keeps = (1.0, 0.0) if name == "ddpm" else (eta, 1.0)
  # The posterior variance, with the beta 1 - A / A' of the kept steps.
  variance = (1 - after) / (1 - alpha_bar) * (1 - alpha_bar / after)
  noise = eta * np.sqrt(variance)
  x = np.sqrt((1 - after - noise**2) / (1 - alpha_bar))
  return Coefficients(
    step=step,
    x=x,
    x0=np.sqrt(after) - x * np.sqrt(alpha_bar),
    previous=np.zeros_like(x),
    noise=noise,
    kept=keeps * x * np.sqrt(alpha_bar),
  )


def _multistep(
  step: np.ndarray, alpha_bar: np.ndarray, after: np.ndarray
) -> Coefficients:
  """Of DPM-Solver++(2M): Lu et al. 2022, algorithm 2."""
  x = np.sqrt((1 - after) / (1 - alpha_bar))
  x0 = np.sqrt(after) - x * np.sqrt(alpha_bar)
  # The last step, to no noise, is infinitely wide: it is of first order, as
  # is the first, before which there is none.
  increment = np.diff(_half_log_snr(alpha_bar))
  extrapolation = np.zeros_like(x)
  if len(x) > 2:
    extrapolation[1:-1] = 0.5 * increment[1:] / increment[:-1]
  return Coefficients(
    step=step,
    x=x,
    x0=x0 * (1 + extrapolation),
    previous=-x0 * extrapolation,
    noise=np.zeros_like(x),
    kept=np.zeros_like(x),
  )


def _linear(
  c: Coefficients, estimate: Any, start: jax.Array, draw: Draw, pull: Pull | None
) -> jax.Array:
  """x' as a sum of x, x0, the x0 before and fresh noise.

  Args:
    c: the weights of this sum.
    estimate: (x, step) -> (x -> x0, x -> x0 before it is clipped), for the
      prediction that is made at x.
    start: the first x.
    draw: see `sample`.
    pull: see `sample`.
  """
  remembers, draws, keeps = c.previous.any(), c.noise.any(), c.kept.any()

  def body(carry, now):
    x, before = carry
    clean, unclipped = estimate(x, now["step"])
    x0 = clean(x)
    new = now["x"] * x + now["x0"] * x0
    if remembers:
      new += now["previous"] * before
    if keeps and unclipped is not clean:
      new += now["kept"] * (x0 - unclipped(x))
    if draws:
      # Selected, not multiplied by 0: the last draw must not count at all.
      new += jnp.where(now["noise"] > 0, now["noise"] * draw(now["i"]), 0.0)
    if pull is not None:
      new -= pull(clean, x)
    return (new, x0 if remembers else before), None

  scanned = {
    "i": jnp.arange(len(c.step), dtype=jnp.int32),
    "step": jnp.asarray(c.step),
  } | {
    field: jnp.asarray(getattr(c, field), jnp.float32)
    for field in ("x", "x0", "previous", "noise", "kept")
  }
  before = jnp.zeros_like(start) if remembers else ()
  (x, _), _ = jax.lax.scan(body, (start, before), scanned)
  return x


def _heun(
  step: np.ndarray, alpha_bar: np.ndarray, clean: Predict, start: jax.Array
) -> jax.Array:
  """Euler steps of y = x / signal in its noise level, each then corrected.

  One iteration is one network call, an Euler step and its correction in turn,
  so that the program holds the network once.
  """
  signal = np.sqrt(alpha_bar)
  level = np.append(np.sqrt(1 / alpha_bar - 1), 0.0)
  calls = 2 * len(step) - 1  # The step to no noise is not corrected.
  corrects = np.arange(calls) % 2 == 1
  interval = np.arange(calls) // 2  # From noise level i to i + 1.
  at = interval + corrects  # Where the network is called.

  def body(carry, now):
    y, base, slope = carry
    x0 = clean(now["signal"] * y, now["step"])
    new_slope = (y - x0) / now["level"]
    base = jnp.where(now["corrects"], base, y)
    mean_slope = jnp.where(now["corrects"], 0.5 * (slope + new_slope), new_slope)
    return (base + now["width"] * mean_slope, base, new_slope), None

  scanned = {
    "step": jnp.asarray(step[at]),
    "corrects": jnp.asarray(corrects),
    "signal": jnp.asarray(signal[at], jnp.float32),
    "level": jnp.asarray(level[at], jnp.float32),
    "width": jnp.asarray(np.diff(level)[interval], jnp.float32),
  }
  y = start / jnp.float32(signal[0])
  (y, _, _), _ = jax.lax.scan(body, (y, y, jnp.zeros_like(y)), scanned)
  return y


def check(
  name: str,
  num_steps: int,
  schedule_steps: int,
  eta: float = 0.0,
  spacing: str = "ends",
) -> None:
  """Refuses what `sample` could not do.

  Args:
    name: of the sampler.
    num_steps: 0, or how many steps are wanted.
    schedule_steps: N of the noise schedule.
    eta: DDIM's share of fresh noise.
    spacing: of the steps.

  Raises:
    ConfigError: (a ValueError) names the key of forecast.sampler.
  """
  errors.pick("forecast.sampler.name", name, dict.fromkeys(SAMPLERS))
  if not 0 <= num_steps <= schedule_steps:
    raise errors.ConfigError(
      f"forecast.sampler.steps={num_steps} must be from 1 to the"
      f" {schedule_steps} steps of the noise schedule (method.num_steps),"
      " or 0 for all of them."
    )
  if not 0.0 <= eta <= 1.0:
    raise errors.ConfigError(
      f"forecast.sampler.eta={eta} must be from 0 (no fresh noise) to 1."
    )
  if eta and name != "ddim":
    raise errors.ConfigError(
      f"forecast.sampler.eta={eta} is an option of 'ddim', but"
      f" forecast.sampler.name={name!r}: set eta to 0."
    )
  errors.pick("forecast.sampler.spacing", spacing, dict.fromkeys(SPACINGS))
  if spacing == "leading":
    if name not in _ANCESTRAL:
      raise errors.ConfigError(
        f"forecast.sampler.spacing='leading' is for {' and '.join(_ANCESTRAL)}, but"
        f" forecast.sampler.name={name!r}: set spacing to 'ends'."
      )
    if schedule_steps / 2 < num_steps < schedule_steps:
      raise errors.ConfigError(
        f"forecast.sampler.steps={num_steps} with spacing='leading' would begin at"
        f" step {num_steps - 1} of {schedule_steps}, where too much is left of the"
        f" data: take at most {schedule_steps // 2} steps, or spacing='ends'."
      )


def sample(
  name: str,
  predict: Predict,
  schedule: NoiseSchedule,
  start: jax.Array,
  draw: Draw,
  *,
  kind: str = "epsilon",
  num_steps: int = 0,
  eta: float = 0.0,
  spacing: str = "ends",
  clip_x0: Bounds | None = None,
  pull: Pull | None = None,
) -> jax.Array:
  """Turns noise into a sample.

  Args:
    name: one of
      "ddpm": ancestral sampling; fresh noise of the posterior variance
        beta_t (1 - A_{t-1}) / (1 - A_t); a subset of the steps takes the
        betas between its own members (Ho et al. 2020, algorithm 2; Nichol &
        Dhariwal 2021, equation 19);
      "ddim": deterministic for eta 0, the same law as "ddpm" for eta 1 (Song
        et al. 2021, equations 12 and 16);
      "heun": deterministic, second order in the noise level, 2 n - 1 network
        calls for n steps (Karras et al. 2022, algorithm 1);
      "dpm++": DPM-Solver++(2M), deterministic, second order in the
        logarithm of the signal-to-noise ratio, of first order at both ends
        (Lu et al. 2022, algorithm 2).
    predict: (x, step int32 scalar) -> prediction like x.
    schedule: the one trained with.
    start: the state at the first step that is visited, standard normal, any shape.
    draw: number i (int32, 0, 1, ...: one a step) -> standard normal like x.
      Called only by "ddpm" and "ddim" with eta; what it gives at the last
      step is not used. The caller owns the keys.
    kind: what `predict` predicts, out of `parameterisations.KINDS`.
    num_steps: n <= N steps of the schedule, see `kept_steps`; 0: all N.
    eta: share of fresh noise of "ddim".
    spacing: which n steps, see `kept_steps`; "leading" for "ddpm" and "ddim".
    clip_x0: lower and upper bound that every predicted x0 is clipped to, each
      a number or an array that broadcasts against x; None: not clipped. "ddim"
      keeps the noise that was predicted; for the others, the noise of a step is
      what x leaves over beside the clipped x0.
    pull: what guides "ddpm" or "ddim", see `guidance.pull_towards`: (x0 as a
      function of x for the prediction that was made, x) -> what is taken off the
      next state; None: nothing.

  Returns:
    The sample, like start, float32.

  Raises:
    ConfigError: (a ValueError) see `check`; or unknown kind; or a pull on another
      sampler.
  """
  check(name, num_steps, schedule.num_steps, eta, spacing)
  if pull is not None and name not in _ANCESTRAL:
    raise errors.ConfigError(
      f"A guide needs forecast.sampler.name={' or '.join(map(repr, _ANCESTRAL))},"
      f" which is {name!r}."
    )

  def estimate(x, step):
    prediction = predict(x, step)

    def unclipped(x):
      return parameterisations.to_x0_and_noise(
        kind, prediction, x, schedule.signal(step), schedule.sigma(step)
      )[0]

    if clip_x0 is None:
      return unclipped, unclipped
    return lambda x: jnp.clip(unclipped(x), *clip_x0), unclipped

  start = jnp.asarray(start, jnp.float32)
  if name == "heun":
    step = kept_steps(name, schedule, num_steps)
    alpha_bar = schedule.alpha_bar[step]
    return _heun(step, alpha_bar, lambda x, t: estimate(x, t)[0](x), start)
  coefficients = linear_coefficients(name, schedule, num_steps, eta, spacing)
  return _linear(coefficients, estimate, start, draw, pull)
