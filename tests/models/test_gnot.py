import jax
import jax.numpy as jnp
import numpy as np
from networks import drawn

from stjax import models
from stjax.models.gnot import GNOTCore

SMALL = dict(features=4, depth=1, heads=2, experts=2, mlp_ratio=1, mlp_depth=0)


def test_the_points_of_a_grid_are_its_pixels_and_each_frame_is_a_function():
  module = models.build("gnot", horizon=2, out_channels=3, **SMALL)
  b, frames, h, w, channels = 2, 3, 4, 5, 2
  x = jax.random.normal(jax.random.key(0), (b, frames, h, w, channels))
  variables = drawn(module, x.shape[1:])
  rows, columns = np.mgrid[0 : 1 : h * 1j, 0 : 1 : w * 1j].astype(np.float32)
  place = np.broadcast_to(np.stack([rows, columns], -1), (b, frames, h, w, 2))
  functions = np.concatenate([place, x], -1).reshape(b, frames, h * w, 2 + channels)
  core = GNOTCore(2 * 3, **SMALL)

  @jax.jit
  def both(variables, x, functions):
    of_core = {"params": variables["params"]["core"]}
    y = core.apply(of_core, functions[:, -1], list(functions.swapaxes(0, 1)))
    return module.apply(variables, x), y

  y, of_points = both(variables, x, jnp.asarray(functions))
  expected = np.asarray(of_points).reshape(b, h, w, 2, 3).transpose(0, 3, 1, 2, 4)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
