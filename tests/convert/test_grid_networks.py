"""Weights of FNO, KNO, the U-Nets, ResNet and CNO, in and out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax import convert, models
from stjax.convert import cno, files, images, resnet, spectral, unet

IN_SHAPE = (2, 8, 8, 3)
SMALL = {
  "cno": dict(features=4, depth=2, lift_features=6, neck_blocks=2),
  "fno": dict(features=5, modes_h=3, modes_w=2),
  "kno": dict(features=5, modes_h=3, modes_w=2, batch_norm=True),
  "resnet": dict(features=4, blocks=(1, 2)),
  "unet": dict(features=4, depth=2, frames="batch"),
  "unet_strided": dict(features=4, depth=3),
}
KINDS = [
  *((family, {}) for family in SMALL),
  ("cno", dict(batch_norm=False)),
  ("cno", dict(mix=False)),
  ("resnet", dict(stem=False, project=True)),
]


def torch_weights(family, **options):
  """Torch weights of a small network, all different, counters too."""
  options = SMALL[family] | options
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
    elif key.startswith("decoder_inv."):  # Whether it is read or not.
      values = generator.standard_normal(state_dict[key].shape)
      state_dict[key] = values.astype(np.float32)
  return state_dict


def back_and_forth(family, state_dict, **options):
  options = SMALL[family] | options | {"in_shape": IN_SHAPE}
  variables = convert.to_stjax(family, state_dict, **options)
  return variables, convert.to_torch(family, variables, **options)


def assert_same(actual, expected):
  assert actual.keys() == expected.keys()
  for key, value in expected.items():
    assert actual[key].dtype == value.dtype, key
    assert actual[key].shape == value.shape, key
    assert actual[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize(("family", "options"), KINDS)
def test_weights_come_back_bit_for_bit(family, options):
  state_dict = torch_weights(family, **options)
  _, back = back_and_forth(family, state_dict, **options)
  assert_same(back, state_dict)


@pytest.mark.parametrize("family", ["fno", "kno"])
def test_complex_weights_may_be_real_and_imaginary_parts(family):
  state_dict = torch_weights(family)
  as_parts = {
    key: np.stack([x.real, x.imag], -1) if np.iscomplexobj(x) else x
    for key, x in state_dict.items()
  }
  changed = [key for key in state_dict if as_parts[key].ndim == 5]
  assert len(changed) == {"fno": 8, "kno": 1}[family]
  variables, back = back_and_forth(family, as_parts)
  assert_same(back, state_dict)
  leaves = jax.tree.leaves(variables["params"])
  assert {leaf.dtype.name for leaf in leaves} == {"float32"}


def test_complex_weights_of_another_shape_are_refused():
  state_dict = torch_weights("fno")
  key = "conv1.weights2"
  state_dict[key] = state_dict[key].real.copy()
  message = r"conv1.weights2: shape .*expected \(5, 5, 3, 2\)"
  with pytest.raises(convert.ConvertError, match=message):
    back_and_forth("fno", state_dict)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_files_hold_complex_weights(suffix, tmp_path):
  if suffix == ".pth":
    pytest.importorskip("torch")
  state_dict = torch_weights("fno")
  path = tmp_path / f"weights{suffix}"
  files.write(path, state_dict)
  assert_same(files.read(path), state_dict)


def test_norms_that_fno_never_calls_are_kept():
  state_dict = torch_weights("fno")
  generator = np.random.default_rng(1)
  for i in range(4):
    for name in ("weight", "bias", "running_mean", "running_var"):
      state_dict[f"bn{i}.{name}"] = generator.random(5).astype(np.float32)
    state_dict[f"bn{i}.num_batches_tracked"] = np.array(i, np.int64)
  _, back = back_and_forth("fno", state_dict)
  assert_same(back, state_dict)


def test_units_that_cno_never_calls_are_there_for_the_original():
  def widths_of(**options):
    suffix = ".convolution.weight"
    return {
      key.removesuffix(suffix): x.shape
      for key, x in torch_weights("cno", **options).items()
      if key.startswith("decoder_inv.") and key.endswith(suffix)
    }

  # The deepest level's width, then twice that of each level above it.
  widths = {0: 8, 1: 8, 2: 4}
  expected = {f"decoder_inv.{i}": (width, width, 3, 3) for i, width in widths.items()}
  assert widths_of() == widths_of(mix=False) == expected
  module = models.build("cno", **SMALL["cno"], mix=False)
  params = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, *IN_SHAPE)))
  )["params"]
  assert not [name for name in params if name.startswith("mix")]


@pytest.mark.parametrize(
  ("channels", "expected"),
  [
    ((6, 4), dict(frames="channels", out_channels=2)),
    ((3, 4), dict(frames="batch", out_channels=4)),
  ],
)
def test_frames_go_where_the_original_has_channels_for_them(channels, expected):
  options = images.image_options((2, 3, 8, 9), *channels)
  assert options == expected | {"in_shape": (2, 8, 9, 3)}


@pytest.mark.parametrize(
  ("channels", "message"),
  [
    ((5, 2), "for 5 channels.*gives 6, or 3"),
    ((6, 3), "3 output channels.*multiple of T = 2"),
  ],
)
def test_channels_that_do_not_follow_from_the_frames_are_refused(channels, message):
  with pytest.raises(convert.ConvertError, match=message):
    images.image_options((2, 3, 8, 9), *channels)


def test_the_originals_options_are_translated():
  shape_in = (1, 2, 8, 9)
  shared = dict(in_shape=(1, 8, 9, 2), out_channels=2)
  assert spectral.fno_options(shape_in, 4, 3, 7, 2, 2) == shared | dict(
    horizon=None, features=7, modes_h=4, modes_w=3
  )
  assert spectral.fno_options((5, 2, 8, 9), 4, 3, 7, pred_len=4) == dict(
    in_shape=(5, 8, 9, 2), out_channels=1, horizon=4, features=7, modes_h=4, modes_w=3
  )
  assert spectral.kno_options(shape_in, 6, 3, 4, decompose=5) == dict(
    in_shape=(1, 8, 9, 2),
    features=6,
    modes_h=3,
    modes_w=4,
    steps=5,
    linear=True,
    batch_norm=False,
  )
  shared |= dict(frames="channels")
  assert unet.pooled_options(shape_in, 2, 2) == shared | dict(features=64)
  assert unet.strided_options(shape_in, 2, 2, 5, 0.1, 8) == shared | dict(
    features=8, kernel_size=5, dropout=0.1
  )
  assert resnet.original_options(shape_in, 2, 2, 0.2) == shared | dict(
    features=64, dropout=0.2
  )
  assert resnet.original_options(shape_in, 2, 2, kernel_size=5) == shared | {
    "features": 64,
    "blocks": (3, 4, 4, 3),
    "stem": False,
    "project": True,
    "kernel_size": 5,
    "slope": 0.01,
    "dropout": 0.0,
  }
  options = cno.original_options(
    shape_in, 2, N_layers=3, out_dim=2, in_size_h=8, cutoff_den=2.1
  )
  assert options == shared | {
    "features": 32,
    "depth": 3,
    "blocks": 1,
    "neck_blocks": 6,
    "neck_reversed": False,
    "lift_features": 64,
    "kernel_size": 3,
    "batch_norm": True,
    "mix": True,
  }
  assert cno.original_options(shape_in, 2, 3, out_dim=2, in_size=8)["neck_reversed"]
  with pytest.raises(TypeError, match="cutof_den"):
    cno.original_options(shape_in, 2, N_layers=3, cutof_den=2.1)


@pytest.mark.parametrize("changes", [dict(C_in=3), dict(C_out=3)])
def test_channels_that_fno_cannot_have_are_refused(changes):
  with pytest.raises(convert.ConvertError, match=next(iter(changes))):
    spectral.fno_options((2, 2, 8, 9), 4, 3, 7, **changes)
