"""Times forecasts that encode the history once, or at every step.

Plain diffusion with the STID denoiser of configs/cost.py, on random data in the
shapes of Los_Speed, in one process and in turns:

  python -m benchmarks.encode_once --rounds=10 --threads=1

"Every step" multiplies the whole window, [history, prior shift, noisy field], by
the first layer at each network call and looks up node and time again.
"""

import argparse
import os
import statistics

from benchmarks import timing


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--windows", type=int, default=8, help="forecast at a time")
  parser.add_argument("--members", type=int, default=4, help="of each forecast")
  parser.add_argument("--nodes", type=int, default=207)
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  return parser.parse_args()


def contenders(arguments: argparse.Namespace) -> dict[str, timing.Contender]:
  """The same forecast by both ways."""
  import jax
  import jax.numpy as jnp

  from configs import cost
  from stjax import config as config_lib
  from stjax import models
  from stjax.methods import diffusion
  from stjax.models.denoisers.stid import STIDDenoiser
  from stjax.models.layers.folding import fold_frames, unfold_frames

  class EveryStep(STIDDenoiser):
    def encode(self, history, *, calendar=None):
      return history, calendar

    def denoise(self, noisy, step, context, prior_shift, train=False):
      history, calendar = context
      parts = [fold_frames(part) for part in (history, prior_shift, noisy)]
      y = self.window(
        jnp.concatenate(parts, axis=-1),
        step,
        self.horizon * noisy.shape[-1],
        train,
        calendar=calendar,
      )
      return unfold_frames(y, self.horizon)

  config = cost.get_config("los_speed,plain")
  options = models.complete(
    "model",
    "stid_denoiser",
    config_lib.without(config.model, "name"),
    horizon=config.data.horizon,
    channels=1,
    calendar={"hour_of_day": 24},
    num_steps=config.method.num_steps,
  )
  shape = (arguments.windows, 12, arguments.nodes, 1, 1)
  calendar = jnp.zeros((arguments.windows, 24, len(options["calendar_sizes"])), int)
  batch = {
    "inputs": jax.random.normal(jax.random.key(0), shape),
    "calendar": calendar,
    "index": jnp.arange(arguments.windows),
  }

  def contender(network) -> timing.Contender:
    method = diffusion.Diffusion(network=network(**options), horizon=12)
    key = jax.random.key(1)
    shapes = jax.eval_shape(method.init, key, batch)
    variables = jax.tree.map(lambda s: jnp.full(s.shape, 0.01), shapes)
    forecast = jax.jit(method.forecast, static_argnames="members")
    parameters = sum(x.size for x in jax.tree.leaves(variables))

    def run():
      return forecast(
        variables, {}, batch, key, members=arguments.members
      ).block_until_ready()

    return timing.Contender(run, parameters)

  return {"once": contender(STIDDenoiser), "every step": contender(EveryStep)}


def main() -> None:
  arguments = parse_arguments()
  timing.limit_cores(arguments.threads, 1)
  times = timing.measure(contenders(arguments), arguments.rounds, 1, 1)
  count = arguments.windows * arguments.members
  clocks = ("wall", "processor")
  timing.print_head(["median s per window-sample", *clocks])
  medians = {
    name: [statistics.median(getattr(of, clock)) / count for clock in clocks]
    for name, of in times.items()
  }
  for name, values in medians.items():
    timing.print_line([name, *(f"{value:.3g}" for value in values)])
  pairs = zip(medians["every step"], medians["once"], strict=True)
  timing.print_line(["every step / once", *(f"{a / b:.3f}" for a, b in pairs)])


if __name__ == "__main__":
  main()
