import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoising import GRID, HORIZON, VARIABLES, Linear, make_batch
from flax import linen as nn

from stjax import diffusion, errors, methods
from stjax.methods import base, regression, residual_diffusion
from stjax.methods.diffusion import Draws
from stjax.models.denoisers.common import Denoiser


class Last(nn.Module):
  """The last frame, scaled, again and again."""

  @nn.compact
  def __call__(self, x, train=False):
    scale = self.param("scale", nn.initializers.ones, ())
    x = nn.Dropout(0.5)(x, deterministic=not train)
    return jnp.repeat(scale * x[:, -1:], HORIZON, axis=1)


def mean_by(network, horizon=HORIZON):
  """A mean that this network forecasts, as it is frozen."""
  return {"mean": regression.Regression(network, horizon)}


def build(**options):
  sampling = options.pop("sampling", {})
  return methods.build(
    "residual_diffusion",
    Linear(),
    frozen=mean_by(Last()),
    sampling=sampling,
    horizon=HORIZON,
    **({"num_steps": 6} | options),
  )


def make_frozen(scale=0.7):
  return {
    "mean": {"variables": {"params": {"scale": jnp.asarray(0.9)}}, "frozen": {}},
    "scale": jnp.full((HORIZON, *GRID), scale),
  }


def test_the_loss_is_the_shifted_forward_process_by_hand():
  method, batch, frozen = build(), make_batch(), make_frozen()
  shape = batch["targets"].shape
  keys = jax.random.split(jax.random.key(5), 2)
  noise = jax.random.normal(keys[0], shape)
  sign = jax.random.rademacher(keys[1], shape, jnp.float32)
  step = jnp.asarray([0, 1, 4, 5])
  draws = Draws(step, noise, sign, keep=jnp.ones(4, bool))
  loss, outputs = method.loss_for(
    VARIABLES, frozen, batch, draws, train=False, key=jax.random.key(0)
  )
  beta = np.linspace(1e-4**0.5, 0.5**0.5, 6) ** 2
  alpha_bar = np.cumprod(1 - beta)[np.asarray(step)][:, None, None, None, None]
  residual = np.asarray(batch["targets"]) - 0.9 * np.asarray(batch["inputs"][:, -1:])
  z = 0.7 * np.asarray(sign)
  noisy = (
    np.sqrt(alpha_bar) * residual
    + (1 - np.sqrt(alpha_bar)) * z
    + np.sqrt(1 - alpha_bar) * np.asarray(noise)
  )
  predicted = (
    0.3 * noisy
    - 0.2 * np.asarray(batch["inputs"][:, -1:])
    + 0.5 * z
    + 0.001 * np.asarray(step, np.float32)[:, None, None, None, None]
  )
  expected = np.mean((predicted - np.asarray(noise)) ** 2)
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert float(outputs.weight) == batch["targets"].size


def test_points_that_are_missing_or_padding_do_not_count():
  method, batch, frozen = build(), make_batch(), make_frozen()
  mask = np.ones((4, 3 + HORIZON, *GRID), bool)
  mask[1, 4, 2, 0] = False
  batch |= {"mask": jnp.asarray(mask), "valid": jnp.asarray([True, True, True, False])}
  key = jax.random.key(1)
  loss, outputs = method.loss(VARIABLES, frozen, batch, key, train=True)
  spoiled = batch | {
    "targets": batch["targets"].at[1, 1, 2, 0].set(1e3).at[3].set(-1e3)
  }
  other, _ = method.loss(VARIABLES, frozen, spoiled, key, train=True)
  assert float(loss) == pytest.approx(float(other), rel=1e-6)
  assert float(outputs.weight) == 3 * HORIZON * 6 - 1


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpm++"])
def test_a_member_is_the_same_for_any_ensemble_chunk_and_batch(sampler):
  frozen, key = make_frozen(), jax.random.key(2)
  options = {"name": sampler, "steps": 4}
  many = build(sampling=options | {"member_chunk": 2})
  whole = many.forecast(VARIABLES, frozen, make_batch(6), key, members=5)
  assert whole.shape == (5, 6, HORIZON, *GRID)
  few = build(sampling=options).forecast(
    VARIABLES, frozen, make_batch(2, first=3), key, members=3
  )
  np.testing.assert_allclose(few, whole[:3, 3:5], rtol=1e-5, atol=1e-6)
  assert np.ptp(np.asarray(whole), axis=0).min() > 1e-3
  assert not np.allclose(
    whole[:, 0] - whole[:, 0].mean(0), whole[:, 1] - whole[:, 1].mean(0)
  )


