"""Torch weights of small networks of every family; for tests."""

import functools

import jax
import numpy as np

from stjax import convert, models
from stjax.models.translators import TRANSLATORS

GRID = (2, 8, 12, 3)
SQUARE = (2, 8, 8, 3)
_SIMVP = dict(
  in_shape=(3, 16, 24, 2),
  spatial_features=8,
  temporal_features=16,
  spatial_depth=2,
  temporal_depth=3,
  mlp_ratio=2.0,
)
_TRITON = dict(
  in_shape=(2, 4, 6, 3),
  out_channels=1,
  spatial_features=8,
  temporal_features=24,
  spatial_depth=2,
  temporal_depth=3,
  mlp_ratio=2.0,
)
_STID = dict(
  in_shape=(4, 3, 5, 1),
  horizon=2,
  node_dim=5,
  embed_dim=6,
  num_layers=2,
  calendar_names=("hour_of_day", "day_of_week"),
  calendar_sizes=(6, 7),
  calendar_dims=(3, 4),
)
_CNO = dict(in_shape=SQUARE, features=4, depth=2, lift_features=6, neck_blocks=2)
_RESNET = dict(in_shape=SQUARE, features=4, blocks=(1, 2))
_FFNO = dict(in_shape=GRID, horizon=2, features=4, modes_h=3, modes_w=2, depth=2)
_RECURRENT = dict(
  in_shape=GRID, horizon=3, features=4, depth=2, kernel_size=3, patch_size=2
)
_LSM = dict(in_shape=GRID, features=8, depth=2, patch_size=1)
# The options and in_shape of networks, by the family and, after a comma, what is
# special about one of several networks of a family.
NETWORKS = {
  "cno": _CNO,
  "cno, no norm": _CNO | dict(batch_norm=False),
  "cno, no mixing": _CNO | dict(mix=False),
  "convlstm": _RECURRENT,
  "convlstm, norms": _RECURRENT | dict(layer_norm=True),
  "convlstm_states": dict(in_shape=GRID, depth=3, features=(4, 5), kernel_size=(3, 5)),
  "convlstm_states, readout": dict(
    in_shape=GRID, horizon=2, depth=2, features=(4, 5), kernel_size=3
  ),
  "diffcast": dict(in_shape=GRID, horizon=2, features=8, multipliers=(1, 2)),
  "diffcast, one level": dict(
    in_shape=SQUARE, horizon=1, features=16, multipliers=(1,), head_features=8
  ),
  "dit": dict(
    in_shape=GRID, spatial_features=4, features=8, depth=2, patch_size=(1, 3)
  ),
  "dit, learned": dict(
    in_shape=GRID,
    spatial_features=4,
    spatial_depth=3,
    features=8,
    depth=1,
    position="learned",
  ),
  "earthfarseer": dict(
    in_shape=(2, 8, 16, 3),
    spatial_features=4,
    temporal_features=6,
    spatial_depth=2,
    temporal_depth=2,
    mlp_ratio=2.0,
    fourier_features=8,
    fourier_depth=1,
  ),
  "ffno": _FFNO,
  "ffno, plain": _FFNO | dict(weight_norm=False, feed_forward_depth=3),
  "ffno, mesh": _FFNO | dict(mesh=True, latent_grid=5, layer_norm=True),
  "fno": dict(in_shape=SQUARE, features=5, modes_h=3, modes_w=2),
  "fourcastnet": dict(in_shape=GRID, features=8, depth=2, blocks=2, patch_size=(2, 3)),
  "gnot": dict(in_shape=GRID, features=4, heads=2, depth=2, experts=3, mlp_ratio=2),
  "kno": dict(in_shape=SQUARE, features=5, modes_h=3, modes_w=2, batch_norm=True),
  "lsm": _LSM,
  "lsm, transposed": _LSM | dict(bilinear=False),
  "mgno": dict(in_shape=GRID, depth=2, iterations=((1, 1), (2, 0), (1, 2))),
  "mgno, wide": dict(
    in_shape=GRID, depth=1, iterations=((1, 1), (1, 1)), features=4, frames="channels"
  ),
  "predrnn": _RECURRENT,
  "predrnn, norms": _RECURRENT | dict(layer_norm=True),
  "resnet": _RESNET,
  "resnet, no stem": _RESNET | dict(stem=False, project=True),
  "simvp": _SIMVP | dict(translator="gsta"),
  **{
    f"simvp, {name}": _SIMVP | dict(translator=name)
    for name in TRANSLATORS
    if name != "gsta"
  },
  "simvp, first version": dict(
    in_shape=GRID,
    first_version=True,
    translator="incepu",
    spatial_features=4,
    spatial_depth=3,
    temporal_features=8,
    temporal_depth=2,
    inception_kernels=(3, 5),
    inception_groups=4,
  ),
  "stid": _STID,
  "stid_denoiser": _STID | dict(step_dim=8, full_window=True),
  "triton": _TRITON,
  "triton, conv": _TRITON | dict(core_first="conv"),
  "triton, three layers": _TRITON | dict(spatial_depth=3),
  "triton, equal width": _TRITON | dict(core_first="conv", temporal_features=16),
  "unet": dict(in_shape=SQUARE, features=4, depth=2, frames="batch"),
  "unet_denoiser": dict(in_shape=GRID, horizon=3, features=4, groups=2, step_dim=6),
  "unet_denoiser, flat": dict(
    in_shape=GRID, horizon=1, features=4, groups=1, depth=0, blocks=1, step_dim=4
  ),
  "unet_strided": dict(in_shape=SQUARE, features=4, depth=3),
  "uno": dict(in_shape=GRID, horizon=2, features=4, instance_norm=True),
  "uno, p": dict(in_shape=SQUARE, horizon=1, variant="p", features=4),
  "vq": dict(in_shape=GRID, out_channels=3, features=4, depth=3, codes=5),
  "vq, equal width": dict(in_shape=GRID, out_channels=4, features=4, depth=1, codes=5),
}


