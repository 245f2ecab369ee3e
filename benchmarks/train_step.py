"""Times one SimVP train step of stjax and of torch, side by side.

Both run forward, backward and the Adam update on the same batch, in one
process, in turns, so that other load on the machine meets both alike:

  python -m benchmarks.train_step --translator=gsta --rounds=10
  python -m benchmarks.train_step --translator=all --batch=8 --rounds=3

Network, batch and optimiser are those of configs/simvp_boiling.py. Torch runs
the translators of benchmarks/torch_blocks.py, stjax all. On CPU each is held
to the same cores. With a GPU torch also runs compiled, both run in float32 and
bfloat16, and the ratio is to the faster torch. GFLOP is what XLA counts in the
compiled step: loop bodies once, hence too little on CPU.
"""

import argparse
import functools
import os
import statistics

from benchmarks import timing
from benchmarks.timing import Contender

# Steps in a row of one contender before the next one's turn.
STEPS_PER_TURN = 2
WARM_UP = 3
COLUMNS = (
  "translator", "precision", "parameters", "GFLOP", "stjax ms", "torch ms",
  "torch compiled ms", "ratio", "stjax processor ms", "torch processor ms",
)  # fmt: skip


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--translator", default="gsta", help="a name, or all")
  parser.add_argument(
    "--variant",
    choices=("default", "full"),
    default="default",
    help="of configs/simvp_boiling.py",
  )
  parser.add_argument("--batch", type=int, default=0, help="0: the config's")
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument(
    "--devices",
    type=int,
    default=1,
    help="virtual CPU devices that share stjax's batch",
  )
  parser.add_argument(
    "--precision",
    choices=("float32", "bfloat16", "both"),
    help="default: float32 on CPU, both on GPU",
  )
  return parser.parse_args()


def stjax_contender(
  config, inputs, targets, precision: str, **method_options
) -> Contender:
  """The step that stjax compiles for this config.

  Args:
    config: has model, optimizer and mesh.
    inputs: [B, T, C, H, W].
    targets: [B, T_out, C, H, W]; all of it is forecast.
    precision: of the network.
    **method_options: options of `stjax.methods.regression.Regression`.
  """
  import numpy as np

  from stjax import methods, models

  network = models.build(**config.model.to_dict() | {"dtype": precision})
  method = methods.build(
    "regression", network, horizon=targets.shape[1], **method_options
  )
  batch = {"inputs": np.moveaxis(inputs, 2, -1), "targets": np.moveaxis(targets, 2, -1)}
  return method_contender(method, config, batch)


def method_contender(
  method, config, batch, make_frozen=lambda variables: {}
) -> Contender:
  """The step that stjax compiles for a method.

  Args:
    method: a `stjax.methods.base.Method`.
    config: has optimizer and mesh.
    batch: what the method trains on, by its keys.
    make_frozen: initial variables -> what the method reads and never trains; not
      the arrays themselves, which the step uses up.
  """
  import jax
  import numpy as np

  from stjax import sharding
  from stjax.training import optim
  from stjax.training import state as state_lib
  from stjax.training import step as step_lib

  optimizer = optim.build(config.optimizer, 1000, 100.0)
  mesh = sharding.make_mesh(config.mesh)
  batch = sharding.put_batch(batch, mesh)

  def create(key):
    example = {"inputs": np.zeros((1, *batch["inputs"].shape[1:]), np.float32)}
    variables = method.init(key, example)
    return state_lib.create(key, variables, optimizer.transformation, 0.0)

  whole = sharding.replicated(mesh)
  with sharding.use_mesh(mesh):
    # Unoptimised: it runs once, and optimising it takes longer than the step.
    state = jax.jit(
      create,
      out_shardings=whole,
      compiler_options={"xla_backend_optimization_level": 0},
    )(jax.random.key(0))
    frozen = make_frozen(state.variables())
    step = jax.jit(
      functools.partial(
        step_lib.train_step,
        method=method,
        transformation=optimizer.transformation,
        learning_rate=optimizer.learning_rate,
      ),
      out_shardings=whole,
      donate_argnums=0,
    )
    compiled = step.lower(state, batch, frozen).compile()

  def run():
    nonlocal state
    state, scalars = compiled(state, batch, frozen)
    return float(scalars["loss"])

  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  return Contender(
    run,
    parameters,
    compiled.cost_analysis().get("flops"),
    compiled.memory_analysis().temp_size_in_bytes,
  )


def torch_simvp(config, shape: tuple[int, ...]):
  """The SimVP of this config in torch, for inputs [B, T, C, H, W]."""
  from benchmarks import torch_twin

  names = (
    "spatial_features",
    "temporal_features",
    "spatial_depth",
    "temporal_depth",
    "mlp_ratio",
    "translator",
    "padding_mode",
  )
  options = {name: config.model[name] for name in names}
  return torch_twin.SimVP(*shape[1:3], **options)


