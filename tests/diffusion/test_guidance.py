import jax.numpy as jnp
import numpy as np
import pytest

from stjax import diffusion


def with_condition(x, step):
  return 3.0 * x + step


def without(x, step):
  return 1.0 * x - step


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_linear_in_its_scale(scale):
  x, step = jnp.array([1.0, -2.0]), 5
  predict = diffusion.guided(with_condition, without, scale)
  want = (1 - scale) * without(x, step) + scale * with_condition(x, step)
  np.testing.assert_allclose(predict(x, step), want, rtol=1e-6)


def test_scale_of_one_never_calls_the_unconditional_network():
  assert diffusion.guided(with_condition, None, 1.0) is with_condition


@pytest.mark.parametrize("whole_batch", [False, True])
def test_a_pull_is_the_gradient_of_the_distance(whole_batch):
  x = np.asarray([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]], np.float32)
  wanted = np.asarray([[0.0, 1.0, 1.0], [3.0, 0.0, 0.5]], np.float32)
  weight = np.asarray([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]], np.float32)
  signal, said = 0.5, np.float32(0.1)
  clean = lambda x: jnp.clip((x - said) / signal, -2.0, 2.0)  # noqa: E731
  pull = diffusion.pull_towards(wanted, weight, 0.3, whole_batch)
  off = weight * (clean(x) - wanted)
  axes = None if whole_batch else 1
  distance = np.sqrt(np.sum(np.square(off), axes, keepdims=True))
  free = np.abs((x - said) / signal) < 2  # Where it is clipped, nothing pulls.
  assert not free.all()
  expected = 0.3 * free * off / (signal * distance)
  np.testing.assert_allclose(pull(clean, x), expected, rtol=1e-5, atol=1e-7)


def test_nothing_pulls_at_the_observation():
  x = jnp.ones((2, 3))
  pull = diffusion.pull_towards(x, jnp.ones(()), 1.0)
  np.testing.assert_array_equal(pull(lambda x: x, x), 0)


def test_guidance_moves_samples_away_from_the_unconditional_mean():
  # Two narrow Gaussians: scores are linear in their means.
  schedule = diffusion.build_schedule("quadratic", 50, 1e-4, 0.5)

  def toward(mean):
    # x0 is the mean itself: a Gaussian without width.
    return lambda x, step: jnp.full_like(x, mean)

  predict = diffusion.guided(toward(1.0), toward(0.0), 2.5)
  x = diffusion.sample("ddim", predict, schedule, jnp.zeros(3), None, kind="x0")
  np.testing.assert_allclose(x, 2.5, rtol=1e-5)
