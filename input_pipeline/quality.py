"""What looks wrong in the values of a variable: codes taken for data, and units."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.stores import missing

# So many different values are followed at each end of the range.
_ENDS = 4
# From this share on, a constant apart from all other values is no chance.
_SHARE = 0.01
# From this share on, a declared code that adjoins the data is worth a look.
_DECLARED_SHARE = 0.05
# What programs write for missing, whatever its sign: all nines and the like, and the
# ends of whole-number types.
_PATTERN = re.compile(r"9{2,}(\.9+)?|9{3,}0+|8{4,}|7{4,}|69{3}")
_TYPE_ENDS = (255.0, 32767.0, 32768.0, 65534.0, 65535.0, 2147483648.0)
# Looked for between other values, too.
_INNER = (-9999.0, 9999.0, -999.0, 999.0, -32768.0, -32767.0, 32767.0)


class Watch:
  """Follows the values of variables, a few frames at a time.

  Args:
    channels: how many variables there are.
    expected: for each, further values that are counted.
  """

  def __init__(self, channels: int, expected: Sequence[Sequence[float]] = ()):
    expected = expected or [()] * channels
    self._wanted = [
      [float(np.float32(v)) for v in dict.fromkeys((*_INNER, *values))]
      for values in expected
    ]
    self._seen = [Seen() for _ in range(channels)]

  def add(self, channel: int, values: np.ndarray) -> None:
    """Counts values [N] of a channel, NaN where missing."""
    values = np.asarray(values, np.float32)
    finite = values[np.isfinite(values)]
    seen = self._seen[channel]
    seen.total += values.size
    seen.count += finite.size
    seen.infinite += int(np.isinf(values).sum()) if finite.size < values.size else 0
    if not finite.size:
      return
    for value in self._wanted[channel]:
      found = int(np.count_nonzero(finite == np.float32(value)))
      seen.counts[value] = seen.counts.get(value, 0) + found
    seen.low = _lowest(seen.low, finite)
    seen.high = {-v: n for v, n in _lowest(seen.negative_high(), -finite).items()}

  def seen(self, channel: int) -> "Seen":
    """What was seen of a channel so far."""
    return self._seen[channel]


@dataclasses.dataclass
class Seen:
  """The values of one variable.

  Attributes:
    total: how many there are, missing ones included.
    count: how many are finite.
    infinite: how many are infinite.
    low: the lowest values and how often each comes, in order.
    high: the highest values likewise, the highest one first.
    counts: how often each of the values that were looked for comes.
  """

  total: int = 0
  count: int = 0
  infinite: int = 0
  low: dict[float, int] = dataclasses.field(default_factory=dict)
  high: dict[float, int] = dataclasses.field(default_factory=dict)
  counts: dict[float, int] = dataclasses.field(default_factory=dict)

  def negative_high(self) -> dict[float, int]:
    """The highest values, negated."""
    return {-v: n for v, n in self.high.items()}

  def share(self, count: int) -> float:
    """Which part of the finite values so many are."""
    return count / max(self.count, 1)


def _lowest(known: dict[float, int], values: np.ndarray) -> dict[float, int]:
  """The lowest different values and their counts, with further values counted."""
  known = dict(known)
  if len(known) == _ENDS:
    values = values[values <= max(known)]
  for _ in range(_ENDS):
    if not values.size:
      break
    value = values.min()
    same = values == value
    key = float(value) + 0.0  # Never -0.0.
    known[key] = known.get(key, 0) + int(same.sum())
    values = values[~same]
  return dict(sorted(known.items())[:_ENDS])


def suspects(seen: Seen) -> dict[float, int]:
  """Values that look like codes for missing, and how often each comes.

  They are huge numbers, numbers that programs write for missing and that lie apart
  from the rest, and constants of more than a few cells that do. A constant at the
  end of a continuum, such as 0 of rain, is none.
  """
  different = {**seen.low, **seen.high}
  if len(different) < 2:
    return {v: n for v, n in different.items() if abs(v) >= missing.HUGE}
  few = len(different) < _ENDS  # Then these are all the values that there are.
  low, high = list(seen.low), list(seen.high)
  outer = {v for v in different if _usual(v)}
  found = {}
  # Those that programs write are set aside first, or one would hide another.
  rest = _rest(low, high, outer)
  for value in outer:
    count = different[value]
    gap = _gap(value, rest)
    apart = gap > 0.1 * (rest[1] - rest[0]) and gap > 0
    whole_end = abs(value) in _TYPE_ENDS or abs(value) < 900
    rare = seen.share(count) < _SHARE and count < 2
    if abs(value) >= missing.HUGE or (apart and not (whole_end and (rare or few))):
      found[value] = count
  for end in (low, high):
    left = [v for v in end if v not in found]
    if len(left) < 3 or few:
      continue
    value = left[0]
    rest = _rest(low, high, {*found, value})
    gap, count = _gap(value, rest), different[value]
    frequent = seen.share(count) > _SHARE
    if gap > rest[1] - rest[0] and frequent:
      found[value] = count
    elif end is low and value < 0 <= left[1] and frequent:
      # The one negative value of what is never negative otherwise.
      if value == -1 or gap > 3 * (left[2] - left[1]):
        found[value] = count
    elif gap > 1000 * max(map(abs, rest)) > 0:
      found[value] = count
  span = _rest(low, high, set(found))
  for value in _INNER:
    count = seen.counts.get(value, 0)
    inside = span[0] < value < span[1] and value not in found
    if inside and seen.share(count) > _SHARE and span[1] - span[0] > 4 * abs(value):
      found[value] = count
  return found


def _usual(value: float) -> bool:
  """Whether programs write this number for missing."""
  size = abs(value)
  return (
    size >= missing.HUGE
    or size in _TYPE_ENDS
    or bool(_PATTERN.fullmatch(f"{size:.7g}".removesuffix(".0")))
  )


def _rest(low: list[float], high: list[float], without: set[float]):
  """Lowest and highest of the values that are left."""
  values = [v for v in (*low, *high) if v not in without] or [*low, *high]
  return min(values), max(values)


def _gap(value: float, rest: tuple[float, float]) -> float:
  return max(rest[0] - value, value - rest[1], 0.0)


# What units mean, by how people write them.
_UNITS = {
  "K": "k kelvin degk deg_k kelvins",
  "degC": "c degc deg_c celsius degree_celsius degrees_celsius degreec degreesc °c",
  "degF": "f degf fahrenheit degree_fahrenheit degrees_fahrenheit °f",
  "Pa": "pa pascal pascals",
  "hPa": "hpa mbar mb millibar millibars",
  "kPa": "kpa",
  "%": "% percent",
  "1": "1 kgkg-1 kgkg**-1 kgkg^-1 kg/kg fraction (0-1) dimensionless unitless",
  "g/kg": "gkg-1 gkg**-1 g/kg",
  "length": "m mm cm metre meter metres meters mofwaterequivalent",
  "amount": "kgm-2 kg/m2 kgm^-2 kgm**-2",
  "rate": (
    "kgm-2s-1 kg/m2/s kgm^-2s^-1 kgm**-2s**-1 mms-1 mm/s mmh-1 mm/h mm/hr mmhr-1"
    " mmh**-1 mmh^-1 mmhour-1 mm/hour mmday-1 mm/day mmd-1 mm/d ms-1 m/s m/day mday-1"
  ),
  "speed": "ms-1 m/s ms^-1 ms**-1 kmh-1 km/h knot knots kt kts",
}
_RATES = {"rate": (0, None)}
_AMOUNTS = {"length": (0, None), "amount": (0, None)}
_SHARES = {"1": (0, 1.5), "%": (0, 150)}
_TEMPERATURES = {"K": (100, 400), "degC": (-120, 100), "degF": (-180, 210)}
# By standard name: the units that fit, and the values that are possible in them.
_NAMES = (
  (
    r"(air|sea_surface|surface|sea_water|sea_water_potential|soil|dew_point"
    r"|sea_surface_skin|sea_surface_foundation|wet_bulb|(toa_)?brightness)"
    r"_temperature",
    _TEMPERATURES,
  ),
  (
    r"surface_air_pressure|air_pressure_at_(mean_)?sea_level",
    {"Pa": (20000, 120000), "hPa": (200, 1200), "kPa": (20, 120)},
  ),
  (r"air_pressure", {"Pa": (0, 120000), "hPa": (0, 1200), "kPa": (0, 120)}),
  (r"(lwe_)?(convective_)?(rainfall|precipitation|snowfall)_(flux|rate)", _RATES),
  (
    r"(lwe_thickness_of_)?(convective_)?(rainfall|precipitation|snowfall)_amount",
    _AMOUNTS,
  ),
  (
    r"(eastward|northward|upward|x|y)_(wind|sea_water_velocity)",
    {"speed": (-250, 250)},
  ),
  (r"wind_speed(_of_gust)?", {"speed": (0, 500)}),
  (r"relative_humidity", _SHARES),
  (r".*_area_fraction", _SHARES),
  (r"specific_humidity", {"1": (0, 0.1), "g/kg": (0, 100)}),
)
# Names of variables that stand for a standard name where none is given.
_SHORT = {
  "t2m": "air_temperature",
  "tas": "air_temperature",
  "sst": "sea_surface_temperature",
  "tos": "sea_surface_temperature",
  "msl": "air_pressure_at_mean_sea_level",
  "psl": "air_pressure_at_mean_sea_level",
}


def unit_notes(
  name: str, attrs: Mapping[str, Any], low: float, high: float
) -> list[str]:
  """What does not fit among the units, the standard name and the values.

  Args:
    name: of the variable.
    attrs: its attributes.
    low: its lowest value.
    high: its highest value.
  """
  units = str(attrs.get("units", "")).strip()
  plain = re.sub(r"[\s.]+", "", units).lower()
  kinds = {kind for kind, names in _UNITS.items() if plain in names.split()}
  standard = attrs.get("standard_name") or _SHORT.get(name.partition("@")[0], "")
  where = f"units {units!r}"
  if attrs.get("standard_name"):
    where = f"standard name {standard!r} and units {units!r}"
  for pattern, fitting in _NAMES:
    if not re.fullmatch(pattern, str(standard)) or not kinds:
      continue
    known = kinds & fitting.keys()
    if not known:
      return [f"has {where}, which do not belong together; check both attributes"]
    for kind in known:
      least, most = fitting[kind]
      slack = 0.01 * max(abs(low), abs(high))
      if (least is not None and low < least - slack) or (
        most is not None and high > most
      ):
        return [
          f"has {where}, but values from {low:g} to {high:g}, which these units do "
          "not allow; check the units and what stands for missing"
        ]
      if kind == "%" and 0 < high <= 1.01:
        return [
          f"has {where}, but values from {low:g} to {high:g}, which look like "
          "fractions of 1; check the units"
        ]
  if "degC" in kinds and low > 180 and high < 360:
    return [f"has {where}, but values from {low:g} to {high:g}, which look like kelvin"]
  return []


def notes(
  name: str,
  seen: Seen,
  attrs: Mapping[str, Any],
  declared: missing.Declared,
  key: str = "data.missing_value",
) -> list[str]:
  """What looks wrong in a variable, as sentences.

  Args:
    name: of the variable.
    seen: its values.
    attrs: its attributes.
    declared: what counts as missing because the file says so.
    key: the config key that says what is missing.
  """
  found = []
  codes = suspects(seen)
  missing_share = 1 - seen.count / max(seen.total, 1)
  found += [_code_note(name, v, n, seen, key) for v, n in codes.items()]
  zero = declared.zero_fill
  if zero is not None and zero not in codes:
    count = seen.counts.get(float(np.float32(zero)), 0)
    if count:
      found.append(
        f"Variable {name!r} has the value {number(zero)} in {_percent(count, seen)} of "
        "its observed cells, which is the fill value 0 of its Zarr array and declared "
        "nowhere else; it counts as data. If it stands for missing, set "
        f"--config.{key}={number(zero)} (and --config.data.missing=mask)."
      )
  low, high = _rest(list(seen.low), list(seen.high), set(codes)) if seen.low else (0, 0)
  for code in declared.codes:
    adjoins = -0.1 * (high - low) <= code - low and code - high <= 0.1 * (high - low)
    if seen.count and adjoins and missing_share > _DECLARED_SHARE and high > low:
      found.append(
        f"Variable {name!r} is missing in {_share(missing_share)} of its cells, and "
        f"its file declares {declared.text}, a value beside the data's own ({low:g} to "
        f"{high:g}). If it is a true value, set --config.{key}=none."
      )
      break
  if seen.infinite:
    share = seen.infinite / seen.total
    found.append(
      f"Variable {name!r} is infinite in {_share(share)} of its cells; they count as "
      "missing."
    )
  if seen.count and low == high and len(seen.low) == 1:
    found.append(
      f"Variable {name!r} has one value only, {number(low)}: there is nothing to learn."
    )
  found += [f"Variable {name!r} {note}." for note in unit_notes(name, attrs, low, high)]
  return found


def _code_note(name: str, value: float, count: int, seen: Seen, key: str) -> str:
  return (
    f"Variable {name!r} has the value {number(value)} in {_percent(count, seen)} of "
    "its observed cells, apart from all other values, as if it stood for missing; it "
    f"counts as data unless you set --config.{key}={number(value)} (and "
    "--config.data.missing=mask)."
  )


def split_notes(
  name: str, seen: Seen, where: str, declared: missing.Declared, known: Sequence[str]
) -> list[str]:
  """What is wrong with a variable in a split that is to be scored, as sentences.

  Args:
    name: of the variable.
    seen: its values among the targets.
    where: which frames they are.
    declared: what counts as missing because the file says so.
    known: notes on the training split, of which none is repeated.
  """
  if not seen.count:
    says = ""
    if declared.text:
      says = f", or set data.missing_value=none if {declared.text} is wrong in the file"
    return [
      f"Variable {name!r} has no observation in {where}: its scores there will be "
      f"null. Change data.split or data.variables{says}."
    ]
  found = []
  for value, count in suspects(seen).items():
    note = _code_note(name, value, count, seen, "data.missing_value")
    head = note.split(" in ")[0]
    if not any(head in other for other in known):
      found.append(f"In {where}: {note}")
  if len(seen.low) == 1:
    found.append(
      f"Variable {name!r} has one value only, {number(next(iter(seen.low)))}, in "
      f"{where}: scores that divide by its variability or by the number of events will "
      "be null. Change data.split."
    )
  return found


def number(value: float) -> str:
  """The shortest text that is read as the same float32, with whole numbers plain."""
  value = float(value)
  if value.is_integer() and abs(value) < 1e15:
    return str(int(value))
  return str(np.float32(value))


def _percent(count: int, seen: Seen) -> str:
  return _share(seen.share(count))


def _share(share: float) -> str:
  return f"{100 * share:.3g} %" if share >= 1e-4 else "less than 0.01 %"


def lines(statistics: Any, variables: Sequence[Any]) -> list[str]:
  """One line for each variable: its units, missing share and range.

  Args:
    statistics: a `normalise.Statistics` of the training split.
    variables: the variables that get a line, as `Store.variables`.
  """
  low, high = statistics.minimum, statistics.maximum
  if statistics.transform == "log1p":
    low, high = np.expm1(low), np.expm1(high)
  return [
    f"{variable.name} ({variable.attrs.get('units') or 'no units'}): "
    f"{_share(statistics.missing_share[c]) if statistics.missing_share[c] else 'none'}"
    f" missing, from {low[c]:.6g} to {high[c]:.6g} in the training split"
    for c, variable in enumerate(variables)
  ]
