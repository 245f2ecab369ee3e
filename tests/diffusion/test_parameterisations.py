import numpy as np
import pytest

from stjax import diffusion

SIGNAL, SIGMA = 0.8, 0.6


def test_velocity_by_hand():
  assert diffusion.target("v", 2.0, -1.0, SIGNAL, SIGMA) == pytest.approx(
    0.8 * -1.0 - 0.6 * 2.0
  )


@pytest.mark.parametrize("kind", diffusion.KINDS)
def test_target_of_every_kind_gives_back_data_and_noise(kind):
  rng = np.random.default_rng(0)
  x0, noise = rng.standard_normal((2, 3, 5), np.float32)
  signal = np.float32([[0.1], [0.8], [0.9999]])
  sigma = np.sqrt(1 - signal**2)
  prediction = diffusion.target(kind, x0, noise, signal, sigma)
  got = diffusion.to_x0_and_noise(
    kind, prediction, signal * x0 + sigma * noise, signal, sigma
  )
  np.testing.assert_allclose(got[0], x0, atol=1e-5)
  np.testing.assert_allclose(got[1], noise, atol=1e-4)


@pytest.mark.parametrize("call", ["target", "to_x0_and_noise"])
def test_unknown_kind_is_refused_with_near_ones(call):
  with pytest.raises(ValueError, match="method.prediction='epsilom'.*epsilon"):
    getattr(diffusion, call)("epsilom", 1.0, 1.0, SIGNAL, SIGMA)
