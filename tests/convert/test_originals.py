"""The originals' arguments, by which the golden cases name their networks."""

import pytest
from golden import originals
from golden.case import NotBuilt

from stjax import models

FRAME, FRAMES = (1, 2, 8, 9), (2, 3, 8, 9)
IMAGE = dict(in_shape=(1, 8, 9, 2), out_channels=2, frames="channels")
MODES = dict(modes1=4, modes2=3, width=7)
TRITON = dict(spatial_hidden_dim=8, output_channels=1, temporal_hidden_dim=24)


# Mostly, these are defaults and copies that no case in tests/goldens has.
@pytest.mark.parametrize(
  ("family", "options", "expected"),
  [
    (
      "simvp",
      originals.simvp(FRAMES, N_S=3, model_type="Moga", C_out=2),
      dict(
        in_shape=(2, 8, 9, 3), spatial_depth=2, translator="moganet", out_channels=2
      ),
    ),
    (
      "simvp",
      originals.first_simvp(FRAMES, hid_T=16, N_T=3, groups=4),
      dict(first_version=True, spatial_depth=4, temporal_depth=3, inception_groups=4),
    ),
    (
      "triton",
      originals.triton(FRAMES, out_time_seq_length=40, **TRITON),
      dict(in_shape=(2, 8, 9, 3), spatial_depth=4, temporal_depth=8),
    ),
    ("triton", originals.triton((3, 8, 9), **TRITON), dict(in_shape=(1, 8, 9, 3))),
    ("fno", originals.fno(FRAME, C_in=2, C_out=4, **MODES), dict(out_channels=4)),
    (
      "fno",
      originals.fno(FRAMES, pred_len=4, **MODES),
      dict(in_shape=(2, 8, 9, 3), out_channels=1, horizon=4, features=7, modes_h=4),
    ),
    (
      "kno",
      originals.kno(FRAME, "encoder_mlp", "decoder_mlp", t_len=1, op_size=6),
      dict(features=6, modes_h=16, steps=8, linear=True, batch_norm=False),
    ),
    ("unet", originals.unet(FRAME, 2, 2), IMAGE | dict(features=64)),
    (
      "unet_strided",
      originals.unet_strided(FRAME, 2, 2, kernel_size=5, dropout_rate=0.1),
      IMAGE | dict(features=64, kernel_size=5, dropout=0.1),
    ),
    (
      "resnet",
      originals.resnet(FRAME, 2, 2, 0.2),
      IMAGE | dict(features=64, dropout=0.2),
    ),
    (
      "resnet",
      originals.resnet(FRAME, 2, 2, kernel_size=5),
      IMAGE | dict(stem=False, project=True, kernel_size=5, slope=0.01, dropout=0.0),
    ),
    (
      "cno",
      originals.cno(FRAME, 2, out_dim=2, N_layers=3, in_size_h=8, cutoff_den=2.1),
      IMAGE | dict(features=32, depth=3, blocks=1, neck_blocks=6, neck_reversed=False),
    ),
    (
      "cno",
      originals.cno(FRAME, 2, out_dim=2, N_layers=3, in_size=8),
      IMAGE | dict(lift_features=64, kernel_size=3, mix=True, neck_reversed=True),
    ),
    (
      "convlstm_states",
      originals.convlstm_states(FRAMES, 3, 2, (3, 5), 3, batch_first=True),
      dict(out_channels=2, features=(2, 2), kernel_size=(3, 5), depth=3),
    ),
    (
      "dit",
      originals.dit((1, *FRAMES), N_S=3, time_step=[411]),
      dict(in_shape=(2, 8, 9, 3), features=256, depth=12, heads=2, time_step=411),
    ),
    (
      "earthfarseer",
      originals.earthfarseer(
        dict(in_shape=FRAMES, hid_S=8, N_S=3),
        dict(img_size=[8, 9], in_channels=3, embed_dim=16, depth=2),
      ),
      dict(
        in_shape=(2, 8, 9, 3),
        out_channels=1,
        spatial_features=8,
        spatial_depth=2,
        fourier_features=16,
        fourier_mlp_ratio=4.0,
        legacy_product=True,
      ),
    ),
    (
      "fourcastnet",
      originals.fourcastnet(num_blocks=8),
      dict(in_shape=(1, 120, 240, 97), out_channels=93, depth=4, legacy_modes=True),
    ),
    (
      "lsm",
      originals.lsm(in_dim=3, out_dim=2, patch_size="2,3", padding="4,5"),
      dict(out_channels=2, patch_size=(2, 3), padding=(5, 4), features=64),
    ),
    (
      "mgno",
      originals.mgno(FRAME, 3, 2, 2, [[1, 1], [2, 0]], 1, 8, 9),
      dict(in_shape=(1, 8, 9, 2), out_channels=1, depth=3, iterations=((1, 1), (2, 0))),
    ),
  ],
)
def test_arguments_are_translated(family, options, expected):
  assert {key: options.get(key) for key in expected} == expected
  models.build(family, **{k: x for k, x in options.items() if k != "in_shape"})


def test_frames_go_where_the_original_has_channels_for_them():
  shared = {"in_shape": (2, 8, 9, 3)}
  together = shared | dict(frames="channels", out_channels=2)
  assert originals.images(FRAMES, 6, 4) == together
  assert originals.images(FRAMES, 3, 4) == shared | dict(frames="batch", out_channels=4)


@pytest.mark.parametrize(
  ("translate", "error", "message"),
  [
    (lambda: originals.images(FRAMES, 5, 2), AssertionError, "5 channels"),
    (lambda: originals.images(FRAMES, 6, 3), AssertionError, "multiple of T = 2"),
    (lambda: originals.fno(FRAMES, C_in=3), AssertionError, "C_in"),
    (lambda: originals.fno(FRAMES, C_out=3), AssertionError, "C_out"),
    (lambda: originals.cno(FRAME, 2, 2, cutof_den=2.1), TypeError, "cutof_den"),
    (
      lambda: originals.convlstm_states(FRAME, 2, 2, [(3, 3), (5, 5)], 2),
      NotBuilt,
      "kernel size for each layer",
    ),
    (lambda: originals.dit((1, *FRAMES), time_step=[1, 2]), NotBuilt, "several steps"),
    (
      lambda: originals.earthfarseer(dict(in_shape=FRAMES), dict(out_channels=2)),
      NotBuilt,
      "Fourier module of out_channels 2",
    ),
    (lambda: originals.gnot("galerkin"), NotBuilt, "galerkin attention"),
    (lambda: originals.mgno(FRAME, 1, 4, 2, [[1, 1]], 1, 8, 8), NotBuilt, "2 to 4"),
    (lambda: originals.kno(FRAME, "conv", "conv", 1), NotBuilt, "KNO with conv"),
  ],
)
def test_what_does_not_fit_or_is_not_built_is_named(translate, error, message):
  with pytest.raises(error, match=message):
    translate()
