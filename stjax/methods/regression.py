"""Deterministic forecasting: a network regressed on the future frames."""

import dataclasses
import fractions
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.methods import base, losses, representation
from stjax.methods import rollout as rollout_lib
from stjax.metrics import grid

PyTree = Any

_LOSSES = {
  "mse": jnp.square,
  "mae": jnp.abs,
  "mse_mae": lambda error: jnp.square(error) + jnp.abs(error),
}
_RELATIVE = "relative_l2"
_AREA = "areas"  # In `frozen`.
# Folded into the step's key, apart from the numbers of blocks.
_NOISE = 2**31 - 1


def divergence_regulariser(
  forecast: jax.Array, observation: jax.Array, temperature: float = 0.1
) -> jax.Array:
  """Divergence between the forecast's and the observed changes in time.

  With p and q the softmax over (C, H, W) of the differences between
  consecutive frames over the temperature, the mean over batch, time and
  points of p log(p / q).

  Args:
    forecast: [B, T, H, W, C].
    observation: [B, T, H, W, C].
    temperature: divides the differences.

  Returns:
    A scalar; 0 for fewer than three frames.

  Source: Tan et al. 2023 (TAU), equation 8; a mean where the paper has a sum.
  """
  batch, frames = forecast.shape[:2]
  if frames <= 2:
    return jnp.zeros(())

  def changes(x):
    return jnp.diff(x, axis=1).reshape(batch, frames - 1, -1) / temperature

  p = jax.nn.softmax(changes(forecast), axis=-1)
  q = jax.nn.softmax(changes(observation), axis=-1)
  tiny = 1e-12
  return jnp.mean(p * jnp.log(p / (q + tiny) + tiny))


FORECASTER = "a network of forecasts"
# The attribute by which a network says that it is of another kind, and the kind.
_KINDS = {
  "denoises": "a denoiser",
  "reconstructs": "a network that reconstructs",
  "forecasts_latents": "a network of latents",
}


def check_kind(key: str, network: nn.Module | None, attribute: str = "") -> None:
  """Raises ConfigError for a network where one of another kind goes.

  Args:
    key: config key of the network.
    network: None passes.
    attribute: "denoises", "reconstructs" or "forecasts_latents"; "" asks for a
      network of forecasts.
  """
  has = [name for name in _KINDS if getattr(network, name, False)]
  if network is None or has == [attribute] * bool(attribute):
    return
  kinds = _KINDS | {"": FORECASTER}
  raise errors.ConfigError(
    f"{key}.name: {type(network).__name__} is {kinds[has[0] if has else '']}, but"
    f" {kinds[attribute]} is needed here."
  )


