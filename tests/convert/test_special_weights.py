"""What is special about the weights of single families."""

import cost_data
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_weights import (
  NETWORKS,
  assert_same_weights,
  build,
  random_variables,
  to_stjax,
  to_torch,
  torch_weights,
)

from stjax import convert, models
from stjax.convert import files, report, simvp, triton
from stjax.models.dit import grid_sinusoids


def assert_comes_back(name, state_dict):
  assert_same_weights(to_torch(name, to_stjax(name, state_dict)), state_dict)


def with_bias(name, *shape):
  return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


# Buffers that follow from the options.


def test_swin_gets_its_constant_buffers_back():
  state_dict = torch_weights("simvp, swin")
  masks = [key for key in state_dict if key.endswith("attn_mask")]
  # Only the second of three blocks shifts its windows.
  assert masks == ["hid.enc.1.block.attn_mask"]
  mask = state_dict[masks[0]]
  assert mask.shape == (2 * 3, 16, 16) and set(mask.ravel()) == {0.0, -100.0}
  index = state_dict["hid.enc.0.block.attn.relative_position_index"]
  assert index.dtype == np.int64 and index[0, 15] == 0 and index[15, 0] == 48
  with pytest.raises(convert.ConvertError, match="attn_mask.*in_shape"):
    to_stjax("simvp, swin", state_dict, in_shape=(3, 16, 32, 2))


def test_dits_positions_that_are_not_learned_are_the_originals_buffer():
  state_dict = torch_weights("dit")
  np.testing.assert_array_equal(
    state_dict["dit_block.pos_embed"], grid_sinusoids(2, 1, 8)[None]
  )
  state_dict["dit_block.pos_embed"] += 1e-6
  with pytest.raises(convert.ConvertError, match="pos_embed.*differs from"):
    to_stjax("dit", state_dict)


# Weights that nothing reads.


@pytest.mark.parametrize(
  ("name", "unread"),
  [
    (
      "dit",
      {
        "hid.enc.0.conv1.weight": (4, 8, 1, 1),
        "hid.enc.0.conv1.bias": (4,),
        "hid.dec.1.layers.3.conv.weight": (8, 1, 11, 11),
        "hid.dec.1.layers.3.norm.bias": (8,),
      },
    ),
    ("lsm", {"process2.modes_list_buffer": (16,)}),
    (
      "fno",
      {
        f"bn{i}.{leaf}": (5,)
        for i in range(4)
        for leaf in ("weight", "bias", "running_mean", "running_var")
      },
    ),
  ],
)
def test_weights_that_only_some_copies_hold_are_kept(name, unread):
  state_dict = torch_weights(name)
  generator = np.random.default_rng(1)
  for key, shape in unread.items():
    state_dict[key] = generator.standard_normal(shape).astype(np.float32)
  for i in range(4 if name == "fno" else 0):
    state_dict[f"bn{i}.num_batches_tracked"] = np.array(i, np.int64)
  assert_comes_back(name, state_dict)


def test_the_unread_table_of_cost_is_zeros_and_needs_no_leave():
  options = NETWORKS["stid_denoiser"]
  fresh = convert.to_torch(
    "stid_denoiser", random_variables("stid_denoiser"), **options
  )
  np.testing.assert_array_equal(fresh["embed_layer.weight"], np.zeros((15, 16)))
  assert set(to_stjax("stid_denoiser", fresh)) == {"params", "torch"}
  del fresh["embed_layer.weight"]
  assert set(to_stjax("stid_denoiser", fresh)) == {"params"}


@pytest.mark.parametrize("name", ["cno", "cno, no mixing"])
def test_units_that_cno_never_calls_are_there_for_the_original(name):
  suffix = ".convolution.weight"
  shapes = {
    key.removesuffix(suffix): x.shape
    for key, x in torch_weights(name).items()
    if key.startswith("decoder_inv.") and key.endswith(suffix)
  }
  # The deepest level's width comes first, then twice that of each level above it.
  assert shapes == {f"decoder_inv.{i}": (w, w, 3, 3) for i, w in enumerate((8, 8, 4))}
  mixing = [key for key in random_variables(name)["params"] if key.startswith("mix")]
  assert len(mixing) == {"cno": 2, "cno, no mixing": 0}[name]


