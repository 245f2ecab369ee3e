"""Figures of ensembles: calibration, events, spread, and fans."""

import functools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stjax.plots import style

_BLUE, _RED = style.COLOURS[:2]
_GUIDE = dict(color="0.45", linewidth=0.9, linestyle="--", zorder=1)
_CURVE = dict(color=_BLUE, linewidth=1.9, marker="o", zorder=3)
_CONVENTION = "ensemble"


def rank_histogram(
  frequency: np.ndarray, path: str | os.PathLike, *, title: str = ""
) -> None:
  """Draws how often the observation had each rank among the members.

  The histogram of a calibrated ensemble is flat (the dashed line), that of a
  narrow one is a U, that of a wide one a dome, and that of a biased one a
  slope.

  Args:
    frequency: [M + 1] shares.
    path: the file; .png, .pdf or .svg.
    title: title above the axes.
  """
  frequency = style.finite(frequency)
  with style.figure(path, 4.6, 2.9 + 0.3 * bool(title), title) as fig:
    ax = fig.subplots()
    ax.bar(np.arange(len(frequency)), frequency, width=0.9, color=_BLUE)
    ax.axhline(1 / len(frequency), **_GUIDE)
    ax.set_xlabel("rank of the observation (0: below all members)")
    ax.set_ylabel("frequency")
    ax.xaxis.get_major_locator().set_params(integer=True)
    style.grid(ax)


def reliability_diagram(
  forecast_probability: np.ndarray,
  observed_frequency: np.ndarray,
  count: np.ndarray,
  path: str | os.PathLike,
  *,
  title: str = "",
) -> None:
  """Draws observed frequency against forecast probability.

  A perfect forecast lies on the diagonal. The dotted line is the overall
  frequency of the event, and the inset shows how many points had each
  probability.

  Args:
    forecast_probability: [K] in ascending order.
    observed_frequency: [K], NaN where there are no points.
    count: [K] numbers of points.
    path: the file; .png, .pdf or .svg.
    title: title above the axes.
  """
  probability, frequency, count = map(
    style.finite, (forecast_probability, observed_frequency, count)
  )
  total = np.nansum(count)
  with style.figure(path, 4.2, 4.3, title) as fig:
    ax = fig.subplots()
    ax.plot([0, 1], [0, 1], **_GUIDE)
    if total > 0:
      rate = np.nansum(count * frequency) / total
      ax.axhline(rate, **(_GUIDE | {"linestyle": ":"}))
    shown = np.isfinite(frequency)
    ax.plot(probability[shown], frequency[shown], markersize=3.8, **_CURVE)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set_xlabel("forecast probability")
    ax.set_ylabel("observed frequency")
    style.grid(ax)
    # The inset goes into the corner that the curve leaves free.
    low = np.nanmean(np.where(shown, frequency - probability, np.nan)) <= 0
    inset = ax.inset_axes((0.13, 0.7, 0.34, 0.24) if low else (0.62, 0.13, 0.34, 0.24))
    groups = len(probability)
    centres, wide = (np.arange(groups) + 0.5) / groups, 0.9 / groups
    if np.allclose(probability, np.linspace(0, 1, groups)):
      # Every probability is a group of its own.
      centres, wide = probability, 0.8 / max(groups - 1, 1)
    inset.bar(centres, count, width=wide, color="0.6")
    if 0 < 30 * count[count > 0].min(initial=math.inf) < count.max(initial=0):
      inset.set_yscale("log")
    inset.set_xlim(-0.1, 1.1)
    inset.set_xticks([0, 1])
    inset.tick_params(labelsize=7)
    inset.minorticks_off()
    inset.set_title("points", fontsize=7.5, pad=2)


def roc_curve(
  false_alarm_rate: np.ndarray,
  hit_rate: np.ndarray,
  path: str | os.PathLike,
  *,
  area: float | None = None,
  title: str = "",
) -> None:
  """Draws hits against false alarms for every level of probability.

  Args:
    false_alarm_rate: [K] in ascending order.
    hit_rate: [K].
    path: the file; .png, .pdf or .svg.
    area: area below the curve, which is written into the figure.
    title: title above the axes.
  """
  alarms, hits = style.finite(false_alarm_rate), style.finite(hit_rate)
  with style.figure(path, 4.0, 4.1, title) as fig:
    ax = fig.subplots()
    ax.plot([0, 1], [0, 1], **_GUIDE)
    ax.plot(alarms, hits, markersize=3.2, clip_on=False, **_CURVE)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel("false alarm rate")
    ax.set_ylabel("hit rate")
    style.grid(ax)
    if area is not None and np.isfinite(area):
      ax.text(0.95, 0.07, f"area {float(area):.3f}", ha="right")


