import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import config as config_lib
from stjax import methods
from stjax.methods import base, regression


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
  return methods.build(
      "regression", AddOne(frames), horizon=horizon, **options
  )


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
  forecast, _ = base.feed_back(step, history, (), 3)
  # 0+1+2 = 3, 1+2+3 = 6, 2+3+6 = 11
  np.testing.assert_allclose(forecast.ravel(), [3.0, 6.0, 11.0])


def test_a_rollout_longer_than_trained_continues_the_forecast():
  method, batch = make(3), batch_of()
  variables = method.init(jax.random.key(1), batch)
  roll = lambda horizon: base.rollout(
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
    base.feed_back(step, history, (), 5)


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
  loss, outputs = method.loss(
      variables, {}, spoilt, jax.random.key(0), train=False
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(outputs.weight, weight.sum())


def test_training_updates_collections_once_a_block():
  method, batch = make(4), batch_of(horizon=4)
  variables = method.init(jax.random.key(1), batch)
  for train, calls in ((True, 2), (False, 0)):
    _, outputs = method.loss(
        variables, {}, batch, jax.random.key(0), train=train
    )
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
  with pytest.raises(config_lib.ConfigError, match="did you mean 'regression'"):
    methods.build("regresion", AddOne(), horizon=2)
  with pytest.raises(config_lib.ConfigError, match="method.loss_nam"):
    make(2, loss_nam="mse")
  with pytest.raises(config_lib.ConfigError, match="loss_name"):
    make(2, loss_name="msee")


def test_the_relative_loss_is_the_mean_over_observed_fields():
  method, batch = make(2, loss_name="relative_l2"), batch_of(rows=3)
  variables = method.init(jax.random.key(1), batch)
  batch |= {"targets": jax.random.normal(jax.random.key(2), (3, 2, 3, 2, 1))}
  mask = np.ones((3, 4, 3, 2, 1), bool)
  mask[0, 3] = False  # A frame that nobody saw,
  mask[1, 2, 0] = False  # a row of one,
  batch |= {"mask": mask, "valid": jnp.asarray([True, True, False])}  # padding.
  loss, outputs = method.loss(
      variables, {}, batch, jax.random.key(0), train=False
  )
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
      variables = {
          "params": {"bias": jnp.ones(())}, "batch_stats": {"calls": 0.0}
      }
      return method.loss(
          variables, {}, shifted, jax.random.key(0), train=False
      )[0]

    return np.abs(jax.grad(loss)(jnp.zeros(2)))

  uneven, even = gradient(), gradient(equal_gradients=True)
  assert uneven[1] > 40 * uneven[0]
  assert even[1] == pytest.approx(even[0], rel=1e-5)
