"""A boiling plate: a local, exact, deterministic rule on a torus.

Every cell gives its heat in equal parts to its 8 neighbours, the plate is
heated by a constant increment, and a cell that reaches the boiling point of
212 degrees starts again at 0:

  x'[i, j] = (sum over the 8 neighbours of x / 8 + increment) mod 212

All arithmetic is float32 and the order of the additions is part of the rule,
so that the frames are the same, bit for bit, on every machine. The rule, its
order and the folder layout are those of the boiling data of simvp_minimal
(CCU-LANL-AIML, tools/data/generate_boiling_data.py).

Command line, which writes one folder of 0.npy, 1.npy, ... per sample:

  python -m input_pipeline.simulate.boiling --path DIR --num_samples 100
"""

import argparse
import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from input_pipeline import files
from input_pipeline.errors import DataError
from input_pipeline.simulate import checks

BOILING_POINT = 212.0
DEFAULT_INCREMENT = 10.0
# The one channel of the frames, for every reader of them.
VARIABLE = "temperature"
ATTRIBUTES = {
  "units": "1",
  "long_name": "temperature divided by the boiling point of 212 degrees",
}

# Samples simulated at once by the command line: bounds the memory it needs.
_CHUNK = 256
# The order of the additions; (0, 0) is absent since no cell keeps its heat.
_NEIGHBOURS = tuple(
  (rows, columns)
  for rows in (-1, 0, 1)
  for columns in (-1, 0, 1)
  if (rows, columns) != (0, 0)
)


def initial_conditions(
  num_samples: int, image_size: int | Sequence[int] = 64, seed: int = 0
) -> np.ndarray:
  """Draws initial temperatures, uniform in [0, 212), from a seed.

  Sample k of a seed is the same for every num_samples > k. The stream is
  numpy's legacy generator, which is frozen by numpy's compatibility policy.

  Args:
    num_samples: number of samples N, at least 1.
    image_size: side of a square plate, or (H, W); each at least 2.
    seed: seed of the stream, 0 <= seed < 2**32.

  Returns:
    [N, H, W] float32 temperatures in degrees.

  Raises:
    DataError: if a size, the number of samples or the seed is out of range.
  """
  height, width = checks.size(image_size)
  _check_count("num_samples", num_samples, 1)
  stream = _stream(seed)
  raw = np.empty((num_samples, height, width), np.float32)
  for sample in raw:
    sample[...] = stream.uniform(0.0, BOILING_POINT, (height, width))
  return raw


def simulate(
  initial_raw: np.ndarray, num_frames: int, increment: float = DEFAULT_INCREMENT
) -> np.ndarray:
  """Applies the rule num_frames - 1 times to every sample.

  Args:
    initial_raw: [N, H, W] temperatures in degrees, in [0, 212]; taken as
      float32. H and W are at least 2.
    num_frames: number of frames F, the initial one included, at least 1.
    increment: heating per frame in degrees, finite and not negative.

  Returns:
    [N, F, H, W] float32, degrees divided by 212; frame 0 is the initial one.

  Raises:
    DataError: if the shape, a value, the number of frames or the increment is
      out of range.
  """
  state = np.asarray(initial_raw, np.float32)
  if state.ndim != 3 or state.shape[0] < 1:
    raise DataError(
      "initial_raw must have the axes [sample, height, width] with at least "
      f"one sample, but its shape is {state.shape}."
    )
  checks.size(state.shape[1:])
  _check_count("num_frames", num_frames, 1)
  if not (np.isfinite(increment) and increment >= 0):
    raise DataError(
      f"increment must be finite and at least 0 degrees, but is {increment}."
    )
  # 212 itself is allowed: rounding to float32 can reach it.
  if not (state.min() >= 0 and state.max() <= BOILING_POINT):
    raise DataError(
      "initial_raw must lie within 0 and 212 degrees and hold no NaN, but "
      f"its values go from {state.min()} to {state.max()}; give temperatures "
      "in degrees, not normalised frames."
    )

  boiling_point = np.float32(BOILING_POINT)
  heating = np.float32(increment)
  frames = np.empty((len(state), num_frames) + state.shape[1:], np.float32)
  frames[:, 0] = state
  for frame in range(1, num_frames):
    given = state * np.float32(0.125)
    received = np.zeros_like(state)
    for shift in _NEIGHBOURS:
      received += np.roll(given, shift, axis=(1, 2))
    state = np.mod(received + heating, boiling_point)
    frames[:, frame] = state
  frames /= boiling_point
  return frames


def sample_name(number: int) -> str:
  """The name of a plate, by its number in the stream of its seed."""
  return f"boiling_{number}"


