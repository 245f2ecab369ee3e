import fractions

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import errors, methods
from stjax.methods import base, regression, rollout


class AddOne(nn.Module):
  """Repeats the history plus a learned bias that starts at one."""

  frames: int = 2

  @nn.compact
  def __call__(self, x, train):
    bias = self.param("bias", nn.initializers.ones, ())
    calls = self.variable("batch_stats", "calls", lambda: jnp.zeros(()))
    if train:
      calls.value += 1
    return x[:, -self.frames :] + bias


def make(horizon, frames=2, **options):
  return methods.build("regression", AddOne(frames), horizon=horizon, **options)


def batch_of(history=2, horizon=2, rows=1):
  key = jax.random.key(0)
  return {
    "inputs": jax.random.normal(key, (rows, history, 3, 2, 1)),
    "targets": jnp.zeros((rows, horizon, 3, 2, 1)),
  }


@pytest.mark.parametrize("horizon", [1, 2, 4, 5])
def test_any_horizon_is_reached_by_feeding_back_blocks(horizon):
  method, batch = make(horizon), batch_of()
  variables = method.init(jax.random.key(1), batch)
  forecast = method.forecast(variables, {}, batch, jax.random.key(2), 3)
  assert forecast.shape == (3, 1, horizon, 3, 2, 1)
  inputs = np.asarray(batch["inputs"])
  for lead in range(horizon):
    expected = inputs[:, lead % 2] + 1 + lead // 2
    np.testing.assert_allclose(forecast[0, :, lead], expected, rtol=1e-6)


def test_a_history_longer_than_the_block_slides():
  history = jnp.arange(3.0).reshape(1, 3, 1, 1, 1)
  step = lambda x, carry, _: (x.sum(1, keepdims=True), carry)
  forecast, _ = rollout.feed_back(step, history, (), 3)
  # 0+1+2 = 3, 1+2+3 = 6, 2+3+6 = 11
  np.testing.assert_allclose(forecast.ravel(), [3.0, 6.0, 11.0])


def test_a_rollout_longer_than_trained_continues_the_forecast():
  method, batch = make(3), batch_of()
  variables = method.init(jax.random.key(1), batch)
  roll = lambda horizon: rollout.rollout(
    method, variables, {}, batch, jax.random.key(2), 2, horizon
  )
  long = roll(8)
  assert long.shape == (2, 1, 8, 3, 2, 1)
  np.testing.assert_array_equal(long[:, :, :3], roll(3))
  # The second block starts from the first one's newest two frames.
  np.testing.assert_allclose(long[:, :, 3], long[:, :, 1] + 1, rtol=1e-6)


def test_frames_that_cannot_be_fed_back_are_refused():
  history = jnp.zeros((1, 2, 3, 2, 2))
  step = lambda x, carry, _: (x[..., :1], carry)
  with pytest.raises(ValueError, match="data.horizon"):
    rollout.feed_back(step, history, (), 5)


def test_missing_points_and_padding_rows_weigh_nothing():
  method, batch = make(2), batch_of(rows=3)
  variables = method.init(jax.random.key(1), batch)
  mask = jax.random.bernoulli(jax.random.key(3), 0.7, (3, 4, 3, 2, 1))
  valid = jnp.array([True, True, False])
  weight = np.asarray(mask[:, 2:], np.float64)
  weight[2] = 0
  error = np.asarray(batch["inputs"]) + 1
  expected = (weight * error**2).sum() / weight.sum()
  spoilt = batch | {
    "mask": mask,
    "valid": valid,
    "targets": batch["targets"].at[2].set(1e6),
  }
  loss, outputs = method.loss(variables, {}, spoilt, jax.random.key(0), train=False)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(outputs.weight, weight.sum())


def test_training_updates_collections_once_a_block():
  method, batch = make(4), batch_of(horizon=4)
  variables = method.init(jax.random.key(1), batch)
  for train, calls in ((True, 2), (False, 0)):
    _, outputs = method.loss(variables, {}, batch, jax.random.key(0), train=train)
    assert outputs.collections["batch_stats"]["calls"] == calls


