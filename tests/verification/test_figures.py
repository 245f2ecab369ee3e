"""Figures of an evaluation: which there are, and what their titles and axes say."""

import json
import types

import cftime
import numpy as np
import pytest
import xarray as xr

from configs import base
from stjax.metrics import Score
from stjax.plots import style
from stjax.verification import figures, tables

UNITS = {"t@500": "K", "rain_rate": "mm h-1", "index": "1"}
STEMS = {"t@500": "t_500", "rain_rate": "rain_rate", "index": "index"}
LATITUDES = np.array([80.0, 45.0, 0.0])


def _run(tmp_path, units, **changes):
  config = base.get_config()
  config.update_from_flattened_dict(changes)
  coordinates = xr.Dataset(
    {name: ((), np.nan, {"units": unit}) for name, unit in units.items()},
    coords={
      "lead_time": np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"),
      "lat": ("lat", LATITUDES, {"units": "degrees_north"}),
      "lon": ("lon", [350.0, 352.5, 355.0, 357.5], {"units": "degrees_east"}),
    },
    attrs={"spatial_dims": ["lat", "lon"]},
  )
  return types.SimpleNamespace(
    config=config,
    coordinates=coordinates,
    workdir=tmp_path,
    method=types.SimpleNamespace(kind="forecast"),
  )


def _data(run, dates):
  labels = {"sample_id": ("sample", ["first", "cost_$5_$6"])}
  if dates is not None:
    labels |= {
      "init_time": ("sample", [dates[0]] * 2),
      "valid_time": (("sample", "lead_time"), [dates[1:]] * 2),
    }
  return types.SimpleNamespace(
    coordinates=run.coordinates, labels=xr.Dataset(labels), num_examples=2
  )


def _results(channels, convention="physical"):
  def scores(offset):
    both = np.arange(2.0 * channels).reshape(2, channels) + offset
    split = Score(both.mean(), both.mean(1), both.mean(0), both)
    mixed = Score(both.mean(), both.mean(1))
    return {convention: {"rmse": split, "mse": split}, "openstl": {"psnr": mixed}}

  # A jitted function returns its dict sorted by name.
  return {"climatology": scores(10.0), "forecast": scores(0.0), "z": scores(20.0)}


def _keep(channels, members=1):
  rng = np.random.default_rng(0)
  fields = {
    "history": rng.random((3, 3, 4, channels)),
    "observation": rng.random((2, 3, 4, channels)),
    "forecast": rng.random((2, 3, 4, channels)),
  }
  if members > 1:
    fields["quantiles"] = np.sort(rng.random((5, 2, 3, 4, channels)), axis=0)
  return fields


@pytest.fixture
def draw(tmp_path, monkeypatch):
  """Draws without writing, and returns the figures by file name."""

  def call(units, keep=None, results=None, diagrams=None, dates=None, **changes):
    caught = {}
    monkeypatch.setattr(
      style, "save", lambda fig, path: caught.update({path.name: fig})
    )
    monkeypatch.setattr(figures.plots, "animation", lambda *_, **__: None)
    run = _run(tmp_path, units, **changes)
    results = results or {"forecast": {}}
    folder = tmp_path / "figures"
    figures.draw(run, _data(run, dates), keep or {}, results, diagrams or {}, folder)
    return caught

  return call


def _title(fig):
  return fig.get_suptitle()


def _shown(fig):
  return [text.get_text() for text in fig.texts]


