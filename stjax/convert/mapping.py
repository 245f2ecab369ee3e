"""Name maps: one declaration of names and layouts, used in both directions."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from flax import traverse_util

from stjax.convert import checkpoints
from stjax.convert.layout import COUNTERS, LAYER, NORM, Leaf
from stjax.errors import ConvertError

# Training wrappers and writers of archives put these in front of the names of a
# state dict.
PREFIXES = ("module.", "model.", "_orig_mod.", "param/")
# Wrappers of parts of a network put these into the names.
INNER_PREFIXES = (
  "_orig_mod.",
  "module.",
  "_fsdp_wrapped_module.",
  "_checkpoint_wrapped_module.",
)
_SHOWN = 6  # Problems of one kind that a message lists.


class Entry(NamedTuple):
  """The place here of one torch module or parameter.

  Attributes:
    torch: its dotted name; {i} and {j} stand for numbers.
    path: its name here, with parts joined by "/" and the same {i} and {j}.
    layout: the module's leaves.
  """

  torch: str
  path: str
  layout: tuple[Leaf, ...]


def entries(
  torch: str, path: str, names: Iterable[tuple[str, str, tuple[Leaf, ...]]]
) -> list[Entry]:
  """Puts prefixes before the names inside a module.

  Args:
    torch: prefix of the torch names.
    path: prefix of the names here.
    names: in torch, here, and the layout.
  """
  return [Entry(torch + name, path + here, layout) for name, here, layout in names]


def unit(torch: str, path: str, conv: str, norm: str) -> list[Entry]:
  """Maps the names of a `ConvUnit`.

  Args:
    torch: prefix of the torch names.
    path: the unit's name here.
    conv: torch name of its convolution, after the prefix.
    norm: torch name of its norm, in the same form.
  """
  return entries(torch, path, ((conv, "/conv", LAYER), (norm, "/norm", NORM)))


def double_unit(torch: str, path: str) -> list[Entry]:
  """Maps the names of two units in a row, which the originals call double_conv.

  Args:
    torch: prefix of the torch names.
    path: the name here of the module of both.
  """
  first = unit(f"{torch}double_conv.", f"{path}/first", conv="0", norm="1")
  return first + unit(f"{torch}double_conv.", f"{path}/second", conv="3", norm="4")


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

  Where several entries fit a name, the first of them counts.

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
    """Finds the "collection/path" and the leaf of a torch name, None if unknown."""
    return self._look_up(self._from_torch, key)

  def key(self, path: str) -> tuple[str, Leaf] | None:
    """Finds the torch name and the leaf of a "collection/path", None if unknown."""
    return self._look_up(self._from_path, path)

  @staticmethod
  def _look_up(rules, name):
    for pattern, template, leaf in rules:
      if match := pattern.fullmatch(name):
        return template.format(**match.groupdict()), leaf
    return None

  def below(self, torch: str, path: str) -> "NameMap":
    """Makes the map of a part of the network, with both prefixes taken off.

    Args:
      torch: prefix of the torch names, for example "hid.enc.{i}.block.".
      path: prefix of the names here, for example "translator/block_{i}/core/".
    """
    return NameMap(
      Entry(
        entry.torch.removeprefix(torch), entry.path.removeprefix(path), entry.layout
      )
      for entry in self.entries
      if entry.torch.startswith(torch) and entry.path.startswith(path)
    )


def strip_prefixes(key: str, names: NameMap) -> str:
  """Takes wrappers' prefixes off a name that is only known without them."""
  while names.path(key) is None:
    prefix = next((p for p in PREFIXES if key.startswith(p)), None)
    if prefix is None:
      break
    key = key.removeprefix(prefix)
  if names.path(key) is None:
    short = key
    for prefix in INNER_PREFIXES:
      short = short.replace(f".{prefix}", ".")
    if names.path(short) is not None:
      return short
  return key


