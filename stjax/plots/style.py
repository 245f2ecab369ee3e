"""The look of all figures, their labels, and how they are saved."""

import contextlib
import io
import os
import pathlib
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
_DPI = 110


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
      fig.suptitle(title, fontsize=11.5, x=0.01, ha="left")
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


def save(fig: Figure, path: str | os.PathLike) -> None:
  """Writes the figure in the format that the file name asks for."""
  data = io.BytesIO()
  kind = pathlib.Path(path).suffix.lstrip(".") or "png"
  fig.savefig(data, format=kind, dpi=_DPI)
  files.write_atomically(path, data.getvalue())