@dataclasses.dataclass(frozen=True)
class Regression(base.Method):
  """Trains a network on the (masked) mean error over all frames.

  A network that returns fewer frames than the horizon is fed its own output,
  and trained through all of it; one that returns more is cut.

  Attributes:
    network: module of inputs [B, T_in, H, W, C] -> [B, T, H, W, C].
    horizon: frames T_out to forecast.
    loss_name: "mse", "mae", "mse_mae" (their sum) or "relative_l2", the mean
      of `losses.relative_l2` over examples, frames and variables.
    divergence_weight: weight of `divergence_regulariser`.
    equal_gradients: give the gradients of all variables equal norms; see
      `losses.equalise_gradients`.
    curriculum: pairs (epoch, frames). From that epoch on, counted from 0, this
      number of frames is forecast and trained; () trains all frames all the time.
    push_forward: number of blocks at the start of a training rollout that get
      neither loss nor gradient; the later ones learn from what these forecast. One
      block is always left to learn (Brandstetter et al. 2022, "Message Passing
      Neural PDE Solvers", section 3.1).
    remat: whether the backward pass recomputes the activations of each block, which
      needs the memory of one block instead of all.
    lead_weights: weights of the losses of the frames, T_out numbers; () weighs them
      equally.
    variable_weights: weights of the losses of the variables, C numbers; () weighs
      them equally.
    scaled_loss: whether errors count in the units in which the network forecasts:
      with predict_tendency those of the usual change from one frame to the next, so
      that variables that change slowly count as much as quick ones (Lam et al. 2023,
      GraphCast, section 4 of the supplement).
    area_weights: "none", "auto", or "latitude" or "cells" for weights of the points
      by their latitude; see `stjax.metrics.grid.area_weights`.
    input_noise: standard deviation, in normalised units, of the noise that is added
      to the observed history in training.
    zero_missing: whether points that no frame of the history observed, such as land,
      are set to 0, the training mean, in what is forecast and fed back.
    mask_as_input: whether the network gets one more input for each variable, which
      is 1 where the variable is observed and 0 elsewhere.
    predict_tendency: whether the network forecasts the change since the newest frame,
      in units of the usual change from one frame to the next.
    predict_anomaly: whether the network is shown, and forecasts, deviations from the
      climatology (the training mean of each place for the cell of data.calendar), in
      units of their usual size. With predict_tendency it forecasts the change of the
      newest anomaly.
    pad_to_multiple: number of which the grid's sides are made multiples by repeating
      the last row and column; what is forecast there is cut off.
  """

  network_kind: ClassVar[str] = ""

  network: nn.Module
  horizon: int
  loss_name: str = "mse"
  divergence_weight: float = 0.0
  equal_gradients: bool = False
  curriculum: Sequence[tuple[float, int]] = ()
  push_forward: int = 0
  remat: bool = False
  lead_weights: Sequence[float] = ()
  variable_weights: Sequence[float] = ()
  scaled_loss: bool = False
  area_weights: str = "none"
  input_noise: float = 0.0
  zero_missing: bool = False
  mask_as_input: bool = False
  predict_tendency: bool = False
  predict_anomaly: bool = False
  pad_to_multiple: int = 1

  def __post_init__(self):
    if self.network is None:
      raise errors.ConfigError(
        "model.name='none', but method 'regression' needs a network."
      )
    check_kind("model", self.network, self.network_kind)
    known = _LOSSES | {_RELATIVE: None}
    errors.pick("method.loss_name", self.loss_name, known)
    errors.pick("method.area_weights", self.area_weights, grid.AREA_WEIGHTS)
    if self.scaled_loss and not (self.predict_tendency or self.predict_anomaly):
      raise errors.ConfigError(
        "method.scaled_loss=True needs method.predict_tendency or"
        " method.predict_anomaly, whose units it takes."
      )
    if self.scaled_loss and self.loss_name == _RELATIVE:
      raise errors.ConfigError(
        f"method.scaled_loss=True changes nothing in method.loss_name={_RELATIVE!r},"
        " which has no units: leave one of them out."
      )
    if self.push_forward < 0:
      raise errors.ConfigError(
        f"method.push_forward={self.push_forward} must be 0 or more blocks."
      )
    if not 0 <= self.input_noise < float("inf"):
      raise errors.ConfigError(
        f"method.input_noise={self.input_noise} must be 0 or more."
      )
    _check_weights("lead_weights", self.lead_weights)
    _check_weights("variable_weights", self.variable_weights)
    if self.lead_weights and len(self.lead_weights) < self.horizon:
      raise errors.ConfigError(
        f"method.lead_weights has {len(self.lead_weights)} numbers for"
        f" data.horizon={self.horizon} frames; give one a frame."
      )
    _check_curriculum(self.curriculum, self.horizon)
    self._represent()  # Checks its own options.

  def _represent(self) -> representation.Representation:
    names = base.field_names(representation.Representation)
    return representation.Representation(
      **{name: getattr(self, name) for name in names}
    )

  def for_horizon(self, horizon: int) -> "Regression":
    return dataclasses.replace(self, horizon=horizon, curriculum=())

  def phases(
    self, steps_per_epoch: fractions.Fraction
  ) -> tuple[tuple[int, base.Method], ...]:
    if not self.curriculum:
      return ((0, self),)
    return tuple(
      (math.ceil(fractions.Fraction(epoch) * steps_per_epoch), self.for_horizon(frames))
      for epoch, frames in self.curriculum
    )

  def input_channels(self, variables: int, known: int) -> int:
    return variables * (1 + self.mask_as_input) + known

  def prepared_shapes(
    self, example: dict[str, tuple[int, ...]]
  ) -> dict[str, tuple[int, ...]]:
    shapes = {}
    if self.area_weights != "none":
      shapes[_AREA] = example["targets"][1:3]
    return shapes | self._represent().prepared_shapes(example)

  def prepare(self, frozen: PyTree, material: base.Material) -> dict[str, np.ndarray]:
    del frozen
    made = {}
    if self.area_weights != "none":
      made[_AREA] = material.areas("method.area_weights", self.area_weights)
    return made | self._represent().prepare(material)

  def init(self, key: jax.Array, batch: base.Batch) -> base.Variables:

    def network(shown, **known):
      made, variables = self.network.init_with_output(key, shown, train=False, **known)
      return self.finish(made, shown, None), variables

    history, known = batch["inputs"], self._known(batch)
    represent = self._represent()
    example = {"targets": history.shape[1:]}
    if "calendar" in batch:
      example["calendar"] = (1,) * batch["calendar"].shape[-1]
    _, variables = represent.through(
      network, history, known, represent.blank(example), batch.get("static")
    )
    return dict(variables)

  def finish(self, made: jax.Array, shown: jax.Array, frozen: PyTree) -> jax.Array:
    """Turns what the network makes into a forecast.

    Args:
      made: what the network returned.
      shown: [B, T_in, H, W, C'], what it was shown.
      frozen: what the method reads; None if only the shape counts.
    """
    del shown, frozen
    return made

  def _known(self, batch: base.Batch) -> dict[str, jax.Array]:
    """What is read along time, from the first history frame on."""
    frames = batch["inputs"].shape[1] + self.horizon
    return base.extra_inputs(self.network, batch, frames) | self._represent().known(
      batch, self.horizon
    )

  def apply(
    self,
    variables: base.Variables,
    batch: base.Batch,
    train: bool,
    key: jax.Array,
    frozen: PyTree = None,
  ) -> tuple[jax.Array, dict[str, PyTree]]:
    """Returns the forecast [B, T_out, H, W, C] and the new collections."""
    return self.rollout(variables, frozen or {}, batch, train, key)[:2]

  def rollout(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    train: bool,
    key: jax.Array,
  ) -> tuple[jax.Array, dict[str, PyTree], int]:
    """As `apply`; and how many frames at the start nothing learns from."""
    params = variables["params"]
    collections = {k: v for k, v in variables.items() if k != "params"}
    history, known = batch["inputs"], self._known(batch)
    if train and self.input_noise:
      history = history + self._noise(batch, jax.random.fold_in(key, _NOISE))

    def step(history, collections, number, **known):

      def network(shown, **known):
        arguments = {"params": params, **collections}, shown
        if not train:
          made = self.network.apply(*arguments, train=False, **known)
          return self.finish(made, shown, frozen), collections
        made, updated = self.network.apply(
          *arguments,
          train=True,
          rngs={"dropout": jax.random.fold_in(key, number)},
          mutable=list(collections),
          **known,
        )
        return self.finish(made, shown, frozen), dict(updated)

      return self._represent().through(
        network, history, known, frozen, batch.get("static")
      )

    if train and self.remat:
      step = jax.checkpoint(step)
    skipped = self._skipped(step, history, collections, known) if train else 0
    if not skipped:
      forecast, collections = rollout_lib.feed_back(
        step, history, collections, self.horizon, known
      )
      return forecast, collections, 0
    first, collections = jax.lax.stop_gradient(
      rollout_lib.feed_back(step, history, collections, skipped, known)
    )
    # Other random numbers than those of the blocks before.
    further = lambda history, collections, number, **known: step(
      history, collections, skipped + number, **known
    )
    forecast, collections = rollout_lib.feed_back(
      further,
      rollout_lib.newest(history, first),
      collections,
      self.horizon - skipped,
      rollout_lib.later(known, skipped),
    )
    return jnp.concatenate([first, forecast], 1), collections, skipped

  def _skipped(self, step, history, collections, known) -> int:
    """Frames of the blocks that `push_forward` leaves without gradient."""
    if not self.push_forward:
      return 0
    shape, _ = jax.eval_shape(functools.partial(step, **known), history, collections, 0)
    block = shape.shape[1]
    return block * min(self.push_forward, (self.horizon - 1) // block)

  def _noise(self, batch, key):
    """Noise for the observed points of the history, an example at a time."""
    inputs = batch["inputs"]
    keys = base.example_keys(key, batch["index"])
    noise = self.input_noise * base.draw_normal(keys, 0, inputs.shape[1:])
    if "mask" in batch:
      noise = jnp.where(batch["mask"][:, : inputs.shape[1]], noise, 0)
    return noise

  def _loss_weights(self, frozen, channels):
    """Weights of frames and variables, and of points, that broadcast."""
    fields = jnp.ones((1, 1, 1))
    if self.lead_weights:
      lead = jnp.asarray(self.lead_weights, jnp.float32)[: self.horizon]
      fields = fields * lead[:, None]
    if self.variable_weights:
      if len(self.variable_weights) != channels:
        raise errors.ConfigError(
          f"method.variable_weights has {len(self.variable_weights)} numbers"
          f" for {channels} variables (data.variables); give one a variable."
        )
      fields = fields * jnp.asarray(self.variable_weights, jnp.float32)
    areas = 1.0
    if self.area_weights != "none":
      areas = frozen[_AREA][..., None]
    return fields, areas

  def loss(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, base.Outputs]:
    forecast, collections, skipped = self.rollout(variables, frozen, batch, train, key)
    loss, scalars, count = self.error(
      forecast, batch["targets"], batch, frozen, skipped
    )
    return loss, base.Outputs(scalars, collections, count)

  def error(
    self,
    forecast: jax.Array,
    targets: jax.Array,
    batch: base.Batch,
    frozen: PyTree,
    skipped: int = 0,
  ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
    """Compares a forecast with what it should have been.

    Args:
      forecast: [B, T_out, H, W, C], normalised.
      targets: the same or more frames, normalised.
      batch: says which points count.
      frozen: holds what `prepare` made.
      skipped: frames at the start that nothing learns from; see `rollout`.

    Returns:
      The loss; scalars for the log; the sum of the weights of all points.
    """
    targets = targets[:, : self.horizon].astype(jnp.float32)
    if forecast.shape != targets.shape:
      raise ValueError(
        f"the network forecasts {forecast.shape} where the targets are"
        f" {targets.shape} (B, T, H, W, C); change model.out_channels or"
        " data.variables"
      )
    if self.equal_gradients:
      forecast = losses.equalise_gradients(forecast)
    forecast = forecast.astype(jnp.float32)
    fields, areas = self._loss_weights(frozen, targets.shape[-1])
    weight = example_weights(batch, targets)
    weight = jnp.broadcast_to(weight, targets.shape) * areas
    if self.loss_name == _RELATIVE:
      values = losses.relative_l2(forecast, targets, weight)
      # Fields with a point observed.
      weight = jnp.any(weight > 0, axis=(-3, -2)).astype(jnp.float32)
    else:
      difference = forecast - targets
      if self.scaled_loss:
        difference = difference / self._represent().scale(frozen)
      values = _LOSSES[self.loss_name](difference)
      fields = fields[:, :, None, None]
    weight = weight * fields
    weight = weight.at[:, :skipped].set(0)
    count = jnp.sum(weight)
    loss = jnp.sum(weight * values) / jnp.where(count > 0, count, 1.0)
    scalars = {}
    if self.divergence_weight:
      scalars["divergence"] = divergence_regulariser(forecast, targets)
      loss = loss + self.divergence_weight * scalars["divergence"]
    return loss, scalars, count

  def undefined_mask(self, batch: base.Batch) -> jax.Array | None:
    if not self.zero_missing:
      return None
    return ~batch["mask"][:, : batch["inputs"].shape[1]].any(axis=1)

  def forecast(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    key: jax.Array,
    members: base.Members = 1,
  ) -> jax.Array:
    """Returns [M, B, T_out, H, W, C]; all members of a regression agree."""
    forecast, _ = self.apply(variables, batch, False, key, frozen)
    return jnp.broadcast_to(
      forecast.astype(jnp.float32), (len(base.numbers(members)), *forecast.shape)
    )


def example_weights(batch: base.Batch, targets: jax.Array) -> jax.Array:
  """Weights that broadcast to the targets: 0 where missing or padding."""
  weight = jnp.ones((1, 1, 1, 1, 1), jnp.float32)
  if "mask" in batch:
    first = batch["inputs"].shape[1]
    observed = batch["mask"][:, first : first + targets.shape[1]]
    weight = observed.astype(jnp.float32)
  if "valid" in batch:
    rows = batch["valid"].astype(jnp.float32)
    weight = weight * rows[:, None, None, None, None]
  return weight


def _check_weights(name: str, weights: Sequence[float]) -> None:
  # Written so that NaN fails too.
  fine = all(0 <= w < float("inf") for w in weights)
  if weights and not (fine and max(weights) > 0):
    raise errors.ConfigError(
      f"method.{name}={tuple(weights)} must be 0 or more, one above 0."
    )


def _check_curriculum(curriculum: Sequence[tuple[float, int]], horizon: int) -> None:
  if not curriculum:
    return
  pairs = [p for p in curriculum if isinstance(p, tuple | list) and len(p) == 2]
  epochs = [epoch for epoch, _ in pairs]
  if (
    len(pairs) < len(curriculum)
    or epochs[0] != 0
    or any(a >= b for a, b in zip(epochs, epochs[1:], strict=False))
    or not all(1 <= f <= horizon and f == int(f) for _, f in pairs)
  ):
    raise errors.ConfigError(
      f"method.curriculum={tuple(curriculum)}; expected pairs (epoch,"
      " frames): epochs from 0 on that increase, and 1 to"
      f" data.horizon={horizon} frames, such as ((0, 1), (10, {horizon}))."
    )
