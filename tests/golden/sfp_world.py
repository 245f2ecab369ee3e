"""SFP's world model, its parts, its agents, and steps of both stages of training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from golden import originals, sfp_planning
from golden.case import (
  GRADIENT_TOLERANCE,
  OUTPUT_TOLERANCE,
  Case,
  NotBuilt,
  assert_close,
)
from golden.registry import runner
from golden.training import trainer
from golden.twins import (
  CANCELLATION,
  LOSSES,
  QUICK,
  Axes,
  Twin,
  first_axes,
  last_axes,
  load,
  twin,
)
from stjax import convert, methods, models
from stjax.convert import mapping
from stjax.convert import vq as names_lib
from stjax.convert.layout import LAYER
from stjax.models import simvp, vq
from stjax.models.latent_head import LatentHead
from stjax.models.layers.basic import Conv
from stjax.models.layers.folding import fold_frames
from stjax.planning import search

# What the released program does where the method has other defaults.
RELEASED = dict(
  assignment="kth",
  initial="random",
  dead_below=0.0,
  skip_source="input",
  skip_dropout=0.0,
)
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Of Adam.


def frames(x: np.ndarray) -> jax.Array:
  """Images [B, C, H, W] as series of one frame [B, 1, H, W, C]."""
  return last_axes(x)[:, None]


def world_of(network: nn.Module, candidates: int, **options) -> methods.base.Method:
  """The released world model around a network."""
  return methods.build(
    "world_model", network, horizon=1, candidates=candidates, **RELEASED | options
  )


def split(config: dict) -> tuple[dict, int, dict]:
  """The network's options, the number of candidates, and the rest of a config."""
  config = dict(config)
  own = {name: config.pop(name) for name in originals.WORLD_MODEL if name in config}
  return originals.world_model(**own), config.pop("top_k", 3), config


def assert_codebook(
  name: str, actual: dict[str, jax.Array], expected: dict[str, np.ndarray]
) -> None:
  """Compares the codebook's arrays by their names in torch, row by row.

  Codes without latents grow by orders of magnitude in the released program, so each
  has its own scale.
  """
  for leaf in names_lib.CODEBOOK:
    wanted = expected[leaf.torch]
    assert actual[leaf.name].shape == wanted.shape
    for number, (row, wanted_row) in enumerate(
      zip(np.asarray(actual[leaf.name]), wanted, strict=True)
    ):
      assert_close(f"{name}{leaf.torch}, code {number}", row, wanted_row)


def assert_gradients(
  actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray]
) -> None:
  """Compares gradients by their names in torch."""
  largest = max(np.abs(gradient).max() for gradient in wanted.values())
  for key, value in wanted.items():
    assert_close(
      key, actual[key], value, GRADIENT_TOLERANCE, smallest_scale=largest * CANCELLATION
    )


def codebook_names() -> set[str]:
  """The names in torch of a world model's codebook."""
  return {names_lib.QUANTISER + leaf.torch for leaf in names_lib.CODEBOOK}


