"""How a method that draws at random makes its forecasts."""

import dataclasses

from stjax import diffusion, errors


@dataclasses.dataclass(frozen=True)
class Sampling:
  """The options of forecast.sampler, and forecast.member_chunk.

  Attributes:
    name: the sampler; see `stjax.diffusion.samplers`.
    steps: steps per member, each one network call (two of "heun"); 0: those
      of the schedule.
    eta: DDIM's share of fresh noise, 0 (none) to 1.
    guidance: scale of classifier-free guidance; 1: none.
    temperature: factor on all the noise that is drawn. The spread of Gaussian
      samples changes by this factor, their mean does not.
    member_chunk: members made at the same time; 0: as many as
      memory (on a CPU, its cache) allows.

  Raises:
    ConfigError: an unknown sampler, or a number out of its range.
  """

  name: str = "ddpm"
  steps: int = 0
  eta: float = 0.0
  guidance: float = 1.0
  temperature: float = 1.0
  member_chunk: int = 0

  def __post_init__(self):
    samplers = dict.fromkeys(diffusion.samplers.SAMPLERS)
    errors.pick("forecast.sampler.name", self.name, samplers)
    # Written so that NaN fails too.
    if not 0 < self.temperature < float("inf"):
      raise errors.ConfigError(
        f"forecast.sampler.temperature={self.temperature} must be above 0;"
        " 1 draws as was trained."
      )
    if not abs(self.guidance) < float("inf"):
      raise errors.ConfigError(
        f"forecast.sampler.guidance={self.guidance} must be a number; 1 is no guidance."
      )
