"""Guards: scores that a training must not lose while it gains others."""

import json
import math

import jax

from input_pipeline import files
from stjax import config as config_lib
from stjax import errors


class Guarded(RuntimeError):
  """A score is further from where it began than a guard allows."""


class Guards:
  """Compares the scores of the validation split with those before the first step.

  The first scores are kept in WORKDIR/guards.json, so that a run that was
  interrupted goes on with them.

  Args:
    run: the run; its evaluation.guards gives the allowed change of each score.

  Raises:
    ConfigError: the first scores cannot be read.
  """

  def __init__(self, run):
    self.wanted = config_lib.plain(run.config.evaluation.guards)
    self._path = run.workdir / "guards.json"
    self._first = self._read() if self.wanted and self._path.exists() else {}

  def _read(self) -> dict[str, float]:
    try:
      return {str(k): float(v) for k, v in json.loads(self._path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
      raise errors.ConfigError(
        f"{self._path} cannot be read ({error}), which has the scores before the first"
        " step. Restore it, or leave evaluation.guards empty."
      ) from error

  @property
  def known(self) -> bool:
    """Whether the first scores of all guards are known."""
    return self.wanted.keys() <= self._first.keys()

  def begin(self, scores: dict[str, float], step: int) -> None:
    """Keeps the scores that later ones are compared with.

    Args:
      scores: of the validation split.
      step: number of steps made.

    Raises:
      ConfigError: the run has made steps already, or a score has no value.
    """
    if step:
      raise errors.ConfigError(
        f"evaluation.guards compares with the scores before the first step, which"
        f" {self._path} does not have: the run has made {step} steps without these"
        " guards. Leave evaluation.guards as it was, or use another --workdir."
      )
    without = [name for name in self.wanted if not math.isfinite(scores[name])]
    if without:
      raise errors.ConfigError(
        f"evaluation.guards[{without[0]!r}] has no value before the first step, such as"
        " the FAR of forecasts without an event, or the spread of one member"
        " (evaluation.validation_members): guard another score."
      )
    self._first = {name: scores[name] for name in self.wanted}
    if jax.process_index() == 0:
      files.write_json(self._path, self._first)

  def check(self, scores: dict[str, float], step: int, best: int | None) -> None:
    """Raises Guarded if a score has changed by more than is allowed.

    Args:
      scores: of the validation split.
      step: number of steps made.
      best: step of the best checkpoint, or None.
    """
    for name, allowed in self.wanted.items():
      first, now = self._first[name], scores[name]
      change = now - first
      # Written so that a score that is NaN does not pass.
      if change >= allowed if allowed < 0 else change <= allowed:
        continue
      kept = f"The checkpoint of step {best} is the best one before it and is kept."
      if best is None:
        kept = "There is no checkpoint before it."
      raise Guarded(
        f"Training stopped at step {step}: {name} was {first:.5g} before the first step"
        f" and is now {now:.5g}, a change of {change:+.3g}, where"
        f" evaluation.guards allows {allowed:+g}. {kept} Use a lower"
        " optimizer.learning_rate, fewer steps or a higher method.beta in a new work"
        " directory; --mode=evaluate scores what is kept."
      )