def family_of(name: str) -> str:
  return name.split(",")[0]


def build(name: str):
  """Builds one of NETWORKS."""
  options = {key: x for key, x in NETWORKS[name].items() if key != "in_shape"}
  return models.build(family_of(name), **options)


@functools.cache
def random_variables(name: str):
  """Draws variables of one of NETWORKS, all different."""
  module = build(name)
  arguments, fields = models.example_arguments(module, NETWORKS[name]["in_shape"])
  shapes = jax.eval_shape(
    lambda key: module.init(key, *arguments, **fields), jax.random.key(0)
  )
  generator = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: generator.standard_normal(s.shape).astype(np.float32), shapes
  )


def torch_weights(name: str) -> dict[str, np.ndarray]:
  """Makes torch weights of one of NETWORKS, all different.

  The counters of batches are not 0, nor are weights that nothing reads.
  """
  return {key: x.copy() for key, x in _torch_weights(name).items()}


@functools.cache
def _torch_weights(name: str) -> dict[str, np.ndarray]:
  state_dict = to_torch(name, random_variables(name))
  unread = convert.FAMILIES[family_of(name)].unread
  generator = np.random.default_rng(1)
  for key in unread(build(name), NETWORKS[name]["in_shape"]):
    values = generator.standard_normal(state_dict[key].shape)
    state_dict[key] = values.astype(np.float32)
  for number, key in enumerate(state_dict):
    if key.endswith("num_batches_tracked"):
      state_dict[key] = np.array(100 + number, np.int64)
  return state_dict


def to_stjax(name: str, state_dict, **options):
  """Converts weights of one of NETWORKS, perhaps with other options."""
  return convert.to_stjax(family_of(name), state_dict, **NETWORKS[name] | options)


def to_torch(name: str, variables) -> dict[str, np.ndarray]:
  """Converts variables of one of NETWORKS."""
  return convert.to_torch(family_of(name), variables, **NETWORKS[name])


def assert_same_weights(actual, expected) -> None:
  """Compares the names, types, shapes and bits of two state dicts."""
  assert actual.keys() == expected.keys()
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    assert actual[key].shape == value.shape, key
    assert actual[key].tobytes() == value.tobytes(), key
