"""Times CoST's second stage in stjax and in torch, side by side.

One train step of the residual diffusion, and ensemble forecasts, of the shapes
of configs/cost.py, in one process and in turns, so that other load on the
machine meets both alike:

  python -m benchmarks.residual_diffusion --rounds=10 --threads=1
  python -m benchmarks.residual_diffusion --set=sst --members=8

stjax runs what `stjax.main` compiles, twice: for the config's variant
`released`, which is the same work as torch's, and for the config itself, which
makes fewer network calls and for some sets has a smaller network. Torch does
what the released code does (benchmarks/torch_cost.py). On CPU each is held to
the same cores. The data are random. Each cell is a median and, in brackets,
the best; the last column is how many times faster stjax is: median, least and
most of the rounds.
"""

import argparse
import math
import os
import statistics
import tempfile

from benchmarks import timing
from benchmarks.timing import Contender

SETS = ("los_speed", "sst")
VARIANTS = ("released", "config")
STEPS_PER_TURN = 2
COLUMNS = (
  "set", "variant", "threads", "work", "unit", "stjax", "torch",
  "times faster",
)  # fmt: skip


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--set", choices=(*SETS, "both"), default="both")
  parser.add_argument(
    "--variant", choices=(*VARIANTS, "both"), default="both", help="what stjax runs"
  )
  parser.add_argument(
    "--batch", type=int, default=0, help="of training; 0: the config's"
  )
  parser.add_argument(
    "--windows", type=int, default=0, help="forecast at a time; 0: twice the batch"
  )
  parser.add_argument("--members", type=int, default=4, help="of each forecast")
  parser.add_argument("--nodes", type=int, default=0, help="0: the data's")
  parser.add_argument("--rounds", type=int, default=10, help="of training")
  parser.add_argument("--sample-rounds", type=int, default=3)
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument(
    "--devices",
    type=int,
    default=1,
    help="virtual CPU devices that share stjax's batch",
  )
  return parser.parse_args()


def random_data(name: str, nodes: int, folder: str) -> str:
  """Writes random data in the shapes of a set; returns their paths."""
  import numpy as np

  # Enough frames for a window of every split.
  shapes = {
    "los_speed": {"Los_Speed": (120, nodes or 207, 1)},
    "sst": {
      "SST": (120, *((nodes, 1) if nodes else (10, 50))),
      "SST_ERA5": (400, *((nodes, 1) if nodes else (10, 50))),
    },
  }[name]
  rng = np.random.default_rng(0)
  paths = []
  for file, shape in shapes.items():
    paths.append(os.path.join(folder, f"{file}.npy"))
    np.save(paths[-1], rng.standard_normal(shape, np.float32))
  return ",".join(paths)


def make_run(name: str, variant: str, arguments: argparse.Namespace, folder: str):
  """The run of configs/cost.py on random data, after a mean of one step."""
  from configs import cost
  from stjax import train
  from stjax.run import build as build_lib

  released = ",released" if variant == "released" else ""
  path = random_data(name, arguments.nodes, folder)

  def build(stage, workdir, **changes):
    config = cost.get_config(f"{name},{stage}{released}")
    config.data.path = path
    config.global_batch_size = arguments.batch or config.global_batch_size
    windows = arguments.windows or 2 * config.global_batch_size
    config.forecast.batch_size = config.evaluation.batch_size = windows
    if config.frozen:
      config.frozen.mean = {"init_from": os.path.join(folder, f"{variant}_mean")}
      config.forecast.members = arguments.members
    config.update(changes)
    return build_lib.build(config, os.path.join(folder, workdir))

  train.train(build("mean", f"{variant}_mean", num_steps=1))
  return build("diffusion", variant)


def first_batch(run, batch_size: int):
  """Numpy arrays of the first training windows."""
  return run.crop_to_training_window(next(iter(run.split("train", batch_size).batches)))


def stjax_contenders(run) -> dict[str, Contender]:
  """A train step and a batch of forecasts."""
  import jax

  from stjax import sharding
  from stjax.forecasting import chunks
  from stjax.run import sources

  config = run.config
  state, frozen = run.fresh_state(), sources.frozen(run)
  train_step = run.compile_train_step()
  batch = sharding.put_batch(first_batch(run, config.global_batch_size), run.mesh)
  windows = config.forecast.batch_size
  horizon = config.data.horizon
  rollout = chunks.Rollout(
    run, windows, config.forecast.members, horizon, frames=horizon
  )
  histories = sharding.put_batch(first_batch(run, windows), run.mesh)
  variables = run.fresh_state().variables()
  key = chunks.forecast_key(config.seed)

  def train():
    nonlocal state
    state, scalars = train_step(state, batch, frozen)
    return float(scalars["loss"])

  def sample():
    (piece,) = rollout.pieces(variables, frozen, histories, key)
    return jax.block_until_ready(piece.fields)

  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  return {
    "train": Contender(train, parameters),
    "sample": Contender(sample, parameters),
  }


def torch_options(options: dict[str, object]) -> dict[str, object]:
  """A network's options in the twin's words."""
  rows = zip(options["calendar_sizes"], options["calendar_dims"], strict=True)
  tables = dict(zip(options["calendar_names"], rows, strict=True))
  return dict(
    node_dim=options["node_dim"],
    embed_dim=options["embed_dim"],
    num_layers=options["num_layers"],
    slots=tables.get("slot_of_day"),
    days=tables.get("day_of_week", tables.get("month")),
    dropout=options["dropout"],
  )


