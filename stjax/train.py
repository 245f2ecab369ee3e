"""The command that trains: steps, logs, validation, checkpoints, stopping.

The loop never asks which method runs. The host reads the scalars of step N - 1
after it has sent off step N, so that the devices never wait for it.
"""

import bisect
import contextlib
import math
import signal
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging
from flax import traverse_util
from jax.experimental import multihost_utils

from input_pipeline import spec as spec_lib
from stjax import config as config_lib
from stjax import errors
from stjax import sharding as sharding_lib
from stjax.run import run as run_lib
from stjax.run import sources
from stjax.training import checkpoint as checkpoint_lib
from stjax.training import guards as guards_lib
from stjax.training import logs as logs_lib
from stjax.training import progress as progress_lib
from stjax.training import state as state_lib
from stjax.verification import evaluator as evaluator_lib


class Diverged(RuntimeError):
  """The loss, the gradients or the update are not finite any more."""


class _StopRequest:
  """Listens for the machine asking this job to stop."""

  def __init__(self):
    self.asked = False

  def _ask(self, number, frame):
    del frame
    self.asked = True
    logging.warning(
      "Received %s. The run saves and stops after this step.",
      signal.Signals(number).name,
    )

  @contextlib.contextmanager
  def listening(self) -> Iterator["_StopRequest"]:
    """Listens for SIGTERM and SIGINT while the context is open."""
    old = {}
    # With several processes, jax's own service listens for SIGTERM and makes all
    # of them agree on the step; SIGINT reaches every process by itself.
    if jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        old[number] = signal.signal(number, self._ask)
    try:
      yield self
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)

  def reached(self, step: int) -> bool:
    """Tells whether to stop after `step`; all processes get the same answer."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.asked


class _Phases:
  """The train steps of the method's phases; see `Method.phases`.

  Each is compiled when its phase begins, as only one is needed at a time.
  """

  def __init__(self, run: run_lib.Run):
    self._run = run
    self._phases = run.phases()
    self._number = None

  def _after(self, step: int) -> int:
    """Returns the number of the phase that trains the step after `step`."""
    firsts = [first for first, _ in self._phases]
    return bisect.bisect_right(firsts, step) - 1

  def begins(self, step: int) -> bool:
    """Tells whether the step after `step` is the first of another phase."""
    return self._after(step) != self._number

  def step_after(self, step: int) -> jax.stages.Compiled:
    """Compiles the train step of the phase that begins."""
    self._number = self._after(step)
    start = time.monotonic()
    method = self._phases[self._number][1]
    compiled = self._run.compile_train_step(method)
    of_all = ""
    if len(self._phases) > 1:
      of_all = (
        f" of phase {self._number + 1} of {len(self._phases)} ({method.horizon} frames)"
      )
    logging.info(
      "Compiled the train step%s in %.1f s", of_all, time.monotonic() - start
    )
    return compiled


def _check_finite(scalars: dict[str, np.ndarray], step: int, saved: int | None) -> None:
  """Raises Diverged if loss, gradients or update of a step are not finite.

  Args:
    scalars: scalars of the step.
    step: number of the step.
    saved: newest step with a checkpoint, or None.
  """
  bad = [
    name
    for name in ("loss", "gradient_norm", "update_norm")
    if not math.isfinite(scalars[name])
  ]
  if bad:
    values = ", ".join(f"{name} = {scalars[name]}" for name in bad)
    kept = "No checkpoint was saved before it."
    if saved is not None:
      kept = f"The checkpoint of step {saved} is good and is kept."
    raise Diverged(
      f"Training diverged at step {step}: {values}. {kept} Look for extreme values"
      " in the data, or lower optimizer.learning_rate or set optimizer.clip_norm in"
      " a new work directory (init_from can name this one)."
    )


def check(run: run_lib.Run, splits: bool) -> None:
  """Finds errors in the data that would end the training at its validation.

  Args:
    run: the run.
    splits: whether to open the validation split, and to warn of what will have no
      score.

  Raises:
    DataError: the validation split has no window, or a missing value that
      data.missing does not allow.
  """
  if splits:
    evaluator_lib.review_split(run, "validation")


def train(run: run_lib.Run) -> bool:
  """Trains until the last step, from the newest checkpoint if there is one.

  Args:
    run: the run.

  Returns:
    True if the last step was reached; False if the machine asked to stop, and
    everything was saved.

  Raises:
    Diverged: loss, gradients or update of a step were not finite; the last good
      checkpoint is kept.
    ConfigError: the work directory's checkpoint does not fit the config.
  """
  config = run.config
  sources.check_sources(run)
  checkpoints = run.checkpoints()
  saved = checkpoints.latest_step
  if saved is None or saved < run.num_steps:
    # An error in a part of another run must come before any compilation.
    frozen = sources.frozen(run)
    sources.check_frozen(run, frozen)
  if saved is None:
    state = sources.first_state(run)
    position = checkpoint_lib.Position(batches=0)
  else:
    state, position = checkpoints.restore(saved, run.abstract_state)
  step = int(state.step)
  if saved is None and not run.method.trainable:
    # A method without parameters takes no step, but is evaluated from here.
    checkpoints.save(step, state, position, wait=True)
  if step >= run.num_steps:
    logging.info(
      "Step %d of %d is done: nothing is left to train.", step, run.num_steps
    )
    checkpoints.close()
    return True

  if jax.process_index() == 0:
    logging.info("\n%s", run.describe())
  writer = logs_lib.create(run.workdir / "logs", first_step=step + 1)
  if step == 0:
    writer.write_hparams(traverse_util.flatten_dict(config_lib.plain(config), sep="."))
  stride = evaluator_lib.window_stride(
    run, "validation", config.evaluation.validation_stride
  )
  validation = evaluator_lib.open_split(run, "validation", every=stride, pairs=True)
  pairs = spec_lib.PAIR_KEYS[0] in validation.spec.keys
  evaluator = evaluator_lib.Evaluator(
    run,
    config.evaluation.batch_size,
    members=config.evaluation.validation_members,
    pairs=pairs,
    all_parts=True,
  )
  names = evaluator.score_names()
  asked = {"checkpoint.best_metric": config.checkpoint.best_metric}
  asked |= {f"evaluation.guards[{name!r}]": name for name in config.evaluation.guards}
  for key, name in asked.items():
    if name not in names:
      raise errors.ConfigError(
        f"{key}={name!r} is not a score of the validation split:"
        f" {errors.near(name, names)}."
      )
  phases = _Phases(run)
  train_step = phases.step_after(step)
  data = run.split(
    "train", config.global_batch_size, train=True, start=position.batches
  )
  guards = guards_lib.Guards(run)
  if guards.wanted and not guards.known:
    guards.begin(
      _validate(run, evaluator, state, frozen, writer, step, stride, pairs), step
    )
  progress = progress_lib.Progress(
    total_steps=run.num_steps, items_per_step=config.global_batch_size, first_step=step
  )
  batches = iter(data.batches)
  pending = None
  note = ""
  finished = True

  def settle():
    """Reads, checks and logs the scalars of the step before.

    It comes before everything that keeps a state, so that no checkpoint or
    score is ever made of a step that diverged.
    """
    nonlocal pending, note
    if pending is None:
      return
    number, scalars = pending
    pending = None
    scalars = jax.device_get(scalars)
    _check_finite(scalars, number, checkpoints.latest_step)
    note = f"loss {scalars['loss']:.5g}"
    every = config.log.every_steps
    if (every and number % every == 0) or number == run.num_steps:
      values = {f"train/{k}": float(v) for k, v in scalars.items()}
      values["epoch"] = float(number / run.steps_per_epoch)
      writer.write_scalars(number, values)

  with _StopRequest().listening() as request:
    try:
      while step < run.num_steps:
        with progress.waiting():
          batch = next(batches)
        if phases.begins(step):
          settle()
          with progress.paused():
            train_step = phases.step_after(step)
        state, scalars = train_step(
          state, sharding_lib.put_batch(batch, run.mesh), frozen
        )
        step += 1
        # The devices work on this step while the host reads the one before.
        settle()
        pending = step, scalars
        rates = progress.update(step, note)
        if rates is not None:
          writer.write_scalars(step, rates)
        stop = request.reached(step)
        scores = None
        if run.every(config.evaluation, step):
          settle()
          with progress.paused():
            scores = _validate(
              run, evaluator, state, frozen, writer, step, stride, pairs
            )
          # Nothing is saved of a step that a guard does not allow.
          guards.check(scores, step, checkpoints.best_step)
        if stop or scores or run.every(config.checkpoint, step):
          settle()
          with progress.paused():
            checkpoints.save(
              step, state, checkpoint_lib.Position(batches=step), scores, wait=stop
            )
        if jax.process_count() == 1 and request.asked and not stop:
          # The request came during validation or saving. Several processes must
          # agree on the step, so they answer it after the next one.
          stop = True
          settle()
          checkpoints.save(
            step, state, checkpoint_lib.Position(batches=step), scores, wait=True
          )
        every = config.log.histograms_every_steps
        if every and step % every == 0:
          writer.write_histograms(step, _histograms(state))
        if stop:
          finished = False
          logging.warning(
            "Stopped at step %d of %d and saved it; the same command goes"
            " on from there.",
            step,
            run.num_steps,
          )
          break
    finally:
      checkpoints.close()
      writer.flush()
      writer.close()
  return finished


def _validate(
  run, evaluator, state, frozen, writer, step, stride, pairs
) -> dict[str, float]:
  """Scores the validation split and logs them."""
  variables = state.variables(averaged=run.config.ema_decay > 0)
  data = evaluator_lib.open_split(run, "validation", every=stride, pairs=pairs)
  scores = evaluator.summary(evaluator.score(variables, frozen, data))
  # A score of the method's own may have no value on the whole split.
  for name in (run.config.checkpoint.best_metric, *run.config.evaluation.guards):
    scores.setdefault(name, math.nan)
  writer.write_scalars(step, {f"validation/{k}": v for k, v in scores.items()})
  names = ("mse", "mae", "rmse", "ssim", "psnr")
  always = ("loss", "implicit_accuracy", run.config.checkpoint.best_metric)
  always += tuple(run.config.evaluation.guards)
  # Where units differ, there are scores by variable, and their mean says nothing.
  split = {k.rpartition("/")[0] for k in scores}
  shown = "  ".join(
    f"{k} {v:.5g}" if math.isfinite(v) else f"{k} none"
    for k, v in scores.items()
    if k in always
    or (k.split("/")[-1] in names and k not in split)
    or k.rpartition("/")[0].endswith("/rmse")
  )
  epoch = float(step / run.steps_per_epoch)
  logging.info("epoch %.4g, step %d, validation: %s", epoch, step, shown)
  return scores


def _histograms(state: state_lib.TrainState) -> dict[str, np.ndarray]:
  """Returns the parameters by path, but for those that other hosts have parts of."""
  leaves = jax.tree.leaves_with_path(state.params)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): jax.device_get(leaf)
    for path, leaf in leaves
    if leaf.is_fully_addressable
  }
