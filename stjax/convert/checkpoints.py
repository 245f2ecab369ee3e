"""Where the weights are in what programs save as a checkpoint."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from stjax.errors import ConvertError

# Programs call the weights in their checkpoints by these names, also with one of
# `_ENDINGS`. Where a file has several, the first of them counts. The last is the
# network that SynCast trained, beside frozen ones.
NESTINGS = (
  "state_dict", "model", "module", "net", "network", "params", "weights",
  "generator", "netg", "denoiser", "diffcast",
)  # fmt: skip
_ENDINGS = ("_state_dict", "_states", "_state", "_weights", "_dict")
_AVERAGED = re.compile(
  r"(?i:(?<![a-z])(ema|shadow|swa|avg|averaged?|polyak)(?![a-z])|modelema|"
  r"moving_?average|weight_?averag)|EMA"
)
# What an optimiser, a trainer and a random generator keep is no network.
_OTHERS = re.compile(
  r"optim|(^|_)opt($|_)|sched|scaler|(^|_)amp($|_)|^lr_|rng|hyper_?param|callbacks|"
  r"loops|^args$|config|^hparams$|random_state|metrics",
  re.IGNORECASE,
)
# Counts and scores that some programs put among the weights.
_BOOKKEEPING = re.compile(
  r"(^|[._])(epochs?|(global_)?steps?|iters?|iterations?|num_updates|n_averaged|decay"
  r"|loss|best|lr|initted|version)(_\w+)?$"
)
_NAMES_SHOWN = 6
_LONGEST_PREFIX = 4  # Parts of a dotted name.


class Weights(NamedTuple):
  """The weights of a checkpoint.

  Attributes:
    arrays: names and arrays.
    taken: where in the checkpoint they are, or "" where it holds nothing else.
    left: what else it holds.
    averaged: where averaged weights (EMA) are that were not taken.
    mixed: names that have no average and come from the trained weights.
  """

  arrays: dict[str, Any]
  taken: str = ""
  left: tuple[str, ...] = ()
  averaged: tuple[str, ...] = ()
  mixed: tuple[str, ...] = ()


def is_array(value: Any) -> bool:
  """Whether a value is an array of numpy, jax or torch."""
  return hasattr(value, "shape") and hasattr(value, "dtype")


def few(names) -> str:
  """The first few names, and how many more there are."""
  names = list(names)
  more = f" and {len(names) - _NAMES_SHOWN} more" * (len(names) > _NAMES_SHOWN)
  return ", ".join(names[:_NAMES_SHOWN]) + more


def find(
  content: Any, *, ema: bool = False, name: str = "", where: str = "the checkpoint"
) -> Weights:
  """Finds the weights in a checkpoint.

  Args:
    content: a state dict, or mappings and lists that hold one, perhaps beside an
      averaged copy and what belongs to the optimiser.
    ema: whether the averaged copy (EMA) is taken.
    name: which of several state dicts is taken, by its key ("generator",
      "model/encoder"), or a prefix of the weights' names; "" decides by
      `NESTINGS`.
    where: what is read, for messages.

  Raises:
    ConvertError: no weights, no averaged ones though they are asked for, or several
      of which none has a usual name.
  """
  if not isinstance(content, (Mapping, list, tuple)):
    raise ConvertError(
      f"{where} holds a {type(content).__name__}; expected a state dict: save"
      " model.state_dict() alone."
    )
  content = _unswapped(content)
  found = list(_state_dicts(content, ()))
  large = [entry for entry in found if any(np.ndim(x) for x in entry[1].values())]
  found = large or found
  trained = [entry for entry in found if not _is_averaged(entry[0])]
  averaged = {_label(path): arrays for path, arrays in found if _is_averaged(path)}
  for path, shadow in _shadow_lists(content, ()):
    averaged[_label(path)] = shadow
  if name:
    arrays, taken = _named(name, trained, averaged, where)
    return Weights(arrays, taken, _others(content, taken))
  if not trained and not averaged:
    raise ConvertError(_nothing(content, where))
  taken, arrays = _chosen(trained, where) if trained else ("", {})
  arrays, copies = _split(arrays)
  averaged |= {"/".join(filter(None, (taken, key))): x for key, x in copies.items()}
  if ema and not averaged:
    raise ConvertError(
      f"{where} holds no averaged weights (EMA) that are named so; leave out --ema, or"
      " name them by --weights=KEY."
    )
  mixed = ()
  if ema or not arrays:
    if len(averaged) > 1:
      raise ConvertError(
        f"{where} holds {len(averaged)} averaged copies of the weights:"
        f" {few(averaged)}. Choose one by python -m stjax.convert --weights=KEY."
      )
    (taken, copy), trained_arrays = averaged.popitem(), arrays
    arrays, mixed = _completed(_inner(copy), trained_arrays, f"{taken!r} of {where}")
  return Weights(arrays, taken, _others(content, taken), tuple(averaged), mixed)


def drop_bookkeeping(arrays: Mapping[str, Any], known) -> dict[str, Any]:
  """Leaves out single numbers that are counts or scores, not weights.

  Args:
    arrays: names and arrays.
    known: (name) -> whether the network has such a weight.
  """
  return {
    key: value
    for key, value in arrays.items()
    if np.ndim(value) or not _BOOKKEEPING.search(key) or known(key)
  }


def common_prefix(arrays: Mapping[str, Any], known) -> str:
  """Finds the one prefix without which most names are known.

  Args:
    arrays: names and arrays.
    known: (name) -> whether the network has such a weight.

  Returns:
    The prefix with its final dot; "" if most names are known as they are.

  Raises:
    ConvertError: two prefixes fit equally well.
  """
  counts = {"": 0}
  for key in arrays:
    parts = key.split(".")
    for cut in range(min(_LONGEST_PREFIX, len(parts) - 1) + 1):
      if known(".".join(parts[cut:])):
        prefix = "".join(f"{part}." for part in parts[:cut])
        counts[prefix] = counts.get(prefix, 0) + 1
  best = max(counts.values())
  if counts[""] == best:
    return ""
  fitting = [prefix for prefix, count in counts.items() if count == best]
  if len(fitting) > 1:
    raise ConvertError(
      f"the weights of such a network are there {len(fitting)} times, under the"
      f" prefixes {few(fitting)}. Choose one by python -m stjax.convert"
      f" --weights={fitting[0].removesuffix('.')}."
    )
  return fitting[0]


def _items(content: Any) -> Iterator[tuple[str, Any]]:
  if isinstance(content, Mapping):
    return ((key, value) for key, value in content.items() if isinstance(key, str))
  return ((str(number), value) for number, value in enumerate(content))


def _state_dicts(content: Any, path: tuple[str, ...]):
  """Every mapping that holds arrays, with the keys that lead there."""
  if "param_groups" in content:
    return
  arrays = {}
  if isinstance(content, Mapping):
    arrays = {key: x for key, x in _items(content) if is_array(x)}
  if arrays:
    yield path, arrays
  for key, value in _items(content):
    inside = isinstance(value, (Mapping, list, tuple))
    if inside and (_AVERAGED.search(key) or not _OTHERS.search(key)):
      yield from _state_dicts(value, (*path, key))


def _shadow_lists(content: Any, path: tuple[str, ...]):
  """Averaged weights that are kept as a list, in the order of the parameters."""
  for key, value in _items(content):
    if isinstance(value, Mapping) and "param_groups" not in value:
      yield from _shadow_lists(value, (*path, key))
    elif isinstance(value, (list, tuple)) and value and all(map(is_array, value)):
      if _is_averaged((*path, key)) and not key.startswith("collected"):
        yield (*path, key), list(value)


def _unswapped(content: Any) -> Any:
  """Lightning's callback for averages puts the average where the weights were."""
  if isinstance(content, Mapping) and {"current_model_state", "averaging_state"} <= set(
    content
  ):
    content = dict(content)
    content["averaged_state_dict"] = content.pop("state_dict")
    content["state_dict"] = content.pop("current_model_state")
    del content["averaging_state"]
  return content


