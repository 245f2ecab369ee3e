import jax
import jax.numpy as jnp
import numpy as np

from stjax.metrics import spectra

N = 12
X = 2 * np.pi * np.arange(N) / N


def wave(rows, columns, amplitude=1.0):
  phase = rows * X[:, None] + columns * X[None]
  return amplitude * jnp.cos(phase)[..., None]


def test_a_wave_is_in_the_shell_of_its_wavenumber():
  # |(3, -4)| = 5; the mean square of 2 cos is 2, half of it the enstrophy.
  found = spectra.shell_enstrophy(wave(3, -4, 2.0))[:, 0]
  np.testing.assert_allclose(found, [0, 0, 0, 0, 0, 1, 0], atol=1e-5)
  energy = spectra.shell_enstrophy(wave(3, -4, 2.0), energy=True)[:, 0]
  np.testing.assert_allclose(energy, found / 25, atol=1e-6)


def test_all_shells_together_are_the_mean():
  # Waves up to size 6 only: nothing is in the corners.
  field = jnp.stack([wave(1, 2)[..., 0] + 3, wave(4, 0)[..., 0]], -1)
  total = spectra.shell_enstrophy(field).sum(-2)
  np.testing.assert_allclose(total, jnp.square(field).mean((0, 1)) / 2, rtol=1e-5)


def test_energy_leaves_the_mean_out_and_takes_oblong_batches():
  fields = jax.random.normal(jax.random.key(0), (2, 3, 6, 10, 4)) + 5
  energy = jax.jit(lambda x: spectra.shell_enstrophy(x, energy=True))(fields)
  assert energy.shape == (2, 3, 4, 4)
  np.testing.assert_array_equal(energy[..., 0, :], 0)
  one = spectra.shell_enstrophy(fields[1, 2], energy=True)
  np.testing.assert_allclose(energy[1, 2], one, rtol=1e-5)


def test_torch_cfds_shares_count_half_the_plane_and_the_mean_at_1():
  # Of the first wave both k and -k are in the half plane, of the second one.
  field = wave(2, 0) + wave(0, 3) + wave(2, 2)  # |(2, 2)| is between bins.
  shares = spectra.enstrophy_shares(field)[:, 0]
  np.testing.assert_allclose(shares, [0, 2 / 3, 1 / 3, 0, 0], atol=1e-5)
  shares = spectra.enstrophy_shares(field + 0.5)[:, 0]
  np.testing.assert_allclose(shares, [1 / 4, 1 / 2, 1 / 4, 0, 0], atol=1e-5)


def test_errors_are_sorted_by_frequency():
  observation = jnp.zeros((N, N, 1))
  # The absolute error is 1 + cos: one value at 0 and a pair at 3 / 12.
  forecast = -1 - wave(0, 3)
  found = spectra.error_spectrum(forecast, observation, bins=7)[:, 0]
  expected = np.zeros(7)
  expected[0], expected[int(0.25 / np.sqrt(0.5) * 7)] = N**2, N**2
  np.testing.assert_allclose(found, expected, atol=1e-3)


def test_no_frequency_is_left_out():
  forecast = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
  amplitudes = jnp.abs(jnp.fft.fft2(jnp.abs(forecast), axes=(1, 2)))
  np.testing.assert_allclose(
    spectra.error_spectrum(forecast, jnp.zeros_like(forecast)).sum(1),
    amplitudes.sum((1, 2)),
    rtol=1e-5,
  )
