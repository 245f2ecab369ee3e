import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import models
from stjax.models.simvp import SimVP
from stjax.models.translators import TRANSLATORS
from stjax.models.translators.metaformer import drop_path_rates, fold_time, unfold_time

# Published sizes of SimVP on Moving MNIST, in parameters.
SIZES = {
  "incepu": 57_946_113,
  "gsta": 46_769_665,
  "convmixer": 3_919_361,
  "convnext": 37_313_921,
  "hornet": 45_738_305,
  "mlpmixer": 38_192_449,
  "moganet": 46_777_065,
  "poolformer": 37_115_393,
  "swin": 46_105_409,
  "uniformer": 44_834_817,
  "van": 44_520_833,
  "vit": 46_102_273,
  "tau": 44_656_001,
}
SMALL = dict(
  spatial_features=8,
  temporal_features=16,
  spatial_depth=2,
  temporal_depth=2,
  mlp_ratio=2.0,
)
FRAMES, HEIGHT, WIDTH = 2, 8, 12

# Each program runs once or twice: compiling it counts, not its speed.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def inputs(seed=0, batch=2, shape=(FRAMES, HEIGHT, WIDTH, 1)):
  return jax.random.normal(jax.random.key(seed), (batch, *shape))


def build(**options):
  return models.build("simvp", **SMALL | options)


def lively(module, x):
  """Initial variables, with scales so large that every block counts."""
  variables = jit(module.init)(jax.random.key(1), x)

  def enlarge(path, value):
    name = path[-1].key
    return jnp.ones_like(value) if name.startswith("scale") else value

  return jax.tree_util.tree_map_with_path(enlarge, variables)


def parameter_count(module, shape):
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape)))
  )
  return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_the_published_networks_have_their_number_of_parameters(translator):
  module = models.build("simvp", translator=translator)
  assert parameter_count(module, (10, 64, 64, 1)) == SIZES[translator]


def test_the_smallest_published_network_has_its_number_of_parameters():
  module = models.build(
    "simvp", spatial_features=8, temporal_features=16, spatial_depth=2, temporal_depth=2
  )
  assert parameter_count(module, (10, 64, 64, 1)) == 156_233


def test_the_forecast_may_have_other_channels_than_the_history():
  module = build(out_channels=3)
  x = inputs(shape=(FRAMES, HEIGHT, WIDTH, 2))
  y, _ = jax.eval_shape(
    functools.partial(module.init_with_output, train=True), jax.random.key(0), x
  )
  assert y.shape == (2, FRAMES, HEIGHT, WIDTH, 3)
  assert y.dtype == jnp.float32


def test_time_is_folded_frame_by_frame():
  x = jnp.arange(2 * 3 * 2 * 2 * 5).reshape(2, 3, 2, 2, 5)
  folded = fold_time(x)
  np.testing.assert_array_equal(folded[..., 1 * 5 + 4], x[:, 1, ..., 4])
  np.testing.assert_array_equal(unfold_time(folded, 3), x)


@pytest.mark.parametrize(
  ("last", "legacy", "expected"),
  [
    (0.0, False, [0.0, 0.0, 0.0]),
    (0.2, False, [0.0, 0.1, 0.2]),
    (0.0, True, [0.01, 0.005, 0.0]),
  ],
)
def test_stochastic_depth_rises_to_the_last_block(last, legacy, expected):
  np.testing.assert_allclose(drop_path_rates(3, last, legacy), expected)


@pytest.mark.slow
def test_no_stochastic_depth_means_none():
  # With drop_path=0 a training pass is the same whatever the random key.
  module, x = build(), inputs()
  variables = lively(module, x)
  run = jit(
    lambda key: module.apply(
      variables, x, True, rngs={"dropout": key}, mutable=["batch_stats"]
    )[0]
  )
  np.testing.assert_array_equal(run(jax.random.key(0)), run(jax.random.key(1)))


@pytest.mark.slow
def test_stochastic_depth_and_dropout_change_training_passes_only():
  module, x = build(drop_path=0.9, dropout=0.5), inputs(batch=4)
  variables = lively(module, x)
  train = jit(
    lambda key: module.apply(
      variables, x, True, rngs={"dropout": key}, mutable=["batch_stats"]
    )[0]
  )
  first, second = train(jax.random.key(0)), train(jax.random.key(1))
  assert jnp.abs(first - second).max() > 1e-3
  jax.eval_shape(module.apply, variables, x)  # Needs no random key.


