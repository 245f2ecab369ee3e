"""The arguments of the originals' constructors as options of the networks here.

Each function takes an original's arguments by their names and returns the
options of `stjax.models.build`, and in_shape (T, H, W, C) where the arguments
or shape_in (T, C, H, W) of one input say it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from golden.case import NotBuilt

# An original's argument, and the option here with the original's default. An
# argument alone must be given; one without an option changes nothing.
Table = Mapping[str, str | tuple[str | None, Any]]


def renamed(table: Table, arguments: Mapping[str, Any]) -> dict[str, Any]:
  """Renames arguments, and fills in the defaults of those that are not given.

  Raises:
    TypeError: an argument that the original does not have.
  """
  if surplus := arguments.keys() - table.keys():
    raise TypeError(f"arguments that the original does not have: {sorted(surplus)}")
  options = {}
  for name, option in table.items():
    option, value = option if isinstance(option, tuple) else (option, None)
    if option:
      options[option] = arguments.get(name, value)
  return options


def channels_last(shape_in: Sequence[int]) -> tuple[int, ...]:
  """Turns (T, C, H, W) into (T, H, W, C)."""
  t, c, h, w = shape_in
  return t, h, w, c


# Other names of OpenSTL for translators.
ALIASES = {"mlp": "mlpmixer", "moga": "moganet"}
SIMVP = {
  "hid_S": ("spatial_features", 16),
  "hid_T": ("temporal_features", 256),
  "N_T": ("temporal_depth", 4),
  "mlp_ratio": ("mlp_ratio", 8.0),
  "drop": ("dropout", 0.0),
  "spatio_kernel_enc": ("encoder_kernel", 3),
  "spatio_kernel_dec": ("decoder_kernel", 3),
  "C_out": ("out_channels", None),
}


def simvp(in_shape, N_S=4, model_type="gsta", drop_path=0.0, **arguments):
  """Translates SimVP of simvp_minimal and OpenSTL.

  Stochastic depth is off, as it was when the goldens were made.
  """
  del drop_path
  translator = translator_name(model_type)
  return renamed(SIMVP, arguments) | {
    "in_shape": channels_last(in_shape),
    "spatial_depth": N_S // 2 * 2,  # An odd number builds one layer fewer.
    "translator": translator,
    "drop_path": 0.0,
  }


def translator_name(model_type: str | None) -> str:
  """The name here of a translator of OpenSTL, whose default is "gsta"."""
  name = (model_type or "gsta").lower()
  return ALIASES.get(name, name)


FIRST_SIMVP = {
  "hid_S": ("spatial_features", 16),
  "hid_T": ("temporal_features", 256),
  "N_S": ("spatial_depth", 4),
  "N_T": ("temporal_depth", 8),
  "output_dim": ("out_channels", None),
  "incep_ker": ("inception_kernels", (3, 5, 7, 11)),
  "groups": ("inception_groups", 8),
}


def first_simvp(shape_in, **arguments):
  """Translates the first version of SimVP, a baseline of Triton and SFP."""
  options = renamed(FIRST_SIMVP, arguments)
  return options | {
    "in_shape": channels_last(shape_in),
    "translator": "incepu",
    "inception_kernels": tuple(options["inception_kernels"]),
    "first_version": True,
  }


TRITON = {
  "spatial_hidden_dim": "spatial_features",
  "output_channels": "out_channels",
  "temporal_hidden_dim": "temporal_features",
  "num_spatial_layers": ("spatial_depth", 4),
  "num_temporal_layers": ("temporal_depth", 8),
  # A longer forecast is fed back by the method's horizon.
  "in_time_seq_length": (None, 10),
  "out_time_seq_length": (None, 10),
}


def triton(shape_in, **arguments):
  """Translates Triton; the ocean's copy has a shape_in (C, H, W) of one frame.

  Stochastic depth is off, as it was when the goldens were made.
  """
  *frames, c, h, w = shape_in
  in_shape = (*(frames or (1,)), h, w, c)
  return renamed(TRITON, arguments) | {"in_shape": in_shape, "drop_path": 0.0}


FNO = {"modes1": "modes_h", "modes2": "modes_w", "width": "features"}


def fno(shape_in, C_in=None, C_out=None, pred_len=None, **arguments):
  """Translates FNO2d; SFP's copy forecasts pred_len frames of one channel."""
  t, c, *_ = shape_in
  assert C_in in (None, t * c), f"C_in is {C_in}; shape_in {shape_in} has {t * c}"
  assert C_out is None or C_out % t == 0, f"C_out is {C_out}, no multiple of T = {t}"
  return renamed(FNO, arguments) | {
    "in_shape": channels_last(shape_in),
    "out_channels": 1 if pred_len else (C_out // t if C_out else None),
    "horizon": pred_len,
  }


KNO = {
  "op_size": "features",
  "modes_x": ("modes_h", 16),
  "modes_y": ("modes_w", 16),
  "decompose": ("steps", 8),
  "linear_type": ("linear", True),
  "normalization": ("batch_norm", False),
}


def kno(shape_in, encoder, decoder, t_len, **arguments):
  """Translates KNO2d, whose coders are MLPs of length t_len."""
  if (encoder, decoder) != ("encoder_mlp", "decoder_mlp"):
    raise NotBuilt(f"KNO with {encoder} and {decoder}")
  assert t_len == shape_in[0]
  return renamed(KNO, arguments) | {"in_shape": channels_last(shape_in)}


def images(shape_in, in_channels: int, out_channels: int) -> dict[str, Any]:
  """Says where a network of images has its frames, by its channels.

  Args:
    shape_in: (T, C, H, W) of one input.
    in_channels: the images' channels: T C, or C for one frame at a time.
    out_channels: the channels of the resulting images.
  """
  t, c, *_ = shape_in
  assert in_channels in (c, t * c), f"{in_channels} channels; {shape_in} has {t * c}"
  frames = t if in_channels == t * c else 1
  assert out_channels % frames == 0, f"{out_channels} channels, no multiple of T = {t}"
  return {
    "in_shape": channels_last(shape_in),
    "frames": "channels" if frames == t else "batch",
    "out_channels": out_channels // frames,
  }


def unet(shape_in, n_channels, n_classes, base_width=64):
  """Translates UNet, which pools."""
  return images(shape_in, n_channels, n_classes) | {"features": base_width}


STRIDED_UNET = {
  "base_width": ("features", 64),
  "kernel_size": ("kernel_size", 3),
  "dropout_rate": ("dropout", 0.5),
}


def unet_strided(shape_in, input_channels, output_channels, **arguments):
  """Translates U_net, which has strides."""
  options = images(shape_in, input_channels, output_channels)
  return options | renamed(STRIDED_UNET, arguments)


def resnet(
  shape_in,
  input_channels,
  output_channels,
  dropout_rate=0.5,
  kernel_size=None,
  base_width=64,
):
  """Translates ResNet; SFP's copy has a kernel_size and no stem.

  Its blocks lead a convolution around themselves where they change the width.
  """
  options = images(shape_in, input_channels, output_channels)
  options |= {"features": base_width}
  if kernel_size is None:
    return options | {"dropout": dropout_rate}
  return options | {
    "blocks": (3, 4, 4, 3),
    "stem": False,
    "project": True,
    "kernel_size": kernel_size,
    "slope": 0.01,
    "dropout": 0.0,
  }


# The sizes and the options of filters change nothing in these copies.
CNO_WITHOUT_EFFECT = (
  "in_size_h in_size_w out_size out_size_h out_size_w cutoff_den filter_size"
  " lrelu_upsampling half_width_mult radial expand_input activation"
).split()
CNO = {
  "N_layers": "depth",
  "N_res": ("blocks", 1),
  "N_res_neck": ("neck_blocks", 6),
  "channel_multiplier": ("features", 32),
  "conv_kernel": ("kernel_size", 3),
  "batch_norm": ("batch_norm", True),
  "latent_lift_proj_dim": ("lift_features", 64),
  "add_inv": ("mix", True),
  **dict.fromkeys(CNO_WITHOUT_EFFECT, (None, None)),
}


def cno(shape_in, in_dim, out_dim=1, in_size=None, **arguments):
  """Translates CNO.

  SFP's copy is given in_size, Triton's is given in_size_h and in_size_w. The
  former calls the neck's blocks last to first, the latter first to last.
  """
  options = images(shape_in, in_dim, out_dim) | renamed(CNO, arguments)
  return options | {"neck_reversed": in_size is not None}


def convlstm_states(
  shape_in,
  input_dim,
  hidden_dim,
  kernel_size,
  num_layers,
  batch_first=False,
  bias=True,
  return_all_layers=False,
):
  """Translates ConvLSTM; hidden_dim is that of all layers or of each."""
  del input_dim, batch_first
  if return_all_layers:
    raise NotBuilt("a ConvLSTM that returns the states of all layers")
  if not all(isinstance(k, int) for k in kernel_size):
    raise NotBuilt("a ConvLSTM with a kernel size for each layer")
  if isinstance(hidden_dim, int):
    hidden_dim = (hidden_dim,) * num_layers
  *features, out_channels = hidden_dim
  return {
    "in_shape": channels_last(shape_in),
    "out_channels": out_channels,
    "features": tuple(features),
    "depth": num_layers,
    "kernel_size": tuple(kernel_size),
    "use_bias": bias,
  }


CLSTM = {
  "channels": (None, None),
  "pred_len": "horizon",
  "hidden_dim": "features",
  "num_layers": ("depth", 1),
}


def clstm(shape_in, input_size, **arguments):
  """Translates SFP's ConvLSTM; input_size is (H, W)."""
  assert list(shape_in[-2:]) == list(input_size)
  options = renamed(CLSTM, arguments)
  return options | {
    "in_shape": channels_last(shape_in),
    "features": tuple(options["features"]),
  }


WORLD_MODEL = {
  "in_channel": ("out_channels", 1),
  "res_layers": ("depth", 1),
  "embedding_nums": ("codes", 1024),
  "embedding_dim": ("features", 256),
}


def world_model(**arguments):
  """Translates Generative_World_Model; in_shape is the smallest that it can take."""
  options = renamed(WORLD_MODEL, arguments)
  size = 2 ** (options["depth"] // 2)
  return options | {"in_shape": (1, size, size, options["out_channels"])}


DIT = {
  "hid_S": ("spatial_features", 32),
  "hid_T": (None, 64),
  "N_S": ("spatial_depth", 4),
  "inner_hidden_size": ("features", 256),
  "inner_depth": ("depth", 12),
  "inner_num_heads": ("heads", 2),
}


def dit(shape_in, time_step=0, **arguments):
  """Translates nmo_dit: shape_in is (B, T, C, H, W), time_step what it drew."""
  steps = set(time_step if isinstance(time_step, Sequence) else [time_step])
  if len(steps) != 1:
    raise NotBuilt("a DiT that drew several steps")
  in_shape = channels_last(shape_in[1:])
  return renamed(DIT, arguments) | {"in_shape": in_shape, "time_step": steps.pop()}


FOURCASTNET = {
  "out_channels": ("out_channels", 93),
  "patch_size": ("patch_size", (2, 2)),
  "embed_dim": ("features", 256),
  "depth": ("depth", 4),
  "mlp_ratio": ("mlp_ratio", 4.0),
  "drop_rate": ("dropout", 0.0),
  "drop_path_rate": ("drop_path", 0.0),
  "num_blocks": ("blocks", 16),
  "sparsity_threshold": ("threshold", 0.01),
  "hard_thresholding_fraction": ("modes", 1.0),
  "double_skip": ("double_skip", True),
}


def fourcastnet(inp_shape=(120, 240), in_channels=97, **arguments):
  """Translates Fourcastnet, with the modes that the original keeps."""
  options = renamed(FOURCASTNET, arguments)
  return options | {
    "in_shape": (1, *inp_shape, in_channels),
    "patch_size": tuple(options["patch_size"]),
    "legacy_modes": True,
  }


LSM = {
  "in_dim": (None, None),
  "out_dim": "out_channels",
  "d_model": ("features", 64),
  "num_token": ("tokens", 4),
  "num_basis": ("basis", 16),
  "bilinear": ("bilinear", True),
}


def lsm(patch_size="4,4", padding="0,0", **arguments):
  """Translates LSM; patch_size is (H, W), padding is (W, H)."""

  def numbers(value):
    return tuple(map(int, value.split(",") if isinstance(value, str) else value))

  return renamed(LSM, arguments) | {
    "patch_size": numbers(patch_size),
    "padding": numbers(padding)[::-1],
  }


def mgno(
  shape_in,
  num_layer,
  out_channel,
  in_channel,
  num_iteration,
  output_dim,
  height,
  width,
  activation="gelu",
):
  """Translates MgNO; num_iteration is (before, after) of each grid."""
  if in_channel != out_channel or activation != "gelu":
    raise NotBuilt(f"MgNO of {in_channel} to {out_channel} channels and {activation}")
  return {
    "in_shape": (shape_in[0], height, width, in_channel),
    "out_channels": output_dim,
    "depth": num_layer,
    "iterations": tuple(map(tuple, num_iteration)),
  }


FOURIER_MODULE = {
  "embed_dim": "fourier_features",
  "depth": "fourier_depth",
  "mlp_ratio": ("fourier_mlp_ratio", 4.0),
}


def earthfarseer(multi_conv_params, fourier_module_params):
  """Translates CombinedModel, whose result has one channel."""
  fourier = dict(fourier_module_params)
  options = simvp(**multi_conv_params)
  frames, *grid, channels = options["in_shape"]
  expected = dict(
    img_size=grid,
    patch_size=8,
    in_channels=channels,
    out_channels=1,
    input_frames=frames,
  )
  for name, value in expected.items():
    given = fourier.pop(name, value)
    if (list(given) if isinstance(given, Sequence) else given) != value:
      raise NotBuilt(f"a Fourier module of {name} {given} beside {options['in_shape']}")
  del options["translator"]
  options |= renamed(FOURIER_MODULE, fourier)
  return options | {"out_channels": 1, "legacy_product": True}


# The sizes of its inputs, by which the original knows the widths of its layers.
GNOT_SIZES = ("trunk_size", "branch_sizes")
GNOT = {
  "space_dim": ("place_features", 2),
  "output_size": ("out_features", 3),
  "n_layers": ("depth", 2),
  "n_hidden": ("features", 64),
  "n_head": ("heads", 1),
  "n_experts": ("experts", 2),
  "n_inner": ("mlp_ratio", 4),
  "mlp_layers": ("mlp_depth", 2),
  "act": ("activation", "gelu"),
  "ffn_dropout": (None, 0.0),
  "attn_dropout": (None, 0.0),
  **dict.fromkeys(GNOT_SIZES, (None, None)),
}


def gnot(attn_type="linear", horiz_fourier_dim=0, **arguments):
  """Translates GNOT to the options of its core; there is no in_shape.

  Dropout is off, as it was when the goldens were made.
  """
  if attn_type != "linear" or horiz_fourier_dim:
    raise NotBuilt(f"GNOT with {attn_type} attention or Fourier features")
  return renamed(GNOT, arguments)