def test_each_variable_has_its_scores_and_the_forecast_leads(draw):
  found = draw(UNITS, results=_results(3))
  assert set(found) == {f"lead_time_{stem}.png" for stem in STEMS.values()}
  for channel, (name, unit) in enumerate(UNITS.items()):
    fig = found[f"lead_time_{STEMS[name]}.png"]
    assert _title(fig) == f"{name}: scores of the test split, 2 examples"
    [legend] = fig.legends
    assert [t.get_text() for t in legend.get_texts()] == [
      "forecast",
      "climatology",
      "z",
    ]
    rmse, mse = (ax for ax in fig.axes if ax.get_visible())
    first = rmse.lines[0]
    np.testing.assert_array_equal(first.get_ydata(), [channel, 3 + channel])
    assert first.get_color() == style.COLOURS[0] and first.get_linestyle() == "-"
    handle = legend.legend_handles[0]
    assert handle.get_color() == first.get_color()
    assert rmse.get_ylabel() == ("" if unit == "1" else unit)
    assert mse.get_ylabel() == {"K": "K²", "1": "", "mm h-1": "(mm h-1)²"}[unit]


def test_one_variable_keeps_one_figure(draw):
  found = draw({"t": "K"}, results=_results(1))
  assert set(found) == {"lead_time.png"}
  panels = [ax.get_title(loc="left") for ax in found["lead_time.png"].axes]
  assert panels[:3] == ["physical rmse", "physical mse", "openstl psnr"]


def test_of_equal_units_what_is_no_score_of_a_variable_says_what_it_is_over(draw):
  found = draw({"u": "m s-1", "v": "m s-1"}, results=_results(2))
  fig = found["lead_time_all.png"]
  assert _title(fig).startswith("Scores over u (m s-1), v (m s-1) together")
  shown = [ax.get_title(loc="left") for ax in fig.axes if ax.get_visible()]
  assert shown == ["openstl psnr"]


CIVIL = np.array(["2019-03-28T00", "2019-03-28T06", "2019-03-28T12"], "datetime64[ns]")
MODEL = np.array([cftime.Datetime360Day(2001, 2, d) for d in (28, 29, 30)])


@pytest.mark.parametrize(
  "dates,when",
  [
    (CIVIL, "start 2019-03-28 00:00, valid 2019-03-28 06:00 to 2019-03-28 12:00"),
    (MODEL, "start 2001-02-28, valid 2001-02-29 to 2001-02-30 (360_day calendar)"),
    (None, None),
  ],
)
def test_pictures_say_sample_dates_and_difference(draw, dates, when):
  fig = draw({"t": "K"}, {1: _keep(1)}, dates=dates)["example_00001_t.png"]
  shown = _shown(fig)
  assert r"t; test sample cost_\$5_\$6" in shown
  assert (when in shown) if when else not any("start" in text for text in shown)
  assert any("difference = forecast − observation" in text for text in shown)
  titles = [ax.get_title() for ax in fig.axes if ax.images]
  assert titles[:2] == ["−12 h", "−6 h"]
  lead, _, valid = titles[3].partition("\n")
  assert lead == "+6 h"
  assert valid == ("" if dates is None else style.dates(dates)[1])


@pytest.mark.parametrize("kind", ["none", "latitude"])
def test_the_rms_below_maps_has_the_weights_of_the_tables(draw, kind):
  fields = _keep(1)
  fields["observation"][0, 0, 0] = np.nan
  found = draw({"t": "K"}, {0: fields}, **{"evaluation.area_weights": kind})
  fig = found["example_00000_t.png"]
  error = (fields["forecast"] - fields["observation"])[..., 0]
  weights = np.cos(np.deg2rad(LATITUDES))[:, None] if kind == "latitude" else 1.0
  weights = weights * np.isfinite(error)
  rms = np.sqrt((weights * np.nan_to_num(error) ** 2).sum((1, 2)) / weights.sum((1, 2)))
  titles = [ax.get_title() for ax in fig.axes if ax.get_title().startswith("rms")]
  assert titles == [f"rms {value:.3g} K" for value in rms]
  said = ", weighted by area;" if kind == "latitude" else ", all weighing the same;"
  assert any(said in text for text in _shown(fig))


