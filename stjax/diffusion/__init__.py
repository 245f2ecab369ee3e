"""Diffusion: schedules, parameterisations, samplers, guidance, preferences.

Functions of arrays: no network, no config object, no PRNG key. Steps are
0 ... N-1; at step t, with A_t = prod_{s <= t} (1 - beta_s),

    x_t = signal x0 + sigma noise,  signal = sqrt(A_t), sigma = sqrt(1 - A_t).

    schedule = diffusion.build_schedule("quadratic", 50, 1e-4, 0.5)
    x = diffusion.sample("ddim", predict, schedule, start, draw, num_steps=10)
"""

from stjax.diffusion import guidance, parameterisations, preference, samplers, schedules
from stjax.diffusion.guidance import guided, pull_towards
from stjax.diffusion.parameterisations import (
  KINDS,
  epsilon_factor,
  target,
  to_x0_and_noise,
)
from stjax.diffusion.samplers import SAMPLERS, sample
from stjax.diffusion.schedules import SCHEDULES, NoiseSchedule
from stjax.diffusion.schedules import build as build_schedule

__all__ = (
  "KINDS",
  "SAMPLERS",
  "SCHEDULES",
  "NoiseSchedule",
  "guidance",
  "guided",
  "build_schedule",
  "epsilon_factor",
  "parameterisations",
  "preference",
  "pull_towards",
  "sample",
  "samplers",
  "schedules",
  "target",
  "to_x0_and_noise",
)
