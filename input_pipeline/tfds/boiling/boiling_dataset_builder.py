"""tensorflow-datasets builder of the simulated boiling plate."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline.errors import DataError
from input_pipeline.simulate import boiling, checks

_DESCRIPTION = """
Simulated boiling plates on a torus. In every frame each cell gives its heat in
equal parts to its 8 neighbours and is heated by a constant increment; a cell
that reaches 212 degrees starts again at 0. Frames are temperatures divided by
212. The initial temperatures are uniform random numbers; the rest follows from
them exactly. The splits are a seeded permutation of the plates.
"""


@dataclasses.dataclass
class BoilingConfig(tfds.core.BuilderConfig):
  """What is simulated; `boiling_config` names it after its values.

  Attributes:
    num_samples: number of plates.
    num_frames: frames of each, the initial one included.
    height: rows of a plate.
    width: columns of a plate.
    increment: heating per frame in degrees.
    simulation_seed: seed of the initial temperatures.
    split_seed: seed of the permutation that deals out the plates.
    fractions: shares of train, validation and test.
  """

  num_samples: int = 100
  num_frames: int = 20
  height: int = 64
  width: int = 64
  increment: float = boiling.DEFAULT_INCREMENT
  simulation_seed: int = 0
  split_seed: int = 0
  fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)


def boiling_config(
  *, image_size: int | tuple[int, int] = 64, **options
) -> BoilingConfig:
  """A config whose name tells its values, so that two never share a folder.

  Args:
    image_size: side of a square plate, or (H, W).
    **options: other attributes of BoilingConfig.

  Returns:
    The config.

  Raises:
    DataError: if an option is unknown or a size out of range.
  """
  height, width = checks.size(image_size)
  known = {field.name for field in dataclasses.fields(BoilingConfig)}
  known -= {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
  known -= {"height", "width"}
  if unknown := sorted(set(options) - known):
    raise DataError(
      f"The boiling builder has no option {', '.join(unknown)}; it has "
      f"{', '.join(sorted(known | {'image_size'}))}. Change "
      "data.builder_options."
    )
  config = BoilingConfig(name="", height=height, width=width, **options)
  config.fractions = tuple(float(share) for share in config.fractions)
  shares = "-".join(repr(share) for share in config.fractions)
  config.name = (
    f"{config.num_samples}x{config.num_frames}x{height}x{width}"
    f"_increment{float(config.increment)!r}_seed{config.simulation_seed}"
    f"_split{config.split_seed}_{shares}"
  )
  return config


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builds the boiling set; its examples keep the order of the plates."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "Initial release."}
  BUILDER_CONFIGS = [boiling_config()]

  def _info(self) -> tfds.core.DatasetInfo:
    """Features: frames [T, H, W, 1] float32, sample_id text."""
    config = self.builder_config
    shape = (config.num_frames, config.height, config.width, 1)
    return tfds.core.DatasetInfo(
      builder=self,
      description=_DESCRIPTION,
      features=tfds.features.FeaturesDict(
        {
          "frames": tfds.features.Tensor(shape=shape, dtype=np.float32),
          "sample_id": tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(variables={boiling.VARIABLE: boiling.ATTRIBUTES}),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    """Deals out the plates: a permutation, cut by cumulated shares."""
    del dl_manager
    config = self.builder_config
    order = np.random.RandomState(config.split_seed).permutation(config.num_samples)
    cuts = [
      round(config.num_samples * float(share)) for share in np.cumsum(config.fractions)
    ]
    parts = np.split(order, cuts)[:3]
    return {
      name: self._generate_examples(np.sort(part))
      for name, part in zip(("train", "validation", "test"), parts, strict=True)
      if len(part)
    }

  def _generate_examples(self, samples: np.ndarray):
    """Yields (number of the plate, its example)."""
    config = self.builder_config
    raw = boiling.initial_conditions(
      config.num_samples, (config.height, config.width), config.simulation_seed
    )
    for sample in samples.tolist():
      frames = boiling.simulate(
        raw[sample : sample + 1], config.num_frames, config.increment
      )
      yield (
        sample,
        {"frames": frames[0, ..., None], "sample_id": boiling.sample_name(sample)},
      )
