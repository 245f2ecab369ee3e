"""Verification: a checkpoint and a split -> scores, tables and figures."""

import dataclasses
import functools
import io
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from absl import logging

import input_pipeline
from stjax import config as config_lib
from stjax import files, initialise, plots, writers
from stjax import forecast as forecast_lib
from stjax import metrics as metrics_lib
from stjax import run as run_lib
from stjax import sharding as sharding_lib
from stjax.methods import base
from stjax.metrics import tables
from stjax.models import layers

PyTree = Any
FORECAST = "forecast"
# persistence: the last frame; lead_mean: the training mean by lead time.
BASELINES = ("persistence", "lead_mean")
# Scores drawn by lead time.
_CURVES = ("mse", "mae", "rmse", "ssim", "psnr", "bias")


@dataclasses.dataclass
class Scores:
  """What came out of one pass over a split.

  Attributes:
    loss: the method's loss on the trained horizon, the exact mean over the
      split.
    results: source ("forecast", "persistence", ...) -> convention -> score.
  """

  loss: float
  results: dict[str, dict[str, dict[str, metrics_lib.Score]]]


def area_weights(kind: str, coordinates: xr.Dataset) -> np.ndarray | None:
  """Weights of the grid's cells, from its coordinates.

  Args:
    kind: "none", or "latitude" for the cosine of the latitude.
    coordinates: a grid with a latitude along H, or over (H, W).

  Returns:
    [H] or [H, W], or None.

  Raises:
    ConfigError: unknown kind, or no latitude among the coordinates.
  """
  kinds = {"none": None, "latitude": None}
  config_lib.pick("evaluation.area_weights", kind, kinds)
  if kind == "none":
    return None
  space = tuple(coordinates.attrs["spatial_dims"])
  for name, values in coordinates.coords.items():
    is_latitude = str(name).lower() in ("lat", "latitude") or str(
        values.attrs.get("standard_name")
    ) == "latitude"
    if is_latitude and values.dims in (space, space[:1]):
      return np.cos(np.deg2rad(values.values))
  raise config_lib.ConfigError(
      "evaluation.area_weights='latitude' needs a coordinate lat or latitude"
      f" along {space[0]!r} or {space}; the data have"
      f" {sorted(map(str, coordinates.coords))}. Use 'none'."
  )


def persistence(
    batch: base.Batch, horizon: int, mean: np.ndarray | float = 0.0
) -> jax.Array:
  """The last observed value at every point, for every lead time.

  Args:
    batch: inputs [B, T_in, H, W, C], normalised; mask where there is one.
    horizon: number of frames T_out.
    mean: [C] what stands where nothing was observed, normalised.

  Returns:
    [B, T_out, H, W, C].
  """
  inputs = batch["inputs"]
  last = inputs[:, -1]
  if "mask" in batch:
    observed = batch["mask"][:, : inputs.shape[1]]
    age = jnp.argmax(observed[:, ::-1], axis=1, keepdims=True)
    newest = inputs.shape[1] - 1 - age
    last = jnp.take_along_axis(inputs, newest, axis=1)[:, 0]
    last = jnp.where(observed.any(axis=1), last, mean)
  return jnp.repeat(last[:, None], horizon, axis=1)


