"""The turbulent kinetic energy of velocities; its profile is a golden."""

import jax
import numpy as np
import pytest
from scoring import scores

from stjax import metrics
from stjax.errors import ConfigError, MetricError
from stjax.metrics import tke

OPTIONS = {"variables": ("p", "v", "u"), "velocities": ("u", "v")}


def _fields():
  return np.random.default_rng(0).standard_normal((2, 4, 8, 10, 3)).astype(np.float32)


def test_energy_is_half_the_variance_of_both_components_over_time():
  fields = _fields()
  wanted = fields.var(1).sum(-1) / 2
  np.testing.assert_allclose(jax.jit(tke.energy)(fields), wanted, rtol=1e-5)
  # Frames that are missing do not count, and their points may be NaN.
  weight = np.ones_like(fields)
  weight[:, 3] = 0
  weight[0, :, 0, 0] = 0
  fields[weight == 0] = np.nan
  wanted = fields[:, :3].var(1).sum(-1) / 2
  wanted[0, 0, 0] = 0
  np.testing.assert_allclose(jax.jit(tke.energy)(fields, weight), wanted, rtol=1e-5)


def test_errors_of_the_profile_and_of_its_logarithm():
  observation = _fields()
  twice = observation.copy()
  twice[..., 1:] *= 2  # The energy is 4 times, and its power 16 times as large.
  energy = observation[..., 1:].var(1).sum(-1) / 2
  logs = np.log(jax.jit(tke.profile)(energy))
  errors = np.log(16) * np.sqrt(logs.shape[1]) / np.linalg.norm(logs, axis=1)
  for forecast, error, log_error in (
    ([observation] * 2, 0, 0),
    ([twice] * 2, 15, errors.mean()),
    ([twice, observation], 15 / 2, errors.mean() / 2),
  ):
    found = scores("tke", np.stack(forecast), observation, **OPTIONS)
    np.testing.assert_allclose(found["error"].overall, error, rtol=1e-4)
    np.testing.assert_allclose(found["log_error"].overall, log_error, rtol=1e-4)
  # Nothing but the velocities counts.
  other = observation.copy()
  other[..., 0] = 0
  assert (
    scores("tke", np.stack([other] * 2), observation, **OPTIONS)["error"].overall == 0
  )


@pytest.mark.parametrize(
  ("options", "error", "match"),
  [
    ({}, MetricError, "two velocity components"),
    ({"velocities": ("u", "u")}, MetricError, "two velocity components"),
    ({"velocities": ("u", "w")}, ConfigError, "velocities='w'"),
  ],
)
def test_velocities_that_are_not_there_are_refused(options, error, match):
  with pytest.raises(error, match=match):
    metrics.build(("tke",), **{"variables": ("u", "v")} | options)


def test_one_frame_has_no_energy():
  field = _fields()[:, :1]
  with pytest.raises(MetricError, match="two frames"):
    scores("tke", field[None], field, **OPTIONS)
