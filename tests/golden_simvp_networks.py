"""SimVP's networks and their parts against the originals' numbers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from golden_case import GRADIENT_TOLERANCE, Case, NotBuilt, assert_close

from stjax import convert, models
from stjax.convert import mapping
from stjax.convert import simvp as names_lib
from stjax.models import simvp
from stjax.models.translators import BLOCKS, TRANSLATORS, gated, inception
from stjax.models.translators.metaformer import ResizedBlock

CORE = (names_lib.BLOCK, names_lib.BLOCK_PATH)
COUNTER = "num_batches_tracked"
# A gradient that adds up to zero, as that of the last bias may, is the rounding
# noise of terms as large as the other gradients: 1e-6 of them is allowed.
CANCELLATION = 1e-3
# Each program runs once, so compiling it counts, not its speed.
QUICK = {"xla_backend_optimization_level": 0}


def last_axes(array: np.ndarray) -> jax.Array:
  """[..., C, H, W] -> [..., H, W, C]."""
  return jnp.moveaxis(array, -3, -1)


def first_axes(array: jax.Array) -> jax.Array:
  """[..., H, W, C] -> [..., C, H, W]."""
  return jnp.moveaxis(array, -1, -3)


class Twin(NamedTuple):
  """A module here and how to bring the original's weights into it.

  Attributes:
    module: the module.
    names: its name map.
    constants: buffers that the original's options imply.
    takes_train: whether its call takes `train`.
    method: name of the module's method to call.
    unused: regular expression of weights that the original never uses.
    to_here: brings the original's inputs into the layout here.
    to_original: its inverse, for outputs and gradients.
  """

  module: nn.Module
  names: mapping.NameMap
  constants: dict[str, np.ndarray] = {}
  takes_train: bool = False
  method: str = "__call__"
  unused: str | None = None
  to_here: Callable[[np.ndarray], jax.Array] = last_axes
  to_original: Callable[[jax.Array], jax.Array] = first_axes


def weighted_mean(outputs: dict[str, jax.Array]) -> jax.Array:
  """The goldens' loss: means weighted by a ramp over the original layout."""
  return sum(
    jnp.mean(y * np.linspace(-1, 1, y.size, dtype=np.float32).reshape(y.shape))
    for y in outputs.values()
  )


def check(
  case: Case,
  twin: Twin,
  loss_of: Callable[[dict[str, jax.Array]], jax.Array] = weighted_mean,
) -> None:
  """Outputs, batch statistics, loss and gradients of one module.

  Args:
    case: the case.
    twin: the module.
    loss_of: the goldens' loss, of their outputs by name.
  """
  inputs = {key: twin.to_here(x) for key, x in case.group("input").items()}
  order = tuple(case.meta["inputs"])
  mode = (case.train,) if twin.takes_train else ()
  expected = jax.eval_shape(
    lambda key: twin.module.init(
      key, *map(inputs.get, order), *mode, method=twin.method
    ),
    jax.random.key(0),
  )
  state_dict = case.group("param")
  variables = mapping.to_variables(
    twin.names, expected, state_dict, constants=twin.constants, allow_unused=twin.unused
  )
  back = mapping.to_state_dict(twin.names, variables, constants=twin.constants)
  assert_same_weights(back, state_dict, twin.unused)
  params = variables["params"]
  collections = {"batch_stats": variables.get("batch_stats", {})}
  wanted = case.group("output")
  loss = wanted.pop("loss", None)

  def run(params, inputs):
    outputs, updated = twin.module.apply(
      {"params": params, **collections},
      *map(inputs.get, order),
      *mode,
      method=twin.method,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(0)},
    )
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    outputs = map(twin.to_original, outputs)
    return dict(zip(wanted, outputs, strict=True)), updated

  def evaluate(params, inputs):
    outputs, updated = run(params, inputs)
    return loss_of(outputs), (outputs, updated)

  if case.group("grad") or case.group("grad_input"):
    evaluate = jax.value_and_grad(evaluate, (0, 1), has_aux=True)
    compiled = jax.jit(evaluate, compiler_options=QUICK)
    (value, (outputs, updated)), gradients = compiled(params, inputs)
    check_gradients(case, twin, *gradients)
  else:
    compiled = jax.jit(evaluate, compiler_options=QUICK)
    value, (outputs, updated) = compiled(params, inputs)

  for key, expected in wanted.items():
    assert_close(key, outputs[key], expected)
  if loss is not None:
    # Its terms may cancel: their size, not the sum's, is the scale.
    terms = sum(np.abs(y).mean() for y in wanted.values()) / 2
    assert_close("loss", value.reshape(loss.shape), loss, smallest_scale=terms)
  if after := case.group("after") | case.group("buffer_after"):
    statistics = mapping.to_state_dict(twin.names, updated)
    for key, expected in after.items():
      # Networks here count no batches: nothing depends on the number.
      if not key.endswith(COUNTER):
        assert_close(f"after/{key}", statistics[key], expected)