class Evaluator:
  """Scores forecasts; compiled once, at first use, for all splits.

  Args:
    run: the run.
    batch_size: examples over all devices.
    members: ensemble members M.
    lead_mean: [T_out, C] means of the training targets by lead time, in
      physical units; scored as a baseline if given.
    baselines: names of the other baselines to score.
  """

  def __init__(
      self,
      run: run_lib.Run,
      batch_size: int,
      *,
      members: int = 1,
      lead_mean: np.ndarray | None = None,
      baselines: tuple[str, ...] = (),
  ):
    self._run = run
    self._batch_size = batch_size
    self._members = members
    self._lead_mean = lead_mean
    self._baselines = baselines
    options = run.config.evaluation
    for name in options.baselines:
      config_lib.pick("evaluation.baselines", name, dict.fromkeys(BASELINES))
    self._metrics = metrics_lib.build(
        tuple(options.conventions),
        data_range=options.data_range or _observed_range(run.statistics),
        area_weights=area_weights(options.area_weights, run.coordinates),
    )

  @functools.cached_property
  def _function(self) -> jax.stages.Compiled:
    run, options = self._run, self._run.config.evaluation
    with layers.convolution_mesh(run.mesh):
      batch = run.abstract_batch(
          self._batch_size, options.history, options.horizon
      )
      key = jax.eval_shape(lambda: forecast_lib.forecast_key(0))
      rows = batch["targets"].shape
      step = jax.jit(
          self._score_batch,
          in_shardings=(
              None,
              {name: a.sharding for name, a in batch.items()},
              sharding_lib.replicated(run.mesh),
          ),
          out_shardings=(
              sharding_lib.replicated(run.mesh),
              sharding_lib.batch_shardings({"x": rows}, run.mesh)["x"],
          ),
      )
      return step.lower(run.abstract_variables, batch, key).compile()

  def _score_batch(self, variables, batch, key):
    """Totals of one batch, and its (mean) forecast in physical units."""
    method, horizon = self._run.method, batch["targets"].shape[1]
    trained = self._run.as_trained(batch)
    loss, outputs = method.loss(variables, {}, trained, key, train=False)
    weight = jnp.asarray(outputs.weight, jnp.float32)
    members = base.rollout(
        method, variables, {}, trained, key, self._members, horizon
    )
    statistics = self._run.statistics
    inverse = functools.partial(input_pipeline.inverse, statistics, xp=jnp)
    sources = {FORECAST: inverse(members)}
    if "persistence" in self._baselines:
      mean = (statistics.mean - statistics.offset) / statistics.scale
      fields = persistence(batch, horizon, mean.astype(np.float32))
      sources["persistence"] = inverse(fields)[None]
    if self._lead_mean is not None:
      mean = jnp.asarray(self._lead_mean, jnp.float32)[:, None, None]
      sources["lead_mean"] = jnp.broadcast_to(
          mean, (1, *batch["targets"].shape)
      )
    observation = inverse(batch["targets"])
    points = metrics_lib.point_weights(
        observation,
        mask=batch["mask"][:, -horizon:] if "mask" in batch else None,
        valid=batch["valid"],
    )
    totals = {
        source: metrics_lib.evaluate(
            self._metrics, fields, observation, points
        )
        for source, fields in sources.items()
    }
    loss = {"sum": loss * weight, "weight": weight}
    return (totals, loss), sources[FORECAST].mean(axis=0)

  def score(
      self,
      variables: PyTree,
      data: input_pipeline.Split,
      keep: Mapping[int, dict[str, np.ndarray]] | None = None,
  ) -> Scores:
    """Scores every example of a split once.

    Args:
      variables: of the method.
      data: an unshuffled split.
      keep: examples to bring home, by number; filled with "history",
        "observation" and "forecast" [T, H, W, C] in physical units, NaN where
        missing.
    """
    accumulators = {}
    loss = np.zeros(2)
    key = forecast_lib.forecast_key(self._run.config.seed)
    first = 0
    for host_batch in data.batches:
      batch = sharding_lib.put_batch(host_batch, self._run.mesh)
      (totals, terms), fields = self._function(variables, batch, key)
      terms = jax.device_get(terms)
      loss += [terms["sum"], terms["weight"]]
      for source, values in totals.items():
        if source not in accumulators:
          accumulators[source] = metrics_lib.Accumulator(self._metrics)
        accumulators[source].add(values)
      rows = len(batch["index"])
      wanted = [n for n in (keep or {}) if first <= n < first + rows]
      if wanted:
        self._bring_home(keep, wanted, first, batch, fields)
      first += rows
    return Scores(
        loss=float(loss[0] / max(loss[1], 1.0)),
        results={s: a.compute() for s, a in accumulators.items()},
    )

  def _bring_home(self, keep, wanted, first, batch, fields):
    fetch = forecast_lib.fetch
    inverse = functools.partial(
        input_pipeline.inverse, self._run.statistics
    )
    history, observation = (
        inverse(fetch(batch[name])) for name in ("inputs", "targets")
    )
    if "mask" in batch:
      mask = fetch(batch["mask"])
      frames = history.shape[1]
      history = np.where(mask[:, :frames], history, np.nan)
      observation = np.where(mask[:, frames:], observation, np.nan)
    fields = fetch(fields)
    for number in wanted:
      row = number - first
      keep[number].update(
          history=history[row],
          observation=observation[row],
          forecast=fields[row],
      )

  def score_names(self) -> list[str]:
    """Names of the scores that `summary` will have, before any is made."""
    run = self._run
    batch = run.abstract_batch(
        run.config.evaluation.batch_size,
        run.config.evaluation.history,
        run.config.evaluation.horizon,
    )
    fields = batch["targets"]
    totals = jax.eval_shape(
        functools.partial(metrics_lib.evaluate, self._metrics),
        jax.ShapeDtypeStruct((1, *fields.shape), jnp.float32),
        fields,
        fields,
    )
    empty = metrics_lib.Accumulator(self._metrics)
    empty.add(jax.tree.map(lambda t: np.ones(t.shape), totals))
    return ["loss", *metrics_lib.scalars(empty.compute())]

  @staticmethod
  def summary(scores: Scores) -> dict[str, float]:
    """The forecast's overall scores: "loss", "physical/mse", ..."""
    return {"loss": scores.loss} | metrics_lib.scalars(
        scores.results[FORECAST]
    )