def test_mgno_has_the_smoothers_that_nothing_reads():
  start = "conv_list.1.post_smooth_layers.2."
  assert {
    key: x.shape for key, x in torch_weights("mgno").items() if key.startswith(start)
  } == {
    f"{start}{k}.{part}.{leaf}": shape
    for k in (0, 1)
    for part in ("A", "S")
    for leaf, shape in (("weight", (3, 3, 3, 3)), ("bias", (3,)))
  }


def test_the_published_mgno_has_its_number_of_weights():
  module = models.build("mgno")
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, 1, 32, 32, 1)))
  )
  variables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
  state_dict = convert.to_torch("mgno", variables, in_shape=(1, 32, 32, 1))
  assert sum(x.size for x in state_dict.values()) == 2402


# Complex weights.


@pytest.mark.parametrize(("family", "count"), [("fno", 8), ("kno", 1), ("uno", 14)])
def test_complex_weights_may_be_real_and_imaginary_parts(family, count):
  state_dict = torch_weights(family)
  as_parts = {
    key: np.stack([x.real, x.imag], -1) if np.iscomplexobj(x) else x
    for key, x in state_dict.items()
  }
  assert sum(x.ndim == 5 for x in as_parts.values()) == count
  assert_same_weights(to_torch(family, to_stjax(family, as_parts)), state_dict)


def test_complex_weights_without_their_imaginary_part_are_refused():
  state_dict = torch_weights("fno")
  state_dict["conv1.weights2"] = state_dict["conv1.weights2"].real.copy()
  message = r"conv1.weights2: shape .*expected \(5, 5, 3, 2\), complex"
  with pytest.raises(convert.ConvertError, match=message):
    to_stjax("fno", state_dict)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_files_hold_complex_weights(suffix, tmp_path):
  if suffix == ".pth":
    pytest.importorskip("torch")
  state_dict = torch_weights("fno")
  path = tmp_path / f"weights{suffix}"
  files.write(path, state_dict)
  assert_same_weights(files.read(path), state_dict)


# Names and shapes of Triton and of the first SimVP.


def test_names_and_shapes_of_triton_are_the_originals():
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
  found = {key: x.shape for key, x in torch_weights("triton, conv").items()}
  assert found == expected


def test_only_layers_of_triton_that_double_the_grid_are_transposed():
  name = "triton, three layers"
  state_dict = torch_weights(name)
  decoder = to_stjax(name, state_dict)["params"]["decoder"]
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


def test_only_layers_that_double_the_grid_are_transposed_in_the_first_simvp():
  names = simvp.name_map(build("simvp, first version"))
  kinds = {
    i: names.path(f"dec.dec.{i}.conv.conv.weight")[1].from_torch for i in range(3)
  }
  assert kinds[0] is kinds[2] is not kinds[1]


@pytest.mark.parametrize(
  ("name", "core"),
  [("triton", "attention"), ("triton, conv", "conv"), ("triton, equal width", "conv")],
)
def test_the_core_of_triton_is_known_by_its_weights(name, core):
  assert triton.core_first(torch_weights(name)) == core


def test_weights_of_the_other_core_of_triton_are_refused():
  message = r"enc\.0\.block\.norm1\.running_mean.*unused"
  with pytest.raises(convert.ConvertError, match=message):
    to_stjax("triton", torch_weights("triton, conv"))


# CoST's networks.


