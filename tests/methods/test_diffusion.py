import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoising import GRID, HORIZON, VARIABLES, GivenShift, Linear, make_batch
from flax import linen as nn

from stjax import diffusion as library
from stjax import errors, methods
from stjax.models.denoisers.common import Denoiser

SHAPE = (HORIZON, *GRID)
KEY = jax.random.key(0)


def build(network=None, **options):
  sampling = options.pop("sampling", {})
  return methods.build(
    "diffusion",
    network or Linear(),
    sampling=sampling,
    horizon=HORIZON,
    **({"num_steps": 6} | options),
  )


def masked_batch():
  """One point of row 1 is missing, and the last row is filled up."""
  mask = np.ones((4, 3 + HORIZON, *GRID), bool)
  mask[1, 4, 2, 0] = False
  valid = jnp.asarray([True, True, True, False])
  return make_batch() | {"mask": jnp.asarray(mask), "valid": valid}


class Seen(Denoiser):
  """Says 3 where it is shown a history and 1 where that is empty."""

  def encode(self, history):
    return jnp.any(history != 0, axis=(1, 2, 3, 4))

  def denoise(self, noisy, step, context, prior_shift, train=False):
    said = jnp.where(context, 3.0, 1.0)
    return jnp.broadcast_to(said[:, None, None, None, None], noisy.shape)


class Counted(Linear):
  """Calls `note` every time that it really encodes."""

  note: Callable[[], None] = None

  def encode(self, history):
    jax.debug.callback(self.note)
    return super().encode(history)


@pytest.mark.slow
def test_it_trains_and_samples_without_a_mean():
  method, batch = build(), make_batch()
  assert method.parts == {} and method.prepared_shapes({}) == {}
  variables = method.init(KEY, batch)
  assert variables["params"]["weights"].shape == (4,)
  draws = method.draw(jax.random.fold_in(KEY, 2), batch, SHAPE)

  def loss(variables):
    return method.loss(variables, {}, batch, KEY, train=True)[0]

  found, gradient = jax.value_and_grad(loss)(VARIABLES)
  assert (jnp.abs(gradient["params"]["weights"]) > 0).tolist() == [
    True,
    True,
    False,
    True,
  ]
  at = draws.step[:, None, None, None, None]
  alpha_bar = np.cumprod(1 - np.linspace(1e-4**0.5, 0.5**0.5, 6) ** 2)[at]
  noisy = np.sqrt(alpha_bar) * batch["targets"] + np.sqrt(1 - alpha_bar) * draws.noise
  predicted = 0.3 * noisy - 0.2 * batch["inputs"][:, -1:] + 0.001 * at
  expected = np.mean((predicted - draws.noise) ** 2)
  assert float(found) == pytest.approx(float(expected), rel=1e-5)
  drawn = method.forecast(VARIABLES, {}, batch, KEY, 3)
  assert drawn.shape == (3, 4, *SHAPE) and np.isfinite(drawn).all()
  assert np.ptp(np.asarray(drawn), axis=0).min() > 1e-3


@pytest.mark.parametrize("units", ["own", "epsilon"])
def test_errors_of_several_fields_are_those_of_each(units):
  method, batch = GivenShift(horizon=HORIZON, network=Linear()), masked_batch()
  draws = method.draw(KEY, batch, SHAPE)
  fields = jax.random.normal(jax.random.key(1), (3, 4, *SHAPE))
  run = jax.jit(
    functools.partial(method.errors, VARIABLES, {}, train=False, key=KEY, units=units)
  )
  error, weight, collections = run(batch, fields, draws)
  assert error.shape == (3, 4) and collections == {}
  for one, field in zip(error, fields, strict=True):
    alone, same, _ = run(batch, field[None], draws)
    np.testing.assert_allclose(one, alone[0], rtol=1e-6)
    np.testing.assert_array_equal(weight, same)
  assert len(np.unique(error[:, :3])) == 9


def test_weights_are_the_numbers_of_observed_points():
  method, batch = build(), masked_batch()
  draws = method.draw(KEY, batch, SHAPE)
  error, weight, _ = method.errors(
    VARIABLES, {}, batch, batch["targets"][None], draws, train=False, key=KEY
  )
  points = HORIZON * 6
  np.testing.assert_array_equal(weight, [points, points - 1, points, 0])
  assert error[0, 3] == 0 and (error[0, :3] > 0).all()
  loss, outputs = method.loss_for(VARIABLES, {}, batch, draws, train=False, key=KEY)
  assert float(loss) == pytest.approx(np.average(error[0], weights=weight), rel=1e-6)
  assert float(outputs.weight) == 3 * points - 1


