import dataclasses
import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sfp_runs
from denoising import Linear
from flax import linen as nn
from sfp_runs import init, loss

from stjax import errors, methods
from stjax.methods import self_training
from stjax.models.latent_head import LatentHead

KEY = jax.random.key(0)
CALLS = []


class Agent(nn.Module):
  """The newest frame, moved and changed in a way of its own for each lead time."""

  horizon: int = sfp_runs.HORIZON

  @nn.compact
  def __call__(self, x, train=False):
    CALLS.append(x.shape)
    shape = (2, self.horizon, 1, 1, 1)
    weights = self.param("weights", nn.initializers.normal(1.0), shape)
    x = nn.Dropout(0.3)(x, deterministic=not train)
    made = weights[0] * x[:, -1:] + weights[1] * jnp.roll(x[:, -1:], 1, axis=3)
    return 1.5 * jnp.sin(made)


@pytest.fixture(scope="module")
def world():
  """A world model, and its arrays as they are frozen."""
  method = sfp_runs.world()
  variables = sfp_runs.placed(method, sfp_runs.batch(seed=5))
  return method, variables


def build(world, network=None, **options):
  method = world[0] if isinstance(world, tuple) else world
  given = {"horizon": sfp_runs.HORIZON, "reward": "mse", "candidates": 3} | options
  return methods.build(
    "self_training", network or Agent(given["horizon"]), {"world": method}, **given
  )


def frozen_of(world, channels=1):
  """The arrays of a world model, with physical units of their own."""
  ones = jnp.ones(channels)
  parts = {"world": {"variables": world[1], "frozen": {}}} if world else {}
  return parts | {"offset": 3 * ones, "scale": 2 * ones}


def of(method, variables, frozen, batch, train=True):
  """Loss, outputs and gradients."""

  @jax.jit
  def both(variables):
    def one(params):
      given = variables | {"params": params}
      return method.loss(given, frozen, batch, KEY, train)

    return jax.value_and_grad(one, has_aux=True)(variables["params"])

  return both(variables)


def imagined(world, batch, action, count=3):
  return sfp_runs.imagine(
    world[0], world[1], {}, batch, action, KEY, count, action.shape[-1] == 4
  )


@pytest.mark.slow
def test_observations_alone_train_the_agent_as_it_is(world):
  batch = sfp_runs.batch()
  options = {"name": "regression", "loss_name": "mae", "lead_weights": (1.0, 2.0)}
  method = build(world, mix=1.0, agent=options)
  variables = init(method, KEY, batch)
  alone = init(method.agent, KEY, batch)
  jax.tree.map(np.testing.assert_array_equal, variables, alone)
  (found, outputs), gradients = of(method, variables, frozen_of(world), batch)
  (expected, _), wanted = of(method.agent, variables, {}, batch)
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(outputs.scalars["observation_loss"], expected)
  jax.tree.map(np.testing.assert_array_equal, gradients, wanted)


@pytest.mark.slow
def test_one_future_is_what_the_agent_learns(world):
  batch = sfp_runs.batch()
  # One future whatever the reward says, as where it is NaN.
  method = build(world, candidates=1, reward={"csi": 1.0}, thresholds=(99.0,))
  variables = init(method, KEY, batch)
  (found, outputs), gradients = of(method, variables, frozen_of(world), batch)
  agent = method.agent
  forecast = lambda v: agent.rollout(v, {}, batch, True, KEY)[0]
  future = imagined(world, batch, jax.jit(forecast)(variables), 1)[0]
  assert np.abs(future - batch["targets"]).max() > 0.1

  @jax.jit
  def expected(params):
    return jnp.square(forecast({"params": params}) - future).mean()

  value, wanted = jax.value_and_grad(expected)(variables["params"])
  np.testing.assert_allclose(found, value, rtol=1e-6)
  np.testing.assert_allclose(outputs.scalars["pseudo_loss"], value, rtol=1e-6)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, gradients, wanted)
  for name in ("reward_best", "reward_first", "reward_agent"):
    assert outputs.scalars[name] == 0  # No row has a value.
  assert outputs.scalars["won_rank_0"] == 1


