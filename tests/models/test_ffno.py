import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import drawn

from stjax import models
from stjax.models.ffno import FactorizedConv, FeedForward, WeightNormDense

SMALL = dict(horizon=2, features=4, modes_h=3, modes_w=4, depth=2, readout_features=8)


def build(**options):
  return models.build("ffno", **SMALL | options)


def draw(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def places(h, w):
  """Coordinates [1, H W, 2] of a grid that wraps around, along W and along H."""
  rows, columns = np.mgrid[:h, :w]
  points = np.stack([columns / w, rows / h], -1)
  return points.reshape(1, h * w, 2).astype(np.float32)


@pytest.mark.parametrize("grid", [(6, 9), (9, 8)])
def test_the_modes_of_each_axis_are_mapped_as_defined(grid):
  module, x = FactorizedConv(3, (3, 4)), draw(0, 2, *grid, 2)
  params = {"along_w": draw(1, 2, 4, 2, 3), "along_h": draw(2, 2, 3, 2, 3)}
  expected = 0
  for axis, name in ((2, "along_w"), (1, "along_h")):
    matrices = params[name][0] + 1j * params[name][1]
    spectrum = np.moveaxis(np.fft.rfft(x, axis=axis), axis, 2)
    mapped = np.einsum("blmi,mio->blmo", spectrum[:, :, : len(matrices)], matrices)
    mapped = np.fft.irfft(mapped, n=x.shape[axis], axis=2)
    expected = expected + np.moveaxis(mapped, 2, axis)
  actual = jax.jit(module.apply)({"params": params}, x)
  np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_points_of_a_regular_grid_give_the_modes_of_its_means():
  # Sums over points know one coordinate at a time, as means of rows do.
  x, params = draw(0, 1, 6, 8, 2), {"along_w": draw(1, 2, 4, 2, 3)}
  params["along_h"] = draw(2, 2, 3, 2, 3)
  module = FactorizedConv(3, (3, 4), grid=(6, 8))
  apply = jax.jit(functools.partial(module.apply, {"params": params}))
  from_points = apply(x.reshape(1, 48, 2), places(6, 8))
  along_w = {"along_w": params["along_w"], "along_h": 0 * params["along_h"]}
  along_h = {"along_w": 0 * params["along_w"], "along_h": params["along_h"]}
  expected = 0
  for part, axis in ((along_w, 1), (along_h, 2)):
    mean = np.broadcast_to(x.mean(axis, keepdims=True), x.shape)
    expected = expected + jax.jit(module.apply)({"params": part}, mean)
  np.testing.assert_allclose(from_points, expected, atol=1e-5)


@pytest.mark.slow
def test_means_do_not_depend_on_the_number_of_points_but_sums_do():
  points, x = draw(0, 1, 7, 2), draw(1, 1, 7, 3)
  for legacy, factor in ((False, 1), (True, 2)):
    module = FactorizedConv(2, (2, 3), (5, 6), legacy)
    variables = jax.jit(module.init)(jax.random.key(0), x, points)
    apply = jax.jit(functools.partial(module.apply, variables))
    twice = apply(np.tile(x, (1, 2, 1)), np.tile(points, (1, 2, 1)))
    np.testing.assert_allclose(twice, factor * apply(x, points), rtol=1e-4, atol=1e-5)


def test_a_mesh_network_works_on_points_in_any_order_and_unit():
  module = build(mesh=True, latent_grid=(6, 7))
  x = np.concatenate(
    [draw(0, 2, 3, 11, 1, 2), draw(1, 2, 1, 11, 1, 2).repeat(3, 1)], -1
  )
  forecast = jax.jit(functools.partial(module.apply, drawn(module, x.shape[1:])))
  y = forecast(x)
  assert y.shape == (2, 2, 11, 1, 2) and y.dtype == jnp.float32
  order = np.random.default_rng(2).permutation(11)
  np.testing.assert_allclose(forecast(x[:, :, order]), y[:, :, order], atol=1e-4)
  scaled = x * np.array([1, 1, 30, 0.2]) + np.array([0, 0, 100, -5])
  np.testing.assert_allclose(forecast(scaled), y, atol=1e-3)
  moved = x.copy()
  moved[..., 5, 0, 2] += 0.5
  assert jnp.abs(forecast(moved) - y)[:, :, 5].max() > 1e-3


def test_a_mesh_needs_coordinates():
  with pytest.raises(models.NetworkError, match="2 channels.*data.static"):
    build(mesh=True).init(jax.random.key(0), jnp.zeros((1, 2, 9, 1, 2)))


@pytest.mark.parametrize("latent_grid", [(4, 9), (9, 5)])
def test_modes_must_fit_the_latent_grid(latent_grid):
  module = build(mesh=True, latent_grid=latent_grid, modes_h=4)
  message = f"model.modes.*{latent_grid[0]} x {latent_grid[1]}; expected at most 3"
  with pytest.raises(models.NetworkError, match=message):
    module.init(jax.random.key(0), jnp.zeros((1, 2, 9, 1, 3)))


def test_only_directions_of_normed_kernels_count():
  module, x = WeightNormDense(5), draw(0, 2, 3)
  params = jax.jit(module.init)(jax.random.key(0), x)["params"]
  y = module.apply({"params": params}, x)
  np.testing.assert_allclose(y, x @ params["kernel"] + params["bias"], atol=1e-6)
  longer = params | {"kernel": 3 * params["kernel"]}
  np.testing.assert_allclose(module.apply({"params": longer}, x), y, atol=1e-6)
  scaled = params | {"scale": 2 * params["scale"]}
  np.testing.assert_allclose(
    module.apply({"params": scaled}, x), 2 * y - params["bias"], atol=1e-6
  )


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_feed_forward_networks_have_the_widths_asked_for(depth, weight_norm):
  module = FeedForward(3, depth, weight_norm, layer_norm=True)
  x = jnp.zeros((2, 4))
  params = jax.eval_shape(lambda key: module.init(key, x, False), jax.random.key(0))
  params = params["params"]
  shapes = [params[f"linear_{i}"]["kernel"].shape for i in range(depth)]
  assert shapes == {1: [(4, 4)], 3: [(4, 12), (12, 12), (12, 4)]}[depth]
  assert params["norm"]["scale"].shape == (4,)
  assert ("scale" in params["linear_0"]) == weight_norm


@pytest.mark.slow
def test_every_parameter_of_a_mesh_network_gets_a_gradient():
  module, x = build(mesh=True, latent_grid=(5, 8)), draw(0, 2, 3, 11, 1, 4)
  variables = drawn(module, x.shape[1:])
  loss = lambda v, x: jnp.mean(jnp.square(module.apply(v, x) - 1))  # noqa: E731
  gradients = jax.jit(jax.grad(loss, (0, 1)))(variables, x)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path
