import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import tiny_config

from stjax import errors
from stjax.training import optim


def rates(name, total, peak=1.0, **options):
  schedule = optim.learning_rate(name, peak, total, **options)
  return np.array([float(schedule(t)) for t in range(total)])


def build(num_steps=10, **changes):
  options = tiny_config(**{f"optimizer__{k}": v for k, v in changes.items()}).optimizer
  return optim.build(options, num_steps, fractions.Fraction(5, 2))


def test_one_cycle_starts_at_a_25th_peaks_and_ends_at_nothing():
  found = rates("one_cycle", 100)
  np.testing.assert_allclose(found[0], 1 / 25, rtol=1e-6)
  assert found.argmax() == 29  # .3 * 100 - 1
  np.testing.assert_allclose(found[29], 1.0, rtol=1e-6)
  np.testing.assert_allclose(found[-1], 1 / 25 / 1e4, rtol=1e-3)


def test_one_cycle_never_runs_past_its_end():
  schedule = optim.learning_rate("one_cycle", 1.0, 10)
  assert float(schedule(10)) == float(schedule(9)) == float(schedule(500))


def test_momentum_falls_while_the_rate_rises():
  b1 = optim.one_cycle_momentum(100)
  np.testing.assert_allclose([b1(0), b1(29), b1(99)], [0.95, 0.85, 0.95], rtol=1e-6)


def test_cosine_halves_at_half_time():
  np.testing.assert_allclose(
    rates("cosine", 4, final_learning_rate=0.2),
    0.2 + 0.4 * (1 + np.array([1, np.sqrt(0.5), 0, -np.sqrt(0.5)])),
    rtol=1e-6,
  )


def test_steps_and_milestones_and_warmup():
  np.testing.assert_allclose(
    rates("step", 5, decay_every=2, decay_rate=0.1), [1, 1, 0.1, 0.1, 0.01], rtol=1e-5
  )
  np.testing.assert_allclose(
    rates("multistep", 5, milestones=(3,)), [1, 1, 0.1, 0.1, 0.1], rtol=1e-5
  )
  np.testing.assert_allclose(
    rates("constant", 4, warmup=2, warmup_learning_rate=0.5), [0.5, 0.75, 1, 1]
  )


def test_the_exponential_holds_and_then_falls_by_equal_factors():
  np.testing.assert_allclose(
    rates("exponential", 8, hold=0.5, final_learning_rate=1e-4),
    [1, 1, 1, 1, 1, 1e-1, 1e-2, 1e-3],
    rtol=1e-5,
  )


def test_a_rate_by_epoch_is_constant_within_the_epoch():
  optimizer = build(
    10, schedule__name="step", schedule__per="epoch", schedule__decay_every=1.0
  )
  found = [float(optimizer.learning_rate(s)) for s in range(6)]
  np.testing.assert_allclose(found, [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5], rtol=1e-5)


def update(optimizer, gradients, params):
  state = optimizer.transformation.init(params)
  updates, _ = optimizer.transformation.update(gradients, state, params)
  return updates


def test_weight_decay_is_in_the_gradient_for_adam_and_outside_for_adamw():
  params, gradients = jnp.array([2.0]), jnp.array([0.0])
  schedule = {"schedule__name": "constant", "weight_decay": 0.1}
  # Adam scales the decayed gradient to a full step; AdamW only decays.
  adam = update(build(name="adam", **schedule), gradients, params)
  adamw = update(build(name="adamw", **schedule), gradients, params)
  np.testing.assert_allclose(adam, [-1e-3], rtol=1e-4)
  np.testing.assert_allclose(adamw, [-1e-3 * 0.1 * 2.0], rtol=1e-4)


def test_clipping_bounds_the_global_norm():
  gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
  optimizer = build(name="sgd", clip_norm=1.0, schedule__name="constant")
  updates = update(optimizer, gradients, jax.tree.map(jnp.ones_like, gradients))
  np.testing.assert_allclose(updates["a"], [-1e-3 * 0.6], rtol=1e-5)
  np.testing.assert_allclose(updates["b"], [-1e-3 * 0.8], rtol=1e-5)


def test_sgd_momentum_accumulates():
  optimizer = build(name="sgd", momentum=0.5, schedule__name="constant")
  transformation, one = optimizer.transformation, jnp.ones(1)
  state = transformation.init(one)
  first, state = transformation.update(one, state, one)
  second, _ = transformation.update(one, state, one)
  np.testing.assert_allclose([*first, *second], [-1e-3, -1.5e-3], rtol=1e-5)


@pytest.mark.parametrize(
  ("changes", "word"),
  [
    ({"name": "adamm"}, "did you mean"),
    ({"schedule__name": "one_cylce"}, "one_cycle"),
    ({"schedule__name": "step"}, "decay_every"),
    ({"schedule__name": "multistep"}, "milestones"),
    ({"schedule__name": "exponential"}, "final_learning_rate"),
    ({"schedule__per": "day"}, "'step' or 'epoch'"),
    ({"learning_rate": 0.0}, "learning_rate"),
  ],
)
def test_unusable_settings_are_refused(changes, word):
  with pytest.raises(errors.ConfigError, match=word):
    build(**changes)