def write_samples(
  path: str | os.PathLike,
  *,
  num_samples: int,
  num_frames: int,
  image_size: int | Sequence[int] = 64,
  increment: float = DEFAULT_INCREMENT,
  seed: int = 0,
) -> tuple[int, int]:
  """Writes samples as folders of 0.npy, 1.npy, ...

  Sample k goes into the folder "<sha256>_boiling_<k>", the hash being that of
  its initial temperatures (float32, little endian, row by row). Every file is
  a [1, H, W] float32 frame divided by 212. A folder appears only once it is
  complete. Folders that are there already are kept, so a second run with more
  samples, or with another seed, adds to the directory; a folder that holds
  nothing but an initial frame in degrees is finished.

  Args:
    path: the directory; made when absent.
    num_samples: number of samples of this seed.
    num_frames: frames per sample, the initial one included.
    image_size: side of a square plate, or (H, W).
    increment: heating per frame in degrees.
    seed: seed of the initial temperatures.

  Returns:
    (number of folders written, number of folders kept as they were).

  Raises:
    DataError: if an argument is out of range, or if a folder of that name
      holds frames of another length or of another increment.
  """
  directory = pathlib.Path(path)
  height, width = checks.size(image_size)
  _check_count("num_samples", num_samples, 1)
  stream = _stream(seed)
  directory.mkdir(parents=True, exist_ok=True)
  written = 0
  for first in range(0, num_samples, _CHUNK):
    count = min(_CHUNK, num_samples - first)
    raw = stream.uniform(0.0, BOILING_POINT, (count, height, width)).astype(np.float32)
    frames = simulate(raw, num_frames, increment)
    for index in range(count):
      folder = directory / (f"{_digest(raw[index])}_{sample_name(first + index)}")
      if _is_finished(folder, frames[index]):
        continue
      _write_folder(folder, frames[index])
      written += 1
  return written, num_samples - written


def _stream(seed: int) -> np.random.RandomState:
  """The legacy generator of a seed."""
  if not 0 <= seed < 2**32:
    raise DataError(f"seed must be in [0, 2**32), but is {seed}.")
  return np.random.RandomState(seed)


def _check_count(name: str, value: int, lowest: int) -> None:
  if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
    raise DataError(f"{name} must be a whole number, but is {value!r}.")
  if value < lowest:
    raise DataError(f"{name} must be at least {lowest}, but is {value}.")


def _digest(raw: np.ndarray) -> str:
  return hashlib.sha256(raw.astype("<f4").tobytes()).hexdigest()


def _is_finished(folder: pathlib.Path, frames: np.ndarray) -> bool:
  """Whether a folder holds these frames; raises when it holds others."""
  files = sorted(folder.glob("*.npy"))
  if not files:
    return False
  if len(files) == 1 and len(frames) > 1:
    return False  # An initial frame whose simulation was never run.
  if len(files) != len(frames):
    raise DataError(
      f"{folder} holds {len(files)} frames, but --num_frames is "
      f"{len(frames)}. Choose another --path or remove the folder."
    )
  last = np.load(folder / f"{len(frames) - 1}.npy", allow_pickle=False)
  if not np.array_equal(last.reshape(frames[-1].shape), frames[-1]):
    raise DataError(
      f"{folder} holds frames made with another --increment. Choose another "
      "--path or remove the folder."
    )
  return True


def _write_folder(folder: pathlib.Path, frames: np.ndarray) -> None:
  """Writes a sample beside its place and moves it there in one go."""
  with files.replacing(folder) as partial:
    partial.mkdir()
    for number, frame in enumerate(frames):
      np.save(partial / f"{number}.npy", frame[None])


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes boiling samples; see --help."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.simulate.boiling",
    description="Writes samples of the boiling plate as folders of frames.",
  )
  parser.add_argument("--path", required=True, help="directory to write to")
  parser.add_argument("--num_samples", type=int, default=100)
  parser.add_argument("--num_frames", type=int, default=20)
  parser.add_argument(
    "--image_size",
    type=int,
    nargs="+",
    default=[64],
    metavar="SIZE",
    help="side of a square plate, or height and width (default 64)",
  )
  parser.add_argument(
    "--increment",
    type=float,
    default=DEFAULT_INCREMENT,
    help="heating per frame in degrees (default 10)",
  )
  parser.add_argument(
    "--seed", type=int, default=0, help="seed of the initial temperatures"
  )
  options = parser.parse_args(arguments)
  try:
    written, kept = write_samples(
      options.path,
      num_samples=options.num_samples,
      num_frames=options.num_frames,
      image_size=options.image_size,
      increment=options.increment,
      seed=options.seed,
    )
  except DataError as error:
    parser.error(str(error))
  print(f"{options.path}: {written} samples written, {kept} were there.")


if __name__ == "__main__":
  main()
