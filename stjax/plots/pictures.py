"""Pictures of one example: the grid of frames, and the animation."""

import io
import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import cm, colors, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from input_pipeline import files
from stjax.plots import style

_MISSING = "0.75"  # This grey is in neither colour map.
_FIELD = matplotlib.colormaps["viridis"].with_extremes(bad=_MISSING)
_DIFFERENCE = matplotlib.colormaps["RdBu_r"].with_extremes(bad=_MISSING)
_MILLISECONDS = 350  # How long a frame of an animation is shown.
_MOST_COLUMNS = 10  # Frames of a picture grid.


class _Scale(NamedTuple):
  """Colours of values, and which ends of the colour bar have an arrow."""

  norm: colors.Normalize
  cmap: colors.Colormap
  extend: str


def _finite_range(*arrays: np.ndarray) -> tuple[float, float] | None:
  finite = [a[np.isfinite(a)] for a in arrays]
  finite = [a for a in finite if a.size]
  if not finite:
    return None
  return min(a.min() for a in finite), max(a.max() for a in finite)


def _scales(
  history: np.ndarray, observation: np.ndarray, forecast: np.ndarray
) -> tuple[_Scale, _Scale]:
  """Returns the scale of the fields, and that of their differences.

  The fields' scale is that of the data, so that a wild forecast cannot wash out
  the observation. Its colours saturate, and the colour bar gets an arrow.
  """
  low, high = _finite_range(history, observation) or _finite_range(forecast) or (0, 1)
  if high <= low:
    low, high = _finite_range(history, observation, forecast)
  if high <= low:
    low, high = low - 0.5, low + 0.5
  reach = _finite_range(forecast) or (low, high)
  slack = 1e-3 * (high - low)
  below, above = reach[0] < low - slack, reach[1] > high + slack
  extend = ("both" if above else "min") if below else "max" if above else "neither"
  field = _Scale(colors.Normalize(low, high), _FIELD, extend)
  least, most = _finite_range(forecast - observation) or (0, 0)
  limit = max(abs(least), abs(most)) or 1e-3 * (high - low)
  difference = _Scale(colors.Normalize(-limit, limit), _DIFFERENCE, "neither")
  return field, difference


class _Frames(NamedTuple):
  """Everything that a picture or an animation shows."""

  history: np.ndarray
  observation: np.ndarray
  forecast: np.ndarray
  past: list[str]
  leads: list[str]
  field: _Scale
  difference: _Scale


def _prepare(
  history: np.ndarray,
  observation: np.ndarray,
  forecast: np.ndarray,
  lead_labels: Sequence[str] | None,
) -> _Frames:
  arrays = [np.asarray(x, np.float64) for x in (history, observation, forecast)]
  shapes = [x.shape for x in arrays]
  if (
    any(len(shape) != 3 for shape in shapes)
    or len({shape[1:] for shape in shapes}) != 1
    or shapes[1] != shapes[2]
    or not shapes[1][0]
  ):
    raise ValueError(
      "A picture needs history [T_in, H, W] and observation and forecast "
      f"[T_out, H, W] on one grid; got {shapes}. Draw one variable of one "
      "example at a time."
    )
  past = style.frame_labels(None, 1 - len(history), len(history))
  leads = style.frame_labels(lead_labels, 1, len(observation))
  return _Frames(*arrays, past, leads, *_scales(*arrays))


def _panel_size(shape: tuple[int, int], width: float) -> tuple[float, float]:
  """Width and height in inches; very long grids are drawn out of proportion."""
  height = width * shape[0] / shape[1]
  return width, float(np.clip(height, 0.5 * width, 1.6 * width))


def _draw(ax: Axes, field: np.ndarray, scale: _Scale, origin: str):
  ax.set_xticks([])
  ax.set_yticks([])
  return ax.imshow(
    field,
    norm=scale.norm,
    cmap=scale.cmap,
    origin=origin,
    aspect="auto",  # The panel itself has the grid's proportions.
    interpolation="nearest",
  )


