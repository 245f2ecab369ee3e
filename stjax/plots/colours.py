"""Colours of fields and of differences, chosen by what a field is."""

import re
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import colors

from stjax.plots import style

MISSING = "0.75"  # This grey is in none of the colour maps.
_FIELD = matplotlib.colormaps["viridis"].with_extremes(bad=MISSING)
_SIGNED = matplotlib.colormaps["RdBu_r"].with_extremes(bad=MISSING)
# Edges of the classes of rain in mm/h, as radar pictures have them. On a linear
# scale, a few heavy cells would leave the rest of the rain dark.
RAIN = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_RAIN_COLOURS = (
  "#F7F7F7",  # Dry, or below the first edge.
  "#CBE8FA",
  "#8FCBF2",
  "#4AA3DF",
  "#1C6EB6",
  "#1E9E4A",
  "#F2E24A",
  "#F59B23",
  "#E0301E",
  "#A3125F",
  "#5B0A8A",
)
_REFLECTIVITY = tuple(range(5, 70, 5))  # Edges in dBZ.
# Units of rain, with what makes them those of the classes, and the latter's name.
_RAIN_UNITS = {
  "mm/h": (1.0, "mm/h"),
  "mm/d": (1.0, "mm/day"),
  "mm": (1.0, "mm"),
  "kg/m2": (1.0, "mm"),
  "cm": (10.0, "mm"),
  "m": (1000.0, "mm"),
  "kg/m2/h": (1.0, "mm/h"),
  "kg/m2/d": (1.0, "mm/day"),
  "mm/s": (3600.0, "mm/h"),
  "kg/m2/s": (3600.0, "mm/h"),
  "m/s": (3.6e6, "mm/h"),
  "m/h": (1000.0, "mm/h"),
  "m/d": (1000.0, "mm/day"),
  "in": (25.4, "mm"),
  "inch": (25.4, "mm"),
  "in/h": (25.4, "mm/h"),
  "inch/h": (25.4, "mm/h"),
}
_RAIN_RATES = ("mm/h", "mm/d")  # Few other quantities have these units.
_RAIN_WORDS = re.compile(r"rain|precip|hyetal|(^|[^a-z])(qpe|qpf|prcp|ppt)([^a-z]|$)")
_RAIN_NAMES = (
  *("pr", "tp", "cp", "lsp", "rr", "prate", "tprate", "mtpr", "mcpr", "mlspr"),
  *("apcp", "prc", "prec", "crr", "lsrr", "rainc", "rainnc"),
)
_NO_RAIN = re.compile(
  r"precipitable|prob|type|flag|fraction|frequency|duration|phase|evapo|snow|anomal"
  r"|quality|error|bias"
)
_SIGNED_WORDS = re.compile(
  r"anomal|vortic|diverg|eastward|northward|upward_air_velocity|tendency|component"
  r"|stream_?function|velocity_potential|lagrangian_tendency"
)
_SIGNED_NAMES = re.compile(r"(u|v|w|ua|va|uo|vo|ugos|vgos|wap|omega|vo|d)\d*m?")
_TEMPERATURE_UNITS = ("degc", "celsius", "°c", "deg_c", "degf", "degree_celsius", "k")


class Scale(NamedTuple):
  """Colours of values, and how their colour bar looks.

  Attributes:
    norm: maps values to positions in the colour map.
    cmap: the colours.
    extend: which ends of the colour bar have an arrow.
    ticks: values that have a label, or None to let the colour bar choose.
    texts: the labels of these values.
    units: units of the labels, or None for those of the values.
  """

  norm: colors.Normalize
  cmap: colors.Colormap
  extend: str
  ticks: tuple[float, ...] | None = None
  texts: tuple[str, ...] = ()
  units: str | None = None

  def palette(self, most: int) -> np.ndarray:
    """Returns at most `most` colours [n, 3] that the scale draws with."""
    if isinstance(self.cmap, colors.ListedColormap) and self.ticks is not None:
      inside = self.cmap(np.arange(self.cmap.N))
      ends = [self.cmap.get_under(), self.cmap.get_over()]
      return np.concatenate([inside, ends])[:, :3]
    return self.cmap(np.linspace(0, 1, most))[:, :3]


