"""Figures of spectra: power by wavenumber."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stjax.plots import style

# Of the Okabe-Ito palette, as in `stjax.plots.curves`.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_CONVENTION = "spectral"
_KIND = "power_"


def power_spectrum(
  wavenumber: np.ndarray,
  forecast: np.ndarray,
  observation: np.ndarray,
  path: str | os.PathLike,
  *,
  error: np.ndarray | None = None,
  lead_labels: Sequence[str] | None = None,
  title: str = "",
  dashed: str = "observation",
) -> None:
  """Draws the power of forecast and observation on logarithmic axes.

  A colour for each of up to four lead times, the first and the last among
  them: the forecast as a line, the observation dashed, the error dotted (it
  meets the observation's power where nothing is left of the signal, and is
  twice as large where forecast and observation have nothing in common).

  Args:
    wavenumber: [K] above 0.
    forecast: [T, K]. What is not above 0 is left out.
    observation: [T, K].
    path: the file; .png, .pdf or .svg.
    error: [T, K], or None.
    lead_labels: [T]; default +1, ..., +T.
    title: above it.
    dashed: what stands in the place of the observation.
  """
  length = len(forecast)
  labels = style.frame_labels(lead_labels, 1, length)
  kinds = [("forecast", forecast, "-"), (dashed, observation, "--")]
  if error is not None:
    kinds.append(("error", error, ":"))
  open_frame = {"axes.spines.top": False, "axes.spines.right": False}
  with matplotlib.rc_context(style.RC | open_frame):
    fig = Figure(figsize=(4.8, 3.9), layout="constrained")
    FigureCanvasAgg(fig)
    ax = fig.subplots()
    for lead, colour in zip(
      style.picked(length, len(_COLOURS)), _COLOURS, strict=False
    ):
      for kind, power, line in kinds:
        values = np.asarray(power[lead], float)
        values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        ax.plot(
          wavenumber,
          values,
          line,
          color=colour,
          linewidth=1.7 if kind == "forecast" else 1.2,
          marker="o" if len(wavenumber) < 3 else None,
          markersize=3.2,
          label=labels[lead] if kind == "forecast" else None,
        )
    for kind, _, line in kinds:
      ax.plot([], [], line, color="0.3", linewidth=1.2, label=kind)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("wavenumber")
    ax.set_ylabel("power")
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    fig.legend(loc="outside lower center", ncols=4, frameon=False)
    if title:
      fig.suptitle(title, fontsize=11.5, x=0.01, ha="left")
    style.save(fig, path)


def draw(
  diagrams: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
  folder: str | os.PathLike,
  *,
  lead_labels: Sequence[str] | None = None,
) -> None:
  """Draws all diagrams of the convention "spectral", if it is there.

  Args:
    diagrams: of the forecast, by convention, as `Accumulator.diagrams`
      returns them.
    folder: must exist; gets power_<variable>.png.
    lead_labels: [T] of the lead times.
  """
  for name, diagram in diagrams.get(_CONVENTION, {}).items():
    power_spectrum(
      diagram["wavenumber"],
      diagram["forecast_by_lead"],
      diagram["observation_by_lead"],
      pathlib.Path(folder) / f"{name}.png",
      error=diagram["error_by_lead"],
      lead_labels=lead_labels,
      title=name.removeprefix(_KIND),
    )
