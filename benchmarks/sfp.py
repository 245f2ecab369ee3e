"""Times SFP's planner and the training of its world model in stjax and in torch.

The planner imagines K candidates of each forecast and picks the one with the highest
critical success index. A VQ step is one update of the world model by its first stage
of training: forward, backward, Adam, and the moving averages of the codes. All
programs run in turns in one process, so that other load on the machine meets them
alike; memory is measured in a process for each:

  python -m benchmarks.sfp --threads=2 --rounds=3
  python -m benchmarks.sfp --width=16 --codes=64 --grid=32 --rounds=1

The network is that of the released configs with one variable on 64 x 64 points. The
data and the weights are random. stjax builds its methods as `stjax.main` does. Torch
runs benchmarks/torch_sfp.py: "torch, per sample" decodes and scores each candidate
of each example by itself, as released, and "torch, batched" all of them at once.
"torch, as released" trains with one-hot matrices and decodes K + 1 times, of which
the loss reads one; "torch, lean" looks codes up and decodes once, as stjax does. On
CPU each is held to the same cores.

  per second     candidates, or VQ steps: of the median time (of the least)
  times torch's  rate over that of the released way: median of the rounds, least and
                 most
  memory MiB     as in benchmarks/triton_step.py, and so the two columns after it
"""

import argparse
import os

from benchmarks import memory, timing, train_step
from benchmarks.timing import Contender

PLAN, TRAIN = "planner", "VQ step"
RELEASED, BATCHED, LEAN = "torch, per sample", "torch, batched", "torch, lean"
AS_RELEASED = "torch, as released"
# The programs of each work; the second one is the released way.
PROGRAMS = {PLAN: ("stjax", RELEASED, BATCHED), TRAIN: ("stjax", AS_RELEASED, LEAN)}
THRESHOLD = 0.5
WARM_UP = 1
COLUMNS = (
  "work", "program", "per second", "times torch's", "memory MiB", "XLA MiB",
  "process MiB",
)  # fmt: skip


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--work", choices=(PLAN, TRAIN, "both"), default="both")
  parser.add_argument("--batch", type=int, default=4, help="examples of one frame")
  parser.add_argument("--variables", type=int, default=1)
  parser.add_argument("--grid", type=int, default=64, help="points along each side")
  parser.add_argument("--layers", type=int, default=2)
  parser.add_argument("--codes", type=int, default=1024)
  parser.add_argument("--width", type=int, default=256, help="channels of the latent")
  parser.add_argument("--candidates", type=int, default=10)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument("--no-memory", action="store_true", help="measure times only")
  return parser.parse_args()


def random_frames(arguments: argparse.Namespace, seed: int):
  """Frames [B, H, W, C] within 0 and 1."""
  import numpy as np

  a = arguments
  shape = (a.batch, a.grid, a.grid, a.variables)
  return np.random.default_rng(seed).random(shape, np.float32)


