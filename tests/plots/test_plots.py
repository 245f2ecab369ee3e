"""Figures: what is on them, that nothing overlaps, that nothing leaks."""

import json

import matplotlib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from stjax import plots
from stjax.plots import colours, pictures


def _fields(history=4, horizon=6, shape=(9, 12), seed=0):
  rng = np.random.default_rng(seed)
  past = rng.random((history, *shape))
  observation = rng.random((horizon, *shape))
  return past, observation, observation + 0.1 * rng.random(observation.shape)


def _panels(fig):
  """Axes with a picture, from the left to the right, row by row."""

  def place(ax):
    box = ax.get_position()
    return -round(box.y0, 3), box.x0

  return sorted((ax for ax in fig.axes if ax.images), key=place)


def _texts(fig):
  """Every visible text with its box in pixels."""
  renderer = FigureCanvasAgg(fig).get_renderer()
  fig.draw(renderer)
  unseen = set()  # Labels of ticks that lie beyond the ends of an axis.
  for ax in fig.axes:
    for axis in (ax.xaxis, ax.yaxis):
      low, high = sorted(axis.get_view_interval())
      for tick in axis.get_major_ticks() + axis.get_minor_ticks():
        if not low <= tick.get_loc() <= high:
          unseen |= {tick.label1, tick.label2}
  boxes = []
  for text in fig.findobj(matplotlib.text.Text):
    if text in unseen:
      continue
    if text.get_text().strip() and text.get_visible():
      boxes.append((text.get_text(), text.get_window_extent(renderer)))
  return boxes


def _assert_readable(fig):
  """No two texts overlap and none leaves the figure."""
  boxes = _texts(fig)
  for i, (name, box) in enumerate(boxes):
    assert box.x0 >= 0 and box.y0 >= 0, name
    assert box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1, name
    for other, second in boxes[i + 1 :]:
      wide = min(box.x1, second.x1) - max(box.x0, second.x0)
      high = min(box.y1, second.y1) - max(box.y0, second.y0)
      assert not (wide > 1 and high > 1), (name, other)


def test_the_grid_has_four_rows_of_frames(figures, tmp_path):
  plots.picture_grid(*_fields(), tmp_path / "grid.png", title="a", units="K")
  [fig] = figures
  panels = _panels(fig)
  heights = [round(ax.get_position().y0, 3) for ax in panels]
  assert [heights.count(y) for y in sorted(set(heights), reverse=True)] == [4, 6, 6, 6]
  labels = {text for text, _ in _texts(fig)}
  assert {"history", "observation", "forecast", "difference"} < labels
  assert {"a", "-3", "0", "+1", "+6", "K"} < labels


def test_data_and_forecast_share_a_scale_and_differences_are_symmetric(
  figures, tmp_path
):
  past, observation, forecast = _fields()
  plots.picture_grid(past, observation, forecast, tmp_path / "grid.png")
  panels = _panels(figures[0])
  limits = [ax.images[0].get_clim() for ax in panels]
  data = np.concatenate([past, observation])
  assert set(limits[:16]) == {(data.min(), data.max())}
  [(low, high)] = set(limits[16:])
  assert low == -high
  assert high == pytest.approx(np.abs(forecast - observation).max())


def test_a_wild_forecast_does_not_wash_out_the_data(figures, tmp_path):
  past, observation, forecast = _fields()
  forecast[0, 0, 0] = 1e6
  plots.picture_grid(past, observation, forecast, tmp_path / "grid.png")
  assert _panels(figures[0])[0].images[0].get_clim()[1] <= 1.0


@pytest.mark.parametrize(
  "history,horizon,shape",
  [
    (1, 1, (9, 12)),
    (3, 1, (40, 8)),
    (2, 12, (5, 60)),
    (12, 4, (25, 1)),
    (0, 2, (8, 8)),
  ],
)
def test_no_text_overlaps_for_any_number_and_shape_of_frames(
  figures, tmp_path, history, horizon, shape
):
  fields = _fields(history, horizon, shape)
  plots.picture_grid(
    *(1e-5 * x + 3e-3 for x in fields),
    tmp_path / "grid.png",
    title="A title that is as long as titles of real experiments become",
    units="kg m$^{-2}$ s$^{-1}$",
    lead_labels=[f"+{36 + i} h" for i in range(horizon)],
  )
  _assert_readable(figures[0])


def test_of_many_frames_evenly_spread_ones_are_drawn(figures, tmp_path):
  plots.picture_grid(*_fields(2, 30), tmp_path / "grid.png")
  labels = [text for text, _ in _texts(figures[0])]
  assert {"+1", "+4", "+7", "+11", "+14", "+17", "+20", "+24", "+27", "+30"} < {*labels}
  assert len(_panels(figures[0])) == 2 + 3 * 10


def test_missing_values_are_grey(tmp_path):
  past, observation, forecast = _fields(1, 1, (8, 8))
  observation[:, 2:6, 2:6] = np.nan
  path = tmp_path / "grid.png"
  plots.picture_grid(past, observation, forecast, path)
  pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
  grey = np.all(pixels == round(0.75 * 255), axis=1)
  # A quarter of the observation and of the difference, 1.9 x 1.9 inches each.
  assert grey.sum() == pytest.approx(2 * (0.95 * 110) ** 2, rel=0.05)


