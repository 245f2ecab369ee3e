"""Timing programs side by side: in turns, on the same cores.

Imports neither jax nor torch, so that `limit_cores` can run before them.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence


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


def compare(
  columns: Sequence[str],
  work: str,
  contenders: dict[str, Contender],
  weights: dict[str, dict[str, str]],
  released: str,
  amount: int,
  rounds: int,
  warm_up: int,
) -> None:
  """Times the programs of one work in turns, and prints a line for each.

  Args:
    columns: of the table; "work", "program", "per second", "times torch's" and those
      of the weights.
    work: its name.
    contenders: programs by name.
    weights: further cells of each program.
    released: the program that the rates are compared with.
    amount: what one call makes, for the rates.
    rounds: turns of each.
    warm_up: calls of each before the first round.
  """
  sizes = {contender.parameters for contender in contenders.values()}
  assert len(sizes) == 1, f"the networks differ: {sizes} parameters"
  times = measure(contenders, rounds, 1, warm_up)
  for name in contenders:
    wall = times[name].wall
    median, best = (amount / s for s in (statistics.median(wall), min(wall)))
    ratios = [t / s for t, s in zip(times[released].wall, wall, strict=True)]
    cells = weights[name] | {
      "work": work,
      "program": name,
      "per second": f"{median:.3g} ({best:.3g})",
      "times torch's": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to"
      f" {max(ratios):.2f})",
    }
    print_line([cells.get(column, "") for column in columns])
