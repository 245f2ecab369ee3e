"""The evaluator, which scores the forecasts of a whole split."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

import input_pipeline
from input_pipeline import spec
from stjax import config as config_lib
from stjax import metrics as metrics_lib
from stjax import sharding as sharding_lib
from stjax.forecasting import chunks
from stjax.metrics import grid
from stjax.run import run as run_lib
from stjax.verification import baselines as baselines_lib
from stjax.verification import climatology, figures, tables
from stjax.verification.tables import FORECAST

PyTree = Any
_OBSERVED = "observed"


@dataclasses.dataclass
class Scores:
  """The results of one pass over a split.

  Attributes:
    loss: the method's loss on the trained horizon, as the exact mean over the
      split; NaN if the split has no observation.
    results: scores by source ("forecast", "persistence", ...), convention and
      name.
    diagrams: the forecast's curves and histograms by convention.
    observed: [T, C], the number of observations that the scores are of.
    own: scores of the method's own by name; see `stjax.methods.base.Outputs`. Those
      named "<convention>/<score>" are among the results as well.
    unlike: names of the variables if they have different units, else ().
  """

  loss: float
  results: dict[str, dict[str, dict[str, metrics_lib.Score]]]
  diagrams: dict[str, dict[str, dict[str, np.ndarray]]]
  observed: np.ndarray
  own: dict[str, float]
  unlike: tuple[str, ...] = ()


class Evaluator:
  """Scores forecasts; it is compiled once, at its first use, for all splits.

  Args:
    run: the run.
    batch_size: number of examples of a batch, over all devices.
    members: number of ensemble members M.
    baselines: further forecasts to score, by name.
    pairs: whether the batches hold preference pairs.
    all_parts: whether the method is given all its frozen parts, and not only those
      that forecasts need.
  """

  def __init__(
    self,
    run: run_lib.Run,
    batch_size: int,
    *,
    members: int = 1,
    baselines: Mapping[str, baselines_lib.Baseline] | None = None,
    pairs: bool = False,
    all_parts: bool = False,
  ):
    self._run = run
    self._pairs = pairs
    self._all_parts = all_parts
    self._batch_size = batch_size
    self._members = members
    self._baselines = baselines or {}
    options = run.config.evaluation
    self._metrics = metrics_lib.build(
      tuple(options.conventions),
      data_range=options.data_range or _observed_range(run.statistics),
      area_weights=grid.area_weights(
        "evaluation.area_weights", options.area_weights, run.coordinates
      ),
      thresholds=tuple(options.thresholds),
      scales=tuple(options.scales),
      cell_weights=grid.cell_weights(
        "evaluation.area_weights", options.area_weights, run.coordinates
      ),
      variables=tuple(map(str, run.coordinates.data_vars)),
      velocities=tuple(options.velocities),
      **config_lib.plain(options.heatwave),
      **config_lib.plain(options.syncast),
    )
    self._references = climatology.build(run, self._metrics)
    self._sources = (FORECAST, *self._baselines)
    units = tables.units(run.coordinates)
    self._unlike = tuple(units) if tables.mixed(units) else ()

  @functools.cached_property
  def _function(self) -> jax.stages.Compiled:
    run, options = self._run, self._run.config.evaluation
    batch = run.abstract_batch(
      self._batch_size, options.history, options.horizon, pairs=self._pairs
    )
    key = jax.eval_shape(lambda: chunks.forecast_key(0))
    shape = batch["targets"].shape
    fields = {"forecast": batch["targets"].sharding}
    if self._members > 1:
      fields["quantiles"] = sharding_lib.axes_sharding(
        ("quantile", *spec.FIELDS), (len(figures.QUANTILES), *shape), run.mesh
      )
    return sharding_lib.lower_and_compile(
      self._score_batch,
      run.mesh,
      run.abstract_variables,
      self._read(run.abstract_frozen),
      batch,
      key,
      out_shardings=(sharding_lib.replicated(run.mesh), fields),
    )

  def _read(self, frozen):
    """Returns what is read of the frozen arrays."""
    return frozen if self._all_parts else self._run.for_forecast(frozen)

  def _score_batch(self, variables, frozen, batch, key):
    """Returns the totals of one batch, and its forecast's mean and quantiles."""
    method, horizon = self._run.method, batch["targets"].shape[1]
    trained = self._run.crop_to_training_window(batch)
    # The loss is defined for windows as in training; the scores' windows may
    # have a longer history or horizon.
    loss, outputs = method.loss(variables, frozen, trained, key, train=False)
    weight = jnp.asarray(outputs.weight, jnp.float32)
    forecast = chunks.ensemble(self._run, self._batch_size, self._members, horizon)
    members = forecast(variables, frozen, trained, key)
    sources = {FORECAST: self._run.to_physical(members)}
    for name, baseline in self._baselines.items():
      sources[name] = baseline(batch, horizon)[None]
    observation = input_pipeline.inverse(self._run.statistics, batch["targets"], xp=jnp)
    points = metrics_lib.point_weights(
      observation,
      mask=batch["mask"][:, -horizon:] if "mask" in batch else None,
      valid=batch["valid"],
    )
    known = self._known(batch)
    totals = {
      source: metrics_lib.evaluate(self._metrics, fields, observation, points, **known)
      for source, fields in sources.items()
    }
    own = {"loss": (loss * weight, weight)} | outputs.scores
    own |= {_OBSERVED: (points.sum((0, 2, 3)), jnp.ones(()))}
    members = sources[FORECAST]
    fields = {"forecast": members.mean(axis=0)}
    if self._members > 1:
      levels = jnp.asarray(figures.QUANTILES)
      fields["quantiles"] = jnp.quantile(members, levels, axis=0)
    return (totals, own), fields

  def _known(self, batch):
    """Returns the `extra_inputs` of the metrics for a batch."""
    return {name: reference(batch) for name, reference in self._references.items()}

  def score(
    self,
    variables: PyTree,
    frozen: PyTree,
    data: input_pipeline.Split,
    keep: Mapping[int, dict[str, np.ndarray]] | None = None,
  ) -> Scores:
    """Scores every example of a split once.

    Args:
      variables: variables of the method.
      frozen: parts that the method reads and never trains.
      data: an unshuffled split.
      keep: dict, by the number of the example, of those examples whose fields
        are wanted. Each is filled with "history", "observation" and "forecast"
        [T, H, W, C] in physical units, NaN where they are missing. For an
        ensemble, the forecast is its mean, and there are "quantiles"
        [Q, T, H, W, C].
    """
    frozen = self._read(frozen)
    accumulators, own = {}, {}
    key = chunks.forecast_key(self._run.config.seed)
    first = 0
    for host_batch in data.batches:
      batch = sharding_lib.put_batch(host_batch, self._run.mesh)
      (totals, terms), fields = self._function(variables, frozen, batch, key)
      # Like the scores, they are added in float64 on the host.
      for name, term in jax.device_get(terms).items():
        term = [np.asarray(x, np.float64) for x in term]
        own[name] = [a + b for a, b in zip(own.get(name, (0, 0)), term, strict=True)]
      for source, values in totals.items():
        if source not in accumulators:
          accumulators[source] = metrics_lib.Accumulator(self._metrics)
        accumulators[source].add(values)
      rows = len(batch["index"])
      wanted = [n for n in (keep or {}) if first <= n < first + rows]
      if wanted:
        self._bring_home(keep, wanted, first, batch, fields)
      first += rows
    loss, weight = own.pop("loss")
    observed, _ = own.pop(_OBSERVED)
    known = {name: terms for name, terms in own.items() if terms[1]}
    own = {n: float(x) for n, x in self._run.method.own_scores(known).items()}
    # What jit returns is sorted by name, but the forecast always comes first.
    results = {name: accumulators[name].compute() for name in self._sources}
    for name, value in own.items():
      convention, _, score = name.rpartition("/")
      if convention:
        by_name = results[FORECAST].setdefault(convention, {})
        by_name[score] = metrics_lib.Score(np.float64(value))
    return Scores(
      loss=float(loss / max(weight, 1.0)) if weight > 0 else math.nan,
      results=results,
      diagrams=accumulators[FORECAST].diagrams(),
      observed=observed,
      own=own,
      unlike=self._unlike,
    )

  def _bring_home(self, keep, wanted, first, batch, fields):
    """Fills `keep` with the wanted examples of a batch that begins at `first`."""
    fetch = sharding_lib.fetch
    inverse = functools.partial(input_pipeline.inverse, self._run.statistics)
    history, observation = (
      inverse(fetch(batch[name])) for name in ("inputs", "targets")
    )
    if "mask" in batch:
      mask = fetch(batch["mask"])
      frames = history.shape[1]
      history = np.where(mask[:, :frames], history, np.nan)
      observation = np.where(mask[:, frames:], observation, np.nan)
    fields = {name: fetch(values) for name, values in fields.items()}
    # On land, a method's forecast is whatever its network makes of zeros.
    undefined = self._run.method.undefined_mask(batch)
    if undefined is not None:
      undefined = fetch(undefined)[:, None]
      fields = {n: np.where(undefined, np.nan, v) for n, v in fields.items()}
    for number in wanted:
      row = number - first
      keep[number].update(
        history=history[row],
        observation=observation[row],
        forecast=fields["forecast"][row],
      )
      if "quantiles" in fields:
        keep[number]["quantiles"] = fields["quantiles"][:, row]

  def score_names(self) -> list[str]:
    """Returns the names of the scores that `summary` will have.

    They come from shapes alone, so that the training can check its choice of
    the best checkpoint before its first step.
    """
    run = self._run
    batch = run.abstract_batch(
      run.config.evaluation.batch_size,
      run.config.evaluation.history,
      run.config.evaluation.horizon,
      pairs=self._pairs,
    )
    _, outputs = sharding_lib.eval_shape(
      functools.partial(run.method.loss, train=False),
      run.mesh,
      run.abstract_variables,
      self._read(run.abstract_frozen),
      run.abstract_batch(run.config.evaluation.batch_size, pairs=self._pairs),
      jax.random.key(0),
    )
    fields = batch["targets"]
    totals = jax.eval_shape(
      lambda forecast, batch: metrics_lib.evaluate(
        self._metrics,
        forecast,
        batch["targets"],
        batch["targets"],
        **self._known(batch),
      ),
      jax.ShapeDtypeStruct((self._members, *fields.shape), jnp.float32),
      batch,
    )
    empty = metrics_lib.Accumulator(self._metrics)
    empty.add(jax.tree.map(lambda t: np.ones(t.shape), totals))
    ones = jax.tree.map(lambda x: np.ones(x.shape), outputs.scores)
    own = run.method.own_scores(ones)
    results = empty.compute()
    by_variable = _by_variable(results, self._unlike)
    return ["loss", *own, *metrics_lib.scalars(results), *by_variable]

  @staticmethod
  def summary(scores: Scores) -> dict[str, float]:
    """Returns the forecast's overall scores: "loss", "physical/mse", ...

    If the variables have different units, there are also their own scores, such
    as "physical/mse/sst".
    """
    results = scores.results[FORECAST]
    by_variable = _by_variable(results, scores.unlike)
    overall = metrics_lib.scalars(results)
    return {"loss": scores.loss} | scores.own | overall | by_variable


