"""Statistics of the training split and the transforms made from them.

forward: y = (f(x) - offset) / scale, with f(x) = x or log(1 + x);
inverse: x = f^-1(y * scale + offset). One offset and scale per channel.
"""

import dataclasses
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import errors, quality
from input_pipeline.stores import missing

TRANSFORMS = ("identity", "log1p")
KINDS = ("none", "standard", "range", "fixed")


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
  """Normalisation of each channel, and what the training split looks like.

  Attributes:
    variables: channel names, in the order of the channel axis.
    transform: "identity" or "log1p", applied before everything else.
    kind: "none" (offset 0, scale 1), "standard" (mean 0, deviation 1), "range"
      (minimum 0, maximum 1) or "fixed" (offset and scale as given).
    offset: [C] float32, in transformed units.
    scale: [C] float32, in transformed units, never 0.
    mean: [C] float64 over the distinct training frames, transformed units;
      so are std, minimum and maximum. NaN-free.
    std: [C] standard deviation, by default that of a population.
    minimum: [C].
    maximum: [C].
    missing_share: [C] share of missing values, 0 to 1.
    count: [C] int64, number of observed values.
    notes: sentences on what looks wrong in the values; see `quality.notes`.
  """

  variables: tuple[str, ...]
  transform: str
  kind: str
  offset: np.ndarray
  scale: np.ndarray
  mean: np.ndarray
  std: np.ndarray
  minimum: np.ndarray
  maximum: np.ndarray
  missing_share: np.ndarray
  count: np.ndarray
  notes: tuple[str, ...] = ()

  def to_json(self) -> str:
    """A JSON text that `from_json` turns into equal statistics."""
    return json.dumps(
      {
        field.name: (value.tolist() if isinstance(value, np.ndarray) else value)
        for field in dataclasses.fields(self)
        for value in [getattr(self, field.name)]
      },
      indent=2,
    )

  @classmethod
  def from_json(cls, text: str) -> "Statistics":
    """Statistics from what `to_json` wrote."""
    values = json.loads(text)
    arrays = {
      name: np.asarray(values[name], dtype)
      for name, dtype in (
        ("offset", np.float32),
        ("scale", np.float32),
        ("mean", np.float64),
        ("std", np.float64),
        ("minimum", np.float64),
        ("maximum", np.float64),
        ("missing_share", np.float64),
        ("count", np.int64),
      )
    }
    variables = tuple(values["variables"])
    notes = tuple(values.get("notes", ()))  # Earlier versions kept none.
    for name, array in arrays.items():
      if array.shape != (len(variables),) or not np.isfinite(array).all():
        raise errors.DataError(
          f"Statistics with {name}={values[name]!r}; expected a finite "
          f"number for each of {', '.join(variables)}."
        )
    if (arrays["scale"] <= 0).any():
      raise errors.DataError(
        f"Statistics with scale={values['scale']!r}; expected numbers > 0."
      )
    return cls(variables, values["transform"], values["kind"], **arrays, notes=notes)


def forward(statistics: Statistics, x: Any, xp: Any = np) -> Any:
  """Physical to normalised units.

  Args:
    statistics: of the training split.
    x: [..., C] in physical units; missing values stay missing.
    xp: numpy or jax.numpy, the module that computes.

  Returns:
    [..., C] in normalised units.
  """
  if statistics.transform == "log1p":
    x = xp.log1p(x)
  return (x - statistics.offset) / statistics.scale


def inverse(statistics: Statistics, x: Any, xp: Any = np) -> Any:
  """Normalised to physical units: undoes `forward`, same arguments."""
  x = x * statistics.scale + statistics.offset
  return xp.expm1(x) if statistics.transform == "log1p" else x


def forward_in_place(statistics: Statistics, x: np.ndarray) -> None:
  """`forward` on a contiguous float32 array [..., W, C], without copies.

  NaN stays NaN; a value that log1p cannot take becomes NaN.
  """
  with np.errstate(invalid="ignore", divide="ignore"):
    if statistics.transform == "log1p":
      np.log1p(x, out=x)
    if statistics.kind != "none":
      # Whole rows at a time: broadcasting over C alone is 10 times slower.
      rows = x.reshape(-1, x.shape[-2] * x.shape[-1])
      np.subtract(rows, np.tile(statistics.offset, x.shape[-2]), out=rows)
      np.divide(rows, np.tile(statistics.scale, x.shape[-2]), out=rows)


