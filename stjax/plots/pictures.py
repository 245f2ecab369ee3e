"""Pictures of one example: the grid of frames, and the animation."""

import io
import os
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import cm, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from input_pipeline import files
from stjax.plots import colours, maps, style

_MILLISECONDS = 350  # How long a frame of an animation is shown.
_MOST_COLUMNS = 10  # Frames of a picture grid.


class Subject(NamedTuple):
  """What a picture shows, where, and when.

  Attributes:
    title: title above everything; a second line may follow a line break.
    name: name of the variable, which helps to choose its colours.
    standard_name: its CF standard name, which does so, too.
    units: its units, such as "K"; "1" is not drawn.
    lead_labels: [T_out] labels of the frames; None means +1, ..., +T_out.
    past_labels: [T_in] labels of the history; None means -T_in + 1, ..., 0.
    start: date of the last frame of the history, or "".
    valid: [T_out] dates of the frames, or ().
    grid: the map's axes; None means rows and columns from the upper left.
    made: what a forecast is called, where it is none.
    note: what else is said below the picture.
  """

  title: str = ""
  name: str = ""
  standard_name: str = ""
  units: str = ""
  lead_labels: Sequence[str] | None = None
  past_labels: Sequence[str] | None = None
  start: str = ""
  valid: Sequence[str] = ()
  grid: maps.Grid | None = None
  made: str = "forecast"
  note: str = ""

  @property
  def difference(self) -> str:
    """The definition of a difference."""
    return f"{self.made} \N{MINUS SIGN} observation"


class _Frames(NamedTuple):
  """Everything that a picture or an animation shows."""

  history: np.ndarray
  observation: np.ndarray
  forecast: np.ndarray
  past: list[str]
  leads: list[str]
  field: colours.Scale
  difference: colours.Scale
  grid: maps.Grid


