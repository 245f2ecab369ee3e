"""Which candidates are paired, by hand."""

import numpy as np
import pytest

from stjax.errors import MetricError
from stjax.planning import pairs

NAN = np.nan
NONE = -1


@pytest.mark.parametrize(
  ("value", "eligible", "better", "expected"),
  [
    ([3, 1, 2], None, "lower", (1, 0, True)),
    ([3, 1, 2], None, "higher", (0, 1, True)),
    ([2, 1, 1, 2], None, "lower", (1, 0, True)),  # The first of equal ones.
    ([2, 2, 2], None, "lower", (0, 0, False)),
    ([NAN, 1, 2], None, "higher", (2, 1, True)),
    ([NAN, NAN], None, "lower", (NONE, NONE, False)),
    # Who is not eligible may be rejected, but not chosen.
    ([3, 1, 2], [True, False, True], "lower", (2, 0, True)),
    ([3, 1, 2], [True, True, False], "higher", (0, 1, True)),
    ([3, 1, 2], [False, True, True], "lower", (1, 0, True)),
    ([3, 1, 2], [True, False, False], "lower", (0, 0, False)),
    ([3, 1, 2], [False] * 3, "lower", (NONE, NONE, False)),
    ([np.inf, -np.inf, 2], None, "lower", (2, 2, False)),
  ],
)
def test_the_best_and_the_worst_of_one_score(value, eligible, better, expected):
  eligible = None if eligible is None else np.array(eligible)
  found = pairs.by_score(np.array(value, float), eligible, better=better)
  assert tuple(x.item() for x in found) == expected


def test_frames_are_paired_by_themselves():
  value = np.array([[[1.0, 5.0], [0, 0]], [[2.0, 4.0], [0, NAN]]])  # [N, B, T].
  found = pairs.by_score(value, better="lower")
  np.testing.assert_array_equal(found.chosen, [[0, 1], [0, 0]])
  np.testing.assert_array_equal(found.rejected, [[1, 0], [0, 0]])
  np.testing.assert_array_equal(found.valid, [[True, True], [False, False]])


@pytest.mark.parametrize(
  ("csi", "far", "options", "expected"),
  [
    # Candidate 1 is second by both; 2 is fourth by both, and 3 last by both.
    ([5, 4, 2, 1, 3], [3, 2, 4, 5, 1], {}, (1, 3, True)),
    ([5, 4, 2, 1, 3], [3, 2, 4, 5, 1], {"least_bad_loser": True}, (1, 2, True)),
    # The best two by one score are the worst two by the other one.
    ([4, 3, 2, 1], [4, 3, 2, 1], {}, (NONE, NONE, False)),
    ([4, 3, 2, 1], [4, 3, 2, 1], {"top": 4}, (0, 0, False)),
    ([1, 1, 1, 1], [1, 1, 1, 1], {}, (0, 3, False)),
    # Whoever has no value has no rank: 2 and 3 are the last two.
    ([5, 4, 3, 2, NAN], [1, 2, 3, 4, 9], {}, (0, 3, True)),
    ([5, 4, 3, 2], [1, 2, 3, 4], {"eligible": [False, True, True, True]}, (1, 3, True)),
    # One score is better, and the other one is the same.
    ([5, 4], [1, 1], {"top": 1}, (0, 1, True)),
  ],
)
def test_two_scores_agree_on_the_pair(csi, far, options, expected):
  options = dict(options)
  eligible = options.pop("eligible", None)
  found = pairs.by_two_scores(
    [np.array(csi, float), np.array(far, float)],
    None if eligible is None else np.array(eligible),
    better=("higher", "lower"),
    **options,
  )
  assert tuple(x.item() for x in found) == expected


def test_windows_are_paired_by_themselves():
  csi = np.array([[4.0, 1], [3, 2], [2, 3], [1, 4]])  # [N, B].
  found = pairs.by_two_scores([csi, -csi], better=("higher", "lower"))
  np.testing.assert_array_equal(found.chosen, [0, 3])
  np.testing.assert_array_equal(found.rejected, [3, 0])
  assert found.valid.all()


@pytest.mark.parametrize(
  ("call", "match"),
  [
    (lambda x: pairs.by_score(x, better="best"), "better='best'"),
    (lambda x: pairs.by_score(x, x[:1] > 0, better="lower"), "do not fit"),
    (lambda x: pairs.by_two_scores([x, x], better=("lower",)), "do not fit"),
    (lambda x: pairs.by_two_scores([x, x], better=("lower",) * 2, top=0), "top=0"),
  ],
)
def test_what_does_not_fit_is_refused(call, match):
  with pytest.raises(MetricError, match=match):
    call(np.ones((3, 2)))