@pytest.mark.parametrize("kind", library.KINDS)
def test_epsilon_units_are_errors_of_the_noise_that_is_meant(kind):
  method, batch = build(prediction=kind), make_batch()
  draws = method.draw(KEY, batch, SHAPE).replace(step=jnp.asarray([0, 1, 4, 5]))
  target = batch["targets"]
  run = functools.partial(
    method.errors, VARIABLES, {}, batch, target[None], draws, train=False, key=KEY
  )
  at = np.asarray(draws.step)[:, None, None, None, None]
  alpha_bar = np.cumprod(1 - np.linspace(1e-4**0.5, 0.5**0.5, 6) ** 2)[at]
  signal, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
  x, noise = signal * target + sigma * draws.noise, draws.noise
  said = 0.3 * x - 0.2 * batch["inputs"][:, -1:] + 0.001 * at
  own = {"epsilon": noise, "x0": target, "v": signal * noise - sigma * target}[kind]
  meant = {
    "epsilon": said,
    "x0": (x - signal * said) / sigma,
    "v": sigma * x + signal * said,
  }[kind]
  axes = (1, 2, 3, 4)
  np.testing.assert_allclose(
    run(units="epsilon")[0][0], np.mean((meant - noise) ** 2, axes), rtol=1e-3
  )
  np.testing.assert_allclose(run()[0][0], np.mean((said - own) ** 2, axes), rtol=1e-5)
  with pytest.raises(ValueError, match="units='meters'"):
    run(units="meters")


def test_the_draws_are_all_that_is_random():
  method, batch = build(condition_dropout=0.5), make_batch()
  draws = method.draw(KEY, batch, SHAPE)
  losses = [
    method.loss_for(VARIABLES, {}, batch, draws, train=True, key=jax.random.key(n))[0]
    for n in range(2)
  ]
  assert losses[0] == losses[1]


def test_the_histories_of_the_given_share_are_dropped_in_training_only():
  method = build(Seen(), prediction="x0", condition_dropout=0.2)
  count = 1000
  batch = {
    "inputs": jnp.ones((count, 3, *GRID)),
    "targets": jnp.ones((count, *SHAPE)),
    "index": jnp.arange(count),
  }
  draws = method.draw(KEY, batch, SHAPE)
  error, *_ = method.errors(
    {}, {}, batch, batch["targets"][None], draws, train=True, key=KEY
  )
  # The error is 4 where the history is seen and 0 where it is not.
  dropped = np.asarray(error[0]) == 0
  assert 150 < dropped.sum() < 250
  np.testing.assert_array_equal(dropped, ~np.asarray(draws.keep))
  loss, _ = method.loss({}, {}, batch, KEY, train=True)
  assert 3.0 < loss < 3.4
  assert method.loss({}, {}, batch, KEY, train=False)[0] == 4.0
  never = build(Seen(), prediction="x0").draw(KEY, batch, SHAPE)
  assert never.keep.all()


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)])
def test_guidance_starts_from_the_forecast_without_history(scale, expected):
  sampling = {"name": "ddim", "guidance": scale}
  method = build(Seen(), prediction="x0", condition_dropout=0.1, sampling=sampling)
  # What the network says is the clean field itself: u + scale (c - u).
  drawn = method.forecast({}, {}, make_batch(), KEY, 2)
  np.testing.assert_allclose(drawn, expected, rtol=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 1), (2.0, 2)])
def test_a_forecast_encodes_once_for_all_members_and_steps(scale, expected):
  calls = []
  method = build(
    Counted(lambda: calls.append(1)),
    condition_dropout=0.1,
    sampling={"guidance": scale, "member_chunk": 2},
  )
  forecast = jax.jit(functools.partial(method.forecast, members=6))
  jax.block_until_ready(forecast(VARIABLES, {}, make_batch(), KEY))
  jax.effects_barrier()
  assert len(calls) == expected


def test_a_loss_encodes_once_for_all_fields():
  calls, batch = [], make_batch()
  method = build(Counted(lambda: calls.append(1)))
  draws = method.draw(KEY, batch, SHAPE)
  fields = jnp.ones((5, 4, *SHAPE))
  run = jax.jit(functools.partial(method.errors, train=False, key=KEY))
  jax.block_until_ready(run(VARIABLES, {}, batch, fields, draws))
  jax.effects_barrier()
  assert len(calls) == 1


