"""Timing programs side by side: in turns, on the same cores.

Imports neither jax nor torch, so that `limit_cores` can run before them.
"""

import dataclasses
import os
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Contender:
  """A program to be timed.

  Attributes:
    run: makes one step, or one batch of samples, and waits for its result.
    parameters: their number.
    flops: of a step; None if not known.
    temporary_bytes: what XLA plans for a step besides inputs and results; None
      if not known.
  """

  run: Callable[[], object]
  parameters: int
  flops: float | None = None
  temporary_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Times:
  """Of every call of a contender, in seconds.

  Attributes:
    wall: by the clock.
    processor: of all threads together.
  """

  wall: list[float] = dataclasses.field(default_factory=list)
  processor: list[float] = dataclasses.field(default_factory=list)


def limit_cores(threads: int, devices: int) -> None:
  """Holds the process to some cores; before jax or torch are imported.

  Args:
    threads: cores, and OpenMP's threads.
    devices: virtual CPU devices of jax.
  """
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
  os.environ["OMP_NUM_THREADS"] = str(threads)
  flag = f"--xla_force_host_platform_device_count={devices}"
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def measure(
  contenders: dict[str, Contender], rounds: int, calls: int, warm_up: int
) -> dict[str, Times]:
  """Times contenders in turns, so that other load meets them all alike.

  Args:
    contenders: by name.
    rounds: turns of each.
    calls: calls in a row of one contender before the next one's turn.
    warm_up: calls of each before the first round.
  """
  times = {name: Times() for name in contenders}
  for contender in contenders.values():
    for _ in range(warm_up):
      contender.run()
  for _ in range(rounds):
    for name, contender in contenders.items():
      for _ in range(calls):
        wall, processor = time.perf_counter(), time.process_time()
        contender.run()
        times[name].wall.append(time.perf_counter() - wall)
        times[name].processor.append(time.process_time() - processor)
  return times


def print_line(cells: list[str]) -> None:
  """One line of a table in Markdown."""
  print("| " + " | ".join(cells) + " |", flush=True)


def print_head(columns: list[str]) -> None:
  """The first two lines of such a table."""
  print_line(columns)
  print_line(["---"] * len(columns))
