"""Figures of spectra: what is on them."""

import numpy as np
from PIL import Image

from stjax.plots import spectra


def _power(leads, shells=8):
  k = np.arange(1.0, shells + 1)
  return k, np.arange(1, leads + 1)[:, None] * k**-3.0


def test_the_spectrum_has_lines_for_a_few_lead_times_on_logarithmic_axes(figures):
  k, power = _power(9)
  spectra.power_spectrum(k, power, 2 * power, "a.png", error=3 * power, title="sst")
  [ax] = figures[0].axes
  assert ax.get_xscale() == ax.get_yscale() == "log"
  lines = [line for line in ax.lines if len(line.get_xdata())]
  assert len(lines) == 4 * 3
  for lead, number in enumerate((0, 3, 5, 8)):
    for line, factor in zip(lines[3 * lead :], (1, 2, 3), strict=False):
      np.testing.assert_array_equal(line.get_xdata(), k)
      np.testing.assert_allclose(line.get_ydata(), factor * power[number])
  [legend] = figures[0].legends
  texts = [t.get_text() for t in legend.get_texts()]
  assert texts == ["+1", "+4", "+6", "+9", "forecast", "observation", "error"]


def test_what_has_no_logarithm_is_left_out(figures):
  k, power = _power(1)
  broken = power.copy()
  broken[0, :3] = 0, np.nan, np.inf
  spectra.power_spectrum(k, broken, power, "a.png", lead_labels=["+1 h"])
  first, second = figures[0].axes[0].lines[:2]
  assert np.isfinite(first.get_ydata()).sum() == 5
  assert np.isfinite(second.get_ydata()).all()


def test_every_variable_has_a_figure_if_there_are_spectra(tmp_path):
  spectra.draw({"ensemble": {"rank_histogram": {}}}, tmp_path)
  assert not list(tmp_path.iterdir())
  k, power = _power(2)
  diagram = {
    "wavenumber": k,
    "forecast_by_lead": power,
    "observation_by_lead": power,
    "error_by_lead": 0 * power,
  }
  diagrams = {"spectral": {"power_u": diagram, "power_v": diagram}}
  spectra.draw(diagrams, tmp_path, lead_labels=("+1 d", "+2 d"))
  names = sorted(p.name for p in tmp_path.iterdir())
  assert names == ["power_u.png", "power_v.png"]
  with Image.open(tmp_path / names[0]) as picture:
    assert min(picture.size) > 200
