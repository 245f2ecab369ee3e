import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import convert, models
from stjax.convert import layout, mapping
from stjax.convert import simvp as simvp_names
from stjax.models.translators import TRANSLATORS

OPTIONS = dict(
  spatial_features=8,
  temporal_features=16,
  spatial_depth=2,
  temporal_depth=3,
  mlp_ratio=2.0,
)
IN_SHAPE = (3, 16, 24, 2)


@pytest.fixture(scope="module")
def make_state_dict():
  """Torch weights of a small SimVP, all different, batch counters too."""

  def make(translator="gsta"):
    module = models.build("simvp", translator=translator, **OPTIONS)
    shapes = jax.eval_shape(
      lambda: module.init(jax.random.key(0), jnp.zeros((1, *IN_SHAPE)))
    )
    generator = np.random.default_rng(0)
    variables = jax.tree.map(
      lambda s: generator.standard_normal(s.shape).astype(np.float32), shapes
    )
    state_dict = to_torch(variables, translator)
    for number, key in enumerate(state_dict):
      if key.endswith("num_batches_tracked"):
        state_dict[key] = np.array(100 + number, np.int64)
    return state_dict

  return make


def to_stjax(state_dict, translator="gsta", **options):
  return convert.to_stjax(
    "simvp", state_dict, in_shape=IN_SHAPE, translator=translator, **OPTIONS | options
  )


def to_torch(variables, translator="gsta"):
  return convert.to_torch(
    "simvp", variables, in_shape=IN_SHAPE, translator=translator, **OPTIONS
  )


def assert_same(actual, expected):
  assert actual.keys() == expected.keys()
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    assert actual[key].shape == value.shape, key
    assert actual[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_weights_come_back_bit_for_bit(make_state_dict, translator):
  state_dict = make_state_dict(translator)
  variables = to_stjax(state_dict, translator)
  assert_same(to_torch(variables, translator), state_dict)


def test_converted_variables_are_those_of_the_network(make_state_dict):
  variables = to_stjax(make_state_dict())
  module = models.build("simvp", **OPTIONS)
  expected = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, *IN_SHAPE)))
  )
  assert jax.tree.structure(
    {"params": variables["params"], "batch_stats": variables["batch_stats"]}
  ) == jax.tree.structure(dict(expected))


def test_swin_gets_its_constant_buffers_back(make_state_dict):
  state_dict = make_state_dict("swin")
  masks = [key for key in state_dict if key.endswith("attn_mask")]
  # Only the second of three blocks shifts its windows.
  assert masks == ["hid.enc.1.block.attn_mask"]
  mask = state_dict[masks[0]]
  assert mask.shape == (2 * 3, 16, 16) and set(mask.ravel()) == {0.0, -100.0}
  index = state_dict["hid.enc.0.block.attn.relative_position_index"]
  assert index.dtype == np.int64 and index[0, 15] == 0 and index[15, 0] == 48


def test_buffers_of_another_grid_are_refused(make_state_dict):
  state_dict = make_state_dict("swin")
  with pytest.raises(convert.ConvertError, match="attn_mask.*in_shape"):
    convert.to_stjax(
      "simvp", state_dict, in_shape=(3, 16, 32, 2), translator="swin", **OPTIONS
    )


@pytest.mark.parametrize(
  "prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.model."]
)
def test_wrappers_prefixes_are_taken_off(make_state_dict, prefix):
  state_dict = make_state_dict()
  wrapped = {prefix + key: value for key, value in state_dict.items()}
  assert_same(to_torch(to_stjax(wrapped)), state_dict)


def test_a_checkpoints_nesting_is_taken_off(make_state_dict):
  state_dict = make_state_dict()
  checkpoint = {"epoch": 3, "state_dict": {"state_dict": state_dict}}
  assert_same(to_torch(to_stjax(checkpoint)), state_dict)


def test_missing_weights_are_listed(make_state_dict):
  state_dict = make_state_dict()
  del state_dict["dec.readout.weight"]
  del state_dict["hid.enc.1.block.norm1.running_var"]
  with pytest.raises(convert.ConvertError) as error:
    to_stjax(state_dict)
  assert "dec.readout.weight: missing" in str(error.value)
  assert "hid.enc.1.block.norm1.running_var: missing" in str(error.value)