@pytest.mark.slow
@pytest.mark.parametrize("translator", ["gsta", "incepu"])
def test_recomputing_blocks_changes_no_gradient(translator):
  x = inputs()
  gradients = []
  for remat in (False, True):
    module = build(translator=translator, remat=remat)
    variables = lively(module, x)

    def loss(params, module=module, variables=variables):
      y, _ = module.apply(
        variables | {"params": params}, x, True, mutable=["batch_stats"]
      )
      return jnp.mean(jnp.square(y))

    gradients.append(jit(jax.grad(loss))(variables["params"]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *gradients
  )


@pytest.mark.slow
@pytest.mark.parametrize("translator", ["gsta", "uniformer"])
def test_bfloat16_is_close_to_float32(translator):
  x = inputs()
  exact = build(translator=translator)
  variables = lively(exact, x)
  rough = build(translator=translator, dtype="bfloat16")
  y = jit(exact.apply)(variables, x)
  z = jit(rough.apply)(variables, x)
  assert z.dtype == jnp.float32
  error = jnp.abs(y - z).max() / jnp.abs(y).max()
  assert 0 < error < 0.05
  leaves = jax.tree.leaves(jax.eval_shape(rough.init, jax.random.key(0), x))
  assert {leaf.dtype.name for leaf in leaves} == {"float32"}


@pytest.mark.slow
@pytest.mark.parametrize("translator", ["gsta", "incepu", "poolformer", "uniformer"])
def test_circular_padding_has_no_preferred_place(translator):
  # Rolling by multiples of the down-sampling factor (2) rolls the forecast.
  module, x = build(translator=translator, padding_mode="circular"), inputs()
  variables = lively(module, x)
  forecast = jit(lambda x: module.apply(variables, x))
  rolled = forecast(jnp.roll(x, (2, -4), (2, 3)))
  np.testing.assert_allclose(
    rolled, jnp.roll(forecast(x), (2, -4), (2, 3)), rtol=1e-4, atol=1e-5
  )


def test_zero_padding_has_a_preferred_place():
  module, x = build(), inputs()
  variables = lively(module, x)
  forecast = jit(lambda x: module.apply(variables, x))
  rolled = forecast(jnp.roll(x, 2, 2))
  error = jnp.abs(rolled - jnp.roll(forecast(x), 2, 2)).max()
  assert error > 1e-3


def test_the_first_frame_counts_for_the_last_forecast():
  module, x = build(), inputs(batch=1)
  variables = lively(module, x)
  last = jit(lambda x: module.apply(variables, x)[0, -1])
  change = last(x.at[0, 0, 3, 4].add(1.0)) - last(x)
  assert jnp.abs(change).max() > 1e-6


def test_a_grid_that_cannot_be_halved_is_refused():
  module = build(spatial_depth=4)
  with pytest.raises(models.NetworkError, match="6 x 8.*model.spatial_depth"):
    module.init(jax.random.key(0), jnp.zeros((1, 2, 6, 8, 1)))


def test_an_input_without_time_is_refused():
  with pytest.raises(models.NetworkError, match=r"\[B, T, H, W, C\]"):
    build().init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"translator": "gstaa"}, "did you mean gsta"),
    ({"spatial_depth": 3}, "spatial_depth is 3; expected an even"),
    ({"temporal_depth": 1}, "temporal_depth is 1"),
    ({"mlp_ratio": 1.0}, "mlp_ratio is 1.0"),
    ({"spatial_features": 7}, "spatial_features is 7"),
    ({"drop_path": 1.5}, "drop_path is 1.5"),
    ({"padding_mode": "circle"}, "did you mean circular"),
    ({"temporal_feature": 8}, "did you mean temporal_features"),
  ],
)
def test_wrong_options_are_refused_by_name(options, message):
  with pytest.raises(models.NetworkError, match=message):
    models.build("simvp", **options)


def test_an_unknown_network_lists_near_names():
  with pytest.raises(models.NetworkError, match="did you mean simvp"):
    models.build("simpv")


@pytest.mark.parametrize(
  ("translator", "message"),
  [
    ("vit", "8 heads"),
    ("hornet", "eighths"),
    ("moganet", "eighths"),
    ("incepu", "8 groups"),
  ],
)
def test_widths_that_do_not_divide_are_refused(translator, message):
  # Three frames of 6 channels are 18 wide.
  module = SimVP(
    spatial_features=6,
    temporal_features=16,
    spatial_depth=2,
    temporal_depth=3,
    translator=translator,
  )
  with pytest.raises(models.NetworkError, match=message):
    module.init(jax.random.key(0), jnp.zeros((1, 3, 8, 8, 1)))


def test_swin_refuses_a_grid_that_its_windows_do_not_tile():
  module = build(translator="swin")
  with pytest.raises(models.NetworkError, match="windows of 4 x 4.*5 x 8"):
    module.init(jax.random.key(0), jnp.zeros((1, 2, 10, 16, 1)))
