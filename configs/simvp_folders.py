"""SimVP on sample folders of 0.npy, 1.npy, ..., or on a loader JSON file.

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
    total_length=0,  # Frames taken of each sample; 0: all.
    sample_start_index=0,  # The first of them; -1: drawn.
    init_final_only=False,  # The first and the last frame only.
    reverse=False,
    num_samples=0,  # 0: all.
    selection_seed=0,  # Of what is drawn.
    variables=(),
    units=(),
  )
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  return c
