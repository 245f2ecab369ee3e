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


def test_guidance_moves_samples_away_from_the_unconditional_mean():
  # Two narrow Gaussians: scores are linear in their means.
  schedule = diffusion.build_schedule("quadratic", 50, 1e-4, 0.5)

  def toward(mean):
    # x0 is the mean itself: a Gaussian without width.
    return lambda x, step: jnp.full_like(x, mean)

  predict = diffusion.guided(toward(1.0), toward(0.0), 2.5)
  x = diffusion.sample("ddim", predict, schedule, jnp.zeros(3), None, kind="x0")
  np.testing.assert_allclose(x, 2.5, rtol=1e-5)
