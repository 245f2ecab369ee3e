"""Weights of Triton's baselines, in and out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import convert, models
from stjax.convert import convlstm_states, dit, fourcastnet, lsm, mgno, simvp
from stjax.models.dit import grid_sinusoids

IN_SHAPE = (2, 8, 12, 3)
# By test id: family and options of a small network.
NETWORKS = {
  "convlstm_states": (
    "convlstm_states",
    dict(depth=3, features=(4, 5), kernel_size=(3, 5)),
  ),
  "dit": ("dit", dict(spatial_features=4, features=8, depth=2, patch_size=(1, 3))),
  "dit, learned": (
    "dit",
    dict(spatial_features=4, spatial_depth=3, features=8, depth=1, position="learned"),
  ),
  "fourcastnet": (
    "fourcastnet",
    dict(features=8, depth=2, blocks=2, patch_size=(2, 3)),
  ),
  "lsm": ("lsm", dict(features=8, depth=2, patch_size=1)),
  "lsm, transposed": ("lsm", dict(features=8, depth=2, patch_size=1, bilinear=False)),
  "mgno": ("mgno", dict(depth=2, iterations=((1, 1), (2, 0), (1, 2)))),
  "mgno, wide": (
    "mgno",
    dict(depth=1, iterations=((1, 1), (1, 1)), features=4, frames="channels"),
  ),
  "simvp": (
    "simvp",
    dict(
      first_version=True,
      translator="incepu",
      spatial_features=4,
      spatial_depth=3,
      temporal_features=8,
      temporal_depth=2,
      inception_kernels=(3, 5),
      inception_groups=4,
    ),
  ),
}
every = pytest.mark.parametrize("network", NETWORKS)


def torch_weights(network):
  """Torch weights of a small network, all different, counters too."""
  family, options = NETWORKS[network]
  module = models.build(family, **options)
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, *IN_SHAPE)))
  )
  generator = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda s: generator.standard_normal(s.shape).astype(np.float32), shapes
  )
  state_dict = convert.to_torch(family, variables, in_shape=IN_SHAPE, **options)
  for number, key in enumerate(state_dict):
    if key.endswith("num_batches_tracked"):
      state_dict[key] = np.array(100 + number, np.int64)
  return state_dict


def back_and_forth(network, state_dict):
  family, options = NETWORKS[network]
  options = options | {"in_shape": IN_SHAPE}
  variables = convert.to_stjax(family, state_dict, **options)
  return convert.to_torch(family, variables, **options)


def assert_same(actual, expected):
  assert actual.keys() == expected.keys()
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    assert actual[key].shape == value.shape, key
    assert actual[key].tobytes() == value.tobytes(), key


@every
def test_weights_come_back_bit_for_bit(network):
  state_dict = torch_weights(network)
  assert_same(back_and_forth(network, state_dict), state_dict)


def test_positions_that_are_not_learned_are_the_originals_buffer():
  state_dict = torch_weights("dit")
  np.testing.assert_array_equal(
    state_dict["dit_block.pos_embed"], grid_sinusoids(2, 1, 8)[None]
  )
  state_dict["dit_block.pos_embed"] += 1e-6
  with pytest.raises(convert.ConvertError, match="pos_embed.*differs from"):
    back_and_forth("dit", state_dict)


@pytest.mark.parametrize(
  ("network", "unread"),
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
  ],
)
def test_weights_that_nothing_reads_are_kept(network, unread):
  state_dict = torch_weights(network)
  generator = np.random.default_rng(1)
  for key, shape in unread.items():
    state_dict[key] = generator.standard_normal(shape).astype(np.float32)
  assert_same(back_and_forth(network, state_dict), state_dict)


def test_mgno_has_the_smoothers_that_nothing_reads():
  state_dict = torch_weights("mgno")
  start = "conv_list.1.post_smooth_layers.2."
  unread = {key: x for key, x in state_dict.items() if key.startswith(start)}
  assert {key: x.shape for key, x in unread.items()} == {
    f"{start}{k}.{part}.{leaf}": shape
    for k in (0, 1)
    for part in ("A", "S")
    for leaf, shape in (("weight", (3, 3, 3, 3)), ("bias", (3,)))
  }
  for key in unread:
    state_dict[key] = state_dict[key] + 1
  assert_same(back_and_forth("mgno", state_dict), state_dict)


def test_only_layers_that_double_the_grid_are_transposed_in_the_first_simvp():
  family, options = NETWORKS["simvp"]
  names = simvp.name_map(models.build(family, **options))
  kinds = {
    i: names.path(f"dec.dec.{i}.conv.conv.weight")[1].from_torch for i in range(3)
  }
  assert kinds[0] is kinds[2] is not kinds[1]


def test_the_published_mgno_has_its_number_of_weights():
  module = models.build("mgno")
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, 1, 32, 32, 1)))
  )
  variables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
  state_dict = convert.to_torch("mgno", variables, in_shape=(1, 32, 32, 1))
  assert sum(x.size for x in state_dict.values()) == 2402


@pytest.mark.parametrize(
  ("options", "family", "expected"),
  [
    (
      convlstm_states.original_options(2, 2, (3, 5), 3, batch_first=True),
      "convlstm_states",
      dict(out_channels=2, features=(2, 2), kernel_size=(3, 5), depth=3),
    ),
    (
      dit.original_options((1, 2, 3, 8, 12), 8, N_S=3, time_step=[411]),
      "dit",
      dict(
        in_shape=(2, 8, 12, 3),
        spatial_features=8,
        spatial_depth=3,
        features=256,
        depth=12,
        heads=2,
        time_step=411,
      ),
    ),
    (
      fourcastnet.original_options(num_blocks=8, depth=2),
      "fourcastnet",
      dict(
        in_shape=(1, 120, 240, 97),
        out_channels=93,
        patch_size=(2, 2),
        blocks=8,
        depth=2,
        legacy_modes=True,
      ),
    ),
    (
      lsm.original_options(3, 2, patch_size="2,3", padding="4,5"),
      "lsm",
      dict(out_channels=2, patch_size=(2, 3), padding=(5, 4), features=64),
    ),
    (
      mgno.original_options(3, 2, 2, [[1, 1], [2, 0]], 1, 8, 9),
      "mgno",
      dict(in_shape=(1, 8, 9, 2), out_channels=1, depth=3, iterations=((1, 1), (2, 0))),
    ),
    (
      simvp.first_version_options((2, 3, 8, 12), 8, 16, N_T=3, groups=4),
      "simvp",
      dict(
        in_shape=(2, 8, 12, 3),
        first_version=True,
        translator="incepu",
        spatial_features=8,
        temporal_features=16,
        spatial_depth=4,
        temporal_depth=3,
        inception_groups=4,
        out_channels=None,
      ),
    ),
  ],
)
def test_the_originals_options_are_translated(options, family, expected):
  options = dict(options)
  assert {key: options.get(key) for key in expected} == expected
  options.pop("in_shape", None)
  models.build(family, **options)


@pytest.mark.parametrize(
  ("translate", "arguments", "message"),
  [
    (convlstm_states.original_options, (2, 2, [(3, 3), (5, 5)], 2), "one"),
    (dit.original_options, ((2, 3, 8, 12),), r"\(B, T, C, H, W\)"),
    (mgno.original_options, (1, 4, 2, [[1, 1]], 1, 8, 8), "equal channels"),
    (simvp.first_version_options, ((3, 8, 12),), r"\(T, C, H, W\)"),
  ],
)
def test_what_the_original_cannot_be_is_refused(translate, arguments, message):
  with pytest.raises(convert.ConvertError, match=message):
    translate(*arguments)