def _colour_bar(fig: Figure, cax: Axes, scale: _Scale, units: str) -> None:
  """Draws a colour bar; its units have the power of ten that the ticks lack."""
  size = max(abs(scale.norm.vmin), abs(scale.norm.vmax))
  power = int(np.floor(np.log10(size)))
  power = 0 if -2 <= power < 4 else 3 * (power // 3)
  label = f"$10^{{{power}}}$ {units}".strip() if power else units
  bar = fig.colorbar(
    cm.ScalarMappable(scale.norm, scale.cmap),
    cax=cax,
    extend=scale.extend,
    extendfrac=0.06,
    label=label,
  )
  height = cax.get_position().height * fig.get_figheight()
  bins = max(2, min(7, int(height / 0.35)))
  bar.locator = ticker.MaxNLocator(bins, steps=[1, 2, 5, 10])
  span = (scale.norm.vmax - scale.norm.vmin) / 10.0**power
  digits = max(0, -int(np.floor(np.log10(span / bins))))
  bar.formatter = ticker.FuncFormatter(
    lambda value, _: f"{value / 10.0**power:.{digits}f}".replace("-", "\N{MINUS SIGN}")
  )
  bar.update_ticks()
  bar.outline.set_linewidth(0.6)
  # This puts the labels of several bars into one line.
  width = cax.get_position().width * fig.get_figwidth()
  cax.yaxis.set_label_coords(0.65 / width, 0.5)


def _palette() -> Image.Image:
  """Returns 256 colours that hold both colour maps and the greys of text.

  All frames of a GIF share the palette, since frames with palettes of their own
  would flicker.
  """
  greys = np.linspace(0.0, 1.0, 33)[:, None].repeat(3, 1)
  missing = np.full((1, 3), float(_MISSING))
  rgb = np.concatenate(
    [
      _FIELD(np.linspace(0, 1, 111))[:, :3],
      _DIFFERENCE(np.linspace(0, 1, 111))[:, :3],
      greys,
      missing,
    ]
  )
  image = Image.new("P", (1, 1))
  image.putpalette((rgb * 255).round().astype(np.uint8).tobytes())
  return image


def _title(fig: Figure, title: str, place: tuple[float, float], room: float) -> None:
  """Draws the title, if there is one, in a size that fits `room` inches.

  Args:
    fig: the figure.
    title: the text.
    place: inches from the left and from the upper edge.
    room: width in inches.
  """
  if title:
    size = float(np.clip(72 * room / (0.6 * len(title)), 6.5, 11.5))
    x, y = place[0] / fig.get_figwidth(), 1 - place[1] / fig.get_figheight()
    fig.text(x, y, title, fontsize=size, va="center", ha="left")


def _root_mean_square(values: np.ndarray) -> float:
  values = values[np.isfinite(values)]
  return float(np.sqrt((values**2).mean())) if values.size else np.nan


def picture_grid(
  history: np.ndarray,
  observation: np.ndarray,
  forecast: np.ndarray,
  path: str | os.PathLike,
  *,
  title: str = "",
  units: str = "",
  lead_labels: Sequence[str] | None = None,
  origin: str = "upper",
  made: str = "forecast",
) -> None:
  """Draws a row each of history, observation, forecast and difference.

  The first three rows share one colour scale, that of the data. The difference
  (forecast - observation) has a symmetric scale, and the root mean square of
  each of its frames below. NaN is grey. If there are more than 10 frames,
  evenly spread ones are drawn.

  Args:
    history: [T_in, H, W] of one variable of one example, in physical units.
    observation: [T_out, H, W].
    forecast: [T_out, H, W].
    path: the file; .png, .pdf or .svg.
    title: title above everything.
    units: units beside the colour bars, e.g. "K".
    lead_labels: [T_out] labels of the frames; None means +1, ..., +T_out.
    origin: "lower" if the first row of the grid is the southernmost.
    made: what a forecast is called, where it is none.

  Raises:
    ValueError: the shapes do not fit.
  """
  history, observation, forecast, past, leads, field, difference = _prepare(
    history, observation, forecast, lead_labels
  )
  error = forecast - observation
  before = style.picked(len(history), _MOST_COLUMNS) if len(history) else []
  after = style.picked(len(observation), _MOST_COLUMNS)
  columns = max(len(before), len(after))

  width, height = _panel_size(
    history.shape[1:], float(np.clip(9.5 / columns, 1.25, 1.9))
  )
  gap, left, right = 0.07, 0.45, 1.05
  head, label, foot = 0.5 if title else 0.15, 0.22, 0.28
  total_width = left + columns * (width + gap) + right
  # Inches from the upper edge of the figure to that of each row.
  tops = [head + label]
  tops.append(tops[0] + height + 0.08 + label)
  tops.append(tops[1] + height + gap)
  tops.append(tops[2] + height + 2 * gap)
  total_height = tops[3] + height + foot

  def place(fig, x, top, w, h):
    return fig.add_axes(
      (x / total_width, 1 - (top + h) / total_height, w / total_width, h / total_height)
    )

  with matplotlib.rc_context(style.RC):
    fig = Figure(figsize=(total_width, total_height))
    FigureCanvasAgg(fig)
    rows = (
      ("history", history, before, past, field),
      ("observation", observation, after, leads, field),
      (made, forecast, after, None, field),
      ("difference", error, after, None, difference),
    )
    for top, (name, frames, picked, names, scale) in zip(tops, rows, strict=True):
      for column, index in enumerate(picked):
        ax = place(fig, left + column * (width + gap), top, width, height)
        _draw(ax, frames[index], scale, origin)
        if names is not None:
          ax.set_title(names[index], fontsize=8.5, pad=3)
        if scale is difference:
          ax.set_xlabel(
            f"rms {_root_mean_square(frames[index]):.3g}", fontsize=7.5, labelpad=3
          )
      fig.text(
        (left - 0.12) / total_width,
        1 - (top + height / 2) / total_height,
        name,
        rotation=90,
        ha="right",
        va="center",
        fontsize=9.5 if height > 0.85 else 7.5,
      )
    _title(fig, title, (left, 0.3), total_width - left - 0.1)
    bar = left + columns * (width + gap) + 0.06
    _colour_bar(
      fig, place(fig, bar, tops[0], 0.12, tops[2] + height - tops[0]), field, units
    )
    _colour_bar(fig, place(fig, bar, tops[3], 0.12, height), difference, units)
    style.save(fig, path)


def animation(
  history: np.ndarray,
  observation: np.ndarray,
  forecast: np.ndarray,
  path: str | os.PathLike,
  *,
  title: str = "",
  units: str = "",
  lead_labels: Sequence[str] | None = None,
  origin: str = "upper",
  made: str = "forecast",
) -> None:
  """Writes a GIF with observation, forecast and difference side by side.

  The history comes first, in the panel of the observation, while the other
  panels are empty. The scales are those of `picture_grid`.

  Args:
    history: [T_in, H, W] of one variable of one example, in physical units.
    observation: [T_out, H, W].
    forecast: [T_out, H, W].
    path: the file, .gif.
    title: title above the panels.
    units: units beside the colour bars.
    lead_labels: [T_out] labels of the frames; None means +1, ..., +T_out.
    origin: "lower" if the first row of the grid is the southernmost.
    made: what a forecast is called, where it is none.

  Raises:
    ValueError: the shapes do not fit.
  """
  history, observation, forecast, past, leads, field, difference = _prepare(
    history, observation, forecast, lead_labels
  )
  width, height = _panel_size(history.shape[1:], 2.6)
  left, gap, bar, room, head = 0.15, 0.15, 0.12, 0.85, 0.85
  total_width = left + 3 * width + gap + 2 * (0.08 + bar + room)
  total_height = head + height + 0.2
  with matplotlib.rc_context(style.RC):
    fig = Figure(figsize=(total_width, total_height), dpi=90)
    canvas = FigureCanvasAgg(fig)

    def place(x, w):
      return fig.add_axes(
        (x / total_width, 0.2 / total_height, w / total_width, height / total_height)
      )

    x = left
    axes = [place(x, width), place(x := x + width + gap, width)]
    _colour_bar(fig, place(x := x + width + 0.08, bar), field, units)
    axes.append(place(x := x + bar + room, width))
    _colour_bar(fig, place(x + width + 0.08, bar), difference, units)
    empty = np.full(history.shape[1:], np.nan)
    images, notes = [], []
    for ax, name, scale in zip(
      axes, ("observation", made, "difference"), (field, field, difference), strict=True
    ):
      ax.set_title(name, fontsize=10, pad=4)
      images.append(_draw(ax, empty, scale, origin))
      ax.set_facecolor("0.95")
      notes.append(
        ax.text(
          0.5,
          0.5,
          f"from {leads[0]}",
          transform=ax.transAxes,
          ha="center",
          va="center",
          color="0.45",
          fontsize=10,
        )
      )
    _title(fig, title, (left, 0.26), 0.7 * total_width)
    when = fig.text(
      1 - 0.15 / total_width,
      1 - 0.26 / total_height,
      "",
      fontsize=11,
      va="center",
      ha="right",
    )

    frames = []
    for step in range(-len(history), len(observation)):
      known = step < 0
      when.set_text(f"history {past[step]}" if known else f"lead time {leads[step]}")
      seen = history[step] if known else observation[step]
      images[0].set_data(np.ma.masked_invalid(seen))
      if not known:
        images[1].set_data(np.ma.masked_invalid(forecast[step]))
        images[2].set_data(np.ma.masked_invalid(forecast[step] - seen))
      for image, note in zip(images[1:], notes[1:], strict=True):
        image.set_visible(not known)
        note.set_visible(known)
      notes[0].set_visible(False)
      canvas.draw()
      pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
      frames.append(Image.fromarray(pixels))
  palette = _palette()
  frames = [
    frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
  ]
  data = io.BytesIO()
  frames[0].save(
    data,
    format="GIF",
    save_all=True,
    append_images=frames[1:],
    # The last frame stays longer, so that the end is seen before it starts again.
    duration=[_MILLISECONDS] * (len(frames) - 1) + [4 * _MILLISECONDS],
    loop=0,
  )
  files.write_atomically(path, data.getvalue())
