"""Times a Triton train step of stjax and of torch, and weighs its rollouts.

Both run forward, backward and the Adam update on the same batch, in one
process, in turns, so that other load on the machine meets both alike. With
--rollout a step goes through so many forecasts, each made from the one before:

  python -m benchmarks.triton_step --threads=2 --rounds=10
  python -m benchmarks.triton_step --threads=2 --rounds=3 --rollout=1,5,20

XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=false in front makes
XLA's CPU backend reuse buffers sooner.

The network is Triton's for the weather (one frame to the next, attention in
every block, stochastic depth, mean squared error, Adam) with fewer variables,
points and features. Torch runs benchmarks/torch_triton.py: fused attention,
fused Adam. On CPU each is held to the same cores. With a GPU a single step of
torch also runs compiled, both run in float32 and bfloat16, and the ratio is to
the faster torch. GFLOP is what XLA counts, loop bodies once.

Rollouts run as they are, and with one forecast at a time made again in the
backward pass: stjax's `method.remat`, `torch.utils.checkpoint`. Their memory is
measured in a process for each, which has imported the one library only:

  memory MiB   by how much the resident memory grows in one step at its highest:
               activations, gradients, scratch. Parameters, Adam's moments, the
               batch, libraries and compiled code are there before and do not
               count; what earlier steps or the compiler freed was handed back
               to the kernel and counts when it is used again. Torch keeps
               the last gradients until its next step, so its own (1 MiB by
               default) were there before.
  process MiB  all that is resident at that peak, libraries and code included.
  XLA MiB      the temporary memory that XLA plans; exact, but stjax's only.

On GPU "memory MiB" is what the library's allocator counts on the device. Jax
cannot reset that peak, so it may contain what compiling tried out.
"""

import argparse
import functools
import os
import statistics

from benchmarks import memory, timing, train_step

WARM_UP = 3
STEPS_PER_TURN = 2
COLUMNS = (
  "precision", "parameters", "GFLOP", "stjax ms", "torch ms",
  "torch compiled ms", "ratio", "stjax processor ms", "torch processor ms",
)  # fmt: skip
ROLLOUT_COLUMNS = (
  "forecasts", "precision", "program", "ms", "ms / torch's", "memory MiB",
  "XLA MiB", "process MiB",
)  # fmt: skip
# Program -> library and whether forecasts are made again in the backward pass.
PROGRAMS = {
  "stjax": ("stjax", False),
  "stjax remat": ("stjax", True),
  "torch": ("torch", False),
  "torch checkpoint": ("torch", True),
}


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--batch", type=int, default=2)
  parser.add_argument("--variables", type=int, default=13)
  parser.add_argument("--height", type=int, default=32)
  parser.add_argument("--width", type=int, default=64)
  parser.add_argument("--spatial-features", type=int, default=32)
  parser.add_argument("--temporal-features", type=int, default=64)
  parser.add_argument("--spatial-depth", type=int, default=4)
  parser.add_argument("--temporal-depth", type=int, default=4)
  parser.add_argument("--rollout", default="", help="forecasts, as in 1,5,20")
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument(
    "--precision",
    choices=("float32", "bfloat16", "both"),
    help="default: float32 on CPU, both on GPU",
  )
  return parser.parse_args()


def make_config(arguments: argparse.Namespace):
  """Config of the network and of its optimiser."""
  from configs import base

  config = base.get_config()
  names = ("spatial_features", "temporal_features", "spatial_depth", "temporal_depth")
  config.model.update(
    {name: getattr(arguments, name) for name in names},
    name="triton",
    core_first="attention",
    drop_path=0.1,
  )
  return config


def make_batch(arguments: argparse.Namespace, horizon: int):
  """Random inputs [B, 1, C, H, W] and targets [B, horizon, C, H, W]."""
  import numpy as np

  a = arguments
  frames = np.random.default_rng(0).standard_normal(
    (a.batch, 1 + horizon, a.variables, a.height, a.width), np.float32
  )
  return frames[:, :1], frames[:, 1:]


