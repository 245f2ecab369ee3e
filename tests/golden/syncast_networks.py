"""The denoiser of SynCast, which is DiffCast's, and its blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from golden import twins
from golden.case import Case, NotBuilt, assert_close
from golden.registry import MANIFESTS, runner
from golden.twins import QUICK, Axes, Twin, first_axes, last_axes, twin
from stjax import convert, models
from stjax.convert import diffcast as names
from stjax.convert import mapping
from stjax.models.denoisers import common as denoisers
from stjax.models.denoisers import diffcast
from stjax.models.denoisers.common import smooth_sinusoids
from stjax.models.translators.gated import TemporalGate
from stjax.models.translators.metaformer import TORCH

# The original's arguments by the options here.
OPTIONS = {
  "features": "dim",
  "multipliers": "dim_mults",
  "groups": "resnet_block_groups",
  "heads": "attn_heads",
  "head_features": "attn_dim_head",
}
# The step's features, which the blocks get beside an image, have no H and W.
BLOCK = Axes(
  lambda x: last_axes(x) if x.ndim > 2 else jnp.asarray(x),
  lambda y: first_axes(y) if y.ndim > 2 else y,
)
# So many frames make the states that the original also returns.
LOCAL_FRAMES = 6


def options_of(unet: dict[str, Any], context: dict[str, Any] | None = None):
  """The options here of a U-Net's arguments, and of a context network's."""
  context = dict(unet if context is None else context)
  if context.pop("channels", 1) != 1:
    raise NotBuilt("an original of several variables, which does not run")
  known = {here: theirs for here, theirs in OPTIONS.items() if theirs in unet}
  if unknown := set(unet) - {"T_in", *known.values()}:
    raise NotBuilt(f"the U-Net's {sorted(unknown)}")
  for argument, value in context.items():
    if argument != "T_in" and unet[argument] != value:
      raise NotBuilt(f"a context network with another {argument} than the U-Net's")
  options = {here: unet[theirs] for here, theirs in known.items()}
  options["multipliers"] = tuple(options["multipliers"])
  return options | {"horizon": unet["T_in"]}


def load(case: Case, history: np.ndarray) -> tuple[nn.Module, dict, dict[str, Any]]:
  """The denoiser of a case, its variables and options, in_shape among them.

  Args:
    case: the case; it has weights of the whole denoiser.
    history: [B, T_in, 1, H, W].
  """
  config = case.meta["config"]
  options = options_of(config["unet_kwargs"], config["ctxNet_kwargs"])
  _, t, c, h, w = history.shape
  options["in_shape"] = (t, h, w, c)
  return *twins.load("diffcast", case, options), options


def name_map() -> mapping.NameMap:
  """The names of the parts, which do not depend on the number of levels."""
  return names.name_map(diffcast.DiffCast(horizon=1))


def part(module: nn.Module, torch: str, path: str) -> Twin:
  """The twin of a part that has these names in the whole network."""
  return Twin(module, name_map().below(torch, path), axes=BLOCK)


@twin("syncast", "block_resnet_time", "block_resnet_plain", "ResnetBlock")
def residual_block(case: Case) -> Twin:
  config = case.meta["config"]
  block = diffcast.ResidualBlock(config["dim_out"], config.get("groups", 8))
  return part(block, "unet.mid_block1.", "unet/bottom_first/")


@twin("syncast", "block_rmsnorm", "RMSNorm")
def norm(case: Case) -> Twin:
  return part(diffcast.ChannelNorm(), "unet.mid_attn.fn.norm.", "unet/attention/norm/")


@twin("syncast", "block_attention_residual", "Residual(PreNorm(Attention))")
def attention(case: Case) -> Twin:
  config = case.options("dim heads dim_head", heads=4, dim_head=32)
  module = diffcast.Attention(config["heads"], config["dim_head"])
  return part(module, "unet.mid_attn.", "unet/attention/")


@twin("syncast", "block_temporal_attention_module", "TemporalAttentionModule")
def gate(case: Case) -> Twin:
  config = case.options(
    "dim kernel_size dilation reduction", kernel_size=21, dilation=3, reduction=16
  )
  module = TemporalGate(
    config["kernel_size"],
    config["dilation"],
    weights=TORCH,
    reduction=config["reduction"],
  )
  return part(
    module,
    "unet.downs.{i}.2.fn.fn.spatial_gating_unit.",
    "unet/down_{i}_gate/gated/gate/",
  )


@twin(
  "syncast", "block_temporal_attention_residual", "Residual(PreNorm(TemporalAttention))"
)
def gated_block(case: Case) -> Twin:
  return part(diffcast.GatedBlock(), "unet.downs.{i}.2.", "unet/down_{i}_gate/")


@twin("syncast", "block_downsample", "Downsample")
def halve(case: Case) -> Twin:
  module = diffcast.Halve(case.meta["config"]["dim_out"])
  return part(module, "unet.downs.{i}.3.", "unet/halve_{i}/")


@twin("syncast", "block_upsample", "Upsample")
def double(case: Case) -> Twin:
  module = diffcast.Double(case.meta["config"]["dim_out"])
  return part(module, "unet.ups.{i}.3.", "unet/double_{i}/")


@twin("syncast", "block_convgru", "ConvGRUCell")
def recurrent_unit(case: Case) -> Twin:
  config = case.options("input_dim hidden_dim kernel_size n_layer", n_layer=1)
  if config["n_layer"] != 1:
    raise NotBuilt("a recurrent unit of several layers")
  module = diffcast.ConvGRU(config["hidden_dim"], config["kernel_size"])
  return part(module, "ctxNet.downs.{i}.1.", "context/unit_{i}/")


class States(nn.Module):
  """The states after all frames, and those after the first few."""

  options: dict

  @nn.compact
  def __call__(self, frames):
    net = diffcast.ContextNet(**self.options, name="context")
    states = net(frames)
    if frames.shape[1] >= LOCAL_FRAMES:
      states += net(frames[:, :LOCAL_FRAMES])
    return states


@twin("syncast", "context_net", "ContextNet")
def context_net(case: Case) -> Twin:
  config = {k: v for k, v in case.meta["config"].items() if k != "channels"}
  options = options_of(config | {"T_in": 1})
  widths = (options["features"] * m for m in (1, *options.pop("multipliers")))
  return part(States({"widths": tuple(widths)}), "ctxNet.", "")


@runner("syncast", "block_sinusoidal", "SinusoidalPosEmb")
def sinusoids(case: Case) -> None:
  """Compares the sines and cosines of steps."""
  expected, sizes = case.group("output"), case.meta["config"]["dim"]
  sizes = sizes if isinstance(sizes, list) else [sizes]
  for (key, value), size in zip(expected.items(), sizes, strict=True):
    assert_close(key, smooth_sinusoids(case.group("input")["t"], size), value)


@runner("syncast", "unet", "Unet")
def unet(case: Case) -> None:
  """Compares the second half of the denoiser, for a given context."""
  inputs = case.group("input")
  if inputs.get("cond") is not None or inputs["idx"].any():
    raise NotBuilt("a fragment other than the first, or a condition")
  module = models.build("diffcast", **options_of(case.meta["config"]))
  x = last_axes(inputs["x"])
  shape = (1, *x.shape[2:])
  states = sorted(key for key in inputs if key.startswith("ctx"))
  context = tuple(last_axes(inputs[key]) for key in states)
  arguments, _ = models.example_arguments(module, shape, len(x))
  abstract = jax.eval_shape(lambda key: module.init(key, *arguments), jax.random.key(0))
  variables = mapping.to_variables(
    names.name_map(module).below("unet.", "unet/"),
    {"params": abstract["params"]["unet"]},
    case.group("param"),
  )

  def run(params):
    given = denoisers.Context(context, shape)
    step = jnp.asarray(inputs["time"], jnp.int32)
    return module.apply(
      {"params": {"unet": params}}, x, step, given, 0 * x, method="denoise"
    )

  found = jax.jit(run, compiler_options=QUICK)(variables["params"])
  assert_close("eps", first_axes(found), case.group("output")["eps"])


@runner("syncast", "diffcast", table=MANIFESTS)
def names_and_shapes(case: Case) -> None:
  """Compares all names and shapes of the weights, which are not there."""
  unet, context = (case.meta["config"][key] for key in ("unet_kwargs", "ctxNet_kwargs"))
  options, expected = options_of(unet, context), case.meta["state_dict"]
  factor = 2 ** len(unet["dim_mults"])
  options["in_shape"] = in_shape = (2, factor, factor, 1)
  arguments = {key: value for key, value in options.items() if key != "in_shape"}
  module = models.build("diffcast", **arguments)
  inputs, _ = models.example_arguments(module, in_shape)
  shapes = jax.eval_shape(lambda key: module.init(key, *inputs), jax.random.key(0))
  # Zeros that take no memory.
  zero = np.zeros((), np.float32)
  variables = jax.tree.map(lambda s: np.broadcast_to(zero, s.shape), shapes)
  weights = convert.to_torch("diffcast", variables, **options)
  assert {key: list(x.shape) for key, x in weights.items()} == expected
  sizes = {key: x.size for key, x in weights.items()}
  counts = {"param_count": "", "unet_params": "unet.", "ctx_params": "ctxNet."}
  for key, prefix in counts.items():
    total = sum(size for name, size in sizes.items() if name.startswith(prefix))
    assert total == case.meta[key], key


@runner("syncast", "diffcast_full", "diffcast")
def denoiser(case: Case) -> None:
  """Compares the whole denoiser."""
  inputs = case.group("input")
  module, variables, _ = load(case, inputs["inp"])
  x, history = last_axes(inputs["noise_pred"]), last_axes(inputs["inp"])
  step = jnp.asarray(inputs["timesteps"], jnp.int32)
  run = jax.jit(module.apply, compiler_options=QUICK)
  found = run(variables, x, step, history, 0 * x)
  assert_close("eps", first_axes(found), case.group("output")["eps"])
