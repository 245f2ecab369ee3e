"""Progress of a run: throughput, time left, and time that the input takes.

Unlike clu.periodic_actions, it does not need TensorFlow.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from absl import logging


def format_duration(seconds: float) -> str:
  """Returns "m:ss" or "h:mm:ss"."""
  minutes, seconds = divmod(int(seconds + 0.5), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"


class Progress:
  """Measures a loop, and logs one line every few seconds.

      progress = Progress(total_steps=1000, items_per_step=16)
      for step in range(1, 1001):
        with progress.waiting():
          batch = next(batches)
        ...
        if (scalars := progress.update(step)) is not None:
          writer.write_scalars(step, scalars)
        with progress.paused():
          evaluate()

  Rates are those since the last line, without pauses. The time left comes from
  the mean rate since the first step ended, so that the compilation, which
  happens once, does not count.

  Args:
    total_steps: number of steps of the whole run.
    items_per_step: samples that one step takes in, over all processes.
    first_step: number of steps that an earlier process did.
    every_seconds: seconds between two lines.
    clock: function that returns seconds and never goes back.
  """

  def __init__(
    self,
    total_steps: int,
    items_per_step: int,
    *,
    first_step: int = 0,
    every_seconds: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total_steps = total_steps
    self._items_per_step = items_per_step
    self._every_seconds = every_seconds
    self._clock = clock
    self._begin = clock()
    # Seconds of pauses since the beginning, and of waits since the last line.
    self._spent = {"paused": 0.0, "waiting": 0.0}
    self._line_step, self._line_time = first_step, 0.0
    # Time and number of the first step that ended.
    self._first: tuple[float, int] | None = None

  @contextlib.contextmanager
  def _measured(self, kind: str) -> Iterator[None]:
    start = self._clock()
    try:
      yield
    finally:
      self._spent[kind] += self._clock() - start

  def waiting(self) -> contextlib.AbstractContextManager[None]:
    """Returns a context whose time counts as waiting for input."""
    return self._measured("waiting")

  def paused(self) -> contextlib.AbstractContextManager[None]:
    """Returns a context whose time does not count: evaluation, checkpoints."""
    return self._measured("paused")

  def update(self, step: int, note: str = "") -> dict[str, float] | None:
    """Notes that `step` steps are done, and logs a line if one is due.

    Args:
      step: number of steps that are done.
      note: text at the end of the line, such as the newest loss.

    Returns:
      None if no line is due; otherwise the scalars of the line: samples and
      steps a second, share of the time that was spent waiting for input, and
      seconds left.
    """
    now = self._clock() - self._begin - self._spent["paused"]
    if self._first is None:
      self._first = now, step
    due = step >= self._total_steps or now - self._line_time >= self._every_seconds
    if not due or step <= self._line_step:
      return None

    elapsed = max(now - self._line_time, 1e-9)
    steps_per_second = (step - self._line_step) / elapsed
    first_time, first_step = self._first
    if step > first_step and now > first_time:
      mean_rate = (step - first_step) / (now - first_time)
    else:
      mean_rate = steps_per_second
    left = max(self._total_steps - step, 0) / mean_rate
    scalars = {
      "progress/samples_per_second": steps_per_second * self._items_per_step,
      "progress/steps_per_second": steps_per_second,
      "progress/input_wait_share": min(self._spent["waiting"] / elapsed, 1.0),
      "progress/seconds_left": left,
    }
    logging.info(
      "step %s of %s (%.0f%%)  %.4g samples/s  %.4g steps/s  "
      "input wait %.0f%%  elapsed %s  left %s%s",
      f"{step:,}",
      f"{self._total_steps:,}",
      100.0 * step / max(self._total_steps, 1),
      scalars["progress/samples_per_second"],
      steps_per_second,
      100.0 * scalars["progress/input_wait_share"],
      format_duration(self._clock() - self._begin),
      format_duration(left),
      f"  {note}" if note else "",
    )
    self._line_step, self._line_time, self._spent["waiting"] = step, now, 0.0
    return scalars