def test_guidance_is_linear_in_its_scale():
  drawn = [
    np.asarray(
      build(
        sampling={"name": "ddim", "guidance": scale}, condition_dropout=0.1
      ).forecast(VARIABLES, {}, make_batch(), jax.random.key(6), 1)
    )
    for scale in (0.0, 1.0, 2.0)
  ]
  # The denoiser is linear, and so is what guidance does to its samples.
  np.testing.assert_allclose(
    drawn[2] - drawn[1], drawn[1] - drawn[0], rtol=1e-3, atol=1e-4
  )
  assert np.abs(drawn[1] - drawn[0]).max() > 1e-2


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpm++"])
def test_temperature_scales_what_members_differ_by(sampler):
  def forecast(temperature):
    sampling = {"name": sampler, "steps": 4, "temperature": temperature}
    method = build(sampling=sampling)
    return np.asarray(
      method.forecast(VARIABLES, {}, make_batch(2), jax.random.key(2), 3)
    )

  # The denoiser is linear: what is common to all temperatures drops out.
  whole, half, quarter = forecast(1.0), forecast(0.5), forecast(0.25)
  assert np.abs(whole - half).max() > 0.1
  np.testing.assert_allclose(whole - half, 2 * (half - quarter), rtol=1e-3, atol=1e-4)


def test_a_pull_brings_members_to_the_targets_that_are_observed():
  batch = masked_batch()

  def distances(strength):
    method = build(sampling={"name": "ddim", "guidance_strength": strength})
    forecast = jax.jit(functools.partial(method.forecast, members=1))
    drawn = forecast(VARIABLES, {}, batch, KEY)[0]
    return jnp.abs(drawn - batch["targets"])

  free, pulled = distances(0.0), distances(0.3)
  assert (pulled[:3].mean((1, 2, 3, 4)) < free[:3].mean((1, 2, 3, 4))).all()
  # Neither a missing point nor a filled row is pulled.
  same = np.asarray(pulled == free)
  assert same[3].all() and same[1, 1, 2, 0] and same[:3].sum() == 1


@pytest.mark.slow
def test_examples_pull_each_other_only_by_the_norm_of_the_batch():
  def forecast(norm, rows):
    sampling = {"name": "ddim", "guidance_strength": 0.3, "guidance_norm": norm}
    return build(sampling=sampling).forecast(VARIABLES, {}, make_batch(rows), KEY, 1)

  np.testing.assert_allclose(
    forecast("example", 4)[:, :2], forecast("example", 2), rtol=1e-5, atol=1e-6
  )
  apart = forecast("batch", 4)[:, :2] - forecast("batch", 2)
  assert np.abs(apart).max() > 1e-3


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"sampling": {"guidance_strength": -1.0}}, "guidance_strength=-1"),
    ({"sampling": {"guidance_norm": "sample"}}, "guidance_norm='sample'"),
    ({"sampling": {"clip_x0": (1.0, 0.0)}}, "clip_x0"),
    ({"sampling": {"spacing": "trailing"}}, "forecast.sampler.spacing"),
    ({"sampling": {"guidance_strength": 1.0}, "prediction": "x0"}, "'epsilon'"),
  ],
)
def test_wrong_ways_of_sampling_are_refused_in_words(options, words):
  with pytest.raises(errors.ConfigError, match=words):
    build(**options)


def test_a_pull_without_targets_is_refused():
  method = build(sampling={"name": "ddim", "guidance_strength": 0.1})
  batch = {"inputs": make_batch()["inputs"], "index": jnp.arange(4)}
  with pytest.raises(errors.ConfigError, match="does not have"):
    method.forecast(VARIABLES, {}, batch, KEY, 1)


def test_a_bound_of_x0_is_one_of_the_samples():
  sampling = {"name": "ddim", "steps": 2, "clip_x0": (-0.1, 0.2)}
  drawn = build(sampling=sampling).forecast(VARIABLES, {}, make_batch(), KEY, 1)
  # Some of the last x0 lie beyond both bounds.
  assert drawn.min() == np.float32(-0.1) and drawn.max() == np.float32(0.2)


def test_a_temperature_of_zero_is_refused():
  with pytest.raises(errors.ConfigError, match="temperature=0"):
    build(sampling={"temperature": 0.0})


def test_what_makes_members_says_how_many_at_a_time():
  assert build(sampling={"member_chunk": 3}).member_chunk == 3
  assert build().member_chunk == 0
  alone = methods.build("regression", nn.Dense(1), horizon=HORIZON)
  assert alone.member_chunk == 0
  gaussian = methods.build(
    "residual_gaussian",
    None,
    {"mean": alone},
    sampling={"member_chunk": 2},
    horizon=HORIZON,
  )
  assert gaussian.member_chunk == 2


def test_options_of_a_mean_are_not_known():
  with pytest.raises(errors.ConfigError, match="scale_threshold"):
    build(scale_threshold=0.1)
