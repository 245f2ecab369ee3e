"""Forecasts that need no training: what every score is compared with."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
from stjax import config as config_lib
from stjax import files, references
from stjax import metrics as metrics_lib
from stjax import sharding as sharding_lib
from stjax.methods import base

if TYPE_CHECKING:  # A run checks the names below when it is built.
  from stjax import run as run_lib

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
    config_lib.pick("evaluation.baselines", name, _BASELINES)
    if name in _SEASONAL and not calendar_names:
      raise config_lib.ConfigError(
          f"evaluation.baselines has {name!r}, which needs data.calendar,"
          " such as ('month',)."
      )


def build(run: "run_lib.Run") -> Mapping[str, Baseline]:
  """The baselines that `config.evaluation.baselines` names; see `check`."""
  return {
      name: config_lib.pick("evaluation.baselines", name, _BASELINES)(run)
      for name in run.config.evaluation.baselines
  }


def _persistence(run: "run_lib.Run") -> Baseline:
  statistics = run.statistics
  mean = (statistics.mean - statistics.offset) / statistics.scale

  def fields(batch, horizon):
    last = persistence(batch, horizon, mean.astype(np.float32))
    return input_pipeline.inverse(statistics, last, xp=jnp)

  return fields


def _lead_mean(run: "run_lib.Run") -> Baseline:
  mean = lead_mean(run).astype(np.float32)[:, None, None]

  def fields(batch, horizon):
    del horizon
    return jnp.broadcast_to(mean, batch["targets"].shape)

  return fields


def _climatology(run: "run_lib.Run") -> Baseline:
  climatology = references.climatology(run)

  def fields(batch, horizon):
    return climatology(batch | {"calendar": batch["calendar"][:, -horizon:]})

  return fields


def _anomaly_persistence(run: "run_lib.Run") -> Baseline:
  climatology = references.climatology(run)

  def fields(batch, horizon):
    # Each frame's own calendar cell: the newest observed one may be older.
    expected = climatology(batch)
    past, future = expected[:, :-horizon], expected[:, -horizon:]
    inputs = input_pipeline.inverse(run.statistics, batch["inputs"], xp=jnp)
    anomaly = persistence(batch | {"inputs": inputs - past}, horizon)
    return future + anomaly

  return fields


def persistence(
    batch: base.Batch, horizon: int, mean: np.ndarray | float = 0.0
) -> jax.Array:
  """The last observed value at every point, for every lead time.

  Args:
    batch: inputs [B, T_in, H, W, C] in any units; mask where there is one.
    horizon: number of frames T_out.
    mean: [C] what stands where nothing was observed, in the same units.

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


def lead_mean(run: "run_lib.Run") -> np.ndarray:
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
  data = run.split(
      "train",
      options.batch_size,
      history=options.history,
      horizon=options.horizon,
  )
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


# persistence: the last frame; lead_mean: the training mean by lead time;
# climatology: the training mean of every point by all columns of
# data.calendar together; anomaly_persistence: the climatology and what the
# last frame exceeded its own by.
_BASELINES = {
    "persistence": _persistence,
    "lead_mean": _lead_mean,
    "climatology": _climatology,
    "anomaly_persistence": _anomaly_persistence,
}
_SEASONAL = ("climatology", "anomaly_persistence")  # Need a calendar.
