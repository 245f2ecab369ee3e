"""Times SynCast's candidates and its preference steps in stjax and in torch.

Drawing candidates is 20 steps of DDIM for each; a step of DPO is forward, backward
and AdamW for pairs of a preferred and a rejected forecast, with a frozen reference.
All programs run in turns in one process, so that other load on the machine meets
them alike; memory is measured in a process for each:

  python -m benchmarks.syncast --threads=2 --rounds=3
  python -m benchmarks.syncast --features=8 --multipliers=1,2 --grid=32 --rounds=1

The defaults are the network and the shapes of the released SEVIR config (46 million
parameters). The data and the weights are random. stjax builds its methods as
`stjax.main` does. Torch runs benchmarks/torch_syncast.py in two ways: "torch" is
what the released code does, which encodes the history at each sampling step, and
for winners and losers apart; "torch, kept context" encodes it once, as stjax does.
On CPU each is held to the same cores.

  per second     candidates, or steps of DPO: of the median time (of the least)
  times torch's  rate over that of "torch": median of the rounds, least and most
  memory MiB     as in benchmarks/triton_step.py, and so the two columns after it
"""

import argparse
import os

from benchmarks import memory, timing, train_step
from benchmarks.timing import Contender

SAMPLE, PREFER = "candidates", "DPO"
# Program -> library and whether torch encodes the history again and again.
PROGRAMS = {
  "stjax": ("stjax", False),
  "torch": ("torch", True),
  "torch, kept context": ("torch", False),
}
WARM_UP = 1
COLUMNS = (
  "work", "program", "per second", "times torch's", "memory MiB", "XLA MiB",
  "process MiB",
)  # fmt: skip


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--work", choices=(SAMPLE, PREFER, "both"), default="both")
  parser.add_argument("--features", type=int, default=64)
  parser.add_argument("--multipliers", default="1,2,4,8", help="one a level")
  parser.add_argument("--grid", type=int, default=128, help="cells along each side")
  parser.add_argument("--history", type=int, default=6)
  parser.add_argument("--horizon", type=int, default=18)
  parser.add_argument("--events", type=int, default=1, help="sampled together")
  parser.add_argument("--candidates", type=int, default=2, help="of each event")
  parser.add_argument("--sampler-steps", type=int, default=20)
  parser.add_argument("--pairs", type=int, default=1, help="of each step of DPO")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument("--no-memory", action="store_true", help="measure times only")
  return parser.parse_args()


def multipliers(arguments: argparse.Namespace) -> tuple[int, ...]:
  return tuple(int(number) for number in arguments.multipliers.split(","))


def random_fields(arguments: argparse.Namespace, count: int, frames: int, seed: int):
  """Fields [count, frames, H, W, 1] within 0 and 1."""
  import numpy as np

  shape = (count, frames, arguments.grid, arguments.grid, 1)
  return np.random.default_rng(seed).random(shape, np.float32)


