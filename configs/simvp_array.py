"""SimVP on one .npy or .npz array.

Run:    python -m stjax.main --config=configs/simvp_array.py \\
          --config.data.path=FILE.npz --config.data.key=frames \\
          --config.data.layout=NTHW --workdir=runs/array
"""

import ml_collections

from configs import base, simvp


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.num_epochs = 20.0
  c.global_batch_size = 8
  c.model = simvp.network()
  c.data.store = "array"
  c.data.missing = "mask"
  c.data.update(
    path="",  # One file, or several with one sequence each: "a.npy,b.npy".
    key="",  # The name of the array in an .npz file that has several.
    layout="",  # Its axes in order; N is for samples: "THW", "NTHWC", ...
    variables=(),  # Names of the channels.
    units=(),
    step="",  # The time between frames, such as "5 min"; "" if unknown.
    first_time="",  # The date of the first frame, one for each file.
  )
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  return c
