import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import convert, models
from stjax.convert import triton as names_lib

SMALL = dict(
  out_channels=1,
  spatial_features=8,
  temporal_features=24,
  spatial_depth=2,
  temporal_depth=3,
  mlp_ratio=2.0,
)
IN_SHAPE = (2, 4, 6, 3)
VARIANTS = {
  "attention": {},
  "conv": {"core_first": "conv"},
  "three layers": {"spatial_depth": 3},
  "equal width": {"core_first": "conv", "temporal_features": 16},
}


def options_of(variant):
  return SMALL | VARIANTS[variant]


@pytest.fixture(scope="module")
def make_state_dict():
  """Torch weights of a small Triton, all different, batch counters too."""

  def make(variant="attention"):
    module = models.build("triton", **options_of(variant))
    shapes = jax.eval_shape(
      lambda: module.init(jax.random.key(0), jnp.zeros((1, *IN_SHAPE)))
    )
    generator = np.random.default_rng(0)
    variables = jax.tree.map(
      lambda s: generator.standard_normal(s.shape).astype(np.float32), shapes
    )
    state_dict = to_torch(variables, variant)
    for number, key in enumerate(state_dict):
      if key.endswith("num_batches_tracked"):
        state_dict[key] = np.array(100 + number, np.int64)
    return state_dict

  return make


def to_stjax(state_dict, variant="attention"):
  return convert.to_stjax(
    "triton", state_dict, in_shape=IN_SHAPE, **options_of(variant)
  )


def to_torch(variables, variant="attention"):
  return convert.to_torch("triton", variables, in_shape=IN_SHAPE, **options_of(variant))


def assert_same(actual, expected):
  assert actual.keys() == expected.keys()
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    assert actual[key].shape == value.shape, key
    assert actual[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_come_back_bit_for_bit(make_state_dict, variant):
  state_dict = make_state_dict(variant)
  assert_same(to_torch(to_stjax(state_dict, variant), variant), state_dict)


def test_names_and_shapes_are_the_originals(make_state_dict):
  shapes = {key: x.shape for key, x in make_state_dict("conv").items()}

  def with_bias(name, *shape, bias=None):
    return {f"{name}.weight": shape, f"{name}.bias": (bias or shape[0],)}

  def norm(name, width):
    statistics = {f"{name}.running_{x}": (width,) for x in ("mean", "var")}
    counter = {f"{name}.num_batches_tracked": ()}
    return with_bias(name, width) | statistics | counter

  encoder, decoder = "atmospheric_encoder.enc.", "atmospheric_decoder.dec."
  expected = with_bias(f"{encoder}0.conv.conv", 8, 3, 3, 3)
  expected |= with_bias(f"{encoder}1.conv.conv", 8, 8, 3, 3)
  expected |= with_bias(f"{decoder}0.conv.conv", 8, 8, 3, 3)
  expected |= with_bias(f"{decoder}1.conv.conv", 8, 16, 3, 3)
  for name in (encoder, decoder):
    for i in (0, 1):
      expected |= with_bias(f"{name}{i}.conv.norm", 8)
  expected |= with_bias("atmospheric_decoder.readout", 1, 8, 1, 1)
  for i, width, resized in ((0, 16, 24), (2, 24, 16)):
    block = f"temporal_evolution.enc.{i}.block."
    expected |= with_bias(f"{block}pos_embed", width, 1, 3, 3)
    expected |= with_bias(f"{block}conv1", width, width, 1, 1)
    expected |= with_bias(f"{block}attn", width, 1, 5, 5)
    expected |= with_bias(f"{block}conv2", width, width, 1, 1)
    expected |= with_bias(f"{block}mlp.fc1", 2 * width, width, 1, 1)
    expected |= with_bias(f"{block}mlp.fc2", width, 2 * width, 1, 1)
    expected |= norm(f"{block}norm1", width) | norm(f"{block}norm2", width)
    expected |= with_bias(f"temporal_evolution.enc.{i}.reduction", resized, width, 1, 1)
  block = "temporal_evolution.enc.1.block."
  expected |= {f"{block}gamma_1": (24,), f"{block}gamma_2": (24,)}
  expected |= with_bias(f"{block}pos_embed", 24, 1, 3, 3)
  expected |= with_bias(f"{block}norm1", 24) | with_bias(f"{block}norm2", 24)
  expected |= with_bias(f"{block}attn.qkv", 72, 24)
  expected |= with_bias(f"{block}attn.proj", 24, 24)
  expected |= with_bias(f"{block}mlp.fc1", 48, 24)
  expected |= with_bias(f"{block}mlp.fc2", 24, 48)
  assert shapes == expected


def test_only_layers_that_double_the_grid_are_transposed(make_state_dict):
  state_dict = make_state_dict("three layers")
  decoder = to_stjax(state_dict, "three layers")["params"]["decoder"]
  key = "atmospheric_decoder.dec.{}.conv.conv.weight"
  for i in (0, 2):
    np.testing.assert_array_equal(
      decoder[f"layer_{i}"]["conv"]["kernel"],
      state_dict[key.format(i)].transpose(2, 3, 1, 0),
    )
  np.testing.assert_array_equal(
    decoder["layer_1"]["conv"]["kernel"],
    state_dict[key.format(1)][:, :, ::-1, ::-1].transpose(2, 3, 0, 1),
  )


def test_the_nesting_of_the_oceans_checkpoints_is_taken_off(make_state_dict):
  state_dict = make_state_dict()
  wrapped = {f"module.{key}": x for key, x in state_dict.items()}
  checkpoint = {"iters": 3, "epoch": 1, "model_state": wrapped}
  assert_same(to_torch(to_stjax(checkpoint)), state_dict)


def test_weights_of_the_other_core_are_refused(make_state_dict):
  message = r"enc\.0\.block\.conv1\.weight.*unused"
  with pytest.raises(convert.ConvertError, match=message):
    to_stjax(make_state_dict("conv"), "attention")


@pytest.mark.parametrize("variant", ["attention", "conv", "equal width"])
def test_the_core_is_known_by_its_weights(make_state_dict, variant):
  expected = VARIANTS[variant].get("core_first", "attention")
  assert names_lib.core_first(make_state_dict(variant)) == expected


@pytest.mark.parametrize(
  ("shape_in", "in_shape"), [((2, 3, 4, 6), (2, 4, 6, 3)), ((3, 4, 6), (1, 4, 6, 3))]
)
def test_the_originals_options_are_translated(shape_in, in_shape):
  options = names_lib.original_options(
    shape_in,
    spatial_hidden_dim=8,
    output_channels=1,
    temporal_hidden_dim=24,
    num_spatial_layers=2,
    num_temporal_layers=3,
    out_time_seq_length=40,
  )
  assert options.pop("in_shape") == in_shape
  assert options == {k: v for k, v in SMALL.items() if k != "mlp_ratio"}


def test_a_shape_without_channels_is_refused():
  with pytest.raises(convert.ConvertError, match=r"\(T, C, H, W\)"):
    names_lib.original_options((4, 6), 8, 1, 24)
