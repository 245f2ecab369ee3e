"""Brier score, reliability and ROC from counts."""

import numpy as np
import pytest

from stjax.metrics import ensemble, events

# Two members; by number of members above: points, and events among them.
POINTS = np.array([4.0, 2.0, 4.0])
EVENTS = np.array([1.0, 1.0, 3.0])


def _totals(threshold=0.5):
  members = np.array([[0, 1, 0, 1], [0, 0, 1, 1.0]], np.float32)
  observation = np.array([1, 0, 1, 1], np.float32)
  weight = np.array([1, 1, 1, 0], np.float32)
  shape = (1, 1, 4, 1, 1)
  fields = ensemble.prepare(
    members.reshape(2, *shape), observation.reshape(shape), weight.reshape(shape)
  )
  return events.totals(fields, fields.weight, threshold)


def test_points_and_events_are_counted_by_members_above():
  totals = _totals()
  np.testing.assert_array_equal(totals["points_gt_0.5"], [[[1, 2, 0]]])
  np.testing.assert_array_equal(totals["events_gt_0.5"], [[[1, 1, 0]]])


def test_a_value_on_the_threshold_is_no_event():
  totals = _totals(1.0)
  np.testing.assert_array_equal(totals["points_gt_1"], [[[3, 0, 0]]])
  np.testing.assert_array_equal(totals["events_gt_1"], [[[0, 0, 0]]])


def test_the_brier_score_by_hand():
  # p = 0: one event of 4 costs 1; p = 1/2: 2 * 0.25; p = 1: one non-event.
  np.testing.assert_allclose(events.brier(POINTS, EVENTS), (1 + 0.5 + 1) / 10)


def test_few_members_keep_every_probability_apart():
  curve = events.reliability(POINTS, EVENTS)
  np.testing.assert_allclose(curve["forecast_probability"], [0, 0.5, 1])
  np.testing.assert_allclose(curve["observed_frequency"], [0.25, 0.5, 0.75])
  np.testing.assert_allclose(curve["count"], POINTS)


@pytest.mark.parametrize("members", [10, 11, 20, 50, 51])
def test_many_members_are_gathered_in_groups_of_equal_width(members):
  points = np.ones(members + 1)
  chance = np.linspace(0, 1, members + 1)
  curve = events.reliability(points, points * chance**2)
  groups = [chance[[k]] for k in range(members + 1)]
  if members > 10:
    # Exact fractions say to which tenth a share belongs.
    tenth = [min(10 * k // members, 9) for k in range(members + 1)]
    groups = [chance[np.equal(tenth, g)] for g in range(10)]
    widths = [g.max() - g.min() for g in groups]
    assert max(widths) <= 0.1 + 1e-9
  assert curve["count"].tolist() == [len(g) for g in groups]
  np.testing.assert_allclose(curve["forecast_probability"], [g.mean() for g in groups])
  np.testing.assert_allclose(
    curve["observed_frequency"], [(g**2).mean() for g in groups]
  )


def test_a_probability_that_was_never_forecast_has_no_frequency():
  curve = events.reliability(np.array([2.0, 0, 0]), np.array([1.0, 0, 0]))
  np.testing.assert_allclose(curve["forecast_probability"], [0, 0.5, 1])
  np.testing.assert_array_equal(curve["observed_frequency"], [0.5, np.nan, np.nan])


def test_the_roc_curve_by_hand():
  curve = events.roc(POINTS, EVENTS)
  np.testing.assert_allclose(curve["probability"], [1.5, 1, 0.5, 0])
  np.testing.assert_allclose(curve["hit_rate"], [0, 0.6, 0.8, 1])
  np.testing.assert_allclose(curve["false_alarm_rate"], [0, 0.2, 0.4, 1])
  np.testing.assert_allclose(curve["area"], 0.06 + 0.14 + 0.54)


def test_a_perfect_forecast_has_area_1_and_a_constant_one_half():
  perfect = events.roc_area(np.array([3.0, 2.0]), np.array([0.0, 2.0]))
  constant = events.roc_area(np.array([5.0, 0.0]), np.array([2.0, 0.0]))
  np.testing.assert_allclose([perfect, constant], [1.0, 0.5])


def test_without_any_event_there_is_no_roc():
  assert np.isnan(events.roc_area(POINTS, 0 * POINTS))


def test_curves_are_made_for_leading_axes_at_once():
  points, happened = np.stack([POINTS, POINTS]), np.stack([EVENTS, POINTS / 2])
  curve = events.roc(points, happened)
  assert curve["hit_rate"].shape == (2, 4) and curve["area"].shape == (2,)
  np.testing.assert_allclose(curve["area"][1], 0.5)