def stjax_contender(arguments: argparse.Namespace, work: str) -> Contender:
  """The candidates of a batch and the choice among them, or one VQ step."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from configs import base
  from stjax import methods, models
  from stjax.metrics import rewards
  from stjax.planning import search

  a = arguments
  network = models.build(
    "vq", out_channels=a.variables, features=a.width, depth=a.layers, codes=a.codes
  )
  # The skip is that of the frame itself, as released; another frame's would be one
  # more convolution.
  options = {"skip_source": "input", "skip_dropout": 0.0} if work == TRAIN else {}
  method = methods.build("world_model", network, horizon=1, **options)
  history, action, truth = (random_frames(a, seed)[:, None] for seed in range(3))
  if work == TRAIN:
    batch = {
      "inputs": history,
      "targets": history,
      "index": np.arange(a.batch, dtype=np.int32),
      "valid": np.ones(a.batch, bool),
    }
    # The released optimiser is the default one: Adam with a rate of 1e-3.
    return train_step.method_contender(method, base.get_config(), batch)
  reward = rewards.build("sfp_csi", thresholds=(THRESHOLD,))

  def plan(variables, history, action, truth):
    candidates = method.imagine(
      variables, {}, {"inputs": history}, action, None, a.candidates
    )
    best = search.select(reward(candidates, truth), a.candidates)
    return candidates[best, jnp.arange(a.batch)]

  # Unoptimised: it runs once, and optimising it takes longer.
  quick = {"xla_backend_optimization_level": 0}
  init = jax.jit(method.init, compiler_options=quick)
  variables = init(jax.random.key(0), {"inputs": history})
  given = jax.device_put((variables, history, action, truth))
  compiled = jax.jit(plan).lower(*given).compile()
  return Contender(
    lambda: jax.block_until_ready(compiled(*given)),
    sum(x.size for x in jax.tree.leaves(variables["params"])),
    temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
  )


def torch_contender(
  arguments: argparse.Namespace, work: str, program: str
) -> Contender:
  """The torch program; see `torch_sfp`."""
  import numpy as np
  import torch

  from benchmarks import torch_sfp

  a = arguments
  torch.set_num_threads(a.threads)
  torch.manual_seed(0)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  model = torch_sfp.WorldModel(
    a.variables,
    a.layers,
    a.codes,
    a.width,
    a.candidates,
    released=program in (RELEASED, AS_RELEASED),
  ).to(device)
  parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)

  def frames(seed):
    values = np.ascontiguousarray(np.moveaxis(random_frames(a, seed), -1, 1))
    return torch.from_numpy(values).to(device)

  if work == PLAN:
    model.eval()
    plan = torch_sfp.plan_one_by_one if program == RELEASED else torch_sfp.plan_batched
    given = [frames(seed) for seed in range(3)]
    return Contender(lambda: plan(model, *given, THRESHOLD).cpu(), parameters)
  optimiser, data = torch_sfp.optimiser(model), frames(0)
  return Contender(
    lambda: float(torch_sfp.training_step(model, optimiser, data)), parameters
  )


def make_contender(arguments: argparse.Namespace, work: str, program: str) -> Contender:
  if program == "stjax":
    return stjax_contender(arguments, work)
  return torch_contender(arguments, work, program)


def weigh(arguments: argparse.Namespace, work: str, program: str) -> dict[str, str]:
  """Cells of memory of one program; in a process that has run no other."""
  memory.one_arena()
  contender = make_contender(arguments, work, program)
  for _ in range(1 + WARM_UP):  # Optimisers make their moments in the first step.
    contender.run()
  return memory.cells(program.partition(",")[0], contender)


def compare(arguments: argparse.Namespace, work: str) -> None:
  """Prints the lines of one work."""
  programs = PROGRAMS[work]
  weights = {name: {} for name in programs}
  if not arguments.no_memory:
    for name in programs:
      weights[name] = memory.in_own_process(weigh, arguments, work, name)
  contenders = {name: make_contender(arguments, work, name) for name in programs}
  timing.compare(
    COLUMNS,
    work,
    contenders,
    weights,
    released=programs[1],
    amount=arguments.batch * arguments.candidates if work == PLAN else 1,
    rounds=arguments.rounds,
    warm_up=WARM_UP,
  )


def main() -> None:
  arguments = parse_arguments()
  timing.limit_cores(arguments.threads, 1)
  # Several processes and both libraries share a GPU's memory.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  import jax
  import torch

  a = arguments
  print(
    f"{a.batch} frame(s) of {a.grid} x {a.grid} points and {a.variables} variable(s);"
    f" {a.layers} layers x {a.width}, {a.codes} codes, {a.candidates} candidates\n"
    f"{a.threads} threads, {jax.default_backend()}, jax {jax.__version__}, torch"
    f" {torch.__version__}, {a.rounds} rounds"
  )
  timing.print_head(list(COLUMNS))
  for work in (PLAN, TRAIN) if a.work == "both" else (a.work,):
    compare(arguments, work)


if __name__ == "__main__":
  main()