def _prepare(
  history: np.ndarray, observation: np.ndarray, forecast: np.ndarray, subject: Subject
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
  past = style.frame_labels(subject.past_labels, 1 - len(history), len(history))
  leads = style.frame_labels(subject.lead_labels, 1, len(observation))
  if len(subject.valid) not in (0, len(observation)):
    raise ValueError(
      f"Got {len(subject.valid)} labels of valid times for {len(observation)} frames."
    )
  grid = subject.grid or maps.index_grid(*shapes[1][1:])
  scales = colours.scales(
    *arrays, name=subject.name, standard_name=subject.standard_name, units=subject.units
  )
  return _Frames(*map(grid.arrange, arrays), past, leads, *scales, grid)


def _panel_size(proportion: float, width: float) -> tuple[float, float]:
  """Width and height in inches; very long grids are drawn out of proportion."""
  return width, float(np.clip(width * proportion, 0.5 * width, 1.6 * width))


def _draw(ax: Axes, field: np.ndarray, scale: colours.Scale, grid: maps.Grid):
  return ax.imshow(
    field,
    norm=scale.norm,
    cmap=scale.cmap,
    origin=grid.origin,
    aspect="auto",  # The panel itself has the grid's proportions.
    interpolation="nearest",
  )


def _colour_bar(fig: Figure, cax: Axes, scale: colours.Scale, units: str) -> None:
  """Draws a colour bar; its units have the power of ten that the ticks lack."""
  label = colours.label(scale, units)
  power = 0
  if scale.ticks is None:
    size = max(abs(scale.norm.vmin), abs(scale.norm.vmax))
    power = int(np.floor(np.log10(size)))
    power = 0 if -2 <= power < 4 else 3 * (power // 3)
    label = f"$10^{{{power}}}$ {label}".strip() if power else label
  bar = fig.colorbar(
    cm.ScalarMappable(scale.norm, scale.cmap),
    cax=cax,
    extend=scale.extend,
    extendfrac=0.06,
    label=label,
  )
  height = cax.get_position().height * fig.get_figheight()
  cax.yaxis.label.set_fontsize(np.clip(72 * height / (0.6 * max(len(label), 1)), 6, 9))
  if scale.ticks is None:
    bins = max(2, min(7, int(height / 0.35)))
    bar.locator = ticker.MaxNLocator(bins, steps=[1, 2, 5, 10])
    span = (scale.norm.vmax - scale.norm.vmin) / 10.0**power
    digits = max(0, -int(np.floor(np.log10(span / bins))))
    bar.formatter = ticker.FuncFormatter(
      lambda value, _: f"{value / 10.0**power:.{digits}f}".replace(
        "-", "\N{MINUS SIGN}"
      )
    )
    bar.update_ticks()
  else:
    # Low bars have no room for all classes; both signs keep the same ones.
    sizes = sorted({abs(tick) for tick in scale.ticks}, reverse=True)
    kept = sizes[:: -(-len(scale.ticks) // max(1, int(height / 0.14)))]
    named = [
      pair
      for pair in zip(scale.ticks, scale.texts, strict=True)
      if abs(pair[0]) in kept
    ]
    bar.set_ticks([tick for tick, _ in named], labels=[text for _, text in named])
    bar.minorticks_off()
    cax.tick_params(labelsize=7)
  bar.outline.set_linewidth(0.6)
  # This puts the labels of several bars into one line.
  width = cax.get_position().width * fig.get_figwidth()
  cax.yaxis.set_label_coords(0.65 / width, 0.5)


def _palette(*scales: colours.Scale) -> Image.Image:
  """Returns 256 colours that hold those of the scales and the greys of text.

  All frames of a GIF share the palette, since frames with palettes of their own
  would flicker.
  """
  greys = np.linspace(0.0, 1.0, 33)[:, None].repeat(3, 1)
  missing = np.full((1, 3), float(colours.MISSING))
  rgb = np.concatenate([*(scale.palette(111) for scale in scales), greys, missing])
  image = Image.new("P", (1, 1))
  image.putpalette((rgb * 255).round().astype(np.uint8).tobytes())
  return image


def _title(fig: Figure, title: str, place: tuple[float, float], room: float) -> None:
  """Draws the title, if there is one, in sizes that fit `room` inches.

  Args:
    fig: the figure.
    title: the text, of one or two lines.
    place: inches from the left and from the upper edge.
    room: width in inches.
  """
  largest = 11.5
  for number, line in enumerate(title.splitlines()):
    size = float(np.clip(72 * room / (0.6 * max(len(line), 1)), 5.5, largest))
    x, y = place[0], place[1] + 0.2 * number
    fig.text(
      x / fig.get_figwidth(),
      1 - y / fig.get_figheight(),
      style.plain(line),
      fontsize=size,
      va="center",
      ha="left",
    )
    largest = 9.0


def _root_mean_square(values: np.ndarray, weights: np.ndarray | None) -> float:
  """Returns the rms of values [H, W], of which NaN does not count."""
  counts = np.isfinite(values)
  share = np.where(counts, 1.0 if weights is None else weights, 0.0)
  if not share.sum() > 0:
    return np.nan
  return float(np.sqrt((share * np.where(counts, values, 0) ** 2).sum() / share.sum()))


def picture_grid(
  history: np.ndarray,
  observation: np.ndarray,
  forecast: np.ndarray,
  path: str | os.PathLike,
  *,
  weights: np.ndarray | None = None,
  **subject,
) -> None:
  """Draws a row each of history, observation, forecast and difference.

  The first three rows share one colour scale, that of the data (see
  `colours.scales`). The difference (forecast - observation) has a symmetric
  scale, and the root mean square of each of its frames above. NaN is grey. If
  there are more than 10 frames, evenly spread ones are drawn.

  Args:
    history: [T_in, H, W] of one variable of one example, in physical units.
    observation: [T_out, H, W].
    forecast: [T_out, H, W].
    path: the file; .png, .pdf or .svg.
    weights: weights of the cells in the root mean square, [H] or [H, W]; None
      weighs all alike.
    **subject: fields of `Subject`.

  Raises:
    ValueError: the shapes do not fit.
  """
  about = Subject(**subject)
  frames = _prepare(history, observation, forecast, about)
  history, observation, forecast = frames[:3]
  past, leads, field, difference, grid = frames[3:]
  if weights is not None:
    height, width = history.shape[1:][:: -1 if grid.transposed else 1]
    cells = np.broadcast_to(
      np.asarray(weights, float).reshape(height, -1), (height, width)
    )
    weights = grid.arrange(cells)
  error = forecast - observation
  before = style.picked(len(history), _MOST_COLUMNS) if len(history) else []
  after = style.picked(len(observation), _MOST_COLUMNS)
  columns = max(len(before), len(after))
  if about.start:
    past = [*past[:-1], f"{past[-1]}\n{about.start}"] if past else past
  if about.valid:
    leads = [f"{a}\n{b}" for a, b in zip(leads, about.valid, strict=True)]

  width, height = _panel_size(grid.proportion, float(np.clip(9.5 / columns, 1.25, 1.9)))
  gap, left, right = 0.07, 0.95, 1.05
  head = 0.15 + (0.35 if about.title else 0) + 0.2 * about.title.count("\n")
  label = 0.22 + 0.13 * bool(about.start or about.valid)
  foot, foot_line = 0.4, 0.15
  total_width = left + columns * (width + gap) + right
  # Inches from the upper edge of the figure to that of each row.
  tops = [head + label]
  tops.append(tops[0] + height + 0.08 + label)
  tops.append(tops[1] + height + gap)
  tops.append(tops[2] + height + 0.24)
  notes = [f"difference = {about.difference}; rms of its observed cells"]
  notes[0] += ", weighted by area" if weights is not None else ", all weighing the same"
  notes[0] += "; missing cells are grey"
  notes += [text for text in (about.note, grid.corners) if text]
  room = total_width - 0.35
  notes = [part for text in notes for part in _wrapped(text, int(room / 0.062))]
  total_height = tops[3] + height + foot + foot_line * len(notes) + 0.08

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
      (about.made, forecast, after, None, field),
      ("difference", error, after, None, difference),
    )
    for top, (name, shown, picked, names, scale) in zip(tops, rows, strict=True):
      for column, index in enumerate(picked):
        ax = place(fig, left + column * (width + gap), top, width, height)
        _draw(ax, shown[index], scale, grid)
        last = shown is error
        grid.draw(ax, left=column == 0, below=last, size=(width, height))
        if names is not None:
          ax.set_title(names[index], fontsize=8.5 if label < 0.3 else 7.5, pad=3)
        if last:
          rms = _root_mean_square(shown[index], weights)
          text = f"rms {rms:.3g} {style.units(about.units)}".strip()
          ax.set_title(
            text if np.isfinite(rms) else "nothing observed", fontsize=7.5, pad=3
          )
      fig.text(
        0.28 / total_width,
        1 - (top + height / 2) / total_height,
        name,
        rotation=90,
        ha="right",
        va="center",
        fontsize=9.5 if height > 0.85 else 7.5,
      )
    for number, text in enumerate(notes):
      below = tops[3] + height + foot + foot_line * (number + 0.3)
      fig.text(
        0.15 / total_width,
        1 - below / total_height,
        text,
        fontsize=7,
        color="0.3",
        va="center",
      )
    _title(fig, about.title, (0.15, 0.3), total_width - 0.3)
    bar = left + columns * (width + gap) + 0.06
    cax = place(fig, bar, tops[0], 0.12, tops[2] + height - tops[0])
    _colour_bar(fig, cax, field, about.units)
    _colour_bar(fig, place(fig, bar, tops[3], 0.12, height), difference, about.units)
    style.save(fig, path)


def _wrapped(text: str, most: int) -> list[str]:
  return textwrap.wrap(text, max(most, 20))


def animation(
  history: np.ndarray,
  observation: np.ndarray,
  forecast: np.ndarray,
  path: str | os.PathLike,
  **subject,
) -> None:
  """Writes a GIF with observation, forecast and difference side by side.

  The history comes first, in the panel of the observation, while the other
  panels are empty. The scales are those of `picture_grid`.

  Args:
    history: [T_in, H, W] of one variable of one example, in physical units.
    observation: [T_out, H, W].
    forecast: [T_out, H, W].
    path: the file, .gif.
    **subject: fields of `Subject`.

  Raises:
    ValueError: the shapes do not fit.
  """
  about = Subject(**subject)
  prepared = _prepare(history, observation, forecast, about)
  history, observation, forecast = prepared[:3]
  past, leads, field, difference, grid = prepared[3:]
  width, height = _panel_size(grid.proportion, 2.6)
  left, gap, bar, room, foot = 0.65, 0.15, 0.12, 0.85, 0.4
  head = 0.8 + 0.25 * bool(about.title) + 0.2 * about.title.count("\n")
  total_width = left + 3 * width + gap + 2 * (0.08 + bar + room)
  total_height = head + height + foot
  with matplotlib.rc_context(style.RC):
    fig = Figure(figsize=(total_width, total_height), dpi=90)
    canvas = FigureCanvasAgg(fig)

    def place(x, w):
      return fig.add_axes(
        (x / total_width, foot / total_height, w / total_width, height / total_height)
      )

    x = left
    axes = [place(x, width), place(x := x + width + gap, width)]
    _colour_bar(fig, place(x := x + width + 0.08, bar), field, about.units)
    axes.append(place(x := x + bar + room, width))
    _colour_bar(fig, place(x + width + 0.08, bar), difference, about.units)
    empty = np.full(history.shape[1:], np.nan)
    images, notes = [], []
    for number, (ax, name, scale) in enumerate(
      zip(
        axes,
        ("observation", about.made, about.difference),
        (field, field, difference),
        strict=True,
      )
    ):
      ax.set_title(name, fontsize=10, pad=4)
      images.append(_draw(ax, empty, scale, grid))
      grid.draw(ax, left=number == 0, below=True, size=(width, height))
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
    _title(fig, about.title, (0.15, 0.26), total_width - 0.3)
    when = fig.text(
      0.15 / total_width,
      1 - (head - 0.42) / total_height,
      "",
      fontsize=10.5,
      va="center",
      ha="left",
    )

    frames = []
    for step in range(-len(history), len(observation)):
      known = step < 0
      if known:
        text = f"history {past[step]}"
        if step == -1 and about.start:
          text += f", {about.start}"
      else:
        text = f"lead time {leads[step]}"
        if about.valid:
          text += f", valid {about.valid[step]}"
      when.set_text(text)
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
  palette = _palette(field, difference)
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