def test_names_and_shapes_of_cost_are_the_originals():
  shapes = {key: x.shape for key, x in torch_weights("stid").items()}
  expected = {"node_emb": (15, 5), "time_in_day_emb": (6, 3), "day_in_week_emb": (7, 4)}
  expected |= with_bias("time_series_emb_layer", 6, 4, 1, 1)
  expected |= with_bias("regression_layer", 2, 18, 1, 1)
  for i in (0, 1):
    for j in (1, 2):
      expected |= with_bias(f"encoder.{i}.fc{j}", 18, 18, 1, 1)
  assert shapes == expected
  denoiser = torch_weights("stid_denoiser")
  prefix = "diffmodel.diffusion_"
  assert denoiser[f"{prefix}embedding.projection1.weight"].shape == (8, 8)
  assert denoiser[f"{prefix}projection.weight"].shape == (6, 8)
  assert denoiser["diffmodel.regression_layer.weight"].shape == (6, 18, 1, 1)


@pytest.mark.parametrize(
  "names",
  [
    ("day_of_week", "slot_of_day"),
    ("slot_of_day", "day_of_year"),
    ("day_of_week", "month"),
  ],
)
def test_a_calendar_without_a_table_in_torch_is_refused(names):
  with pytest.raises(convert.ConvertError, match="model.calendar_names"):
    to_stjax("stid", torch_weights("stid"), calendar_names=names)


def test_the_table_of_layers_lists_every_array():
  state_dict = torch_weights("stid_denoiser")
  variables = to_stjax("stid_denoiser", state_dict)
  options = NETWORKS["stid_denoiser"]
  table = report.layers("stid_denoiser", variables, state_dict=state_dict, **options)
  for key in state_dict:
    assert key in table
  assert "unused" not in table


def test_a_reference_is_compared_with_its_calendar(tmp_path):
  variables, network = random_variables("stid"), build("stid")
  options = {k: v for k, v in NETWORKS["stid"].items() if k != "in_shape"}
  t, h, w, c = NETWORKS["stid"]["in_shape"]
  generator = np.random.default_rng(1)
  inputs = generator.standard_normal((2, t, c, h, w)).astype(np.float32)
  calendar = generator.integers(0, 6, (2, t, 2)).astype(np.int32)
  outputs = network.apply(variables, np.moveaxis(inputs, 2, -1), calendar=calendar)
  arrays = dict(inputs=inputs, outputs=np.moveaxis(outputs, -1, 2))
  path = tmp_path / "reference.npz"
  np.savez(path, **arrays, calendar=calendar)
  found = report.errors("stid", variables, path, **options)
  assert found["outputs"][1] < 1e-5
  np.savez(path, **arrays)
  with pytest.raises(convert.ConvertError, match="data.calendar"):
    report.errors("stid", variables, path, **options)
  with pytest.raises(convert.ConvertError, match="denoiser"):
    report.errors("stid_denoiser", variables, path, **options)


NON_SST = dict(
  num_layers=4,
  calendar_names=("slot_of_day", "day_of_week"),
  calendar_sizes=(2, 7),
  calendar_dims=(32, 32),
)
SST = dict(
  node_dim=64,
  embed_dim=64,
  num_layers=8,
  calendar_names=("month",),
  calendar_sizes=(12,),
  calendar_dims=(32,),
)
DENOISER = dict(node_dim=32, embed_dim=128, num_layers=8, full_window=True)
RELEASED = {
  "Los_Speed_det": ("stid", 207, NON_SST),
  "Los_Speed_diff": ("stid_denoiser", 207, NON_SST | DENOISER),
  "SST_det": ("stid", 500, SST),
  "SST_diff": ("stid_denoiser", 500, SST | DENOISER),
}


@pytest.mark.parametrize("name", RELEASED)
def test_trained_weights_of_the_original_convert_both_ways(name):
  path = cost_data.find(f"upstream_trained/{name}.npz")
  if path is None:
    pytest.skip(f"no weights {name} (set STJAX_COST_DATA)")
  family, nodes, options = RELEASED[name]
  options = options | dict(horizon=12, in_shape=(12, nodes, 1, 1))
  original = files.read(path)
  variables = convert.to_stjax(family, original, **options)
  back = convert.to_torch(family, variables, **options)
  assert_same_weights({f"param/{key}": x for key, x in back.items()}, original)
