"""Prepares one of our tensorflow-datasets builders, without TensorFlow.

  python -m input_pipeline.tfds.prepare --builder=boiling --data_dir=DIR

`tfds build` would import TensorFlow; this does not.
"""

import argparse
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from input_pipeline import errors
from input_pipeline.tfds.boiling import boiling_dataset_builder

FILE_FORMAT = "array_record"

# Name -> (builder class, function from options to a builder config).
BUILDERS = {
  "boiling": (boiling_dataset_builder.Builder, boiling_dataset_builder.boiling_config)
}


def prepare(
  builder: str,
  data_dir: str | os.PathLike,
  options: Mapping[str, Any] | None = None,
  version: str = "",
) -> tfds.core.DatasetBuilder:
  """Prepares a set below data_dir unless it is there already.

  Several processes may do so at the same time: each works aside, and the
  first one done is kept.

  Args:
    builder: name of one of our builders.
    data_dir: the directory of tensorflow-datasets sets.
    options: options of the builder's config; the defaults when None.
    version: the version wanted; "" for the current one.

  Returns:
    The builder, ready to be read.

  Raises:
    DataError: if the builder, an option or the version is not known.
  """
  if builder not in BUILDERS:
    raise errors.unknown("builder (data.builder)", builder, BUILDERS)
  make, make_config = BUILDERS[builder]
  config = make_config(**(options or {}))
  if config.name in make.builder_configs:
    config = config.name  # The library wants its own by name.
  if version and version != str(make.VERSION):
    raise errors.DataError(
      f"The builder {builder} makes version {make.VERSION}, but data.version "
      f"is {version}."
    )

  def build():
    return make(data_dir=os.fspath(data_dir), config=config, file_format=FILE_FORMAT)

  tfds.disable_progress_bar()
  result = build()
  try:
    result.download_and_prepare()
  except OSError:
    # Another process may have finished it meanwhile; its result is ours.
    if not is_prepared(result.data_dir):
      raise
    result = build()
  return result


def is_prepared(directory: str | os.PathLike) -> bool:
  """Whether a directory holds a finished set."""
  return (pathlib.Path(directory) / "dataset_info.json").is_file()


def main(arguments: Sequence[str] | None = None) -> None:
  """Prepares a set; see --help."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.tfds.prepare",
    description="Prepares a tensorflow-datasets set as ArrayRecord.",
  )
  parser.add_argument("--builder", required=True, help=", ".join(BUILDERS))
  parser.add_argument("--data_dir", required=True)
  parser.add_argument(
    "--option",
    action="append",
    default=[],
    metavar="NAME=VALUE",
    help="an option of the builder, e.g. num_samples=20; may be repeated",
  )
  values = parser.parse_args(arguments)
  try:
    options = dict(_option(text) for text in values.option)
    result = prepare(values.builder, values.data_dir, options)
  except errors.DataError as error:
    parser.error(str(error))
  print(result.data_dir)
  for name, split in result.info.splits.items():
    print(f"{name}: {split.num_examples} examples")


def _option(text: str) -> tuple[str, int | float | list]:
  """Reads NAME=NUMBER or NAME=NUMBER,NUMBER,..."""
  name, _, value = text.partition("=")
  try:
    numbers = [float(part) if "." in part else int(part) for part in value.split(",")]
  except ValueError as error:
    raise errors.DataError(
      f"--option must be NAME=NUMBER or NAME=NUMBER,NUMBER, not {text!r}."
    ) from error
  return name, numbers[0] if len(numbers) == 1 else numbers


if __name__ == "__main__":
  main()