def stjax_contender(arguments: argparse.Namespace, work: str) -> Contender:
  """Candidates of all events, or one step of DPO."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from configs import base
  from stjax import methods, models

  a = arguments
  count = a.events if work == SAMPLE else a.pairs
  network = models.build(
    "diffcast", horizon=a.horizon, features=a.features, multipliers=multipliers(a)
  )
  options = dict(
    horizon=a.horizon, schedule="linear", num_steps=1000, beta_start=1e-4, beta_end=0.02
  )
  sampling = dict(
    name="ddim", steps=a.sampler_steps, spacing="leading", clip_x0=(-13.0, 13.0)
  )
  diffusion = methods.build("diffusion", network, sampling=sampling, **options)
  batch = {
    "inputs": random_fields(a, count, a.history, 0),
    "index": np.arange(count, dtype=np.int32),
    "valid": np.ones(count, bool),
  }
  if work == PREFER:
    chosen, rejected = (random_fields(a, count, a.horizon, seed) for seed in (1, 2))
    batch |= dict(chosen=chosen, rejected=rejected, targets=chosen)
    batch["paired"] = np.ones(count, bool)
    config = base.get_config()
    config.optimizer.update(
      name="adamw", learning_rate=1e-6, b1=0.9, b2=0.95, weight_decay=0.01
    )
    frozen = {"reference": diffusion}
    policy = {"name": "diffusion"} | options
    policy.pop("horizon")
    method = methods.build(
      "preference",
      network,
      frozen,
      sampling,
      policy=policy,
      horizon=a.horizon,
      beta=3000.0,
    )

    def make_frozen(variables):
      copied = jax.tree.map(jnp.copy, variables)
      return {"reference": {"variables": copied, "frozen": {}}}

    return train_step.method_contender(method, config, batch, make_frozen)
  # Unoptimised: it runs once, and optimising it takes longer.
  quick = {"xla_backend_optimization_level": 0}
  init = jax.jit(diffusion.init, compiler_options=quick)
  variables = init(jax.random.key(0), batch)
  forecast = jax.jit(diffusion.forecast, static_argnames="members")
  given = variables, {}, jax.device_put(batch), jax.random.key(1)
  compiled = forecast.lower(*given, members=a.candidates).compile()

  def run():
    return jax.block_until_ready(compiled(*given))

  return Contender(
    run,
    sum(x.size for x in jax.tree.leaves(variables)),
    temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
  )


def torch_contender(
  arguments: argparse.Namespace, work: str, recompute: bool
) -> Contender:
  """The same in torch; see `torch_syncast`."""
  import numpy as np
  import torch

  from benchmarks import torch_syncast

  a = arguments
  torch.set_num_threads(a.threads)
  torch.manual_seed(0)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  network = torch_syncast.DiffCast(a.horizon, a.features, multipliers(a)).to(device)
  parameters = sum(p.numel() for p in network.parameters())

  def fields(count, frames, seed):
    values = np.moveaxis(random_fields(a, count, frames, seed), -1, 2)
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)

  if work == SAMPLE:
    history = fields(a.events, a.history, 0)
    shape = (a.events, a.horizon, 1, a.grid, a.grid)

    def run():
      for _ in range(a.candidates):
        noise = torch.randn(shape, device=device)
        drawn = torch_syncast.sample(
          network, history, noise, a.sampler_steps, recompute
        )
      return drawn.cpu()

    return Contender(run, parameters)
  reference = torch_syncast.frozen_copy(network)
  optimiser = torch_syncast.preference_optimiser(network)
  data = [fields(a.pairs, a.history, 0)]
  data += [fields(a.pairs, a.horizon, seed) for seed in (1, 2)]

  def step():
    loss = torch_syncast.preference_step(
      network, reference, optimiser, *data, recompute=recompute
    )
    return float(loss)

  return Contender(step, parameters)


def make_contender(arguments: argparse.Namespace, program: str, work: str) -> Contender:
  library, recompute = PROGRAMS[program]
  if library == "stjax":
    return stjax_contender(arguments, work)
  return torch_contender(arguments, work, recompute)


def weigh(arguments: argparse.Namespace, program: str, work: str) -> dict[str, str]:
  """Cells of memory of one program; in a process that has run no other."""
  memory.one_arena()
  contender = make_contender(arguments, program, work)
  for _ in range(1 + WARM_UP):  # Optimisers make their moments in the first step.
    contender.run()
  return memory.cells(PROGRAMS[program][0], contender)


def compare(arguments: argparse.Namespace, work: str) -> None:
  """Prints the lines of one work."""
  weights = {name: {} for name in PROGRAMS}
  if not arguments.no_memory:
    for name in PROGRAMS:
      weights[name] = memory.in_own_process(weigh, arguments, name, work)
  contenders = {name: make_contender(arguments, name, work) for name in PROGRAMS}
  timing.compare(
    COLUMNS,
    work,
    contenders,
    weights,
    released="torch",
    amount=arguments.events * arguments.candidates if work == SAMPLE else 1,
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
    f"{a.features} features x {a.multipliers}, {a.history} frames to {a.horizon} of"
    f" {a.grid} x {a.grid} cells; {a.events} event(s) x {a.candidates} candidates by"
    f" {a.sampler_steps} steps; {a.pairs} pair(s)\n{a.threads} threads,"
    f" {jax.default_backend()}, jax {jax.__version__}, torch {torch.__version__},"
    f" {a.rounds} rounds"
  )
  timing.print_head(list(COLUMNS))
  for work in (SAMPLE, PREFER) if a.work == "both" else (a.work,):
    compare(arguments, work)


if __name__ == "__main__":
  main()