def scales(
  history: np.ndarray,
  observation: np.ndarray,
  forecast: np.ndarray,
  *,
  name: str = "",
  standard_name: str = "",
  units: str = "",
) -> tuple[Scale, Scale]:
  """Returns the scale of the fields, and that of their differences.

  Rain and radar reflectivity have classes. Fields of both signs, such as winds
  and anomalies, have two colours that meet at 0. Any other scale is that of the
  data, so that a wild forecast cannot wash out the observation: its colours
  saturate, and the colour bar gets an arrow.

  Args:
    history: [T_in, H, W], NaN where missing.
    observation: [T_out, H, W].
    forecast: [T_out, H, W].
    name: name of the variable.
    standard_name: its CF standard name, or "".
    units: its units.
  """
  data = _finite_range(history, observation) or _finite_range(forecast) or (0, 1)
  kind = _kind(name, standard_name, units, data)
  if isinstance(kind, tuple):
    factor, shown = kind
    return _classes(RAIN, _RAIN_COLOURS, factor, shown), _class_differences(
      factor, shown
    )
  if kind == "reflectivity":
    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 1, len(_REFLECTIVITY)))
    field = _classes(_REFLECTIVITY, [_RAIN_COLOURS[0], *colours], 1.0, None)
    return field, _differences(forecast - observation, 5.0)
  low, high = data
  if high <= low:
    low, high = _finite_range(history, observation, forecast) or (0, 1)
  if high <= low:
    low, high = low - 0.5, low + 0.5
  if kind == "signed":
    high = max(abs(low), abs(high))
    low = -high
  reach = _finite_range(forecast) or (low, high)
  slack = 1e-3 * (high - low)
  below, above = reach[0] < low - slack, reach[1] > high + slack
  extend = ("both" if above else "min") if below else "max" if above else "neither"
  cmap = _SIGNED if kind == "signed" else _FIELD
  field = Scale(colors.Normalize(low, high), cmap, extend)
  return field, _differences(forecast - observation, 1e-3 * (high - low))


def _finite_range(*arrays: np.ndarray) -> tuple[float, float] | None:
  finite = [a[np.isfinite(a)] for a in arrays]
  finite = [a for a in finite if a.size]
  if not finite:
    return None
  return min(a.min() for a in finite), max(a.max() for a in finite)


def _kind(
  name: str, standard_name: str, units: str, data: tuple[float, float]
) -> tuple[float, str] | str:
  """Says what a field is.

  Returns:
    For rain, the factor to the units of the classes and the name of these;
    otherwise "reflectivity", "signed" or "plain".
  """
  words = f"{name} {standard_name}".lower()
  short = name.lower().partition("@")[0]
  low, high = data
  if standard_name == "equivalent_reflectivity_factor" or units.lower() == "dbz":
    return "reflectivity"
  rain = _rain(words, short, units)
  # Negative values are an anomaly or a flux, which has no classes.
  if rain and low >= -1e-3 * max(high, 0.1 / rain[0]):
    return rain
  if units.lower() in _TEMPERATURE_UNITS and "anomal" not in words:
    return "plain"
  named = _SIGNED_WORDS.search(words) or _SIGNED_NAMES.fullmatch(short)
  if low < 0 < high and (named or min(-low, high) >= 0.2 * max(-low, high)):
    return "signed"
  return "plain"


def _rain(words: str, short: str, units: str) -> tuple[float, str] | None:
  """Returns factor and units of the classes if words and units are those of rain."""
  unit = _normal_units(units)
  known = _RAIN_UNITS.get(unit)
  if _NO_RAIN.search(words) or units.strip() == "%":
    return None
  if known and (
    unit in _RAIN_RATES or short in _RAIN_NAMES or _RAIN_WORDS.search(words)
  ):
    return known
  # Units such as "mm/5min" are taken as they are; "1" stands for scaled values.
  if known is None and unit and "mm" in unit and _RAIN_WORDS.search(words):
    return 1.0, units
  if not units.strip() and _RAIN_WORDS.search(words):
    return 1.0, ""
  return None


