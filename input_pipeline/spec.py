"""The one declaration of what a batch holds.

`KEYS` says what is true of each array whatever the data are; a `Spec` adds the
sizes of one data set. Shapes for compilation, shardings, example batches,
cropping and what rollouts read of the future all follow from these two.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# A batch by the names of its arrays: of numpy or of jax, or their shapes.
Arrays = Mapping[str, Any]
FIELDS = ("batch", "time", "height", "width", "variable")


@dataclasses.dataclass(frozen=True)
class Key:
  """One array of a batch, as it is for all data.

  Attributes:
    dtype: the type of its values.
    axes: the names of its axes, in order; without "batch" it is the same for
      every example.
    span: which frames of the window lie on its time axis: "history",
      "targets" or "both"; "" where it has no time axis.
    known_future: whether it is known for times that are still to come. It
      then goes on to the horizon also where targets are not read, and
      rollouts read on in it.
    host_only: whether it stays on the host.
  """

  dtype: type
  axes: tuple[str, ...] = ("batch",)
  span: str = ""
  known_future: bool = False
  host_only: bool = False


KEYS = {
  # Normalised; 0 where missing.
  "inputs": Key(np.float32, FIELDS, "history"),
  "targets": Key(np.float32, FIELDS, "targets"),
  # A preference pair: the better and the worse of two forecasts, normalised.
  "chosen": Key(np.float32, FIELDS, "targets"),
  "rejected": Key(np.float32, FIELDS, "targets"),
  # False for a window without a pair, whose two forecasts are zeros.
  "paired": Key(np.bool_),
  # True where observed.
  "mask": Key(np.bool_, FIELDS, "both"),
  # Seconds since 1970, with fractions. 64-bit numbers do not fit a device without
  # x64, and no network reads them.
  "time": Key(np.float64, ("batch", "time"), "both", known_future=True, host_only=True),
  # The columns of data.calendar.
  "calendar": Key(np.int32, ("batch", "time", "column"), "both", known_future=True),
  # The variables of data.forcings, normalised; 0 where missing.
  "forcings": Key(np.float32, (*FIELDS[:-1], "forcing"), "both", known_future=True),
  # The fields of data.static, normalised; 0 where missing. The same for every
  # example.
  "static": Key(np.float32, ("height", "width", "static")),
  # Position in the split; in the whole one where only every so many windows are
  # read.
  "index": Key(np.int32),
  # False for the rows that fill up a last batch.
  "valid": Key(np.bool_),
}
# Those of a preference pair; see `input_pipeline.pairs`.
PAIR_KEYS = ("chosen", "rejected", "paired")


@dataclasses.dataclass(frozen=True)
class Spec:
  """What the batches of one data set hold.

  Attributes:
    keys: names of their arrays, out of `KEYS`.
    history: frames T_in.
    horizon: frames T_out.
    sizes: lengths of the other axes by their names.
    calendar: the columns of data.calendar, with the number of values of each.
    targets: whether targets are read; else they have 0 frames.
  """

  keys: tuple[str, ...]
  history: int
  horizon: int
  sizes: Mapping[str, int]
  calendar: Mapping[str, int]
  targets: bool = True

  def resized(self, history: int = 0, horizon: int = 0, targets: bool = True) -> "Spec":
    """The same data cut into other windows; 0 keeps a length as it is."""
    return dataclasses.replace(
      self,
      history=history or self.history,
      horizon=horizon or self.horizon,
      targets=targets,
    )

  def without_pairs(self) -> "Spec":
    """The same without preference pairs, which only training reads."""
    keys = tuple(name for name in self.keys if name not in PAIR_KEYS)
    return dataclasses.replace(self, keys=keys)

  def shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a batch."""
    return {
      name: tuple(
        batch_size if axis == "batch" else self._length(KEYS[name], axis)
        for axis in KEYS[name].axes
      )
      for name in self.keys
    }

  def zeros(self, batch_size: int) -> dict[str, np.ndarray]:
    """A batch of zeros."""
    shapes = self.shapes(batch_size)
    return {name: np.zeros(shape, KEYS[name].dtype) for name, shape in shapes.items()}

  def _length(self, key: Key, axis: str) -> int:
    if axis != "time":
      return self.sizes[axis]
    ahead = self.horizon if self.targets or key.known_future else 0
    return self.history * (key.span != "targets") + ahead * (key.span != "history")


def shared(batch: Arrays) -> dict[str, Any]:
  """The arrays of a batch that all its examples share."""
  return {name: x for name, x in batch.items() if "batch" not in KEYS[name].axes}


def on_device(batch: Arrays) -> dict[str, Any]:
  """The arrays of a batch that go to the devices."""
  return {name: x for name, x in batch.items() if not KEYS[name].host_only}


def known_future(batch: Arrays) -> dict[str, Any]:
  """The arrays of a batch [B, T, ...] that are known for times to come."""
  return {name: x for name, x in batch.items() if KEYS[name].known_future}


def crop(batch: Arrays, history: int, horizon: int) -> dict[str, Any]:
  """Cuts the windows of a batch to shorter ones around the same now.

  What is known for times to come is cut at the front only: rollouts read on.

  Args:
    batch: arrays of numpy or of jax.
    history: frames to keep before now, of the newest.
    horizon: frames to keep after now; fewer than there are.

  Returns:
    The batch; a window that is not longer stays as it is.
  """
  early = max(batch["inputs"].shape[1] - history, 0)
  late = max(batch["targets"].shape[1] - horizon, 0)

  def cut(name, x):
    key = KEYS[name]
    if not key.span:
      return x
    first = early if key.span != "targets" else 0
    ends = key.span != "history" and not key.known_future
    return x[:, first : x.shape[1] - late * ends]

  return {name: cut(name, x) for name, x in batch.items()}
