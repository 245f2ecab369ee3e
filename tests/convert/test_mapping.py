"""What all families of weights have in common, shown by one of them."""

import jax
import numpy as np
import pytest
from torch_weights import (
  NETWORKS,
  assert_same_weights,
  to_stjax,
  to_torch,
  torch_weights,
)

from stjax import convert, models
from stjax.convert import layout, mapping


@pytest.mark.parametrize(
  "prefix",
  ["model.", "_orig_mod.", "param/", "module._orig_mod.model.", "param/module."],
)
def test_prefixes_of_wrappers_are_taken_off(prefix):
  state_dict = torch_weights("stid")
  wrapped = {prefix + key: value for key, value in state_dict.items()}
  assert_same_weights(to_torch("stid", to_stjax("stid", wrapped)), state_dict)


@pytest.mark.parametrize(
  "nest",
  [
    lambda weights: {"epoch": 3, "state_dict": {"state_dict": weights}},
    lambda weights: {"iters": 3, "epoch": 1, "model_state": weights},
  ],
)
def test_nestings_of_checkpoints_are_taken_off(nest):
  state_dict = torch_weights("stid")
  assert_same_weights(to_torch("stid", to_stjax("stid", nest(state_dict))), state_dict)


def test_unused_weights_are_listed_unless_allowed():
  state_dict = torch_weights("simvp")
  # The second has a name, but the network has no such block.
  extra = {"dead.weight": np.zeros(3), "hid.enc.9.block.norm1.bias": np.ones(2)}
  with pytest.raises(convert.ConvertError) as error:
    to_stjax("simvp", state_dict | extra)
  assert "dead.weight (3,): unused" in str(error.value)
  assert "hid.enc.9.block.norm1.bias (2,): unused" in str(error.value)
  with pytest.raises(convert.ConvertError, match=r"enc\.9"):
    to_stjax("simvp", state_dict | extra, allow_unused="^dead")
  variables = to_stjax("simvp", state_dict | extra, allow_unused=r"^dead|enc\.9")
  assert_same_weights(to_torch("simvp", variables), state_dict)


def test_weights_under_two_names_are_refused():
  state_dict = torch_weights("stid")
  state_dict["module.node_emb"] = state_dict["node_emb"]
  with pytest.raises(convert.ConvertError, match="same weights as node_emb"):
    to_stjax("stid", state_dict)


def test_variables_without_a_torch_name_are_refused():
  variables = to_stjax("stid", torch_weights("stid"))
  variables["params"]["head"] = {"kernel": np.zeros((2, 2))}
  with pytest.raises(convert.ConvertError, match="params/head/kernel"):
    to_torch("stid", variables)


def test_an_unknown_family_lists_near_names():
  with pytest.raises(models.NetworkError, match="did you mean 'simvp'"):
    convert.to_torch("simvpp", {}, in_shape=NETWORKS["simvp"]["in_shape"])


def test_complex_weights_do_not_fit_real_ones():
  state_dict = torch_weights("stid")
  state_dict["node_emb"] = state_dict["node_emb"] + 1j
  with pytest.raises(convert.ConvertError, match="node_emb: shape"):
    to_stjax("stid", state_dict)


@pytest.mark.parametrize(
  ("name", "key", "shape"),
  [
    ("stid", "regression_layer.weight", (2, 18, 3, 3)),
    ("fourcastnet", "pos_embed", (2, 16, 8)),
    ("triton", "atmospheric_decoder.dec.0.conv.conv.weight", (8, 8)),
  ],
)
def test_shapes_that_a_layout_cannot_take_are_refused(name, key, shape):
  state_dict = torch_weights(name)
  expected = state_dict[key].shape
  state_dict[key] = np.ones(shape, np.float32)
  with pytest.raises(convert.ConvertError) as error:
    to_stjax(name, state_dict)
  assert f"{key}: shape {shape}; expected {expected}" in str(error.value)


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
