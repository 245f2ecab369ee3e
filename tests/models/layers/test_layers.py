"""Layers against XLA's own convolution, numbers by hand, and torch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from stjax import sharding
from stjax.errors import NetworkError
from stjax.models.layers import basic as layers

# C_in, C_out, kernel, stride, padding, dilation, groups
CASES = {
  "pointwise": (4, 6, 1, 1, None, 1, 1),
  "pointwise stride 2": (4, 6, 1, 2, 0, 1, 1),
  "dense": (3, 5, 3, 1, None, 1, 1),
  "dense stride 2": (6, 5, 3, 2, 1, 1, 1),
  "dense dilated": (4, 6, 5, 1, None, 2, 1),
  "dense even kernel": (4, 3, 4, 2, 1, 1, 1),
  "dense without padding": (4, 4, 3, 1, 0, 1, 1),
  "depthwise": (8, 8, 5, 1, None, 1, 8),
  "depthwise dilated": (6, 6, 7, 1, None, 3, 6),
  "depthwise oblong": (4, 4, (3, 5), 1, None, (2, 1), 4),
  "depthwise one-sided": (4, 4, 4, 1, ((1, 2), (2, 1)), 1, 4),
  "depthwise stride 2": (4, 4, 3, 2, 1, 1, 4),
  "grouped": (6, 8, 3, 1, None, 1, 2),
  "grouped stride 2": (6, 8, 5, 2, 2, 1, 2),
  "depthwise multiplier": (4, 8, 3, 1, None, 1, 4),
  "depthwise narrow": (4, 4, 3, 1, None, 1, 4),
  "depthwise of three": (4, 4, 3, 1, None, 3, 4),
  "depthwise wide": (520, 520, 3, 1, None, 1, 520),
}
SHAPE = (3, 9, 12)


def reference(x, kernel, stride, padding, dilation, groups, mode):
  """XLA's convolution, with the padding as an array operation."""
  size = kernel.shape[:2]
  dilation = (dilation, dilation) if isinstance(dilation, int) else dilation
  if padding is None:
    padding = [d * (k - 1) // 2 for d, k in zip(dilation, size, strict=True)]
  elif isinstance(padding, int):
    padding = [padding] * 2
  padding = [(p, p) if isinstance(p, int) else p for p in padding]
  mode = {"zeros": "constant", "circular": "wrap"}[mode]
  return lax.conv_general_dilated(
    jnp.pad(x, ((0, 0), *padding, (0, 0)), mode=mode),
    kernel,
    (stride, stride),
    "VALID",
    rhs_dilation=dilation,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def arrays(case, shape=SHAPE):
  c_in, c_out, size, *_, groups = case
  size = (size, size) if isinstance(size, int) else size
  x = jax.random.normal(jax.random.key(0), (*shape, c_in))
  kernel = jax.random.normal(jax.random.key(1), (*size, c_in // groups, c_out))
  return x, kernel


def gradients(convolution, *options):
  def loss(x, kernel):
    return jnp.sum(1 + jnp.sin(convolution(x, kernel, *options)))

  return jax.jit(jax.value_and_grad(loss, (0, 1)))


def assert_close(got, want, relative=2e-5):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(a, b, atol=relative * np.abs(b).max(), rtol=0)


def mesh_of(shape):
  if jax.device_count() < 8:
    pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
  names = ("data", "fsdp", "space")
  return jax.make_mesh(shape, names, (AxisType.Auto,) * 3)


@pytest.mark.parametrize(
  ("name", "mode", "shape"),
  [(name, "zeros", SHAPE) for name in CASES if CASES[name][0] < 100]
  + [
    (name, "circular", SHAPE)
    for name in (
      "dense",
      "dense even kernel",
      "depthwise dilated",
      "depthwise one-sided",
      "grouped stride 2",
    )
  ]
  + [
    ("dense stride 2", "zeros", (2, 10, 14)),  # The gradient goes by phases.
    # Seven rows make blocks of one, and sixteen make two of eight.
    ("depthwise of three", "circular", (2, 7, 5)),
    ("depthwise of three", "circular", (2, 16, 5)),
    # Rows are cut into blocks; 45 columns leave a ragged one.
    ("depthwise narrow", "zeros", (2, 3, 45)),
    ("depthwise wide", "zeros", (1, 3, 4)),  # Channels are cut into parts.
  ],
)
def test_convolution_and_its_gradients_equal_xla(name, mode, shape):
  case = CASES[name]
  options = (*case[3:], mode)
  x, kernel = arrays(case, shape)
  want = reference(x, kernel, *options)
  assert_close(layers.conv2d(x, kernel, *options), want)
  got = gradients(layers.conv2d, *options)(x, kernel)
  assert_close(got, gradients(reference, *options)(x, kernel))


@pytest.mark.parametrize("name", ["dense", "depthwise dilated", "grouped"])
def test_gradients_inside_scan_equal_xla_outside(name):
  options = (*CASES[name][3:], "zeros")
  x, kernel = arrays(CASES[name])
  step = gradients(layers.conv2d, *options)

  def body(total, x):
    _, (x_gradient, kernel_gradient) = step(x, kernel)
    return total + kernel_gradient, x_gradient

  xs = jnp.stack([x, 2 * x])
  got = jax.jit(lambda xs: lax.scan(body, jnp.zeros_like(kernel), xs))(xs)
  each = [gradients(reference, *options)(x, kernel)[1] for x in xs]
  want = each[0][1] + each[1][1], jnp.stack([each[0][0], each[1][0]])
  assert_close(got, want)


@pytest.mark.parametrize("name", ["pointwise", "dense", "depthwise", "grouped"])
def test_bfloat16_keeps_output_dtype_and_float32_kernel_gradient(name):
  options = (*CASES[name][3:], "zeros")
  x, kernel = arrays(CASES[name])
  small = x.astype(jnp.bfloat16)
  assert layers.conv2d(small, kernel, *options).dtype == jnp.bfloat16
  _, (x_gradient, kernel_gradient) = gradients(layers.conv2d, *options)(small, kernel)
  assert (x_gradient.dtype, kernel_gradient.dtype) == (jnp.bfloat16, jnp.float32)
  want = gradients(reference, *options)(x, kernel)[1][1]
  assert_close(kernel_gradient, want, relative=0.05)


@pytest.mark.parametrize(
  ("name", "shape"),
  [
    ("dense", (8, 1, 1)),
    ("dense", (2, 2, 2)),
    ("dense stride 2", (2, 4, 1)),
    ("depthwise dilated", (2, 4, 1)),
    ("depthwise dilated", (1, 1, 8)),
    ("grouped", (2, 4, 1)),
  ],
)
def test_split_batch_and_rows_give_one_device_result(name, shape):
  mesh = mesh_of(shape)
  options = (*CASES[name][3:], "zeros")
  # Time is folded into the batch, as the networks do it.
  x, kernel = arrays(CASES[name], (8, 2, 16, 12))

  def loss(x, kernel):
    x = x.reshape(-1, *x.shape[2:])
    return jnp.sum(1 + jnp.sin(layers.conv2d(x, kernel, *options)))

  step = jax.value_and_grad(loss, (0, 1))
  want = jax.jit(step)(x, kernel)
  rows = NamedSharding(mesh, P(("data", "fsdp"), None, "space"))
  whole = NamedSharding(mesh, P())
  with sharding.use_mesh(mesh):
    compiled = jax.jit(step, in_shardings=(rows, whole)).lower(x, kernel).compile()
  got = compiled(jax.device_put(x, rows), jax.device_put(kernel, whole))
  assert_close(jax.device_get(got), want)
  if shape[2] == 1:
    moved = re.findall(r"(all-gather|all-to-all|permute)\S*\(", compiled.as_text())
    assert not moved, "activations must stay on their devices"


def test_batch_that_devices_do_not_divide_gives_one_device_result():
  mesh = mesh_of((8, 1, 1))
  options = (*CASES["depthwise"][3:], "zeros")
  x, kernel = arrays(CASES["depthwise"])
  step = gradients(layers.conv2d, *options)
  want = step(x, kernel)
  with sharding.use_mesh(mesh):
    got = gradients(layers.conv2d, *options)(x, kernel)
  assert_close(got, want)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"groups": 3}, "groups"),
    ({"stride": 0}, "stride"),
    ({"padding": -1}, "padding"),
    ({"padding_mode": "reflect"}, "circular"),
  ],
)
def test_options_that_do_not_fit_are_named(options, words):
  x, kernel = arrays(CASES["dense"])
  with pytest.raises(NetworkError, match=words):
    layers.conv2d(x, kernel, **options)


