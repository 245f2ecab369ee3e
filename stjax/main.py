"""python -m stjax.main --config=configs/X.py --workdir=DIR [--mode=MODE]

Trains, evaluates and forecasts, or draws and pairs candidate forecasts; any leaf of
the config is overridden by --config.a.b=value.
"""

from absl import flags, logging

from stjax.run import cli, distributed

MODES = ("all", "train", "evaluate", "forecast", "prefer")

_MODE = flags.DEFINE_enum(
  "mode",
  "all",
  MODES,
  "What to do; all trains, evaluates and forecasts, one after the other.",
)


def check(run, mode: str) -> None:
  """Refuses at once what one of the commands would refuse at its end.

  Args:
    run: the run, a `stjax.run.run.Run`.
    mode: one of MODES; the splits that its commands need are opened.

  Raises:
    ConfigError: a setting that does not fit the data, of any command.
    DataError: a split that is needed has no window.
  """
  from stjax import errors, evaluate, forecast, prefer, train

  if mode in ("forecast", "prefer") and run.method.kind != "forecast":
    raise errors.ConfigError(
      f"--mode={mode} asks for forecasts, but method.name={run.config.method.name!r}"
      " makes reconstructions of what it is shown. Use --mode=train or evaluate, or"
      " name its work directory in another run, such as"
      " config.frozen.world.init_from."
    )
  commands = {"train": train, "evaluate": evaluate, "forecast": forecast}
  for name, command in commands.items():
    unasked = name == "forecast" and run.method.kind != "forecast"
    command.check(run, splits=mode in ("all", name) and not unasked)
  prefer.check(run, splits=mode == "prefer")


def main() -> None:
  """Runs the modes one after the other."""
  cli.require(
    "python -m stjax.main --config=configs/simvp_boiling.py --workdir=DIR",
    cli.CONFIG,
    cli.WORKDIR,
  )
  mode = _MODE.value
  distributed.initialise()
  # Only now: these touch the devices.
  from stjax import evaluate, forecast, prefer, train
  from stjax.run import build as build_lib
  from stjax.training import guards

  run = build_lib.build(cli.read_config(), cli.WORKDIR.value)
  check(run, mode)
  try:
    if mode in ("all", "train") and not train.train(run):
      return  # Asked to stop: the same command goes on later.
    if mode in ("all", "evaluate"):
      evaluate.evaluate(run)
    if mode == "all" and run.method.kind != "forecast":
      logging.info("%s makes no forecasts.", run.config.method.name)
    elif mode in ("all", "forecast"):
      forecast.forecast(run)
    if mode == "prefer":
      prefer.prefer(run)
  except (train.Diverged, guards.Guarded, forecast.BlownUp) as error:
    cli.fail(error, status=1)
  following = {"prefer": run.config.prefer.next_command}
  following |= dict.fromkeys(("all", "train"), run.config.next_command)
  if following.get(mode):
    named = following[mode].format(workdir=cli.WORKDIR.value, config=run.config)
    print(f"Next: {named}")


if __name__ == "__main__":
  cli.run(main)
