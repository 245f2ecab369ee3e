"""The torch twin of CoST is CoST, and computes what stjax computes."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoising import GivenShift

from stjax import convert, models
from stjax.methods.diffusion import Draws

torch = pytest.importorskip("torch")
torch_cost = pytest.importorskip("benchmarks.torch_cost")

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "cost" / "sampling"
BATCH, NODES, HISTORY, HORIZON = 2, 5, 4, 3
IN_SHAPE = (HISTORY, NODES, 1, 1)
TABLES = {"slot_of_day": ("slots", 3), "day_of_week": ("days", 2), "month": ("days", 4)}
CALENDARS = [(), ("slot_of_day", "day_of_week"), ("month",)]


def options(calendar, **others):
  """Of a network of stjax."""
  return dict(
    horizon=HORIZON,
    node_dim=3,
    embed_dim=6,
    num_layers=2,
    calendar_names=calendar,
    calendar_sizes=tuple(TABLES[name][1] for name in calendar),
    calendar_dims=(4,) * len(calendar),
    **others,
  )


def released(calendar):
  divisors = {"slot_of_day": 24, "day_of_week": 7, "month": 7}
  return options(
    calendar,
    full_window=True,
    step_table="float32",
    calendar_divisors=tuple(divisors[name] for name in calendar),
  )


def twin_options(calendar):
  tables = {TABLES[name][0]: (TABLES[name][1], 4) for name in calendar}
  return dict(node_dim=3, embed_dim=6, num_layers=2, **tables)


def random_like(shapes):
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda a: 0.4 * rng.standard_normal(a.shape).astype(np.float32), shapes
  )


def windows(calendar, scaled):
  """A batch for stjax, and its (day, slot) for the twin.

  Args:
    calendar: its columns.
    scaled: whether the look-up divides the values.
  """
  rng = np.random.default_rng(0)
  shape = (BATCH, HISTORY + HORIZON)
  values = rng.standard_normal((*shape, NODES, 1, 1), np.float32)
  # Both reach to the last row of their tables.
  slot = rng.integers(0, 72 if scaled else 3, shape)
  day = rng.integers(0, 14 if scaled else 2, shape)
  columns = {"slot_of_day": slot, "day_of_week": day, "month": day}
  batch = {
    "inputs": values[:, :HISTORY],
    "targets": values[:, HISTORY:],
    "index": np.arange(BATCH, dtype=np.int32),
  }
  if calendar:
    known = np.stack([columns[name] for name in calendar], axis=-1)
    batch["calendar"] = known.astype(np.int32)
  timepoints = np.stack([day, slot], axis=-1).astype(np.float32)
  return batch, torch.from_numpy(timepoints)


def load(module, family, variables, settings):
  weights = convert.to_torch(family, variables, in_shape=IN_SHAPE, **settings)
  tensors = {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}
  module.load_state_dict(tensors)
  return module.eval()


def nodes(x):
  """Maps [B, T, K, 1, 1] to the twin's [B, K, T]."""
  return torch.from_numpy(np.array(x)[..., 0, 0].transpose(0, 2, 1))


def forecaster(calendar):
  """The method of stjax, its variables, and the twin with the same."""
  settings = released(calendar)
  network = models.build("stid_denoiser", **settings)
  method = GivenShift(network=network, horizon=HORIZON)
  batch, timepoints = windows(calendar, scaled=True)
  shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
  variables = random_like(shapes)
  frames = HISTORY + HORIZON
  denoiser = torch_cost.Denoiser(NODES, frames, **twin_options(calendar))
  twin = torch_cost.Forecaster(denoiser, NODES, HISTORY)
  load(twin, "stid_denoiser", variables, settings)
  return method, variables, batch, twin, timepoints


def draws(count):
  rng = np.random.default_rng(2)
  shape = (count, BATCH, HISTORY + HORIZON, NODES, 1, 1)
  return rng.standard_normal(shape).astype(np.float32)


def fluctuation():
  """A scale [K] and signs [B, T_out, K, 1, 1]."""
  rng = np.random.default_rng(3)
  scale = rng.uniform(0.2, 0.9, NODES).astype(np.float32)
  sign = rng.choice([-1.0, 1.0], (BATCH, HORIZON, NODES, 1, 1))
  return scale, sign.astype(np.float32)


