"""SimVP on the boiling plate."""

import ml_collections
from ml_collections import config_dict

from configs import base
from configs import simvp

VARIANTS = ("default", "full", "rule", "tfds")


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
        f"configs/simvp_boiling.py has no variant {variant!r}; it has"
        f" {', '.join(VARIANTS)}."
    )
  c = base.get_config()
  c.num_epochs = 20.0
  plates = dict(
      num_samples=100,
      num_frames=20,
      image_size=64,
      increment=10.0,
      simulation_seed=0,
  )
  c.data.split.update(by="sample", seed=1)
  if variant == "tfds":  # The same plates, prepared once as ArrayRecord.
    c.data.store = "tfds"
    c.data.update(
        builder="boiling",
        path="",  # A data_dir; "": prepared in the work directory.
        version="",
        feature="frames",
        id_feature="sample_id",
        variables=(),
        units=(),
    )
    c.data.builder_options = config_dict.create(**plates, split_seed=1)
  else:  # Made on the spot, kept in the work directory.
    c.data.store = "boiling"
    c.data.update(plates)
  c.model = simvp.network(
      spatial_features=8,
      temporal_depth=6,
      mlp_ratio=2.0,
      padding_mode="circular",  # The plate's edges meet: a torus.
  )
  c.global_batch_size = 1
  c.optimizer.learning_rate = 1e-2
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  # The rule knows no direction and no place.
  c.data.augment = ("flip_h", "flip_w", "transpose", "roll_h", "roll_w")
  c.evaluation.conventions = ("openstl", "physical")
  c.evaluation.data_range = 1.0
  if variant == "full":
    _readme_network(c)
  if variant == "rule":
    _one_frame_rule(c)
  return c


def _readme_network(c: ml_collections.ConfigDict) -> None:
  """The 46.8 M-parameter network of the simvp_minimal README, as it was."""
  c.model.update(
      spatial_features=64,
      temporal_features=512,
      spatial_depth=4,
      temporal_depth=8,
      mlp_ratio=8.0,
      padding_mode="zeros",
  )
  c.global_batch_size = 8
  c.data.normalise = "none"
  c.data.augment = ()
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 0.0


def _one_frame_rule(c: ml_collections.ConfigDict) -> None:
  """One frame to the next, fed back ten times: how near can one get?"""
  c.model = config_dict.create(
      name="threshold_rule",
      features=16,
      gates=16,
      kernel_size=3,
      hard=True,
      padding_mode="circular",
  )
  c.data.history = 1  # Every transition of the training plates.
  c.data.horizon = 1
  # Scored like the others: frames 10 to 19, from frame 9.
  for section in (c.evaluation, c.forecast):
    section.history = 10
    section.horizon = 10
  c.optimizer.learning_rate = 3e-2
  c.optimizer.schedule.update(
      name="multistep",
      per="epoch",
      milestones=tuple(float(epoch) for epoch in range(8, 20)),
      decay_rate=0.5,
  )
  c.checkpoint.best_metric = "physical/mse"  # After ten steps, not one.
  c.log.every_steps = 100
