"""Colours: classes of rain, two colours for two signs, one for the rest."""

import matplotlib
import numpy as np
import pytest
from matplotlib import colors

from stjax import plots
from stjax.plots import colours

RAIN = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]


def _scales(low, high, **options):
  rng = np.random.default_rng(0)
  fields = rng.uniform(low, high, (3, 2, 5, 6))
  fields[0, 0, 0, :2] = low, high
  return colours.scales(*fields, **options)


@pytest.mark.parametrize(
  "name,units,standard_name,factor,shown",
  [
    ("rain_rate", "mm h-1", "rainfall_rate", 1, "mm/h"),
    ("R", "mm/hr", "", 1, "mm/h"),
    ("precip", "millimeters per hour", "", 1, "mm/h"),
    ("pr", "kg m-2 s-1", "precipitation_flux", 3600, "mm/h"),
    ("prate", "kg m**-2 s**-1", "", 3600, "mm/h"),
    ("x", "m s-1", "lwe_precipitation_rate", 3.6e6, "mm/h"),
    ("tp", "m", "", 1000, "mm"),
    ("total_precipitation_6hr", "m", "", 1000, "mm"),
    ("rr", "mm", "thickness_of_rainfall_amount", 1, "mm"),
    ("precipitation", "mm day-1", "", 1, "mm/day"),
    ("rain", "mm 5min-1", "", 1, "mm 5min-1"),
  ],
)
def test_rain_has_the_classes_of_radar_pictures(
  name, units, standard_name, factor, shown
):
  field, difference = _scales(
    0, 30 / factor, name=name, units=units, standard_name=standard_name
  )
  assert isinstance(field.norm, colors.BoundaryNorm)
  np.testing.assert_allclose(np.multiply(field.norm.boundaries, factor), RAIN)
  assert [float(t) for t in field.texts] == RAIN
  assert field.units == shown and field.extend == "both"
  # Each class has a colour of its own; what is dry is light, and no grey of gaps.
  values = np.array([0, 0.15, 0.3, 0.7, 1.5, 3, 7, 15, 30, 70, 200]) / factor
  drawn = field.cmap(field.norm(values))
  assert len({tuple(c) for c in drawn}) == len(values)
  assert drawn[0, :3].min() > 0.95
  np.testing.assert_allclose(field.cmap(np.ma.masked)[:3], 0.75)
  # Differences have the same classes on both sides of white.
  edges = np.multiply(difference.norm.boundaries, factor)
  np.testing.assert_allclose(edges, -edges[::-1])
  assert difference.cmap(difference.norm(0.0))[:3] == pytest.approx((1, 1, 1), abs=0.05)
  red, _, blue, _ = difference.cmap(difference.norm(20.0 / factor))
  assert red > blue


@pytest.mark.parametrize(
  "name,units,low,high",
  [
    ("precipitable_water", "kg m-2", 0, 50),
    ("rain_probability", "%", 0, 100),
    ("water_level", "mm", 0, 50),
    ("wind_speed", "m s-1", 0, 20),
    ("t2m", "degC", -20, 15),
    ("sst", "degC", -1.8, 30),
    ("t2m", "K", 250, 300),
    ("rain", "1", 0, 1),
  ],
)
def test_what_is_neither_rain_nor_signed_has_the_plain_scale(name, units, low, high):
  field, _ = _scales(low, high, name=name, units=units)
  assert type(field.norm) is colors.Normalize and field.cmap.name == "viridis"
  assert (field.norm.vmin, field.norm.vmax) == (low, high)


@pytest.mark.parametrize(
  "name,units,standard_name",
  [
    ("u10", "m s-1", ""),
    ("speed", "m s-1", "eastward_wind"),
    ("sst_anomaly", "K", ""),
    ("vorticity", "s-1", ""),
    ("rain_anomaly", "mm h-1", ""),
    ("field", "1", ""),
  ],
)
def test_fields_of_both_signs_have_two_colours_that_meet_at_0(
  name, units, standard_name
):
  field, _ = _scales(-2, 5, name=name, units=units, standard_name=standard_name)
  assert field.cmap.name == "RdBu_r"
  assert (field.norm.vmin, field.norm.vmax) == (-5, 5)


def test_reflectivity_has_classes_in_dbz():
  field, difference = _scales(-10, 55, name="Z", units="dBZ")
  assert list(field.norm.boundaries) == list(range(5, 70, 5))
  assert type(difference.norm) is colors.Normalize


def test_a_picture_of_rain_is_drawn_in_classes_and_says_both_units(figures):
  fields = np.random.default_rng(0).uniform(0, 1e-2, (3, 2, 5, 6))
  fields[1, :, 0, 0] = np.nan
  plots.picture_grid(*fields, "a.png", name="pr", units="kg m-2 s-1")
  images = [image for ax in figures[0].axes for image in ax.images]
  norms = [image.norm for image in images[:6]]
  assert all(isinstance(norm, colors.BoundaryNorm) for norm in norms)
  assert {ax.get_ylabel() for ax in figures[0].axes} >= {"mm/h (data in kg m-2 s-1)"}
  observed = images[2]
  [[pixel]] = observed.to_rgba(observed.get_array()[:1, :1])
  assert matplotlib.colors.to_rgba(colours.MISSING) == tuple(pixel)
