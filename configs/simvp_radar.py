"""SimVP on a public radar archive: SEVIR, HKO-7 or MeteoNet.

Frames are 10 minutes apart (12 for HKO-7), on 128 x 128 cells and scaled to 0 ... 1;
one hour of them is given and three are forecast. docs/data.md says which files are
expected, and how cells without observation are treated.

Run:    python -m stjax.main --config=configs/simvp_radar.py:sevir \\
          --config.data.path=SEVIR --workdir=runs/sevir
        python -m stjax.main --config=configs/simvp_radar.py:hko7 \\
          --config.data.path=HKO-7/radarPNG \\
          --config.data.exclude_mask=HKO-7/mask_dat.npz \\
          --config.data.train_list=hko7_rainy_train_days.txt \\
          --config.data.validation_list=hko7_rainy_valid_days.txt \\
          --config.data.test_list=hko7_rainy_test_days.txt --workdir=runs/hko7
        python -m stjax.main --config=configs/simvp_radar.py:meteonet \\
          --config.data.path=MeteoNet --workdir=runs/meteonet \\
          --config.data.split.boundaries="('2018-01-01','2018-06-01')"
"""

import ml_collections

from configs import base, simvp
from input_pipeline import options

VARIANTS = ("sevir", "hko7", "meteonet")


def get_config(variant: str = "sevir") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/simvp_radar.py has no variant {variant!r}; it has "
      f"{', '.join(VARIANTS)}."
    )
  c = base.get_config()
  c.num_epochs = 20.0
  c.global_batch_size = 8
  c.model = simvp.network()
  c.data.store = variant
  c.data.update(options.store_defaults(variant))
  c.data.history = 6
  c.data.horizon = 18
  c.data.missing = "mask"
  c.data.normalise = "fixed"
  c.data.resample.every = 2
  c.data.resample.size = (128, 128)
  if variant == "sevir":
    c.data.resample.first = 1
    c.data.scale = (255.0,)
  elif variant == "hko7":
    c.data.history = 5
    c.data.horizon = 15
    c.data.scale = (255.0,)
    c.data.resample.rounding = "uint8"
  else:
    c.data.product = "reflectivity_old"
    c.data.scale = (70.0,)
    c.data.resample.crop = (0, 400, 0, 400)
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  return c