def _is_averaged(path: tuple[str, ...]) -> bool:
  return any(map(_AVERAGED.search, path))


def _label(path: tuple[str, ...]) -> str:
  return "/".join(path)


def _rank(path: tuple[str, ...]) -> tuple[int, ...]:
  def place(key):
    key = key.lower()
    names = (key, *(key.removesuffix(end) for end in _ENDINGS))
    return min((NESTINGS.index(n) for n in names if n in NESTINGS), default=unknown)

  unknown = len(NESTINGS) + 1
  # What lies beside nested mappings counts after those of usual names only.
  return tuple(map(place, path)) or (unknown - 1,)


def _chosen(found, where: str) -> tuple[str, dict[str, Any]]:
  ranked = sorted(found, key=lambda entry: _rank(entry[0]))
  best = [entry for entry in ranked if _rank(entry[0]) == _rank(ranked[0][0])]
  if len(best) > 1:
    labels = [_label(path) for path, _ in best]
    raise ConvertError(
      f"{where} holds weights under {few(labels)}. Choose those of this network by"
      f" python -m stjax.convert --weights=KEY, for example --weights={labels[0]}."
    )
  return _label(best[0][0]), best[0][1]


def _named(name, trained, averaged, where) -> tuple[dict[str, Any], str]:
  places = {_label(path): arrays for path, arrays in trained} | averaged
  if name in places:
    arrays = places[name]
    if isinstance(arrays, list):
      arrays = _completed(arrays, _chosen(trained, where)[1], f"{name!r} of {where}")[0]
    elif name in averaged:
      arrays = _inner(arrays)
      if trained:
        arrays = _completed(arrays, _chosen(trained, where)[1], f"{name!r} of {where}")
        arrays = arrays[0]
    return arrays, name
  for label, arrays in places.items():
    prefix = name.removeprefix(f"{label}/").removesuffix(".") + "."
    below = {}
    if isinstance(arrays, Mapping):
      below = _below(arrays, prefix)
    if below:
      if _AVERAGED.search(prefix):
        rest = {k: x for k, x in arrays.items() if not k.startswith(prefix)}
        below = _completed(below, rest, f"{name!r} of {where}")[0]
      return below, name
  raise ConvertError(
    f"{where} has no weights under --weights={name}; it has"
    f" {few(label or 'those at its top' for label in places)}."
  )


