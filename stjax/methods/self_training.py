"""Self-training: a forecaster learns from the best of the futures it is shown.

Source: Wu et al. 2025 (SFP, arXiv 2510.04020). The forecaster is the agent, and its
forecast the action; a frozen world model imagines futures near to it, a planner picks
the one with the highest reward, and the agent is regressed on that pseudo-label. The
reward need not have a gradient.
"""

import dataclasses
import fractions
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

import input_pipeline
from input_pipeline import spec
from stjax import errors
from stjax.methods import base, regression
from stjax.methods import rollout as rollout_lib
from stjax.methods.diffusion import Diffusion
from stjax.methods.sampling import Sampling
from stjax.methods.world_model import CODEBOOK, WorldModel
from stjax.metrics import rewards
from stjax.planning import search

PyTree = Any
WORLD = "world"
_OFFSET, _SCALE = "offset", "scale"  # In `frozen`.
_IMAGINE = 3  # Folded into the step's key.
# A code counts as one in use that has this many latents a step, averaged.
_IN_USE = 1e-2


@dataclasses.dataclass(frozen=True)
class LatentAgent(regression.Regression):
  """A regression whose network makes latents, which the world model decodes.

  Attributes:
    world: the frozen world model.
  """

  network_kind: ClassVar[str] = "forecasts_latents"

  world: WorldModel | None = None

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.world, WorldModel):
      raise errors.ConfigError(
        f"model.name: {type(self.network).__name__} makes latents, which only a world"
        " model decodes: give one in frozen.world.init_from."
      )
    theirs = self.world.network
    for name, wanted in (("features", theirs.features), ("factor", theirs.factor)):
      if getattr(self.network, name) != wanted:
        raise errors.ConfigError(
          f"model.{name}={getattr(self.network, name)}, but the latents of frozen.world"
          f" need {wanted}."
        )
    whole = ("predict_tendency", "predict_anomaly", "mask_as_input")
    for name in (*whole, "input_noise", "push_forward"):
      if getattr(self, name):
        raise errors.ConfigError(
          f"method.agent.{name} does not go with a network of latents: the world model"
          " decodes whole fields."
        )
    if self.pad_to_multiple != 1:
      raise errors.ConfigError(
        "method.agent.pad_to_multiple does not go with a network of latents; crop the"
        " data instead."
      )

  def rollout(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    train: bool,
    key: jax.Array,
  ) -> tuple[jax.Array, dict[str, PyTree], int]:
    forecast, collections, _ = self.act(variables, frozen, batch, train, key)
    return forecast, collections, 0

  def act(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    train: bool,
    key: jax.Array,
  ) -> tuple[jax.Array, dict[str, PyTree], jax.Array]:
    """Returns the forecast, the new collections and the latents [B, T_out, h, w, D].

    All frames are forecast at once.

    Raises:
      ConfigError: the network makes fewer.
    """
    collections = {k: v for k, v in variables.items() if k != "params"}

    def network(shown, **known):
      made = self.network.apply(
        variables,
        shown,
        train=train,
        rngs={"dropout": key},
        mutable=list(collections) if train else False,
        **known,
      )
      made, updated = made if train else (made, collections)
      return self.finish(made, shown, frozen), (dict(updated), made)

    forecast, (collections, latents) = self._represent().through(
      jax.checkpoint(network) if train and self.remat else network,
      batch["inputs"],
      self._known(batch),
      frozen,
      batch.get("static"),
    )
    if forecast.shape[1] < self.horizon:
      raise errors.ConfigError(
        f"model.backbone forecasts {forecast.shape[1]} frames, but data.horizon="
        f"{self.horizon}: the latents of all frames are made at once. Make"
        " data.history that long, or take a backbone with a horizon of its own."
      )
    return forecast[:, : self.horizon], collections, latents[:, : self.horizon]

  def finish(self, made: jax.Array, shown: jax.Array, frozen: PyTree) -> jax.Array:
    channels = self.world.network.out_channels
    if frozen is None:
      return jnp.zeros((*made.shape[:2], *shown.shape[2:4], channels))
    variables = frozen[WORLD]["variables"]
    return self.world.decode_latents(variables, shown[..., :channels], made)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTraining(base.Method):
  """Trains an agent on the best of its imagined futures.

  With y' the agent's forecast, f_k the futures that the world model imagines near to
  it, R the reward and y the observation,

      pseudo = f_k with the highest R(f_k, y)
      loss = mix E(y', y) + (1 - mix) E(y', pseudo)

  where E is the agent's own loss. The agent is run once for both. A network of latents
  ("latent_head") makes the action itself, and the world model decodes its forecast.
  The variables are those of the agent.

  Attributes:
    horizon: frames T_out to forecast.
    agent: the regression that is trained.
    world: the frozen world model, or any diffusion, whose members are the candidates.
    reward: name of the reward (see `stjax.metrics.rewards`), or weights by name.
    thresholds: thresholds of its scores of events, in physical units.
    reward_options: further options of rewards, by name.
    candidates: number K of futures that are imagined.
    depth: steps of the search. With more than 1, the horizon is cut into so many
      blocks, and the agent goes on from each future that is kept.
    width: futures that are looked at, or kept from step to step; 0 stands for all K.
    discount: weight of the reward of a step over that of the step before.
    mix: share of the observation in the loss, from 0 to 1.
    own_forecast: whether the agent's own forecast is one more candidate.
    truth: whether the world model's reconstruction of the observation is one more.
    warm_up: epochs of plain training of the agent before the first plan.
    sampling: its `reward` says how a forecast is chosen among the futures.
    units: how fields become physical.
  """

  part_names: ClassVar[tuple[str, ...]] = (WORLD,)

  horizon: int
  agent: regression.Regression | None = None
  world: base.Method | None = None
  reward: str | Mapping[str, float] = "csi"
  thresholds: Sequence[float] = ()
  reward_options: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
  candidates: int = 10
  depth: int = 1
  width: int = 0
  discount: float = 1.0
  mix: float = 0.0
  own_forecast: bool = False
  truth: bool = False
  warm_up: float = 0.0
  sampling: Sampling = Sampling()
  units: base.Units = base.Units()

  def __post_init__(self):
    agent = self.agent
    if not isinstance(agent, regression.Regression):
      raise errors.ConfigError(
        "method.agent must be a regression: a method that draws its forecasts, or has"
        f" none, cannot be regressed on a pseudo-label; it is {type(agent).__name__}."
      )
    if agent.curriculum:
      raise errors.ConfigError(
        "method.agent.curriculum does not go with method 'self_training', which plans"
        " over the whole horizon. Train with the curriculum by method 'regression'"
        " first, and start from that work directory by init_from."
      )
    self._check_world()
    self._check_numbers()
    self._check_rewards()

  def _check_rewards(self):
    try:
      self._reward  # noqa: B018  It checks its own options.
    except errors.UserError as error:
      raise errors.ConfigError(
        f"method.reward={self.reward!r} cannot be used: {error}"
      ) from error
    if not (wanted := self.sampling.reward):
      return
    kind = errors.pick("forecast.sampler.reward", wanted, rewards.REWARDS)
    if not issubclass(kind, rewards.Unobserved):
      known = [
        name
        for name, other in rewards.REWARDS.items()
        if issubclass(other, rewards.Unobserved)
      ]
      raise errors.ConfigError(
        f"forecast.sampler.reward={wanted!r} compares with the truth,"
        f" which a forecast does not know. Rewards without it are {', '.join(known)}."
      )

  def _check_world(self):
    world = self.world
    if not isinstance(world, WorldModel | Diffusion):
      raise errors.ConfigError(
        "frozen.world must be a run of method 'world_model', or of a diffusion whose"
        f" members are the candidates; it is {type(world).__name__}."
      )
    if isinstance(world, WorldModel):
      if self.candidates > world.network.codes:
        raise errors.ConfigError(
          f"method.candidates={self.candidates} is more than the"
          f" {world.network.codes} codes of frozen.world."
        )
    elif self.truth or self.latent or self.depth > 1:
      raise errors.ConfigError(
        "method.truth, method.depth above 1 and a network of latents need a world model"
        f" in frozen.world, but it is {type(world).__name__}."
      )

  def _check_numbers(self):
    for name in ("candidates", "depth"):
      if getattr(self, name) < 1:
        raise errors.ConfigError(
          f"method.{name}={getattr(self, name)} must be 1 or more."
        )
    if not 0 <= self.width:
      raise errors.ConfigError(f"method.width={self.width} must be 0 (all) or more.")
    if self.horizon % self.depth:
      raise errors.ConfigError(
        f"method.depth={self.depth} must divide data.horizon={self.horizon}: each step"
        " of the search plans equally many frames."
      )
    if self.depth > 1 and (self.own_forecast or self.truth or self.latent):
      raise errors.ConfigError(
        f"method.depth={self.depth} searches the futures of the world model alone:"
        " leave method.own_forecast and method.truth out, and take a network of"
        " frames."
      )
    if not 0 <= self.mix <= 1:
      raise errors.ConfigError(f"method.mix={self.mix} must be from 0 to 1.")
    for name in ("discount", "warm_up"):
      if not 0 <= getattr(self, name) < float("inf"):
        raise errors.ConfigError(
          f"method.{name}={getattr(self, name)} must be 0 or more."
        )

  @property
  def latent(self) -> bool:
    """Whether the agent's network makes latents."""
    return isinstance(self.agent, LatentAgent)

  @property
  def _reward(self) -> rewards.Reward:
    return rewards.build(
      self.reward, thresholds=tuple(self.thresholds), options=self.reward_options
    )

  @property
  def _forecast_reward(self) -> rewards.Reward:
    return rewards.build(self.sampling.reward)

  @property
  def forecast_parts(self) -> tuple[str, ...]:
    return (WORLD,) if self.latent or self.sampling.reward else ()

  def for_horizon(self, horizon: int) -> "SelfTraining":
    parts = {name: part.for_horizon(horizon) for name, part in self.parts.items()}
    agent = self.agent.for_horizon(horizon)
    # The blocks of the search need not divide the new horizon.
    return dataclasses.replace(self, horizon=horizon, agent=agent, depth=1, **parts)

  def input_channels(self, variables: int, known: int) -> int:
    return self.agent.input_channels(variables, known)

  def undefined_mask(self, batch: base.Batch) -> jax.Array | None:
    return self.agent.undefined_mask(batch)

  def phases(
    self, steps_per_epoch: fractions.Fraction
  ) -> tuple[tuple[int, base.Method], ...]:
    first = math.ceil(fractions.Fraction(self.warm_up) * steps_per_epoch)
    if not first:
      return ((0, self),)
    fields = {name: getattr(self, name) for name in base.field_names(SelfTraining)}
    return ((0, _WarmUp(**fields)), (first, self))

  def prepared_shapes(
    self, example: dict[str, tuple[int, ...]]
  ) -> dict[str, tuple[int, ...]]:
    *grid, channels = example["targets"][1:]
    shapes = {_OFFSET: (channels,), _SCALE: (channels,)}
    if self._constants:
      shapes["spectrum"] = (max(grid) // 2 + 1, channels)
    return self.agent.prepared_shapes(example) | shapes

  @property
  def _constants(self) -> tuple[str, ...]:
    """Names of the arrays that the rewards need."""
    names = self._reward.constants
    if self.sampling.reward:
      names += self._forecast_reward.constants
    return names

  def prepare(self, frozen: PyTree, material: base.Material) -> dict[str, np.ndarray]:
    statistics = material.statistics
    ends = np.stack([statistics.minimum, statistics.maximum])
    low, high = input_pipeline.inverse(
      statistics, (ends - statistics.offset) / statistics.scale
    )
    if self.thresholds:
      rewards.check_thresholds(
        self.thresholds, float(low.min()), float(high.max()), "method.thresholds"
      )
    made = {_OFFSET: statistics.offset, _SCALE: statistics.scale}
    if self._constants:
      made["spectrum"] = rewards.climatological_spectrum(
        (self._physical(batch["targets"], made), self._counted(batch))
        for batch in material.batches("train")
      )
    return self.agent.prepare(frozen, material) | made

  @staticmethod
  def _counted(batch) -> jax.Array:
    targets = batch["targets"]
    return jnp.broadcast_to(regression.example_weights(batch, targets), targets.shape)

  def check_frozen(self, frozen, fetch) -> None:
    if not isinstance(self.world, WorldModel):
      return
    counts = fetch(frozen[WORLD]["variables"][CODEBOOK]["counts"])
    used, codes = int((counts > _IN_USE).sum()), len(counts)
    if used < self.candidates:
      raise errors.ConfigError(
        f"frozen.world uses {used} of its {codes} codes, fewer than"
        f" method.candidates={self.candidates}: the others stand for nothing that was"
        " seen. Train it longer or with method.dead_below above 0, or imagine fewer"
        " candidates."
      )
    logging.info("frozen.world uses %d of its %d codes.", used, codes)

  def init(self, key: jax.Array, batch: base.Batch) -> base.Variables:
    return self.agent.init(key, batch)

  def _physical(self, fields: jax.Array, frozen: PyTree) -> jax.Array:
    return self.units.physical(fields, frozen[_OFFSET], frozen[_SCALE])

  def _rewards(self, candidates, batch, frozen) -> jax.Array:
    """The rewards [K, B] of normalised candidates [K, B, T_out, H, W, C]."""
    observation = batch["targets"][:, : candidates.shape[2]]
    return self._reward(
      self._physical(candidates, frozen),
      self._physical(observation, frozen),
      self._counted(batch | {"targets": observation}),
      frozen,
    )

  def _imagined(self, frozen, batch, action, key, count, latent=False) -> jax.Array:
    """Futures [K, B, T, H, W, C] near to an action."""
    world = frozen[WORLD]
    return self.world.imagine(
      world["variables"], world["frozen"], batch, action, key, count, latent
    )

  def _act(self, variables, frozen, batch, train, key):
    """The agent's forecast and action, its new collections and skipped frames."""
    if self.latent:
      forecast, collections, action = self.agent.act(
        variables, frozen, batch, train, key
      )
      return forecast, action, collections, 0
    forecast, collections, skipped = self.agent.rollout(
      variables, frozen, batch, train, key
    )
    return forecast, forecast, collections, skipped

  def _plan(self, variables, frozen, batch, forecast, action, key):
    """Searches a pseudo-label.

    Returns:
      The pseudo-label [B, T_out, H, W, C], normalised, and for the log values [B]
      by name.
    """
    if self.depth > 1:
      return self._search(variables, frozen, batch, key)
    count = min(self.width or self.candidates, self.candidates)
    candidates = self._imagined(frozen, batch, action, key, count, self.latent)
    named = [f"rank_{k}" for k in range(count)]
    if self.own_forecast:
      candidates = jnp.concatenate([candidates, forecast[None]])
      named.append("own_forecast")
    if self.truth:
      targets = batch["targets"][:, : self.horizon]
      best = self._imagined(frozen, batch, targets, key, 1)
      candidates = jnp.concatenate([candidates, best])
      named.append("truth")
    values = self._rewards(candidates, batch, frozen)
    choice = search.select(values, len(candidates))
    pseudo = jnp.take_along_axis(
      candidates, choice[None, :, None, None, None, None], axis=0
    )[0]
    best = jnp.take_along_axis(values, choice[None], axis=0)[0]
    won = {f"won_{n}": (choice == k).astype(jnp.float32) for k, n in enumerate(named)}
    return pseudo, {"reward_first": values[0], "reward_best": best} | won

  def _search(self, variables, frozen, batch, key):
    """As `_plan`, by a beam search over blocks of frames."""
    block = self.horizon // self.depth
    agent = self.agent.for_horizon(block)
    width = self.width or self.candidates
    shared = spec.shared(batch)
    along = {"targets", *spec.known_future(batch)}
    frames = batch["inputs"].shape[1]

    def now(row, number):
      """The part of an example around a step, as a batch of one."""
      cut = {}
      for name, x in row.items():
        if name == "targets":
          x = jax.lax.dynamic_slice_in_dim(x, number * block, block)
        elif name in along:
          x = jax.lax.dynamic_slice_in_dim(x, number * block, frames + block)
        cut[name] = x[None]
      if "mask" in row:
        # What was imagined is known wherever the history ever was.
        history = rollout_lib.mask_later(cut, number * block)
        targets = jax.lax.dynamic_slice_in_dim(
          cut["mask"], frames + number * block, block, axis=1
        )
        cut["mask"] = jnp.concatenate([history, targets], axis=1)
      return cut | shared

    def of_example(row):

      def expand(state):
        history, number = state
        seen = now(row, number) | {"inputs": history[None]}
        action = agent.apply(variables, seen, False, key, frozen)[0]
        futures = self._imagined(frozen, seen, action, key, self.candidates)[:, 0]
        later = jnp.concatenate(
          [jnp.broadcast_to(history, (len(futures), *history.shape)), futures], axis=1
        )[:, -len(history) :]
        return futures, (later, jnp.broadcast_to(number + 1, len(futures)))

      def reward(futures, number):
        return self._rewards(futures[:, None], now(row, number), frozen)[:, 0]

      start = row["inputs"], jnp.int32(0)
      return search.beam(expand, reward, start, self.depth, width, self.discount)

    rows = {name: x for name, x in batch.items() if name not in shared}
    plan = jax.vmap(of_example)(rows)
    best = plan.trajectories[:, 0]
    pseudo = best.reshape(best.shape[0], self.horizon, *best.shape[3:])
    return pseudo, {"reward_best": self._rewards(pseudo[None], batch, frozen)[0]}

  def loss(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, base.Outputs]:
    agent = self.agent
    forecast, action, collections, skipped = self._act(
      variables, frozen, batch, train, key
    )
    targets = batch["targets"]
    loss, scalars, count = agent.error(forecast, targets, batch, frozen, skipped)
    of_rows = batch.get("valid", jnp.ones(len(forecast), bool)).astype(jnp.float32)
    still = jax.lax.stop_gradient(forecast.astype(jnp.float32))
    values = {"reward_agent": self._rewards(still[None], batch, frozen)[0]}
    if WORLD in frozen:
      pseudo, more = self._plan(
        jax.lax.stop_gradient(variables),
        frozen,
        batch,
        still,
        jax.lax.stop_gradient(action),
        jax.random.fold_in(key, _IMAGINE),
      )
      values |= more
    # A reward may have no value, as CSI where there is no event.
    known = {name: of_rows * jnp.isfinite(x) for name, x in values.items()}
    terms = {
      name: ((known[name] * jnp.where(known[name] > 0, x, 0)).sum(), known[name].sum())
      for name, x in values.items()
    }
    if not train:
      scores = {f"planning/{name}": term for name, term in terms.items()}
      return loss, base.Outputs(scalars, collections, count, scores=scores)
    scalars["observation_loss"] = loss
    pseudo = jax.lax.stop_gradient(pseudo)
    on_pseudo, _, _ = agent.error(forecast, pseudo, batch, frozen, skipped)
    scalars["pseudo_loss"] = on_pseudo
    scalars |= {n: total / jnp.maximum(w, 1.0) for n, (total, w) in terms.items()}
    loss = self.mix * loss + (1 - self.mix) * on_pseudo
    return loss, base.Outputs(scalars, collections, count)

  def forecast(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    key: jax.Array,
    members: base.Members = 1,
  ) -> jax.Array:
    """Returns [M, B, T_out, H, W, C]; all members of an agent agree."""
    if not self.sampling.reward:
      return self.agent.forecast(variables, frozen, batch, key, members)
    _, action, _, _ = self._act(variables, frozen, batch, False, key)
    futures = self._imagined(frozen, batch, action, key, self.candidates, self.latent)
    values = self._forecast_reward(self._physical(futures, frozen), None, None, frozen)
    choice = search.select(values, self.candidates)
    best = jnp.take_along_axis(futures, choice[None, :, None, None, None, None], axis=0)
    count = len(base.numbers(members))
    return jnp.broadcast_to(best, (count, *best.shape[1:]))


class _WarmUp(SelfTraining):
  """The first phase, in which the agent learns from observations alone."""

  def loss(self, variables, frozen, batch, key, train):
    return self.agent.loss(variables, frozen, batch, key, train)