def test_a_forecast_is_grey_where_nothing_is_ever_observed(draw):
  fields = _keep(1)
  for name in ("history", "observation"):
    fields[name][:, 1, 2] = np.nan
  fields["observation"][0, 0, 0] = np.nan  # Missing now, but observed before.
  fig = draw({"t": "K"}, {0: fields})["example_00000_t.png"]
  panels = [ax for ax in fig.axes if ax.images]
  forecast = np.ma.getmaskarray(panels[5].images[0].get_array())
  assert np.argwhere(forecast).tolist() == [[1, 2]]


def test_fans_name_places_and_have_even_ticks(draw):
  found = draw(
    {"t": "1"},
    {0: _keep(1, members=5)},
    dates=CIVIL,
    **{"evaluation.points": ((1, 3), (2, 0)), "forecast.members": 5},
  )
  fig = found["example_00000_t_fan.png"]
  panels = [ax for ax in fig.axes if ax.get_visible()]
  assert [ax.get_title(loc="left") for ax in panels] == [
    "45°N, 2.5°W (row 1, column 3)",
    "0°, 10°W (row 2, column 0)",
  ]
  assert _title(fig).splitlines()[1].startswith("start 2019-03-28 00:00, valid")
  ticks = panels[0].get_xticks()
  assert ticks.tolist() == [0, 1, 2]
  assert [t.get_text() for t in panels[0].get_xticklabels()] == ["0", "+6 h", "+12 h"]
  assert panels[0].get_ylabel() == ""  # Units of plain numbers are not drawn.
  notes = _shown(found["example_00000_t.png"])
  assert "forecast = mean of 5 members" in notes


def _diagrams(channels):
  curve = np.array([0.0, 0.5, 1.0])
  rows = np.stack([curve * (c + 1) / channels for c in range(channels)])
  reliability = {
    "forecast_probability": curve,
    "observed_frequency": curve,
    "count": np.array([1.0, 2, 3]),
  }
  roc = {"false_alarm_rate": curve, "hit_rate": curve, "area": np.array(0.5)}
  several = channels > 1

  def split(diagram):
    shaped = {f"{k}_by_variable": rows for k in diagram if k != "area"}
    if "area" in diagram:
      shaped["area_by_variable"] = np.arange(channels) / 10
    return diagram | (shaped if several else {})

  return {
    "ensemble": {
      "rank_histogram": split({"frequency": np.ones(3) / 3}),
      "reliability_gt_5": split(reliability),
      "roc_gt_5": split(roc),
    }
  }


def _ensemble(channels):
  spread = np.arange(1.0, 1 + 2 * channels).reshape(2, channels)
  score = Score(spread.mean(), spread.mean(1), spread.mean(0), spread)
  twice = Score(*(2 * x for x in score))
  return {"forecast": {"ensemble": {"spread": score, "rmse": twice}}}


def test_event_figures_say_variable_threshold_and_unit(draw):
  found = draw(UNITS, results=_ensemble(3), diagrams=_diagrams(3))
  kinds = (
    "rank_histogram",
    "reliability_gt_5",
    "roc_gt_5",
    "spread_skill",
    "lead_time",
  )
  assert set(found) == {
    f"{kind}_{stem}.png" for kind in kinds for stem in STEMS.values()
  }
  titles = {name: _title(fig) for name, fig in found.items()}
  assert (
    titles["reliability_gt_5_rain_rate.png"] == "Reliability of rain_rate > 5 mm h-1"
  )
  assert titles["roc_gt_5_t_500.png"] == "ROC of t@500 > 5 K"
  assert titles["roc_gt_5_index.png"] == "ROC of index > 5"
  assert titles["rank_histogram_t_500.png"] == "Rank histogram of t@500"
  # The spread is the number of the tables, variable by variable.
  [ax] = found["spread_skill_rain_rate.png"].axes
  rmse, spread = ax.lines
  np.testing.assert_array_equal(spread.get_ydata(), [2, 5])
  np.testing.assert_array_equal(rmse.get_ydata(), [4, 10])
  assert ax.get_ylabel() == "mm h-1" and "1.225 for M = 2" in spread.get_label()
  [bars] = found["rank_histogram_rain_rate.png"].axes
  heights = [p.get_height() for p in bars.patches]
  np.testing.assert_allclose(heights, np.array([0, 0.5, 1]) * 2 / 3)