@pytest.mark.parametrize("value", [0.0, 273.15, np.nan])
def test_constant_and_empty_fields_can_be_drawn(tmp_path, value):
  field = np.full((2, 6, 7), value)
  plots.picture_grid(field, field, field, tmp_path / "grid.png", units="K")
  plots.animation(field, field, field, tmp_path / "movie.gif")
  assert (tmp_path / "grid.png").stat().st_size > 1000


def test_shapes_that_do_not_fit_are_refused_in_words(tmp_path):
  past, observation, forecast = _fields()
  path = tmp_path / "grid.png"
  with pytest.raises(ValueError, match="one variable"):
    plots.picture_grid(past[..., None], observation, forecast, path)
  with pytest.raises(ValueError, match="T_out"):
    plots.picture_grid(past, observation, forecast[:2], path)
  with pytest.raises(ValueError, match="labels"):
    plots.picture_grid(past, observation, forecast, path, lead_labels=["+1"])
  assert not path.exists()


def test_the_animation_shows_the_history_and_then_the_forecast(tmp_path):
  path = tmp_path / "movie.gif"
  plots.animation(*_fields(3, 5), path, title="sample", units="K")
  with Image.open(path) as movie:
    assert movie.n_frames == 3 + 5
    durations, frames = [], []
    for index in range(movie.n_frames):
      movie.seek(index)
      durations.append(movie.info["duration"])
      frames.append(np.asarray(movie.convert("RGB"), int))
  assert durations == [350] * 7 + [1400]
  height, width, _ = frames[0].shape
  forecast = (slice(height // 2, -30), slice(int(width * 0.34), width // 2))
  same = [
    bool((a[forecast] == b[forecast]).all())
    for a, b in zip(frames, frames[1:], strict=False)
  ]
  assert same == [True, True, False, False, False, False, False]


@pytest.mark.parametrize("name", ["t2m", "rain_rate"])
def test_the_palette_of_the_animation_holds_the_colours_of_both_scales(name):
  units = {"t2m": "K", "rain_rate": "mm h-1"}[name]
  scales = colours.scales(*_fields(), name=name, units=units)
  palette = np.asarray(pictures._palette(*scales).getpalette()).reshape(-1, 3)
  for scale in scales:
    gap = np.abs(scale.palette(50)[:, None] * 255 - palette[None]).max(-1).min(-1)
    assert gap.max() < 4


def test_lead_time_curves_have_a_panel_a_score_and_a_line_a_source(figures, tmp_path):
  scores = {
    "forecast": {"rmse": np.arange(1.0, 13.0), "psnr": np.full(12, np.inf)},
    "persistence": {"rmse": np.arange(2.0, 14.0)},
  }
  plots.lead_time_curves(
    scores,
    tmp_path / "lead.png",
    title="test split",
    lead_labels=[f"+{6 * i} h" for i in range(1, 13)],
  )
  [fig] = figures
  rmse, psnr = (ax for ax in fig.axes if ax.get_visible())
  assert rmse.get_title(loc="left") == "rmse"
  assert [len(rmse.lines), len(psnr.lines)] == [2, 1]
  np.testing.assert_array_equal(
    rmse.lines[1].get_ydata(), scores["persistence"]["rmse"]
  )
  assert np.isnan(psnr.lines[0].get_ydata()).all()
  assert [t.get_text() for t in fig.legends[0].get_texts()] == list(scores)
  _assert_readable(fig)


def test_learning_curves_join_train_and_validation_in_one_panel(figures, tmp_path):
  log = tmp_path / "metrics.jsonl"
  with log.open("w") as file:
    for step in range(1, 9):
      line = {
        "step": step,
        "time": 0.0,
        "epoch": step / 4,
        "train/loss": 1.0 / step,
        "progress/steps_per_second": 3.0,
      }
      if step % 4 == 0:
        line |= {"validation/loss": None if step == 4 else 2.0 / step}
      file.write(json.dumps(line) + "\n")
  plots.learning_curves(log, tmp_path / "curves.png")
  [fig] = figures
  [ax] = fig.axes
  assert ax.get_title(loc="left") == "loss"
  np.testing.assert_allclose(ax.lines[0].get_ydata(), 1.0 / np.arange(1, 9))
  np.testing.assert_array_equal(ax.lines[1].get_xdata(), [8])
  assert ax.lines[1].get_marker() == "o"  # A lone point has no line.
  _assert_readable(fig)


def test_an_empty_log_is_refused(tmp_path):
  log = tmp_path / "metrics.jsonl"
  log.write_text("")
  with pytest.raises(ValueError, match="nothing to draw"):
    plots.learning_curves(log, tmp_path / "curves.png")


def test_no_figure_and_no_setting_is_left_behind(tmp_path):
  def settings():  # Asking for the backend would load pyplot.
    return {
      name: matplotlib.rcParams[name]
      for name in matplotlib.rcParams
      if name != "backend"
    }

  before, open_figures = settings(), len(Gcf.figs)
  plots.picture_grid(*_fields(), tmp_path / "grid.png")
  plots.lead_time_curves({"forecast": {"mse": [1, 2]}}, tmp_path / "lead.pdf")
  assert settings() == before
  assert len(Gcf.figs) == open_figures
  assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.png", "lead.pdf"]
  assert (tmp_path / "lead.pdf").read_bytes().startswith(b"%PDF")
