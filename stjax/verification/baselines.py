"""Forecasts that need no training: what every score is compared with."""

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

# (batch, T_out) -> [B, T_out, H, W, C] in physical units; runs under jit.
Baseline = Callable[[base.Batch, int], jax.Array]


def check(names: Iterable[str], calendar_names: Sequence[str]) -> None:
  """Refuses names that `build` could not build.

  Args:
    names: of evaluation.baselines.
    calendar_names: the columns of data.calendar.

  Raises:
    ConfigError: an unknown name, or one that needs a calendar of data without
      one.
  """
  for name in names:
    errors.pick("evaluation.baselines", name, _BASELINES)
    if name in _SEASONAL and not calendar_names:
      raise errors.ConfigError(
        f"evaluation.baselines has {name!r}, which needs data.calendar,"
        " such as ('month',)."
      )


def build(run: run_lib.Run) -> Mapping[str, Baseline]:
  """The baselines that `config.evaluation.baselines` names; see `check`."""
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
  """The climatology and a share of the newest anomaly."""
  _, future, anomaly = _anomaly(run, climatology, batch, horizon)
  return future + share * anomaly


def _anomaly(run, climatology, batch, horizon):
  """Climatologies of history and targets; the newest anomaly [B, T_out, ...].

  Each frame's own calendar cell: the newest observed one may be older.
  """
  expected = climatology(batch)
  past, future = expected[:, :-horizon], expected[:, -horizon:]
  inputs = input_pipeline.inverse(run.statistics, batch["inputs"], xp=jnp)
  anomaly = persistence.persistence(batch | {"inputs": inputs - past}, horizon)
  return past, future, anomaly


def training_mean(run: run_lib.Run) -> np.ndarray:
  """Mean of the training targets by lead time and variable, physical units.

  One pass over the training split; kept in the work directory.

  Returns:
    [T_out, C].
  """

  def totals(batch, targets):
    del batch
    return targets, 1.0

  return _ratio_by_lead(run, "training_mean", totals)


def damping(run: run_lib.Run) -> np.ndarray:
  """The share of the newest anomaly that is left, by lead time and variable.

  The slope of the regression, through 0, of the targets' anomalies on the
  newest one, over all points of the training split; kept in the work
  directory.

  Returns:
    [T_out, C].

  Source: Van den Dool 2007, "Empirical Methods in Short-Term Climate
  Prediction", section 8.4 (damped persistence).
  """
  climatology = climatology_lib.climatology(run)

  def totals(batch, targets):
    horizon = targets.shape[1]
    _, future, newest = _anomaly(run, climatology, batch, horizon)
    return newest * (targets - future), newest * newest

  return _ratio_by_lead(run, "damping", totals)


def _ratio_by_lead(run: run_lib.Run, name: str, totals) -> np.ndarray:
  """Sums over the training targets, divided; kept under this name.

  Args:
    run: the run.
    name: of the file that keeps it.
    totals: (batch, targets [B, T_out, H, W, C] in physical units) -> what is
      summed above and below the line, which broadcast to the targets.

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
  ratio = above / np.where(below > 0, below, 1.0)
  if jax.process_index() == 0:
    files.write_array(path, ratio)
  return ratio


# persistence: the last frame; training_mean: the training mean by lead time;
# climatology: the training mean of every point by all columns of
# data.calendar together; anomaly_persistence: the climatology and what the
# last frame exceeded its own by, or, damped, the usual share of that.
_BASELINES = {
  "persistence": _persistence,
  "training_mean": _training_mean,
  "climatology": _climatology,
  "anomaly_persistence": _anomaly_persistence,
  "damped_anomaly_persistence": _damped_anomaly_persistence,
}
# These need a calendar.
_SEASONAL = ("climatology", "anomaly_persistence", "damped_anomaly_persistence")
