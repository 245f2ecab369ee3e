"""SimVP on the boiling plate, 10 frames to 10.

Run:    python -m stjax.main --config=configs/simvp_boiling.py \\
          --workdir=runs/boiling
Expect: 4.4 minutes on 2 CPU cores for 20 epochs, evaluation and pictures; on
        the 15 test plates, convention "openstl": mse 33.7, mae 192,
        ssim .857 (persistence 1055, mean by lead time 198; simvp_minimal's
        small network, its own random plates: 122.4, 504, .297).

A variant is named after a colon: --config=configs/simvp_boiling.py:full
  full  The 46.8 M-parameter network of the simvp_minimal README.
  rule  A network that forecasts one frame, learns the plate's rule and is fed its
        own forecasts: 1.5 minutes, mse 2.87, mae 23.6, ssim .991. (Rounding
        decides which cells boil: with sums in another order it is 1.11, 8.3 and
        .997.)
  tfds  The default network; the same plates are prepared as a
        tensorflow-datasets set.
  tau, convnext, vit, ... (TRANSLATORS)  The default with another translator.
  convlstm, predrnn  A small recurrent network.
The last two rows have a learning rate of 1e-3, which was not tuned.
"""

import ml_collections
from ml_collections import config_dict

from configs import base, simvp

# These take the place of gsta, the default's translator.
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
      path="",  # A data_dir; "" prepares the set in the work directory.
      version="",
      feature="frames",
      id_feature="sample_id",
      variables=(),
      units=(),
    )
    c.data.builder_options = config_dict.create(**plates, split_seed=1)
  else:  # The plates are made on the spot and kept in the work directory.
    c.data.store = "boiling"
    c.data.update(plates)
  c.model = simvp.network(
    spatial_features=8,
    temporal_depth=6,
    mlp_ratio=2.0,
    padding_mode="circular",  # Opposite edges of the plate meet, as on a torus.
  )
  c.global_batch_size = 1
  c.optimizer.learning_rate = 1e-2
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  # The rule is the same in every direction and at every place.
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
  """Makes the model two small layers of ConvLSTM or PredRNN on 4 x 4 patches."""
  c.model = config_dict.create(
    name=name,
    features=32,
    depth=2,
    kernel_size=5,
    patch_size=4,  # H and W must be divisible by it.
    layer_norm=False,
    padding_mode="circular",
    remat=False,  # Computes time steps again in the backward pass, to save memory.
  )
  c.optimizer.learning_rate = 1e-3


def _readme_network(c: ml_collections.ConfigDict) -> None:
  """Makes the model and its training those of the simvp_minimal README."""
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
  """Makes the model a network of one frame, fed its own forecasts ten times.

  It shows how near a forecast can get to the plate's exact rule.
  """
  c.model = config_dict.create(
    name="threshold_rule",
    features=16,
    gates=16,
    kernel_size=3,
    hard=True,
    padding_mode="circular",
  )
  c.data.history = 1  # It learns from every transition of the training plates.
  c.data.horizon = 1
  # It is scored as the others are: frames 10 to 19, from frame 9 on.
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
  c.checkpoint.best_metric = "physical/mse"  # This is after ten steps, not one.
  c.log.every_steps = 100