def _by_variable(results, variables: Sequence[str]) -> dict[str, float]:
  """Returns scores by variable as {"<convention>/<score>/<variable>": value}.

  Args:
    results: scores of the forecast by convention and name.
    variables: names of all variables, or () for no scores at all.
  """
  return {
    f"{convention}/{name}/{variable}": float(score.by_variable[channel])
    for convention, scores in results.items()
    for name, score in scores.items()
    if score.by_variable is not None
    for channel, variable in enumerate(variables)
  }


def _observed_range(statistics: input_pipeline.Statistics) -> tuple[float, ...]:
  """Returns the maximum minus the minimum of the training split, by variable.

  That of a constant is NaN: no score can refer to it.
  """
  ends = np.stack([statistics.minimum, statistics.maximum])
  # The recorded extremes are transformed, but not yet normalised.
  normalised = (ends - statistics.offset) / statistics.scale
  low, high = input_pipeline.inverse(statistics, normalised)
  constant = statistics.maximum == statistics.minimum
  return tuple(
    float(v) for v in np.where(constant, np.nan, np.maximum(high - low, 1e-12))
  )


def window_stride(run: run_lib.Run, name: str, stride: int) -> int:
  """The distance between the windows that are scored.

  Args:
    run: the run, whose evaluation.max_points bounds the points of these windows.
    name: the split.
    stride: the distance that the config asks for, which is multiplied where the
      split has more points.
  """
  limit = run.config.evaluation.max_points
  if not limit:
    return stride
  data = open_split(run, name, stride)
  sizes = data.spec.sizes
  frames = run.config.evaluation.history or run.config.data.history
  frames += run.config.evaluation.horizon or run.config.data.horizon
  points = data.num_examples * frames * sizes["height"] * sizes["width"]
  return stride * math.ceil(points / limit)


def open_split(
  run: run_lib.Run, name: str, every: int = 1, pairs: bool = False
) -> input_pipeline.Split:
  """Opens a split, unshuffled, with the windows that evaluation scores.

  Args:
    run: the run.
    name: "train", "validation" or "test".
    every: distance between the windows that are taken; 1 takes all.
    pairs: whether its preference pairs are read as well, if it has any.
  """
  options = run.config.evaluation
  return run.split(
    name,
    options.batch_size,
    history=options.history,
    horizon=options.horizon,
    every=every,
    pairs=pairs,
  )


def review_split(run: run_lib.Run, name: str) -> None:
  """Opens a split, and warns of what will have no score; see `Split.review`.

  Raises:
    DataError: the split has no window, or a missing value that data.missing does
      not allow.
  """
  for note in open_split(run, name).review():
    if jax.process_index() == 0:
      logging.warning("%s", note)
