"""The command that evaluates: scores, tables and figures of a checkpoint."""

import math
from typing import Any

import jax
from absl import logging

from stjax import errors
from stjax.metrics import grid
from stjax.run import run as run_lib
from stjax.run import sources
from stjax.verification import baselines as baselines_lib
from stjax.verification import climatology, figures, skill, tables
from stjax.verification import evaluator as evaluator_lib


def check(run: run_lib.Run, splits: bool) -> None:
  """Finds errors before the training that would otherwise end it afterwards.

  Args:
    run: the run.
    splits: whether to open the splits that the evaluation needs, too.

  Raises:
    ConfigError: the data lack what a baseline, a convention or a point needs.
    DataError: a split that is needed has no window.
  """
  options = run.config.evaluation
  baselines_lib.check(options.baselines, tuple(run.spec.calendar))
  climatology.check(options.conventions, tuple(run.spec.calendar))
  if run.method.kind != "forecast":
    _check_reconstruction(run)
  height, width = run.example_shape["inputs"][1:3]
  for point in options.points:
    place = tuple(point) if isinstance(point, tuple | list) else ()
    if len(place) != 2 or not (0 <= place[0] < height and 0 <= place[1] < width):
      raise errors.ConfigError(
        f"evaluation.points has {point}; expected (row, column) on the"
        f" {height} x {width} grid, counted from 0."
      )
  if not splits:
    return
  evaluator_lib.review_split(run, options.split)
  if "training_mean" in options.baselines:
    evaluator_lib.open_split(run, "train")


def _check_reconstruction(run):
  """Refuses what only makes sense for forecasts."""
  config = run.config
  horizon, trained = config.evaluation.horizon, config.data.horizon
  if horizon > trained:
    raise errors.ConfigError(
      f"evaluation.horizon={horizon} is more than data.horizon={trained}, but a"
      " reconstruction is not fed back like a forecast."
    )
  for section, key in (("forecast", "members"), ("evaluation", "validation_members")):
    if config[section][key] > run.method.candidates:
      raise errors.ConfigError(
        f"{section}.{key}={config[section][key]} is more than method.candidates="
        f"{run.method.candidates}: each member is made of other codes."
      )


def evaluate(run: run_lib.Run) -> dict[str, Any]:
  """Scores a split, and writes tables and figures to the work directory.

  Args:
    run: the run, whose `config.evaluation` names the split, the checkpoint, the
      conventions and the baselines.

  Returns:
    The content of metrics.json.

  Raises:
    ConfigError: there is no checkpoint, or a name is unknown.
    DataError: the split is empty.
  """
  options = run.config.evaluation
  variables = sources.load_variables(run, run.workdir, options.checkpoint)
  frozen = sources.frozen(run, training=False)
  stride = evaluator_lib.window_stride(run, options.split, options.window_stride)
  data = evaluator_lib.open_split(run, options.split, stride)
  evaluator = evaluator_lib.Evaluator(
    run,
    options.batch_size,
    members=run.config.forecast.members,
    # A reconstruction knows what it makes, so that no forecast compares with it.
    baselines=baselines_lib.build(run) if run.method.kind == "forecast" else {},
  )
  # The examples that are drawn are spread evenly over the split.
  count = min(options.figures, data.num_examples)
  keep = {math.floor(i * data.num_examples / count): {} for i in range(count)}
  scores = evaluator.score(variables, frozen, data, keep)
  names = list(run.coordinates.data_vars)
  labels = {
    "variables": names,
    "lead_times": data.coordinates.lead_time,
    "units": tables.units(run.coordinates),
  }
  content = tables.metrics_tree(
    scores.results,
    **labels,
    about={
      "split": options.split,
      "examples": data.num_examples,
      "checkpoint": options.checkpoint,
      "loss": scores.loss,
      "area_weights": grid.area_kind(
        "evaluation.area_weights", options.area_weights, run.coordinates
      ),
      "members": run.config.forecast.members,
      "window_stride": stride,
    },
    diagrams=scores.diagrams,
    observed=scores.observed,
    constant=[
      name
      for name, low, high in zip(
        names, run.statistics.minimum, run.statistics.maximum, strict=True
      )
      if low == high
    ],
  )
  compared = skill.compare(
    scores.results, variables=names, lead_times=data.coordinates.lead_time
  )
  if compared:
    content["skill"] = tables.to_json(compared)[0]
  if jax.process_index() == 0:
    folder = run.workdir / "evaluation"
    tables.write_metrics(folder / "metrics.json", content)
    tables.write_lead_times(folder / "lead_time.csv", scores.results, **labels)
    title = f"{options.split} split, {data.num_examples} examples"
    table = tables.console_table(scores.results, title, labels["units"])
    logging.info("\n%s", table)
    if compared:
      logging.info("%s", skill.sentence(compared, list(content["baselines"])))
    if content["reasons"]:
      logging.info(
        "%d scores are null in metrics.json, which says why under 'reasons'.",
        len(content["reasons"]),
      )
    figures.draw(run, data, keep, scores.results, scores.diagrams, folder / "figures")
  return content
