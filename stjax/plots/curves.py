"""Curves: scores by lead time, and scalars by training step."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import files
from stjax.plots import style

_LINEAR = ("learning_rate",)  # Scalars that never get a logarithmic axis.
# The lines of the learning curves, in this order.
_GROUPS = ("train", "validation")
# These learning curves are those of another score times a constant.
_REPEATED = "_spatialnorm"


class _Line(NamedTuple):
  name: str
  x: np.ndarray
  y: np.ndarray


def _panels(
  panels: Mapping[str, Sequence[_Line]],
  path: str | os.PathLike,
  *,
  xlabel: str,
  title: str = "",
  ylabels: Mapping[str, str] | None = None,
  leaders: Sequence[str] = (),
  ticks: tuple[Sequence[float], Sequence[str]] | None = None,
  markers: bool = False,
) -> None:
  """Draws one panel of lines for every name, with one legend for all.

  Lines that are named in `leaders` come first in every panel and in the legend,
  whatever the order of the others.
  """
  if not panels:
    raise ValueError(f"There is nothing to draw in {path}.")
  columns = min(len(panels), 2 if len(panels) == 4 else 3 if len(panels) < 13 else 5)
  rows = -(-len(panels) // columns)
  names = dict.fromkeys(n.name for p in panels.values() for n in p)
  names = [n for n in leaders if n in names] + [n for n in names if n not in leaders]
  dense = max(len(n.x) for p in panels.values() for n in p) > 60
  looks = {
    name: dict(
      color=style.COLOURS[i % len(style.COLOURS)],
      linewidth=1.9 if i == 0 and not dense else 1.4,
      linestyle="-" if i == 0 else ("--", "-.", ":")[(i - 1) % 3],
      marker="o" if markers else None,
      markersize=3.2,
      zorder=3 if i == 0 else 2,
    )
    for i, name in enumerate(names)
  }
  with style.figure(path, 3.5 * columns + 0.3, 2.5 * rows + 0.75, title) as fig:
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    handles = {}
    for ax, (panel, lines) in zip(axes, panels.items(), strict=False):
      for line in sorted(lines, key=lambda n: names.index(n.name)):
        x, y = np.asarray(line.x, float), style.finite(line.y)
        look = dict(looks[line.name])
        if np.isfinite(y).sum() == 1:
          look["marker"] = "o"  # A line through one point would not be seen.
        [handles[line.name]] = ax.plot(x, y, **look)
      values = np.concatenate([np.asarray(n.y, float) for n in lines])
      values = values[np.isfinite(values)]
      wide = values.size and 0 < 30 * values.min() < values.max()
      if wide and panel not in _LINEAR:
        ax.set_yscale("log")
      size = 10 if len(panel) < 32 else 8
      ax.set_title(style.plain(panel), loc="left", fontsize=size)
      ax.set_ylabel((ylabels or {}).get(panel, ""))
      ax.set_xlabel(xlabel)
      style.grid(ax)
      if ticks is not None:
        ax.set_xticks(*ticks)
      else:
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in axes[len(panels) :]:
      ax.set_visible(False)
    if len(names) > 1 or names[0]:
      style.legend(fig, min(len(names), 6), [handles[n] for n in names], names)


def lead_time_curves(
  scores: Mapping[str, Mapping[str, np.ndarray]],
  path: str | os.PathLike,
  *,
  lead_labels: Sequence[str] | None = None,
  title: str = "",
  ylabels: Mapping[str, str] | None = None,
) -> None:
  """Draws scores by lead time, with a panel for each score.

  Args:
    scores: {source: {score: [T]}}. Each source is a line. The forecast is the
      thick one that comes first, wherever it stands; without any, the first
      source is. Values that are not finite are left out.
    path: the file; .png, .pdf or .svg.
    lead_labels: [T] labels below the axis; None means +1, ..., +T.
    title: title above the panels.
    ylabels: units by score.

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
  shown = style.even_ticks(length, style.tick_room(labels, 2.9))
  _panels(
    panels,
    path,
    xlabel="lead time",
    title=title,
    ylabels=ylabels,
    leaders=(style.FORECAST,),
    ticks=(shown + 1, [labels[i] for i in shown]),
    markers=length <= 30,
  )


def learning_curves(
  log: str | os.PathLike,
  path: str | os.PathLike,
  *,
  variable: str | None = None,
  variables: Sequence[str] = (),
  title: str = "",
) -> None:
  """Draws the scalars of a run from the JSON lines of `JsonLinesWriter`.

  "train/loss" and "validation/loss" are two lines of the panel "loss".
  All scores are drawn, and those of several lines come first. Throughput
  ("progress/..."), names without a group, and scores "..._spatialnorm", whose
  curves are those of the same scores without that ending, are left out.

  Scores may also be logged by variable, as "validation/physical/rmse/sst". These
  have figures of their own, and take the place of "validation/physical/rmse",
  which would be a mean over units.

  Args:
    log: the file of JSON lines.
    path: the file of the figure; .png, .pdf or .svg.
    variable: the variable whose scores are drawn; None draws what is no score
      of a variable.
    variables: names of all variables.
    title: title above the panels.

  Raises:
    ValueError: the log holds nothing to draw.
  """
  panels: dict[str, dict[str, list[tuple[int, Any]]]] = {}
  for line in files.read_json_lines(log):
    for name, value in line.items():
      group, _, panel = name.partition("/")
      drawn = panel and group != "progress" and not panel.endswith(_REPEATED)
      if drawn and value is not None:
        points = panels.setdefault(panel, {}).setdefault(group, [])
        points.append((line["step"], value))
  panels = _of_variable(panels, variable, variables)
  order = sorted(panels, key=lambda p: (p != "loss", -len(panels[p])))
  _panels(
    {
      panel: [
        _Line(group, *np.asarray(sorted(points), float).T)
        for group, points in panels[panel].items()
      ]
      for panel in order
    },
    path,
    xlabel="step",
    title=title,
    leaders=_GROUPS,
  )


def _of_variable(panels, variable: str | None, variables: Sequence[str]) -> dict:
  """Returns the panels of one variable, or (for None) those of no variable."""
  if variable is not None:
    ending = f"/{variable}"
    return {
      name.removesuffix(ending): panel
      for name, panel in panels.items()
      if name.endswith(ending)
    }
  split = {
    name.removesuffix(f"/{one}")
    for one in variables
    for name in panels
    if name.endswith(f"/{one}")
  }
  return {
    name: panel
    for name, panel in panels.items()
    if name not in split and not any(name.endswith(f"/{one}") for one in variables)
  }
