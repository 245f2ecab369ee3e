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
    jax.jit(score)(forecast, hidden, WEIGHTS, mask), score(*without, WEIGHTS), rtol=1e-5
  )


def test_cells_are_bounded_half_way_and_by_the_poles():
  # Bounds -90, -45, 0, 45, 90: sines -1, -.7071, 0, .7071, 1.
  edge = 1 - np.sqrt(0.5)
  expected = 2 * np.array([edge, 1 - edge, 1 - edge, edge])
  for latitudes in ([-67.5, -22.5, 22.5, 67.5], [67.5, 22.5, -22.5, -67.5]):
    found = fields.cell_weights(latitudes)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
  # With rows at the poles, or one spacing from them, cells reach these too.
  for last in (90.0, 60.0):
    found = fields.cell_weights([last - 60, last - 30, last])
    upper = np.sin(np.deg2rad([last - 45, last - 15, 90]))
    lower = np.sin(np.deg2rad([last - 75, last - 45, last - 15]))
    area = upper - lower
    np.testing.assert_allclose(found, area / area.mean(), rtol=1e-5)


def test_cells_of_a_region_end_half_a_row_beyond_it():
  latitudes = np.arange(-40.125, -30, 0.25)
  found = fields.cell_weights(latitudes)
  np.testing.assert_allclose(found, fields.latitude_weights(latitudes), rtol=1e-5)


def test_cells_need_latitudes_in_order():
  for wrong in ([0.0, 20.0, 10.0], [10.0, 10.0], [5.0]):
    with pytest.raises(MetricError, match="do not go one way"):
      fields.cell_weights(wrong)
  with pytest.raises(MetricError, match="-90 to 90 degrees"):
    fields.cell_weights([80.0, 100.0])
