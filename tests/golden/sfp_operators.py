"""The neural operators UNO and F-FNO that SFP is compared with, and their parts."""

import functools

import jax.numpy as jnp

from golden import originals, twins
from golden.case import Case
from golden.twins import SAME, Axes, Twin, twin
from stjax.convert import ffno, mapping, spectral, uno
from stjax.models import ffno as ffno_lib
from stjax.models import fno as fno_lib
from stjax.models.ffno import FFNO
from stjax.models.layers.spectral import SpectralConv
from stjax.models.uno import UNO

UNO_OPTIONS = {
  "in_width": (None, None),  # This counts the four features of the place.
  "width": "features",
  "pad": ("padding", 0),
  "factor": ("factor", None),
}
FEED_FORWARD = {
  "factor": ("expansion", 2),
  "n_ff_layers": ("depth", 2),
  "ff_weight_norm": ("weight_norm", True),
  "layer_norm": ("layer_norm", False),
  "dropout": ("dropout", 0.0),
}
# [B, C, ...] there, [B, ..., C] here.
CHANNELS_FIRST = Axes(
  lambda x: jnp.moveaxis(x, 1, -1), lambda y: jnp.moveaxis(y, -1, 1)
)


@twin("sfp", "UNO", variant="standard", legacy_crop=True)
@twin("sfp", "UNO_P", variant="p")
@twin("sfp", "UNO_S256", variant="s256")
def whole_uno(case: Case, **options) -> Twin:
  """The original takes images [B, H, W, C]."""
  arguments = case.options("in_width width pad factor")
  options |= originals.renamed(UNO_OPTIONS, arguments)
  options |= {"horizon": 1, "out_channels": 1}
  options["in_shape"] = (1, *case.meta["inputs"]["x"][1:])
  # Large results are stored in part.
  step = 4 if "y_every4" in case.meta["outputs"] else 1
  axes = Axes(
    lambda x: jnp.asarray(x)[:, None], lambda y: y[:, 0, ..., ::step, ::step, :]
  )
  return twins.network("uno", case, options, axes=axes)


def sizes_and_modes(options: dict) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """The grid of a layer's result, and its modes, along as many axes as there are."""
  axes = sum(f"modes{i}" in options for i in (1, 2, 3))
  return tuple(
    tuple(options[f"{name}{i}"] for i in range(1, axes + 1))
    for name in ("dim", "modes")
  )


@twin("sfp", "OperatorBlock_2D")
def uno_layer(case: Case) -> Twin:
  options = case.options(
    "in_codim out_codim dim1 dim2 modes1 modes2 Normalize Non_Lin",
    Normalize=False,
    Non_Lin=True,
  )
  grid, modes = sizes_and_modes(options)
  module = fno_lib.Layer(
    modes,
    activate=options["Non_Lin"],
    dtype=jnp.float32,
    features=options["out_codim"],
    grid=grid,
    norm=options["Normalize"],
  )
  names = uno.name_map(UNO(horizon=1)).below("L{i}.", "layer_{i}/")
  # The norm takes off whatever the bias adds.
  cancelled = r"w\.conv\.bias" if options["Normalize"] else None
  return Twin(module, names, cancelled=cancelled)


@twin("sfp", "SpectralConv2d_Uno", names="in_codim out_codim dim1 dim2 modes1 modes2")
@twin(
  "sfp",
  "SpectralConv3d_Uno",
  names="in_codim out_codim dim1 dim2 dim3 modes1 modes2 modes3",
)
def spectral_conv(case: Case, names: str) -> Twin:
  options = case.options(names)
  grid, modes = sizes_and_modes(options)
  layout = spectral.spectral_layout(len(grid))
  return Twin(
    SpectralConv(options["out_codim"], modes, grid),
    mapping.NameMap([mapping.Entry("", "", layout)]),
    axes=CHANNELS_FIRST,
  )


@twin("sfp", "FNOFullyFactorizedMesh2D")
def whole_ffno(case: Case) -> Twin:
  arguments = case.options(
    "modes1 modes2 width in_channels out_channels n_layers is_mesh s1 s2",
    n_layers=4,
    is_mesh=True,
    s1=40,
    s2=40,
  )
  options = dict(
    horizon=1,
    out_channels=arguments["out_channels"],
    features=arguments["width"],
    modes_h=arguments["modes1"],
    modes_w=arguments["modes2"],
    depth=arguments["n_layers"],
    mesh=True,
    latent_grid=(arguments["s1"], arguments["s2"]),
    legacy_sums=True,
    # A point's coordinates are channels here.
    in_shape=(1, case.meta["inputs"]["u"][1], 1, arguments["in_channels"] + 2),
  )
  return twins.network("ffno", case, options, axes=SAME, method="map_points")


@twin("sfp", "SpectralConv2d")
def ffno_block(case: Case) -> Twin:
  options = case.options(
    "in_dim out_dim m1 m2 backcast_ff fourier_weight factor ff_weight_norm"
    " n_ff_layers layer_norm dropout s1 s2"
  )
  feed_forward = originals.renamed(
    FEED_FORWARD, {key: options[key] for key in FEED_FORWARD if key in options}
  )
  module = ffno_lib.Block(
    functools.partial(
      ffno_lib.FactorizedConv, options["out_dim"], (options["m1"], options["m2"])
    ),
    functools.partial(ffno_lib.FeedForward, **feed_forward),
  )
  network = FFNO(
    horizon=1,
    weight_norm=feed_forward["weight_norm"],
    layer_norm=feed_forward["layer_norm"],
    feed_forward_depth=feed_forward["depth"],
  )
  names = ffno.name_map(network).below("convs.{i}.", "block_{i}/")
  return Twin(module, names, axes=CHANNELS_FIRST)