def _log(tmp_path, **scores):
  path = tmp_path / "logs" / "metrics.jsonl"
  path.parent.mkdir()
  lines = [
    {"step": step, "time": 0.0}
    | {k.replace("__", "/"): v / step for k, v in scores.items()}
    for step in (1, 2)
  ]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_all_chosen_scores_are_in_the_learning_curves(draw, tmp_path):
  names = [f"csi_ge_{i}" for i in range(20)]
  scores = {f"validation__categorical__{name}": 1.0 for name in names}
  _log(tmp_path, validation__loss=1.0, train__loss=2.0, **scores)
  fig = draw({"t": "K"})["learning.png"]
  shown = [ax.get_title(loc="left") for ax in fig.axes if ax.get_visible()]
  assert shown == ["loss", *(f"categorical/{name}" for name in names)]
  # Whichever was logged first, the training is the thick line.
  assert [t.get_text() for t in fig.legends[0].get_texts()] == ["train", "validation"]


def test_learning_curves_never_average_units(draw, tmp_path):
  own = {f"validation/physical/rmse/{name}": i + 1.0 for i, name in enumerate(UNITS)}
  _log(tmp_path, train__loss=1.0, validation__physical__rmse=9.0, **own)
  found = draw(UNITS)
  assert [ax.get_title(loc="left") for ax in found["learning.png"].axes] == ["loss"]
  fig = found["learning_rain_rate.png"]
  assert _title(fig) == "rain_rate (mm h-1)"
  [ax] = fig.axes
  assert ax.get_title(loc="left") == "physical/rmse"
  np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2, 1])


def test_names_make_files_that_differ_and_dates_leave_out_what_is_0():
  assert style.file_stems(["a/b", "a_b", "c d"]) == ["a_b", "a_b_2", "c_d"]
  assert style.dates(np.array(["2019-01-01", "NaT"], "datetime64[ns]")) == [
    "2019-01-01",
    "",
  ]
  seconds = np.array(["2019-01-01T00:00:00.5"], "datetime64[us]")
  assert style.dates(seconds) == ["2019-01-01 00:00:00.500"]
  late = [cftime.DatetimeNoLeap(9999, 1, 2, 3, 4)]
  assert style.dates(late) == ["9999-01-02 03:04"] and style.calendar(late) == "noleap"


@pytest.mark.parametrize(
  "length,most,leads", [(12, 4, [3, 6, 9, 12]), (7, 4, [2, 4, 6])]
)
def test_ticks_are_even(length, most, leads):
  assert (style.even_ticks(length, most) + 1).tolist() == leads


def test_tables_never_average_units_without_saying_so():
  results = _results(3)
  keys = dict(variables=tuple(UNITS), lead_times=[1, 2], units=UNITS)
  rows = tables.lead_time_rows(results, **keys)
  assert rows[0]["source"] == "forecast"
  over = "t@500 (K), rain_rate (mm h-1), index"
  assert {row["variable"] for row in rows} == {*UNITS, f"all: {over}"}
  tree = tables.metrics_tree(results, **keys)
  assert tree["overall_is_over"] == over
  text = tables.console_table(results, "test split", UNITS).splitlines()
  assert text[1].split() == ["forecast", "climatology", "z"]
  rows = {line[: line.find("  ")]: line.split()[-3:] for line in text[3:]}
  assert rows["physical rmse rain_rate"] == ["2.5", "12.5", "22.5"]
  assert "physical rmse" not in rows and "openstl psnr" in rows
  assert text[-2] == f"Units: {over}."
  assert text[-1].endswith(f"taken over {over} together.")