@pytest.mark.parametrize(
  ("name", "value"), [("mse", 4.0), ("mae", 2.0), ("mse_mae", 6.0)]
)
def test_losses_of_a_constant_error(name, value):
  method = make(2, loss_name=name)
  batch = batch_of() | {"inputs": jnp.ones((1, 2, 3, 2, 1))}
  variables = method.init(jax.random.key(1), batch)
  loss, _ = method.loss(variables, {}, batch, jax.random.key(0), train=False)
  np.testing.assert_allclose(loss, value)


def test_the_divergence_of_a_perfect_forecast_is_nothing():
  x = jax.random.normal(jax.random.key(0), (2, 4, 3, 5, 1))
  y = jax.random.normal(jax.random.key(1), (2, 4, 3, 5, 1))
  assert abs(float(regression.divergence_regulariser(x, x))) < 1e-6
  assert float(regression.divergence_regulariser(x, y)) > 1e-3
  assert regression.divergence_regulariser(x[:, :2], y[:, :2]) == 0


def test_unknown_methods_and_options_are_refused():
  with pytest.raises(errors.ConfigError, match="did you mean 'regression'"):
    methods.build("regresion", AddOne(), horizon=2)
  with pytest.raises(errors.ConfigError, match="method.loss_nam"):
    make(2, loss_nam="mse")
  with pytest.raises(errors.ConfigError, match="loss_name"):
    make(2, loss_name="msee")


def test_the_relative_loss_is_the_mean_over_observed_fields():
  method, batch = make(2, loss_name="relative_l2"), batch_of(rows=3)
  variables = method.init(jax.random.key(1), batch)
  batch |= {"targets": jax.random.normal(jax.random.key(2), (3, 2, 3, 2, 1))}
  mask = np.ones((3, 4, 3, 2, 1), bool)
  mask[0, 3] = False  # A frame that nobody saw,
  mask[1, 2, 0] = False  # a row of one,
  batch |= {"mask": mask, "valid": jnp.asarray([True, True, False])}  # padding.
  loss, outputs = method.loss(variables, {}, batch, jax.random.key(0), train=False)
  targets = np.asarray(batch["targets"])
  error = np.asarray(batch["inputs"]) + 1 - targets

  def ratio(row, frame, first=0):
    size = np.linalg.norm(targets[row, frame, first:])
    return np.linalg.norm(error[row, frame, first:]) / size

  expected = np.mean([ratio(0, 0), ratio(1, 0, first=1), ratio(1, 1)])
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert float(outputs.weight) == 3


def test_gradients_of_all_variables_are_made_equal():
  batch = {
    "inputs": jnp.ones((1, 2, 3, 2, 2)),
    "targets": jnp.zeros((1, 2, 3, 2, 2)).at[..., 1].set(100.0),
  }

  def gradient(**options):
    method = make(2, **options)

    def loss(offset):
      shifted = batch | {"inputs": batch["inputs"] + offset}
      variables = {"params": {"bias": jnp.ones(())}, "batch_stats": {"calls": 0.0}}
      return method.loss(variables, {}, shifted, jax.random.key(0), train=False)[0]

    return np.abs(jax.grad(loss)(jnp.zeros(2)))

  uneven, even = gradient(), gradient(equal_gradients=True)
  assert uneven[1] > 40 * uneven[0]
  assert even[1] == pytest.approx(even[0], rel=1e-5)


class Product(nn.Module):
  """The newest frame times a learned factor; counts what it is shown."""

  channels: int = 1

  @nn.compact
  def __call__(self, x, train):
    del train
    factor = self.param("factor", nn.initializers.constant(2.0), ())
    shown = x[:, -1:, ..., self.channels :].sum(-1, keepdims=True)
    return factor * x[:, -1:, ..., : self.channels] + shown


def gradient_of(method, batch, factor=2.0, frozen=None):
  loss = lambda factor: method.loss(
    {"params": {"factor": factor}}, frozen or {}, batch, jax.random.key(0), train=True
  )[0]
  return jax.value_and_grad(loss)(jnp.float32(factor))


def ones(horizon, value=0.0, channels=1):
  return {
    "inputs": jnp.ones((1, 1, 2, 3, channels)),
    "targets": jnp.full((1, horizon, 2, 3, channels), value),
    "index": jnp.zeros(1, jnp.int32),
  }


def product(horizon, **options):
  return methods.build("regression", Product(), horizon=horizon, **options)