def check_gradients(case: Case, twin: Twin, of_params: Any, of_inputs: Any) -> None:
  """Gradients for parameters and inputs, under the original's names."""
  wanted = {f"grad/{k}": g for k, g in case.group("grad").items()}
  wanted |= {f"grad_input/{k}": g for k, g in case.group("grad_input").items()}
  actual = mapping.to_state_dict(twin.names, {"params": of_params})
  actual = {f"grad/{key}": gradient for key, gradient in actual.items()}
  actual |= {f"grad_input/{k}": twin.to_original(g) for k, g in of_inputs.items()}
  largest = max(np.abs(gradient).max() for gradient in wanted.values())
  for key, expected in wanted.items():
    assert_close(
      key,
      actual[key],
      expected,
      GRADIENT_TOLERANCE,
      smallest_scale=largest * CANCELLATION,
    )


def assert_same_weights(actual, expected, unused=None):
  """Names, types and bits are equal."""
  if unused is None:
    assert actual.keys() == expected.keys()
  for key, value in actual.items():
    assert value.dtype == expected[key].dtype, key
    assert value.shape == expected[key].shape, key
    assert value.tobytes() == expected[key].tobytes(), key


def network_options(case: Case) -> dict[str, Any]:
  """Options of a whole network; stochastic depth is off, as in the goldens."""
  options = names_lib.original_options(**case.meta["config"])
  if options["translator"] not in TRANSLATORS:
    raise NotBuilt(f"translator {options['translator']}")
  return options | {"legacy_drop_path": False, "drop_path": 0.0}


def network(case: Case) -> Twin:
  """A whole SimVP, through the public converter."""
  options = network_options(case)
  variables = convert.to_stjax("simvp", case.group("param"), **options)
  back = convert.to_torch("simvp", variables, **options)
  assert_same_weights(back, case.group("param"))
  in_shape = options.pop("in_shape")
  module = models.build("simvp", **options)
  return Twin(
    module,
    names_lib.name_map(module),
    names_lib.constants(module, in_shape),
    takes_train=True,
  )


def part_names(translator: str, torch: str = "", path: str = "") -> mapping.NameMap:
  """Names of a part of a SimVP."""
  whole = names_lib.name_map(simvp.SimVP(translator=translator))
  return whole.below(torch, path)


def sampled_conv(case: Case) -> Twin:
  options = case.options(
    "C_in",
    "C_out",
    "kernel_size",
    "downsampling",
    "upsampling",
    "act_norm",
    "act_inplace",
    kernel_size=3,
    downsampling=False,
    upsampling=False,
    act_norm=True,
  )
  sampling = "down" if options["downsampling"] else "same"
  sampling = "up" if options["upsampling"] else sampling
  module = simvp.SampledConv(options["C_out"], options["kernel_size"], sampling)
  names = part_names("gsta", names_lib.DECODER, "decoder/layer_{i}/")
  if options["act_norm"]:
    return Twin(module, names)
  return Twin(module, names, method="convolve", unused=r"\bnorm\.")


def encoder(case: Case) -> Twin:
  options = case.options("C_in", "C_hid", "N_S", "spatio_kernel")
  module = simvp.Encoder(
    options["C_hid"], options["N_S"] // 2 * 2, options["spatio_kernel"]
  )
  return Twin(module, part_names("gsta", "enc.", "encoder/"))


def decoder(case: Case) -> Twin:
  options = case.options("C_hid", "C_out", "N_S", "spatio_kernel")
  module = simvp.Decoder(
    options["C_hid"],
    options["C_out"],
    options["N_S"] // 2 * 2,
    options["spatio_kernel"],
  )
  return Twin(module, part_names("gsta", "dec.", "decoder/"))


def gate(constructor, translator: str, case: Case) -> Twin:
  options = case.options("dim", "kernel_size", "dilation", "reduction")
  known = {"kernel_size", "dilation", "reduction"} & options.keys()
  module = constructor(**{key: options[key] for key in known})
  return Twin(
    module,
    part_names(
      translator,
      names_lib.BLOCK + "attn.spatial_gating_unit.",
      names_lib.BLOCK_PATH + "mixer/gate/",
    ),
  )


def gated_attention(constructor, translator: str, case: Case) -> Twin:
  options = case.options("d_model", "kernel_size", "attn_shortcut")
  if not options.get("attn_shortcut", True):
    raise NotBuilt("gated attention without its shortcut")
  if "kernel_size" in options:
    constructor = functools.partial(constructor, kernel_size=options["kernel_size"])
  return Twin(
    gated.GatedAttention(constructor),
    part_names(translator, names_lib.BLOCK + "attn.", names_lib.BLOCK_PATH + "mixer/"),
    takes_train=True,
  )


def mix_mlp(case: Case) -> Twin:
  options = case.options(
    "in_features", "hidden_features", "out_features", "act_layer", "drop"
  )
  core = BLOCKS["gsta"](0, False)
  hidden = options.get("hidden_features") or options["in_features"]
  return Twin(
    core.keywords["mlp"](hidden=hidden),
    part_names("gsta", names_lib.BLOCK + "mlp.", names_lib.BLOCK_PATH + "mlp/"),
    takes_train=True,
  )


