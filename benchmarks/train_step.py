"""Times one SimVP train step of stjax and of torch, side by side.

Both run forward, backward and the Adam update on the same batch, in one
process, in turns, so that other load on the machine meets both alike:

  python -m benchmarks.train_step --variant=default --rounds=10

On CPU each is held to the same number of cores. With a GPU torch also runs
compiled, and both run in float32 and bfloat16.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

# Shapes and options that configs/simvp_boiling.py does not give itself.
VARIANTS = {
  "default": {},
  "full": dict(
    spatial_features=64,
    temporal_features=512,
    spatial_depth=4,
    temporal_depth=8,
    mlp_ratio=8.0,
  ),
}
# Steps in a row of one contender before the next one's turn.
STEPS_PER_TURN = 2


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--variant", choices=VARIANTS, default="default")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument(
    "--devices",
    type=int,
    default=0,
    help="virtual CPU devices for stjax; 0: as many as threads divide a batch",
  )
  parser.add_argument(
    "--precision", choices=("float32", "bfloat16", "both"), default=None
  )
  return parser.parse_args()


def limit_cores(threads: int, devices: int) -> None:
  """Has to run before jax or torch are imported."""
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
  os.environ["OMP_NUM_THREADS"] = str(threads)
  flag = f"--xla_force_host_platform_device_count={devices}"
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def network_options(variant: str) -> dict:
  from configs import simvp_boiling

  options = simvp_boiling.get_config().model.to_dict()
  return options | VARIANTS[variant]


def stjax_step(options: dict, inputs, targets, precision: str) -> Callable:
  """A function that runs one step and waits for its loss."""
  import jax
  import numpy as np

  from configs import base
  from stjax import methods, models, optim, sharding
  from stjax import state as state_lib
  from stjax import step as step_lib
  from stjax.models import layers

  network = models.build(**options | {"dtype": precision})
  method = methods.build("regression", network, horizon=targets.shape[1])
  optimizer = optim.build(base.get_config().optimizer, 1000, 100.0)
  mesh = sharding.make_mesh(dict(data=-1, fsdp=1, space=1))
  batch = sharding.put_batch(
    {
      "inputs": np.moveaxis(inputs, 2, -1),
      "targets": np.moveaxis(targets, 2, -1),
    },
    mesh,
  )

  def create(key):
    example = {"inputs": batch["inputs"]}
    variables = method.init(key, example)
    return state_lib.create(key, variables, optimizer.transformation, 0.0)

  whole = sharding.replicated(mesh)
  with layers.convolution_mesh(mesh):
    # Unoptimised: it runs once, and optimising it takes longer than the step.
    state = jax.jit(
      create,
      out_shardings=whole,
      compiler_options={"xla_backend_optimization_level": 0},
    )(jax.random.key(0))
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
    compiled = step.lower(state, batch, {}).compile()

  def run():
    nonlocal state
    state, scalars = compiled(state, batch, {})
    return float(scalars["loss"])

  return run


def torch_step(
  options: dict, inputs, targets, precision: str, threads: int, compiled: bool
) -> Callable:
  """A function that runs one step and waits for its loss."""
  import torch

  from benchmarks import torch_twin

  torch.set_num_threads(threads)
  torch.manual_seed(0)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  names = (
    "spatial_features",
    "temporal_features",
    "spatial_depth",
    "temporal_depth",
    "mlp_ratio",
  )
  network = torch_twin.SimVP(
    inputs.shape[1], inputs.shape[2], **{name: options[name] for name in names}
  ).to(device)
  optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
  if compiled:
    network = torch.compile(network)
  arrays = [torch.from_numpy(a).to(device) for a in (inputs, targets)]
  return lambda: float(
    torch_twin.train_step(
      network, optimiser, *arrays, getattr(torch, precision)
    )
  )


def measure(
  contenders: dict[str, Callable], rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
  """Wall and processor seconds of every step, the contenders in turns."""
  times = {name: ([], []) for name in contenders}
  for run in contenders.values():
    for _ in range(3):
      run()
  for _ in range(rounds):
    for name, run in contenders.items():
      for _ in range(STEPS_PER_TURN):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        times[name][0].append(time.perf_counter() - wall)
        times[name][1].append(time.process_time() - processor)
  return times


def main() -> None:
  arguments = parse_arguments()
  threads = arguments.threads
  devices = arguments.devices or threads
  while arguments.batch % devices:
    devices -= 1
  limit_cores(threads, devices)
  import jax
  import numpy as np

  gpu = jax.default_backend() == "gpu"
  precision = arguments.precision or ("both" if gpu else "float32")
  precisions = ("float32", "bfloat16") if precision == "both" else (precision,)
  rng = np.random.default_rng(0)
  shape = (arguments.batch, 10, 1, 64, 64)
  inputs, targets = rng.standard_normal((2, *shape), np.float32)
  options = network_options(arguments.variant)
  print(
    f"{arguments.variant}, batch {arguments.batch}, {threads} threads, "
    f"{jax.device_count()} {jax.default_backend()} devices; ms per step, "
    "median (least); ratio of the medians, stjax / torch"
  )
  print(f"{'':34}{'wall':>17}{'processor':>17}{'ratio':>7}")
  for precision in precisions:
    contenders = {"stjax": stjax_step(options, inputs, targets, precision)}
    for compiled in (False, True) if gpu else (False,):
      name = "torch compiled" if compiled else "torch"
      contenders[name] = torch_step(
        options, inputs, targets, precision, threads, compiled
      )
    times = measure(contenders, arguments.rounds)
    ours = statistics.median(times["stjax"][0])
    for name, columns in times.items():
      cells = [
        f"{1e3 * statistics.median(c):9.1f} ({1e3 * min(c):.1f})"
        for c in columns
      ]
      ratio = ours / statistics.median(columns[0])
      print(
        f"{name + ' ' + precision:34}"
        + "".join(f"{cell:>17}" for cell in cells)
        + f"{ratio:7.2f}"
      )


if __name__ == "__main__":
  main()