def torch_batch(run, batch_size: int, slots: int, device: str):
  """What the released code reads: values, (day, slot), scale.

  Its count of slots a day is smaller than ours: they start again.
  """
  import numpy as np
  import torch

  batch = first_batch(run, batch_size)
  observed = np.concatenate([batch["inputs"], batch["targets"]], axis=1)
  observed = observed.reshape(*observed.shape[:2], -1, 1)
  columns = dict(
    zip(run.config.data.calendar, np.moveaxis(batch["calendar"], -1, 0), strict=True)
  )
  day = columns.get("day_of_week", columns.get("month"))
  slot = columns.get("slot_of_day", np.zeros_like(day)) % slots
  timepoints = np.stack([day, slot], axis=-1).astype(np.float32)
  scale = np.full((batch_size, observed.shape[2]), 0.3, np.float32)
  return [
    torch.from_numpy(np.array(a)).to(device) for a in (observed, timepoints, scale)
  ]


def torch_contenders(run, threads: int) -> dict[str, Contender]:
  """The same work as the released code does it, for a run of that variant."""
  import torch

  from benchmarks import torch_cost

  torch.set_num_threads(threads)
  torch.manual_seed(0)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  data, optimizer = run.config.data, run.config.optimizer
  nodes = math.prod(run.example_shape["inputs"][1:])
  means = torch_options(run.parts["mean"].network_options)
  mean = torch_cost.Mean(nodes, data.history, data.horizon, **means)
  network = torch_cost.Denoiser(
    nodes, data.history + data.horizon, **torch_options(run.network_options)
  )
  forecaster = torch_cost.Forecaster(network, nodes, data.history)
  mean, forecaster = mean.to(device).train(), forecaster.to(device).train()
  optimiser = torch.optim.Adam(
    forecaster.parameters(),
    lr=optimizer.learning_rate,
    weight_decay=optimizer.weight_decay,
  )
  slots = means["slots"][0] if means["slots"] else 1
  batch = torch_batch(run, run.config.global_batch_size, slots, device)
  windows = torch_batch(run, run.config.forecast.batch_size, slots, device)

  def train():
    forecaster.train()
    return float(torch_cost.train_step(forecaster, mean, optimiser, *batch))

  def sample():
    forecaster.eval()
    members = run.config.forecast.members
    return torch_cost.sample(forecaster, mean, *windows, members).cpu()

  parameters = sum(p.numel() for p in forecaster.parameters())
  return {
    "train": Contender(train, parameters),
    "sample": Contender(sample, parameters),
  }


def row(
  times: dict[str, timing.Times], calls: int, amount: float, rate: bool
) -> dict[str, str]:
  """The measured cells of one line, by column.

  Args:
    times: of "stjax" and "torch".
    calls: calls in each round.
    amount: what one call makes, in the unit of the line.
    rate: amount per second rather than seconds per amount.
  """
  cells = {}
  for name, of in times.items():
    values = [
      amount / s if rate else s / amount
      for s in (statistics.median(of.wall), min(of.wall))
    ]
    cells[name] = "{:.3g} ({:.3g})".format(*values)
  rounds = [
    [sum(of.wall[i : i + calls]) for i in range(0, len(of.wall), calls)]
    for of in (times["torch"], times["stjax"])
  ]
  ratios = [theirs / ours for theirs, ours in zip(*rounds, strict=True)]
  cells["times faster"] = (
    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
  )
  return cells


def main() -> None:
  arguments = parse_arguments()
  timing.limit_cores(arguments.threads, arguments.devices)
  import jax
  import torch

  print(
    f"{jax.device_count()} {jax.default_backend()} device(s), jax "
    f"{jax.__version__}, torch {torch.__version__}; train: "
    f"{arguments.rounds} rounds of {STEPS_PER_TURN} steps, sample: "
    f"{arguments.sample_rounds} rounds"
  )
  timing.print_head(list(COLUMNS))
  variants = VARIANTS if arguments.variant == "both" else (arguments.variant,)
  for name in SETS if arguments.set == "both" else (arguments.set,):
    with tempfile.TemporaryDirectory() as folder:
      released = make_run(name, "released", arguments, folder)
      theirs = torch_contenders(released, arguments.threads)
      for variant in variants:
        run = released
        if variant == "config":
          run = make_run(name, variant, arguments, folder)
        compare(name, variant, arguments, run, theirs)


def compare(
  name: str,
  variant: str,
  arguments: argparse.Namespace,
  run,
  theirs: dict[str, Contender],
) -> None:
  """Measures and prints the two lines of one variant."""
  ours = stjax_contenders(run)
  batch = run.config.global_batch_size
  windows = run.config.forecast.batch_size
  sampler = run.config.forecast.sampler
  steps = sampler.steps or run.config.method.num_steps
  parameters = "{:,} and {:,} parameters".format(
    ours["train"].parameters, theirs["train"].parameters
  )
  for work, unit, rounds, calls, amount in (
    (f"train, batch {batch}, {parameters}", "steps/s",
     arguments.rounds, STEPS_PER_TURN, 1),
    (f"sample, {windows} windows x {arguments.members} members, {steps} and"
     f" {run.config.method.num_steps} network calls",
     "s per window-sample", arguments.sample_rounds, 1,
     windows * arguments.members),
  ):  # fmt: skip
    kind = work.partition(",")[0]
    times = timing.measure(
      {"stjax": ours[kind], "torch": theirs[kind]}, rounds, calls, calls
    )
    cells = row(times, calls, amount, rate=unit == "steps/s") | {
      "set": name,
      "variant": variant,
      "threads": str(arguments.threads),
      "work": work,
      "unit": unit,
    }
    timing.print_line([cells[column] for column in COLUMNS])


if __name__ == "__main__":
  main()