@pytest.mark.parametrize("calendar", CALENDARS)
def test_twin_of_the_mean_with_converted_weights_equals_stjax(calendar):
  settings = options(calendar)
  batch, timepoints = windows(calendar, scaled=False)
  network = models.build("stid", **settings)
  arguments = {"calendar": batch.get("calendar")}
  variables = random_like(
    jax.eval_shape(
      lambda key: network.init(key, batch["inputs"], **arguments), jax.random.key(0)
    )
  )
  want = network.apply(variables, batch["inputs"], **arguments)
  twin = torch_cost.Mean(NODES, HISTORY, HORIZON, **twin_options(calendar))
  load(twin, "stid", variables, settings)
  x = torch.from_numpy(batch["inputs"][..., 0])
  with torch.no_grad():
    got = twin(x, timepoints[:, :HISTORY]).numpy()
  np.testing.assert_allclose(got, want[..., 0], rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("calendar", CALENDARS)
def test_twin_of_the_train_step_has_the_loss_and_gradients_of_stjax(calendar):
  method, variables, batch, twin, timepoints = forecaster(calendar)
  scale, sign = fluctuation()
  noise, step = draws(1)[0], np.array([31, 3], np.int32)

  given = Draws(
    step=jnp.asarray(step),
    noise=noise[:, HISTORY:],
    sign=scale[:, None, None] * sign,
    keep=jnp.ones(BATCH, bool),
  )

  def loss(variables):
    return method.loss_for(
      variables, {}, batch, given, train=False, key=jax.random.key(0)
    )[0]

  want, gradients = jax.value_and_grad(loss)(variables)
  frames = np.concatenate([batch["inputs"], batch["targets"]], axis=1)
  data = nodes(frames)
  mask = torch.zeros_like(data)
  mask[..., :HISTORY] = 1
  got = twin.loss(
    data,
    timepoints,
    mask,
    torch.from_numpy(scale).expand(BATCH, -1),
    step=torch.from_numpy(step).long(),
    noise=nodes(noise),
    sign=nodes(sign),
  )
  got.backward()
  assert got.item() == pytest.approx(float(want), rel=1e-4)
  gradients = convert.to_torch(
    "stid_denoiser", gradients, in_shape=IN_SHAPE, **released(calendar)
  )
  for name, parameter in twin.named_parameters():
    if name != "embed_layer.weight":  # Nothing reads it.
      np.testing.assert_allclose(
        parameter.grad,
        gradients[name],
        rtol=0,
        atol=1e-4 * np.abs(gradients[name]).max(),
        err_msg=name,
      )


def test_twin_of_the_sampler_draws_the_samples_of_stjax():
  method, variables, batch, twin, timepoints = forecaster(CALENDARS[1])
  scale, sign = fluctuation()
  noise = draws(50)
  prior = scale[:, None, None] * sign
  late = jnp.asarray(noise[:, :, HISTORY:])
  want = jax.jit(
    lambda variables: method.sample(
      variables,
      method.contexts(variables, batch),
      prior,
      late[0],
      lambda i: late[i + 1],
    )
  )(variables)
  mask = torch.zeros(BATCH, NODES, HISTORY + HORIZON)
  mask[..., :HISTORY] = 1
  data = torch.nn.functional.pad(nodes(batch["inputs"]), (0, HORIZON))
  queue = iter(noise)
  got = twin.reverse(
    data,
    twin.side_information(timepoints, mask),
    mask,
    twin.shift(torch.from_numpy(scale).expand(BATCH, -1), nodes(sign)),
    lambda x: nodes(next(queue)),
  )[..., HISTORY:]
  assert next(queue, None) is None
  np.testing.assert_allclose(got, nodes(want), rtol=0, atol=1e-4 * np.abs(want).max())


def test_twin_of_the_sampler_draws_the_samples_of_the_released_code():
  config = json.loads(GOLDEN.with_suffix(".json").read_text())["config"]
  with np.load(GOLDEN.with_suffix(".npz")) as archive:
    golden = {k: torch.from_numpy(archive[k]) for k in archive}
  history, horizon = config["history_len"], config["predict_len"]
  denoiser = torch_cost.Denoiser(
    config["num_vertices"],
    history + horizon,
    node_dim=config["node_dim"],
    embed_dim=config["embed_dim"],
    num_layers=config["num_layer"],
    slots=(config["time_of_day_size"], config["temp_dim_tid"]),
    days=(config["day_of_week_size"], config["temp_dim_diw"]),
  )
  twin = torch_cost.Forecaster(denoiser, config["num_vertices"], history)
  twin.load_state_dict(
    {k.removeprefix("param/"): v for k, v in golden.items() if k.startswith("param/")}
  )
  twin.eval()
  mask = golden["input/gt_mask"].squeeze(-1).transpose(1, 2)
  data = golden["input/observed_data"].squeeze(-1).transpose(1, 2)
  side = twin.side_information(golden["input/timepoints"], mask)
  for member in range(config["n_samples"]):
    noises = iter(
      [golden["input/init_noise"][member], *golden["input/step_noise"][member]]
    )
    drawn = twin.reverse(
      data,
      side,
      mask,
      twin.shift(golden["input/scale_residual"], golden["input/sign"][member]),
      lambda x, noises=noises: next(noises),
    )[..., history:]
    prior = golden["input/prior"].transpose(1, 2)
    want = golden["output/samples"][:, member, :, history:]
    np.testing.assert_allclose(
      drawn + prior, want, rtol=0, atol=1e-4 * want.abs().max()
    )
