"""Properties that the totals of all conventions have."""

import numpy as np
import pytest
from scoring import accumulated

from stjax import metrics

CONVENTIONS = {
  "physical": {"data_range": 2.0},
  "openstl": {},
  "ensemble": {"thresholds": (0.5,)},
  "cost": {},
  "weather": {},
  "spectral": {},
  "heatwave": {"min_duration": 2},
  "categorical": {"thresholds": (0.5, 0.8), "scales": (1,)},
  "syncast": {"dataset": "hko7", "thresholds": (0.5, 0.8), "full_scale": 1.0},
  "tke": {"variables": ("u", "v"), "velocities": ("u", "v")},
}
READS = {"weather": ("climatology",), "heatwave": ("threshold", "history")}
SLOW = ("ensemble", "cost", "categorical", "syncast", "tke")
ROWS = 7
every = pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in CONVENTIONS
  ],
)


def _sample():
  """An ensemble of four, its observation, and what else is known."""
  rng = np.random.default_rng(0)
  shape = (ROWS, 2, 9, 8, 2)
  observation = rng.random(shape).astype(np.float32)
  forecast = observation + rng.normal(0.1, 0.2, (4, *shape)).astype(np.float32)
  return (
    forecast,
    observation,
    {
      "climatology": rng.normal(0.5, 0.1, shape).astype(np.float32),
      "threshold": np.full((ROWS, 5, *shape[2:]), 0.4, np.float32),
      "history": rng.random((ROWS, 3, *shape[2:])).astype(np.float32),
    },
  )


def _accumulated(name, forecast, observation, known, weight=None, batches=None):
  known = {key: known[key] for key in READS.get(name, ())}
  return accumulated(
    (name,), forecast, observation, weight, batches, known, **CONVENTIONS[name]
  )


def _assert_same(name, found, expected, diagrams=True):
  found_scores = found.compute()[name]
  for key, score in expected.compute()[name].items():
    for field, values in score._asdict().items():
      if values is not None:
        np.testing.assert_allclose(
          getattr(found_scores[key], field),
          values,
          rtol=1e-5,
          atol=1e-6,
          err_msg=(key, field),
        )
  if diagrams:
    for key, diagram in expected.diagrams().get(name, {}).items():
      for field, values in diagram.items():
        np.testing.assert_allclose(
          found.diagrams()[name][key][field], values, rtol=1e-5, err_msg=(key, field)
        )


@every
def test_scores_and_diagrams_do_not_depend_on_the_batches(name):
  sample = _sample()
  whole = _accumulated(name, *sample)
  _assert_same(name, _accumulated(name, *sample, batches=(1, 4, 2)), whole)


@every
def test_padding_rows_change_nothing_even_as_nan(name):
  forecast, observation, known = _sample()
  expected = _accumulated(
    name, forecast[:, :5], observation[:5], {k: v[:5] for k, v in known.items()}
  )
  forecast[:, 5:], observation[5:] = 7.0, np.nan
  for values in known.values():
    values[5:] = np.nan
  weight = np.asarray(metrics.point_weights(observation, valid=np.arange(ROWS) < 5))
  padded = _accumulated(name, forecast, observation, known, weight, (3, 4))
  _assert_same(name, padded, expected)


@pytest.mark.parametrize(
  "name", ["physical", "ensemble", "cost", "weather", "heatwave", "categorical"]
)
def test_missing_points_change_nothing_even_as_nan(name):
  forecast, observation, known = _sample()
  expected = _accumulated(
    name,
    forecast[:, :, :, 1:],
    observation[:, :, 1:],
    {k: v[:, :, 1:] for k, v in known.items()},
  )
  forecast[:, :, :, 0], observation[:, :, 0] = 1e30, np.nan
  mask = np.ones(observation.shape, bool)
  mask[:, :, 0] = False
  weight = np.asarray(metrics.point_weights(observation, mask=mask))
  _assert_same(name, _accumulated(name, forecast, observation, known, weight), expected)
