"""SimVP on sample folders of 0.npy, 1.npy, ... or of images, or on a loader JSON file.

Run:    python -m stjax.main --config=configs/simvp_folders.py \\
          --config.data.path=FOLDER_OR_JSON --workdir=runs/folders
"""

import ml_collections

from configs import base, simvp


def get_config() -> ml_collections.ConfigDict:
  c = base.get_config()
  c.num_epochs = 20.0
  c.global_batch_size = 8
  c.model = simvp.network()
  c.data.store = "folders"
  c.data.split.by = "sample"
  c.data.update(
    path="",
    total_length=0,  # How many frames of each sample are taken; 0 takes all.
    sample_start_index=0,  # The first frame that is taken; -1 draws it at random.
    init_final_only=False,  # Take only the first and the last frame.
    reverse=False,  # Take the frames in reverse order.
    num_samples=0,  # How many samples are taken; 0 takes all.
    selection_seed=0,  # The seed of everything that is drawn at random.
    variables=(),
    units=(),
    layout="",  # The axes of arrays [.., .., ..]: "CHW" (also where it is "") or "HWC".
  )
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  return c