def test_conv_adds_its_bias_and_draws_within_torch_bounds():
  module = layers.Conv(64, (3, 5), stride=2, groups=2)
  x = jax.random.normal(jax.random.key(0), (2, 9, 8, 4))
  y, variables = module.init_with_output(jax.random.key(1), x)
  kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
  assert kernel.shape == (3, 5, 2, 64) and bias.shape == (64,)
  assert y.shape == (2, 5, 4, 64)
  bound = 1 / np.sqrt(3 * 5 * 2)
  for values in (kernel, bias):
    assert 0.9 * bound < float(jnp.abs(values).max()) <= bound
  assert_close(y, layers.conv2d(x, kernel, 2, None, 1, 2) + bias)


def spread_convolution(x, kernel, padding_mode):
  """XLA's convolution of the input with zeros after each row and column."""
  spread = jnp.stack([x, jnp.zeros_like(x)], 3).reshape(*x.shape[:2], -1, 3)
  spread = jnp.stack([spread, jnp.zeros_like(spread)], 2)
  spread = spread.reshape(x.shape[0], -1, *spread.shape[3:])
  pads = {2: (1, 0), 3: (1, 1), 4: (2, 1)}[len(kernel)]
  if padding_mode == "circular":
    spread = jnp.pad(spread, ((0, 0), pads, pads, (0, 0)), mode="wrap")
    pads = (0, 0)
  return jax.lax.conv_general_dilated(
    spread, kernel, (1, 1), (pads, pads), dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_a_transposed_convolution_is_one_of_the_spread_input(padding_mode, size):
  x, _ = arrays(CASES["dense"], (2, 4, 7))
  kernel = jax.random.normal(jax.random.key(size), (size, size, 3, 5))

  def run(convolution):
    def loss(x, kernel):
      y = convolution(x, kernel, padding_mode)
      return jnp.sum(1 + jnp.sin(y)), y

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)

  (_, y), gradients = run(layers.transposed_conv2d)
  assert y.shape == (2, 8, 14, 5)
  (_, want), wanted = run(spread_convolution)
  assert_close(y, want)
  for got, gradient in zip(gradients, wanted, strict=True):
    assert_close(got, gradient)


