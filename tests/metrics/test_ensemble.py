"""Functions of an ensemble against hand-worked values and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax.metrics import ensemble


def _fields(members=5, shape=(3, 2, 4, 5, 2), seed=0):
  rng = np.random.default_rng(seed)
  observation = rng.normal(300, 4, shape).astype(np.float32)
  forecast = rng.normal(301, 3, (members, *shape)).astype(np.float32)
  return forecast, observation


@pytest.mark.parametrize("members", [1, 2, 7, 10, 11])
def test_quantiles_are_numpys_linear_ones(members):
  forecast, _ = _fields(members)
  for level in (0.0, 0.025, 0.05, 0.3, 0.5, 0.7, 0.9, 1.0):
    np.testing.assert_allclose(
      ensemble.quantile(jnp.sort(forecast, axis=0), level),
      np.quantile(forecast.astype(np.float64), level, axis=0),
      rtol=3e-7,
      err_msg=str(level),
    )


def test_a_quantile_between_equal_members_is_exactly_their_value():
  value = np.float32(0.1)
  ordered = jnp.full((4, 1), value)
  for level in np.linspace(0, 1, 21):
    assert ensemble.quantile(ordered, level)[0] == value


def test_the_crps_terms_of_three_members_by_hand():
  # Members 1, 2, 6 and observation 3: distances 2, 1, 3; pairs 1, 5, 4.
  absolute, pairs = ensemble.crps_terms(
    jnp.array([[1.0], [2.0], [6.0]]), jnp.array([3.0])
  )
  np.testing.assert_allclose(absolute, [2.0], rtol=1e-6)
  np.testing.assert_allclose(pairs, [10.0], rtol=1e-6)


def test_the_crps_terms_are_those_of_all_pairs():
  forecast, observation = _fields(6)
  absolute, pairs = ensemble.crps_terms(jnp.sort(forecast, axis=0), observation)
  forecast = forecast.astype(np.float64)
  np.testing.assert_allclose(
    absolute, np.abs(forecast - observation).mean(0), rtol=1e-5
  )
  every = np.abs(forecast[:, None] - forecast).sum((0, 1)) / 2
  np.testing.assert_allclose(pairs, every, rtol=1e-4)


def test_the_variance_is_unbiased_and_0_for_one_member():
  forecast, _ = _fields(4)
  np.testing.assert_allclose(
    ensemble.variance(forecast),
    forecast.astype(np.float64).var(0, ddof=1),
    rtol=1e-3,
    atol=1e-4,
  )
  assert (ensemble.variance(forecast[:1]) == 0).all()


def test_the_interval_score_charges_for_what_lies_outside():
  # The interval 2..6 at 80 %: 2 / 0.2 = 10 times the miss.
  observation = jnp.array([1.0, 3.0, 6.5])
  score = ensemble.interval_score(2.0, 6.0, observation, 80)
  np.testing.assert_allclose(score, [4 + 10, 4, 4 + 5], rtol=1e-6)
  inside = ensemble.inside(2.0, 6.0, observation)
  np.testing.assert_array_equal(inside, [0, 1, 0])


def test_both_ends_of_an_interval_lie_inside():
  low, high = jnp.float32(2), jnp.float32(6)
  assert ensemble.inside(low, high, 2.0) == 1
  assert ensemble.inside(low, high, 6.0) == 1


def test_ranks_span_the_members_that_equal_the_observation():
  members = jnp.array([3.0, 1.0, 2.0, 2.0])[:, None]
  low, high = ensemble.ranks(members, jnp.array([2.0]))
  assert (low[0], high[0]) == (1, 3)
  low, high = ensemble.ranks(members, jnp.array([2.5]))
  assert (low[0], high[0]) == (3, 3)


def test_a_tie_counts_an_equal_part_in_each_of_its_bins():
  low = jnp.array([0, 1, 3]).reshape(1, 1, 3, 1, 1)
  high = jnp.array([0, 2, 3]).reshape(1, 1, 3, 1, 1)
  weight = jnp.array([1.0, 3.0, 0.0]).reshape(1, 1, 3, 1, 1)
  counts = ensemble.histogram(low, high, weight, 4)
  np.testing.assert_allclose(counts, [[[1.0, 1.5, 1.5, 0.0]]], rtol=1e-6)


def test_histograms_keep_lead_times_and_variables_apart():
  bins = jnp.arange(6).reshape(1, 3, 1, 1, 2)
  counts = ensemble.histogram(bins, bins, jnp.ones(bins.shape), 6)
  np.testing.assert_array_equal(counts, np.eye(6).reshape(3, 2, 6))


def test_the_energy_terms_of_two_members_by_hand():
  # One frame of two points: members (0, 0) and (3, 4), observation (0, 4).
  members = jnp.array([[0.0, 0.0], [3.0, 4.0]]).reshape(2, 1, 1, 2, 1, 1)
  observation = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1, 1)
  weight = jnp.ones((1, 1, 2, 1, 1))
  absolute, pairs = ensemble.energy_terms(members, observation, weight)
  np.testing.assert_allclose(absolute, [[3.5]], rtol=1e-6)
  np.testing.assert_allclose(pairs, [[5.0]], rtol=1e-6)
  # Without the second point only 0, 3 and 0 remain.
  weight = weight.at[0, 0, 1].set(0.0)
  absolute, pairs = ensemble.energy_terms(members, observation, weight)
  np.testing.assert_allclose(absolute, [[1.5]], rtol=1e-6)
  np.testing.assert_allclose(pairs, [[3.0]], rtol=1e-6)


def test_the_energy_terms_are_those_of_all_pairs():
  forecast, observation = _fields(6)
  weight = np.random.default_rng(1).random(observation.shape)
  absolute, pairs = ensemble.energy_terms(
    forecast, observation, jnp.asarray(weight, jnp.float32)
  )
  forecast = forecast.astype(np.float64)

  def norm(x):
    return np.sqrt((weight * x**2).sum((-3, -2, -1)))

  np.testing.assert_allclose(absolute, norm(forecast - observation).mean(0), rtol=1e-5)
  every = norm(forecast[:, None] - forecast).sum((0, 1)) / 2
  np.testing.assert_allclose(pairs, every, rtol=1e-5)


def test_no_array_of_the_energy_score_has_all_pairs_of_points():
  forecast, observation = _fields(32, (2, 2, 40, 3, 1))
  compiled = (
    jax.jit(ensemble.energy_terms)
    .lower(forecast, observation, np.ones_like(observation))
    .compile()
  )
  memory = compiled.memory_analysis().temp_size_in_bytes
  assert memory < 4 * forecast.nbytes


def test_points_without_weight_are_emptied_before_the_sort():
  forecast, observation = _fields(3, (1, 1, 1, 2, 1))
  observation[..., 1, :] = np.nan
  weight = np.array([1.0, 0.0]).reshape(observation.shape)
  fields = ensemble.prepare(forecast, observation, jnp.asarray(weight))
  np.testing.assert_array_equal(fields.ordered[..., 1, :], 0)
  np.testing.assert_array_equal(fields.observation[..., 1, :], 0)
  np.testing.assert_array_equal(fields.weight, weight)
  np.testing.assert_array_equal(
    fields.ordered[:, 0, 0, 0, 0, 0], np.sort(forecast[:, 0, 0, 0, 0, 0])
  )
