"""python -m stjax.convert --config=configs/X.py --torch=FILE --workdir=DIR

The command brings torch weights into a new work directory, from which evaluation,
forecasts and further training start. With --to_torch=FILE in place of --torch, it
writes the weights of a work directory for torch.
"""

import pathlib
import re
import shutil

import jax
from absl import flags, logging

from stjax import convert, errors
from stjax.convert import files, report
from stjax.run import build as build_lib
from stjax.run import cli, sources
from stjax.training import checkpoint as checkpoint_lib

_USAGE = (
  "python -m stjax.convert --config=configs/X.py --workdir=DIR, and"
  " --torch=FILE to bring weights in or --to_torch=FILE to write them"
)

_TORCH = flags.DEFINE_string(
  "torch", "", "The weights: .pth, .pt, .ckpt, .bin, .pth.tar, .safetensors or .npz."
)
_TO_TORCH = flags.DEFINE_string(
  "to_torch", "", "Where to write the work directory's weights."
)
_CHECKPOINT = flags.DEFINE_enum(
  "checkpoint", "best", ("best", "latest"), "Which weights --to_torch takes."
)
_EMA = flags.DEFINE_bool(
  "ema", False, "Take the averaged weights that lie beside the trained ones in --torch."
)
_WEIGHTS = flags.DEFINE_string(
  "weights", "", "Key or prefix of the weights, where --torch holds several networks."
)
_ALLOW_UNUSED = flags.DEFINE_string(
  "allow_unused", "", "Regular expression of torch names that may be unused."
)
_REPORT = flags.DEFINE_bool("report", False, "Print every array: names, shape, norm.")
_REFERENCE = flags.DEFINE_string(
  "reference",
  "",
  "An .npz of torch's inputs and outputs [B, T, C, H, W]: print the largest"
  " error of the network with these weights.",
)


def main() -> None:
  """Converts in the direction that the flags say."""
  cli.require(_USAGE, cli.CONFIG, cli.WORKDIR)
  if bool(_TORCH.value) == bool(_TO_TORCH.value):
    cli.fail(f"give either --torch or --to_torch. Usage: {_USAGE}")
  if _TO_TORCH.value and (_EMA.value or _WEIGHTS.value):
    cli.fail("--ema and --weights say what is taken from --torch; leave them out.")
  try:
    re.compile(_ALLOW_UNUSED.value)
  except re.error as error:
    cli.fail(
      f"--allow_unused={_ALLOW_UNUSED.value!r} is no regular expression: {error}"
    )
  config = cli.read_config()
  if _TO_TORCH.value:
    _to_torch(config, pathlib.Path(cli.WORKDIR.value))
  else:
    _from_torch(config, pathlib.Path(cli.WORKDIR.value))


def _from_torch(config, workdir: pathlib.Path) -> None:
  state_dict = files.read(_TORCH.value, ema=_EMA.value, weights=_WEIGHTS.value)
  existed = workdir.exists()
  try:
    run = build_lib.build(config, workdir)
    checkpoints = run.checkpoints()
    if checkpoints.latest_step is not None:
      raise errors.ConfigError(
        f"{workdir} already holds step {checkpoints.latest_step} of a run;"
        " choose a new --workdir."
      )
    variables = sources.convert_weights(run, state_dict, _ALLOW_UNUSED.value or None)
    _print_report(run, variables, state_dict)
    state = sources.with_variables(run.fresh_state(), variables)
    # Until something is scored, the newest checkpoint is the best.
    checkpoints.save(0, state, checkpoint_lib.Position(batches=0), wait=True)
    checkpoints.close()
  except Exception:
    # A work directory belongs to its config, so a wrong one must not stay.
    if not existed:
      shutil.rmtree(workdir, ignore_errors=True)
    raise
  logging.info(
    "%s holds the weights of %s as step 0; python -m stjax.main"
    " --workdir=%s goes on from there.",
    workdir,
    _TORCH.value,
    workdir,
  )


def _to_torch(config, workdir: pathlib.Path) -> None:
  path = pathlib.Path(_TO_TORCH.value)
  files.check_suffix(path)
  if not (workdir / "checkpoints").is_dir():
    raise errors.ConfigError(f"{workdir} is not a work directory with checkpoints.")
  run = build_lib.build(config, workdir)
  variables = jax.device_get(
    sources.load_variables(run, run.workdir, _CHECKPOINT.value)
  )
  state_dict = convert.to_torch(
    config.model.name, variables, **sources.network_options(run)
  )
  _print_report(run, variables)
  try:
    files.write(path, state_dict)
  except OSError as error:
    raise convert.ConvertError(f"{path} cannot be written: {error}") from error
  logging.info("Wrote %d arrays to %s", len(state_dict), path)


def _print_report(run, variables, state_dict=None) -> None:
  options = sources.network_options(run)
  name = run.config.model.name
  if _REPORT.value:
    table = report.layers(name, variables, state_dict=state_dict, **options)
    print(table, flush=True)
  if _REFERENCE.value:
    options.pop("in_shape")
    found = report.errors(name, variables, _REFERENCE.value, **options)
    for output, (absolute, relative) in found.items():
      print(
        f"{output}: largest error {absolute:.3g}, {relative:.3g} of the output's scale",
        flush=True,
      )


if __name__ == "__main__":
  cli.run(main)