def test_a_perfect_denoiser_draws_from_the_residuals_own_law():
  """For r ~ N(m, s^2) the best noise prediction is known, and linear.

  So is each ancestral step then, and the law of what is drawn follows; it is
  near the residual's, and would be it with infinitely many steps.
  """
  centre, spread, scale, steps = 1.5, 0.4, 0.7, 50
  schedule = diffusion.build_schedule("quadratic", steps, 1e-4, 0.5)

  class Best(Denoiser):
    def encode(self, history):
      return ()

    def denoise(self, noisy, step, context, shift, train=False):
      at = step[:, None, None, None, None]
      signal, sigma = schedule.signal(at), schedule.sigma(at)
      x, law = noisy - shift, centre - shift
      return sigma * (x - signal * law) / (signal**2 * spread**2 + sigma**2)

  method = residual_diffusion.ResidualDiffusion(
    network=Best(), horizon=HORIZON, mean=mean_by(Last())["mean"], num_steps=steps
  )
  batch, frozen = make_batch(8), make_frozen(scale)
  drawn = method.forecast({"params": {}}, frozen, batch, jax.random.key(3), 400)
  residual = np.asarray(drawn) - 0.9 * np.asarray(batch["inputs"][:, -1:])

  law, variance = 0.0, 1.0  # From the scale prior, the mean in units of m.
  alpha_bar = np.append(1.0, schedule.alpha_bar)
  for before, now in zip(alpha_bar[-2::-1], alpha_bar[:0:-1], strict=True):
    alpha = now / before
    of_x0 = np.sqrt(before) * (1 - alpha) / (1 - now)
    of_x = np.sqrt(alpha) * (1 - before) / (1 - now)
    gain = np.sqrt(now) * spread**2 / (now * spread**2 + 1 - now)
    law = of_x * law + of_x0 * (1 + gain * (law - np.sqrt(now)))
    noise = (1 - alpha) * (1 - before) / (1 - now)
    variance = (of_x + of_x0 * gain) ** 2 * variance + noise
  assert law == pytest.approx(1.0, abs=1e-3)
  assert residual.mean() == pytest.approx(centre, abs=0.02)
  assert residual.std() == pytest.approx(np.sqrt(variance), rel=0.01)
  assert np.sqrt(variance) == pytest.approx(spread, rel=0.1)


def test_mean_only_is_the_mean_and_trains_nothing():
  method, batch, frozen = build(mean_only=True), make_batch(), make_frozen()
  assert not method.trainable
  assert method.init(jax.random.key(0), batch) == {"params": {}}
  forecast = method.forecast({"params": {}}, frozen, batch, jax.random.key(0), 3)
  expected = 0.9 * np.repeat(batch["inputs"][:, -1:], HORIZON, axis=1)
  for member in forecast:
    np.testing.assert_allclose(member, expected, rtol=1e-6)
  loss, _ = method.loss({"params": {}}, frozen, batch, jax.random.key(0), train=False)
  error = np.asarray(batch["targets"]) - expected
  np.testing.assert_allclose(loss, np.mean(np.square(error)), rtol=1e-5)


def test_the_means_dropout_is_off_unless_asked_for():
  batch, frozen = make_batch(), make_frozen()
  keys = [jax.random.key(seed) for seed in (0, 1)]
  quiet = [build().mean_forecast(frozen, batch, k) for k in keys]
  noisy = [build(mean_dropout=True).mean_forecast(frozen, batch, k) for k in keys]
  np.testing.assert_array_equal(*quiet)
  assert not np.array_equal(*noisy)


def test_dropout_of_the_mean_is_the_examples_own():
  method, frozen = build(mean_dropout=True), make_frozen()
  key = jax.random.key(0)
  whole = method.mean_forecast(frozen, make_batch(6), key)
  part = method.mean_forecast(frozen, make_batch(2, first=3), key)
  np.testing.assert_array_equal(part, whole[3:5])


