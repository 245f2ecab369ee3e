"""Statistics are exact, survive JSON and invert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import errors, normalise


def compute(chunks, variables=("a", "b"), kind="standard", transform="identity"):
  return normalise.compute(chunks, variables, kind=kind, transform=transform)


def frames(seed=0, length=7):
  rng = np.random.RandomState(seed)
  x = rng.gamma(2.0, 3.0, (length, 5, 3, 2)).astype(np.float32)
  x[rng.rand(*x.shape) < 0.2] = np.nan
  return x


@pytest.mark.parametrize("transform", normalise.TRANSFORMS)
def test_streamed_statistics_equal_those_of_all_values_at_once(transform):
  x = frames()
  actual = compute([x[:1], x[1:5], x[5:]], transform=transform)
  y = np.log1p(x.astype(np.float64)) if transform == "log1p" else x.astype(np.float64)
  axes = (0, 1, 2)
  for name, expected in (
    ("mean", np.nanmean(y, axes)),
    ("std", np.nanstd(y, axes)),
    ("minimum", np.nanmin(y, axes)),
    ("maximum", np.nanmax(y, axes)),
    ("missing_share", np.isnan(y).mean(axes)),
    ("count", (~np.isnan(y)).sum(axes)),
  ):
    np.testing.assert_allclose(getattr(actual, name), expected, rtol=1e-12)


def test_a_large_offset_does_not_spoil_the_deviation():
  x = np.random.RandomState(1).randint(0, 3, (40, 5, 3, 2)).astype(np.float32)
  actual = compute([x[i : i + 1] + 1e6 for i in range(40)])
  np.testing.assert_allclose(
    actual.std, (x + 1e6).astype(np.float64).std((0, 1, 2)), rtol=1e-9
  )


@pytest.mark.parametrize("transform", normalise.TRANSFORMS)
@pytest.mark.parametrize("kind", normalise.KINDS)
def test_inverse_undoes_forward_in_numpy_and_under_jit(kind, transform):
  x = frames()
  statistics = compute([x], kind=kind, transform=transform)
  y = normalise.forward(statistics, x)
  np.testing.assert_allclose(normalise.inverse(statistics, y), x, rtol=1e-4, atol=1e-4)
  jitted = jax.jit(lambda y: normalise.inverse(statistics, y, xp=jnp))(y)
  np.testing.assert_allclose(jitted, x, rtol=1e-4, atol=1e-4)
  assert y.dtype == np.float32 and jitted.dtype == jnp.float32
  in_place = x.copy()
  normalise.forward_in_place(statistics, in_place)
  np.testing.assert_array_equal(in_place, y)


def test_kinds_do_what_they_say():
  x = frames()
  y = normalise.forward(compute([x]), x).astype(np.float64)
  np.testing.assert_allclose(np.nanmean(y, (0, 1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(np.nanstd(y, (0, 1, 2)), 1, atol=1e-6)
  y = normalise.forward(compute([x], kind="range"), x)
  np.testing.assert_allclose(np.nanmin(y, (0, 1, 2)), 0, atol=1e-7)
  np.testing.assert_allclose(np.nanmax(y, (0, 1, 2)), 1, atol=1e-7)
  np.testing.assert_array_equal(normalise.forward(compute([x], kind="none"), x), x)


def test_statistics_survive_json_exactly():
  statistics = compute([frames()], kind="range", transform="log1p")
  again = normalise.Statistics.from_json(statistics.to_json())
  for name, value in vars(statistics).items():
    np.testing.assert_array_equal(getattr(again, name), value)
    if isinstance(value, np.ndarray):
      assert getattr(again, name).dtype == value.dtype


def test_a_constant_variable_gets_scale_one_and_a_warning():
  x = np.full((4, 3, 2, 1), 273.15, np.float32)
  with pytest.warns(UserWarning, match="'t' is constant"):
    statistics = compute([x], ["t"])
  assert statistics.scale == 1
  assert np.abs(normalise.forward(statistics, x)).max() < 1e-4


def test_a_variable_without_any_value_is_named():
  x = frames()
  x[..., 1] = np.nan
  with pytest.raises(errors.DataError, match="'b' has no observed value"):
    compute([x])


def test_log1p_of_values_it_cannot_take_is_named():
  with pytest.raises(errors.DataError, match="data.transform.*'a'.*-2"):
    compute([frames() * 0 - 2], transform="log1p")


@pytest.mark.parametrize(
  ("option", "near"),
  [
    ({"kind": "standart"}, "data.normalise.*'standart'.*'standard'"),
    ({"transform": "log"}, "data.transform.*'log'.*'log1p'"),
  ],
)
def test_unknown_names_list_near_ones(option, near):
  with pytest.raises(errors.DataError, match=near):
    compute([frames()], **option)
