"""Preference losses, by numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import diffusion, errors
from stjax.diffusion import preference

WEIGHT = jnp.asarray([2.0])


def pair(chosen, rejected):
  """Errors [2, 1] of one pair."""
  return jnp.asarray([[chosen], [rejected]])


POLICY, REFERENCE = pair(0.2, 0.5), pair(0.3, 0.4)


def schedule():
  beta = np.asarray([0.1, 0.2, 0.3])
  return diffusion.NoiseSchedule(beta, np.cumprod(1 - beta))  # .9, .72, .504


@pytest.mark.parametrize(
  ("kind", "expected"),
  [
    # (1 - a) / (2 a (1 - A of the step before)), a = .8 and .7.
    ("clean", [1.25, 1.25, 0.3 / (1.4 * 0.28)]),
    # The step before 0 is taken to be the last one: a = .9 / .504.
    ("released", [(1 - 0.9 / 0.504) / (2 * 0.9 / 0.504 * 0.496), 1.25, 0.765306]),
  ],
)
def test_weights_of_the_steps(kind, expected):
  table = preference.weight_table(schedule(), kind)
  assert table.dtype == np.float32
  np.testing.assert_allclose(table, expected, rtol=1e-4)


def test_released_weights_of_late_steps_are_too_large():
  long = diffusion.build_schedule("linear", 1000, 1e-4, 0.02)
  clean, released = (preference.weight_table(long, k) for k in preference.WEIGHTS)
  assert released[999] / clean[999] == pytest.approx(2.214, abs=1e-3)
  np.testing.assert_allclose(released[10:300], clean[10:300], rtol=5e-3)


@pytest.mark.parametrize(
  ("steps", "kind", "words"),
  [(3, "clear", "did you mean 'clean'"), (1, "clean", "num_steps=1")],
)
def test_weights_that_cannot_be_are_refused(steps, kind, words):
  short = diffusion.build_schedule("linear", steps, 0.1, 0.3)
  with pytest.raises(errors.ConfigError, match=words):
    preference.weight_table(short, kind)


def test_a_direct_preference_by_hand():
  loss, gap = preference.dpo(POLICY, REFERENCE, WEIGHT, beta=5.0)
  np.testing.assert_allclose(gap, [-0.2], rtol=1e-6)
  np.testing.assert_allclose(loss, np.log1p(np.exp(-2.0)), rtol=1e-6)


def test_a_sequential_preference_by_hand():
  loss, gap, margin = preference.spo(
    POLICY, pair(0.25, 0.4), REFERENCE, WEIGHT, beta=10.0, alpha=0.5
  )
  np.testing.assert_allclose(gap, [-0.15], rtol=1e-6)
  np.testing.assert_allclose(margin, [-0.05], rtol=1e-5)
  # The argument is -10 .5 2 (-.15) + 10 2 (-.05) = .5.
  np.testing.assert_allclose(loss, np.log1p(np.exp(-0.5)), rtol=1e-5)


def test_equal_networks_have_no_gap_and_the_loss_log_2():
  found = preference.dpo(POLICY, POLICY, WEIGHT, 3000.0)
  assert [float(x[0]) for x in found] == [np.log(np.float32(2)), 0]
  found = preference.spo(POLICY, POLICY, POLICY, WEIGHT, 3000.0, 0.5)
  assert [float(x[0]) for x in found] == [np.log(np.float32(2)), 0, 0]


def test_the_chosen_error_falls_and_the_rejected_one_grows():
  def loss(policy):
    return preference.dpo(policy, REFERENCE, WEIGHT, 5.0)[0].sum()

  chosen, rejected = jax.grad(loss)(POLICY)[:, 0]
  assert chosen > 0 and chosen == -rejected


def test_a_pair_that_the_previous_stage_disagrees_with_counts_less():
  def slope(previous):
    def loss(policy):
      return preference.spo(policy, previous, REFERENCE, WEIGHT, 5.0, 0.5)[0].sum()

    return jax.grad(loss)(previous)[0, 0]

  # They err by .1 less and by .1 more for the chosen forecast than the reference.
  assert slope(pair(0.2, 0.4)) > 1.5 * slope(pair(0.4, 0.4)) > 0


def test_a_huge_gap_has_a_finite_loss_and_gradient():
  def loss(policy):
    return preference.dpo(policy, REFERENCE, WEIGHT, 3000.0)[0].sum()

  value, gradient = jax.value_and_grad(loss)(pair(9.0, 0.0))
  assert value == pytest.approx(3000 * 2 * 9.1, rel=1e-6)
  assert jnp.isfinite(gradient).all()