def _below(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  return {k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)}


def _bare(key: str) -> str:
  return key.replace(".", "")


def _split(arrays: Mapping[str, Any]) -> tuple[dict, dict[str, dict[str, Any]]]:
  """Parts the weights from averaged copies of them, by the first parts of names."""
  groups = {}
  for key in arrays:
    parts = key.split(".")
    for cut in range(1, min(_LONGEST_PREFIX, len(parts))):
      if _AVERAGED.search(parts[cut - 1]):
        groups.setdefault(".".join(parts[:cut]) + ".", []).append(key)
        break
  copies = {}
  for prefix, keys in groups.items():
    inner = {key.removeprefix(prefix): arrays[key] for key in keys}
    inner = drop_bookkeeping(inner, lambda key: False)
    rest = [k for k in arrays if not any(k.startswith(p) for p in groups)]
    if inner and len(_matches(inner, rest)) > len(inner) / 2:
      copies[prefix] = inner
  rest = {k: x for k, x in arrays.items() if not k.startswith(tuple(copies))}
  return rest, {key.removesuffix("."): value for key, value in copies.items()}


def _inner(copy):
  """What is averaged in a program's own record of its average."""
  if isinstance(copy, Mapping):
    for prefix in ("ema_model.", "averaged_model.", "shadow."):
      if below := _below(copy, prefix):
        return below
    return drop_bookkeeping(copy, lambda key: False)
  return copy


def _matches(copy, trained) -> dict[str, str]:
  """The trained weight that each averaged one belongs to, by its name."""
  best = {}
  for cut in _cuts(trained):
    names = {key.removeprefix(cut): key for key in trained if key.startswith(cut)}
    bare = {_bare(name): key for name, key in names.items()}
    for other in _cuts(copy):
      found = {}
      for key in copy:
        short = key.removeprefix(other)
        # Some programs leave out the dots, which names of buffers may not have.
        place = names.get(short) or ("." not in short and bare.get(short)) or None
        if place:
          found[key] = place
      if len(found) > len(best):
        best = found
  return best


def _cuts(names) -> set[str]:
  cuts = {""}
  for key in names:
    parts = key.split(".")
    cuts |= {
      "".join(f"{part}." for part in parts[:cut])
      for cut in range(1, min(3, len(parts) - 1) + 1)
    }
  # Wrappers' prefixes are short and shared by most names.
  shared = lambda cut: sum(key.startswith(cut) for key in names) * 2 > len(names)
  return {cut for cut in cuts if shared(cut)}


def is_buffer(key: str) -> bool:
  """Whether a name is that of a statistic of batches, which is no parameter."""
  return key.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _completed(copy, trained, where) -> tuple[dict[str, Any], tuple[str, ...]]:
  """Averaged weights under the names of the trained ones, and what they lack.

  Buffers are rarely averaged: they come from the trained weights.
  """
  trained = drop_bookkeeping(trained, lambda key: False)
  if isinstance(copy, list):
    names = [key for key in trained if not is_buffer(key)]
    if len(names) != len(copy):
      raise ConvertError(
        f"{where} is a list of {len(copy)} averaged arrays, but {len(names)} parameters"
        " are named; the list cannot be matched to names. Load the average into the"
        " model in torch and save its state_dict()."
      )
    places = dict(zip(range(len(copy)), names, strict=True))
    values = dict(enumerate(copy))
  else:
    places, values = _matches(copy, list(trained)), copy
    if not places:
      return dict(copy), ()
  result = dict(trained)
  for key, place in places.items():
    if tuple(values[key].shape) != tuple(trained[place].shape):
      raise ConvertError(
        f"{where}: the average of {place} has shape {tuple(values[key].shape)}, the"
        f" trained one {tuple(trained[place].shape)}. Load the average into the model"
        " in torch and save its state_dict()."
      )
    result[place] = values[key]
  averaged = set(places.values())
  unmatched = {key: x for key, x in values.items() if key not in places}
  return result | unmatched, tuple(k for k in trained if k not in averaged)


def _others(content, taken: str) -> tuple[str, ...]:
  if not taken or not isinstance(content, Mapping):
    return ()
  return tuple(str(key) for key in content if str(key) != taken.split("/")[0])


def _nothing(content, where: str) -> str:
  if not content:
    return f"{where} is empty: it holds no weights."
  keys = f" (it has {few(map(str, content))})" if isinstance(content, Mapping) else ""
  if isinstance(content, Mapping) and any(
    key == "param_groups" or _OTHERS.search(str(key)) for key in content
  ):
    return (
      f"{where} holds the state of an optimiser or a trainer and no weights{keys}."
      " Give the file that has model.state_dict()."
    )
  return f"{where} holds no arrays by name{keys}; expected a state dict."