def own_codebook(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The codebook among the weights of a world model."""
  return {
    key.removeprefix(names_lib.QUANTISER): x
    for key, x in weights.items()
    if key.startswith(names_lib.QUANTISER)
  }


def _counts(latents, numbers, codes):
  """How often each code is assigned to latents that all count."""
  return vq.assignments(latents, numbers, jnp.ones(numbers.shape), codes)[0]


@runner("sfp", "Generative_World_Model")
def world_model(case: Case) -> None:
  """Compares reconstructions, candidates, codes, the loss and its gradients.

  In training, the codebook after the step is compared as well. The perplexity is that
  of the last rank, as released; the method itself reports that of the nearest one.
  """
  options, count, _ = split(case.meta["config"])
  network, variables = load("vq", case, options)
  method = world_of(network, count)
  key = jax.random.key(0)

  def loss_of(params, x, codebook):
    batch = {"inputs": x, "targets": x}
    return method.loss(
      {"params": params, "codebook": codebook}, {}, batch, key, case.train
    )

  def run(variables, x):
    codebook, batch = variables["codebook"], {"inputs": x, "targets": x}
    value = jax.value_and_grad(loss_of, (0, 1), has_aux=True)
    latents, _ = network.apply(variables, x, method="encode")
    return (
      *value(variables["params"], x, codebook),
      latents[:, 0],
      vq.nearest_codes(latents[:, 0], codebook["embedding"], count),
      network.apply(variables, x)[:, 0],
      method.forecast(variables, {}, batch, key, count)[:, :, 0],
    )

  x = frames(case.group("input")["x"])
  found = jax.jit(run, compiler_options=QUICK)(variables, x)
  (loss, outputs), (of_params, of_x), latents, numbers, reconstruction, made = found
  counts = _counts(latents, numbers[..., -1], network.codes)
  actual = {
    "pred": first_axes(reconstruction),
    "vq_loss": method.commitment_cost * outputs.scalars["commitment"],
    "z": first_axes(latents),
    "indices": numbers,
    "perplexity_lastk": vq.perplexity(counts),
  }
  actual |= {f"top_k_features.{k}": first_axes(y) for k, y in enumerate(made)}
  for name, wanted in case.group("output").items():
    assert_close(name, actual[name], wanted)
  assert_close("loss", loss, case.group("check")["loss"])
  gradients = convert.to_torch("vq", {"params": of_params}, **options)
  wanted = case.group("grad")
  assert wanted.keys() == gradients.keys()
  wanted |= {"x": case.group("grad_input")["x"]}
  assert_gradients(gradients | {"x": first_axes(of_x[:, 0])}, wanted)
  after = own_codebook(case.group("after"))
  if case.train:
    assert after
    book = method.update(outputs.collections, outputs.summed)["codebook"]
    assert_codebook("after/", book, after)


class Quantiser(vq.VQ):
  """The codebook alone: frames are latents, and latents are decoded to themselves."""

  def __post_init__(self):
    # The norms that want an even number of features are not here.
    nn.Module.__post_init__(self)

  def encode(self, frames):
    return frames, frames

  def decode(self, latents, skip):
    return latents


@runner("sfp", "VectorQuantizerEMA")
def quantiser(case: Case) -> None:
  """Compares codes, losses, gradients and the codebook after one or more steps.

  Each step is that of the whole method, whose network is the codebook alone.
  """
  config = case.options(
    "num_embeddings embedding_dim commitment_cost decay epsilon top_k",
    decay=0.99,
    epsilon=1e-5,
    commitment_cost=0.25,
    top_k=3,
  )
  # A variant moves the nearest codes.
  assignment = "nearest" if "nearest" in case.meta["source"] else "kth"
  count, codes = config["top_k"], config["num_embeddings"]
  method = world_of(
    Quantiser(features=config["embedding_dim"], codes=codes, depth=1),
    count,
    assignment=assignment,
    **{name: config[name] for name in ("commitment_cost", "decay", "epsilon")},
  )
  key = jax.random.key(0)

  def evaluate(z, variables):
    batch = {"inputs": z, "targets": z}
    _, outputs = method.loss(variables, {}, batch, key, case.train)
    made = method.forecast(variables, {}, batch, key, count)[:, :, 0]
    ranks = vq.straight_through(z[:, 0], made)
    numbers = vq.nearest_codes(z[:, 0], variables["codebook"]["embedding"], count)
    used = numbers[..., 0 if assignment == "nearest" else -1]
    counts = _counts(z[:, 0], used, codes)
    found = {
      "loss": method.commitment_cost * outputs.scalars["commitment"],
      "quantized": first_axes(ranks[0]),
      "perplexity": vq.perplexity(counts),
      "indices": numbers.reshape(-1, count),
      "encodings_last": jax.nn.one_hot(used.reshape(-1), codes),
    }
    found |= {f"top_k_quantized_nhwc.{k}": y for k, y in enumerate(ranks)}
    names = ["loss", "quantized", *(name for name in found if "nhwc" in name)]
    loss = found["loss"] + sum(LOSSES["sfp"](found[name]) for name in names[1:])
    return loss, (found, outputs)

  step = jax.jit(jax.value_and_grad(evaluate, has_aux=True), compiler_options=QUICK)
  weights = case.group("param")
  book = {leaf.name: weights[leaf.torch] for leaf in names_lib.CODEBOOK}
  expected = case.group("output")
  for name, z in case.group("input").items():
    suffix = name.removeprefix("z")  # ".0", ".1" ... of several steps.
    (loss, (found, outputs)), gradient = step(frames(z), {"codebook": book})
    for name, wanted in expected.items():
      if name.removesuffix(suffix) in found and name.endswith(suffix):
        assert_close(name, found[name.removesuffix(suffix)], wanted)
    if case.train:
      book = method.update(outputs.collections, outputs.summed)["codebook"]
    after = {
      leaf.torch: expected.get(f"{leaf.torch}{suffix}") for leaf in names_lib.CODEBOOK
    }
    if not suffix:
      after = case.group("after")
    assert_codebook(f"after step {suffix}: ", book, after)
  if "loss" in case.meta:
    assert_close("loss", loss, case.group("check")["loss"])
    assert_gradients({"z": first_axes(gradient[:, 0])}, case.group("grad_input"))


@twin("sfp", "AtmosphericEncoder")
def encoder(case: Case) -> Twin:
  options = case.options("C_in spatial_hidden_dim num_spatial_layers")
  depth = options["num_spatial_layers"]
  names = names_lib.name_map(vq.VQ(depth=depth)).below(names_lib.ENCODER, "encoder/")
  return Twin(simvp.FirstEncoder(options["spatial_hidden_dim"], depth), names)


# One frame of one candidate: [B, C, H, W] there, [K, B, T, H, W, C] here.
ONE_CANDIDATE = Axes(lambda x: frames(x)[None], lambda y: first_axes(y[0, :, 0]))


@twin("sfp", "AtmosphericDecoder")
def decoder(case: Case) -> Twin:
  options = case.options("spatial_hidden_dim C_out num_spatial_layers")
  depth = options["num_spatial_layers"]
  names = names_lib.name_map(vq.VQ(depth=depth)).below(names_lib.DECODER, "decoder/")
  module = vq.Decoder(options["spatial_hidden_dim"], options["C_out"], depth)
  return Twin(module, names, axes=ONE_CANDIDATE)


@runner("sfp", "BeamSearchPlanner + Generative_World_Model")
def planner(case: Case) -> None:
  """Compares imagined futures, their rewards, choices and pseudo-labels."""
  options, count, config = split(case.meta["config"])
  network, variables = load("vq", case, options)
  method = world_of(network, count)
  inputs = case.group("input")
  latent = config["action_kind"] == "latent"

  def imagine(variables, history, action):
    key, batch = jax.random.key(0), {"inputs": history}
    return method.imagine(variables, {}, batch, action, key, count, latent)

  futures = jax.jit(imagine, compiler_options=QUICK)(
    variables, last_axes(inputs["s_t"]), frames(inputs["action"])
  )
  found = jnp.moveaxis(first_axes(futures[:, :, 0]), 0, 1)
  assert_close("candidates", found, case.group("output")["candidates"])
  sfp_planning.check_plans(case, futures, config["beam_width"])


class FoldedConv(nn.Module):
  """The 3x3 convolution that stands for a missing backbone of the original.

  Attributes:
    features: channels of the result.
  """

  features: int

  @nn.compact
  def __call__(self, x, train=False):
    return Conv(self.features, 3, name="c")(fold_frames(x))[:, None]


@runner("sfp", "Agent")
def agent(case: Case) -> None:
  """Compares the backbone's last frame and its projection.

  The original's projector is a 1x1 convolution of the backbone's last frame. Here, a
  `latent_head` that does not coarsen the grid is that convolution of each frame.
  """
  config = dict(case.meta["config"])
  weights = case.group("param")
  name, shape_in = config["backbone_name"].lower(), config["shape_in"]
  width = config["out_channels"]
  if name.startswith("simvp"):
    options = originals.first_simvp(
      shape_in, hid_S=width, hid_T=config["latent_dim"], N_T=4, N_S=2
    )
    del options["in_shape"]
    backbone = models.build("simvp", **options)
    own = convert.FAMILIES["simvp"].names(backbone).entries
  elif "backbone.c.weight" in weights:
    backbone = FoldedConv(width)
    own = [mapping.Entry("c", "c", LAYER)]
  else:
    raise NotBuilt(f"an agent with the backbone {name}")
  names = mapping.NameMap(
    [
      *(
        entry._replace(torch=f"backbone.{entry.torch}", path=f"backbone/{entry.path}")
        for entry in own
      ),
      mapping.Entry("projector", "latents", LAYER),
    ]
  )
  network = LatentHead(backbone, features=shape_in[1], factor=1)
  history = last_axes(case.group("input")["s_t"])
  shapes = jax.eval_shape(network.init, jax.random.key(0), history)
  variables = mapping.to_variables(names, shapes, weights)

  def run(variables, history):
    own = {"params": variables["params"]["backbone"]}
    return backbone.apply(own, history), network.apply(variables, history)

  action, projected = jax.jit(run, compiler_options=QUICK)(variables, history)
  expected = case.group("output")
  assert_close("action", first_axes(action[:, -1]), expected["action"])
  state = first_axes(projected[:, -1])
  assert_close("projected_state", state, expected["projected_state"])


def overwritten(weights: dict[str, np.ndarray], last: dict[str, np.ndarray]) -> bool:
  """Whether weights are those after the last step, although training went on.

  Some cases were written from arrays that training changed afterwards, so that the
  weights before the first step and after each one all equal those after the last.

  Args:
    weights: learned weights before a step.
    last: weights after the last step.
  """
  return all(np.array_equal(x, last[key]) for key, x in weights.items())


def by_step(case: Case, name: str) -> list[dict[str, np.ndarray]]:
  """The arrays "output/NAME.s/..." of each step s."""
  steps = range(case.meta["config"]["steps"])
  return [case.group(f"output/{name}.{step}") for step in steps]


def before_adam(
  last: dict[str, np.ndarray], gradients: list[dict[str, np.ndarray]], rate: float
) -> dict[str, np.ndarray]:
  """Takes steps of Adam back.

  Args:
    last: weights after the last step.
    gradients: gradients of each step.
    rate: the learning rate.
  """
  start = {}
  for key, x in last.items():
    first = second = np.zeros(x.shape)
    moved = np.zeros(x.shape)
    for number, gradient in enumerate(gradients, 1):
      slope = gradient[key].astype(np.float64)
      first = BETAS[0] * first + (1 - BETAS[0]) * slope
      second = BETAS[1] * second + (1 - BETAS[1]) * slope**2
      root = np.sqrt(second / (1 - BETAS[1] ** number))
      moved += rate * first / (1 - BETAS[0] ** number) / (root + EPSILON)
    start[key] = (x + moved).astype(np.float32)
  return start


def adam(method: methods.base.Method, variables: dict, config: dict):
  """The state before the first step, and the function that takes one."""
  schedule = {"name": "constant", "cycle_momentum": False}
  options = {"learning_rate": config["lr"]}
  return trainer(method, variables, config["steps"], options, schedule)[:2]


@runner("sfp", "Generative_World_Model + Adam")
def first_stage(case: Case) -> None:
  """Compares losses, weights and codebooks of several steps of the first stage.

  A case may hold the weights after the last step in place of the first ones, as
  `overwritten` says. Its losses then belong to weights that it does not hold. As it
  has no gradients either, the first weights cannot be found again, and it is skipped.
  """
  options, count, config = split(case.meta["config"])
  weights, states = case.group("param"), by_step(case, "state")
  learned = {key: x for key, x in weights.items() if key not in codebook_names()}
  if overwritten(learned, states[-1]):
    raise NotBuilt(
      "the case holds the weights after its last step in place of those before the"
      " first, from which its losses follow"
    )
  network, variables = load("vq", case, options)
  method = world_of(network, count, vq_weight=config["vq_weight"])
  state, update = adam(method, variables, config)
  expected = case.group("output")
  for number, wanted in enumerate(states):
    x = frames(case.group("input")[f"x.{number}"])
    state, scalars = update(state, {"inputs": x, "targets": x}, {})
    found = {
      "recon": scalars["reconstruction_error"],
      "vq": method.commitment_cost * scalars["commitment"],
      "total": scalars["loss"],
    }
    for name, value in found.items():
      assert_close(f"{name}.{number}", value, expected[f"{name}.{number}"])
    assert_codebook(
      f"step {number}: ", state.collections["codebook"], own_codebook(wanted)
    )
    if number + 1 == len(states) or not overwritten(
      {key: wanted[key] for key in learned}, states[-1]
    ):
      found = convert.to_torch("vq", state.variables(), **options)
      found = {key: found[key] for key in learned}
      assert_after_adam(f"step {number}: ", found, wanted, config["lr"])


def assert_after_adam(
  where: str, actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray], rate: float
) -> None:
  """Compares weights after a step of Adam.

  The step is about the learning rate, with the sign of the gradient. Where that is
  rounding noise, two programs may go apart by twice the rate; as the cases' notes
  say, this is allowed, but here for one weight in a hundred at most.
  """
  errors = {key: np.abs(x - wanted[key]) for key, x in actual.items()}
  largest = max(errors, key=lambda key: errors[key].max())
  assert errors[largest].max() <= 2 * rate, f"{where}{largest}"
  apart = sum(
    np.count_nonzero(error > OUTPUT_TOLERANCE * np.abs(wanted[key]).max())
    for key, error in errors.items()
  )
  number = sum(error.size for error in errors.values())
  assert apart <= number / 100, f"{where}{apart} of {number} weights differ"


@runner("sfp", "agent CLSTM + frozen GWM + planner + Adam")
def second_stage(case: Case) -> None:
  """Compares forecasts, pseudo-labels, losses and gradients of the second stage.

  A case may hold the agent's weights after the last step in place of earlier ones, as
  `overwritten` says. Its gradients are those of each step all the same, so that the
  first weights are found again by taking Adam's steps back. What was overwritten is
  not compared.
  """
  config, inputs = case.meta["config"], case.group("input")
  weights, expected = case.group("param"), case.group("output")

  def part(prefix):
    return {
      key.removeprefix(prefix): x
      for key, x in weights.items()
      if key.startswith(prefix)
    }

  start, states = part("agent."), by_step(case, "agent_state")
  gradients = by_step(case, "agent_grad")
  if overwritten(start, states[-1]):
    start = before_adam(start, gradients, config["lr"])
  shape_in = case.meta["inputs"]["s_t.0"][1:]
  agent_options = originals.clstm(shape_in, **config["agent"])
  variables = convert.to_stjax("convlstm_states", start, **agent_options)
  world_options, count, _ = split(config["gwm"])
  world_variables = jax.tree.map(
    jnp.asarray, convert.to_stjax("vq", part("gwm."), **world_options)
  )
  del world_options["in_shape"]
  world = world_of(models.build("vq", **world_options), count)
  name, width = config["reward"], config["beam_width"]
  network = {key: x for key, x in agent_options.items() if key != "in_shape"}
  method = methods.build(
    "self_training",
    models.build("convlstm_states", **network),
    {"world": world},
    horizon=config["agent"]["pred_len"],
    reward=sfp_planning.REWARDS[name],
    thresholds=(sfp_planning.DEFAULTS["csi"],) if name == "csi" else (),
    candidates=count,
    width=width,
  )
  frozen = {
    "world": {"variables": world_variables, "frozen": {}},
    "offset": jnp.zeros(world.network.out_channels),
    "scale": jnp.ones(world.network.out_channels),
  }
  state, update = adam(method, variables, config)
  key, reward = jax.random.key(0), sfp_planning.build(name)

  def look(params, batch):
    variables = {"params": params}
    slope = jax.grad(lambda p: method.loss({"params": p}, frozen, batch, key, True)[0])
    forecast = method.forecast(variables, frozen, batch, key)[0]
    futures = world.imagine(world_variables, {}, batch, forecast, key, width)
    best = search.select(reward(futures, batch["targets"]), width)
    return forecast, futures[best, jnp.arange(len(best))], slope(params)

  look = jax.jit(look, compiler_options=QUICK)
  for number, (gradient, after) in enumerate(zip(gradients, states, strict=True)):
    batch = {
      "inputs": last_axes(inputs[f"s_t.{number}"]),
      "targets": last_axes(inputs[f"y.{number}"]),
    }
    forecast, pseudo, slope = look(state.params, batch)
    state, scalars = update(state, batch, frozen)
    found = {
      "prediction": first_axes(forecast),
      "pseudo_label": first_axes(pseudo),
      "policy_loss": scalars["loss"],
    }
    for what, value in found.items():
      assert_close(f"{what}.{number}", value, expected[f"{what}.{number}"])
    to_torch = functools.partial(convert.to_torch, "convlstm_states", **agent_options)
    assert_gradients(to_torch({"params": slope}), gradient)
    if number + 1 == len(states) or not overwritten(after, states[-1]):
      found = to_torch({"params": state.params})
      assert_after_adam(f"step {number}: ", found, after, config["lr"])