def test_a_rollout_is_trained_through_all_of_its_steps():
  # Forecasts a, a^2, a^3 of 1; targets 0: the mean of their squares.
  value, gradient = gradient_of(product(3), ones(3))
  assert float(value) == pytest.approx((4 + 16 + 64) / 3)
  assert float(gradient) == pytest.approx((2 * 2 + 4 * 8 + 6 * 32) / 3)


def test_recomputing_activations_changes_no_gradient():
  plain = gradient_of(product(3), ones(3))
  again = gradient_of(product(3, remat=True), ones(3))
  np.testing.assert_allclose(plain, again, rtol=1e-6)


@pytest.mark.parametrize(
  # Blocks without gradient leave the later ones a^n with fixed histories.
  ("blocks", "value", "gradient"),
  [
    (1, (16 + 64) / 2, (2 * 4 * 2 + 2 * 8 * 2 * 2 * 2) / 2),
    (2, 64.0, 2 * 8 * 4),
    (9, 64.0, 2 * 8 * 4),
  ],
)
def test_pushed_forward_blocks_have_no_loss_and_no_gradient(blocks, value, gradient):
  found = gradient_of(product(3, push_forward=blocks), ones(3))
  np.testing.assert_allclose(found, (value, gradient), rtol=1e-6)
  # Scores are those of the whole forecast.
  loss, _ = product(3, push_forward=blocks).loss(
    {"params": {"factor": 2.0}}, {}, ones(3), jax.random.key(0), train=False
  )
  assert float(loss) == pytest.approx((4 + 16 + 64) / 3)


def test_one_block_can_be_trained_with_push_forward():
  value, gradient = gradient_of(product(1, push_forward=1), ones(1))
  np.testing.assert_allclose((value, gradient), (4.0, 4.0))


def test_lead_times_and_variables_are_weighed():
  batch = ones(2, channels=2)
  batch["inputs"] = batch["inputs"] * jnp.asarray([1.0, 3.0])
  method = methods.build(
    "regression",
    Product(channels=2),
    horizon=2,
    lead_weights=(1.0, 3.0),
    variable_weights=(1.0, 0.5),
  )
  value, _ = gradient_of(method, batch)
  squares = np.array([[2.0, 6.0], [4.0, 12.0]]) ** 2
  weights = np.array([[1.0, 0.5], [3.0, 1.5]])
  expected = (weights * squares).sum() / weights.sum()
  assert float(value) == pytest.approx(expected)
  relative = methods.build(
    "regression",
    Product(channels=2),
    horizon=2,
    loss_name="relative_l2",
    variable_weights=(0.0, 1.0),
  )
  batch["targets"] = batch["targets"].at[:, 0].set(3.0).at[:, 1].set(6.0)
  assert float(gradient_of(relative, batch)[0]) == pytest.approx(1.0)


@pytest.mark.parametrize(("loss_name", "value"), [("mse", 2.5), ("mae", 1.5)])
def test_errors_count_in_the_usual_changes_of_their_variable(loss_name, value):
  options = {"predict_tendency": True, "loss_name": loss_name}
  methods_ = [
    methods.build(
      "regression", Product(channels=2), horizon=1, scaled_loss=scaled, **options
    )
    for scaled in (False, True)
  ]
  # The factor 0 forecasts what persistence does, which is wrong by 2 and by 30.
  batch = ones(1, channels=2)
  batch["targets"] = batch["inputs"][:, -1:] + jnp.asarray([2.0, 30.0])
  frozen = {"scales": jnp.asarray([[1.0, 1.0], [1.0, 30.0]])}
  plain, scaled = (gradient_of(m, batch, 0.0, frozen)[0] for m in methods_)
  assert float(plain) == pytest.approx({"mse": 452.0, "mae": 16.0}[loss_name])
  assert float(scaled) == pytest.approx(value)


def test_rows_count_as_their_areas():
  method = product(1, area_weights="latitude")
  assert method.prepared_shapes({"targets": (1, 2, 3, 1)}) == {"areas": (2, 3)}
  material = base.Material(
    None, None, None, lambda key, kind: np.full((2, 3), 7.0), None
  )
  np.testing.assert_array_equal(method.prepare({}, material)["areas"], 7.0)
  batch = ones(1)
  batch["targets"] = batch["targets"].at[:, :, 1].set(2.0)
  areas = {"areas": jnp.asarray([[1.5] * 3, [0.5] * 3])}
  value, _ = gradient_of(method, batch, frozen=areas)
  assert float(value) == pytest.approx(1.5 * 4 / 2)


