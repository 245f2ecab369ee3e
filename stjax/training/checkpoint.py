"""Checkpoints with orbax, which can be restored onto any mesh.

One checkpoint holds the training state, the position in the data and the
validation scores. Saving is asynchronous. A checkpoint that was not finished
when the process died is ignored.
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
  """The position of a run in its data.

  Attributes:
    batches: number of training batches that were consumed. The data are a
      function of this number, for any number of processes and workers.
  """

  batches: int


def differing_shapes(theirs: PyTree, ours: PyTree) -> list[tuple[str, Any, Any]]:
  """Returns the paths whose shapes differ between two trees, and both shapes."""

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
    directory: folder of the checkpoints, which is made if it is missing.
    metric: name of the score that decides which checkpoint is best.
    mode: "min" if lower scores are better, "max" if higher ones are.
    keep_latest: number of newest checkpoints that are kept.
    keep_best: number of best checkpoints that are kept, too.
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
    """The newest step that was saved, or None."""
    return self._manager.latest_step()

  def all_steps(self) -> list[int]:
    """Returns all steps that are kept, the oldest first."""
    return sorted(self._manager.all_steps())

  def scores(self, step: int) -> dict[str, float] | None:
    """Returns the validation scores that were saved with a step, or None."""
    return self._manager.metrics(step)

  @property
  def best_step(self) -> int | None:
    """The kept step with the best score, or None if none has a score.

    Of equal scores, the oldest step is the best.
    """
    # `save` keeps finite scores only, so these can be compared.
    scores = {step: (self.scores(step) or {}) for step in self.all_steps()}
    scored = [step for step, by_name in scores.items() if self._metric in by_name]
    choose = min if self._mode == "min" else max
    return choose(scored, key=lambda step: scores[step][self._metric], default=None)

  def step_named(self, which: str) -> int:
    """Returns the step that "best" or "latest" stands for.

    Without any score, the best step is the latest.

    Raises:
      ConfigError: the word is unknown, or nothing has been saved yet.
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
    """Saves a checkpoint, unless the step has been saved already.

    Args:
      step: number of the step.
      state: the training state.
      position: the position in the data.
      scores: validation scores of this step, if it was scored.
      wait: whether to wait until the checkpoint is written; otherwise it is
        written in the background.
    """
    if step in self._manager.all_steps():
      return
    # JSON has no name for NaN, and no order could be made with it.
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
    """Restores a state onto the shardings of `abstract`.

    Args:
      step: a step that was saved.
      abstract: tree of `jax.ShapeDtypeStruct` with shardings, which may differ
        from those that the state was saved with.

    Raises:
      ConfigError: the checkpoint cannot be read as this state, because it is
        damaged or belongs to another network or optimiser.
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
    """Restores only the variables, whose parameters are averaged if they can be.

    Args:
      step: a step that was saved.
      expected: shapes and shardings of {"params": ..., other collections}.

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
    # The optimiser's moments, twice the size of the parameters, stay on disk.
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
    """Finishes writing, and releases the directory."""
    self._manager.wait_until_finished()
    self._manager.close()
