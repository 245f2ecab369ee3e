"""Plain diffusion, and the base class of every method that denoises.

Sources: Ho et al. 2020 (arXiv 2006.11239); guidance without a classifier, Ho &
Salimans 2022 (2207.12598).
"""

import dataclasses
import functools
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from stjax import diffusion, errors
from stjax.methods import base, regression
from stjax.methods.sampling import Sampling

PyTree = Any
UNITS = ("own", "epsilon")


@struct.dataclass
class Draws:
  """All that is random in a diffusion's loss, but dropout.

  Attributes:
    step: [B] int32, of the noise schedule, from 0.
    noise: [B, T_out, H, W, C], standard normal.
    sign: like noise, -1 or 1: which way a prior shift goes.
    keep: [B] bool, whether an example is shown its history.
  """

  step: jax.Array
  noise: jax.Array
  sign: jax.Array
  keep: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(base.Method):
  """Diffuses the observation, given the history.

  With A_t the schedule's alpha_bar, m a mean forecast and z a prior shift,

      x_t = sqrt(A_t) (y - m - z) + sqrt(1 - A_t) noise

  and the denoiser is shown x_t + z. Here m = z = 0; a class that derives from
  this one may replace `mean_forecast` and `prior_shift`.

  Attributes:
    horizon: frames T_out to forecast.
    network: any denoiser; see `stjax.models`.
    schedule: name of the noise schedule; see `stjax.diffusion`.
    num_steps: steps N of the schedule.
    beta_start: first beta.
    beta_end: last beta.
    prediction: what the network predicts: "epsilon", "x0" or "v".
    condition_dropout: share of examples trained without their history, for
      classifier-free guidance.
    sampling: how forecasts are drawn.
  """

  horizon: int
  network: Any = None
  schedule: str = "quadratic"
  num_steps: int = 50
  beta_start: float = 1e-4
  beta_end: float = 0.5
  prediction: str = "epsilon"
  condition_dropout: float = 0.0
  sampling: Sampling = Sampling()

  def __post_init__(self):
    errors.pick("method.prediction", self.prediction, dict.fromkeys(diffusion.KINDS))
    if not 0.0 <= self.condition_dropout < 1.0:
      raise errors.ConfigError(
        f"method.condition_dropout={self.condition_dropout} must be in [0, 1)."
      )
    if self.trainable:
      self._check_denoiser()

  def _check_denoiser(self):
    if self.network is None:
      raise errors.ConfigError(
        "model.name='none', but a diffusion needs a denoiser, such as"
        " 'stid_denoiser' or 'unet_denoiser'."
      )
    regression.check_kind("model", self.network, "denoises")
    rows = getattr(self.network, "num_steps", self.num_steps)
    if self.noise_schedule.num_steps > rows:
      raise errors.ConfigError(
        f"method.num_steps={self.num_steps} is more than the"
        f" model.num_steps={rows} that the denoiser has"
        " embeddings for: make them equal."
      )
    if self.sampling.guidance != 1.0 and not self.condition_dropout:
      raise errors.ConfigError(
        f"forecast.sampler.guidance={self.sampling.guidance} needs a denoiser"
        " that was also trained without history: method.condition_dropout,"
        " here 0, must be above 0."
      )
    sampling = self.sampling
    if sampling.reward:
      raise errors.ConfigError(
        f"forecast.sampler.reward={sampling.reward!r} chooses among the candidates of"
        " method 'self_training'; a diffusion draws members."
      )
    diffusion.samplers.check(
      sampling.name, sampling.steps, self.num_steps, sampling.eta, sampling.spacing
    )
    if sampling.guidance_strength and self.prediction == "x0":
      raise errors.ConfigError(
        "guidance_strength pulls by what x0 owes to the noisy field beside the"
        " network, which is nothing for method.prediction='x0': take a network that"
        " predicts 'epsilon' or 'v'."
      )

  @functools.cached_property
  def noise_schedule(self) -> diffusion.NoiseSchedule:
    """The schedule that the options describe."""
    return diffusion.build_schedule(
      self.schedule, self.num_steps, self.beta_start, self.beta_end
    )

  def for_horizon(self, horizon):
    if horizon != self.horizon:
      raise errors.ConfigError(
        f"A diffusion forecasts exactly the frames it was trained for, {self.horizon};"
        f" data.horizon={horizon} asks for others."
      )
    return self

  @property
  def member_chunk(self) -> int:
    return self.sampling.member_chunk

  def mean_forecast(
    self, frozen: PyTree, batch: base.Batch, key: jax.Array
  ) -> jax.Array:
    """Returns m, [B, T_out, H, W, C], which what is diffused is added to."""
    del frozen, key
    inputs = batch["inputs"]
    return jnp.zeros((len(inputs), self.horizon, *inputs.shape[2:]))

  def prior_shift(self, frozen: PyTree, sign: jax.Array) -> jax.Array:
    """Returns z for signs [B, T_out, H, W, C] of -1 and +1."""
    del frozen
    return jnp.zeros_like(sign)

  def imagine(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    action: jax.Array,
    key: jax.Array,
    count: int,
    latent: bool = False,
  ) -> jax.Array:
    """Returns members [K, B, T_out, H, W, C] as candidates of a planner.

    The arguments are those of `WorldModel.imagine`. A diffusion imagines from the
    history, whatever the action is.
    """
    del action, latent
    return self.forecast(variables, frozen, batch, key, count)

  def init(self, key: jax.Array, batch: base.Batch) -> base.Variables:
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

  def _encode(self, variables, batch, history):
    return self.network.apply(variables, history, method="encode", **self._reads(batch))

  def draw(self, key: jax.Array, batch: base.Batch, shape: tuple[int, ...]) -> Draws:
    """Draws all that is random in the loss but dropout.

    Each example has draws of its own, whatever batch it is in.

    Args:
      key: PRNG key.
      batch: its `index` [B] numbers the examples.
      shape: (T_out, H, W, C) of one field.
    """

    def one(key):
      keys = [jax.random.fold_in(key, n) for n in range(1, 5)]
      return Draws(
        step=jax.random.randint(keys[0], (), 0, self.num_steps),
        noise=jax.random.normal(keys[1], shape),
        sign=jax.random.rademacher(keys[2], shape, jnp.float32),
        keep=jax.random.bernoulli(keys[3], 1 - self.condition_dropout),
      )

    return jax.vmap(one)(base.example_keys(key, batch["index"]))

  def errors(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    fields: jax.Array,
    draws: Draws,
    *,
    train: bool,
    key: jax.Array,
    units: str = "own",
  ) -> tuple[jax.Array, jax.Array, dict[str, PyTree]]:
    """Denoising errors of some fields, each from the same draws.

    The mean forecast and the denoiser's context are computed once for all.

    Args:
      variables: of the denoiser.
      frozen: what the method reads and never trains.
      batch: the history and what the network reads besides; `mask` and `valid`
        say which points count.
      fields: [F, B, T_out, H, W, C], normalised: what is diffused.
      draws: see `Draws`; obeyed whether training or not.
      train: use dropout, and update the denoiser's other collections.
      key: PRNG key of the dropout.
      units: "own" for errors of what the network predicts, "epsilon" for those
        of the noise that the prediction stands for.

    Returns:
      Mean squared errors [F, B] over each example's observed points; the number
      of these points [B], 0 for a filled row; the denoiser's other collections,
      new values if it is training.
    """
    if units not in UNITS:
      raise ValueError(f"units={units!r} must be one of {UNITS}.")

    def by_row(x):
      return x[:, None, None, None, None]

    count = len(fields)
    mean = self.mean_forecast(frozen, batch, jax.random.fold_in(key, 0))
    prior_shift = self.prior_shift(frozen, draws.sign)
    context = self._encode(
      variables, batch, jnp.where(by_row(draws.keep), batch["inputs"], 0)
    )
    signal = by_row(self.noise_schedule.signal(draws.step))
    sigma = by_row(self.noise_schedule.sigma(draws.step))
    clean = fields.astype(jnp.float32) - mean - prior_shift
    noisy = signal * clean + sigma * draws.noise + prior_shift
    # All fields are rows of one call. Those of an example stand together, so
    # that a batch that is split over devices stays split the same way.
    noisy = einops.rearrange(noisy, "f b ... -> (b f) ...")
    step, context, shown_shift = jax.tree.map(
      lambda x: jnp.repeat(x, count, axis=0), (draws.step, context, prior_shift)
    )
    collections = [name for name in variables if name != "params"]
    updated = {name: variables[name] for name in collections}
    options = {}
    if train:
      dropout = {"dropout": jax.random.fold_in(key, 1)}
      options = {"rngs": dropout, "mutable": collections}
    predicted = self.network.apply(
      variables,
      noisy,
      step,
      context,
      shown_shift,
      train=train,
      method="denoise",
      **options,
    )
    if train:
      predicted, updated = predicted
    predicted = einops.rearrange(predicted, "(b f) ... -> f b ...", f=count)
    wanted = diffusion.target(self.prediction, clean, draws.noise, signal, sigma)
    squared = jnp.square(predicted.astype(jnp.float32) - wanted)
    if units == "epsilon":
      squared *= diffusion.epsilon_factor(self.prediction, signal, sigma)
    observed = jnp.broadcast_to(
      regression.example_weights(batch, fields[0]), fields.shape[1:]
    )
    axes = (-4, -3, -2, -1)
    weight = observed.sum(axes)
    error = (observed * squared).sum(axes) / jnp.maximum(weight, 1.0)
    return error, weight, dict(updated)

  def loss_for(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    draws: Draws,
    *,
    train: bool,
    key: jax.Array,
  ) -> tuple[jax.Array, base.Outputs]:
    """The loss of given draws: the mean error of the targets' observed points.

    The arguments are those of `errors`.
    """
    error, weight, collections = self.errors(
      variables, frozen, batch, batch["targets"][None], draws, train=train, key=key
    )
    count = weight.sum()
    loss = (weight * error[0]).sum() / jnp.maximum(count, 1.0)
    return loss, base.Outputs({}, collections, count)

  def loss(self, variables, frozen, batch, key, train):
    draws = self.draw(jax.random.fold_in(key, 2), batch, batch["targets"].shape[1:])
    if not train:  # Forecasts always see the history.
      draws = draws.replace(keep=jnp.ones_like(draws.keep))
    return self.loss_for(variables, frozen, batch, draws, train=train, key=key)

  def forecast(self, variables, frozen, batch, key, members=1):
    # One number past the members': the mean's dropout, where it is left on.
    mean = self.mean_forecast(
      frozen, batch, jax.random.fold_in(key, np.uint32(2**32 - 1))
    )
    contexts = self.contexts(variables, batch)
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
      start = draw(self.num_steps)
      pull = self.pull(batch, mean + prior_shift)
      return mean + self.sample(variables, contexts, prior_shift, start, draw, pull)

    return base.map_members(one, members, self.member_chunk, mean.size)

  def contexts(
    self, variables: base.Variables, batch: base.Batch
  ) -> tuple[PyTree, ...]:
    """The denoiser's context of the history, and of none if guidance needs it.

    Args:
      variables: of the denoiser.
      batch: inputs and what the network reads besides.
    """
    histories = [batch["inputs"]]
    if self.sampling.guidance != 1:
      histories.append(jnp.zeros_like(batch["inputs"]))
    return tuple(self._encode(variables, batch, history) for history in histories)

  def pull(self, batch: base.Batch, offset: jax.Array) -> Any:
    """What guides the samples to the batch's targets; None if nothing does.

    Args:
      batch: with targets; their missing points do not pull.
      offset: [B, T_out, H, W, C], m + z, what the samples are added to.

    Raises:
      ConfigError: there is a strength, but there are no targets.
    """
    strength = self.sampling.guidance_strength
    if not strength:
      return None
    if "targets" not in batch:
      raise errors.ConfigError(
        f"guidance_strength={strength} pulls samples towards the targets, which this"
        " batch does not have: set it to 0."
      )
    wanted = batch["targets"].astype(jnp.float32)
    weight = regression.example_weights(batch, wanted)
    whole_batch = self.sampling.guidance_norm == "batch"
    return diffusion.pull_towards(wanted - offset, weight, strength, whole_batch)

  def sample(
    self,
    variables: base.Variables,
    contexts: tuple[PyTree, ...],
    prior_shift: jax.Array,
    start: jax.Array,
    draw: Any,
    pull: Any = None,
  ) -> jax.Array:
    """Draws what is diffused, y - m, for given random numbers.

    Args:
      variables: of the denoiser.
      contexts: of `contexts`.
      prior_shift: [B, T_out, H, W, C], z; the same at every step.
      start: like prior_shift, standard normal.
      draw: number of the draw -> the standard normal added there.
      pull: of `pull`.

    Returns:
      [B, T_out, H, W, C].
    """

    def predict(context, x, step):
      rows = jnp.broadcast_to(step, (len(x),))
      return self.network.apply(
        variables,
        x + prior_shift,
        rows,
        context,
        prior_shift,
        train=False,
        method="denoise",
      )

    predictor = diffusion.guided(
      functools.partial(predict, contexts[0]),
      functools.partial(predict, contexts[-1]),
      self.sampling.guidance,
    )
    x = diffusion.sample(
      self.sampling.name,
      predictor,
      self.noise_schedule,
      start,
      draw,
      kind=self.prediction,
      num_steps=self.sampling.steps,
      eta=self.sampling.eta,
      spacing=self.sampling.spacing,
      clip_x0=self.sampling.clip_x0 or None,
      pull=pull,
    )
    return x + prior_shift