def test_the_best_of_all_candidates_is_chosen_for_each_example(world):
  batch = sfp_runs.batch(rows=6)
  # The forecast of the first rows is right, so that nothing is better than it.
  method = build(world, mix=0.25, own_forecast=True, truth=True, reward="mae")
  variables = init(method, KEY, batch)
  forecast = method.agent.forecast(variables, {}, batch, KEY, 1)[0]
  batch["targets"] = batch["targets"].at[:2].set(forecast[:2])
  futures = imagined(world, batch, forecast)
  truth = imagined(world, batch, batch["targets"], 1)
  candidates = np.concatenate([futures, forecast[None], truth])
  rewards = -2 * np.abs(candidates - batch["targets"]).mean((2, 3, 4, 5))
  choice = rewards.argmax(0)
  assert set(choice[:2]) == {3} and 4 in choice[2:]
  # Without dropout all is as it was above.
  _, outputs = loss(method, variables, frozen_of(world), batch, KEY, False)
  scores = method.own_scores(outputs.scores)
  names = [*(f"rank_{k}" for k in range(3)), "own_forecast", "truth"]
  for k, name in enumerate(names):
    share = (choice == k).mean()
    assert scores[f"planning/won_{name}"] == pytest.approx(share)
  for name, value in {
    "best": rewards.max(0), "first": rewards[0], "agent": rewards[3]
  }.items():  # fmt: skip
    np.testing.assert_allclose(
      scores[f"planning/reward_{name}"], value.mean(), rtol=1e-4
    )


@pytest.mark.slow
def test_rows_without_a_reward_and_filler_rows_are_left_out_of_the_log(world):
  batch = sfp_runs.batch(rows=4)
  method = build(world, reward="csi", thresholds=(3.0,))
  variables = init(method, KEY, batch)
  # No event, neither here nor in what is imagined of it.
  batch["valid"] = jnp.arange(4) < 3
  _, outputs = loss(method, variables, frozen_of(world), batch, KEY, False)
  _, weight = outputs.scores["planning/reward_best"]
  assert weight == 3
  nan = batch | {"targets": jnp.full_like(batch["targets"], jnp.nan)}
  _, outputs = loss(method, variables, frozen_of(world), nan, KEY, False)
  total, weight = outputs.scores["planning/reward_best"]
  assert (total, weight) == (0, 0)
  total, weight = outputs.scores["planning/won_rank_0"]
  assert (total, weight) == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_a_wide_search_finds_the_best_of_all_trajectories(world, masked):
  batch = sfp_runs.batch(rows=3)
  if masked:
    rng = np.random.default_rng(0)
    batch["mask"] = jnp.asarray(rng.random((3, 4, *sfp_runs.GRID, 1)) > 0.4)
  method = build(world, Agent(1), depth=2, candidates=2, width=4, reward="mae")
  variables, frozen = init(method, KEY, batch), frozen_of(world)
  agent = method.agent.for_horizon(1)
  forecast = jax.jit(lambda x: agent.apply(variables, {"inputs": x}, False, KEY)[0])
  weight = batch["mask"][:, 2:] if masked else jnp.ones_like(batch["targets"])

  def reward(futures, lead):
    error = np.abs(futures - batch["targets"][:, lead : lead + 1])
    counts = np.asarray(weight[:, lead : lead + 1])
    return -2 * (error * counts).sum((1, 2, 3, 4)) / counts.sum((1, 2, 3, 4))

  def futures(history):
    given = batch | {"inputs": history}
    return np.asarray(imagined(world, given, forecast(history), 2))

  totals, greedy = {}, 0.0
  first = futures(batch["inputs"])
  for one in range(2):
    history = jnp.concatenate([batch["inputs"][:, 1:], first[one]], 1)
    second = futures(history)
    for two in range(2):
      made = np.concatenate([first[one], second[two]], 1)
      totals[one, two] = reward(first[one], 0) + reward(second[two], 1), made
  rewards = np.stack([value for value, _ in totals.values()])  # [4, B].
  best = rewards.argmax(0)
  expected = np.stack([list(totals.values())[k][1][b] for b, k in enumerate(best)])

  def plan(method):
    return jax.jit(lambda v: method._search(v, frozen, batch, KEY))(variables)

  pseudo, values = plan(method)
  np.testing.assert_allclose(pseudo, expected, atol=1e-5)
  if not masked:  # Both blocks count alike.
    np.testing.assert_allclose(values["reward_best"], rewards.max(0) / 2, rtol=1e-4)
  # The best one of the first block, and then the best one of the second.
  greedy = []
  for b in range(3):
    one = int(np.argmax([reward(first[k], 0)[b] for k in range(2)]))
    greedy.append(max(totals[one, two][0][b] for two in range(2)))
  narrow, _ = plan(dataclasses.replace(method, width=1))
  found = reward(np.asarray(narrow[:, :1]), 0) + reward(np.asarray(narrow[:, 1:]), 1)
  np.testing.assert_allclose(found, greedy, rtol=1e-4)
  assert (rewards.max(0) >= found - 1e-5).all()


def latent_method(world, **options):
  network = LatentHead(Agent(), features=4, factor=1)
  return build(world, network, **options)


