"""SimVP on the boiling plate."""

import ml_collections
from ml_collections import config_dict

from configs import base


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
  c = base.get_config()
  c.num_epochs = 20.0
  c.global_batch_size = 8
  c.model = config_dict.create(
      name="simvp",
      translator="gsta",
      spatial_features=16,
      temporal_features=64,
      spatial_depth=2,
      temporal_depth=4,
      mlp_ratio=4.0,
      dropout=0.0,
      drop_path=0.0,
      encoder_kernel=3,
      decoder_kernel=3,
      padding_mode="zeros",
      remat=False,
  )
  c.data.store = "boiling"
  c.data.update(
      num_samples=100,
      num_frames=20,
      image_size=64,
      increment=10.0,
      simulation_seed=0,
      normalise="none",
  )
  c.data.split.update(by="sample", seed=1)
  c.optimizer.learning_rate = 1e-3
  c.optimizer.schedule.name = "one_cycle"
  c.evaluation.conventions = ("openstl", "physical")
  c.evaluation.data_range = 1.0
  return c
