"""The training climate, which some scores and baselines need besides a batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
from stjax import errors
from stjax import metrics as metrics_lib
from stjax.methods import base
from stjax.run import run as run_lib

# Maps a batch to [B, T, H, W, C] in physical units, under jit.
Reference = Callable[[base.Batch], jax.Array]


def check(conventions: Iterable[str], calendar_names: Sequence[str]) -> None:
  """Checks the names of conventions before anything is computed.

  Args:
    conventions: names in evaluation.conventions.
    calendar_names: names of the columns of data.calendar.

  Raises:
    ConfigError: a name is unknown, or needs the training climate of data
      without a calendar.
  """
  for name in conventions:
    kind = errors.pick("evaluation.conventions", name, metrics_lib.METRICS)
    if getattr(kind, "extra_inputs", ()) and not calendar_names:
      raise errors.ConfigError(
        f"evaluation.conventions has {name!r}, which compares with the"
        " training climate and needs data.calendar, such as ('month',)."
      )


def build(
  run: run_lib.Run, metrics: Mapping[str, metrics_lib.Metric]
) -> dict[str, Reference]:
  """Returns the functions that make the `extra_inputs` of metrics, by name.

  Args:
    run: the run.
    metrics: the metrics by name; see `stjax.metrics.base.Metric`.
  """
  references = {}
  for metric in metrics.values():
    for name in getattr(metric, "extra_inputs", ()):
      if name == "climatology":
        references[name] = _of_targets(climatology(run))
      elif name == "threshold":
        references[name] = _by_calendar(
          run,
          input_pipeline.climatological_quantile(
            run.config.data.to_dict(), metric.quantile, cache_dir=run.workdir / "data"
          ),
        )
      elif name == "history":
        references[name] = lambda batch: history(run, batch)
  return references


def climatology(run: run_lib.Run) -> Reference:
  """Returns a function that gives the training mean of each frame's cell."""
  return _by_calendar(
    run,
    input_pipeline.climatology(
      run.config.data.to_dict(), cache_dir=run.workdir / "data"
    ),
  )


def history(run: run_lib.Run, batch: base.Batch) -> jax.Array:
  """Returns the inputs [B, T_in, H, W, C] in physical units, NaN where missing."""
  fields = input_pipeline.inverse(run.statistics, batch["inputs"], xp=jnp)
  if "mask" in batch:
    fields = jnp.where(batch["mask"][:, : fields.shape[1]], fields, jnp.nan)
  return fields


def _by_calendar(run: run_lib.Run, table: np.ndarray) -> Reference:
  """Returns a function that looks each frame up in a table [cells, H, W, C]."""

  def fields(batch):
    sizes = tuple(run.spec.calendar.values())
    cell = input_pipeline.cell_index(batch["calendar"], sizes)
    return jnp.asarray(table)[cell]

  return fields


def _of_targets(reference: Reference) -> Reference:
  return lambda batch: reference(
    batch | {"calendar": batch["calendar"][:, -batch["targets"].shape[1] :]}
  )
