import jax
import jax.numpy as jnp
import pytest

from stjax import models


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_every_frame_becomes_latents_on_a_coarser_grid(factor):
  module = models.build(
    "latent_head",
    backbone={"name": "fno", "features": 4, "modes_h": 2, "modes_w": 2, "horizon": 2},
    features=6,
    factor=factor,
  )
  latents, _ = jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.ones((1, 3, 8, 12, 1))
  )
  assert latents.shape == (1, 2, 8 // factor, 12 // factor, 6)