def _normal_units(units: str) -> str:
  """Returns units in one spelling: "mm h-1", "mm/hr" and "mm h**-1" are "mm/h"."""
  text = units.strip().lower().replace("**", "").replace("^", "").replace("·", " ")
  text = text.replace("{", "").replace("}", "").replace("$", "").replace("−", "-")
  text = text.replace("⁻¹", "-1").replace("⁻²", "-2").replace("²", "2")
  text = re.sub(r"\bper\b", "/", text)
  text = re.sub(r"\bmillimet(er|re)s?\b", "mm", text)
  text = re.sub(r"\bmet(er|re)s?\b", "m", text)
  text = re.sub(r"\b(hours?|hrs?)(?=\b|-?\d)", "h", text)
  text = re.sub(r"\b(days?)(?=\b|-?\d)", "d", text)
  text = re.sub(r"\b(seconds?|secs?)(?=\b|-?\d)", "s", text)
  text = re.sub(r"\bmmh-1\b|\bmmh\b|\bmmph\b", "mm/h", text)
  text = re.sub(r"\s*/\s*", "/", text)
  text = re.sub(r"[\s.]+([a-z]+)-1\b", r"/\1", text)
  text = re.sub(r"[\s.]+([a-z]+)-2\b", r"/\g<1>2", text)
  return text.replace(" of water equivalent", "").strip()


def _classes(edges, colours, factor: float, shown: str | None) -> Scale:
  """Returns a scale of classes whose edges are given in the units `shown`."""
  dry, *inside, top = colours
  cmap = colors.ListedColormap(inside).with_extremes(bad=MISSING, under=dry, over=top)
  ticks = tuple(float(edge) / factor for edge in edges)
  return Scale(
    colors.BoundaryNorm(ticks, len(inside)),
    cmap,
    "both",
    ticks,
    tuple(f"{edge:g}" for edge in edges),
    shown,
  )


def _class_differences(factor: float, shown: str) -> Scale:
  """Returns the scale of differences of rain, with the same classes both ways."""
  edges = np.array([-e for e in RAIN[-2::-1]] + list(RAIN[:-1]))
  cells = len(edges) + 1
  # The middle class, of differences below the first edge, is white, and its
  # neighbours can be told from it.
  place = np.linspace(-1, 1, cells)
  place = np.sign(place) * np.where(np.abs(place) < 1e-9, 0, 0.2 + 0.8 * np.abs(place))
  colours = matplotlib.colormaps["RdBu_r"](0.5 + place / 2)
  under, *inside, over = colours
  cmap = colors.ListedColormap(inside).with_extremes(
    bad=MISSING, under=under, over=over
  )
  named = tuple(e for e in edges if abs(e) in (0.5, 2, 10, 50))
  return Scale(
    colors.BoundaryNorm(edges / factor, len(inside)),
    cmap,
    "both",
    tuple(e / factor for e in named),
    tuple(f"{e:g}".replace("-", "\N{MINUS SIGN}") for e in named),
    shown,
  )


def _differences(error: np.ndarray, least: float) -> Scale:
  """Returns a symmetric scale of differences, which reaches at least `least`."""
  low, high = _finite_range(error) or (0, 0)
  limit = max(abs(low), abs(high)) or least
  return Scale(colors.Normalize(-limit, limit), _SIGNED, "neither")


def label(scale: Scale, units: str) -> str:
  """Returns the units beside a colour bar, with those of the data if they differ."""
  own = style.units(units)
  if scale.units is None or _normal_units(scale.units) == _normal_units(own):
    return own
  return f"{scale.units} (data in {own})" if own else scale.units
