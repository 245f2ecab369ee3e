import cost_data
import jax
import numpy as np
import pytest

from stjax import convert, models
from stjax.convert import files, report

IN_SHAPE = (4, 3, 5, 1)
SMALL = dict(
  in_shape=IN_SHAPE,
  horizon=2,
  node_dim=5,
  embed_dim=6,
  num_layers=2,
  calendar_names=("hour_of_day", "day_of_week"),
  calendar_sizes=(6, 7),
  calendar_dims=(3, 4),
)
OPTIONS = {"stid": SMALL, "stid_denoiser": SMALL | dict(step_dim=8, full_window=True)}


def random_variables(family, **options):
  arguments = {k: v for k, v in options.items() if k != "in_shape"}
  module = models.build(family, **arguments)
  shown, fields = models.example_arguments(module, options["in_shape"])
  shapes = jax.eval_shape(
    lambda key: module.init(key, *shown, **fields), jax.random.key(0)
  )
  generator = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: generator.standard_normal(s.shape).astype(np.float32), shapes
  )


def make_state_dict(family):
  options = OPTIONS[family]
  variables = random_variables(family, **options)
  return convert.to_torch(family, variables, **options)


def assert_same(actual, expected):
  assert actual.keys() == expected.keys()
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    assert actual[key].shape == value.shape, key
    assert actual[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize("family", OPTIONS)
def test_weights_come_back_bit_for_bit(family):
  variables = random_variables(family, **OPTIONS[family])
  state_dict = make_state_dict(family)
  found = convert.to_stjax(family, state_dict, **OPTIONS[family])
  found.pop("torch", None)
  jax.tree.map(np.testing.assert_array_equal, found, variables)
  assert_same(convert.to_torch(family, found, **OPTIONS[family]), state_dict)


def test_names_and_shapes_are_the_originals():
  shapes = {key: x.shape for key, x in make_state_dict("stid").items()}
  assert shapes == {
    "node_emb": (15, 5),
    "time_in_day_emb": (6, 3),
    "day_in_week_emb": (7, 4),
    "time_series_emb_layer.weight": (6, 4, 1, 1),
    "time_series_emb_layer.bias": (6,),
    "regression_layer.weight": (2, 18, 1, 1),
    "regression_layer.bias": (2,),
  } | {
    f"encoder.{i}.fc{j}.{leaf}": shape
    for i in (0, 1)
    for j in (1, 2)
    for leaf, shape in (("weight", (18, 18, 1, 1)), ("bias", (18,)))
  }
  denoiser = make_state_dict("stid_denoiser")
  assert denoiser["embed_layer.weight"].shape == (15, 16)
  prefix = "diffmodel.diffusion_"
  assert denoiser[f"{prefix}embedding.projection1.weight"].shape == (8, 8)
  assert denoiser[f"{prefix}projection.weight"].shape == (6, 8)
  assert denoiser["diffmodel.regression_layer.weight"].shape == (6, 18, 1, 1)


def test_the_unread_table_is_kept_and_needs_no_leave():
  state_dict = make_state_dict("stid_denoiser")
  np.testing.assert_array_equal(state_dict["embed_layer.weight"], 0)
  state_dict["embed_layer.weight"] += np.arange(15 * 16).reshape(15, 16)
  options = OPTIONS["stid_denoiser"]
  variables = convert.to_stjax("stid_denoiser", state_dict, **options)
  assert set(variables) == {"params", "torch"}
  assert_same(convert.to_torch("stid_denoiser", variables, **options), state_dict)
  del state_dict["embed_layer.weight"]
  convert.to_stjax("stid_denoiser", state_dict, **options)


def test_prefixes_of_archives_are_taken_off():
  state_dict = make_state_dict("stid")
  variables = convert.to_stjax(
    "stid",
    {f"param/module.{key}": x for key, x in state_dict.items()},
    **OPTIONS["stid"],
  )
  assert_same(convert.to_torch("stid", variables, **OPTIONS["stid"]), state_dict)


def test_missing_and_unused_weights_are_listed():
  state_dict = make_state_dict("stid")
  state_dict["node_embedding"] = state_dict.pop("node_emb")
  with pytest.raises(convert.ConvertError) as error:
    convert.to_stjax("stid", state_dict, **OPTIONS["stid"])
  assert "node_emb: missing" in str(error.value)
  assert "node_embedding (15, 5): unused" in str(error.value)


@pytest.mark.parametrize(
  "names",
  [
    ("day_of_week", "slot_of_day"),
    ("slot_of_day", "day_of_year"),
    ("day_of_week", "month"),
  ],
)
def test_a_calendar_without_a_table_in_torch_is_refused(names):
  options = OPTIONS["stid"] | {"calendar_names": names}
  with pytest.raises(convert.ConvertError, match="model.calendar_names"):
    convert.to_stjax("stid", make_state_dict("stid"), **options)


def test_the_table_of_layers_lists_every_array():
  options = OPTIONS["stid_denoiser"]
  state_dict = make_state_dict("stid_denoiser")
  variables = convert.to_stjax("stid_denoiser", state_dict, **options)
  table = report.layers("stid_denoiser", variables, state_dict=state_dict, **options)
  for key in state_dict:
    assert key in table
  assert "unused" not in table


def test_a_reference_is_compared_with_its_calendar(tmp_path):
  variables = random_variables("stid", **SMALL)
  options = {k: v for k, v in SMALL.items() if k != "in_shape"}
  generator = np.random.default_rng(1)
  t, h, w, c = IN_SHAPE
  inputs = generator.standard_normal((2, t, c, h, w)).astype(np.float32)
  calendar = generator.integers(0, 6, (2, t, 2)).astype(np.int32)
  outputs = models.build("stid", **options).apply(
    variables, np.moveaxis(inputs, 2, -1), calendar=calendar
  )
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
  assert_same(
    {
      f"param/{key}": x
      for key, x in convert.to_torch(family, variables, **options).items()
    },
    original,
  )
