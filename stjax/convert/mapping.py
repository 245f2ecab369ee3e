"""Name maps: one declaration of names and layouts, used in both directions."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from stjax.convert.layout import COUNTERS, Leaf
from stjax.errors import ConvertError

# What training wrappers, or writers of archives, put in front of the names of
# a state dict.
PREFIXES = ("module.", "model.", "_orig_mod.", "param/")
# What programs call the weights in their checkpoints.
NESTINGS = ("state_dict", "model_state")


class Entry(NamedTuple):
  """Where one torch module (or parameter) lives here.

  Attributes:
    torch: dotted name; {i}, {j} stand for numbers.
    path: name here, parts joined by "/", with the same {i}, {j}.
    layout: the module's leaves.
  """

  torch: str
  path: str
  layout: tuple[Leaf, ...]


def _pattern(template: str) -> re.Pattern:
  parts = re.split(r"\{(\w)\}", template)
  return re.compile(
    "".join(
      rf"(?P<{part}>\d+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)
    )
  )


def _join(separator: str, *parts: str) -> str:
  return separator.join(part for part in parts if part)


class NameMap:
  """The names of a network family in torch and here.

  Attributes:
    entries: the declaration.
  """

  def __init__(self, entries: Iterable[Entry]):
    self.entries = tuple(entries)
    self._from_torch = []
    self._from_path = []
    for torch, path, layout in self.entries:
      for leaf in layout:
        key = _join(".", torch, leaf.torch)
        name = _join("/", leaf.collection, path, leaf.name)
        self._from_torch.append((_pattern(key), name, leaf))
        self._from_path.append((_pattern(name), key, leaf))

  def path(self, key: str) -> tuple[str, Leaf] | None:
    """ "collection/path" and leaf of a torch name; None if it has none."""
    return self._look_up(self._from_torch, key)

  def key(self, path: str) -> tuple[str, Leaf] | None:
    """Torch name and leaf of a "collection/path"; None if it has none."""
    return self._look_up(self._from_path, path)

  @staticmethod
  def _look_up(rules, name):
    for pattern, template, leaf in rules:
      if match := pattern.fullmatch(name):
        return template.format(**match.groupdict()), leaf
    return None

  def below(self, torch: str, path: str) -> "NameMap":
    """The map of a part of the network, with both prefixes taken off.

    Args:
      torch: prefix of the torch names, e.g. "hid.enc.{i}.block.".
      path: prefix of the names here, e.g. "translator/block_{i}/core/".
    """
    return NameMap(
      Entry(
        entry.torch.removeprefix(torch), entry.path.removeprefix(path), entry.layout
      )
      for entry in self.entries
      if entry.torch.startswith(torch) and entry.path.startswith(path)
    )


def strip_nesting(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
  """The weights themselves, out of a checkpoint's `NESTINGS` if need be."""
  for name in NESTINGS:
    if isinstance(state_dict.get(name), Mapping):
      return strip_nesting(state_dict[name])
  return state_dict


def strip_prefixes(key: str, names: NameMap) -> str:
  """The name without wrappers' prefixes, where it is only known without."""
  bare = key
  while names.path(bare) is None:
    prefix = next((p for p in PREFIXES if bare.startswith(p)), None)
    if prefix is None:
      return bare if bare != key else key
    bare = bare.removeprefix(prefix)
  return bare


def to_variables(
  names: NameMap,
  expected: Mapping[str, Any],
  state_dict: Mapping[str, Any],
  *,
  constants: Mapping[str, np.ndarray] | None = None,
  allow_unused: str | None = None,
) -> dict[str, Any]:
  """Converts a state dict.

  Args:
    names: the family's map.
    expected: {collection: tree of arrays or of their abstract shapes}.
    state_dict: torch's names and arrays, possibly nested in "state_dict",
      possibly with prefixes of wrappers.
    constants: torch names and values of buffers that follow from the
      network's options; they are compared and left out.
    allow_unused: regular expression of names (without prefixes) to ignore.

  Returns:
    {collection: tree of numpy arrays}; with the collection "torch" (what the
    networks do not use: counters, weights that nothing reads) where the state
    dict has such.

  Raises:
    ConvertError: missing or unused names, all listed; a shape or a constant
      that differs.
  """
  constants = constants or {}
  flat = traverse_util.flatten_dict(dict(expected), sep="/")
  found, source, problems = {}, {}, []
  for original, value in strip_nesting(state_dict).items():
    key = strip_prefixes(original, names)
    if key in constants:
      if not np.array_equal(np.asarray(value), constants[key]):
        problems.append(
          f"{original} {np.shape(value)}: differs from the constant that the "
          f"network's options and in_shape give {constants[key].shape}"
        )
      continue
    located = names.path(key)
    counter = located is not None and located[1].collection == COUNTERS
    if located is None or not (counter or located[0] in flat):
      if allow_unused is None or not re.search(allow_unused, key):
        problems.append(f"{original} {np.shape(value)}: unused")
      continue
    path, leaf = located
    array = leaf.from_torch(np.asarray(value))
    if path in found:
      problems.append(f"{original}: same weights as {source[path]}")
    elif not counter and array.shape != flat[path].shape:
      problems.append(
        f"{original}: shape {np.shape(value)}; expected "
        f"{leaf.to_torch(np.empty(flat[path].shape)).shape}"
      )
    if not counter:
      array = array.astype(flat[path].dtype)
    found[path], source[path] = np.array(array, order="C"), original
  for path in flat:
    if path not in found:
      located = names.key(path)
      problems.append(f"{located[0] if located else path}: missing")
  if problems:
    raise ConvertError(
      f"{len(problems)} weights do not fit the network (check its options, "
      "in_shape, or allow unused ones by allow_unused=REGEX):\n  "
      + "\n  ".join(problems)
    )
  return traverse_util.unflatten_dict(found, sep="/")


def to_state_dict(
  names: NameMap,
  variables: Mapping[str, Any],
  *,
  constants: Mapping[str, np.ndarray] | None = None,
  unread: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
  """Converts variables back; the inverse of `to_variables`.

  Args:
    names: the family's map.
    variables: {collection: tree of arrays}.
    constants: torch names and values of buffers to be added.
    unread: torch names and values of weights that nothing reads, for
      variables that do not hold them.

  Returns:
    Torch's names and arrays. Counters of batches are those of the collection
    "torch", else 0.

  Raises:
    ConvertError: variables that the map does not know, all listed.
  """
  flat = traverse_util.flatten_dict(dict(variables), sep="/")
  result, unknown = {}, []
  for path, value in flat.items():
    located = names.key(path)
    if located is None:
      unknown.append(path)
      continue
    key, leaf = located
    result[key] = np.array(leaf.to_torch(np.asarray(value)), order="C")
    if key.endswith(".running_mean") or key == "running_mean":
      counter = key.removesuffix("running_mean") + "num_batches_tracked"
      result.setdefault(counter, np.zeros((), np.int64))
  if unknown:
    raise ConvertError("variables without a torch name: " + ", ".join(sorted(unknown)))
  for key, value in (unread or {}).items():
    result.setdefault(key, np.array(value))
  return result | {key: np.array(value) for key, value in (constants or {}).items()}