@pytest.mark.parametrize("shape", [(5, 5, 3, 4), (2, 3, 3, 4), (3, 3, 3)])
def test_a_transposed_convolution_of_another_size_is_refused(shape):
  x, _ = arrays(CASES["dense"])
  with pytest.raises(NetworkError, match="k, k, C_in, C_out.*2, 3 or 4"):
    layers.transposed_conv2d(x, jnp.zeros(shape))


@pytest.mark.parametrize(("size", "padding"), [(2, (0, 0)), (3, (1, 1)), (4, (1, 0))])
def test_a_transposed_layer_equals_torchs_and_draws_as_it_does(size, padding):
  torch = pytest.importorskip("torch")
  x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
  module = layers.TransposedConv(64, kernel_size=size)
  y, variables = module.init_with_output(jax.random.key(1), x)
  theirs = torch.nn.ConvTranspose2d(4, 64, size, 2, *padding)
  kernel, bias = (variables["params"][name] for name in ("kernel", "bias"))
  with torch.no_grad():
    for values, parameter in ((kernel, theirs.weight), (bias, theirs.bias)):
      bound = 1 / np.sqrt(size**2 * 64)
      for drawn in (np.asarray(values), parameter.numpy()):
        assert 0.9 * bound < np.abs(drawn).max() <= bound
    turned = np.asarray(kernel)[::-1, ::-1].transpose(2, 3, 0, 1)
    theirs.weight.copy_(torch.from_numpy(turned.copy()))
    theirs.bias.copy_(torch.from_numpy(np.array(bias)))
    want = theirs(torch.from_numpy(np.array(x)).permute(0, 3, 1, 2))
  assert_close(y, want.permute(0, 2, 3, 1).numpy())


