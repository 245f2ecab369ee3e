"""The command that draws candidate forecasts and pairs them by scores.

It leaves WORKDIR/preferences/NAME, which a run of method 'preference' reads in
data.pairs; `input_pipeline.pairs` describes the folder.
"""

import collections
import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

import input_pipeline
from input_pipeline import pairs as pairs_lib
from input_pipeline import spec as spec_lib
from stjax import config as config_lib
from stjax import errors, methods
from stjax import metrics as metrics_lib
from stjax import sharding as sharding_lib
from stjax.forecasting import candidates as candidates_lib
from stjax.methods import diffusion
from stjax.metrics import scores as scores_lib
from stjax.planning import pairs as rules
from stjax.run import run as run_lib
from stjax.run import sources

PyTree = Any
PAIRINGS = ("sample", "frame", "both")
# Options of scores, which are those of the section prefer.
_SCORE_OPTIONS = ("released", "scale", "pooling", "band")


def check(run: run_lib.Run, splits: bool) -> None:
  """Finds errors before any candidate is drawn.

  Args:
    run: the run.
    splits: whether preferences are asked for at all; if so, their splits are opened.

  Raises:
    ConfigError: a setting of the section prefer that cannot be used.
    DataError: a split has no window.
  """
  if not splits:
    return
  options = run.config.prefer
  if options.candidates < 2:
    raise errors.ConfigError(
      f"prefer.candidates={options.candidates} must be at least 2: a pair is made of"
      " two forecasts."
    )
  for name in ("window_stride", "batch_size", "round", "top"):
    if options[name] < 1:
      raise errors.ConfigError(f"prefer.{name}={options[name]} must be at least 1.")
  names = dict.fromkeys(config_lib.CHECKPOINTS)
  errors.pick("prefer.checkpoint", options.checkpoint, names)
  errors.pick("prefer.pairing", options.pairing, dict.fromkeys(PAIRINGS))
  if not options.splits or len(set(options.splits)) < len(options.splits):
    raise errors.ConfigError(
      f"prefer.splits={tuple(options.splits)} must name a split, and none twice: first"
      " the one whose pairs are trained on."
    )
  for name in options.splits:
    errors.pick("prefer.splits", name, dict.fromkeys(config_lib.SPLITS))
  if not options.name or pathlib.PurePath(options.name).name != options.name:
    raise errors.ConfigError(
      f"prefer.name={options.name!r} must be the name of a folder."
    )
  if options.weights and len(options.weights) != len(options.scores):
    raise errors.ConfigError(
      f"prefer.weights={tuple(options.weights)} must have a weight for each of"
      f" prefer.scores={tuple(options.scores)}."
    )
  if options.pairing == "both" and len(options.scores) != 2:
    raise errors.ConfigError(
      "prefer.pairing='both' ranks the candidates by two scores, but prefer.scores"
      f" is {tuple(options.scores)}."
    )
  _scores(run)
  _guided(run)
  height = run.spec.sizes["height"]
  sharding_lib.check_batch(
    run.mesh, "prefer.batch_size", options.batch_size, 1, height, options.candidates
  )
  for name in options.splits:
    run.split(name, options.batch_size, every=options.window_stride)


def _scores(run) -> dict[str, scores_lib.CandidateScore]:
  """The scores that are asked for, by name."""
  options = run.config.prefer
  if not options.scores:
    raise errors.ConfigError(
      "prefer.scores is empty: name a score, out of"
      f" {', '.join(sorted(scores_lib.SCORES))}."
    )
  thresholds = tuple(options.thresholds or run.config.evaluation.thresholds)
  made = {}
  for name in options.scores:
    kind = errors.pick("prefer.scores", name, scores_lib.SCORES)
    fields = {field.name for field in dataclasses.fields(kind)}
    if "thresholds" in fields and not thresholds:
      raise errors.ConfigError(
        f"prefer.scores: {name!r} counts events: give their thresholds, in physical"
        " units, in prefer.thresholds."
      )
    given = {key: options[key] for key in _SCORE_OPTIONS if key in fields}
    made[name] = scores_lib.build(name, thresholds, **given)
  return made


