"""Scores and baselines that know the training climate."""

import jax
import ml_collections
import numpy as np
import pytest
import xarray as xr

import input_pipeline
from configs import simvp_xarray
from stjax import errors, evaluate, forecast
from stjax.run import build as build_lib
from stjax.verification import baselines, figures
from stjax.verification import evaluator as evaluator_lib

# A network that compiles at once: what is tested here is everything around it.
RULE = {"name": "threshold_rule", "features": 4, "gates": 2}
CONVENTIONS = ("weather", "spectral", "heatwave")
MONTHS = 60
LATITUDES = np.linspace(-50, 50, 6)


def monthly(folder):
  """A netCDF file of months with seasons, anomalies that last, and land."""
  path = folder / "sst.nc"
  if not path.exists():
    rng = np.random.default_rng(0)
    season = 5 * np.cos(2 * np.pi * np.arange(MONTHS) / 12)
    anomaly = np.zeros((MONTHS, 6, 7))
    for t in range(1, MONTHS):
      anomaly[t] = 0.8 * anomaly[t - 1] + rng.normal(0, 0.5, (6, 7))
    values = 20 + season[:, None, None] + anomaly
    values[:, 2:4, 5:] = np.nan
    xr.Dataset(
      {"sst": (("time", "lat", "lon"), values.astype("f4"))},
      coords={
        "time": (np.datetime64("2000-01") + np.arange(MONTHS)).astype("datetime64[ns]"),
        "lat": LATITUDES,
        "lon": np.arange(7) * 50.0,
      },
    ).to_netcdf(path)
  return path


def config(folder, **changes):
  c = simvp_xarray.gridded()
  c.model = ml_collections.ConfigDict(RULE)
  c.data.update(path=str(monthly(folder)), variables=("sst",))
  c.update_from_flattened_dict(
    {
      "data.history": 2,
      "data.horizon": 3,
      "data.calendar": ("month",),
      "data.split.fractions": (0.6, 0.2, 0.2),
      "num_epochs": 1.0,
      "global_batch_size": 8,
      "evaluation.batch_size": 4,
      "evaluation.figures": 1,
      "evaluation.conventions": CONVENTIONS,
      "evaluation.baselines": (
        "persistence",
        "climatology",
        "anomaly_persistence",
        "damped_anomaly_persistence",
      ),
      "evaluation.heatwave.min_duration": 2,
      "forecast.batch_size": 8,
    }
    | {k.replace("__", "."): v for k, v in changes.items()}
  )
  return c


def build(folder, name="run", **changes):
  return build_lib.build(
    config(folder, **changes), folder / name, devices=jax.devices()[:1]
  )


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
  """A run that was never trained, and the scores of its test split."""
  run = build(tmp_path_factory.mktemp("climate"))
  evaluator = evaluator_lib.Evaluator(
    run, run.config.evaluation.batch_size, baselines=baselines.build(run)
  )
  variables = run.fresh_state().variables()
  return run, evaluator.score(variables, {}, evaluator_lib.open_split(run, "test"))


def series(run):
  """Values, the training mean and 90 % quantile of each frame's month."""
  with xr.open_dataset(run.config.data.path) as data:
    values = data.sst.values.astype(np.float64)
  month = np.arange(MONTHS) % 12
  train_end = 36  # 60 % of the frames.
  mean, high = (
    np.stack([function(values[:train_end][month[:train_end] == m]) for m in range(12)])[
      month
    ]
    for function in (lambda x: x.mean(0), lambda x: np.quantile(x, 0.9, axis=0))
  )
  return values, mean, high


def windows(run):
  """Frame numbers [N, T_out] of the test split's targets, and the starts."""
  data = evaluator_lib.open_split(run, "test")
  start = data.labels.start.values
  return start[:, None] + np.arange(2, 5), start


def test_baselines_are_scored_as_plain_numpy_does(scored):
  run, scores = scored
  values, mean, _ = series(run)
  target, start = windows(run)
  last = start[:, None] + 1
  bounds = np.deg2rad([-90, -40, -20, 0, 20, 40, 90])
  bounds[0], bounds[-1] = np.deg2rad([-60, 60])  # Far from the poles.
  area = np.diff(np.sin(bounds))[:, None] * np.isfinite(values[0])
  area = area / area.sum()
  anomaly = np.nan_to_num(values - mean)
  first = np.arange(32)[:, None]  # Training windows, of the first 36 frames.
  newest, later = anomaly[first + 1], anomaly[first + np.arange(2, 5)]
  share = (newest * later).sum((0, 2, 3)) / (newest**2).sum((0, 2, 3))
  assert (abs(share) < 1).all() and share.std() > 0.01
  share = share[:, None, None]
  sources = {
    "persistence": values[last] + 0 * values[target],
    "climatology": mean[target],
    "anomaly_persistence": mean[target] + values[last] - mean[last],
    "damped_anomaly_persistence": mean[target] + share * (values[last] - mean[last]),
  }
  for source, fields in sources.items():
    found = scores.results[source]["weather"]
    error = np.nan_to_num(fields - values[target])
    f, o = (np.nan_to_num(x - mean[target]) for x in (fields, values[target]))
    mse = (area * error**2).sum((2, 3)).mean(0)
    np.testing.assert_allclose(found["rmse"].by_lead, np.sqrt(mse), rtol=1e-4)
    skill = 1 - mse / (area * o**2).sum((2, 3)).mean(0)
    np.testing.assert_allclose(found["mse_skill"].by_lead, skill, atol=1e-4)
    if source == "climatology":
      assert np.isnan(found["acc"].overall)
      continue
    acc = (area * f * o).sum((2, 3)) / np.sqrt(
      (area * f**2).sum((2, 3)) * (area * o**2).sum((2, 3))
    )
    np.testing.assert_allclose(found["acc"].by_lead, acc.mean(0), rtol=1e-4)


