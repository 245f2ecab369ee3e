"""SimVP on the boiling plate, 10 frames to 10.

Run:    python -m stjax.main --config=configs/simvp_boiling.py \\
          --workdir=runs/boiling
Expect: 4.4 minutes on 2 CPU cores for 20 epochs, evaluation and pictures; on
        the 15 test plates, convention "openstl": mse 33.7, mae 192,
        ssim .857 (persistence 1055, mean by lead time 198; simvp_minimal's
        small network, its own random plates: 122.4, 504, .297).

Variants, as in --config=configs/simvp_boiling.py:full
  full  the 46.8 M-parameter network of the simvp_minimal README.
  rule  a one-frame network that learns the plate's rule and is fed back:
        1.5 minutes, mse 2.87, mae 23.6, ssim .991 (rounding decides which
        cells boil: 1.11, 8.3, .997 with sums in another order).
  tfds  the default, its plates prepared as a tensorflow-datasets set.
  tau, convnext, vit, ... (TRANSLATORS)  the default with another translator.
  convlstm, predrnn  a small recurrent network.
The last two rows have a learning rate of 1e-3, not tuned.
"""

import ml_collections
from ml_collections import config_dict

from configs import base, simvp

# Translators in the place of the default's, gsta; SimVP's other options stay.
TRANSLATORS = (
  "convmixer",
  "convnext",
  "hornet",
  "incepu",
  "mlpmixer",
  "moganet",
  "poolformer",
  "swin",
  "tau",
  "uniformer",
  "van",
  "vit",
)
RECURRENT = ("convlstm", "predrnn")
VARIANTS = ("default", "full", "rule", "tfds", *TRANSLATORS, *RECURRENT)


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/simvp_boiling.py has no variant {variant!r}; it has"
      f" {', '.join(VARIANTS)}."
    )
  c = base.get_config()
  c.num_epochs = 20.0
  plates = dict(
    num_samples=100, num_frames=20, image_size=64, increment=10.0, simulation_seed=0
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
  if variant in TRANSLATORS:
    c.model.translator = variant
    c.optimizer.learning_rate = 1e-3
  if variant in RECURRENT:
    _recurrent(c, variant)
  if variant == "full":
    _readme_network(c)
  if variant == "rule":
    _one_frame_rule(c)
  return c


def _recurrent(c: ml_collections.ConfigDict, name: str) -> None:
  """Two small layers of ConvLSTM or PredRNN on patches of 4 x 4 cells."""
  c.model = config_dict.create(
    name=name,
    features=32,
    depth=2,
    kernel_size=5,
    patch_size=4,  # Divides H and W.
    layer_norm=False,
    padding_mode="circular",
    remat=False,  # Recompute time steps in the backward pass: less memory.
  )
  c.optimizer.learning_rate = 1e-3


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
