"""Decaying two-dimensional turbulence, one frame to the next, fed back.

Run:    python -m stjax.main --config=configs/turbulence.py:triton \\
          --workdir=runs/triton

Variants: triton, simvp, fno, unet (that with strides), at an equal budget: the
same trajectories (Reynolds number 1000, 64 x 64, simulated on the spot in a
minute), batches, number of steps, optimiser and schedule, and networks of
about the same time per step.
"""

import ml_collections

from configs import base, simvp

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
        f"configs/turbulence.py has no variant {variant!r}; it has"
        f" {', '.join(VARIANTS)}."
    )
  c = base.get_config()
  c.num_epochs = 5.0
  c.global_batch_size = 8
  if variant == "simvp":
    c.model = simvp.network(
        spatial_features=16, temporal_features=32, padding_mode="circular"
    )
  else:
    name = {"unet": "unet_strided"}.get(variant, variant)
    c.model = ml_collections.ConfigDict({"name": name} | _NETWORKS[variant])
  c.data.store = "navier_stokes"
  c.data.update(
      num_samples=60,
      num_frames=100,
      image_size=64,
      grid=0,
      downsample="spectral",
      variables=("vorticity",),
      frame_spacing=0.055,
      time_step=0.0055,
      spin_up=4.5,
      viscosity=1e-3,
      drag=0.0,
      forcing_wavenumber=0,
      forcing_amplitude=1.0,
      peak_wavenumber=4.0,
      initial_tau=1.0,
      initial_max_speed=0.0,
      precision="float32",
      simulation_seed=0,
      group=0,
      history=1,
      horizon=1,
  )
  c.data.split.by = "sample"
  c.data.split.fractions = (0.8, 0.1, 0.1)
  c.optimizer.learning_rate = 1e-3
  c.optimizer.schedule.name = "cosine"
  c.optimizer.clip_norm = 1.0
  for section in (c.evaluation, c.forecast):
    section.horizon = 99
  return c