def spread_skill(
  spread: np.ndarray,
  rmse: np.ndarray,
  path: str | os.PathLike,
  *,
  members: int,
  lead_labels: Sequence[str] | None = None,
  units: str = "",
  title: str = "",
) -> None:
  """Draws the spread of the ensemble and the error of its mean by lead time.

  The spread is the number of the tables. Of a calibrated ensemble it is below
  the rmse by the factor sqrt((M + 1) / M), which the label gives.

  Args:
    spread: [T], root of the mean variance of the members.
    rmse: [T], error of the mean of the members.
    path: the file; .png, .pdf or .svg.
    members: number of members M.
    lead_labels: [T] labels below the axis; None means +1, ..., +T.
    units: units of both.
    title: title above the axes.
  """
  length = len(rmse)
  labels = style.frame_labels(lead_labels, 1, length)
  factor = math.sqrt((members + 1) / members)
  lines = {
    "rmse of the mean": (rmse, dict(color=_RED, linestyle="--")),
    f"spread (calibrated if \N{SQUARE ROOT}((M+1)/M) \N{MULTIPLICATION SIGN} spread"
    f" = rmse;\nthe factor is {factor:.3f} for M = {members} members)": (
      spread,
      dict(color=_BLUE),
    ),
  }
  with style.figure(path, 4.8, 3.3, title) as fig:
    ax = fig.subplots()
    for name, (values, look) in lines.items():
      ax.plot(
        1 + np.arange(length),
        style.finite(values),
        label=name,
        linewidth=1.7,
        marker="o" if length <= 30 else None,
        markersize=3.2,
        **look,
      )
    shown = style.even_ticks(length, style.tick_room(labels, 4.0))
    ax.set_xticks(shown + 1, [labels[i] for i in shown])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("lead time")
    ax.set_ylabel(style.units(units))
    style.grid(ax)
    style.legend(fig, 1)