def compute(
  chunks: Iterable[np.ndarray],
  variables: Sequence[str],
  *,
  kind: str,
  transform: str,
  ddof: int = 0,
  offset: float | Sequence[float] = (),
  scale: float | Sequence[float] = (),
  where: str = "the training split",
  labels: Sequence[Mapping[str, Any]] = (),
  declared: Sequence[missing.Declared] = (),
  file: str = "",
  key: str = "data",
) -> Statistics:
  """Streams over frames and accumulates in float64.

  Args:
    chunks: arrays [T, H, W, C] in physical units, NaN where missing. Each
      frame must come once.
    variables: channel names.
    kind: one of KINDS (data.normalise).
    transform: one of TRANSFORMS (data.transform).
    ddof: squares are divided by the number of values less this: 0 for the
      deviation of a population, 1 for that of a sample.
    offset: for the kind "fixed", in transformed units: one number, or one for each
      variable (data.offset); () is 0.
    scale: for the kind "fixed", likewise (data.scale); () is 1.
    where: what the frames are of, for messages.
    labels: attributes of each variable, such as its units; () knows none.
    declared: of each variable, what counts as missing because its file says so.
    file: where they lie, for messages.
    key: the section of the config that speaks of them.

  Returns:
    The statistics. A constant channel gets scale 1, with a warning.

  Raises:
    DataError: for an unknown kind or transform, an offset or a scale that cannot
      be used, a channel without any observed value, or log1p of a value of -1 or
      less.

  Source: chunks are merged after Chan, Golub & LeVeque 1983, eq. 2.1.
  """
  if kind not in KINDS:
    raise errors.unknown("normalisation (data.normalise)", kind, KINDS)
  if transform not in TRANSFORMS:
    raise errors.unknown("transform (data.transform)", transform, TRANSFORMS)
  channels = len(variables)
  offset, scale = (
    _given("offset", offset, 0.0, channels),
    _given("scale", scale, 1.0, channels),
  )
  count = np.zeros(channels, np.int64)
  total = 0
  mean, square = np.zeros(channels), np.zeros(channels)
  minimum, maximum = np.full(channels, np.inf), np.full(channels, -np.inf)
  labels = labels or [{}] * channels
  declared = declared or [missing.Declared()] * channels
  watch = quality.Watch(
    channels, [[v for v in (d.zero_fill,) if v is not None] for d in declared]
  )
  for chunk in chunks:
    flat = np.asarray(chunk).reshape(-1, channels)
    total += len(flat)
    for c in range(channels):
      x = flat[:, c]
      watch.add(c, x)
      x = x[np.isfinite(x)].astype(np.float64)
      if not x.size:
        continue
      if transform == "log1p":
        if x.min() <= -1:
          raise errors.DataError(
            f"data.transform='log1p' needs values above -1, but variable "
            f"{variables[c]!r} goes down to {x.min():g}. If that stands for missing, "
            f"set --config.{key}.missing_value={quality.number(x.min())}; else set "
            "data.transform='identity' or choose other data.variables."
          )
        x = np.log1p(x)
      delta = x.mean() - mean[c]
      merged = count[c] + x.size
      square[c] += np.square(x - x.mean()).sum() + delta**2 * count[c] * x.size / merged
      mean[c] += delta * x.size / merged
      count[c] = merged
      minimum[c] = min(minimum[c], x.min())
      maximum[c] = max(maximum[c], x.max())
  for c in np.flatnonzero(count == 0):
    says = declared[c].text
    raise errors.DataError(
      f"{file and file + ': '}Variable {variables[c]!r} has no observed value in "
      f"{where} ({total} values, all missing). Expected at least one: check "
      f"data.variables, data.split and {key}.missing_value"
      + (f"; none turns off what the file declares ({says})." if says else ".")
    )
  std = np.sqrt(square / np.maximum(count - ddof, 1))
  if kind == "standard":
    offset, scale = mean, std
  elif kind == "range":
    offset, scale = minimum, maximum - minimum
  # Rounding leaves a tiny deviation on a constant that float32 cannot hold.
  magnitude = np.maximum(np.abs(minimum), np.abs(maximum))
  constant = (maximum - minimum) <= 1e-7 * magnitude
  constant &= kind != "fixed"
  for c in np.flatnonzero(constant):
    if kind != "none":
      warnings.warn(
        f"Variable {variables[c]!r} is constant ({minimum[c]:g}) in "
        f"{where}; it is normalised with scale 1.",
        stacklevel=2,
      )
  scale = np.where(constant, 1.0, scale)
  return Statistics(
    variables=tuple(variables),
    transform=transform,
    kind=kind,
    offset=offset.astype(np.float32),
    scale=scale.astype(np.float32),
    mean=mean,
    std=std,
    minimum=minimum,
    maximum=maximum,
    missing_share=1 - count / max(total, 1),
    count=count,
    notes=tuple(
      f"{file and file + ': '}{note}"
      for c, name in enumerate(variables)
      for note in quality.notes(
        name, watch.seen(c), labels[c], declared[c], key=f"{key}.missing_value"
      )
    ),
  )


def _given(
  key: str, value: float | Sequence[float], default: float, channels: int
) -> np.ndarray:
  """data.offset or data.scale as one number for each channel, [C] float64."""
  try:
    numbers = np.asarray(value, np.float64).reshape(-1)
  except (ValueError, TypeError):
    numbers = np.array([np.nan])
  if not numbers.size:
    numbers = np.array([default])
  good = np.isfinite(numbers).all() and (key != "scale" or (numbers > 0).all())
  if not good or len(numbers) not in (1, channels):
    what = "numbers above 0" if key == "scale" else "numbers"
    raise errors.DataError(
      f"data.{key}={value!r}; expected {what}: one, or one for each of the "
      f"{channels} variables."
    )
  return np.broadcast_to(numbers, channels).copy()