def test_he_fan_out_counts_the_channels_of_one_group():
  module = layers.Conv(512, 5, groups=512, kernel_init=layers.he_fan_out)
  variables = module.init(jax.random.key(0), jnp.zeros((1, 5, 5, 512)))
  std = float(variables["params"]["kernel"].std())
  assert std == pytest.approx(np.sqrt(2 / 25), rel=0.03)


def test_truncated_normal_cuts_at_two_not_at_two_deviations():
  draw = layers.truncated_normal(0.5)(jax.random.key(0), (200, 200))
  assert float(draw.std()) == pytest.approx(0.5, rel=0.02)
  assert 1.5 < float(jnp.abs(draw).max()) <= 2


def test_batch_norm_normalises_by_biased_and_stores_unbiased_variance():
  x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(2, 2, 1, 1)
  module = layers.BatchNorm(momentum=0.1, eps=0.0)
  variables = module.init(jax.random.key(0), x, train=True)
  assert float(variables["batch_stats"]["mean"][0]) == 0
  y, update = module.apply(variables, x, train=True, mutable=["batch_stats"])
  # Mean 4, biased variance 5, unbiased 20 / 3.
  np.testing.assert_allclose(y.ravel(), np.array([-3, -1, 1, 3]) / np.sqrt(5))
  np.testing.assert_allclose(update["batch_stats"]["mean"], 0.4, rtol=1e-6)
  np.testing.assert_allclose(
    update["batch_stats"]["var"], 0.9 + 0.1 * 20 / 3, rtol=1e-6
  )
  fixed = module.apply(variables | update, x, train=False)
  want = (np.array([1, 3, 5, 7]) - 0.4) / np.sqrt(0.9 + 2 / 3)
  np.testing.assert_allclose(fixed.ravel(), want, rtol=1e-6)


@pytest.mark.parametrize(
  ("module", "shape", "axes"),
  [
    (layers.BatchNorm(train=True), (3, 5, 4, 6), (0, 1, 2)),
    (layers.GroupNorm(groups=3), (3, 5, 4, 3, 2), (1, 2, 4)),
    (layers.LayerNorm(axes=3), (3, 5, 4, 6), (1, 2, 3)),
  ],
)
def test_gradients_of_norms_equal_those_of_the_formula(module, shape, axes):
  x = 3 + jax.random.normal(jax.random.key(0), (3, 5, 4, 6))
  variables = module.init(jax.random.key(1), x)
  size = variables["params"]["scale"].size
  params = {
    name: jnp.linspace(*ends, size).reshape(variables["params"][name].shape)
    for name, ends in (("scale", (0.5, 2)), ("bias", (-1, 1)))
  }

  def plain(x, params):
    z = x.reshape(shape)
    z = z - z.mean(axes, keepdims=True)
    z = z / jnp.sqrt(jnp.square(z).mean(axes, keepdims=True) + 1e-5)
    return jnp.sum(jnp.sin(z.reshape(x.shape) * params["scale"] + params["bias"]))

  def layer(x, params):
    y, _ = module.apply(variables | {"params": params}, x, mutable=["batch_stats"])
    return jnp.sum(jnp.sin(y))

  got = jax.grad(layer, (0, 1))(x, params)
  assert_close(got, jax.grad(plain, (0, 1))(x, params))