def prefer(run: run_lib.Run) -> pathlib.Path:
  """Draws candidates for every window, scores and pairs them.

  Args:
    run: the run, whose `config.prefer` says what is drawn and how it is scored.

  Returns:
    The folder of the pairs.

  Raises:
    ConfigError: there is no checkpoint, or no window has a pair.
  """
  options = run.config.prefer
  variables = sources.load_variables(run, run.workdir, options.checkpoint)
  frozen = sources.frozen(run, training=_held(run))
  source = _source(run, variables, frozen)
  open_split = functools.partial(_open, run)
  splits = {name: open_split(name) for name in options.splits}
  about = _about(run, source, splits)
  place = run.workdir / "preferences" / options.name
  candidates = candidates_lib.Candidates(place, about)
  candidates.draw(
    _guided(run),
    variables,
    run.for_forecast(frozen),
    options.candidates,
    splits,
    open_split,
  )
  candidates_lib.barrier("candidates are drawn")
  scores = _scores(run)
  found = {
    name: _pair(name, _score(run, scores, candidates, name, data), scores, run)
    for name, data in splits.items()
  }
  for name, data in splits.items():
    found[name]["fingerprint"] = about["splits"][name]
    found[name]["windows"] = data.num_examples
  candidates.close(
    {
      "format": pairs_lib.FORMAT,
      "source": source,
      "data": about["data"],
      "statistics": about["statistics"],
      "round": options.round,
      "candidates": options.candidates,
      "ensemble_mean": options.ensemble_mean,
      "pairing": options.pairing,
      "better": {name: score.better for name, score in scores.items()},
      "options": config_lib.plain(options),
      "splits": found,
    }
  )
  for name, section in found.items():
    _say(run, place, name, section)
  return place


def _open(run, name: str, first: int = 0) -> input_pipeline.Split:
  options = run.config.prefer
  return run.split(name, options.batch_size, every=options.window_stride, start=first)


def _source(run, variables, frozen) -> dict[str, Any]:
  """What the candidates are drawn from: where it is, and short names of its values.

  A run that is held to one of the networks in "from" may train on the pairs.
  """
  checkpoints = run.checkpoints()
  try:
    step = checkpoints.step_named(run.config.prefer.checkpoint)
  finally:
    checkpoints.close()
  digests = [sources.digest(variables)]
  if _held(run):
    digests += [sources.digest(frozen[name]["variables"]) for name in run.parts]
  return {"workdir": str(run.workdir), "step": step, "from": digests}


def _about(run, source, splits) -> dict[str, Any]:
  """The plain values that make two sets of candidates the same."""
  config = config_lib.plain(run.config)
  every = run.config.prefer.window_stride
  whole = {
    name: run.split(name, run.config.prefer.batch_size).labels for name in splits
  }
  return {
    "source": source["from"][0],
    "data": pairs_lib.about_data(input_pipeline.options.resolve(config["data"])),
    "statistics": {
      "offset": np.asarray(run.statistics.offset).tolist(),
      "scale": np.asarray(run.statistics.scale).tolist(),
    },
    "splits": {name: pairs_lib.fingerprint(labels) for name, labels in whole.items()},
    "window_stride": every,
    **{name: config[name] for name in ("seed", "precision", "method", "model")},
    "sampler": config["forecast"]["sampler"],
    "guided_together": bool(
      config["prefer"]["guidance_strength"] and config["prefer"]["released"]
    ),
    **{
      name: config["prefer"][name]
      for name in ("candidates", "round", "guidance_strength", "batch_size")
    },
  }


def _held(run: run_lib.Run) -> bool:
  """Whether the run trains by preferences, and is held to its frozen parts."""
  wrapper = methods.WRAPPERS.get(run.config.method.name)
  return bool(wrapper and wrapper.like_part)


def _guided(run: run_lib.Run) -> run_lib.Run:
  """The run with a sampler that is guided by the observation, where asked for."""
  strength = run.config.prefer.guidance_strength
  if not strength:
    return run
  method = run.method
  wrapper = methods.WRAPPERS.get(run.config.method.name)
  drawing = getattr(method, wrapper.option) if wrapper else method
  if not isinstance(drawing, diffusion.Diffusion):
    raise errors.ConfigError(
      f"prefer.guidance_strength={strength} guides the sampler of a diffusion, which"
      f" method {run.config.method.name!r} does not have: set it to 0."
    )
  sampling = dataclasses.replace(
    drawing.sampling,
    guidance_strength=strength,
    guidance_norm="batch" if run.config.prefer.released else "example",
  )
  drawing = dataclasses.replace(drawing, sampling=sampling)
  if wrapper:
    drawing = dataclasses.replace(method, **{wrapper.option: drawing})
  return dataclasses.replace(run, method=drawing)


