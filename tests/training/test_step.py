import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import trees_equal

from stjax import methods
from stjax.methods import base
from stjax.training import state as state_lib
from stjax.training import step as step_lib


class Linear(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    del train
    return nn.Dense(2)(x)


@pytest.fixture(scope="module")
def setting():
  method = methods.build("regression", Linear(), horizon=2)
  keys = jax.random.split(jax.random.key(0), 4)
  shape = (12, 2, 5, 3, 2)
  batch = {
    "inputs": jax.random.normal(keys[0], shape),
    "targets": jax.random.normal(keys[1], shape),
    "mask": jax.random.bernoulli(keys[2], 0.6, (12, 4, 5, 3, 2)),
    "static": jax.random.normal(keys[3], (5, 3, 1)),
  }
  transformation = optax.adam(0.1)
  variables = method.init(jax.random.key(1), batch)

  def run(steps=1, batch=batch, ema_decay=0.0, **options):
    state = state_lib.create(jax.random.key(2), variables, transformation, ema_decay)
    step = jax.jit(
      functools.partial(
        step_lib.train_step,
        method=method,
        transformation=transformation,
        learning_rate=lambda s: 0.1,
        ema_decay=ema_decay,
        **options,
      )
    )
    for _ in range(steps):
      state, scalars = step(state, batch, {})
    return state, scalars

  return run


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_accumulated_gradients_are_those_of_the_whole_masked_batch(setting, parts):
  whole, expected = setting(steps=3)
  cut, found = setting(steps=3, accumulation_steps=parts)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    cut.params,
    whole.params,
  )


def test_the_average_follows_the_parameters(setting):
  start, _ = setting(steps=1, ema_decay=0.9)
  first = setting(steps=1)[0].params
  # After one step: .9 of the first parameters plus .1 of the new ones.
  state, _ = setting(steps=1, ema_decay=0.5)
  middle = jax.tree.map(
    lambda e, p: 2 * np.asarray(e) - np.asarray(p), state.ema_params, first
  )
  expected = jax.tree.map(lambda i, p: 0.9 * i + 0.1 * np.asarray(p), middle, first)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    start.ema_params,
    expected,
  )
  assert setting()[0].ema_params is None


def test_the_logged_norms_are_the_norms(setting):
  before = setting(steps=1)[0]
  after, scalars = setting(steps=2)
  difference = jax.tree.map(jnp.subtract, after.params, before.params)
  np.testing.assert_allclose(
    scalars["update_norm"], optax.tree.norm(difference), rtol=1e-4
  )
  np.testing.assert_allclose(
    scalars["parameter_norm"], optax.tree.norm(after.params), rtol=1e-6
  )
  assert int(after.step) == 2


def test_the_same_step_gives_the_same_bits(setting):
  assert trees_equal(setting(steps=2)[0], setting(steps=2)[0])


@pytest.mark.parametrize("parts", [1, 3])
def test_a_batch_without_an_observed_point_changes_nothing(setting, parts):
  shape = (12, 2, 5, 3, 2)
  empty = {
    "inputs": jnp.ones(shape),
    "targets": jnp.ones(shape),
    "mask": jnp.zeros((12, 4, 5, 3, 2), bool),
    "static": jnp.ones((5, 3, 1)),
  }
  state, scalars = setting(batch=empty, accumulation_steps=parts)
  assert scalars["loss"] == 0 and scalars["gradient_norm"] == 0
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@dataclasses.dataclass(frozen=True)
class Averaged(base.Method):
  """Keeps a moving average of the inputs, and counts steps and microbatches."""

  horizon: int = 1

  def init(self, key, batch):
    zero = jnp.zeros(())
    return {
      "params": {"scale": jnp.ones(())},
      "codebook": {"average": zero, "steps": zero},
      "running": {"microbatches": zero},
    }

  def loss(self, variables, frozen, batch, key, train):
    x = batch["inputs"]
    summed = {"total": x.sum(), "count": jnp.float32(x.size)}
    microbatches = variables["running"]["microbatches"] + 1
    collections = {
      "codebook": variables["codebook"],
      "running": {"microbatches": microbatches},
    }
    loss = jnp.mean(variables["params"]["scale"] * x)
    return loss, base.Outputs({}, collections, x.size, summed)

  def update(self, collections, summed):
    before = collections["codebook"]
    new = summed["total"] / summed["count"]
    average = 0.9 * before["average"] + 0.1 * new
    codebook = {"average": average, "steps": before["steps"] + 1}
    return collections | {"codebook": codebook}

  def forecast(self, variables, frozen, batch, key, members):
    raise NotImplementedError


@pytest.mark.parametrize("parts", [1, 4])
def test_what_is_summed_updates_the_collections_once_a_step(parts):
  method, transformation = Averaged(), optax.sgd(0.1)
  batch = {"inputs": jax.random.normal(jax.random.key(0), (8, 3))}
  variables = method.init(jax.random.key(1), batch)
  state = state_lib.create(jax.random.key(2), variables, transformation, 0.0)
  step = jax.jit(
    functools.partial(
      step_lib.train_step,
      method=method,
      transformation=transformation,
      learning_rate=lambda s: 0.1,
      accumulation_steps=parts,
    )
  )
  for _ in range(2):
    state, _ = step(state, batch, {})
  mean = float(batch["inputs"].mean())
  codebook = state.collections["codebook"]
  assert float(codebook["average"]) == pytest.approx(0.19 * mean, rel=1e-5)
  assert codebook["steps"] == 2
  assert state.collections["running"]["microbatches"] == 2 * parts
