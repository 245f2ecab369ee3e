"""Baselines: forecasts without training, with which all scores are compared."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
from input_pipeline import files
from stjax import errors
from stjax import metrics as metrics_lib
from stjax import sharding as sharding_lib
from stjax.methods import base, persistence
from stjax.run import run as run_lib
from stjax.verification import climatology as climatology_lib

# Maps (batch, T_out) to [B, T_out, H, W, C] in physical units, under jit.
Baseline = Callable[[base.Batch, int], jax.Array]


def check(names: Iterable[str], calendar_names: Sequence[str]) -> None:
  """Checks the names of baselines before anything is computed.

  Args:
    names: names in evaluation.baselines.
    calendar_names: names of the columns of data.calendar.

  Raises:
    ConfigError: a name is unknown, or needs a calendar that the data lack.
  """
  for name in names:
    errors.pick("evaluation.baselines", name, _BASELINES)
    if name in _SEASONAL and not calendar_names:
      raise errors.ConfigError(
        f"evaluation.baselines has {name!r}, which needs data.calendar,"
        " such as ('month',)."
      )


def build(run: run_lib.Run) -> Mapping[str, Baseline]:
  """Builds the baselines that `config.evaluation.baselines` names, by name."""
  return {
    name: errors.pick("evaluation.baselines", name, _BASELINES)(run)
    for name in run.config.evaluation.baselines
  }


def _persistence(run: run_lib.Run) -> Baseline:
  statistics = run.statistics
  mean = (statistics.mean - statistics.offset) / statistics.scale

  def fields(batch, horizon):
    last = persistence.persistence(batch, horizon, mean.astype(np.float32))
    return input_pipeline.inverse(statistics, last, xp=jnp)

  return fields


def _training_mean(run: run_lib.Run) -> Baseline:
  mean = training_mean(run).astype(np.float32)[:, None, None]

  def fields(batch, horizon):
    del horizon
    return jnp.broadcast_to(mean, batch["targets"].shape)

  return fields


def _climatology(run: run_lib.Run) -> Baseline:
  climatology = climatology_lib.climatology(run)

  def fields(batch, horizon):
    return climatology(batch | {"calendar": batch["calendar"][:, -horizon:]})

  return fields


def _anomaly_persistence(run: run_lib.Run) -> Baseline:
  return functools.partial(_persisting, run, climatology_lib.climatology(run), 1.0)


def _damped_anomaly_persistence(run: run_lib.Run) -> Baseline:
  share = damping(run).astype(np.float32)[:, None, None]
  return functools.partial(_persisting, run, climatology_lib.climatology(run), share)


def _persisting(run, climatology, share, batch, horizon):
  """Returns the targets' climatology plus a share of the newest anomaly."""
  expected, anomaly = _anomaly(run, climatology, batch, horizon)
  return expected + share * anomaly


def _anomaly(run, climatology, batch, horizon):
  """Returns the targets' climatology and the newest anomaly [B, T_out, ...].

  The newest observation of a point may be older than the last frame, so each
  frame of the history is compared with its own calendar cell.
  """
  expected = climatology(batch)
  past, future = expected[:, :-horizon], expected[:, -horizon:]
  inputs = input_pipeline.inverse(run.statistics, batch["inputs"], xp=jnp)
  return future, persistence.persistence(batch | {"inputs": inputs - past}, horizon)


def training_mean(run: run_lib.Run) -> np.ndarray:
  """Returns the mean of the training targets in physical units.

  It takes one pass over the training split, and is kept in the work directory.

  Returns:
    [T_out, C].
  """

  def totals(batch, targets):
    del batch
    return targets, 1.0

  return _ratio_by_lead(run, "training_mean", totals)


def damping(run: run_lib.Run) -> np.ndarray:
  """Returns the share of the newest anomaly that is left at each lead time.

  It is the slope of the regression, through 0, of the targets' anomalies on the
  newest one, over all points of the training split. It is kept in the work
  directory.

  Returns:
    [T_out, C].

  Source: Van den Dool 2007, "Empirical Methods in Short-Term Climate
  Prediction", section 8.4 (damped persistence).
  """
  climatology = climatology_lib.climatology(run)

  def totals(batch, targets):
    horizon = targets.shape[1]
    expected, newest = _anomaly(run, climatology, batch, horizon)
    return newest * (targets - expected), newest * newest

  return _ratio_by_lead(run, "damping", totals)


def _ratio_by_lead(run: run_lib.Run, name: str, totals) -> np.ndarray:
  """Returns the ratio of two sums over the training targets, kept in a file.

  Args:
    run: the run.
    name: name of the file that keeps the ratio.
    totals: function of a batch and of its targets [B, T_out, H, W, C] in
      physical units that returns the terms of the numerator and of the
      denominator, which broadcast to the targets.

  Returns:
    [T_out, C].
  """
  options = run.config.evaluation
  path = run.workdir / "data" / (f"{name}_{options.history}_{options.horizon}.npy")
  if path.exists():
    return np.load(path)
  data = run.split(
    "train", options.batch_size, history=options.history, horizon=options.horizon
  )
  shape = (data.spec.horizon, data.spec.sizes["variable"])

  @jax.jit
  def sums(batch):
    targets = input_pipeline.inverse(run.statistics, batch["targets"], jnp)
    weight = metrics_lib.point_weights(
      targets,
      mask=batch["mask"][:, -shape[0] :] if "mask" in batch else None,
      valid=batch["valid"],
    )
    return [jnp.sum(weight * x, axis=(0, 2, 3)) for x in totals(batch, targets)]

  total = np.zeros((2, *shape))
  for batch in data.batches:
    total += jax.device_get(sums(sharding_lib.put_batch(batch, run.mesh)))
  above, below = total
  # A variable without any observation gets 0.
  ratio = above / np.where(below > 0, below, 1.0)
  if jax.process_index() == 0:
    files.write_array(path, ratio)
  return ratio


# "persistence" is the last frame. "training_mean" is the training mean of each
# lead time. "climatology" is the training mean of every point and calendar
# cell. "anomaly_persistence" is the climatology plus the last frame's
# difference from its own climatology, of which the damped one takes a share.
_BASELINES = {
  "persistence": _persistence,
  "training_mean": _training_mean,
  "climatology": _climatology,
  "anomaly_persistence": _anomaly_persistence,
  "damped_anomaly_persistence": _damped_anomaly_persistence,
}
# The baselines that need a calendar.
_SEASONAL = ("climatology", "anomaly_persistence", "damped_anomaly_persistence")
