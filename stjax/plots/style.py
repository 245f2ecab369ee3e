"""What all figures share: their look, their labels, how they are saved."""

import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
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


def frame_labels(labels: Sequence[str] | None, first: int, length: int) -> list[str]:
  """Returns the labels as given, or counts from `first`: -1, 0, +1."""
  if labels is None:
    return [f"{first + i:+d}" if first + i else "0" for i in range(length)]
  if len(labels) != length:
    raise ValueError(f"Got {len(labels)} labels for {length} frames.")
  return [str(label) for label in labels]


def picked(length: int, most: int) -> np.ndarray:
  """Indices of at most `most` frames, evenly spread, ends included."""
  indices = np.linspace(0, length - 1, min(length, most))
  return np.unique(indices.round()).astype(int)


def save(fig: Figure, path: str | os.PathLike, dpi: int = 110) -> None:
  """Writes the figure in the format that the file name asks for."""
  data = io.BytesIO()
  kind = pathlib.Path(path).suffix.lstrip(".") or "png"
  fig.savefig(data, format=kind, dpi=dpi)
  files.write_atomically(path, data.getvalue())
