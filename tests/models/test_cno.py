import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import drawn

from stjax import models

SHAPE = (3, 7, 9, 2)


@pytest.mark.slow
def test_the_necks_blocks_can_be_called_last_to_first():
  small = dict(features=4, depth=1, neck_blocks=2, lift_features=6)
  plain, turned = (
    models.build("cno", neck_reversed=on, **small) for on in (False, True)
  )
  x = jax.random.normal(jax.random.key(0), (2, *SHAPE))
  variables = drawn(plain, SHAPE)
  y, z = (jax.jit(module.apply)(variables, x) for module in (plain, turned))
  assert jnp.abs(y - z).max() > 1e-3

  def swap(tree):
    names = {"residual_1": "residual_2", "residual_2": "residual_1"}
    return {names.get(key, key): value for key, value in tree.items()}

  swapped = {key: swap(tree) for key, tree in variables.items()}
  np.testing.assert_allclose(jax.jit(turned.apply)(swapped, x), y, rtol=1e-5)
