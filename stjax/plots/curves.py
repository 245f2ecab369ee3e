"""Curves: scores by lead time, and scalars by training step."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from input_pipeline import files
from stjax.plots import style

# Colours that colour-blind readers can tell apart (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINEAR = ("learning_rate",)  # Never on a logarithmic axis.


class _Line(NamedTuple):
  name: str
  x: np.ndarray
  y: np.ndarray


def _panels(
  panels: Mapping[str, Sequence[_Line]],
  path: str | os.PathLike,
  *,
  xlabel: str,
  title: str,
  ticks: tuple[Sequence[float], Sequence[str]] | None = None,
  markers: bool = False,
) -> None:
  """Draws one panel of lines for every name, with one legend."""
  if not panels:
    raise ValueError(f"There is nothing to draw in {path}.")
  columns = min(len(panels), 3 if len(panels) != 4 else 2)
  rows = -(-len(panels) // columns)
  names = list(dict.fromkeys(n.name for p in panels.values() for n in p))
  dense = max(len(n.x) for p in panels.values() for n in p) > 60
  looks = {
    name: dict(
      color=_COLOURS[i % len(_COLOURS)],
      linewidth=1.9 if i == 0 and not dense else 1.4,
      linestyle="-" if i == 0 else ("--", "-.", ":")[(i - 1) % 3],
      marker="o" if markers else None,
      markersize=3.2,
      zorder=3 if i == 0 else 2,
    )
    for i, name in enumerate(names)
  }
  open_frame = {"axes.spines.top": False, "axes.spines.right": False}
  with matplotlib.rc_context(style.RC | open_frame):
    fig = Figure(figsize=(3.5 * columns + 0.3, 2.5 * rows + 0.75), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    handles = {}
    for ax, (panel, lines) in zip(axes, panels.items(), strict=False):
      for line in lines:
        x, y = np.asarray(line.x, float), np.asarray(line.y, float)
        y = np.where(np.isfinite(y), y, np.nan)
        look = dict(looks[line.name])
        if np.isfinite(y).sum() == 1:
          look["marker"] = "o"
        [handles[line.name]] = ax.plot(x, y, **look)
      values = np.concatenate([np.asarray(n.y, float) for n in lines])
      values = values[np.isfinite(values)]
      wide = values.size and 0 < 30 * values.min() < values.max()
      if wide and panel not in _LINEAR:
        ax.set_yscale("log")
      ax.set_title(panel, loc="left", fontsize=10)
      ax.set_xlabel(xlabel)
      ax.grid(True, color="0.9", linewidth=0.6)
      ax.set_axisbelow(True)
      if ticks is not None:
        ax.set_xticks(*ticks)
    for ax in axes[len(panels) :]:
      ax.set_visible(False)
    if len(names) > 1 or names[0]:
      fig.legend(
        [handles[n] for n in names],
        names,
        loc="outside lower center",
        ncols=min(len(names), 6),
        frameon=False,
      )
    if title:
      fig.suptitle(title, fontsize=11.5, x=0.01, ha="left")
    style.save(fig, path)


def lead_time_curves(
  scores: Mapping[str, Mapping[str, np.ndarray]],
  path: str | os.PathLike,
  *,
  lead_labels: Sequence[str] | None = None,
  title: str = "",
) -> None:
  """Draws scores by lead time, a panel a score and a line a source.

  Args:
    scores: {source: {score: [T]}}; the first source is drawn thickest. Values
      that are not finite are left out.
    path: the file; .png, .pdf or .svg.
    lead_labels: [T] below the axis; default +1, ..., +T.
    title: above the panels.

  Raises:
    ValueError: there are no scores.
  """
  panels: dict[str, list[_Line]] = {}
  length = 0
  for source, by_name in scores.items():
    for name, values in by_name.items():
      length = max(length, len(values))
      panels.setdefault(name, []).append(
        _Line(source, 1 + np.arange(len(values)), np.asarray(values))
      )
  labels = style.frame_labels(lead_labels, 1, length)
  room = 5 if max(map(len, labels), default=0) > 4 else 10
  shown = np.arange(0, length, max(1, -(-length // room)))
  _panels(
    panels,
    path,
    xlabel="lead time",
    title=title,
    ticks=(shown + 1, [labels[i] for i in shown]),
    markers=length <= 30,
  )


def learning_curves(
  log: str | os.PathLike,
  path: str | os.PathLike,
  *,
  title: str = "",
  max_panels: int = 12,
) -> None:
  """Draws the scalars of a run from the JSON lines of `JsonLinesWriter`.

  "train/loss" and "validation/loss" are two lines of the panel "loss".
  Throughput ("progress/...") and names without a group are left out.

  Args:
    log: the file of JSON lines.
    path: the file; .png, .pdf or .svg.
    title: above the panels.
    max_panels: panels of more than one line come first; the rest is cut.

  Raises:
    ValueError: the log holds nothing to draw.
  """
  panels: dict[str, dict[str, list[tuple[int, Any]]]] = {}
  for line in files.read_json_lines(log):
    for name, value in line.items():
      group, _, panel = name.partition("/")
      if panel and group != "progress" and value is not None:
        points = panels.setdefault(panel, {}).setdefault(group, [])
        points.append((line["step"], value))
  order = sorted(panels, key=lambda p: (p != "loss", -len(panels[p])))
  _panels(
    {
      panel: [
        _Line(group, *np.asarray(sorted(points), float).T)
        for group, points in panels[panel].items()
      ]
      for panel in order[:max_panels]
    },
    path,
    xlabel="step",
    title=title,
  )
