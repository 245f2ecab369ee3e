import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax.metrics import MetricError, fields

H, W, C = 5, 7, 2
WEIGHTS = fields.latitude_weights(np.linspace(80, 0, H))


def pair(seed=0):
  return jax.random.normal(jax.random.key(seed), (2, 3, H, W, C))


def test_rows_weigh_as_much_as_their_area():
  weights = fields.latitude_weights([60.0, 0.0, -60.0])
  np.testing.assert_allclose(weights, [0.75, 1.5, 0.75], rtol=1e-6)
  for wrong in ([100.0], [[0.0]], [np.nan]):
    with pytest.raises(MetricError, match="-90 to 90 degrees"):
      fields.latitude_weights(wrong)


def test_the_rmse_of_a_constant_error_is_that_error():
  _, observation = pair()
  mask = jnp.ones((H, W, 1)).at[1, 2:5].set(0)
  for given in (None, mask):
    found = fields.field_rmse(observation - 3, observation, WEIGHTS, given)
    np.testing.assert_allclose(found, np.full((3, C), 3.0), rtol=1e-5)
  points = fields.field_rmse(
    observation - 3, observation, WEIGHTS, mask, share_by_area=False
  )
  share = (mask[..., 0] * WEIGHTS[:, None]).sum() / mask.sum()
  np.testing.assert_allclose(points, 3 * np.sqrt(share), rtol=1e-5)
  assert abs(share - 1) > 1e-3


def test_acc_is_1_for_any_positive_multiple_and_less_for_others():
  forecast, observation = pair()
  ones = np.ones((3, C))
  for factor, expected in ((0.1, ones), (-2.0, -ones)):
    found = fields.field_acc(factor * observation, observation, WEIGHTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert (np.abs(fields.field_acc(forecast, observation, WEIGHTS)) < 0.8).all()


@pytest.mark.parametrize("score", [fields.field_rmse, fields.field_acc])
def test_what_is_masked_does_not_count(score):
  forecast, observation = pair()
  mask = jnp.ones((H, W, C)).at[:, 3].set(0)
  without = [jnp.delete(x, 3, axis=-2) for x in (forecast, observation)]
  hidden = jnp.where(mask == 0, jnp.nan, observation)
  np.testing.assert_allclose(
    jax.jit(score)(forecast, hidden, WEIGHTS, mask),
    score(*without, WEIGHTS),
    rtol=1e-5,
  )
