"""Scoring arrays by conventions; for tests."""

import functools

import jax
import numpy as np

from stjax import metrics


@functools.cache  # Each set of options is compiled once for every shape.
def _built(names, **options):
  built = metrics.build(names, **options)
  return built, jax.jit(functools.partial(metrics.evaluate, built))


def accumulated(
  names, forecast, observation, weight=None, batches=None, known=(), **options
):
  """An accumulator of all batches.

  Args:
    names: of the conventions.
    forecast: [M, B, T, H, W, C].
    observation: [B, T, H, W, C].
    weight: [B, T, H, W, C]; ones by default.
    batches: sizes of the batches; one batch by default.
    known: further fields [B, ...] by name.
    **options: of the conventions.
  """
  built, update = _built(names, **options)
  weight = np.ones_like(observation) if weight is None else weight
  total = metrics.Accumulator(built)
  start = 0
  for size in batches or (len(observation),):
    part = slice(start, start + size)
    fields = {name: values[part] for name, values in dict(known).items()}
    total.add(update(forecast[:, part], observation[part], weight[part], **fields))
    start += size
  assert start == len(observation)
  return total


def scores(name, *arrays, **options):
  """The scores of one convention; see `accumulated`."""
  return accumulated((name,), *arrays, **options).compute()[name]


def candidate_fields():
  """Two candidates of three windows, their observation, and a weight."""
  rng = np.random.default_rng(0)
  shape = (3, 2, 9, 8, 2)
  observation = rng.random(shape).astype(np.float32)
  noise = rng.normal(0.1, 0.3, (2, *shape))
  weight = (rng.random(shape) > 0.1).astype(np.float32)
  return (observation + noise).astype(np.float32), observation, weight