def plain_names(
  state_dict: Mapping[str, Any], names: NameMap, constants: Iterable[str] = ()
) -> dict[str, tuple[str, Any]]:
  """Finds the weights of a checkpoint and takes prefixes off their names.

  Args:
    state_dict: names and arrays; they may be nested, see `checkpoints.find`.
    names: the family's map.
    constants: further names of the network.

  Returns:
    {name as it came: (name without prefixes, array)}.

  Raises:
    ConvertError: there are no weights, or it is not clear which are meant.
  """
  constants = set(constants)

  def known(key):
    key = strip_prefixes(key, names)
    return key in constants or names.path(key) is not None

  arrays = checkpoints.find(state_dict).arrays
  arrays = checkpoints.drop_bookkeeping(arrays, known)
  prefix = checkpoints.common_prefix(arrays, known)
  if prefix:
    logging.info("The prefix %r is taken off the names of the weights.", prefix)
  return {
    key: (strip_prefixes(key.removeprefix(prefix), names), value)
    for key, value in arrays.items()
  }


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
    state_dict: torch's names and arrays; they may be nested as programs save
      them, and have a common prefix and those of wrappers.
    constants: torch names and values of buffers that follow from the
      network's options; they are compared and left out.
    allow_unused: regular expression of names (without prefixes) to ignore.

  Returns:
    {collection: tree of numpy arrays}. The collection "torch" is among them if
    the state dict has what the networks do not use: counters, and weights that
    nothing reads.

  Raises:
    ConvertError: names are missing or unused, or a shape, a type or a constant
      differs, or weights are not finite; the message lists the first of each kind.
  """
  constants = constants or {}
  flat = traverse_util.flatten_dict(dict(expected), sep="/")
  found, source, problems = {}, {}, []
  infinite = []
  weights = plain_names(state_dict, names, constants)
  for original, (key, value) in weights.items():
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
    array = np.asarray(value)
    if path in source:
      problems.append(f"{original}: same weights as {source[path]}")
      continue
    source[path] = original
    if counter:
      found[path] = np.array(array, order="C")
    elif misfit := _misfit(array, leaf, flat[path].shape):
      problems.append(f"{original}: {misfit}")
    else:
      with np.errstate(over="ignore"):  # What is too large is said below.
        found[path] = np.array(leaf.from_torch(array), flat[path].dtype, order="C")
      if bad := np.count_nonzero(~np.isfinite(found[path])):
        infinite.append(f"{original} ({bad} of {array.size} values)")
  for path in flat:
    if path not in source:
      located = names.key(path)
      problems.append(f"{located[0] if located else path}: missing")
  if problems:
    raise ConvertError(_message(problems, weights, flat))
  if infinite:
    raise ConvertError(
      f"NaN or Inf is in {checkpoints.few(infinite)}. The training that wrote these"
      " weights had broken down; give an earlier checkpoint."
    )
  return traverse_util.unflatten_dict(found, sep="/")


def _message(problems: list[str], weights: Mapping, flat: Mapping) -> str:
  """Words for what does not fit: the first problems of each kind, and a count."""
  kinds = {"": [], ": unused": [], ": missing": []}
  for problem in problems:
    kind = next(end for end in reversed(kinds) if problem.endswith(end))
    kinds[kind].append(problem)
  lines = []
  for end, found in kinds.items():
    lines += found[:_SHOWN]
    if len(found) > _SHOWN:
      lines.append(f"... and {len(found) - _SHOWN} more{end}")
  advice = "check its options, in_shape, or allow unused ones by allow_unused=REGEX"
  if len(kinds[": unused"]) == len(weights) and len(kinds[": missing"]) == len(flat):
    advice = "no name is known: they are of another network, or see model.name"
  return (
    f"{len(problems)} weights do not fit the network ({advice}):\n  "
    + "\n  ".join(lines)
  )


def _misfit(array: np.ndarray, leaf: Leaf, shape: tuple[int, ...]) -> str | None:
  """Tells how the shape of torch's array is wrong for a shape here, None if not."""
  wanted = leaf.to_torch(np.empty(shape, np.float32))
  if array.dtype.kind not in "fc" and array.dtype.name != "bfloat16":
    return (
      f"type {array.dtype}; expected floating-point numbers (quantised weights must"
      " be dequantised in torch first)"
    )
  is_complex = np.iscomplexobj(wanted)
  # Complex numbers may be pairs of real ones.
  pairs = is_complex and not np.iscomplexobj(array)
  expected = (*wanted.shape, 2) if pairs else wanted.shape
  if array.shape == expected and (is_complex or not np.iscomplexobj(array)):
    return None
  return f"shape {array.shape}; expected {wanted.shape}" + ", complex" * is_complex


def to_state_dict(
  names: NameMap,
  variables: Mapping[str, Any],
  *,
  constants: Mapping[str, np.ndarray] | None = None,
  unread: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
  """Converts variables back, as the inverse of `to_variables`.

  Args:
    names: the family's map.
    variables: {collection: tree of arrays}.
    constants: torch names and values of buffers that are added.
    unread: torch names and values of weights that nothing reads, for
      variables that do not hold them.

  Returns:
    Torch's names and arrays. Counters of batches come from the collection
    "torch", and are 0 if it does not have them.

  Raises:
    ConvertError: the map does not know variables; the message lists them all.
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