def test_a_mean_with_dropout_sees_forcings_and_static_fields_too():

  class Sum(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return jnp.repeat(x[:, -1:].sum(-1, keepdims=True), HORIZON, axis=1)

  height, width, _ = GRID
  forcings = 10.0 * jnp.arange(4 * 5).reshape(4, 5, 1, 1, 1)
  batch = make_batch() | {
    "forcings": jnp.broadcast_to(forcings, (4, 5, height, width, 1)),
    "static": 1000.0 * jnp.arange(height * width * 2).reshape(height, width, 2),
  }
  expected = batch["inputs"][:, -1] + batch["static"].sum(-1, keepdims=True)
  for dropout in (False, True):
    method = methods.build(
      "residual_gaussian", None, mean_by(Sum()), horizon=HORIZON, mean_dropout=dropout
    )
    part = {"variables": {"params": {}}, "frozen": {}}
    found = method.mean_forecast({"mean": part}, batch, jax.random.key(0))
    # Of the last of the two frames that are forecast.
    np.testing.assert_allclose(found[:, 0], expected + forcings[:, -1], rtol=1e-5)


@pytest.mark.slow
def test_the_score_of_a_split_is_the_same_for_any_batch_size():
  method, frozen, key = build(), make_frozen(), jax.random.key(0)

  def losses(rows):
    return [
      float(
        method.loss(VARIABLES, frozen, make_batch(rows, first), key, train=False)[0]
      )
      for first in range(0, 6, rows)
    ]

  assert len(set(losses(1))) == 6
  assert np.mean(losses(1)) == pytest.approx(np.mean(losses(3)), rel=1e-5)


def test_a_mean_of_other_fields_is_refused():
  batch = make_batch()
  wide = batch | {"inputs": jnp.tile(batch["inputs"], (1, 1, 1, 1, 2))}

  class First(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return jnp.repeat(x[:, -1:, ..., :1], HORIZON, axis=1)

  method = methods.build(
    "residual_gaussian", None, frozen=mean_by(First()), horizon=HORIZON
  )
  with pytest.raises(ValueError, match="out_channels"):
    part = {"variables": {"params": {}}, "frozen": {}}
    method.mean_forecast({"mean": part}, wide, jax.random.key(0))


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"scale": "signals"}, "did you mean 'signal'"),
    ({"prediction": "noise"}, "method.prediction"),
    ({"condition_dropout": 1.0}, "condition_dropout"),
    ({"sampling": {"steps": 7}}, "forecast.sampler.steps=7"),
    ({"sampling": {"name": "ddmp"}}, "did you mean 'ddpm'"),
    ({"num_step": 3}, "num_step"),
    ({"schedule": "quadrtic"}, "did you mean 'quadratic'"),
    ({"sampling": {"guidance": 2.0}}, "condition_dropout"),
    ({"sampling": {"guidance": float("nan")}}, "guidance=nan"),
    ({"sampling": {"temperature": float("nan")}}, "temperature=nan"),
  ],
)
def test_wrong_options_are_refused_in_words(options, words):
  with pytest.raises(errors.ConfigError, match=words):
    build(**options)


def test_networks_of_the_wrong_kind_are_refused():
  with pytest.raises(errors.ConfigError, match="is needed here"):
    methods.build("residual_diffusion", Last(), frozen=mean_by(Last(), 2), horizon=2)
  with pytest.raises(errors.ConfigError, match="is needed here"):
    methods.build("regression", Linear(), horizon=2)


def test_a_denoiser_needs_a_row_for_every_step():
  class Table(Linear):
    num_steps: int = 5

  with pytest.raises(errors.ConfigError, match="num_steps=6 is more"):
    methods.build(
      "residual_diffusion", Table(), mean_by(Last(), 2), horizon=2, num_steps=6
    )


def test_a_method_without_its_networks_is_refused():
  with pytest.raises(errors.ConfigError, match="frozen.mean"):
    methods.build("residual_diffusion", Linear(), horizon=2)
  with pytest.raises(errors.ConfigError, match="denoiser"):
    methods.build("residual_diffusion", None, mean_by(Last(), 2), horizon=2)
  with pytest.raises(errors.ConfigError, match="frozen.reference"):
    methods.build("regression", Last(), {"reference": None}, horizon=2)


def material(series=None, batches=None):
  return base.Material(
    series=lambda: series,
    batches=lambda split: batches[split],
    fetch=np.asarray,
    areas=None,
    climatology=None,
  )


def test_the_signals_scale_is_repeated_for_every_lead_time():
  rng = np.random.default_rng(0)
  series = [rng.standard_normal((40, *GRID)).astype(np.float32)]
  scale = build().prepare(make_frozen(), material(series))["scale"]
  assert scale.shape == (HORIZON, *GRID)
  np.testing.assert_array_equal(scale[0], scale[1])


def test_the_residuals_scale_is_its_spread_over_the_split():
  batches = {
    "train": [make_batch(4), make_batch(4, first=4)],
    "validation": [make_batch(3)],
  }
  for split, scale in (("train", "residual"), ("validation", "validation_residual")):
    found = build(scale=scale).prepare(make_frozen(), material(batches=batches))[
      "scale"
    ]
    residuals = np.concatenate(
      [
        np.asarray(b["targets"]) - 0.9 * np.asarray(b["inputs"][:, -1:])
        for b in batches[split]
      ]
    )
    np.testing.assert_allclose(found, residuals.std(0), rtol=1e-4)


def test_the_gaussian_floor_has_the_measured_spread():
  method = methods.build("residual_gaussian", None, mean_by(Last()), horizon=HORIZON)
  spread = jnp.linspace(0.0, 2.0, 12).reshape(HORIZON, *GRID)
  frozen = make_frozen() | {"spread": spread}
  batch = make_batch(2)
  drawn = method.forecast({}, frozen, batch, jax.random.key(0), 2000)
  mean = 0.9 * np.repeat(batch["inputs"][:, -1:], HORIZON, axis=1)
  np.testing.assert_allclose(drawn.mean(0), mean, atol=0.2)
  np.testing.assert_allclose(
    drawn.std(0), np.broadcast_to(spread, mean.shape), rtol=0.1, atol=1e-6
  )
