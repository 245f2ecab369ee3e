"""Figures of spectra: power by wavenumber."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from stjax.plots import style

_COLOURS = style.COLOURS[:4]  # One for each lead time that is drawn.
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

  Up to four lead times, including the first and the last, have a colour each.
  The forecast is a line, the observation is dashed, and the error is dotted.
  The error meets the observation's power where nothing is left of the signal,
  and is twice as large where forecast and observation have nothing in common.

  Args:
    wavenumber: [K] above 0.
    forecast: [T, K] power; values that are not above 0 are left out.
    observation: [T, K] power.
    path: the file; .png, .pdf or .svg.
    error: [T, K] power, or None.
    lead_labels: [T] labels of the lead times; None means +1, ..., +T.
    title: title above the axes.
    dashed: name of the dashed lines, if they are not the observation.
  """
  length = len(forecast)
  labels = style.frame_labels(lead_labels, 1, length)
  kinds = [("forecast", forecast, "-"), (dashed, observation, "--")]
  if error is not None:
    kinds.append(("error", error, ":"))
  with style.figure(path, 4.8, 3.9, title) as fig:
    ax = fig.subplots()
    for lead, colour in zip(
      style.picked(length, len(_COLOURS)), _COLOURS, strict=False
    ):
      for kind, power, line in kinds:
        values = style.finite(power[lead])
        ax.plot(
          wavenumber,
          np.where(values > 0, values, np.nan),
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
    style.grid(ax)
    style.legend(fig, 4)


def draw(
  diagrams: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
  folder: str | os.PathLike,
  *,
  lead_labels: Sequence[str] | None = None,
  units: Mapping[str, str] | None = None,
) -> None:
  """Draws the diagrams of the convention "spectral", if there are any.

  Args:
    diagrams: the forecast's diagrams by convention, as `Accumulator.diagrams`
      returns them.
    folder: existing folder, which gets power_<variable>.png.
    lead_labels: [T] labels of the lead times.
    units: units by variable, for the titles.
  """
  for name, diagram in diagrams.get(_CONVENTION, {}).items():
    powers = diagram["forecast_by_lead"], diagram["observation_by_lead"]
    if not any((power > 0).any() for power in powers):
      continue  # There is no observation, or both are constant.
    power_spectrum(
      diagram["wavenumber"],
      diagram["forecast_by_lead"],
      diagram["observation_by_lead"],
      pathlib.Path(folder) / f"{name.replace('/', '_')}.png",
      error=diagram["error_by_lead"],
      lead_labels=lead_labels,
      title=_title(name.removeprefix(_KIND), units or {}),
    )


def _title(name: str, units: Mapping[str, str]) -> str:
  """Returns the variable with the units of its field, whose square is the power's."""
  own = style.squared(units.get(name, ""))
  return style.plain(name) + (f", power in {own}" if own else "")