def test_land_is_held_at_zero_and_shown_to_the_network():
  batch = ones(3)
  batch["inputs"] = batch["inputs"].at[:, :, 0, 0].set(0.0)
  mask = jnp.ones((1, 4, 2, 3, 1), bool).at[:, :, 0, 0].set(False)
  batch["mask"] = mask.at[:, 2, 1, 1].set(False)  # Only once, later.
  variables = {"params": {"factor": jnp.float32(2.0)}}
  forecast = product(3, zero_missing=True, mask_as_input=True).forecast(
    variables, {}, batch, jax.random.key(0)
  )
  # Where the mask is 1: 2 x + 1, fed back; on land nothing.
  np.testing.assert_array_equal(forecast[0, 0, :, 1, 1, 0], [3.0, 7.0, 15.0])
  np.testing.assert_array_equal(forecast[0, 0, :, 0, 0, 0], 0.0)
  with pytest.raises(errors.ConfigError, match="data.missing"):
    product(1, mask_as_input=True).init(jax.random.key(0), ones(1))


def test_land_stays_land_beyond_the_trained_horizon():
  batch = ones(1)
  mask = jnp.ones((1, 2, 2, 3, 1), bool).at[:, :, 0, 0].set(False)
  batch |= {"mask": mask, "inputs": batch["inputs"] * mask[:, :1]}
  variables = {"params": {"factor": jnp.float32(2.0)}}
  method = product(1, zero_missing=True, mask_as_input=True)
  forecast = rollout.rollout(method, variables, {}, batch, jax.random.key(0), 2, 3)
  np.testing.assert_array_equal(forecast[1, 0, :, 1, 1, 0], [3.0, 7.0, 15.0])
  np.testing.assert_array_equal(forecast[1, 0, :, 0, 0, 0], 0.0)


def test_noise_is_added_to_what_is_observed_in_training_only():
  batch = ones(1, value=2.0)
  mask = jnp.ones((1, 2, 2, 3, 1), bool).at[:, 0, 0, 0].set(False)
  batch["mask"] = mask
  noisy = product(1, input_noise=0.1)
  value, _ = gradient_of(noisy, batch)
  assert 0 < float(value) < 1
  variables = {"params": {"factor": 2.0}}
  forecast, _ = noisy.apply(variables, batch, True, jax.random.key(0))
  assert np.sum(np.asarray(forecast) == 2.0) == 1
  assert noisy.loss(variables, {}, batch, jax.random.key(0), False)[0] == 0


def test_a_curriculum_lengthens_the_rollout_epoch_by_epoch():
  method = product(4, curriculum=((0, 1), (1.5, 2), (3, 4)))
  phases = method.phases(fractions.Fraction(7, 2))
  assert [first for first, _ in phases] == [0, 6, 11]
  assert [part.horizon for _, part in phases] == [1, 2, 4]
  batch = ones(4)
  values = [gradient_of(part, batch)[0] for _, part in phases]
  np.testing.assert_allclose(values, [4.0, 10.0, (4 + 16 + 64 + 256) / 4])
  assert product(4).phases(fractions.Fraction(1))[0][1].horizon == 4


@pytest.mark.parametrize(
  "options",
  [
    {"curriculum": ((1, 1),)},
    {"curriculum": ((0, 1), (0, 2))},
    {"curriculum": ((0, 3),)},
    {"curriculum": (0, 1)},
    {"push_forward": -1},
    {"input_noise": -0.1},
    {"lead_weights": (1.0,)},
    {"lead_weights": (0.0, 0.0)},
    {"variable_weights": (float("nan"),)},
    {"area_weights": "lattitude"},
    {"pad_to_multiple": 0},
    {"scaled_loss": True},
    {"scaled_loss": True, "predict_tendency": True, "loss_name": "relative_l2"},
  ],
)
def test_impossible_training_options_are_refused(options):
  with pytest.raises(errors.ConfigError, match=next(iter(options))):
    product(2, **options)


