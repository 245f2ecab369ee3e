"""SimVP on two-dimensional turbulence, simulated on the spot.

Run:    python -m stjax.main --config=configs/simvp_navier_stokes.py \\
          --workdir=runs/flow

A variant is named after a colon: --config=configs/simvp_navier_stokes.py:kolmogorov
  default     Decaying turbulence at Reynolds number 1000 on 64 x 64 points, 10
              frames to 10. A trajectory is simulated in 1 s on 2 CPU cores.
  kolmogorov  Turbulence that a force of wave number 4 keeps going. It is
              simulated on 128 x 128 points and shown on 64 x 64, 10 frames to
              10. A trajectory takes 25 s on 2 CPU cores.
  re5000      Decaying turbulence at Reynolds number 5000, simulated on 512 x
              512 points and interpolated to 128 x 128. The network forecasts
              one frame from one; for the scores it is fed its own forecasts for
              99 steps. The 1280 trajectories follow torch-cfd's recipe. This
              variant needs a GPU.
"""

import ml_collections

from configs import base, simvp

VARIANTS = ("default", "kolmogorov", "re5000")


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/simvp_navier_stokes.py has no variant {variant!r}; it has"
      f" {', '.join(VARIANTS)}."
    )
  c = base.get_config()
  c.num_epochs = 20.0
  c.global_batch_size = 4
  c.model = simvp.network(padding_mode="circular")  # The box is periodic.
  c.data.store = "navier_stokes"
  c.data.update(
    num_samples=100,
    num_frames=40,  # Each trajectory has 21 windows of 10 + 10 frames.
    image_size=64,
    grid=0,  # Points of the simulation along each side; 0 takes image_size.
    downsample="spectral",  # Or "bilinear".
    variables=("vorticity",),  # "u" and "v" can be added.
    frame_spacing=0.1,
    time_step=0.01,  # The longest step; a flow that is too fast for it is refused.
    spin_up=4.5,
    viscosity=1e-3,
    drag=0.0,
    forcing_wavenumber=0,  # 0 means no force.
    forcing_amplitude=1.0,
    peak_wavenumber=4.0,  # The peak of the spectrum of the initial flow.
    initial_tau=1.0,
    initial_max_speed=0.0,  # 0 scales to a mean kinetic energy of 1/4 instead.
    precision="float32",  # Or "float64".
    simulation_seed=0,
    # Trajectories that are simulated together; 0 takes as many as fit in 256 MiB.
    group=0,
  )
  c.data.split.by = "sample"
  # No place is special. Flips would need vorticity of the other sign.
  c.data.augment = ("roll_h", "roll_w")
  c.optimizer.learning_rate = 1e-3
  c.optimizer.clip_norm = 1.0
  c.optimizer.schedule.name = "one_cycle"
  if variant == "kolmogorov":
    c.data.update(
      num_frames=48,
      grid=128,
      frame_spacing=0.25,
      time_step=0.25 / 72,
      spin_up=12.0,
      viscosity=2e-3,
      drag=0.1,
      forcing_wavenumber=4,
      initial_max_speed=7.0,
    )
    c.data.augment = ("roll_w",)  # The force varies along y.
  if variant == "re5000":
    c.data.update(
      num_samples=1280,
      num_frames=100,
      image_size=128,
      grid=512,
      downsample="bilinear",
      frame_spacing=0.055,
      time_step=5e-4,
      viscosity=2e-4,
      group=64,
      history=1,
      horizon=1,
    )
    c.data.split.fractions = (0.8, 0.1, 0.1)
    for section in (c.evaluation, c.forecast):
      section.horizon = 99
  return c
