"""SimVP on two-dimensional turbulence, simulated on the spot.

Run:    python -m stjax.main --config=configs/simvp_navier_stokes.py \\
          --workdir=runs/flow

Variants, as in --config=configs/simvp_navier_stokes.py:kolmogorov
  default     decaying, Reynolds number 1000, 64 x 64, 10 frames to 10. Its
              simulation takes 1 s a trajectory on 2 CPU cores.
  kolmogorov  kept going by a force of wave number 4: 128 x 128, shown as
              64 x 64, 10 frames to 10. Its simulation takes 25 s a trajectory
              on 2 CPU cores.
  re5000      decaying, Reynolds number 5000: 512 x 512, interpolated to 128 x
              128, one frame to the next, fed back 99 times when scored; 1280
              trajectories as in torch-cfd's recipe. Wants a GPU.
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
    num_frames=40,  # 21 windows of 10 + 10 in each trajectory.
    image_size=64,
    grid=0,  # Of the simulation; 0: image_size.
    downsample="spectral",  # Or "bilinear".
    variables=("vorticity",),  # And "u", "v".
    frame_spacing=0.1,
    time_step=0.01,  # The longest; a flow too fast for it is refused.
    spin_up=4.5,
    viscosity=1e-3,
    drag=0.0,
    forcing_wavenumber=0,  # 0: no force.
    forcing_amplitude=1.0,
    peak_wavenumber=4.0,  # Of the initial flow,
    initial_tau=1.0,
    initial_max_speed=0.0,  # 0: a mean kinetic energy of 1/4.
    precision="float32",  # Or "float64".
    simulation_seed=0,
    group=0,  # Trajectories at the same time; 0: as many as 256 MiB hold.
  )
  c.data.split.by = "sample"
  # No place is special. Mirrored flows would need the other sign.
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
