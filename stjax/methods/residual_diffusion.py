"""Residual diffusion: a frozen mean and a diffusion model of what it misses.

Source: CoST (arXiv 2502.11013): a deterministic mean, a conditional diffusion
of the residual, and a prior z = +-q that tells where fluctuations are large.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stjax import diffusion, errors
from stjax.methods import base, regression, residual

PyTree = Any
SCALES = ("signal", "residual", "validation_residual", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualDiffusion(residual.Residual):
  """Diffuses r = y - mean, shifted by a prior z that the denoiser is given.

  With A_t the schedule's alpha_bar, z = q s, s = +-1 drawn for every example,
  lead time and point,

      r_t = sqrt(A_t) r + (1 - sqrt(A_t)) z + sqrt(1 - A_t) noise,

  an ordinary diffusion of x = r - z, whose terminal law for r is N(z, 1).

  Attributes:
    network: any denoiser; see `stjax.models`.
    mean_only: the mean alone is the forecast, and nothing is trained.
    scale: what q is: "signal", the training series without its strongest
      frequencies (CoST); "residual", "validation_residual", the spread of
      y - mean over that split by lead time; "none", z = 0.
    scale_threshold: "signal": share of a node's strongest frequency above
      which a frequency counts as regular.
    schedule: noise schedule; see `stjax.diffusion`.
    num_steps: steps N of the schedule.
    beta_start: first beta.
    beta_end: last beta.
    prediction: what the network predicts: "epsilon", "x0" or "v".
    condition_dropout: share of examples trained without their history, for
      classifier-free guidance.
    sampling: how forecasts are drawn.
  """

  network: Any = None
  mean_only: bool = False
  scale: str = "signal"
  scale_threshold: float = 0.1
  schedule: str = "quadratic"
  num_steps: int = 50
  beta_start: float = 1e-4
  beta_end: float = 0.5
  prediction: str = "epsilon"
  condition_dropout: float = 0.0
  sampling: base.Sampling = base.Sampling()

  def __post_init__(self):
    super().__post_init__()
    pick = errors.pick
    pick("method.scale", self.scale, dict.fromkeys(SCALES))
    pick("method.prediction", self.prediction, dict.fromkeys(diffusion.KINDS))
    if not 0.0 <= self.condition_dropout < 1.0:
      raise errors.ConfigError(
        f"method.condition_dropout={self.condition_dropout} must be in [0, 1)."
      )
    if not self.mean_only and self.network is None:
      raise errors.ConfigError(
        "model.name='none', but method 'residual_diffusion' needs a"
        " denoiser, such as 'stid_denoiser' or 'unet_denoiser'."
      )
    if self.trainable:
      self._check_denoiser()

  def _check_denoiser(self):
    regression.check_kind("model", self.network, True)
    if self._schedule.num_steps > getattr(self.network, "num_steps", self.num_steps):
      raise errors.ConfigError(
        f"method.num_steps={self.num_steps} is more than the"
        f" model.num_steps={self.network.num_steps} that the denoiser has"
        " embeddings for: make them equal."
      )
    if self.sampling.guidance != 1.0 and not self.condition_dropout:
      raise errors.ConfigError(
        f"forecast.sampler.guidance={self.sampling.guidance} needs a denoiser"
        " that was also trained without history: method.condition_dropout,"
        " here 0, must be above 0."
      )
    diffusion.samplers.check(
      self.sampling.name, self.sampling.steps, self.num_steps, self.sampling.eta
    )

  @property
  def trainable(self) -> bool:
    return not self.mean_only

  @property
  def _scaled(self) -> bool:
    return not self.mean_only and self.scale != "none"

  @functools.cached_property
  def _schedule(self) -> diffusion.NoiseSchedule:
    return diffusion.build_schedule(
      self.schedule, self.num_steps, self.beta_start, self.beta_end
    )

  def prepared_shapes(self, example):
    return {"scale": example["targets"]} if self._scaled else {}

  def prepare(self, frozen, material):
    if not self._scaled:
      return {}
    if self.scale == "signal":
      scale = residual.signal_spread(material, self.scale_threshold)
      return {"scale": np.repeat(scale[None], self.horizon, axis=0)}
    split = "train" if self.scale == "residual" else "validation"
    return {"scale": self.residual_spread(frozen, material, split)}

  def init(self, key: jax.Array, batch: base.Batch) -> base.Variables:
    if not self.trainable:
      return {"params": {}}
    inputs = batch["inputs"]
    noisy = jnp.zeros((len(inputs), self.horizon, *inputs.shape[2:]))
    step = jnp.zeros(len(inputs), jnp.int32)
    return dict(
      self.network.init(
        key, noisy, step, inputs, noisy, train=False, **self._reads(batch)
      )
    )

  def _reads(self, batch):
    frames = batch["inputs"].shape[1] + self.horizon
    return base.extra_inputs(self.network, batch, frames)

  def prior_shift(self, frozen: PyTree, sign: jax.Array) -> jax.Array:
    """Returns z for signs [B, T_out, H, W, C] of -1 and +1."""
    if not self._scaled:
      return jnp.zeros_like(sign)
    return frozen["scale"].astype(jnp.float32) * sign

  def loss(self, variables, frozen, batch, key, train):
    mean = self.mean_forecast(frozen, batch, jax.random.fold_in(key, 0))
    if not self.trainable:
      loss, count = residual.error_loss(mean, batch)
      return loss, base.Outputs({}, {}, count)

    def draws(key, shape):
      keys = [jax.random.fold_in(key, n) for n in range(1, 5)]
      step = jax.random.randint(keys[0], (), 0, self.num_steps)
      noise = jax.random.normal(keys[1], shape)
      sign = jax.random.rademacher(keys[2], shape, jnp.float32)
      keep = jax.random.bernoulli(keys[3], 1 - self.condition_dropout)
      return step, noise, sign, keep

    # By example, so that a score is the same for any batch size.
    step, noise, sign, keep = jax.vmap(functools.partial(draws, shape=mean.shape[1:]))(
      base.example_keys(jax.random.fold_in(key, 2), batch["index"])
    )
    history = batch["inputs"]
    if train and self.condition_dropout:
      history = history * keep[:, None, None, None, None]
    return self.denoising_loss(
      variables,
      batch | {"inputs": history},
      batch["targets"].astype(jnp.float32) - mean,
      step=step,
      noise=noise,
      prior_shift=self.prior_shift(frozen, sign),
      dropout_key=jax.random.fold_in(key, 1) if train else None,
    )

  def denoising_loss(
    self,
    variables: base.Variables,
    batch: base.Batch,
    target: jax.Array,
    *,
    step: jax.Array,
    noise: jax.Array,
    prior_shift: jax.Array,
    dropout_key: jax.Array | None = None,
  ) -> tuple[jax.Array, base.Outputs]:
    """The denoiser's mean squared error for given draws.

    Args:
      variables: of the denoiser.
      batch: inputs [B, T_in, H, W, C] and what the network reads besides.
      target: [B, T_out, H, W, C] what is diffused, y - mean.
      step: [B] of the schedule, from 0.
      noise: like target, standard normal.
      prior_shift: like target, z.
      dropout_key: None: the network is not training.

    Returns:
      The loss over observed points and its outputs.
    """
    by_row = step[:, None, None, None, None]
    signal, sigma = self._schedule.signal(by_row), self._schedule.sigma(by_row)
    clean = target - prior_shift
    train = dropout_key is not None
    collections = [name for name in variables if name != "params"]
    options = {}
    if train:
      options = {"rngs": {"dropout": dropout_key}, "mutable": collections}
    predicted = self.network.apply(
      variables,
      signal * clean + sigma * noise + prior_shift,
      step,
      batch["inputs"],
      prior_shift,
      train=train,
      **self._reads(batch),
      **options,
    )
    updated = {name: variables[name] for name in collections}
    if train:
      predicted, updated = predicted
    wanted = diffusion.target(self.prediction, clean, noise, signal, sigma)
    loss, count = residual.weighted_mean(
      jnp.square(predicted.astype(jnp.float32) - wanted), batch
    )
    return loss, base.Outputs({}, dict(updated), count)

  def forecast(self, variables, frozen, batch, key, members=1):
    # One number past the members': the mean's dropout, where it is left on.
    mean = self.mean_forecast(
      frozen, batch, jax.random.fold_in(key, np.uint32(2**32 - 1))
    )
    if self.mean_only:
      return jnp.broadcast_to(mean, (len(base.numbers(members)), *mean.shape))
    shape = mean.shape[1:]

    def one(member):
      keys = base.member_keys(key, member, batch["index"])

      def draw(number):
        noise = base.draw_normal(keys, number, shape)
        return self.sampling.temperature * noise

      sign = jax.vmap(
        lambda k: jax.random.rademacher(
          jax.random.fold_in(k, self.num_steps + 1), shape, jnp.float32
        )
      )(keys)
      prior_shift = self.prior_shift(frozen, sign)
      residuals = self.sample(variables, batch, prior_shift, draw(self.num_steps), draw)
      return mean + residuals

    return base.map_members(one, members, self.sampling.member_chunk, mean.size)

  def sample(
    self,
    variables: base.Variables,
    batch: base.Batch,
    prior_shift: jax.Array,
    start: jax.Array,
    draw: Any,
  ) -> jax.Array:
    """Draws residuals [B, T_out, H, W, C] for given random numbers.

    Args:
      variables: of the denoiser.
      batch: inputs and what the network reads besides.
      prior_shift: [B, T_out, H, W, C], z; the same at every step.
      start: like prior_shift, standard normal.
      draw: number of the draw -> the standard normal added there.
    """
    reads, sampling = self._reads(batch), self.sampling

    def predict(history, x, step):
      rows = jnp.broadcast_to(step, (len(x),))
      return self.network.apply(
        variables, x + prior_shift, rows, history, prior_shift, train=False, **reads
      )

    history = batch["inputs"]
    predictor = diffusion.guided(
      functools.partial(predict, history),
      functools.partial(predict, jnp.zeros_like(history)),
      sampling.guidance,
    )
    x = diffusion.sample(
      sampling.name,
      predictor,
      self._schedule,
      start,
      draw,
      kind=self.prediction,
      num_steps=sampling.steps,
      eta=sampling.eta,
    )
    return x + prior_shift
