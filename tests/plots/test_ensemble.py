"""Figures of ensembles: what is on them."""

import numpy as np
import pytest
from PIL import Image

from stjax.metrics import Score
from stjax.plots import ensemble


def _lines(ax):
  """Data of the lines that have a legend or markers: not the guides."""
  return [line.get_xydata() for line in ax.lines if line.get_linestyle() == "-"]


def _texts(fig):
  texts = [t.get_text() for ax in fig.axes for t in ax.texts]
  for legend in fig.legends:
    texts += [t.get_text() for t in legend.get_texts()]
  return texts


def test_the_rank_histogram_has_a_bar_a_rank_and_the_flat_level(figures):
  frequency = np.array([0.4, 0.1, 0.2, 0.3])
  ensemble.rank_histogram(frequency, "a.png")
  [ax] = figures[0].axes
  np.testing.assert_allclose([p.get_height() for p in ax.patches], frequency)
  np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.25)


def test_the_reliability_diagram_shows_counts_and_the_overall_rate(figures):
  probability = np.array([0.0, 0.5, 1.0])
  frequency = np.array([0.2, np.nan, 0.8])
  count = np.array([30.0, 0.0, 10.0])
  ensemble.reliability_diagram(probability, frequency, count, "a.png")
  [ax] = figures[0].axes
  [curve] = _lines(ax)
  np.testing.assert_allclose(curve, [[0, 0.2], [1, 0.8]])
  [inset] = ax.child_axes
  np.testing.assert_allclose([p.get_height() for p in inset.patches], count)
  rates = [line.get_ydata()[0] for line in ax.lines]
  assert pytest.approx((30 * 0.2 + 10 * 0.8) / 40) in rates


def test_the_roc_curve_says_its_area(figures):
  ensemble.roc_curve([0, 0.2, 1], [0, 0.7, 1], "a.png", area=0.75)
  [curve] = _lines(figures[0].axes[0])
  np.testing.assert_allclose(curve, [[0, 0], [0.2, 0.7], [1, 1]])
  assert _texts(figures[0]) == ["area 0.750"]


def test_spread_is_drawn_as_in_the_tables_and_its_label_has_the_factor(figures):
  options = dict(members=3, units="K", title="Spread of t")
  ensemble.spread_skill([1.0, 2.0], [3.0, 4.0], "a.png", **options)
  [ax] = figures[0].axes
  assert [list(line.get_ydata()) for line in ax.lines] == [[3, 4], [1, 2]]
  assert ax.get_ylim()[0] == 0 and ax.get_ylabel() == "K"
  rmse, spread = _texts(figures[0])
  assert rmse == "rmse of the mean"
  assert spread.startswith("spread (") and "(M+1)/M" in spread
  assert "1.155 for M = 3" in spread  # The root of 4 / 3.


def _fan(points=3, history=4, horizon=5):
  rng = np.random.default_rng(0)
  members = rng.normal(size=(30, horizon, points))
  quantiles = np.quantile(members, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
  return rng.random((history, points)), rng.random((horizon, points)), quantiles


def test_the_fan_chart_has_a_panel_a_point_with_two_bands(figures):
  history, observation, quantiles = _fan()
  history[1] = np.nan
  ensemble.fan_chart(history, observation, quantiles, "a.png", labels=("a", "b", "c"))
  panels = [ax for ax in figures[0].axes if ax.get_visible()]
  assert [ax.get_title(loc="left") for ax in panels] == ["a", "b", "c"]
  for point, ax in enumerate(panels):
    median, truth = _lines(ax)[:2]
    np.testing.assert_allclose(median[:, 1], quantiles[2, :, point])
    assert truth[0, 0] == -3 and truth[-1, 0] == 5
    assert len(ax.collections) == 2
    outer = ax.collections[0].get_datalim(ax.transData)
    np.testing.assert_allclose(outer.y1, quantiles[4, :, point].max())


@pytest.mark.parametrize("label", ["+{} h", "+{} min", "+{} months"])
def test_labels_below_fans_are_even_and_do_not_overlap(figures, label):
  names = [label.format(5 * n) for n in range(1, 13)]
  fan = _fan(1, history=12, horizon=12)
  ensemble.fan_chart(*fan, "a.png", lead_labels=names)
  [ax] = figures[0].axes
  steps = np.diff(ax.get_xticks())
  assert len(set(steps)) == 1
  figures[0].draw(renderer := figures[0].canvas.get_renderer())
  boxes = [t.get_window_extent(renderer) for t in ax.get_xticklabels()]
  assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


def test_fans_of_other_shapes_are_refused():
  history, observation, quantiles = _fan()
  with pytest.raises(ValueError, match="quantiles"):
    ensemble.fan_chart(history, observation, quantiles[:3], "a.png")


def _drawn(spread):
  by_lead = np.array([1.0, 2.0])
  scores = {
    "ensemble": {
      "rmse": Score(np.float64(1.5), by_lead),
      "spread": Score(np.float64(spread), spread * by_lead),
      "spread_skill": Score(np.float64(1.0), np.array([1.0, 0.9])),
    }
  }
  points = np.array([0.0, 0.5, 1.0])
  diagrams = {
    "ensemble": {
      "rank_histogram": {"frequency": np.ones(3) / 3},
      "reliability_gt_30": {
        "forecast_probability": points,
        "observed_frequency": points,
        "count": np.array([1.0, 2.0, 1000.0]),
      },
      "roc_gt_30": {
        "false_alarm_rate": points,
        "hit_rate": points,
        "area": np.array(np.nan),
      },
    },
    "cost": {"quantile_bins": {"frequency": np.ones(3) / 3}},
  }
  return diagrams, scores


def test_all_diagrams_of_an_ensemble_are_drawn(tmp_path):
  ensemble.draw(*_drawn(1.0), tmp_path, lead_labels=("+1 h", "+2 h"))
  names = sorted(p.name for p in tmp_path.iterdir())
  assert names == [
    "rank_histogram.png",
    "reliability_gt_30.png",
    "roc_gt_30.png",
    "spread_skill.png",
  ]
  for name in names:
    with Image.open(tmp_path / name) as picture:
      assert min(picture.size) > 200


def test_without_spread_or_ensemble_scores_no_such_figure_is_drawn(tmp_path):
  ensemble.draw({}, {"physical": {}}, tmp_path)
  assert not list(tmp_path.iterdir())
  ensemble.draw({}, _drawn(0.0)[1], tmp_path)
  assert not list(tmp_path.iterdir())
