import numpy as np
import xarray as xr

from stjax.forecasting import stability


def test_the_drift_of_weighted_fields_is_that_of_plain_numpy(monkeypatch):
  fields = np.random.RandomState(0).rand(2, 3, 5, 8, 12).astype(np.float32)
  store = xr.Dataset(
    {"t": (("member", "sample", "lead_time", "lat", "lon"), fields)},
    coords={"lead_time": np.arange(1, 6)},
  )
  rows = np.arange(1.0, 9.0)
  whole = stability.describe(store, rows)
  share = np.broadcast_to(rows[:, None], (8, 12)) / rows.sum() / 12
  mean = (fields * share).sum((-2, -1))
  np.testing.assert_allclose(whole["mean"][0], mean.mean((0, 1)), rtol=1e-5)
  square = (share * (fields - mean[..., None, None]) ** 2).sum((-2, -1))
  np.testing.assert_allclose(
    whole["deviation"][0], np.sqrt(square.mean((0, 1))), rtol=1e-5
  )
  # A few lead times at a time.
  monkeypatch.setattr(stability, "_TOGETHER", 2 * 6 * 96)
  xr.testing.assert_allclose(stability.describe(store, rows), whole)


def test_a_wave_has_its_power_at_its_wavenumber_on_every_level():
  x = np.arange(16) / 16
  wave = 3 * np.cos(2 * np.pi * 5 * x) * np.ones((16, 1))
  fields = np.stack([wave, 2 * wave])[None, None]  # time, lead, level.
  dims = ("time", "prediction_timedelta", "level", "latitude", "longitude")
  store = xr.Dataset(
    {"t": (dims, fields.astype(np.float32))},
    coords={"prediction_timedelta": [1], "level": [500, 850]},
  )
  found = stability.describe(store, None)
  assert found["variable"].values.tolist() == ["t@500", "t@850"]
  power = found["power"].values[:, 0]
  np.testing.assert_allclose(power[:, 5], [9 / 4, 9], rtol=1e-5)
  np.testing.assert_allclose(power.sum(-1), power[:, 5], rtol=1e-5)


def test_land_has_no_part_in_mean_and_deviation():
  fields = np.random.RandomState(0).rand(1, 2, 4, 6).astype(np.float32)
  fields[..., :2, :3] = np.nan
  store = xr.Dataset({"t": (("sample", "lead_time", "y", "x"), fields)})
  found = stability.describe(store, None)
  np.testing.assert_allclose(
    found["mean"][0], np.nanmean(fields[0], (-2, -1)), rtol=1e-5
  )
  np.testing.assert_allclose(
    found["deviation"][0], np.nanstd(fields[0], (-2, -1)), rtol=1e-5
  )
  assert np.isfinite(found["power"]).all()


def test_changes_are_counted_in_deviations_of_the_first_lead_time():
  rows = np.array([[100.0, 101.0, 104.0], [5.0, 5.0, 6.0]])
  spread = np.array([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
  dims = ("variable", "lead_time")
  found = stability.changes(
    xr.Dataset(
      {"mean": (dims, rows), "deviation": (dims, spread)},
      coords={"variable": ["t", "flat"]},
    )
  )
  np.testing.assert_allclose(found["mean"]["t"], [0, 0.5, 2])
  np.testing.assert_allclose(found["deviation"]["t"], [0, 0, -0.5])
  np.testing.assert_allclose(found["mean"]["flat"], [0, 0, 1])
