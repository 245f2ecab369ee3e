"""CoST's two networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from golden import registry
from golden.case import GRADIENT_TOLERANCE, Case, NotBuilt, assert_close
from stjax import convert, models
from stjax.convert.stid import DENOISER, TABLES
from stjax.models.layers.folding import unfold_frames

# These are the columns of the original's `timepoints`.
TIMEPOINTS = ("day", "slot")
# The original divides the columns of the side information by these numbers.
DIVISORS = {"slot": 24, "day": 7}


class Network:
  """A network here with an original's weights and options.

  Args:
    family: "stid" or "stid_denoiser".
    config: the original's constructor arguments.
    weights: its state dict, with or without the denoiser's wrapper.
    divided: those of "slot" and "day" that are looked up by `DIVISORS`.
    channels: the number of channels C.

  Attributes:
    family: "stid" or "stid_denoiser".
    module: the network.
    variables: {"params": ...}.
    columns: those of "slot" and "day" that it looks up, in this order.
  """

  def __init__(
    self,
    family: str,
    config: dict[str, Any],
    weights: dict[str, np.ndarray],
    divided: tuple[str, ...] = (),
    channels: int = 1,
  ):
    # The tables' own shapes are what was built, whatever the config says.
    self.family = family
    bare = {key.removeprefix(DENOISER): x for key, x in weights.items()}
    tables = dict(zip(TABLES, ("slot", "day"), strict=True))
    found = [table for table in tables if table in bare]
    self.columns = tuple(tables[table] for table in found)
    self.options = {
      "in_shape": (config["history_len"], config["num_vertices"], 1, channels),
      "horizon": config["predict_len"],
      "node_dim": bare["node_emb"].shape[1] if "node_emb" in bare else 0,
      "embed_dim": bare["time_series_emb_layer.weight"].shape[0],
      "num_layers": config["num_layer"],
      "calendar_names": tuple(TABLES[table][0] for table in found),
      "calendar_sizes": tuple(bare[table].shape[0] for table in found),
      "calendar_dims": tuple(bare[table].shape[1] for table in found),
    }
    if divided:
      self.options["calendar_divisors"] = tuple(
        DIVISORS[name] if name in divided else 1 for name in self.columns
      )
    if family == "stid":
      features = bare["regression_layer.weight"].shape[0]
      self.options["out_channels"] = features // config["predict_len"]
    if family == "stid_denoiser":
      if config.get("input_dim", 2) != 2:
        raise NotBuilt("a denoiser of other inputs than what is known and not")
      prefixed = {DENOISER + key: x for key, x in bare.items()}
      weights = prefixed if bare.keys() == weights.keys() else weights
      self.options |= {
        # The original has 50 rows whatever the number of steps.
        "num_steps": max(
          config.get("num_steps_embedding", 50), config.get("diff_steps", 50)
        ),
        "step_dim": bare["diffusion_embedding.projection1.weight"].shape[1],
        "step_table": "float32",
        "full_window": True,
      }
    variables = convert.to_stjax(family, weights, **self.options)
    variables.pop("torch", None)
    self.variables = variables
    arguments = {k: v for k, v in self.options.items() if k != "in_shape"}
    self.module = models.build(family, **arguments)

  def to_torch(self, variables) -> dict[str, np.ndarray]:
    """Gives variables, or gradients, the wrapper's names and the bare ones."""
    named = convert.to_torch(self.family, variables, **self.options)
    bare = {key.removeprefix(DENOISER): value for key, value in named.items()}
    return bare | named

  def calendar(self, columns: dict[str, np.ndarray]) -> jax.Array | None:
    """Stacks the network's columns [B, T] to a calendar [B, T, K]."""
    if not self.columns:
      return None
    stacked = np.stack([columns[name] for name in self.columns], axis=-1)
    return jnp.asarray(stacked.astype(np.int32))


def nodes_last(x) -> np.ndarray:
  """Maps [B, T, K, 1, C] to the original's [B, T, K, C]."""
  return np.asarray(x)[:, :, :, 0]


def columns_of(timepoints: np.ndarray) -> dict[str, np.ndarray]:
  """Takes columns [B, T] out of [B, T, 2], truncated as the original does."""
  return {
    name: timepoints[..., i].astype(np.int64) for i, name in enumerate(TIMEPOINTS)
  }