def torch_network(config, shape: tuple[int, ...], horizon: int, remat: bool):
  """Triton in torch, behind a rollout if it forecasts more than one frame.

  Args:
    config: that of `make_config`.
    shape: of the inputs, [B, T, C, H, W].
    horizon: frames to forecast.
    remat: make each forecast again in the backward pass.
  """
  from benchmarks import torch_triton

  options = config.model.to_dict()
  options.pop("name")
  network = torch_triton.Triton(*shape[1:3], **options)
  if horizon == shape[1] and not remat:
    return network
  return torch_triton.Rollout(network, horizon, remat)


def make_contender(
  arguments: argparse.Namespace,
  library: str,
  precision: str,
  horizon: int = 1,
  remat: bool = False,
  compiled: bool = False,
) -> timing.Contender:
  """A train step through `horizon` forecasts."""
  config = make_config(arguments)
  data = make_batch(arguments, horizon)
  if library == "stjax":
    return train_step.stjax_contender(config, *data, precision, remat=remat)
  return train_step.torch_contender(
    functools.partial(torch_network, config, data[0].shape, horizon, remat),
    config,
    *data,
    precision,
    arguments.threads,
    compiled,
    fused=True,
  )


def weigh(
  arguments: argparse.Namespace, program: str, precision: str, horizon: int
) -> dict[str, str]:
  """Cells of memory of one program; in a process that has run no other."""
  memory.one_arena()
  library, remat = PROGRAMS[program]
  contender = make_contender(arguments, library, precision, horizon, remat)
  for _ in range(WARM_UP):
    contender.run()
  return memory.cells(library, contender)


def compare_steps(
  arguments: argparse.Namespace, precisions: list[str], gpu: bool
) -> None:
  """Prints the table of single steps."""
  columns = [c for c in COLUMNS if gpu or c != "torch compiled ms"]
  timing.print_head(columns)
  for precision in precisions:
    make = functools.partial(make_contender, arguments, precision=precision)
    contenders = {"stjax": make("stjax"), "torch": make("torch")}
    if gpu:
      contenders["torch compiled"] = make("torch", compiled=True)
    times = timing.measure(contenders, arguments.rounds, STEPS_PER_TURN, WARM_UP)
    cells = train_step.row({"precision": precision}, contenders, times)
    timing.print_line([cells.get(column, "") for column in columns])


def compare_rollouts(
  arguments: argparse.Namespace, precisions: list[str], horizons: list[int]
) -> None:
  """Prints the table of rollouts."""
  timing.print_head(ROLLOUT_COLUMNS)
  for horizon in horizons:
    for precision in precisions:
      lines = {
        program: {"forecasts": str(horizon), "precision": precision}
        | {"program": program}
        | memory.in_own_process(weigh, arguments, program, precision, horizon)
        for program in PROGRAMS
      }
      contenders = {
        program: make_contender(arguments, library, precision, horizon, remat)
        for program, (library, remat) in PROGRAMS.items()
      }
      times = timing.measure(contenders, arguments.rounds, 1, 1)
      medians = {k: statistics.median(v.wall) for k, v in times.items()}
      for program, cells in lines.items():
        cells["ms"] = train_step.milliseconds(times[program])
        ratio = medians[program] / medians["torch"]
        cells["ms / torch's"] = f"{ratio:.2f}"
        timing.print_line([cells.get(c, "") for c in ROLLOUT_COLUMNS])


def main() -> None:
  arguments = parse_arguments()
  timing.limit_cores(arguments.threads, 1)
  # Several processes and both libraries share a GPU's memory.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  import jax

  a = arguments
  gpu = jax.default_backend() == "gpu"
  precisions = [a.precision or ("both" if gpu else "float32")]
  if precisions == ["both"]:
    precisions = ["float32", "bfloat16"]
  horizons = [int(number) for number in a.rollout.split(",") if number]
  turn = 1 if horizons else STEPS_PER_TURN
  print(
    f"{a.variables} variables, {a.height} x {a.width}, batch {a.batch}, "
    f"{a.threads} threads, {jax.default_backend()}, jax {jax.__version__}\n"
    f"ms: median (least) of {a.rounds} rounds of {turn} step(s); ratio: of the "
    "medians, stjax / torch"
  )
  if horizons:
    compare_rollouts(arguments, precisions, horizons)
  else:
    compare_steps(arguments, precisions, gpu)


if __name__ == "__main__":
  main()