def test_variable_weights_are_one_a_variable():
  method = product(1, variable_weights=(1.0, 2.0))
  with pytest.raises(errors.ConfigError, match="variable_weights"):
    gradient_of(method, ones(1))


class Where(nn.Module):
  """Counts rows and columns from one, whatever it is shown."""

  @nn.compact
  def __call__(self, x, train):
    del train
    self.param("unused", nn.initializers.zeros, ())
    _, _, height, width, _ = x.shape
    count = jnp.arange(1.0, height * width + 1).reshape(height, width, 1)
    return jnp.broadcast_to(count, x[:, :1].shape)


def test_a_grid_is_padded_for_the_network_and_cut_again():
  method = methods.build("regression", Where(), horizon=1, pad_to_multiple=4)
  batch = ones(1)  # 2 x 3.
  variables = method.init(jax.random.key(0), batch)
  forecast = method.forecast(variables, {}, batch, jax.random.key(0))
  np.testing.assert_array_equal(forecast[0, 0, 0, ..., 0], [[1, 2, 3], [5, 6, 7]])


def test_changes_of_the_newest_value_that_was_observed_are_forecast():
  method = methods.build("regression", Where(), horizon=2, predict_tendency=True)
  batch = ones(2) | {
    "inputs": jnp.asarray([3.0, 5.0])[:, None, None, None][None]
    * jnp.ones((1, 2, 2, 3, 1))
  }
  variables = method.init(jax.random.key(0), batch)
  frozen = {"scales": jnp.asarray([[1.0], [0.1]])}
  change = np.arange(1.0, 7).reshape(2, 3) / 10
  forecast = method.forecast(variables, frozen, batch, jax.random.key(0))
  np.testing.assert_allclose(forecast[0, 0, 0, ..., 0], 5 + change)
  np.testing.assert_allclose(forecast[0, 0, 1, ..., 0], 5 + 2 * change)
  mask = jnp.ones((1, 4, 2, 3, 1), bool).at[:, 1, 0, 0].set(False)
  gap = batch | {"mask": mask, "inputs": batch["inputs"] * mask[:, :2]}
  forecast = method.forecast(variables, frozen, gap, jax.random.key(0))
  np.testing.assert_allclose(forecast[0, 0, 0, 0, 0, 0], 3 + 0.1)


def test_what_is_shown_and_forecast_has_the_size_that_it_has_in_training():
  method = product(2, predict_anomaly=True, predict_tendency=True)
  shapes = method.prepared_shapes({"targets": (2, 2, 3, 1), "calendar": (2,)})
  assert shapes == {"climatology": (2, 2, 3, 1), "scales": (2, 1)}
  usual = np.stack([np.full((2, 3, 1), 4.0), np.full((2, 3, 1), 7.0)])
  # Anomalies 1, -1, 3, and a last frame that is not observed; changes -2, 4.
  values = np.array([5.0, 6.0, 7.0, 99.0], np.float32).reshape(1, 4, 1, 1, 1)
  fields = np.broadcast_to(values, (1, 4, 2, 3, 1))
  mask = np.ones(fields.shape, bool)
  mask[:, 3] = False
  batch = {
    "inputs": fields[:, :2],
    "targets": fields[:, 2:],
    "mask": mask,
    "calendar": np.array([[[0], [1], [0], [0]]], np.int32),
    "valid": np.ones(1, bool),
  }
  empty = batch | {"valid": np.zeros(1, bool), "inputs": fields[:, :2] * 9}
  material = base.Material(
    None,
    lambda split: iter([batch, empty]),
    np.asarray,
    None,
    lambda: usual.astype(np.float32),
  )
  made = method.prepare({}, material)
  np.testing.assert_allclose(
    made["scales"], [[np.sqrt(11 / 3)], [np.sqrt(10.0)]], rtol=1e-6
  )
  made = jax.tree.map(jnp.asarray, made)
  # A factor k shows k * anomaly / size, which changes the newest anomaly.
  variables = {"params": {"factor": jnp.float32(0.5)}}
  forecast = method.forecast(variables, made, batch, jax.random.key(0))
  anomaly = 6.0 - 7.0
  first = anomaly + 0.5 * anomaly * np.sqrt(10.0) / np.sqrt(11 / 3)
  np.testing.assert_allclose(forecast[0, 0, 0], 4 + first, rtol=1e-5)
  only = product(2, predict_tendency=True)
  np.testing.assert_allclose(only.prepare({}, material)["scales"], [[1], [1]])


