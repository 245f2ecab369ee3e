"""Checkpoints with orbax: everything a run needs, restored onto any mesh.

One checkpoint holds the training state, the position in the data and what
else a resumed run must know. Saving is asynchronous; a checkpoint that was
not finished when the process died is ignored.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from stjax import errors

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Position:
  """How far a run has come, besides its state.

  Attributes:
    batches: number of training batches consumed; the data are a function of
      this number, so it holds on any number of processes and workers.
  """

  batches: int


def _is_better(new: float, old: float | None, mode: str) -> bool:
  if not math.isfinite(new):
    return False
  if old is None:
    return True
  return new < old if mode == "min" else new > old


def differing_shapes(theirs: PyTree, ours: PyTree) -> list[tuple[str, Any, Any]]:
  """Paths whose shapes differ between two trees, with both shapes."""

  def shapes(tree):
    return {
      jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
      for path, leaf in jax.tree.leaves_with_path(tree)
    }

  theirs, ours = shapes(theirs), shapes(ours)
  return [
    (path, theirs.get(path, "absent"), ours.get(path, "absent"))
    for path in sorted(theirs.keys() | ours.keys())
    if theirs.get(path) != ours.get(path)
  ]


class Checkpoints:
  """The checkpoints of one work directory.

  Args:
    directory: where they are; made if missing.
    metric: name of the score that says which checkpoint is best.
    mode: "min" or "max".
    keep_latest: number of newest checkpoints kept.
    keep_best: number of best ones kept besides.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    metric: str = "loss",
    mode: str = "min",
    keep_latest: int = 2,
    keep_best: int = 1,
  ):
    self._directory = pathlib.Path(directory).absolute()
    self._metric = metric
    self._mode = mode
    policies = ocp.checkpoint_managers
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        best_fn=lambda scores: scores[metric],
        best_mode=mode,
        keep_checkpoints_without_metrics=False,
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(max(keep_latest, 1)),
            policies.BestN(
              get_metric_fn=lambda scores: scores[metric],
              reverse=mode == "min",
              n=keep_best,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        enable_async_checkpointing=True,
      ),
      item_handlers={
        "state": ocp.StandardCheckpointHandler(),
        "position": ocp.JsonCheckpointHandler(),
      },
    )

  @property
  def latest_step(self) -> int | None:
    """The newest step saved, or None."""
    return self._manager.latest_step()

  def all_steps(self) -> list[int]:
    """All steps kept, oldest first."""
    return sorted(self._manager.all_steps())

  def scores(self, step: int) -> dict[str, float] | None:
    """The validation scores saved with a step, or None."""
    return self._manager.metrics(step)

  @property
  def best_step(self) -> int | None:
    """The kept step with the best score; None if none was scored."""
    best = None
    for step in self.all_steps():
      value = (self.scores(step) or {}).get(self._metric)
      if value is not None and _is_better(value, best and best[0], self._mode):
        best = (value, step)
    return best and best[1]

  def step_named(self, which: str) -> int:
    """The step that "best" or "latest" stands for.

    Raises:
      ConfigError: unknown word, or nothing has been saved yet.
    """
    if which not in ("best", "latest"):
      raise errors.ConfigError(f"The checkpoint {which!r} must be 'best' or 'latest'.")
    step = self.best_step if which == "best" else None
    step = self.latest_step if step is None else step
    if step is None:
      raise errors.ConfigError(
        f"{self._directory} holds no checkpoint yet; train first"
        " (--mode=train), or point --workdir at a finished run."
      )
    return step

  def save(
    self,
    step: int,
    state: PyTree,
    position: Position,
    scores: Mapping[str, float] | None = None,
    wait: bool = False,
  ) -> None:
    """Saves a checkpoint, in the background unless `wait`."""
    if step in self._manager.all_steps():
      return
    finite = None
    if scores and math.isfinite(scores.get(self._metric, math.nan)):
      finite = {k: float(v) for k, v in scores.items() if math.isfinite(v)}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        position=ocp.args.JsonSave(dataclasses.asdict(position)),
      ),
      metrics=finite,
      force=True,
    )
    if wait:
      self._manager.wait_until_finished()

  def restore(self, step: int, abstract: PyTree) -> tuple[PyTree, Position]:
    """Restores a state onto the shardings that `abstract` names.

    Args:
      step: a step that was saved.
      abstract: tree of `jax.ShapeDtypeStruct` with shardings; they need not
        be the ones the state was saved with.

    Raises:
      ConfigError: the checkpoint cannot be read as this state: damaged, or
        of another network or optimiser.
    """
    try:
      found = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore()
        ),
      )
    except (ValueError, OSError, KeyError) as error:
      raise errors.ConfigError(
        f"Checkpoint {self._directory / str(step)} cannot be restored into"
        " this config's state. If the file is damaged, delete that folder"
        f" to go on from {self._others(step)}. The reason: {error}"
      ) from error
    logging.info("Restored step %d of %s", step, self._directory)
    return found.state, Position(**found.position)

  def _others(self, step: int) -> str:
    others = [s for s in self.all_steps() if s != step]
    return f"step {others[-1]}" if others else "the beginning"

  def restore_variables(
    self, step: int, expected: Mapping[str, PyTree]
  ) -> dict[str, PyTree]:
    """Restores what forecasts need: variables, averaged ones if they exist.

    Args:
      step: a step that was saved.
      expected: {"params": ..., other collections}, shapes and shardings.

    Raises:
      ConfigError: the checkpoint holds another network.
    """
    found = self._manager.item_metadata(step).state.tree
    name = "ema_params" if found.get("ema_params") else "params"
    collections = {k: v for k, v in expected.items() if k != "params"}
    wanted = {name: expected["params"], "collections": collections}
    differing = [
      f"  {path}: {theirs} in the checkpoint, {ours} in this config"
      for path, theirs, ours in differing_shapes(
        {key: found.get(key) or {} for key in wanted}, wanted
      )
    ]
    if differing:
      raise errors.ConfigError(
        f"Checkpoint {self._directory / str(step)} holds another network:\n"
        + "\n".join(differing[:10])
        + "\nGive the keys under `model` the values it was trained with."
      )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
      parts = checkpointer.restore(
        self._directory / str(step) / "state",
        args=ocp.args.PyTreeRestore(
          item=wanted,
          restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
          partial_restore=True,
        ),
      )
    return {"params": parts[name], **parts["collections"]}

  def wait(self) -> None:
    """Waits until everything is written."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes writing and lets go of the directory."""
    self._manager.wait_until_finished()
    self._manager.close()
