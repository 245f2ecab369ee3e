"""Writes a loader JSON: the samples of a directory, cut into splits.

  python -m input_pipeline.loader_json --data_path DIR

lists the sample folders of DIR, draws the splits from a seed and writes
DIR/<id>_loaders.json, which `data.path` of the store "folders" accepts. The
file is that of simvp_minimal's create_dataloader; frame paths are relative to
the file, so the directory can be moved as a whole.
"""

import argparse
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from input_pipeline import files
from input_pipeline.errors import DataError
from input_pipeline.stores import frame_lists


def make(
  data_path: str | os.PathLike,
  *,
  relative_to: str | os.PathLike,
  train_ratio: float = 0.7,
  val_ratio: float = 0.15,
  num_samples: int = 0,
  selection: frame_lists.Selection | None = None,
  seed: int = 0,
) -> dict:
  """Lists, shuffles and splits the samples of a directory.

  Of n samples, round(n * train_ratio) go to training, round(n * val_ratio)
  to validation and the rest to test; empty splits are left out.

  Args:
    data_path: directory of sample folders.
    relative_to: directory that the frame paths are relative to.
    train_ratio: share of the training split, within 0 and 1.
    val_ratio: share of the validation split, within 0 and 1 - train_ratio.
    num_samples: samples drawn without replacement; 0 takes all.
    selection: the frames of each sample; all of them when None.
    seed: seed of every draw.

  Returns:
    The content of the file, "id" included: the SHA-256 of the rest as JSON
    with sorted keys.

  Raises:
    DataError: if a ratio is out of range or the directory unusable.
  """
  if not (0 <= train_ratio <= 1 and 0 <= val_ratio <= 1):
    raise DataError(
      "train_ratio and val_ratio must be within 0 and 1, but are "
      f"{train_ratio} and {val_ratio}."
    )
  if train_ratio + val_ratio > 1 + 1e-9:
    raise DataError(
      f"train_ratio {train_ratio} and val_ratio {val_ratio} add up to more than 1."
    )
  random = np.random.RandomState(seed)
  samples = frame_lists.list_samples(
    data_path,
    selection or frame_lists.Selection(),
    num_samples=num_samples,
    random=random,
  )
  paths = [
    [
      pathlib.Path(os.path.relpath(frame, relative_to)).as_posix()
      for frame in sample.frames
    ]
    for sample in samples
  ]
  paths = [paths[index] for index in random.permutation(len(paths))]
  # The two rounded counts can add up to one too many, e.g. 2 of 3 and 2.
  last_train = round(len(paths) * train_ratio)
  last_val = min(last_train + round(len(paths) * val_ratio), len(paths))
  parts = {
    "train": (train_ratio, paths[:last_train]),
    "validation": (val_ratio, paths[last_train:last_val]),
    "test": (1 - train_ratio - val_ratio, paths[last_val:]),
  }
  content = {
    split: {"ratio": max(round(ratio, 3), 0.0), "samples": chosen}
    for split, (ratio, chosen) in parts.items()
    if chosen
  }
  digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
  return {**content, "id": digest.hexdigest()}


def write(
  data_path: str | os.PathLike, output: str | os.PathLike | None = None, **options
) -> pathlib.Path:
  """Writes the loader JSON of a directory, whole or not at all.

  Args:
    data_path: directory of sample folders.
    output: the file; None makes it <data_path>/<id>_loaders.json.
    **options: those of `make`, without relative_to.

  Returns:
    The file written.

  Raises:
    DataError: as `make`.
  """
  parent = pathlib.Path(data_path if output is None else output)
  parent = parent if output is None else parent.parent
  content = make(data_path, relative_to=parent, **options)
  if output is None:
    output = parent / f"{content['id']}_loaders.json"
  output = pathlib.Path(output)
  files.write_atomically(output, json.dumps(content, indent=4))
  return output


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes a loader JSON; see --help."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.loader_json",
    description="Writes a loader JSON: samples of a directory, in splits.",
  )
  parser.add_argument("--data_path", required=True, help="directory of sample folders")
  parser.add_argument("--train_ratio", type=float, default=0.7)
  parser.add_argument("--val_ratio", type=float, default=0.15)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--num_samples", type=int, default=0, help="samples drawn; 0: all"
  )
  parser.add_argument(
    "--sample_start_index",
    type=int,
    default=0,
    help="first frame of each sample; -1: drawn for each",
  )
  parser.add_argument(
    "--total_length", type=int, default=0, help="frames per sample; 0: all"
  )
  parser.add_argument(
    "--init_final_only",
    action="store_true",
    help="keep only the first and the last of the frames taken",
  )
  parser.add_argument(
    "--reverse", action="store_true", help="list the frames backwards"
  )
  parser.add_argument("--output", help="default: DATA_PATH/<id>_loaders.json")
  options = parser.parse_args(arguments)
  try:
    output = write(
      options.data_path,
      options.output,
      train_ratio=options.train_ratio,
      val_ratio=options.val_ratio,
      num_samples=options.num_samples,
      selection=frame_lists.Selection(
        total_length=options.total_length,
        sample_start_index=options.sample_start_index,
        init_final_only=options.init_final_only,
        reverse=options.reverse,
      ),
      seed=options.seed,
    )
  except DataError as error:
    parser.error(str(error))
  print(output)


if __name__ == "__main__":
  main()
