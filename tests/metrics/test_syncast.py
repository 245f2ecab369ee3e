"""The quirks of SynCast's scores, by hand and beside scipy."""

import jax
import numpy as np
import pytest
from scipy import ndimage, stats
from scoring import scores

from stjax import metrics
from stjax.errors import UserError
from stjax.metrics import ensemble, image, syncast


def _row(*values):
  """One frame [B, T, H, W, C] with a row of values."""
  return np.array(values, np.float32).reshape(1, 1, 1, -1, 1)


def test_the_thresholds_of_hko7_are_rain_rates():
  np.testing.assert_allclose(
    syncast.DATA_SETS["hko7"].thresholds,
    [83.70, 117.92, 140.53, 157.64, 184.75],
    atol=5e-3,
  )


@pytest.mark.parametrize(
  ("dataset", "rejections", "bias"),
  [
    ("sevir", 2, 2 / (1 + 1e-4)),
    ("meteonet", 2, (2 / (1 + 1e-4) / np.log(2)) ** 2),
    # The masked point is a correct rejection.
    ("hko7", 3, (2 / (1 + 1e-4) / np.log(2)) ** 2),
  ],
)
def test_the_data_sets_have_their_own_quirks(dataset, rejections, bias):
  forecast, observation = _row(9, 9, 0, np.nan, 1), _row(9, 0, 0, 0, 1)
  weight = _row(1, 1, 1, 1, 0)
  found = scores(
    "syncast",
    forecast[None],
    observation,
    weight,
    dataset=dataset,
    thresholds=(5,),
    full_scale=10.0,
  )
  hits, alarms, misses = 1, 1, 0  # NaN has no event and is no error of events.
  np.testing.assert_allclose(found["csi"].overall, 1 / (2 + 1e-4), rtol=1e-6)
  np.testing.assert_allclose(found["frequency_bias"].overall, bias, rtol=1e-6)
  chance = (hits + misses) * (misses + rejections)
  chance += (hits + alarms) * (alarms + rejections)
  np.testing.assert_allclose(
    found["hss_ge_5"].overall, 2 * hits * rejections / (chance + 1e-4), rtol=1e-6
  )


def test_a_block_counts_where_the_nearest_point_does():
  keep = np.arange(7 * 5).reshape(7, 5, 1)
  np.testing.assert_array_equal(
    syncast._nearest(keep, 2)[..., 0], [[0, 2], [10, 12], [20, 22]]
  )


def test_the_gaussian_crps_and_its_limit_without_spread():
  mean, deviation, observation = 0.3, 0.2, np.array([0.1, 0.3, 0.9])
  z = (mean - observation) / deviation
  expected = deviation * (
    z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
  )
  found = ensemble.gaussian_crps(mean, deviation, observation)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  single = ensemble.gaussian_crps(mean, 0.0, observation, 1e-10)
  np.testing.assert_allclose(single, np.abs(mean - observation), rtol=1e-6, atol=1e-9)


def test_ssim_of_gaussian_windows_reaches_the_edges():
  rng = np.random.default_rng(0)
  x, y = (255 * rng.random((2, 2, 9, 12, 1))).astype(np.float32)

  def mean(field):
    for axis in (1, 2):
      field = ndimage.gaussian_filter1d(field, 1.5, axis, mode="mirror", radius=5)
    return field

  a, b = x.astype(np.float64), y.astype(np.float64)
  c1, c2 = (0.01 * 200) ** 2, (0.03 * 200) ** 2
  ma, mb = mean(a), mean(b)
  va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
  expected = (2 * ma * mb + c1) * (2 * cov + c2)
  expected /= (ma**2 + mb**2 + c1) * (va + vb + c2)
  weight = np.ones_like(x)

  @jax.jit
  def ssim(weight):
    return image.similarity(image.windows(x, y, weight, gaussian=True), 200.0)

  found, counts = ssim(weight)
  np.testing.assert_allclose(found, expected.mean((1, 2)), rtol=1e-4)
  np.testing.assert_array_equal(counts, 1)
  weight[0, 4, 6] = 0  # It is in every window but those more than 5 points away.
  found, _ = ssim(weight)
  np.testing.assert_allclose(found[0], expected[0, :, :1].mean(), rtol=1e-4)


@pytest.mark.parametrize(
  ("options", "match"),
  [({"dataset": "hko"}, "did you mean 'hko7'"), ({"full_scale": -1.0}, "full_scale")],
)
def test_impossible_options_are_refused(options, match):
  with pytest.raises(UserError, match=match):
    metrics.build(("syncast",), **options)