@pytest.mark.parametrize("make", [build, latent_method])
@pytest.mark.parametrize("train", [True, False])
def test_the_agent_runs_once_for_action_and_loss(world, make, train):
  batch = sfp_runs.batch()
  method = make(world, mix=0.5, own_forecast=True, truth=True)
  variables = jax.eval_shape(method.init, KEY, batch)
  CALLS.clear()
  jax.eval_shape(
    lambda v: method.loss(v, frozen_of(world), batch, KEY, train), variables
  )
  assert len(CALLS) == 1


@pytest.mark.slow
def test_a_network_of_latents_learns_through_the_frozen_decoder(world):
  batch = sfp_runs.batch()
  method = latent_method(world, mix=0.5)
  assert isinstance(method.agent, self_training.LatentAgent)
  variables, frozen = init(method, KEY, batch), frozen_of(world)
  assert "codebook" not in variables
  made = sfp_runs.forecast(method, variables, frozen, batch, KEY, jnp.arange(1))[0]
  assert made.shape == batch["targets"].shape
  latents = method.agent.network.apply(variables, batch["inputs"])
  assert latents.shape == (4, 2, *sfp_runs.GRID, 4)
  np.testing.assert_allclose(made, imagined(world, batch, latents)[0], atol=1e-5)
  (_, outputs), gradients = of(method, variables, frozen, batch)
  # The nearest codes of its latents make the forecast and the first future.
  first, own = (outputs.scalars[f"reward_{name}"] for name in ("first", "agent"))
  np.testing.assert_allclose(first, own, rtol=1e-5)
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))
  # As where nothing is quantised: the gradient goes straight to the latents.
  decode = lambda z: world[0].decode_latents(world[1], batch["inputs"], z)
  slope = jax.jit(jax.grad(lambda z: jnp.square(decode(z)).sum()))(latents)
  codes, skip = jax.jit(
    lambda z: (
      world[0].network.apply(world[1], z, 1, method="quantise"),
      world[0].network.apply(world[1], batch["inputs"][:, -1:], method="encode")[1],
    )
  )(latents)

  def of_codes(q):
    made = world[0].network.apply(world[1], q, skip, method="decode")
    return jnp.square(made).sum()

  wanted = jax.jit(jax.grad(of_codes))(codes)[0]
  np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["agreement", "spectrum"])
def test_a_forecast_may_choose_among_its_futures_without_the_truth(world, reward):
  method = build(world, sampling={"reward": reward})
  batch = sfp_runs.batch(grid=(6, 6))  # The least that has a spectrum.
  frozen = frozen_of(world)
  shapes = method.prepared_shapes(
    {name: batch[name].shape[1:] for name in ("inputs", "targets")}
  )
  if reward == "spectrum":
    assert shapes["spectrum"] == (4, 1)
    frozen["spectrum"] = jnp.asarray([[1.0], [0.5], [0.2], [0.1]])
  assert method.forecast_parts == ("world",)
  variables = init(method, KEY, batch)
  del batch["targets"]
  made = sfp_runs.forecast(method, variables, frozen, batch, KEY, jnp.arange(2))
  assert made.shape == (2, 4, 2, 6, 6, 1)
  np.testing.assert_array_equal(made[0], made[1])
  forecast = method.agent.forecast(variables, {}, batch, KEY, 1)[0]
  futures = np.asarray(imagined(world, batch, forecast))
  values = method._forecast_reward(2 * futures + 3, None, None, frozen)
  choice = np.asarray(values).argmax(0)
  np.testing.assert_allclose(made[0], futures[choice, range(4)], atol=1e-5)
  assert build(world).forecast_parts == ()


@pytest.mark.slow
def test_members_of_a_diffusion_are_candidates_too():
  other = diffusion_world()
  batch = sfp_runs.batch()
  method = build(other, Agent(), candidates=3)
  weights = {"params": {"weights": jnp.asarray([0.3, -0.2, 0.5, 0.1])}}
  variables, frozen = init(method, KEY, batch), frozen_of((other, weights))
  (_, outputs), _ = of(method, variables, frozen, batch)
  key = jax.random.fold_in(KEY, 3)
  members = sfp_runs.forecast(other, weights, {}, batch, key, jnp.arange(3))
  rewards = -4 * np.square(members - batch["targets"]).mean((2, 3, 4, 5))
  np.testing.assert_allclose(
    outputs.scalars["reward_best"], rewards.max(0).mean(), rtol=1e-4
  )
  assert rewards.max(0).mean() > rewards[0].mean()


def diffusion_world():
  return methods.build("diffusion", Linear(), horizon=sfp_runs.HORIZON, num_steps=4)


