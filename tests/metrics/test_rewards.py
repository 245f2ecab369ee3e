"""Rewards of candidates, beside the verification and by hand."""

import functools

import jax
import numpy as np
import pytest
from scoring import candidate_fields
from scoring import scores as verify

from stjax.errors import ConfigError, MetricError
from stjax.metrics import rewards, scores

NAN = np.nan
THRESHOLDS = (0.4, 0.8)
CATEGORICAL = {"thresholds": THRESHOLDS, "scales": (4,)}
# Reward -> its options, and the verification's convention, its options and score.
VERIFIED = {
  "csi": ({}, "categorical", CATEGORICAL, "csi"),
  "far": ({}, "categorical", CATEGORICAL, "far"),
  "pod": ({}, "categorical", CATEGORICAL, "pod"),
  "hss": ({}, "categorical", CATEGORICAL, "hss"),
  "fss": ({"scale": 4}, "categorical", CATEGORICAL, "fss_4"),
  "pooled_csi": (
    {"scale": 4, "pooling": "max"},
    "categorical",
    CATEGORICAL,
    "pooled_csi_4_max",
  ),
  "spectral_error": ({"band": "low"}, "spectral", {}, "amplitude_error_low"),
  "mae": ({}, "physical", {"data_range": 1.0}, "mae"),
  "mse": ({}, "physical", {"data_range": 1.0}, "mse"),
  "rmse": ({}, "physical", {"data_range": 1.0}, "rmse"),
  "ssim": ({"data_range": 1.0}, "physical", {"data_range": 1.0}, "ssim"),
}
LOWER_IS_BETTER = ("far", "spectral_error", "mae", "mse", "rmse")


@pytest.fixture(scope="module")
def single():
  """Candidates, observation and weights, and each reward of candidate 1, window 1."""
  candidates, observation, weight = candidate_fields()
  whole = np.ones_like(weight)  # SSIM needs windows without a missing point.
  built = {
    name: rewards.build(name, thresholds=THRESHOLDS, options={name: options})
    for name, (options, *_) in VERIFIED.items()
  }

  def values(candidates, observation, weight):
    return {
      name: reward(candidates, observation, whole if name == "ssim" else weight)
      for name, reward in built.items()
    }

  found = jax.jit(values)(candidates, observation, weight)
  alone = np.where(np.arange(len(weight)) == 1, 1, 0)[:, None, None, None, None]
  fields = candidates[1:], observation
  return {n: x[1, 1] for n, x in found.items()}, fields, weight * alone, whole * alone


@pytest.mark.slow  # The scores are compared one by one in test_scores.py.
@pytest.mark.parametrize("name", VERIFIED)
def test_rewards_are_the_verifications_scores_of_single_examples(single, name):
  found, fields, weight, whole = single
  _, convention, options, score = VERIFIED[name]
  weight = whole if name == "ssim" else weight
  wanted = verify(convention, *fields, weight, **options)[score].overall
  sign = -1 if name in LOWER_IS_BETTER else 1
  np.testing.assert_allclose(found[name], sign * wanted, rtol=1e-5)


def test_every_score_is_compared_with_the_verification():
  # The share of the CRPS is a score of ensembles; see test_scores.py.
  assert set(VERIFIED) == set(scores.SCORES) - {"crps_share"}


def table(*rows):
  """Rows [8] of one window as candidates [K, B, T, H, W, C]."""
  rows = np.array(rows, np.float32)
  fields = np.broadcast_to(
    rows[:, None, None, None, :, None], (len(rows), 1, 1, 8, 8, 1)
  )
  return fields.copy()


def test_a_sum_of_rewards_is_weighted_and_more_of_it_is_better():
  observation = table([0, 1, 2, 0, 0, 0, 0, 0])[0]
  candidates = table(
    [0, 1, 2, 0, 0, 0, 0, 0],
    [1, 1, 1, 0, 0, 0, 0, 0],  # Silent about the event at 2.
    [NAN, 1, 2, 0, 0, 0, 0, 0],
    [0, 2, 2, 0, 0, 0, 0, 0],
  )
  both = rewards.build({"csi": 2, "mse": 0.5}, thresholds=(1, 2))
  far = rewards.build("far", thresholds=(1, 2))
  ones = np.ones(observation.shape)

  @jax.jit
  def values(weight):
    return [reward(candidates, observation, weight) for reward in (both, far)]

  found, found_far = values(ones)
  assert found.dtype == np.float32
  np.testing.assert_allclose(
    found[:, 0],
    [2, 2 * (2 / 3 + 0) / 2 - 0.5 * 2 / 8, NAN, 2 * (1 + 1 / 2) / 2 - 0.5 / 8],
    rtol=1e-6,
  )
  # Whoever may not be chosen by a score has no reward.
  np.testing.assert_allclose(
    found_far[:, 0], [0, NAN, NAN, -(0 + 1 / 2) / 2], rtol=1e-6
  )
  # Points without weight do not count.
  found, _ = values(np.where(np.isnan(candidates[2]), 0, ones))
  assert found[2, 0] == 2


def test_rewards_are_plain_values_that_say_what_they_need():
  csi = functools.partial(rewards.build, "csi")
  assert csi(thresholds=[1]) == csi(thresholds=(1.0,))
  assert len({csi(thresholds=[1]), csi(thresholds=[2])}) == 2
  ranges = rewards.build("sfp_ssim", options={"sfp_ssim": {"data_range": [1, 2]}})
  assert hash(ranges) is not None
  for name, needed, constants in (
    ("csi", True, ()),
    ("agreement", False, ()),
    ("spectrum", False, ("spectrum",)),
    ({"spectrum": 1, "sfp_csi": 1}, True, ("spectrum",)),
  ):
    reward = rewards.build(name, thresholds=(1,))
    assert (reward.needs_observation, reward.constants) == (needed, constants)


