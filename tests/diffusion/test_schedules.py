import pathlib

import jax
import numpy as np
import pytest

from stjax import diffusion

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "cost" / "schedule_50.npz"


@pytest.mark.parametrize("name", ["quadratic", "scaled_linear"])
def test_quadratic_betas_are_those_of_the_released_cost(name):
  with np.load(GOLDEN) as golden:
    schedule = diffusion.build_schedule(name, 50, 1e-4, 0.5)
    np.testing.assert_allclose(schedule.beta, golden["output/beta"], rtol=1e-6)
    np.testing.assert_allclose(schedule.alpha_bar, golden["output/alpha"], rtol=1e-6)
    steps = np.arange(50)
    np.testing.assert_allclose(
      schedule.signal(steps), golden["output/sqrt_alpha"], rtol=1e-6
    )
    np.testing.assert_allclose(
      schedule.sigma(steps), golden["output/sqrt_one_minus_alpha"], rtol=1e-6
    )


def test_linear_betas_of_three_steps_by_hand():
  schedule = diffusion.build_schedule("linear", 3, 0.1, 0.5)
  np.testing.assert_allclose(schedule.beta, [0.1, 0.3, 0.5])
  np.testing.assert_allclose(schedule.alpha_bar, [0.9, 0.63, 0.315])


def test_quadratic_betas_of_three_steps_by_hand():
  schedule = diffusion.build_schedule("quadratic", 3, 0.01, 0.25)
  np.testing.assert_allclose(schedule.beta, [0.01, 0.09, 0.25])


def test_cosine_leaves_a_squared_cosine_and_never_all_noise():
  schedule = diffusion.build_schedule("cosine", 100, 1e-4, 0.5)

  def share(t):
    return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

  np.testing.assert_allclose(
    schedule.alpha_bar[49], share(0.5) / share(0.0), rtol=1e-12
  )
  assert schedule.beta.max() == 0.999
  assert (schedule.alpha_bar > 0).all()


@pytest.mark.parametrize("name", diffusion.SCHEDULES)
def test_signal_and_noise_share_a_variance_of_one(name):
  schedule = diffusion.build_schedule(name, 7, 1e-3, 0.4)
  steps = np.array([[6, 0], [3, 3]], np.int32)
  signal, noise = jax.jit(lambda s: (schedule.signal(s), schedule.sigma(s)))(steps)
  assert signal.shape == (2, 2)
  assert signal.dtype == noise.dtype == np.float32
  np.testing.assert_allclose(signal**2 + noise**2, 1.0, rtol=1e-6)
  assert (np.diff(schedule.alpha_bar) < 0).all()


def test_a_small_noise_keeps_its_digits():
  schedule = diffusion.build_schedule("linear", 3, 1e-9, 1e-8)
  np.testing.assert_allclose(schedule.sigma(0), np.sqrt(1e-9), rtol=1e-6)


@pytest.mark.parametrize(
  "arguments",
  [
    ("linear", 1000, 1e-4, 0.02),
    ("quadratic", 50, 1e-4, 0.5),
    ("cosine", 10000, 0.0, 0.0),
    ("linear", 88, 1e-4, 0.5),  # Close to what is refused.
  ],
)
@pytest.mark.parametrize("sampler", diffusion.samplers.SAMPLERS)
def test_every_accepted_schedule_samples_finite_data(arguments, sampler):
  """Draws with the right answer known: the data are standard normal.

  Few steps of "heun" from a high noise level make the draws wider.
  """
  schedule = diffusion.build_schedule(*arguments)
  noise = jax.random.normal(jax.random.key(0), (1000,))

  def epsilon(x, step):
    return schedule.sigma(step) * x

  x = jax.jit(
    lambda start: diffusion.sample(
      sampler,
      epsilon,
      schedule,
      start,
      lambda i: jax.random.normal(jax.random.key(i + 1), start.shape),
      num_steps=min(schedule.num_steps, 50),
    )
  )(noise)
  assert 0.8 < float(x.std()) < (10 if sampler == "heun" else 1.2)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("quadratc", 5, 0.1, 0.2), "did you mean 'quadratic'"),
    (("linear", 0, 0.1, 0.2), "method.num_steps=0"),
    (("linear", 5, 0.0, 0.2), "method.beta_start=0.0"),
    (("linear", 5, 0.1, 1.0), "method.beta_end=1.0"),
    (("linear", 1000, 1e-4, 0.5), "method.num_steps=1000.*beta_end=0.5"),
    (("cosine", 10**5, 0.0, 0.0), "method.num_steps=100000"),
  ],
)
def test_what_is_no_schedule_is_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    diffusion.build_schedule(*arguments)