def _observed_range(statistics: input_pipeline.Statistics) -> tuple[float, ...]:
  """Maximum minus minimum of the training split, by variable."""
  ends = np.stack([statistics.minimum, statistics.maximum])
  # The recorded extremes are in transformed, not yet normalised units.
  normalised = (ends - statistics.offset) / statistics.scale
  low, high = input_pipeline.inverse(statistics, normalised)
  return tuple(float(v) for v in np.maximum(high - low, 1e-12))


def open_split(run: run_lib.Run, name: str) -> input_pipeline.Split:
  """Opens a split in order, with the windows that are scored."""
  options = run.config.evaluation
  return run.split(
      name,
      options.batch_size,
      history=options.history,
      horizon=options.horizon,
  )


def lead_mean(run: run_lib.Run) -> np.ndarray:
  """Mean of the training targets by lead time and variable, physical units.

  One pass over the training split; kept in the work directory.

  Returns:
    [T_out, C].
  """
  options = run.config.evaluation
  name = f"lead_mean_{options.history}_{options.horizon}.npy"
  path = run.workdir / "data" / name
  if path.exists():
    return np.load(path)
  data = open_split(run, "train")
  shape = (
      data.example_shape["targets"][0],
      data.example_shape["targets"][-1],
  )

  @jax.jit
  def totals(batch):
    targets = input_pipeline.inverse(run.statistics, batch["targets"], jnp)
    weight = metrics_lib.point_weights(
        targets,
        mask=batch["mask"][:, -shape[0] :] if "mask" in batch else None,
        valid=batch["valid"],
    )
    axes = (0, 2, 3)
    return (weight * targets).sum(axes), weight.sum(axes)

  sums, weights = np.zeros(shape), np.zeros(shape)
  for batch in data.batches:
    new = jax.device_get(totals(sharding_lib.put_batch(batch, run.mesh)))
    sums += new[0]
    weights += new[1]
  mean = sums / np.maximum(weights, 1.0)
  if jax.process_index() == 0:
    content = io.BytesIO()
    np.save(content, mean)
    files.write_atomically(path, content.getvalue())
  return mean


