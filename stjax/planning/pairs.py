"""Rules that pick a chosen and a rejected forecast out of several candidates.

They read scores alone, in numpy, for all windows at once. Three kinds of pairs
come from two rules:
  sample: `by_score` of one score [N, B] of whole sequences.
  frame: `by_score` of one score [N, B, T] of single frames, so that a chosen
    sequence is put together from frames of several candidates.
  both: `by_two_scores` of two scores [N, B].

Source: the preference labels of SynCast, arXiv:2510.21847.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stjax.errors import MetricError

NONE = -1  # Stands for a candidate where no one can be picked.
_BETTER = {"lower": 1, "higher": -1}


class Pairs(NamedTuple):
  """The numbers of the picked candidates, by window (and by frame).

  Attributes:
    chosen: int [...], the number of the preferred candidate.
    rejected: int [...], the number of the other one. Both are -1 where one of
      them cannot be picked.
    valid: bool [...], whether the two are a pair: both were picked, and the
      chosen one is strictly better. Where the scores of all candidates are
      equal, both are the first candidate by one score, and are no pair.
  """

  chosen: np.ndarray
  rejected: np.ndarray
  valid: np.ndarray


def by_score(
  value: np.ndarray, eligible: np.ndarray | None = None, *, better: str
) -> Pairs:
  """Picks the best eligible candidate, and the worst one.

  The first of several equal candidates is picked. A value that is not finite
  is neither the best nor the worst. A candidate that is not eligible may be
  rejected, if it has a value, but never chosen.

  Args:
    value: [N, ...] score of each candidate.
    eligible: bool [N, ...], or None if all may be chosen.
    better: "lower" or "higher", whichever is better.

  Returns:
    Pairs [...].

  Raises:
    MetricError: `better` is neither, or the shapes differ.
  """
  cost, known, may = _prepare([value], eligible, [better])
  return _pairs(cost, _pick(cost[0], may), _pick(-cost[0], known))


def by_two_scores(
  values: Sequence[np.ndarray],
  eligible: np.ndarray | None = None,
  *,
  better: Sequence[str],
  top: int = 2,
  least_bad_loser: bool = False,
) -> Pairs:
  """Picks candidates that are good, or bad, by two scores at once.

  The candidates are ranked by each score. The chosen one is among the `top`
  first of both rankings and has the smallest sum of its ranks; the rejected one
  is among the `top` last of both and has the largest sum. The first of several
  equal candidates is picked, and equal values are ranked in the order of the
  candidates. A candidate without a finite value of either score has no rank.

  Args:
    values: two scores [N, ...].
    eligible: bool [N, ...], or None if all may be chosen.
    better: "lower" or "higher" for each of the scores.
    top: number of candidates that count as good, and as bad.
    least_bad_loser: whether the rejected one has the smallest sum of ranks, as
      in the released program, instead of the largest.

  Returns:
    Pairs [...]. The chosen one of a pair is nowhere worse than the rejected one.

  Raises:
    MetricError: `top` is below 1, a `better` is unknown, or the shapes differ.
  """
  if top < 1:
    raise MetricError(f"top={top} must be at least 1.")
  cost, known, may = _prepare(values, eligible, better)
  order = np.argsort(np.where(known, cost, np.inf), axis=1, kind="stable")
  ranks = np.argsort(order, axis=1)  # From 0, those without a rank at the end.
  total = ranks.sum(0)
  good = (ranks < top).all(0) & may
  bad = (ranks >= known.sum(0) - top).all(0) & known
  chosen = _pick(total, good)
  rejected = _pick(total if least_bad_loser else -total, bad)
  return _pairs(cost, chosen, rejected)


def _prepare(values, eligible, better):
  """Returns costs [S, N, ...], of which lower is better, and who has a value."""
  for word in better:
    if word not in _BETTER:
      raise MetricError(f"better={word!r} must be 'lower' or 'higher'.")
  shapes = {np.shape(x) for x in (*values, eligible) if x is not None}
  if len(shapes) > 1 or len(values) != len(better):
    raise MetricError(
      f"Scores {[np.shape(x) for x in values]}, eligible {np.shape(eligible)} and"
      f" better={list(better)} do not fit together."
    )
  cost = np.stack(
    [_BETTER[word] * np.asarray(x) for x, word in zip(values, better, strict=True)]
  )
  known = np.isfinite(cost).all(0)
  may = known if eligible is None else known & np.asarray(eligible)
  return cost, known, may


def _pick(cost: np.ndarray, among: np.ndarray) -> np.ndarray:
  """Returns the first [...] with the lowest cost [N, ...], or -1 if there is none."""
  lowest = np.where(among, cost, np.inf).argmin(0)
  return np.where(among.any(0), lowest, NONE)


def _pairs(cost: np.ndarray, chosen: np.ndarray, rejected: np.ndarray) -> Pairs:
  """Makes pairs of what was picked by costs [S, N, ...]."""
  found = (chosen != NONE) & (rejected != NONE)

  def costs(number):
    number = np.where(found, number, 0)
    return np.take_along_axis(cost, number[None, None], 1)[:, 0]

  best, worst = costs(chosen), costs(rejected)
  better = (best <= worst).all(0) & (best < worst).any(0)
  chosen, rejected = (np.where(found, x, NONE) for x in (chosen, rejected))
  return Pairs(chosen, rejected, found & better)
