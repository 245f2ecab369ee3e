"""Optimisers and learning-rate schedules by name.

The optimisers are optax chains. Schedules that optax defines in the same way
come from there. The one-cycle schedule and the schedules with a warm-up follow
PyTorch's and timm's definitions to the last digit, because published results
depend on them and optax's versions differ.
"""

import dataclasses
import fractions
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stjax import config as config_lib
from stjax import errors

Schedule = Callable[[jax.Array | int], jax.Array]


def _half_cosine(start: float, end: float, share: jax.Array) -> jax.Array:
  return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * share))


def _one_cycle(
  low: float, high: float, last: float, total: int, pct_start: float
) -> Schedule:
  # As in PyTorch, the turning point is counted from step 0 and is no integer.
  turn = pct_start * total - 1

  def schedule(count):
    count = jnp.minimum(count, total - 1)
    rise = _half_cosine(low, high, count / turn) if turn > 0 else high
    fall = _half_cosine(high, last, (count - turn) / (total - 1 - turn))
    return jnp.where(count <= turn, rise, fall)

  return schedule


def _warmed_up(schedule: Schedule, warmup: float, start: float, top: float) -> Schedule:
  """Replaces the first counts of a schedule by a linear warm-up, as timm does."""
  if warmup <= 0:
    return schedule
  return lambda count: jnp.where(
    count < warmup, start + count * (top - start) / warmup, schedule(count)
  )


def learning_rate(
  name: str,
  peak: float,
  total: int,
  *,
  warmup: float = 0.0,
  warmup_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
  decay_every: float = 0.0,
  decay_rate: float = 0.1,
  milestones: tuple[float, ...] = (),
  power: float = 1.0,
  pct_start: float = 0.3,
  div_factor: float = 25.0,
  final_div_factor: float = 1e4,
  hold: float = 0.0,
) -> Schedule:
  """Returns the learning rate as a function of the number of steps or epochs.

  With the number t, the total T, the peak p and the final rate f:
    constant    p
    one_cycle   half-cosines p/div -> p -> p/div/final_div, turning at
                pct_start T - 1 (PyTorch's OneCycleLR, two phases)
    cosine      f + (p - f)/2 (1 + cos(pi t^k / T^k)), then f
    tanh        f + (p - f)/2 (1 - tanh(-7 (1 - t/T) + 3 t/T)), then f
    exponential p until hold T, then p (f/p)^((t - hold T) / (T - hold T))
    step        p rate^floor(t / decay_every)
    multistep   p rate^(number of milestones <= t + 1)
  All but one_cycle can begin with a linear warm-up from warmup_learning_rate to
  the peak, or for tanh to its value at the end of the warm-up.

  Args:
    name: one of the names above.
    peak: the highest rate.
    total: number of steps or epochs of the whole run.
    warmup: number of steps or epochs of the warm-up; 0 means no warm-up.
    warmup_learning_rate: the rate at which the warm-up begins.
    final_learning_rate: the rate at which cosine, tanh and exponential end.
    decay_every: number of steps or epochs between two steps down.
    decay_rate: factor of each step down.
    milestones: numbers of the steps or epochs at which the rate steps down.
    power: exponent k of cosine.
    pct_start: share of the run in which one_cycle rises.
    div_factor: ratio of the peak to one_cycle's first rate.
    final_div_factor: ratio of one_cycle's first rate to its last rate.
    hold: share of the run before exponential falls, in [0, 1).

  Raises:
    ConfigError: the name is unknown, or the schedule cannot use a value.

  Source: Smith & Topin 2018 (one-cycle); Loshchilov & Hutter 2017 (cosine).
  """
  names = (
    "constant",
    "cosine",
    "exponential",
    "multistep",
    "one_cycle",
    "step",
    "tanh",
  )
  errors.pick("optimizer.schedule.name", name, dict.fromkeys(names, True))
  if name == "one_cycle":
    first = peak / div_factor
    return _one_cycle(first, peak, first / final_div_factor, total, pct_start)
  top = peak
  if name == "constant":
    schedule = optax.constant_schedule(peak)
  elif name == "cosine":

    def schedule(count):
      share = jnp.minimum(count / total, 1.0) ** power
      return _half_cosine(peak, final_learning_rate, share)

  elif name == "tanh":

    def schedule(count):
      share = count / total
      bend = 1 - jnp.tanh(-7.0 * (1 - share) + 3.0 * share)
      rate = final_learning_rate + (peak - final_learning_rate) / 2 * bend
      return jnp.where(count < total, rate, final_learning_rate)

    top = schedule(warmup)
  elif name == "exponential":
    if final_learning_rate <= 0 or not 0 <= hold < 1:
      raise errors.ConfigError(
        "The schedule 'exponential' needs"
        f" optimizer.schedule.final_learning_rate={final_learning_rate}"
        f" above 0 and optimizer.schedule.hold={hold} in [0, 1)."
      )
    schedule = optax.exponential_decay(
      peak,
      transition_steps=max(total * (1 - hold), 1),
      decay_rate=final_learning_rate / peak,
      transition_begin=round(total * hold),
      end_value=final_learning_rate,
    )
  elif name == "step":
    if decay_every <= 0:
      raise errors.ConfigError(
        f"optimizer.schedule.decay_every={decay_every} must be positive for"
        " the schedule 'step'."
      )

    def schedule(count):
      return peak * decay_rate ** jnp.floor(count / decay_every)

  else:
    if not milestones:
      raise errors.ConfigError(
        "optimizer.schedule.milestones is empty; the schedule 'multistep'"
        " needs at least one."
      )

    def schedule(count):
      passed = jnp.sum(jnp.asarray(milestones) <= count + 1)
      return peak * decay_rate**passed

  return _warmed_up(schedule, warmup, warmup_learning_rate, top)