def evaluate(run: run_lib.Run) -> dict[str, Any]:
  """Scores a split and leaves tables and figures in the work directory.

  Args:
    run: the run; `config.evaluation` says which split, checkpoint,
      conventions and baselines.

  Returns:
    What metrics.json holds.

  Raises:
    ConfigError: no checkpoint, or an unknown name.
    DataError: the split is empty.
  """
  options = run.config.evaluation
  variables = initialise.load_variables(run, run.workdir, options.checkpoint)
  data = open_split(run, options.split)
  evaluator = Evaluator(
      run,
      options.batch_size,
      members=run.config.forecast.members,
      lead_mean=lead_mean(run) if "lead_mean" in options.baselines else None,
      baselines=tuple(options.baselines),
  )
  count = min(options.figures, data.num_examples)
  keep = {
      math.floor(i * data.num_examples / count): {} for i in range(count)
  }
  scores = evaluator.score(variables, data, keep)
  names = list(run.coordinates.data_vars)
  labels = {
      "variables": names,
      "lead_times": data.coordinates.lead_time.values,
  }
  about = {
      "units": {
          name: str(run.coordinates[name].attrs.get("units", ""))
          for name in names
      },
      "about": {
          "split": options.split,
          "examples": data.num_examples,
          "checkpoint": options.checkpoint,
          "loss": scores.loss,
          "area_weights": options.area_weights,
      },
  }
  content = tables.metrics_tree(scores.results, **labels, **about)
  if jax.process_index() == 0:
    folder = run.workdir / "evaluation"
    tables.write_metrics(
        folder / "metrics.json", scores.results, **labels, **about
    )
    tables.write_lead_times(
        folder / "lead_time.csv", scores.results, **labels
    )
    title = f"{options.split} split, {data.num_examples} examples"
    logging.info("\n%s", tables.console_table(scores.results, title))
    _draw(run, data, keep, scores, folder / "figures")
  return content


def _origin(coordinates: xr.Dataset) -> str:
  """Where row 0 is drawn: below if the row's coordinate points up."""
  rows = coordinates.attrs["spatial_dims"][0]
  for name, values in coordinates.coords.items():
    if values.ndim in (1, 2) and values.dims[0] == rows and len(values) > 1:
      upward = str(name).lower() in ("y", rows, "lat", "latitude")
      if upward and np.issubdtype(values.dtype, np.number):
        column = values.values.reshape(len(values), -1)[:, 0]
        return "lower" if column[-1] > column[0] else "upper"
  return "upper"


def _draw(run, data, keep, scores, folder: pathlib.Path) -> None:
  """Pictures and animations of the kept examples, and score curves."""
  folder.mkdir(parents=True, exist_ok=True)
  coordinates = data.coordinates
  leads = tables.lead_labels(coordinates.lead_time.values)
  for number, fields in keep.items():
    label = str(data.labels.sample_id.values[number])
    label = label if len(label) < 40 else f"{label[:37]}..."
    for channel, name in enumerate(coordinates.data_vars):
      frames = {k: v[..., channel] for k, v in fields.items()}
      stem = f"example_{number:05d}_{str(name).replace('@', '_')}"
      options = {
          "title": f"{name}, {label}",
          "units": str(coordinates[name].attrs.get("units", "")),
          "lead_labels": leads,
          "origin": _origin(coordinates),
      }
      plots.picture_grid(**frames, path=folder / f"{stem}.png", **options)
      plots.animation(**frames, path=folder / f"{stem}.gif", **options)
  curves = {
      source: {
          f"{convention} {name}": score.by_lead
          for convention, by_name in results.items()
          for name, score in by_name.items()
          if score.by_lead is not None and name in _CURVES
      }
      for source, results in scores.results.items()
  }
  plots.lead_time_curves(curves, folder / "lead_time.png", lead_labels=leads)
  log = run.workdir / "logs" / "metrics.jsonl"
  if log.exists() and writers.read_lines(log):
    plots.learning_curves(log, folder / "learning.png")
