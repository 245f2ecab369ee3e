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
    spacing: which steps are visited; see `stjax.diffusion.samplers.kept_steps`.
    clip_x0: (lowest, highest) value of the clean field that a step predicts,
      normalised; () bounds nothing.
    guidance: scale of classifier-free guidance; 1: none.
    temperature: factor on all the noise that is drawn. The spread of Gaussian
      samples changes by this factor, their mean does not.
    member_chunk: members made at the same time; 0: as many as
      memory (on a CPU, its cache) allows.
    guidance_strength: how far each step is pulled towards the batch's own targets;
      0: not at all. It makes candidates for training; a forecast does not know its
      targets, so that no config has this option.
    reward: how method "self_training" chooses among the futures of its world model
      when it forecasts: a reward that needs no truth (`stjax.metrics.rewards`); "":
      it forecasts without them.
    guidance_norm: "example", or "batch" for one distance of all examples to their
      targets; see `stjax.diffusion.pull_towards`.

  Raises:
    ConfigError: an unknown name, or a number out of its range.
  """

  name: str = "ddpm"
  steps: int = 0
  eta: float = 0.0
  spacing: str = "ends"
  clip_x0: tuple[float, ...] = ()
  guidance: float = 1.0
  temperature: float = 1.0
  member_chunk: int = 0
  guidance_strength: float = 0.0
  guidance_norm: str = "example"
  reward: str = ""

  def __post_init__(self):
    # A list, as a config has it, could not be compared and hashed.
    object.__setattr__(self, "clip_x0", tuple(self.clip_x0))
    samplers = dict.fromkeys(diffusion.samplers.SAMPLERS)
    errors.pick("forecast.sampler.name", self.name, samplers)
    norms = dict.fromkeys(("example", "batch"))
    errors.pick("guidance_norm", self.guidance_norm, norms)
    # Written so that NaN fails too.
    if self.clip_x0 and not (
      len(self.clip_x0) == 2 and self.clip_x0[0] < self.clip_x0[1]
    ):
      raise errors.ConfigError(
        f"forecast.sampler.clip_x0={tuple(self.clip_x0)} must be (lowest, highest)"
        " value, or ()."
      )
    if not 0 <= self.guidance_strength < float("inf"):
      raise errors.ConfigError(
        f"guidance_strength={self.guidance_strength} must be 0 or more."
      )
    if not 0 < self.temperature < float("inf"):
      raise errors.ConfigError(
        f"forecast.sampler.temperature={self.temperature} must be above 0;"
        " 1 draws as was trained."
      )
    if not abs(self.guidance) < float("inf"):
      raise errors.ConfigError(
        f"forecast.sampler.guidance={self.guidance} must be a number; 1 is no guidance."
      )