def test_heatwaves_go_on_from_the_history_above_the_months_quantile(scored):
  run, scores = scored
  values, _, high = series(run)
  target, start = windows(run)
  frames = start[:, None] + np.arange(5)
  above = values[frames] > high[frames]  # Land is never above.
  pairs = above[:, :-1] & above[:, 1:]
  event = np.pad(pairs, ((0, 0), (1, 0), (0, 0), (0, 0))) | np.pad(
    pairs, ((0, 0), (0, 1), (0, 0), (0, 0))
  )
  share = event[:, 2:].sum((0, 2, 3)) / len(start)
  share = share / np.isfinite(values[0]).sum()
  found = scores.results["persistence"]["heatwave"]["base_rate"]
  np.testing.assert_allclose(found.by_lead, share, rtol=1e-5)
  assert 0 < share.min() < share.max()


def test_the_report_has_spectra_as_tables_and_figures(scored):
  run, scores = scored
  power = scores.diagrams["spectral"]["power_sst"]
  assert power["wavenumber"].tolist() == [1, 2, 3]
  assert power["forecast_by_lead"].shape == (3, 3)
  figures.draw(
    run,
    evaluator_lib.open_split(run, "test"),
    {},
    scores.results,
    scores.diagrams,
    run.workdir / "evaluation" / "figures",
  )
  assert (run.workdir / "evaluation" / "spectral_power_sst.csv").exists()
  assert (run.workdir / "evaluation" / "figures" / "power_sst.png").exists()


def test_the_forecast_leads_though_jit_sorts_the_sources(scored):
  run, scores = scored
  named = list(run.config.evaluation.baselines)
  assert "climatology" in named  # It comes before the forecast in the alphabet.
  assert list(scores.results) == ["forecast", *named]


def test_names_of_scores_are_known_before_any_is_made(scored):
  run, scores = scored
  names = evaluator_lib.Evaluator(run, 4).score_names()
  assert names == list(evaluator_lib.Evaluator.summary(scores))
  assert {"weather/acc", "spectral/log_ratio_mid", "heatwave/sedi"} < {*names}


def test_calendar_months_have_no_place_in_weatherbench_2s_layout(tmp_path):
  run = build(tmp_path, forecast__layout="weatherbench2")
  with pytest.raises(errors.ConfigError, match="needs equal steps"):
    forecast.check(run, splits=False)


def test_kept_fields_are_undefined_on_land_and_not_elsewhere(tmp_path):
  run = build(tmp_path, method__zero_missing=True)
  evaluator = evaluator_lib.Evaluator(run, 4, members=2)
  kept = {3: {}, 4: {}}  # Of two batches.
  data = evaluator_lib.open_split(run, "test")
  evaluator.score(run.fresh_state().variables(), {}, data, kept)
  land = np.isnan(series(run)[0][0])
  for fields in kept.values():
    assert set(fields) == {"history", "observation", "forecast", "quantiles"}
    for values in fields.values():
      empty = np.isnan(values[..., 0])
      np.testing.assert_array_equal(empty, np.broadcast_to(land, empty.shape))


def test_the_anomaly_is_that_of_the_newest_observed_frame(tmp_path):
  run = build(tmp_path)
  months = np.array([[0, 1, 2, 3, 4]], np.int32)[..., None]
  table = input_pipeline.climatology(run.config.data.to_dict())
  physical = table[[0, 1]] + np.array([3.0, 1.0]).reshape(2, 1, 1, 1)
  mask = np.ones((1, 5, 6, 7, 1), bool)
  mask[0, 1, 0, 1] = False  # The newest is missing: 3 above January.
  mask[0, :2, 0, 2] = False  # Nothing was observed: the climatology.
  batch = {
    "inputs": input_pipeline.forward(run.statistics, physical[None]),
    "targets": np.zeros((1, 3, 6, 7, 1), np.float32),
    "mask": mask,
    "calendar": months,
  }
  found = baselines.build(run)["anomaly_persistence"](batch, 3)
  expected = np.ones((6, 7, 1))
  expected[0, 1:3, 0] = 3, 0
  np.testing.assert_allclose(found[0] - table[2:5], np.stack([expected] * 3), atol=1e-4)


@pytest.mark.parametrize(
  ("convention", "baseline", "message"),
  [
    ("weather", "persistence", "conventions has 'weather'.*data.calendar"),
    ("heatwave", "persistence", "conventions has 'heatwave'.*data.calendar"),
    ("spectral", "anomaly_persistence", "baselines has 'anomaly.*data.calendar"),
    ("wether", "persistence", "did you mean 'weather'"),
  ],
)
def test_what_needs_a_calendar_says_so_before_training(
  tmp_path, convention, baseline, message
):
  run = build(
    tmp_path,
    data__calendar=(),
    evaluation__conventions=(convention,),
    evaluation__baselines=(baseline,),
  )
  with pytest.raises(errors.ConfigError, match=message):
    evaluate.check(run, splits=False)
