"""Scores of candidates, beside the verification and by hand."""

import jax
import numpy as np
import pytest
from scoring import candidate_fields as _fields
from scoring import scores as verify

from stjax.errors import ConfigError, MetricError
from stjax.metrics import scores

THRESHOLDS = (0.4, 0.8)
CANDIDATES, ROWS = 2, 3  # Of `_fields`.
CATEGORICAL = {"thresholds": THRESHOLDS, "scales": (4,)}


def _slow(*case):
  """A case that tells little more than the others, or takes long to compile."""
  return pytest.param(*case, marks=pytest.mark.slow)


def _run(score, *fields, per_frame=False):
  return jax.jit(score, static_argnames="per_frame")(*fields, per_frame=per_frame)


@pytest.mark.parametrize(
  ("name", "options", "convention", "of_convention", "score"),
  [
    ("csi", {}, "categorical", CATEGORICAL, "csi"),
    ("far", {}, "categorical", CATEGORICAL, "far"),
    _slow("pod", {}, "categorical", CATEGORICAL, "pod"),
    _slow("hss", {}, "categorical", CATEGORICAL, "hss"),
    ("fss", {"scale": 4}, "categorical", CATEGORICAL, "fss_4"),
    (
      "pooled_csi",
      {"scale": 4, "pooling": "max"},
      "categorical",
      CATEGORICAL,
      "pooled_csi_4_max",
    ),
    _slow("spectral_error", {"band": "low"}, "spectral", {}, "amplitude_error_low"),
    _slow("mae", {}, "physical", {"data_range": 1.0}, "mae"),
    _slow("mse", {}, "physical", {"data_range": 1.0}, "mse"),
    _slow("rmse", {}, "physical", {"data_range": 1.0}, "rmse"),
    _slow("ssim", {"data_range": 1.0}, "physical", {"data_range": 1.0}, "ssim"),
    _slow("ssim", {}, "physical", {"data_range": "frame"}, "ssim"),
  ],
)
def test_the_sums_are_those_of_the_verification(
  name, options, convention, of_convention, score
):
  candidates, observation, weight = _fields()
  if name == "ssim":  # It needs windows of 7 x 7 points without a missing one.
    weight = np.ones_like(weight)
    weight[..., 0, :] = 0
  built = scores.build(name, THRESHOLDS, **options)
  sums = jax.jit(built.sums)(candidates, observation, weight)
  value, eligible = built.value(sums, per_frame=False)
  assert eligible.all() and eligible.shape == (CANDIDATES, ROWS)
  # Of the second candidate: all samples added up, and one sample by itself.
  added = {key: x[-1:].sum(1, keepdims=True) for key, x in sums.items()}
  one = {key: x[-1:, 1:2] for key, x in sums.items()}
  alone = np.where(np.arange(ROWS) == 1, 1, 0)[:, None, None, None, None]
  for found, weights in ((added, weight), (one, weight * alone)):
    wanted = verify(convention, candidates[1:], observation, weights, **of_convention)[
      score
    ]
    for per_frame, expected in ((False, wanted.overall), (True, wanted.by_lead)):
      actual, _ = built.value(found, per_frame)
      np.testing.assert_allclose(actual[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("fair", [False, True])
def test_the_shares_of_the_crps_add_up_to_it(fair):
  candidates, observation, weight = _fields()
  candidates = np.concatenate([candidates, candidates[:1] - 0.5])
  score = scores.build("crps_share", fair=fair)
  value, _ = jax.jit(score)(candidates, observation, weight)
  error = np.abs(candidates - observation)
  apart = np.abs(candidates[:, None] - candidates)
  pairs = apart.sum(0) / (len(candidates) - fair)
  mean = lambda x: (weight * x).sum((-4, -3, -2, -1)) / weight.sum((1, 2, 3, 4))
  np.testing.assert_allclose(value, mean(error - pairs / 2), rtol=1e-5)
  if fair:  # There may be no other member.
    one, eligible = _run(score, candidates[:1], observation)
    assert np.isnan(one).all() and not eligible.any()


def _wide(value):
  """One candidate [N, B, T, H, W, C] with the same value at all points."""
  return np.full((1, 1, 1, 4, 4, 1), value, np.float32)


def _table(*rows):
  """Rows [W] of one window as [B, T, H, W, C], or of candidates."""
  return np.array(rows, np.float32).reshape(len(rows), 1, 1, 1, -1, 1)


OBSERVED = _table([0, 1, 2, 0])[0]
NAN = np.nan


@pytest.mark.parametrize(
  ("name", "rows"),
  [
    (
      "csi",
      [
        ([0, 1, 2, 0], 1, True),
        ([1, 1, 1, 0], (2 / 3 + 0) / 2, True),
        ([0, 0, 0, 0], 0, True),
        ([NAN, 1, 2, 0], NAN, False),
      ],
    ),
    (
      "far",
      [
        # Nothing reaches 2, though something should: that is no merit.
        ([1, 1, 0, 0], 1 / 2, False),
        ([2, 1, 0, 0], (1 / 2 + 1) / 2, True),
        ([0, 0, 0, 0], NAN, False),
        ([NAN, 1, 2, 0], NAN, False),
      ],
    ),
    ("mae", [([NAN, 1, 2, 0], NAN, False), ([0, 1, 2, 4], 1, True)]),
  ],
)
def test_who_may_be_chosen(name, rows):
  forecasts, values, eligible = zip(*rows, strict=True)
  # There is no event at 9, so it is left out of the mean over thresholds.
  score = scores.build(name, (1, 2, 9))
  value, allowed = _run(score, _table(*forecasts), OBSERVED)
  np.testing.assert_allclose(value[:, 0], values, rtol=1e-6)
  np.testing.assert_array_equal(allowed[:, 0], eligible)


@pytest.mark.parametrize("name", ["csi", "far", "fss"])
def test_without_any_event_there_is_no_score(name):
  value, eligible = _run(scores.build(name, (9,)), _wide(1), _wide(2)[0])
  assert np.isnan(value).all() and not eligible.any()


def test_missing_observations_weigh_nothing():
  observation = OBSERVED.copy()
  observation[..., 3, :] = NAN
  score = scores.build("csi", (1, 2))
  value, _ = _run(score, _table([0, 1, 2, 9]), observation)
  np.testing.assert_array_equal(value, [[1]])
  hidden = np.array([1, 1, 1, 0], np.float32).reshape(OBSERVED.shape)
  value, _ = _run(score, _table([0, 1, 2, NAN]), OBSERVED, hidden)
  np.testing.assert_array_equal(value, [[1]])


def test_the_released_rules_leave_nothing_and_no_one_out():
  score = scores.build("far", (1, 9), released=True)
  value, eligible = _run(score, _table([1, 1, 0, NAN], [0, 0, 0, 0]), OBSERVED)
  np.testing.assert_allclose(value, [[(1 / (2 + 1e-4) + 0) / 2], [0]], rtol=1e-6)
  assert eligible.all()
  # Each frame has a score of its own: 1 and 0 without the pooling of both.
  observation = np.concatenate([OBSERVED, 0 * OBSERVED], 1)
  fss = scores.build("fss", (1,), scale=1, released=True)
  value, _ = _run(fss, observation[None], observation)
  np.testing.assert_allclose(value, [[0.5]], rtol=1e-4)


def test_a_combination_is_a_weighted_sum_of_which_higher_is_better():
  csi, far = (scores.build(name, THRESHOLDS) for name in ("csi", "far"))
  both = scores.combine({csi: 2.0, far: 0.5})
  assert both == scores.combine({"csi": 2, "far": 0.5}, THRESHOLDS)
  assert both.better == "higher"
  value, eligible = _run(both, *_fields(), per_frame=True)
  expected = [_run(x, *_fields(), per_frame=True)[0] for x in (csi, far)]
  np.testing.assert_allclose(value, 2 * expected[0] - expected[1] / 2, rtol=1e-6)
  assert eligible.all()
  # Of two scores one is silent about 2.
  both = scores.combine({"csi": 1, "far": 1}, (1, 2))
  _, eligible = _run(both, _table([1, 1, 0, 0]), OBSERVED)
  assert not eligible.any()


@pytest.mark.parametrize(
  ("call", "error", "match"),
  [
    (lambda: scores.build("cis", (1,)), ConfigError, "did you mean 'csi'"),
    (lambda: scores.build("fss", (1,), scales=2), ConfigError, "did you mean 'scale'"),
    (lambda: scores.build("mae", released=True), ConfigError, "released"),
    (lambda: scores.build("csi"), MetricError, "need thresholds"),
    (lambda: scores.build("fss", (1,), scale=0), MetricError, "scale of 0"),
    (lambda: scores.build("pooled_csi", (1,), pooling="sum"), ConfigError, "'sum'"),
    (lambda: scores.build("spectral_error", band="hi"), ConfigError, "'hi'"),
    (lambda: scores.combine({"mae": 0}), ConfigError, "positive"),
    (lambda: scores.build("mae")(OBSERVED, OBSERVED), MetricError, "Candidates"),
  ],
)
def test_what_cannot_be_scored_is_refused(call, error, match):
  with pytest.raises(error, match=match):
    call()