def fan_chart(
  history: np.ndarray,
  observation: np.ndarray,
  quantiles: np.ndarray,
  path: str | os.PathLike,
  *,
  labels: Sequence[str] | None = None,
  lead_labels: Sequence[str] | None = None,
  units: str = "",
  title: str = "",
) -> None:
  """Draws quantiles of an ensemble over time, with a panel for each point.

  Args:
    history: [T_in, P] at P points, in physical units; NaN is left out.
    observation: [T_out, P].
    quantiles: [5, T_out, P], the 5, 25, 50, 75 and 95 % quantiles.
    path: the file; .png, .pdf or .svg.
    labels: [P] titles of the panels.
    lead_labels: [T_out] labels below the panels; None means +1, ..., +T_out.
    units: units beside the panels.
    title: title above all panels.

  Raises:
    ValueError: the shapes do not fit.
  """
  history, observation, quantiles = map(style.finite, (history, observation, quantiles))
  if (
    history.ndim != 2
    or observation.ndim != 2
    or history.shape[1] != observation.shape[1]
    or quantiles.shape != (5, *observation.shape)
    or not observation.size
  ):
    raise ValueError(
      "A fan chart needs history [T_in, P], observation [T_out, P] and "
      f"quantiles [5, T_out, P]; got {history.shape}, {observation.shape} "
      f"and {quantiles.shape}."
    )
  length, points = observation.shape
  names = style.frame_labels(lead_labels, 1, length)
  past, future = np.arange(1 - len(history), 1), np.arange(1, length + 1)
  # The part of a panel's width that the lead times have.
  inches = 3.3 * length / (length + len(history))
  columns = min(points, 2)
  rows = -(-points // columns)
  with style.figure(path, 4.0 * columns + 0.3, 2.3 * rows + 0.7, title) as fig:
    axes = fig.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for point in range(points):
      ax = axes[point]
      low, lower, median, upper, high = quantiles[:, :, point]
      handles = [
        ax.fill_between(future, low, high, color=_BLUE, alpha=0.18, linewidth=0),
        ax.fill_between(future, lower, upper, color=_BLUE, alpha=0.35, linewidth=0),
        *ax.plot(future, median, color=_BLUE, linewidth=1.7),
        *ax.plot(
          np.concatenate([past, future]),
          np.concatenate([history[:, point], observation[:, point]]),
          color="black",
          linewidth=1.2,
          marker="o",
          markersize=2.4,
        ),
      ]
      ax.axvline(0.5, **(_GUIDE | {"linewidth": 0.7}))
      shown = style.even_ticks(length, style.tick_room(names, inches))
      # The last frame of the history is at 0, which is one of the even ticks.
      ax.set_xticks([0, *future[shown]], ["0", *(names[i] for i in shown)])
      ax.tick_params(labelbottom=point + columns >= points)
      if labels is not None:
        size = 9.5 if len(labels[point]) < 42 else 7.5
        ax.set_title(style.plain(labels[point]), loc="left", fontsize=size)
      if not point % columns:
        ax.set_ylabel(style.units(units))
      if point + columns >= points:
        ax.set_xlabel("lead time")
      style.grid(ax)
    for ax in axes[points:]:
      ax.set_visible(False)
    bands = ["5\N{EN DASH}95 %", "25\N{EN DASH}75 %"]
    style.legend(fig, 4, handles, [*bands, "median", "observation"])


def draw(
  diagrams: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
  scores: Mapping[str, Mapping[str, Any]],
  folder: str | os.PathLike,
  *,
  lead_labels: Sequence[str] | None = None,
  variables: Mapping[str, str] | None = None,
) -> None:
  """Draws the diagrams of the convention "ensemble", if there are any.

  The files are rank_histogram.png, reliability_<event>.png, roc_<event>.png,
  and, if the ensemble has a spread, spread_skill.png. Of several variables, each
  has figures of its own, such as rank_histogram_<variable>.png.

  Args:
    diagrams: the forecast's diagrams by convention, as `Accumulator.diagrams`
      returns them.
    scores: the forecast's scores by convention, as `Accumulator.compute`
      returns them.
    folder: existing folder for the files.
    lead_labels: [T] labels of the lead times.
    variables: units of all variables by name, in the order of the data.
  """
  folder = pathlib.Path(folder)
  variables = dict(variables or {"": ""})
  by_diagram = diagrams.get(_CONVENTION, {})
  by_name = scores.get(_CONVENTION, {})
  stems = style.file_stems(list(variables))
  for channel, (name, units) in enumerate(variables.items()):
    several = len(variables) > 1
    ending = f"_{stems[channel]}.png" if several else ".png"

    def own(values, key, channel=channel, several=several):
      return values[f"{key}_by_variable"][channel] if several else values[key]

    for kind, diagram in by_diagram.items():
      _diagram(functools.partial(own, diagram), kind, folder, ending, name, units)
    spread = by_name.get("spread")
    if spread is not None and spread.overall > 0:
      rmse = by_name["rmse"]
      parts = (x.by_lead_and_variable if several else x.by_lead for x in (spread, rmse))
      spread, rmse = (x[:, channel] if several else x for x in parts)
      if not np.nansum(spread) > 0:
        continue  # This variable is the same in all members.
      spread_skill(
        spread,
        rmse,
        folder / f"spread_skill{ending}",
        members=len(by_diagram["rank_histogram"]["frequency"]) - 1,
        lead_labels=lead_labels,
        units=units,
        title=_titled("Spread and error", name),
      )


def _titled(what: str, name: str, event: str = "") -> str:
  """Returns a title such as "Reliability of rain > 5 mm/h"."""
  of = f" of {style.plain(name)}" if name else ""
  return f"{what}{of}{event}"


def _diagram(own, kind: str, folder, ending: str, name: str, units: str) -> None:
  """Draws one diagram, whose arrays `own` returns by their names."""
  path = folder / f"{kind}{ending}"
  what, _, threshold = kind.partition("_gt_")
  event = f" > {threshold} {style.units(units)}".rstrip()
  if not name:
    event = f", event{event}"
  if what == "rank_histogram":
    rank_histogram(own("frequency"), path, title=_titled("Rank histogram", name))
  elif what == "reliability":
    keys = ("forecast_probability", "observed_frequency", "count")
    title = _titled("Reliability", name, event)
    reliability_diagram(*map(own, keys), path, title=title)
  elif what == "roc":
    roc_curve(
      own("false_alarm_rate"),
      own("hit_rate"),
      path,
      area=own("area"),
      title=_titled("ROC", name, event),
    )