def test_group_norm_takes_statistics_of_each_sample_and_group():
  x = jnp.array([[[[1.0, 3.0, 10.0, 30.0]]], [[[2.0, 2.5, 0.0, 4.0]]]])
  module = layers.GroupNorm(groups=2, eps=0.0)
  y, variables = module.init_with_output(jax.random.key(0), x)
  want = np.array([-1, 1, -1, 1])
  np.testing.assert_allclose(y.reshape(2, 4), [want, want], rtol=1e-5)
  params = {"scale": jnp.arange(4.0), "bias": jnp.ones(4)}
  y = module.apply({"params": params}, x)
  np.testing.assert_allclose(y[0, 0, 0], [1, 2, -1, 4], rtol=1e-5)


def test_norms_compute_in_float32_for_bfloat16_inputs():
  x = (1000 + jax.random.normal(jax.random.key(0), (4, 5, 3, 2))).astype(jnp.bfloat16)
  y, _ = layers.GroupNorm(2).init_with_output(jax.random.key(1), x)
  exact, _ = layers.GroupNorm(2).init_with_output(
    jax.random.key(1), x.astype(jnp.float32)
  )
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0.01, atol=0.01)


def test_layer_norm_normalises_the_last_axis():
  x = jnp.array([[1.0, 3.0], [5.0, 1.0]])
  y, _ = layers.LayerNorm(eps=0.0).init_with_output(jax.random.key(0), x)
  np.testing.assert_allclose(y, [[-1, 1], [1, -1]])


def test_pixel_shuffle_moves_channels_to_pixels_in_torch_order():
  x = jnp.arange(2 * 3 * 8.0).reshape(1, 2, 3, 8)
  y = layers.pixel_shuffle(x, 2)
  assert y.shape == (1, 4, 6, 2)
  for i, j, a, b, c in np.ndindex(2, 3, 2, 2, 2):
    assert y[0, 2 * i + a, 2 * j + b, c] == x[0, i, j, 4 * c + 2 * a + b]
  with pytest.raises(NetworkError, match="6 channels"):
    layers.pixel_shuffle(x[..., :6], 2)


@pytest.mark.parametrize("name", ["BatchNorm2d", "GroupNorm", "PixelShuffle"])
def test_layers_equal_torch(name):
  torch = pytest.importorskip("torch")
  x = np.asarray(jax.random.normal(jax.random.key(0), (3, 5, 4, 8)))
  ours, theirs = {
    "BatchNorm2d": (layers.BatchNorm(), torch.nn.BatchNorm2d(8)),
    "GroupNorm": (layers.GroupNorm(2), torch.nn.GroupNorm(2, 8)),
    "PixelShuffle": (None, torch.nn.PixelShuffle(2)),
  }[name]
  want = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).detach()
  if ours is None:
    got = layers.pixel_shuffle(x, 2)
  else:
    train = (True,) if name == "BatchNorm2d" else ()
    variables = ours.init(jax.random.key(1), x, *train)
    got, update = ours.apply(variables, x, *train, mutable=["batch_stats"])
    if train:
      np.testing.assert_allclose(
        update["batch_stats"]["var"], theirs.running_var, rtol=1e-6
      )
  np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), atol=2e-6)


def test_drop_path_is_the_identity_at_rate_zero_and_when_not_training():
  x = jax.random.normal(jax.random.key(0), (5, 2, 3, 4))
  np.testing.assert_array_equal(layers.DropPath(0.0).apply({}, x, True), x)
  np.testing.assert_array_equal(layers.DropPath(0.7).apply({}, x, False), x)


def test_drop_path_drops_whole_samples_and_keeps_the_expectation():
  x = jnp.ones((4000, 1, 2, 3))
  rngs = {"dropout": jax.random.key(0)}
  y = layers.DropPath(0.25).apply({}, x, True, rngs=rngs)
  assert set(np.unique(y)) <= {0.0, np.float32(1 / 0.75)}
  assert (y == y[:, :1, :1, :1]).all()
  assert float(y.mean()) == pytest.approx(1, abs=0.03)
