import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax.methods import losses

B, T, H, W, C = 2, 3, 4, 5, 3


def fields(seed=0):
  return jax.random.normal(jax.random.key(seed), (2, B, T, H, W, C))


def test_relative_errors_of_hand_worked_fields():
  observation = jnp.array([3.0, 4.0, 0.0, 0.0]).reshape(2, 2, 1)
  forecast = jnp.array([3.0, 4.0, 6.0, 8.0]).reshape(2, 2, 1)
  np.testing.assert_allclose(losses.relative_l2(forecast, observation), [2.0])
  both = jnp.concatenate([forecast, observation], -1)
  twice = jnp.concatenate([observation, observation], -1)
  np.testing.assert_allclose(losses.relative_l2(both, twice), [2.0, 0.0])
  np.testing.assert_allclose(
    losses.relative_l2(both, twice, axes=(-3, -2, -1)), np.sqrt(2), rtol=1e-6
  )


def test_relative_errors_do_not_depend_on_units():
  forecast, observation = fields()
  units = jnp.array([1.0, 1e-3, 400.0])
  np.testing.assert_allclose(
    losses.relative_l2(units * forecast, units * observation),
    losses.relative_l2(forecast, observation),
    rtol=1e-5,
  )


def test_what_is_masked_counts_for_nothing_even_if_it_is_nan():
  forecast, observation = fields()
  mask = jnp.ones((H, W, C)).at[1:3, 2].set(0)
  cut = lambda x: x * mask
  expected = losses.relative_l2(cut(forecast), cut(observation))
  wild = jnp.where(mask == 0, jnp.nan, observation)

  def mean(forecast):
    return losses.relative_l2(forecast, wild, mask).mean()

  np.testing.assert_allclose(
    losses.relative_l2(forecast, wild, mask), expected, rtol=1e-6
  )
  gradient = jax.grad(mean)(forecast)
  assert jnp.isfinite(gradient).all()
  assert ((gradient == 0) == (mask == 0)).all()


@pytest.mark.parametrize("case", ["all land", "perfect"])
def test_a_field_without_error_or_size_costs_nothing(case):
  forecast, observation = fields()
  mask = jnp.ones((H, W, C))
  if case == "all land":
    mask = mask.at[..., 1].set(0)
  else:
    forecast = forecast.at[..., 1].set(observation[..., 1])

  def error(forecast):
    return losses.relative_l2(forecast, observation, mask)

  found = error(forecast)
  assert (found[..., 1] == 0).all() and (found[..., [0, 2]] > 0).all()
  gradient = jax.grad(lambda x: error(x).sum())(forecast)
  assert jnp.isfinite(gradient).all() and (gradient[..., 1] == 0).all()


def scaled(gradient):
  _, transpose = jax.vjp(losses.equalise_gradients, jnp.zeros_like(gradient))
  return transpose(gradient)[0]


def norms(gradient):
  return np.sqrt(np.square(gradient).sum((-3, -2)))


def test_the_forward_pass_is_unchanged():
  x, _ = fields()
  np.testing.assert_array_equal(jax.jit(losses.equalise_gradients)(x), x)


def test_gradients_of_all_variables_get_the_same_norm():
  gradient = fields()[0] * jnp.array([1.0, 100.0, 1e-2])
  found = scaled(gradient)
  # The harmonic mean of the norms, in each sample and frame by itself.
  expected = C / (1 / norms(gradient)).sum(-1, keepdims=True)
  np.testing.assert_allclose(
    norms(found), np.broadcast_to(expected, (B, T, C)), rtol=1e-4
  )
  cosine = (found * gradient).sum((-3, -2)) / norms(found) / norms(gradient)
  np.testing.assert_allclose(cosine, 1, rtol=1e-5)


def test_tiny_gradients_are_left_as_they_are():
  gradient = 1e-7 * fields()[0]
  np.testing.assert_allclose(scaled(gradient), gradient, rtol=1e-6)
  np.testing.assert_array_equal(scaled(jnp.zeros((H, W, C))), 0)


def test_the_scaler_works_under_jit_vmap_and_scan():
  x, cotangent = fields()

  def loss(x):
    def body(total, frame):
      return total + losses.equalise_gradients(frame), ()

    total, _ = jax.lax.scan(body, jnp.zeros((H, W, C)), x)
    return jnp.sum(total * cotangent[0, 0])

  gradient = jax.jit(jax.vmap(jax.grad(loss)))(x)
  expected = np.broadcast_to(scaled(cotangent[0, 0]), x.shape)
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_gradients_keep_their_dtype():
  half = functools.partial(jnp.asarray, dtype=jnp.bfloat16)
  assert scaled(half(fields()[0])).dtype == jnp.bfloat16
