"""Denoisers in two halves, `encode` and `denoise`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models
from stjax.models.denoisers import common
from stjax.models.layers.basic import Conv
from stjax.models.layers.folding import fold_frames, unfold_frames

B, T_IN, T_OUT, H, W, C = 3, 4, 2, 4, 6, 2
CALENDAR = dict(
  calendar_names=("slot_of_day", "day_of_week"),
  calendar_sizes=(6, 7),
  calendar_dims=(3, 4),
)
STID = dict(node_dim=5, embed_dim=6, num_layers=1, num_steps=9, step_dim=8) | CALENDAR
UNET = dict(features=4, depth=1, blocks=1, groups=2, step_dim=6)
DIFFCAST = dict(features=8, multipliers=(1, 2), groups=4, head_features=4)
NETWORKS = [
  ("diffcast", DIFFCAST),
  ("stid_denoiser", STID),
  ("stid_denoiser", STID | dict(full_window=True)),
  ("unet_denoiser", UNET),
  ("unet_denoiser", UNET | dict(padding_mode="circular")),
]


def arguments():
  keys = jax.random.split(jax.random.key(0), 2)
  history = jax.random.normal(keys[0], (B, T_IN, H, W, C))
  noisy, shift = jax.random.normal(keys[1], (2, B, T_OUT, H, W, C))
  return noisy, jnp.array([0, 8, 3]), history, shift


def calendar():
  return jax.random.randint(jax.random.key(4), (B, T_IN + T_OUT, 2), 0, 6)


def with_variables(name, options):
  """A network, its random variables, and what it reads besides."""
  module = models.build(name, horizon=T_OUT, **options)
  reads = {"calendar": calendar()} if name == "stid_denoiser" else {}
  shapes = jax.eval_shape(
    lambda key: module.init(key, *arguments(), **reads), jax.random.key(0)
  )
  generator = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda s: jnp.asarray(0.3 * generator.standard_normal(s.shape, np.float32)), shapes
  )
  return module, variables, reads


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_one_context_serves_many_noisy_fields(name, options):
  module, variables, reads = with_variables(name, options)
  noisy, step, history, shift = arguments()
  context = module.apply(variables, history, **reads, method="encode")
  # A loss of several fields repeats the rows of the context.
  assert {len(x) for x in jax.tree.leaves(context)} == {B}

  @jax.jit
  def whole(noisy, step):
    return module.apply(variables, noisy, step, history, shift, **reads)

  @jax.jit
  def half(context, noisy, step):
    return module.apply(variables, noisy, step, context, shift, method="denoise")

  for factor, steps in ((1, step), (-2, step[::-1])):
    expected = whole(factor * noisy, steps)
    found = half(context, factor * noisy, steps)
    # The context was made by another program, whose rounding norms of few channels
    # make larger.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale, rtol=0)
  other = module.apply(variables, 2 * history, **reads, method="encode")
  assert jnp.abs(half(other, noisy, step) - half(context, noisy, step)).max() > 1e-3


@pytest.mark.parametrize("full_window", [False, True])
def test_stid_in_halves_is_the_network_on_the_whole_window(full_window):
  options = STID | dict(full_window=full_window)
  module, variables, reads = with_variables("stid_denoiser", options)
  noisy, step, history, shift = arguments()
  if full_window:
    known = jnp.concatenate([history, shift], axis=1)
    unknown = jnp.concatenate([jnp.zeros_like(history), noisy], axis=1)
    window = fold_frames(jnp.concatenate([known, unknown], axis=-1))
    frames = T_IN + T_OUT
  else:
    parts = [fold_frames(part) for part in (history, shift, noisy)]
    window, frames = jnp.concatenate(parts, axis=-1), T_OUT
  expected = module.apply(variables, window, step, frames * C, **reads, method="window")
  found = module.apply(variables, noisy, step, history, shift, **reads)
  expected = unfold_frames(expected, frames)[:, -T_OUT:]
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)


def test_the_unets_first_layer_sees_noisy_field_history_and_shift():
  module, variables, _ = with_variables("unet_denoiser", UNET)
  noisy, step, history, shift = arguments()
  first = lambda module, _: module.name == "stem"  # noqa: E731
  _, state = module.apply(
    variables, noisy, step, history, shift, capture_intermediates=first
  )
  parts = state["intermediates"]["stem"]["__call__"]
  x = jnp.concatenate([fold_frames(x) for x in (noisy, history, shift)], axis=-1)
  stem = {"params": variables["params"]["stem"]}
  expected = Conv(UNET["features"], 3).apply(stem, x)
  assert len(parts) == 2
  np.testing.assert_allclose(sum(parts), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel_size", [(), (3, 3)])
def test_a_layer_in_parts_is_the_layer_and_starts_like_it(kernel_size):
  features, count = 5, 7
  split = common.SplitLayer(features, count, kernel_size)
  whole = Conv(features, 3) if kernel_size else common.dense(features, count, None)
  x = jax.random.normal(jax.random.key(1), (B, H, W, count))
  variables = whole.init(jax.random.key(2), x)
  first, second = np.array([1, 5]), np.array([0, 2, 3, 4, 6])
  started = split.init(jax.random.key(2), x[..., first], first, True)
  jax.tree.map(np.testing.assert_array_equal, started, variables)
  parts = [
    split.apply(variables, x[..., rows], rows, use_bias)
    for rows, use_bias in ((first, True), (second, False))
  ]
  np.testing.assert_allclose(
    sum(parts), whole.apply(variables, x), rtol=1e-5, atol=1e-6
  )