def block(translator: str, case: Case) -> Twin:
  """A translator's block; the original's classes differ in defaults only."""
  options = case.options("dim", mlp_ratio=4.0, layer_i=0)
  # A stack puts Uniformer's global block where neither end of it is.
  index = options["layer_i"] + (options.get("block_type") == "MHSA")
  settings = {"mlp_ratio": options["mlp_ratio"]}
  if translator == "convmixer":
    settings["kernel_size"] = options.get("kernel_size", 9)
  constants = {}
  if translator == "swin":
    h, w = options["input_resolution"]
    constants = names_lib.swin_constants(h, w, index % 2 == 1)
  return Twin(
    BLOCKS[translator](index, False)(**settings),
    part_names(translator, *CORE),
    constants,
    takes_train=True,
  )


def meta_block(case: Case) -> Twin:
  options = case.options("in_channels", "out_channels", mlp_ratio=8.0, layer_i=0)
  translator = translator_name(options)
  resized = options["in_channels"] != options["out_channels"]
  core = functools.partial(
    BLOCKS[translator](options["layer_i"], resized), mlp_ratio=options["mlp_ratio"]
  )
  return Twin(
    ResizedBlock(core, options["out_channels"]),
    part_names(translator, "hid.enc.{i}.", "translator/block_{i}/"),
    takes_train=True,
  )


def meta_net(case: Case) -> Twin:
  options = case.options(
    "channel_in", "channel_hid", "N2", mlp_ratio=4.0, model_type="gsta"
  )
  translator = translator_name(options)
  module = TRANSLATORS[translator](
    features=options["channel_hid"], depth=options["N2"], mlp_ratio=options["mlp_ratio"]
  )
  constants = {}
  if translator == "swin":
    h, w = options["input_resolution"]
    constants = {
      f"enc.{i}.block.{key}": value
      for i in range(options["N2"])
      for key, value in names_lib.swin_constants(h, w, i % 2 == 1).items()
    }
  names = part_names(translator, "hid.", "translator/")
  return Twin(module, names, constants, takes_train=True)


def inception_net(case: Case) -> Twin:
  options = case.options("channel_in", "channel_hid", "N2")
  if {"incep_ker", "groups"} & options.keys():
    raise NotBuilt("a U-Net of other kernels or groups")
  module = inception.InceptionUNet(options["channel_hid"], options["N2"])
  names = part_names("incepu", "hid.", "translator/")
  return Twin(module, names, takes_train=True)


def inception_block(case: Case) -> Twin:
  options = case.options(
    "C_in",
    "C_hid",
    "C_out",
    "incep_ker",
    "groups",
    incep_ker=inception.KERNELS,
    groups=8,
  )
  module = inception.InceptionBlock(
    options["C_hid"], options["C_out"], tuple(options["incep_ker"]), options["groups"]
  )
  names = part_names("incepu", "hid.enc.{i}.", "translator/down_{i}/")
  return Twin(module, names)


def translator_name(options: dict[str, Any]) -> str:
  name = (options.get("model_type") or "gsta").lower()
  name = names_lib.ALIASES.get(name, name)
  if name not in BLOCKS:
    raise NotBuilt(f"translator {name}")
  return name


# By the name of the original class.
TWINS: dict[str, Callable[[Case], Twin]] = {
  "SimVP_Model": network,
  "ConvSC": sampled_conv,
  "Encoder": encoder,
  "Decoder": decoder,
  "AttentionModule": functools.partial(gate, gated.SplitGate, "gsta"),
  "TemporalAttentionModule": functools.partial(gate, gated.TemporalGate, "tau"),
  "SpatialAttention": functools.partial(gated_attention, gated.SplitGate, "gsta"),
  "TemporalAttention": functools.partial(gated_attention, gated.TemporalGate, "tau"),
  "MixMlp": mix_mlp,
  "MetaBlock": meta_block,
  "MidMetaNet": meta_net,
  "MidIncepNet": inception_net,
  "gInception_ST": inception_block,
  **{
    original: functools.partial(block, translator)
    for original, translator in {
      "ConvMixerSubBlock": "convmixer",
      "ConvNeXtSubBlock": "convnext",
      "GASubBlock": "gsta",
      "HorNetSubBlock": "hornet",
      "MLPMixerSubBlock": "mlpmixer",
      "MogaSubBlock": "moganet",
      "PoolFormerSubBlock": "poolformer",
      "SwinSubBlock": "swin",
      "TAUSubBlock": "tau",
      "UniformerSubBlock": "uniformer",
      "VANSubBlock": "van",
      "ViTSubBlock": "vit",
    }.items()
  },
}


def run(case: Case) -> None:
  """Runs a case of a network or of a part of one."""
  if case.original not in TWINS:
    raise NotBuilt(f"network {case.original}")
  check(case, TWINS[case.original](case))