def test_what_never_changes_is_not_scaled():
  method = product(1, predict_tendency=True)
  batch = ones(1) | {"valid": np.ones(1, bool)}
  material = base.Material(None, lambda split: iter([batch]), np.asarray, None, None)
  np.testing.assert_array_equal(method.prepare({}, material)["scales"], [[1.0], [1.0]])


def test_anomalies_of_the_calendar_are_shown_and_added_again():
  method = product(3, predict_anomaly=True)
  shapes = method.prepared_shapes({"targets": (3, 2, 3, 1), "calendar": (4, 2)})
  assert shapes == {"climatology": (4, 2, 2, 3, 1), "scales": (2, 1)}
  usual = np.random.RandomState(0).rand(4, 2, 2, 3, 1).astype(np.float32)
  columns = np.array([[0, 0], [1, 1], [2, 0], [3, 1]], np.int32)
  batch = ones(3) | {"calendar": jnp.asarray(columns)[None]}
  one_pass = [batch | {"valid": np.ones(1, bool)}]
  material = base.Material(
    None, lambda split: one_pass, np.asarray, None, lambda: usual
  )
  frozen = jax.tree.map(jnp.asarray, method.prepare({}, material))
  variables = {"params": {"factor": jnp.float32(2.0)}}
  forecast = method.forecast(variables, frozen, batch, jax.random.key(0))
  anomaly = 1 - usual[0, 0]
  for lead, (a, b) in enumerate(columns[1:], start=1):
    np.testing.assert_allclose(
      forecast[0, 0, lead - 1], 2.0**lead * anomaly + usual[a, b], rtol=1e-5
    )
  # Beyond the trained horizon as well, and without the last of them.
  longer = rollout.rollout(
    product(1, predict_anomaly=True), variables, frozen, batch, jax.random.key(0), 1, 3
  )
  np.testing.assert_allclose(longer, forecast, rtol=1e-5)
  assert jax.tree.leaves(method.init(jax.random.key(0), batch))
  with pytest.raises(errors.ConfigError, match="data.calendar"):
    method.init(jax.random.key(0), ones(3))


class CountObserved(nn.Module):
  """How many frames of the history are observed, by the mask it is shown."""

  @nn.compact
  def __call__(self, x, train):
    one = self.param("one", nn.initializers.ones, ())
    return one * x[..., 1:].sum(1, keepdims=True)


@pytest.mark.parametrize("trained", [1, 2, 5])
def test_a_gap_in_the_history_moves_on_with_it(trained):
  method = methods.build(
    "regression", CountObserved(), horizon=trained, mask_as_input=True
  )
  mask = jnp.ones((1, 8, 3, 2, 1), bool).at[:, 2].set(False)
  batch = batch_of(3, 5) | {"mask": mask.at[:, :, 0, 0].set(False)}
  variables = method.init(jax.random.key(1), batch)
  forecast = rollout.rollout(method, variables, {}, batch, jax.random.key(2), 1, 5)[
    0, 0, ..., 0
  ]
  # The newest of three frames is missing, and is forgotten after three steps.
  np.testing.assert_array_equal(forecast[:, 1, 1], [2, 2, 2, 3, 3])
  np.testing.assert_array_equal(forecast[:, 0, 0], [0, 0, 0, 0, 0])


class AddForcing(nn.Module):
  """The newest value plus the first forcing of each frame shown last."""

  frames: int = 1

  @nn.compact
  def __call__(self, x, train):
    one = self.param("one", nn.initializers.ones, ())
    return x[:, -1:, ..., :1] + one * x[:, -self.frames :, ..., 1:2]


def forced_batch(history, horizon, forcings=2):
  batch = batch_of(history, horizon)
  lead = jnp.arange(history + horizon, dtype=jnp.float32) - history + 1
  fields = (1, history + horizon, 3, 2, forcings)
  return batch | {
    "forcings": jnp.broadcast_to(10.0 ** lead[:, None, None, None], fields)
  }