def torch_contender(
  make_network,
  config,
  inputs,
  targets,
  precision: str,
  threads: int,
  compiled: bool = False,
  fused: bool = False,
) -> Contender:
  """The same step in torch.

  Args:
    make_network: () -> the network.
    config: has optimizer: Adam.
    inputs: [B, T, C, H, W].
    targets: [B, T_out, C, H, W].
    precision: bfloat16 turns on autocast.
    threads: cores.
    compiled: use `torch.compile`.
    fused: update all parameters in one kernel.
  """
  import torch

  from benchmarks import torch_twin

  torch.set_num_threads(threads)
  torch.manual_seed(0)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  network = make_network().to(device)
  optimiser = torch.optim.Adam(
    network.parameters(), lr=config.optimizer.learning_rate, fused=fused
  )
  parameters = sum(p.numel() for p in network.parameters())
  if compiled:
    network = torch.compile(network)
  step = functools.partial(
    torch_twin.train_step,
    network,
    optimiser,
    *(torch.from_numpy(a).to(device) for a in (inputs, targets)),
    precision=getattr(torch, precision),
    clip_norm=config.optimizer.clip_norm,
  )
  return Contender(lambda: float(step()), parameters)


def milliseconds(of: timing.Times) -> str:
  """The median of a contender's times and, in brackets, the least."""
  return f"{1e3 * statistics.median(of.wall):.1f} ({1e3 * min(of.wall):.1f})"


def row(
  labels: dict[str, str],
  contenders: dict[str, Contender],
  times: dict[str, timing.Times],
) -> dict[str, str]:
  """The cells of one line of the table, by column.

  Args:
    labels: what was timed: its first cells.
    contenders: by name, "stjax" one of them.
    times: of each.
  """
  ours = contenders["stjax"]
  cells = labels | {"parameters": f"{ours.parameters:,}"}
  if ours.flops:
    cells["GFLOP"] = f"{ours.flops / 1e9:.2f}"
  medians = {}
  for name, of in times.items():
    medians[name] = statistics.median(of.wall)
    cells[f"{name} ms"] = milliseconds(of)
    processor = statistics.median(of.processor)
    cells[f"{name} processor ms"] = f"{1e3 * processor:.0f}"
  ours = medians.pop("stjax")
  if medians:
    cells["ratio"] = f"{ours / min(medians.values()):.2f}"
  return cells


def main() -> None:
  arguments = parse_arguments()
  timing.limit_cores(arguments.threads, arguments.devices)
  import jax
  import numpy as np

  from benchmarks import torch_blocks
  from configs import simvp_boiling
  from stjax.models.translators import TRANSLATORS

  config = simvp_boiling.get_config(arguments.variant)
  batch = arguments.batch or config.global_batch_size
  gpu = jax.default_backend() == "gpu"
  precisions = [arguments.precision or ("both" if gpu else "float32")]
  if precisions == ["both"]:
    precisions = ["float32", "bfloat16"]
  size = config.data.image_size if "image_size" in config.data else 64
  shape = (batch, config.data.history, 1, size, size)
  inputs, targets = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
  print(
    f"{arguments.variant}, batch {batch}, {arguments.threads} threads, "
    f"{jax.device_count()} {jax.default_backend()} device(s), jax "
    f"{jax.__version__}\nms: median (least) of {arguments.rounds} rounds of "
    f"{STEPS_PER_TURN} steps; ratio: of the medians, stjax / torch"
  )
  columns = [c for c in COLUMNS if gpu or c != "torch compiled ms"]
  timing.print_head(columns)
  translators = [arguments.translator]
  if translators == ["all"]:
    translators = sorted(TRANSLATORS)
  for translator in translators:
    config.model.translator = translator
    for precision in precisions:
      contenders = {"stjax": stjax_contender(config, inputs, targets, precision)}
      if translator in torch_blocks.BLOCKS:
        make_network = functools.partial(torch_simvp, config, inputs.shape)
        for compiled in (False, True) if gpu else (False,):
          contenders["torch compiled" if compiled else "torch"] = torch_contender(
            make_network,
            config,
            inputs,
            targets,
            precision,
            arguments.threads,
            compiled,
          )
      times = timing.measure(contenders, arguments.rounds, STEPS_PER_TURN, WARM_UP)
      labels = {"translator": translator, "precision": precision}
      cells = row(labels, contenders, times)
      timing.print_line([cells.get(column, "") for column in columns])


if __name__ == "__main__":
  main()