def test_unused_weights_are_listed_unless_allowed(make_state_dict):
  state_dict = make_state_dict()
  extra = {"dead.weight": np.zeros(3), "hid.enc.9.block.norm1.bias": np.ones(2)}
  with pytest.raises(convert.ConvertError) as error:
    to_stjax(state_dict | extra)
  assert "dead.weight (3,): unused" in str(error.value)
  assert "hid.enc.9.block.norm1.bias (2,): unused" in str(error.value)
  with pytest.raises(convert.ConvertError, match=r"enc\.9"):
    to_stjax(state_dict | extra, allow_unused="^dead")
  variables = to_stjax(state_dict | extra, allow_unused=r"^dead|enc\.9")
  assert_same(to_torch(variables), state_dict)


def test_a_wrong_shape_is_named_with_the_expected_one(make_state_dict):
  state_dict = make_state_dict()
  state_dict["enc.enc.0.conv.conv.weight"] = np.zeros((8, 1, 3, 3))
  with pytest.raises(
    convert.ConvertError, match=r"\(8, 1, 3, 3\); expected \(8, 2, 3, 3\)"
  ):
    to_stjax(state_dict)


def test_weights_under_two_names_are_refused(make_state_dict):
  state_dict = make_state_dict()
  state_dict["module.dec.readout.bias"] = state_dict["dec.readout.bias"]
  with pytest.raises(convert.ConvertError, match="same weights"):
    to_stjax(state_dict)


def test_variables_without_a_torch_name_are_refused(make_state_dict):
  variables = to_stjax(make_state_dict())
  variables["params"]["head"] = {"kernel": np.zeros((2, 2))}
  with pytest.raises(convert.ConvertError, match="params/head/kernel"):
    to_torch(variables)


def test_an_unknown_family_lists_near_names():
  with pytest.raises(models.NetworkError, match="did you mean simvp"):
    convert.to_torch("simvpp", {}, in_shape=IN_SHAPE)


def test_the_originals_options_are_translated():
  options = simvp_names.original_options(
    in_shape=(10, 1, 64, 32), hid_S=64, N_S=3, model_type="Moga", C_out=2
  )
  assert options["in_shape"] == (10, 64, 32, 1)
  assert options["spatial_depth"] == 2  # What the original builds for 3.
  assert options["translator"] == "moganet"
  in_shape = options.pop("in_shape")
  module = models.build("simvp", **options)
  y, _ = jax.eval_shape(
    module.init_with_output, jax.random.key(0), jnp.zeros((1, *in_shape))
  )
  assert y.shape == (1, 10, 64, 32, 2)


def test_a_map_of_a_part_drops_both_prefixes():
  whole = mapping.NameMap(
    [
      mapping.Entry("a.{i}.fc", "b_{i}/dense", layout.LAYER),
      mapping.Entry("c", "c", layout.NORM),
    ]
  )
  part = whole.below("a.{i}.", "b_{i}/")
  assert part.path("fc.weight")[0] == "params/dense/kernel"
  assert part.key("params/dense/bias")[0] == "fc.bias"
  assert part.path("c.weight") is None
  assert whole.path("a.12.fc.bias")[0] == "params/b_12/dense/bias"


def test_grouped_kernels_and_linear_layers_are_transposed():
  weight = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
  kernel = layout.kernel_from_torch(weight)
  assert kernel.shape == (4, 5, 3, 2)
  assert kernel[3, 1, 2, 0] == weight[0, 2, 3, 1]
  np.testing.assert_array_equal(layout.kernel_to_torch(kernel), weight)
  np.testing.assert_array_equal(
    layout.kernel_from_torch(weight[..., 0, 0]), weight[..., 0, 0].T
  )


def test_transposed_convolutions_are_convolutions_of_the_spread_input():
  torch = pytest.importorskip("torch")
  module = torch.nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1, bias=False)
  x = np.random.default_rng(0).standard_normal((1, 2, 5, 3)).astype(np.float32)
  expected = module(torch.from_numpy(x)).detach().numpy()
  weight = module.weight.detach().numpy()
  kernel = layout.transposed_from_torch(weight)
  actual = jax.lax.conv_general_dilated(
    x.transpose(0, 2, 3, 1),
    kernel,
    (1, 1),
    [(2, 2), (2, 2)],
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  np.testing.assert_allclose(
    actual.transpose(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(layout.transposed_to_torch(kernel), weight)
