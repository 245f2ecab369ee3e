"""The look of all figures, their labels, and how they are saved."""

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from input_pipeline import files

RC = {
  "font.family": "sans-serif",
  "font.size": 9.0,
  "axes.titlesize": 9.0,
  "axes.linewidth": 0.6,
  "figure.dpi": 100.0,
  "savefig.bbox": None,
  "text.usetex": False,
}
# Colours that colour-blind readers can tell apart (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FORECAST = "forecast"  # The source that leads every figure.
_DPI = 110
# What files write as the units of plain numbers.
_NO_UNITS = ("", "1", "-", "none", "unitless", "dimensionless", "nondimensional")
# Calendars whose dates need no word of caution.
_CIVIL = ("", "standard", "gregorian", "proleptic_gregorian")


@contextlib.contextmanager
def figure(
  path: str | os.PathLike, width: float, height: float, title: str = ""
) -> Iterator[Figure]:
  """Makes a figure for curves, and writes it when the context closes.

  Args:
    path: the file; .png, .pdf or .svg.
    width: width in inches.
    height: height in inches.
    title: title above the axes.

  Yields:
    The figure, to be drawn into. Its axes have no upper and no right edge.
  """
  open_frame = {"axes.spines.top": False, "axes.spines.right": False}
  with matplotlib.rc_context(RC | open_frame):
    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    yield fig
    if title:
      longest = max(map(len, title.splitlines()))
      size = float(np.clip(72 * width / (0.58 * longest), 7.0, 11.5))
      fig.suptitle(title, fontsize=size, x=0.01, ha="left")
    save(fig, path)


def grid(ax: Axes) -> None:
  """Draws light grid lines behind everything else."""
  ax.grid(True, color="0.9", linewidth=0.6)
  ax.set_axisbelow(True)


def legend(fig: Figure, columns: int, *entries: Any) -> None:
  """Puts a legend below the axes; entries are handles and labels, or none."""
  fig.legend(*entries, loc="outside lower center", ncols=columns, frameon=False)


def finite(values: np.ndarray) -> np.ndarray:
  """Returns values as floats, with NaN in place of what is not finite."""
  values = np.asarray(values, float)
  return np.where(np.isfinite(values), values, np.nan)


def frame_labels(labels: Sequence[str] | None, first: int, length: int) -> list[str]:
  """Returns the labels as texts; without any, counts from `first`: -1, 0, +1."""
  if labels is None:
    return [f"{first + i:+d}" if first + i else "0" for i in range(length)]
  if len(labels) != length:
    raise ValueError(f"Got {len(labels)} labels for {length} frames.")
  return [str(label) for label in labels]


def picked(length: int, most: int) -> np.ndarray:
  """Returns the indices of at most `most` frames, evenly spread over all."""
  indices = np.linspace(0, length - 1, min(length, most))
  return np.unique(indices.round()).astype(int)


def even_ticks(length: int, most: int) -> np.ndarray:
  """Returns the indices of at most `most` lead times at equal distances.

  Lead time number n has the index n - 1, and those that are taken are multiples
  of one number, such as +3, +6, +9.
  """
  step = max(1, -(-length // most))
  return np.arange(step, length + 1, step) - 1


def tick_room(labels: Sequence[str], inches: float) -> int:
  """Returns how many of the labels fit side by side, which is at least 1."""
  return max(1, int(inches / (0.075 * max(map(len, labels), default=1) + 0.12)))


def units(text: Any) -> str:
  """Returns units as they are drawn, which is "" for plain numbers."""
  text = str(text).strip()
  return "" if text.lower() in _NO_UNITS else text


def with_units(name: str, text: Any) -> str:
  """Returns "name (units)", or the name alone for plain numbers."""
  shown = units(text)
  return f"{name} ({shown})" if shown else name


def squared(text: Any) -> str:
  """Returns the square of units, such as "K²" or "(m s-1)²"; "" for plain numbers."""
  shown = units(text)
  if not shown:
    return ""
  return (shown if shown.isalpha() else f"({shown})") + "\N{SUPERSCRIPT TWO}"


def plain(text: Any) -> str:
  """Returns a name from the data so that no sign of it is read as a formula."""
  return str(text).replace("$", r"\$")


def dates(values: Sequence) -> list[str]:
  """Returns dates as texts that leave out what all of them have as 0.

  Args:
    values: datetime64 values, or cftime dates of a model's calendar.

  Returns:
    Texts such as "2019-03-28" or "2019-03-28 05:00"; "" for a missing date.
  """
  texts = [_date(value) for value in np.asarray(values).ravel()]
  for ending in ("T00:00:00.000000", ":00.000000", ".000000", "000"):
    if all(text.endswith(ending) for text in texts if text):
      texts = [text.removesuffix(ending) for text in texts]
      break
  return [text.replace("T", " ") for text in texts]


def _date(value: Any) -> str:
  """Returns a date with microseconds, or "" if it is missing."""
  if isinstance(value, np.datetime64):
    return "" if np.isnat(value) else str(np.datetime_as_string(value, unit="us"))
  if not hasattr(value, "month"):
    return ""
  day = f"{value.year:04d}-{value.month:02d}-{value.day:02d}"
  clock = f"{value.hour:02d}:{value.minute:02d}:{value.second:02d}"
  return f"{day}T{clock}.{value.microsecond:06d}"


def calendar(values: Sequence) -> str:
  """Returns the name of the model's calendar of dates, "" for that of the world."""
  for value in np.asarray(values).ravel():
    name = str(getattr(value, "calendar", ""))
    return "" if name in _CIVIL else name
  return ""


def file_stems(names: Sequence[str]) -> list[str]:
  """Returns parts of file names for names, which differ wherever the names do."""
  stems: list[str] = []
  for name in names:
    stem = base = re.sub(r"[^\w.+-]", "_", str(name))
    number = 1
    while stem in stems:
      number += 1
      stem = f"{base}_{number}"
    stems.append(stem)
  return stems


def save(fig: Figure, path: str | os.PathLike) -> None:
  """Writes the figure in the format that the file name asks for."""
  data = io.BytesIO()
  kind = pathlib.Path(path).suffix.lstrip(".") or "png"
  fig.savefig(data, format=kind, dpi=_DPI)
  files.write_atomically(path, data.getvalue())