def _score(run, scores, candidates, name, data) -> dict[str, Any]:
  """Scores the candidates of a split.

  Returns:
    The windows [W], and by score the values and who may be chosen [N, W], or
    [N, W, T_out] if frames are paired.
  """
  options = run.config.prefer

  @jax.jit
  def compute(members, batch):
    if options.ensemble_mean:  # As the loader makes it, in normalised units.
      members = jnp.concatenate([members, members.mean(0, keepdims=True)])
    fields = run.to_physical(members)
    observation = input_pipeline.inverse(run.statistics, batch["targets"], xp=jnp)
    horizon = observation.shape[1]
    weight = metrics_lib.point_weights(
      observation,
      mask=batch["mask"][:, -horizon:] if "mask" in batch else None,
      valid=batch["valid"],
    )
    undefined = run.method.undefined_mask(batch)
    if undefined is not None:
      weight = jnp.where(undefined[:, None], 0.0, weight)
    per_frame = options.pairing == "frame"
    return {
      key: score(fields, observation, weight, per_frame)
      for key, score in scores.items()
    }

  parts = []
  part, _ = sharding_lib.process_rows(run.mesh)
  for number, batch in enumerate(data.batches):
    size = len(batch["index"])
    rows = number * options.batch_size + part * size + np.arange(size)
    rows = np.minimum(rows, data.num_examples - 1)
    members = np.stack([candidates.read(name, int(row)) for row in rows], axis=1)
    values = jax.device_get(compute(members, spec_lib.on_device(batch)))
    valid = batch["valid"]
    parts.append(
      (rows[valid], batch["index"][valid])
      + tuple(x[:, valid] for pair in values.values() for x in pair)
    )
  rows, windows, *arrays = (
    np.concatenate(x, axis=0 if axis < 2 else 1)
    for axis, x in enumerate(zip(*parts, strict=True))
  )
  if jax.process_count() > 1:
    rows, windows, arrays = _gather(rows, windows, arrays)
  # Processes that read the same rows have scored the same windows.
  _, first = np.unique(rows, return_index=True)
  arrays = [x[:, first] for x in arrays]
  return {
    "rows": rows[first],
    "windows": windows[first],
    "values": dict(zip(scores, arrays[::2], strict=True)),
    "eligible": dict(zip(scores, arrays[1::2], strict=True)),
  }


def _gather(rows, windows, arrays):
  """The scored windows of all processes, each of which has a number of its own."""
  count = len(rows)
  most = int(np.max(multihost_utils.process_allgather(np.asarray(count))))

  def gather(x, axis):
    width = [(0, 0)] * x.ndim
    width[axis] = (0, most - count)
    found = multihost_utils.process_allgather(np.pad(x, width))
    return np.concatenate(list(found), axis=axis)

  there = gather(np.ones(count, bool), 0)
  rows, windows = (gather(x, 0)[there] for x in (rows, windows))
  return rows, windows, [gather(x, 1)[:, there] for x in arrays]


def _pair(name, scored, scores, run) -> dict[str, Any]:
  """The part of the manifest that a split has."""
  options = run.config.prefer
  values, eligible = scored["values"], scored["eligible"]
  weights = tuple(options.weights) or (1.0,) * len(scores)
  allowed = functools.reduce(np.logical_and, eligible.values())
  if options.pairing == "both":
    found = rules.by_two_scores(
      list(values.values()),
      allowed,
      better=[score.better for score in scores.values()],
      top=options.top,
      least_bad_loser=options.released,
    )
    total = sum(np.asarray(x, np.float64) for x in values.values())
  else:
    oriented = (
      weight
      * np.asarray(values[key], np.float64)
      * (1 if scores[key].better == "higher" else -1)
      for key, weight in zip(scores, weights, strict=True)
    )
    total = sum(oriented)
    candidates = total
    if options.released and options.pairing == "sample":
      # The released rule never looks at the mean here.
      candidates, allowed = (x[: options.candidates] for x in (total, allowed))
    found = rules.by_score(candidates, allowed, better="higher")
  dropped = collections.Counter()
  made = []
  for place, (row, window) in enumerate(
    zip(scored["rows"], scored["windows"], strict=True)
  ):
    valid = np.any(found.valid[place])
    entry = {
      "window": int(window),
      "row": int(row),
      "scores": {
        key: _plain(np.asarray(value[:, place], np.float64).round(8).tolist())
        for key, value in values.items()
      },
    }
    if valid:
      # A frame without a pair of its own is the first candidate's in both.
      chosen, rejected = (
        np.where(found.valid[place], x[place], 0).tolist()
        for x in (found.chosen, found.rejected)
      )
      made.append(entry | {"chosen": chosen, "rejected": rejected})
    else:
      dropped[_why(total[:, place])] += 1
  return {"pairs": made, "dropped": dict(dropped)}


def _plain(values):
  """Nested lists with None for NaN, for which JSON has no word."""
  if isinstance(values, list):
    return [_plain(value) for value in values]
  return values if math.isfinite(values) else None


def _why(values) -> str:
  """Why a window has no pair, as what is said of a number of windows."""
  known = values[np.isfinite(values)]
  if not known.size:
    return "have no event at any threshold, or no observation"
  if known.min() == known.max():
    return "have candidates of equal scores"
  return "have no candidate that may be chosen before another one"


def _say(run, place, name, section):
  count, windows = len(section["pairs"]), section["windows"]
  dropped = ", ".join(f"{n} {why}" for why, n in section["dropped"].items())
  if not count:
    raise errors.ConfigError(
      f"No window of the {name} split has a pair: of {windows} windows, {dropped}. The"
      f" candidates are kept in {place}. Use another score (prefer.scores), other"
      " thresholds (prefer.thresholds), or draw more candidates (prefer.candidates)."
    )
  logging.info(
    "%d of the %d windows of the %s split have a pair in %s%s",
    count,
    windows,
    name,
    place,
    f"; {dropped}" if dropped else "",
  )
