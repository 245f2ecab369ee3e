"""The choice of candidates and the search over several steps, against all of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax.errors import ConfigError
from stjax.planning import search

NAN = np.nan
WIDTHS = (1, 4, 27)
DEPTH, DISCOUNT = 3, 0.9
SLOPES, SHIFTS = np.array([[1.2, 0.6, -1.4], [0.1, 0.3, -0.2]], np.float32)
CANDIDATES = len(SLOPES)


def expand(state):
  """Three candidates of a state {"x": [4], "step": []}."""
  candidates = jnp.tanh(SLOPES[:, None] * state["x"] + SHIFTS[:, None])
  steps = jnp.full(CANDIDATES, state["step"] + 1)
  return candidates, {"x": candidates, "step": steps}


def rewarded(truth):
  return lambda candidates, step: -jnp.square(candidates - truth[step]).mean(-1)


def start(x):
  return {"x": x, "step": jnp.zeros((), jnp.int32)}


@functools.partial(jax.jit, static_argnames=("width", "depth"))
def plan(x, truth, width, depth=DEPTH):
  return search.beam(expand, rewarded(truth), start(x), depth, width, DISCOUNT)


def example(seed=0, count=()):
  rng = np.random.default_rng(seed)
  shapes = (*count, 4), (*count, DEPTH, 4)
  return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def every_trajectory(x, truth):
  """All choices, their scores and trajectories, the best first; in numpy."""
  found = []
  for choices in itertools.product(range(CANDIDATES), repeat=DEPTH):
    state, score, path = x, 0.0, []
    for step, k in enumerate(choices):
      state = np.tanh(SLOPES[k] * state + SHIFTS[k])
      score -= DISCOUNT**step * np.square(state - truth[step]).mean()
      path.append(state)
    found.append((score, choices, np.stack(path)))
  return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize(
  ("rewards", "width", "index"),
  [
    ([1, 3, 2], 3, 1),
    ([1, 3, 2], 1, 0),
    ([1, 2, 3], 2, 1),
    ([1, 3, 3], 3, 1),  # The first of equal ones.
    ([NAN, 1, 2], 3, 2),
    ([1, NAN, -1], 9, 0),
    ([NAN, -np.inf, -5], 3, 2),
    ([NAN, NAN, NAN], 3, 0),
    ([NAN, NAN, 7], 2, 0),
  ],
)
def test_the_best_candidate_is_picked(rewards, width, index):
  rewards = jnp.array([rewards, [1, 0, 0]], jnp.float32).T
  found = jax.jit(search.select, static_argnums=1)(rewards, width)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, [index, 0])


@pytest.fixture(scope="module")
def plans():
  """The plans of one example by width, and all of its trajectories."""
  x, truth = example()
  return {w: plan(x, truth, w) for w in WIDTHS}, every_trajectory(x, truth)


def test_the_full_width_finds_every_trajectory_in_order(plans):
  found, wanted = plans
  scores, choices, paths = zip(*wanted, strict=True)
  everything = found[CANDIDATES**DEPTH]
  np.testing.assert_array_equal(everything.choices, choices)
  np.testing.assert_allclose(everything.scores, scores, rtol=1e-5)
  np.testing.assert_allclose(everything.trajectories, np.stack(paths), atol=1e-6)


def test_a_width_of_one_takes_the_best_at_each_step(plans):
  x, truth = example()
  for step in range(DEPTH):
    candidates = np.tanh(SLOPES[:, None] * x + SHIFTS[:, None])
    k = np.square(candidates - truth[step]).mean(-1).argmin()
    assert plans[0][1].choices[0, step] == k
    x = candidates[k]


def test_no_width_finds_more_than_the_full_one(plans):
  scores = {w: np.asarray(p.scores) for w, p in plans[0].items()}
  # Each trajectory has the score that brute force gives it.
  by_choices = {choices: score for score, choices, _ in plans[1]}
  for width, found in plans[0].items():
    wanted = [by_choices[tuple(row)] for row in found.choices.tolist()]
    np.testing.assert_allclose(scores[width], wanted, rtol=1e-5)
    assert (np.diff(scores[width]) <= 0).all()
    assert scores[width][0] <= scores[CANDIDATES**DEPTH][0]


def test_one_step_is_the_choice_of_the_best():
  values = np.random.default_rng(0).integers(0, 3, (6, 40)).astype(np.float32)
  values[values == 0] = NAN
  values[:, 0] = NAN
  picked = search.select(values, 6)

  def choose(column):
    def candidates(state):
      return state, jnp.broadcast_to(state, (6, 6))

    return search.beam(candidates, lambda x, step: x, column, 1, 4)

  found = jax.jit(jax.vmap(choose))(values.T)
  np.testing.assert_array_equal(found.choices[:, 0, 0], picked)
  # Those without a reward take no place, unless there is no other one.
  places = np.isfinite(found.scores[1:]).sum(1)
  np.testing.assert_array_equal(places, np.minimum((values[:, 1:] > 0).sum(0), 4))


@jax.jit
def plan_table(steps):
  """The plan of width 3 for rewards [L, 2, 2] of the first choice and the candidate."""

  def children(state):
    first, step = state
    candidates = steps[step, first]
    firsts = jnp.where(step == 0, jnp.arange(2), first)
    return candidates, (firsts, jnp.full(2, step + 1))

  begin = (jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
  return search.beam(children, lambda x, step: x, begin, len(steps), 3)


@pytest.mark.parametrize(
  ("steps", "choices", "scores"),
  [
    # Equal scores stay in the order of parent and candidate.
    ([[[1, 1], [0, 0]], [[2, 2], [2, 2]]], [[0, 0], [0, 1], [1, 0]], [3, 3, 3]),
    ([[[1, 2], [0, 0]], [[5, 5], [4, 4]]], [[1, 0], [1, 1], [0, 0]], [6, 6, 6]),
    # Who has no reward is out.
    ([[[NAN, 1], [0, 0]], [[9, 9], [NAN, 2]]], [[1, 1]], [3]),
    ([[[3, 1], [0, 0]], [[NAN, NAN], [0, 2]]], [[1, 1], [1, 0]], [3, 1]),
    # A step at which no one has a reward adds nothing.
    ([[[3, 1], [0, 0]], [[NAN] * 2] * 2], [[0, 0], [0, 1], [1, 0]], [3, 3, 1]),
    ([[[NAN] * 2] * 2, [[1, 2], [1, 4]]], [[1, 1], [0, 1], [0, 0]], [4, 2, 1]),
  ],
)
def test_ties_and_missing_rewards(steps, choices, scores):
  found = plan_table(np.array(steps, np.float32))
  missing = [-np.inf] * (3 - len(scores))
  assert found.scores.tolist() == [*scores, *missing]
  assert found.choices[: len(scores)].tolist() == choices


def test_a_compiled_batch_equals_the_loop_over_its_examples():
  xs, truths = example(1, (3,))
  width = WIDTHS[1]
  batched = jax.jit(jax.vmap(lambda x, truth: plan(x, truth, width)))(xs, truths)
  for i, (x, truth) in enumerate(zip(xs, truths, strict=True)):
    one = plan(x, truth, width)
    np.testing.assert_array_equal(batched.choices[i], one.choices)
    np.testing.assert_allclose(batched.scores[i], one.scores, rtol=1e-6)
    np.testing.assert_allclose(batched.trajectories[i], one.trajectories, rtol=1e-5)


@pytest.mark.parametrize(
  ("call", "match"),
  [
    (lambda: search.select(np.ones((2, 1)), 0), "width=0"),
    (lambda: plan(*example(), width=0), "width=0"),
    (lambda: plan(*example(), width=1, depth=0), "depth=0"),
  ],
)
def test_impossible_searches_are_refused(call, match):
  with pytest.raises(ConfigError, match=match):
    call()