@pytest.mark.parametrize("history", [1, 3])
def test_a_forecast_is_made_with_the_forcing_of_its_own_time(history):
  method = methods.build("regression", AddForcing(), horizon=2)
  batch = forced_batch(history, 4)
  variables = method.init(jax.random.key(1), batch)
  forecast = rollout.rollout(method, variables, {}, batch, jax.random.key(2), 1, 4)[0]
  newest = batch["inputs"][:, -1]
  # Forcings of the lead times 1, 2, 3, 4 are 10, 100, 1000, 10000.
  for lead, total in enumerate([10, 110, 1110, 11110]):
    np.testing.assert_allclose(forecast[:, lead], newest + total, rtol=1e-5)


def test_a_block_is_made_with_the_forcings_of_its_last_frames():
  method = methods.build("regression", AddForcing(2), horizon=2)
  batch = forced_batch(3, 2)
  variables = method.init(jax.random.key(1), batch)
  forecast = method.forecast(variables, {}, batch, jax.random.key(2), 1)[0]
  newest = batch["inputs"][:, -1]
  np.testing.assert_allclose(forecast[:, 0], newest + 10, rtol=1e-5)
  np.testing.assert_allclose(forecast[:, 1], newest + 100, rtol=1e-5)


def test_forcings_the_mask_and_static_fields_follow_the_variables():
  seen = []

  class Look(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      if not isinstance(x, jax.core.Tracer):
        seen.append(x)
      return x[:, -1:, ..., :1] * self.param("one", nn.initializers.ones, ())

  method = methods.build(
    "regression", Look(), horizon=1, mask_as_input=True, pad_to_multiple=4
  )
  batch = forced_batch(2, 1) | {
    "mask": jnp.ones((1, 3, 3, 2, 1), bool),
    "static": jnp.arange(12.0).reshape(3, 2, 2),
  }
  variables = method.init(jax.random.key(1), batch)
  method.forecast(variables, {}, batch, jax.random.key(2), 1)
  assert seen[-1].shape == (1, 2, 4, 4, method.input_channels(1, 4))
  inputs, forcings, mask, static = np.split(seen[-1], [1, 3, 4], axis=-1)
  np.testing.assert_array_equal(inputs[:, :, :3, :2], batch["inputs"])
  np.testing.assert_array_equal(forcings[0, :, 0, 0], [[1, 1], [10, 10]])
  np.testing.assert_array_equal(mask, 1)
  # Continued by the last row and column, like the others, and in every frame.
  expected = np.pad(batch["static"], [(0, 1), (0, 2), (0, 0)], mode="edge")
  np.testing.assert_array_equal(static, np.broadcast_to(expected, (1, 2, 4, 4, 2)))


@pytest.mark.parametrize("remat", [False, True])
def test_static_fields_stay_where_they_are_in_every_block(remat):

  class AddStatic(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      one = self.param("one", nn.initializers.ones, ())
      return x[:, -1:, ..., :1] + one * x[:, -1:, ..., 1:]

  method = methods.build("regression", AddStatic(), horizon=2, remat=remat)
  batch = batch_of(3, 2) | {"static": 10.0 ** jnp.arange(6).reshape(3, 2, 1)}
  variables = method.init(jax.random.key(1), batch)
  _, outputs = method.loss(variables, {}, batch, jax.random.key(3), train=True)
  assert outputs.weight == batch["targets"].size
  forecast = rollout.rollout(method, variables, {}, batch, jax.random.key(2), 2, 5)
  for lead in range(5):
    expected = batch["inputs"][:, -1] + (lead + 1) * batch["static"]
    np.testing.assert_allclose(forecast[1, :, lead], expected, rtol=1e-5)


def test_a_block_longer_than_the_history_cannot_be_forced():
  method = methods.build("regression", AddForcing(), horizon=2)
  batch = forced_batch(1, 2)

  class Two(nn.Module):
    def __call__(self, x, train):
      return jnp.repeat(x[..., :1], 2, axis=1)

  method = methods.build("regression", Two(), horizon=2)
  with pytest.raises(errors.ConfigError, match="data.history to 2"):
    method.init(jax.random.key(1), batch)


def test_a_network_that_forecasts_its_forcings_too_is_refused():
  class Same(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      return x * self.param("one", nn.initializers.ones, ())

  method = methods.build("regression", Same(), horizon=1)
  with pytest.raises(errors.ConfigError, match="model.out_channels=1"):
    method.init(jax.random.key(1), forced_batch(1, 1))
