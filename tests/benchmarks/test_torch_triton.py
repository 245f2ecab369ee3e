"""The torch Triton of the benchmarks is that of stjax, and so its rollouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import convert, methods, models

torch = pytest.importorskip("torch")
torch_blocks = pytest.importorskip("benchmarks.torch_blocks")
torch_triton = pytest.importorskip("benchmarks.torch_triton")

FRAMES, HEIGHT, WIDTH, CHANNELS = IN_SHAPE = (2, 8, 12, 3)
HORIZON = 3  # A whole block and a part of one.
OPTIONS = dict(
  spatial_features=8,
  temporal_features=24,
  spatial_depth=2,
  temporal_depth=3,
  mlp_ratio=2.0,
  drop_path=0.0,
)


def lively(network, x):
  """Variables of which every block counts, whatever the initial scales."""
  shapes = jax.eval_shape(network.init, jax.random.key(0), x)
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    scales = path[-1].key in ("scale", "var", "scale_1", "scale_2")
    value = (
      rng.uniform(0.5, 1.5, leaf.shape)
      if scales
      else (0.2 * rng.standard_normal(leaf.shape))
    )
    return value.astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def twins(core_first):
  """Network, its variables, and the torch twin of both."""
  options = OPTIONS | {"core_first": core_first}
  network = models.build("triton", **options)
  variables = lively(network, np.zeros((1, *IN_SHAPE), np.float32))
  weights = convert.to_torch("triton", variables, in_shape=IN_SHAPE, **options)
  twin = torch_triton.Triton(FRAMES, CHANNELS, **options)
  twin.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
  return network, variables, twin


def batch():
  rng = np.random.default_rng(0)
  inputs = rng.standard_normal((2, *IN_SHAPE), np.float32)
  targets = rng.standard_normal((2, HORIZON, *IN_SHAPE[1:]), np.float32)
  return inputs, targets


def first_axes(x):
  return torch.from_numpy(np.moveaxis(x, -1, 2).copy())


def assert_close(actual, expected, error, tolerance):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    actual / scale, expected / scale, atol=tolerance, rtol=0, err_msg=error
  )


@pytest.mark.parametrize("core_first", ["attention", "conv"])
def test_torch_triton_with_converted_weights_equals_stjax(core_first):
  network, variables, twin = twins(core_first)
  x, _ = batch()
  expected = jax.jit(network.apply)(variables, x)
  with torch.no_grad():
    actual = twin.eval()(first_axes(x)).numpy()
  assert_close(np.moveaxis(actual, 2, -1), expected, "forecast", 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("core_first", ["attention", "conv"])
def test_gradients_through_a_torch_rollout_equal_those_of_stjax(core_first):
  network, variables, twin = twins(core_first)
  inputs, targets = batch()
  method = methods.build("regression", network, horizon=HORIZON)

  def loss(params):
    known = {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(targets)}
    changed = variables | {"params": params}
    return method.loss(changed, {}, known, jax.random.key(0), True)[0]

  value, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
  options = OPTIONS | {"in_shape": IN_SHAPE, "core_first": core_first}
  expected = convert.to_torch("triton", {"params": gradients}, **options)
  for remat in (False, True):
    twin.train().zero_grad()
    forecast = torch_triton.Rollout(twin, HORIZON, remat)(first_axes(inputs))
    torch_loss = torch.nn.functional.mse_loss(forecast, first_axes(targets))
    torch_loss.backward()
    assert_close(torch_loss.detach().numpy(), value, "loss", 1e-5)
    for name, parameter in twin.named_parameters():
      assert_close(parameter.grad.numpy(), expected[name], name, 1e-5)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
  torch.manual_seed(0)
  drop = torch_blocks.DropPath(0.25)
  y = drop(torch.ones(4000, 2, 3))
  of_samples = y[:, 0, 0]
  np.testing.assert_array_equal(y, of_samples[:, None, None].expand_as(y))
  np.testing.assert_allclose(of_samples.unique(), [0, 4 / 3], rtol=1e-6)
  np.testing.assert_allclose(y.mean(), 1, atol=0.03)
  np.testing.assert_array_equal(drop.eval()(y), y)