def test_the_first_epochs_train_the_agent_alone(world):
  per_epoch = fractions.Fraction(7, 2)
  method = build(world, warm_up=1.5, mix=0.5)
  (zero, warm), (first, planning) = method.phases(per_epoch)
  assert (zero, first) == (0, 6) and planning is method
  assert build(world).phases(per_epoch)[0][1].mix == 0
  assert len(build(world).phases(per_epoch)) == 1
  batch = sfp_runs.batch()
  variables = jax.eval_shape(method.init, KEY, batch)

  def program(method):
    frozen = frozen_of(world)
    trace = jax.make_jaxpr(lambda v: method.loss(v, frozen, batch, KEY, True))
    return str(trace(variables))

  assert program(warm) == program(method.agent) != program(planning)


def test_a_shorter_horizon_needs_no_blocks(world):
  method = build(world, depth=2)
  shorter = method.for_horizon(1)
  assert (shorter.horizon, shorter.agent.horizon, shorter.world.horizon) == (1, 1, 1)
  assert shorter.depth == 1


CURRICULUM = {"name": "regression", "curriculum": ((0, 1), (1, 2))}


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"candidates": 9}, "method.candidates=9.*8 codes of frozen.world"),
    ({"candidates": 0}, "method.candidates=0"),
    ({"reward": "cis"}, "method.reward='cis'.*'csi'"),
    ({"reward": "csi"}, "method.reward='csi'.*thresholds"),
    ({"reward": {"mse": -1.0}}, "method.reward=.*positive"),
    ({"reward_options": {"csi": {}}}, "method.reward='mse'.*csi"),
    ({"sampling": {"reward": "mse"}}, "forecast.sampler.reward='mse'.*agreement"),
    ({"sampling": {"reward": "csi"}}, "forecast.sampler.reward='csi'.*spectrum"),
    ({"sampling": {"reward": "spectra"}}, "forecast.sampler.reward.*'spectrum'"),
    ({"agent": CURRICULUM}, "method.agent.curriculum"),
    ({"agent": {"name": "persistence"}}, "method.agent must be a regression"),
    ({"agent": {"loss_name": "mae"}}, "method.agent.name"),
    ({"agent": {"name": "regresion"}}, "regresion.*'regression'"),
    ({"depth": 3}, "method.depth=3.*data.horizon=2"),
    ({"depth": 2, "truth": True}, "method.depth=2.*method.truth"),
    ({"width": -1}, "method.width=-1"),
    ({"mix": 1.5}, "method.mix=1.5"),
    ({"warm_up": -1.0}, "method.warm_up=-1"),
    ({"discount": float("nan")}, "method.discount=nan"),
    ({"candidats": 3}, "candidates"),
    ({"world": diffusion_world, "truth": True}, "method.truth.*Diffusion"),
    ({"world": diffusion_world, "depth": 2}, "method.depth.*Diffusion"),
    ({"world": lambda: methods.build("persistence", None, horizon=2)}, "Persistence"),
    ({"features": 6}, "model.features=6.*need 4"),
    ({"factor": 2}, "model.factor=2.*need 1"),
    ({"factor": 1, "depth": 2}, "method.depth=2.*network of frames"),
    ({"factor": 1, "world": diffusion_world}, "only a world model decodes"),
    (
      {"factor": 1, "agent": {"name": "regression", "predict_tendency": True}},
      "method.agent.predict_tendency",
    ),
    (
      {"factor": 1, "agent": {"name": "regression", "pad_to_multiple": 2}},
      "method.agent.pad_to_multiple",
    ),
    ({"factor": 1, "agent": {"name": "diffusion"}}, "method.agent.name='diffusion'"),
  ],
)
def test_what_does_not_go_together_is_refused(options, words):
  options = dict(options)
  network = None
  if {"features", "factor"} & set(options):
    given = {
      name: options.pop(name) for name in ("features", "factor") if name in options
    }
    network = LatentHead(Agent(), **({"features": 4, "factor": 1} | given))
  world = options.pop("world", sfp_runs.world)()
  with pytest.raises(errors.ConfigError, match=words):
    build(world, network, **options)


def test_a_denoiser_is_no_agent_and_a_world_is_needed():
  with pytest.raises(errors.ConfigError, match="method.agent must be a regression"):
    build(sfp_runs.world(), Linear(), agent={"name": "diffusion", "num_steps": 4})
  with pytest.raises(errors.ConfigError, match="frozen.world.init_from"):
    methods.build("self_training", Agent(), horizon=2)


@pytest.mark.parametrize(("used", "fine"), [(3, True), (2, False)])
def test_a_world_model_must_use_enough_of_its_codes(world, used, fine):
  counts = jnp.where(jnp.arange(8) < used, 0.3, 1e-3)
  frozen = {"world": {"variables": {"codebook": {"counts": counts}}}}
  if fine:
    build(world).check_frozen(frozen, np.asarray)
    return
  with pytest.raises(errors.ConfigError, match="uses 2 of its 8.*method.candidates=3"):
    build(world).check_frozen(frozen, np.asarray)
