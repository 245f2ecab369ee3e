"""Drawn variables of networks and modules; for tests."""

import jax
import jax.numpy as jnp
import numpy as np


def shapes_of(module, shape):
  """Shapes of the variables of a network for inputs [1, *shape]."""
  return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))


def drawn(module, shape):
  """Variables of which every layer counts, whatever the initial values are."""
  generator = np.random.default_rng(0)

  def draw(path, leaf):
    value = 0.3 * generator.standard_normal(leaf.shape).astype(np.float32)
    positive = path[-1].key in ("var", "scale")
    return jnp.asarray(1 + np.abs(value) if positive else value)

  return jax.tree_util.tree_map_with_path(draw, shapes_of(module, shape))