def check_gradients(case: Case, network: Network, gradients) -> None:
  """Compares gradients of the variables under the original's names."""
  actual = network.to_torch(gradients)
  for key, expected in case.group("grad").items():
    assert_close(f"grad/{key}", actual[key], expected, GRADIENT_TOLERANCE)


@registry.runner("cost", "STID deterministic")
def mean(case: Case) -> None:
  """Compares the deterministic network's forecast, loss and gradients."""
  inputs, expected = case.group("input"), case.group("output")
  # The original takes its first channels only.
  channels = case.meta["config"].get("input_dim", 1)
  network = Network("stid", case.meta["config"], case.group("param"), channels=channels)
  x = jnp.asarray(inputs["x"])[:, :, :, None, :channels]
  target = jnp.asarray(inputs["target"])[:, :, :, None]
  calendar = network.calendar(columns_of(inputs["timepoints"]))

  @jax.jit
  def run(variables, x):
    y = network.module.apply(variables, x, calendar=calendar)
    return jnp.mean(jnp.square(y - target)), y

  (loss, y), gradients = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(
    network.variables, x
  )
  assert_close("pred", nodes_last(y), expected["pred"])
  assert_close("loss", loss, expected["loss"])
  check_gradients(case, network, gradients[0])
  for key, value in case.group("grad_input").items():
    assert key == "x"
    assert_close(
      key, nodes_last(gradients[1]), value[..., :channels], GRADIENT_TOLERANCE
    )


def as_features(window: np.ndarray) -> tuple[jax.Array, int]:
  """Turns a window [B, 2, K, T] into features l * 2 + c of a grid [B, K, 1].

  Returns:
    The features [B, K, 1, 2 T], and T.
  """
  window = np.moveaxis(window, 1, 3)[:, :, None]
  b, k, _, frames, _ = window.shape
  return jnp.asarray(window.reshape(b, k, 1, 2 * frames)), frames


def side_calendar(
  cond_info: np.ndarray,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Takes calendar columns [B, T] out of the side information [B, T, K, 3].

  Returns:
    The columns, and the names of those that were divided by `DIVISORS`.
  """
  columns, divided = {}, []
  for i, name in enumerate(("slot", "day")):
    values = cond_info[:, :, 0, i]
    # Every node has the same time.
    assert (values[:, -1, None] == cond_info[:, -1, :, i]).all(), name
    if np.any(values != np.trunc(values)):
      divided.append(name)
      scaled = values.astype(np.float64) * DIVISORS[name]
      values = np.round(scaled)
      np.testing.assert_allclose(values, scaled, atol=1e-4, err_msg=name)
    columns[name] = values.astype(np.int64)
  return columns, tuple(divided)


@registry.runner("cost", "STID denoiser")
def denoiser(case: Case) -> None:
  """Compares the noise predicted for a given window, its loss and gradients."""
  inputs, expected = case.group("input"), case.group("output")
  weights = case.group("param")
  columns, divided = side_calendar(inputs["cond_info"])
  network = Network("stid_denoiser", case.meta["config"], weights, divided)
  calendar = network.calendar(columns)
  step = jnp.asarray(inputs["diffusion_step"], jnp.int32)
  step = jnp.broadcast_to(step, inputs["x"].shape[:1])
  window, frames = as_features(inputs["x"])

  @jax.jit
  def run(variables, window):
    y = network.module.apply(
      variables, window, step, frames, calendar=calendar, method="window"
    )
    eps = y[:, :, 0]
    return jnp.mean(eps * inputs["loss_weight"]), eps

  (loss, eps), gradients = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(
    network.variables, window
  )
  assert_close("eps", eps, expected["eps"])
  assert_close("loss", loss, expected["loss"], smallest_scale=np.abs(eps).max())
  check_gradients(case, network, gradients[0])
  if "diffusion_embedding" in expected:
    _, state = network.module.apply(
      network.variables,
      window,
      step,
      frames,
      calendar=calendar,
      method="window",
      capture_intermediates=lambda module, _: module.name == "step",
    )
    (embedding,) = state["intermediates"]["step"]["__call__"]
    value = expected["diffusion_embedding"]  # It has one row if all steps are one.
    assert_close("diffusion_embedding", embedding[: len(value)], value)
  for key, value in case.group("grad_input").items():
    assert key == "x"
    gradient = unfold_frames(gradients[1], frames)[:, :, :, 0]
    assert_close(
      key, np.moveaxis(gradient, (1, 2, 3), (3, 2, 1)), value, GRADIENT_TOLERANCE
    )
