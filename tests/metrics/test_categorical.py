"""Counts of events, and their ratios, by hand."""

import numpy as np
import pytest
from scoring import scores

from stjax import metrics
from stjax.metrics import categorical

# One row: two hits at 1, a miss at 2, a false alarm, a correct rejection.
FORECAST = [1, 2, 1, 3, 0, 0]
OBSERVED = [1, 2, 2, 0, 0, np.nan]
WEIGHT = [1, 1, 1, 1, 1, 0]


def _fields(*rows):
  return (np.array(x, np.float32).reshape(1, 1, 1, -1, 1) for x in rows)


def test_events_reach_their_threshold():
  table = categorical.contingency(*_fields(FORECAST, OBSERVED, WEIGHT), (1, 2))
  np.testing.assert_array_equal(table.hits, [[[[3, 1]]]])
  np.testing.assert_array_equal(table.false_alarms, [[[[1, 1]]]])
  np.testing.assert_array_equal(table.misses, [[[[0, 1]]]])
  np.testing.assert_array_equal(table.rejections, [[[[1, 2]]]])


def test_whole_weights_are_counted_exactly():
  forecast, observation, _ = _fields(FORECAST, OBSERVED, WEIGHT)
  # A sum of 2**24 + 1 is not a float32.
  weight = np.full(forecast.shape, 2**24 + 1, np.int32)
  table = categorical.contingency(forecast, observation, weight, (3,))
  assert table.false_alarms.item() == 2**24 + 1


@pytest.mark.parametrize(
  ("score", "by_threshold"),
  [
    ("csi", [3 / 4, 1 / 3]),
    ("far", [1 / 4, 1 / 2]),
    ("pod", [1, 1 / 2]),
    ("frequency_bias", [4 / 3, 1]),
    ("hss", [2 * 3 / (3 * 1 + 4 * 2), 2 * (2 - 1) / (2 * 3 + 2 * 3)]),
  ],
)
def test_the_scores_are_ratios_of_the_counts(score, by_threshold):
  forecast, observation, weight = _fields(FORECAST, OBSERVED, WEIGHT)
  # At 9, all is a correct rejection, and every ratio is 0 / 0.
  found = scores(
    "categorical", forecast[None], observation, weight, thresholds=(1, 2, 9)
  )
  names = [f"{score}_ge_{t}" for t in (1, 2, 9)]
  values = [found[name].overall for name in names]
  np.testing.assert_allclose(values, [*by_threshold, np.nan], rtol=1e-6)
  np.testing.assert_allclose(found[score].overall, np.mean(by_threshold), rtol=1e-6)
  np.testing.assert_allclose(found[score].by_lead, [np.mean(by_threshold)], rtol=1e-6)


def test_members_count_as_forecasts_of_their_own():
  observation = np.ones((1, 1, 1, 4, 1), np.float32)
  members = np.stack([observation, 0 * observation])
  found = scores("categorical", members, observation, thresholds=(1,))
  np.testing.assert_allclose(found["pod"].overall, 0.5)


def test_a_forecast_that_is_nan_shows():
  forecast, observation, weight = _fields(FORECAST, OBSERVED, WEIGHT)
  forecast[..., 0, :] = np.nan
  found = scores("categorical", forecast[None], observation, weight, thresholds=(1, 2))
  assert np.isnan(found["csi"].overall)


def test_blocks_leave_out_what_does_not_count():
  values = np.arange(15, dtype=np.float32).reshape(3, 5, 1)
  weight = np.ones_like(values)
  weight[0, 1] = weight[:2, 2:4] = 0
  values[0, 2] = np.nan
  for pooling, expected in (("average", (0 + 5 + 6) / 3), ("max", 6)):
    found, area = categorical.blocks(values, weight, 2, pooling)
    np.testing.assert_allclose(found[..., 0], [[expected, 0]], rtol=1e-6)
    np.testing.assert_allclose(area[..., 0], [[0.75, 0]])


def test_the_fractions_skill_score_compares_shares_of_blocks():
  forecast, observation = np.zeros((2, 1, 1, 2, 4, 1), np.float32)
  forecast[..., 0, [0, 3], :] = 1  # Shares 1/4 and 1/4.
  observation[..., 1, :2, :] = 1  # Shares 1/2 and 0.
  weight = np.ones_like(observation)
  found = scores(
    "categorical", forecast[None], observation, weight, thresholds=(1,), scales=(2,)
  )
  error, reference = 1 / 16 + 1 / 16, 1 / 16 + 1 / 16 + 1 / 4
  np.testing.assert_allclose(found["fss_2"].overall, 1 - error / reference, rtol=1e-6)
  np.testing.assert_allclose(found["pooled_csi_2_max"].overall, 1 / 2)
  assert np.isnan(found["pooled_csi_2_average"].overall)  # No mean reaches 1.


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({}, "need thresholds"),
    ({"thresholds": (1, 1)}, "differ"),
    ({"thresholds": (1,), "scales": (0,)}, "scale of 0"),
  ],
)
def test_impossible_options_are_refused(options, match):
  with pytest.raises(metrics.MetricError, match=match):
    metrics.build(("categorical",), **options)
