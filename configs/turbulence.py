"""Four networks on decaying two-dimensional turbulence, for rollouts of 99 steps.

Run:    python -m stjax.main --config=configs/turbulence.py:triton \\
          --workdir=runs/triton

Expect: the last table of docs/triton.md.

Variants: triton, simvp, fno, unet (the one with strides). Each network learns to
forecast one frame from one. The budgets are equal: the same trajectories
(Reynolds number 1000, 64 x 64 points, simulated on the spot in a minute), batches,
number of steps, optimiser and schedule, and about the same time per step.
"""

import ml_collections

from configs import simvp_navier_stokes

VARIANTS = ("triton", "simvp", "fno", "unet")
_NETWORKS = {
  "triton": dict(
    spatial_features=16,
    temporal_features=64,
    spatial_depth=4,
    temporal_depth=4,
    core_first="attention",
    drop_path=0.0,
    padding_mode="circular",
  ),
  "fno": dict(features=32, modes_h=16, modes_w=9, depth=4),
  "unet": dict(features=56, depth=4, dropout=0.0, padding_mode="circular"),
}


def get_config(variant: str = "triton") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/turbulence.py has no variant {variant!r}; it has {', '.join(VARIANTS)}."
    )
  c = simvp_navier_stokes.get_config()
  c.num_epochs = 5.0
  c.global_batch_size = 8
  if variant == "simvp":
    c.model.temporal_features = 32
  else:
    name = {"unet": "unet_strided"}.get(variant, variant)
    c.model = ml_collections.ConfigDict({"name": name} | _NETWORKS[variant])
  c.data.update(
    num_samples=60,
    num_frames=100,
    frame_spacing=0.055,
    time_step=0.0055,
    augment=(),
    history=1,
    horizon=1,
  )
  c.data.split.fractions = (0.8, 0.1, 0.1)
  c.optimizer.schedule.name = "cosine"
  c.evaluation.update(
    batch_size=2,
    conventions=("physical", "spectral"),
    baselines=("persistence",),
    figures=2,
  )
  for section in (c.evaluation, c.forecast):
    section.horizon = 99
  return c
