"""The torch SynCast of the benchmarks gives the released code's numbers."""

import pathlib

import numpy as np
import pytest
from golden.case import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Case, assert_close

torch = pytest.importorskip("torch")
torch_syncast = pytest.importorskip("benchmarks.torch_syncast")

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "syncast"


@pytest.fixture(autouse=True)
def one_thread():
  """The networks are so small that threads would only wait for each other."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


def case(name):
  return Case(GOLDENS / f"{name}.json")


def tensors(case, group):
  return {k: torch.from_numpy(v) for k, v in case.group(group).items()}


def network(case):
  """The twin of a case's network with the case's parameters."""
  config = case.meta["config"]
  unet, encoder = config["unet_kwargs"], config["ctxNet_kwargs"]
  assert unet["dim"] == encoder["dim"] and unet["dim_mults"] == encoder["dim_mults"]
  twin = torch_syncast.DiffCast(unet["T_in"], unet["dim"], tuple(unet["dim_mults"]))
  twin.load_state_dict(tensors(case, "param"))
  return twin


def test_full_size_has_the_parameters_of_the_released_configs():
  twin = torch_syncast.DiffCast(frames=18)
  shapes = [p.shape for p in twin.state_dict().values()]
  assert len(shapes) == 408
  assert sum(shape.numel() for shape in shapes) == 46_352_274


def test_context_and_its_gradients():
  golden = case("context_net")
  config = golden.meta["config"]
  twin = torch_syncast.ContextNet(config["dim"], tuple(config["dim_mults"]))
  twin.load_state_dict(tensors(golden, "param"))
  frames, wanted = tensors(golden, "input")["frames"], golden.group("output")
  states = twin(frames)
  early = twin(frames[:, :6])
  outputs = [*states, *early]
  for kind, found in (("global", states), ("local", early)):
    for level, state in enumerate(found):
      name = f"{kind}_{level}"
      assert_close(name, state.detach().numpy(), wanted[name])
  sum(x.square().mean() for x in outputs).backward()
  check_gradients(twin, golden)


def check_gradients(twin, golden):
  wanted = golden.group("grad")
  largest = max(np.abs(gradient).max() for gradient in wanted.values())
  parameters = dict(twin.named_parameters())
  assert parameters.keys() == wanted.keys()
  for name, gradient in wanted.items():
    # Some are 0 but for rounding: those of biases in front of a norm.
    smallest = 1e-4 * largest
    found = parameters[name].grad.numpy()
    assert_close(name, found, gradient, GRADIENT_TOLERANCE, smallest)


def test_loss_of_the_base_and_its_gradients():
  golden = case("base_train_step")
  twin, given = network(golden), tensors(golden, "input")
  wanted = golden.group("output")
  history, targets, noise, step = (
    given[name] for name in ("inputs", "data_samples", "noise", "timesteps")
  )
  noisy = torch_syncast.diffused(targets, noise, step)
  assert_close("noisy", noisy.numpy(), wanted["noisy"])
  with torch.no_grad():
    assert_close("eps_pred", twin(noisy, step, history).numpy(), wanted["eps_pred"])
  loss = torch_syncast.base_loss(twin, history, targets, noise, step)
  loss.backward()
  assert_close("loss", loss.detach().numpy(), wanted["loss"])
  check_gradients(twin, golden)


def test_unet_and_whole_network():
  golden = case("unet")
  config, given = golden.meta["config"], tensors(golden, "input")
  twin = torch_syncast.UNet(config["dim"], tuple(config["dim_mults"]), config["T_in"])
  twin.load_state_dict(tensors(golden, "param"))
  with torch.no_grad():
    found = twin(given["x"], given["time"], [given["ctx0"], given["ctx1"]])
  assert_close("eps", found.numpy(), golden.group("output")["eps"])
  golden = case("diffcast_full")
  given = tensors(golden, "input")
  with torch.no_grad():
    found = network(golden)(given["noise_pred"], given["timesteps"], given["inp"])
  assert_close("eps", found.numpy(), golden.group("output")["eps"])


@pytest.mark.parametrize("recompute", [True, False])
def test_samples(recompute):
  golden = case("ddim_sampling_20")
  given = tensors(golden, "input")
  steps = golden.meta["config"]["num_inference_steps"]
  found = torch_syncast.sample(
    network(golden), given["inp"], given["x_T"], steps, recompute
  )
  assert_close("sample", found.numpy(), golden.group("output")["sample"])


@pytest.mark.parametrize("recompute", [True, False])
def test_steps_of_the_preference(recompute):
  golden = case("two_stage_trajectory")
  config, given = golden.meta["config"], tensors(golden, "input")
  wanted = golden.group("output")
  twin = network(golden)
  reference = torch_syncast.frozen_copy(twin)
  optimiser = torch_syncast.preference_optimiser(twin)
  (group,) = optimiser.param_groups
  assert group["lr"] == 1e-6
  for option in ("betas", "weight_decay", "eps"):
    assert group[option] == pytest.approx(config[option])
  group["lr"] = config["lr"]
  losses = []
  for number in range(config["steps_per_stage"]):
    names = ("inputs1", "win1", "lose1", "noise1", "timesteps1")
    batch = [given[name][number] for name in names]
    optimiser.zero_grad()
    loss = torch_syncast.preference_loss(twin, reference, *batch, recompute)
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
  assert_close("losses", np.array(losses), wanted["log1"][:, 0], OUTPUT_TOLERANCE)
  probe = [given[name] for name in ("probe_x", "probe_t", "probe_inp")]
  with torch.no_grad():
    assert_close("after", twin(*probe).numpy(), wanted["probe1"])
    assert_close("reference", reference(*probe).numpy(), wanted["probe0"])