def test_the_released_index_has_no_event_at_the_threshold_itself():
  observation = table([1, 1, 2, 0, 0, 0, 0, 0])[0]
  candidates = table(
    [1, 1, 2, 0, 0, 0, 0, 0],
    [1, 2, 2, 0, 0, 0, 0, 0],
    [0] * 8,
    [NAN, 1, 2, 0, 0, 0, 0, 0],
  )
  reward = rewards.build("sfp_csi", thresholds=(1,))
  found = jax.jit(reward)(candidates, observation)
  np.testing.assert_allclose(found[:, 0], [1, 1 / 2, 0, NAN], rtol=1e-6)
  # 1e-7 in the denominator is all there is where there is no event.
  never = rewards.build("sfp_csi", thresholds=(9,))
  found = jax.jit(never)(candidates, observation)
  np.testing.assert_array_equal(found[:3, 0], [0, 0, 0])


def waves(*amplitudes):
  """Fields [B, 1, 16, 16, 1] with the sum of waves 1, 2, ... across them."""
  x = 2 * np.pi * np.arange(16) / 16
  row = sum(a * np.cos((k + 1) * x) for k, a in enumerate(amplitudes))
  return (3 + np.broadcast_to(row[:, None], (1, 1, 16, 16, 1))).astype(np.float32)


def test_the_spectrum_is_compared_with_that_of_the_training_frames():
  # The mean power of the second wave is (1^2 + 7^2) / 2 = 5^2 of an amplitude.
  batches = [(waves(3, 1), None), (waves(3, 7), None)]
  spectrum = rewards.climatological_spectrum(batches)
  assert spectrum.shape == (9, 1)
  # A wave of the amplitude a has the power a^2 / 4.
  np.testing.assert_allclose(spectrum[:4, 0], [3 / 2**0.5, 1.5, 2.5, 0], atol=1e-6)
  both = np.concatenate([waves(3, 1), waves(3, 7), waves(9, 9)])
  weight = np.array([1, 1, 0])[:, None, None, None, None]
  both[2] = NAN  # A row that only fills the batch.
  np.testing.assert_allclose(
    rewards.climatological_spectrum([(both, weight)]), spectrum, rtol=1e-6
  )
  broken = waves(3, 5)
  broken[0, 0, 0, 0] = NAN
  candidates = np.stack([waves(3, 5) + 9, waves(3, 0), waves(0, 5), broken])
  reward = rewards.build("spectrum")
  found = jax.jit(reward)(candidates, climatology={"spectrum": spectrum})
  wanted = [0, -5 / 34**0.5, -3 / 34**0.5, NAN]
  np.testing.assert_allclose(found[:, 0], wanted, atol=1e-5)


def test_agreement_is_closeness_to_the_mean_of_the_candidates():
  candidates = table([0] * 8, [3] * 8, [6] * 8, [NAN] + [0] * 7)
  reward = jax.jit(rewards.build("agreement"))
  found = reward(candidates)
  np.testing.assert_allclose(found[:, 0], [-9, 0, -9, NAN])
  weight = np.ones(candidates.shape[1:])
  weight[..., 0, :] = 0
  found = reward(candidates, None, weight)
  np.testing.assert_allclose(
    found[:, 0], [-(2.25**2), -(0.75**2), -(3.75**2), -(2.25**2)]
  )


FIELDS = np.zeros((2, 1, 1, 8, 8, 1), np.float32)
SPECTRUM = {"spectrum": np.ones((4, 1))}


@pytest.mark.parametrize(
  ("call", "error", "match"),
  [
    (lambda: rewards.build("sfp_cis"), ConfigError, "did you mean 'sfp_csi'"),
    (lambda: rewards.build({}), ConfigError, "no reward"),
    (lambda: rewards.build({"mse": -1}), ConfigError, "positive"),
    (lambda: rewards.build("sfp_csi"), MetricError, "need thresholds"),
    (
      lambda: rewards.build("mse", options={"mes": {}}),
      ConfigError,
      "did you mean 'mse'",
    ),
    (
      lambda: rewards.build("ssim", options={"ssim": {"range": 1}}),
      ConfigError,
      "data_range",
    ),
    (
      lambda: rewards.build(
        "sfp_csi", thresholds=(1,), options={"sfp_csi": {"released": True}}
      ),
      ConfigError,
      "released",
    ),
    (lambda: rewards.build("mse")(FIELDS), MetricError, "there is none"),
    (lambda: rewards.build("mse")(FIELDS[0]), MetricError, r"\[K, B, T"),
    (lambda: rewards.build("spectrum")(FIELDS), MetricError, "'spectrum'"),
    (
      lambda: rewards.build("spectrum")(FIELDS, climatology=SPECTRUM),
      MetricError,
      r"\(4, 1\).*\(5, 1\)",
    ),
    (lambda: rewards.climatological_spectrum([]), MetricError, "needs a frame"),
    (lambda: rewards.check_thresholds((1, 9), 0, 8), ConfigError, r"thresholds.*\[9\]"),
    (
      lambda: rewards.check_thresholds((0, 1), 0, 8, "config.a"),
      ConfigError,
      r"a.*0 to 8",
    ),
  ],
)
def test_what_cannot_be_rewarded_is_refused(call, error, match):
  with pytest.raises(error, match=match):
    call()


def test_thresholds_within_the_data_pass():
  rewards.check_thresholds((0.5, 8), 0, 8)
