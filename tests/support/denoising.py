"""Small denoisers and batches; for tests of methods that diffuse."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.methods import diffusion
from stjax.models.denoisers.common import Denoiser

HORIZON = 2
GRID = (3, 2, 1)
VARIABLES = {"params": {"weights": jnp.asarray([0.3, -0.2, 0.5, 0.1])}}


class Linear(Denoiser):
  """A denoiser that is linear in all that it is given."""

  def setup(self):
    self.weights = self.param("weights", nn.initializers.constant(0.3), (4,))

  def encode(self, history):
    return self.weights[1] * history[:, -1:]

  def denoise(self, noisy, step, context, prior_shift, train=False):
    step = step.astype(jnp.float32)[:, None, None, None, None]
    return (
      self.weights[0] * noisy
      + context
      + self.weights[2] * prior_shift
      + 0.01 * self.weights[3] * step
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenShift(diffusion.Diffusion):
  """Plain diffusion whose prior shift is the drawn sign itself."""

  def prior_shift(self, frozen, sign):
    return sign


def make_batch(rows=4, first=0):
  """Some of eight random windows, [B, T, *GRID]."""
  rng = np.random.default_rng(0)
  full = {
    "inputs": rng.standard_normal((8, 3, *GRID)),
    "targets": rng.standard_normal((8, HORIZON, *GRID)),
  }
  batch = {
    k: jnp.asarray(v[first : first + rows], jnp.float32) for k, v in full.items()
  }
  batch["index"] = jnp.arange(first, first + rows, dtype=jnp.int32)
  return batch