def one_cycle_momentum(
  total: int, pct_start: float = 0.3, low: float = 0.85, high: float = 0.95
) -> Schedule:
  """Returns Adam's b1 under PyTorch's OneCycleLR; it falls as the rate rises."""
  return _one_cycle(high, low, high, total, pct_start)


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """An optax transformation, and the learning rate that it uses at each step."""

  transformation: optax.GradientTransformation
  learning_rate: Schedule


def build(
  options: Mapping[str, Any], num_steps: int, steps_per_epoch: fractions.Fraction
) -> Optimizer:
  """Builds the optimiser of `config.optimizer`.

  Args:
    options: name, learning_rate, weight_decay, clip_norm, b1, b2, eps, momentum
      and schedule, which has the arguments of `learning_rate`, per ("step" or
      "epoch") and cycle_momentum.
    num_steps: number of optimiser steps of the whole run.
    steps_per_epoch: exact number of optimiser steps in one pass over the
      training split.

  Raises:
    ConfigError: a name or key is unknown, or a value is out of range.
  """
  options = config_lib.plain(options)
  shape = dict(options["schedule"])
  name, per = shape.pop("name"), shape.pop("per")
  cycle_momentum = shape.pop("cycle_momentum")
  if not options["learning_rate"] > 0:
    raise errors.ConfigError(
      f"optimizer.learning_rate={options['learning_rate']} must be positive."
    )
  if per not in ("step", "epoch"):
    raise errors.ConfigError(
      f"optimizer.schedule.per={per!r} must be 'step' or 'epoch'."
    )
  total = num_steps
  if per == "epoch":
    total = max(round(num_steps / steps_per_epoch), 1)
  shape["milestones"] = tuple(shape.get("milestones", ()))
  by_count = learning_rate(name, options["learning_rate"], total, **shape)
  rate = by_count
  if per == "epoch":
    # The first step of each epoch is found from integers, since a division in
    # float32 would not be exact.
    starts = [math.ceil(epoch * steps_per_epoch) for epoch in range(total + 1)]

    def rate(step):
      epoch = jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1
      return by_count(epoch)

  b1 = options["b1"]
  if name == "one_cycle" and cycle_momentum and options["name"] != "sgd":
    b1 = one_cycle_momentum(num_steps, shape["pct_start"])

  parts = []
  if options["clip_norm"] > 0:
    parts.append(optax.clip_by_global_norm(options["clip_norm"]))
  kinds = {"adam": True, "adamw": True, "sgd": True}
  errors.pick("optimizer.name", options["name"], kinds)
  decay = options["weight_decay"]
  # Adam and SGD see the decay as part of the gradient; AdamW adds it to the
  # finished update.
  if decay and options["name"] != "adamw":
    parts.append(optax.add_decayed_weights(decay))
  if options["name"] == "sgd":
    if options["momentum"]:
      parts.append(optax.trace(options["momentum"]))
  elif callable(b1):
    parts.append(
      optax.inject_hyperparams(optax.scale_by_adam)(
        b1=b1, b2=options["b2"], eps=options["eps"]
      )
    )
  else:
    parts.append(optax.scale_by_adam(b1=b1, b2=options["b2"], eps=options["eps"]))
  if decay and options["name"] == "adamw":
    parts.append(optax.add_decayed_weights(decay))
  parts.append(optax.scale_by_learning_rate(rate))
  return Optimizer(optax.chain(*parts), rate)
