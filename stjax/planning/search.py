"""The search among imagined futures: functions of arrays that know no model.

`select` picks the best of several candidates, and `beam` looks several steps
ahead. A reward that is NaN never wins.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stjax.errors import ConfigError

PyTree = Any


class Plan(NamedTuple):
  """What `beam` has found, the best first.

  Attributes:
    trajectories: [width, depth, ...], the candidates that were picked.
    scores: [width], the discounted sums of their rewards; -inf where there are
      fewer trajectories than `width`.
    choices: int32 [width, depth], the numbers of the candidates.
  """

  trajectories: jax.Array
  scores: jax.Array
  choices: jax.Array


def select(rewards: jax.Array, width: int) -> jax.Array:
  """Picks the candidate with the highest reward.

  Args:
    rewards: [K, B], of which higher is better.
    width: number of candidates that are looked at, from the first on.

  Returns:
    int32 [B]. The first of equal candidates wins; where all rewards are NaN, it
    is 0.

  Raises:
    ConfigError: `width` is below 1.
  """
  _at_least_one(width=width)
  rewards = rewards[:width]
  known = jnp.where(jnp.isnan(rewards), -jnp.inf, rewards)
  return known.argmax(0).astype(jnp.int32)


def beam(
  expand: Callable[[PyTree], tuple[jax.Array, PyTree]],
  reward: Callable[[jax.Array, jax.Array], jax.Array],
  start: PyTree,
  depth: int,
  width: int,
  discount: float = 1.0,
) -> Plan:
  """Searches for trajectories with a high sum of discounted rewards.

  At each step all candidates of all trajectories that are kept compete, and the
  `width` best go on. With a width of K^depth every trajectory is looked at; with a
  width of 1 the best candidate is taken at each step. It runs under jit and vmap.

  Of equal scores, that of the better parent wins, and then the first candidate. A
  trajectory with a reward of NaN is out, unless no one has a reward at that step:
  then the step adds nothing to the scores.

  Args:
    expand: state -> candidates [K, ...] and the states behind them, each leaf
      [K, ...].
    reward: candidates [K, ...] and the step, an int32 scalar from 0 -> [K], of
      which higher is better.
    start: the state at first, of one example.
    depth: number of steps.
    width: number of trajectories that are kept.
    discount: weight of a step's reward over that of the step before.

  Raises:
    ConfigError: `depth` or `width` is below 1.
  """
  _at_least_one(depth=depth, width=width)

  def step(carry, now):
    states, scores = carry
    number, share = now
    candidates, following = jax.vmap(expand)(states)
    rewards = jax.vmap(lambda x: reward(x, number))(candidates)
    children = scores[:, None] + share * rewards
    known = ~jnp.isnan(children) & (scores > -jnp.inf)[:, None]
    without = jnp.where(known.any(), -jnp.inf, scores[:, None])
    children = jnp.where(known, children, without)
    # The order of equal scores is that of their places, as the parents are sorted.
    scores, places = lax.top_k(children.ravel(), width)
    parents, choices = jnp.divmod(places.astype(jnp.int32), children.shape[1])
    picked, states = jax.tree.map(
      lambda x: x[parents, choices], (candidates, following)
    )
    return (states, scores), (picked, parents, choices)

  # Only the first place is taken at first.
  scores = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
  states = jax.tree.map(lambda x: jnp.broadcast_to(x, (width, *jnp.shape(x))), start)
  steps = np.arange(depth, dtype=np.int32)
  shares = np.float32(discount) ** steps.astype(np.float32)
  (_, scores), (picked, parents, choices) = lax.scan(
    step, (states, scores), (steps, shares)
  )

  def back(place, parent):
    return parent[place], place

  # The places [depth, width] of each trajectory, from its last step to its first.
  _, places = lax.scan(back, jnp.arange(width), parents, reverse=True)
  row = steps[:, None]
  return Plan(
    jax.tree.map(lambda x: jnp.moveaxis(x[row, places], 0, 1), picked),
    scores,
    choices[row, places].T,
  )


def _at_least_one(**numbers: int) -> None:
  for name, number in numbers.items():
    if number < 1:
      raise ConfigError(f"A search of {name}={number}; expected 1 or more.")
