"""The torch SFP of the benchmarks gives the released code's numbers."""

import pathlib

import numpy as np
import pytest
from golden.case import GRADIENT_TOLERANCE, Case, assert_close

torch = pytest.importorskip("torch")
torch_sfp = pytest.importorskip("benchmarks.torch_sfp")

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "sfp"
both_ways = pytest.mark.parametrize("released", [True, False])


@pytest.fixture(autouse=True)
def one_thread():
  """The networks are so small that threads would only wait for each other."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


def load(name, released):
  """A case and the twin of its network, with the case's parameters."""
  case = Case(GOLDENS / f"{name}.json")
  c = case.meta["config"]
  twin = torch_sfp.WorldModel(
    c["in_channel"],
    c["res_layers"],
    c["embedding_nums"],
    c["embedding_dim"],
    c["top_k"],
    released,
  )
  twin.load_state_dict(tensors(case, "param"))
  return case, twin.train(case.train)


def tensors(case, group):
  return {k: torch.from_numpy(v) for k, v in case.group(group).items()}


def test_full_size_has_the_parameters_of_the_released_config():
  twin = torch_sfp.WorldModel(69)
  # The README counts parameters that require no gradient, and no buffers.
  assert sum(p.numel() for p in twin.parameters()) == 3_194_949


@both_ways
def test_loss_gradients_and_codes_after_a_step(released):
  case, twin = load("gwm_l2k3_train", released)
  wanted, x = case.group("output"), tensors(case, "input")["x"].requires_grad_()
  frames, every, vq_loss = twin(x)
  assert_close("pred", frames.detach().numpy(), wanted["pred"])
  for k, candidate in enumerate(every):
    name = f"top_k_features.{k}"
    assert_close(name, candidate.detach().numpy(), wanted[name])
  assert len(every) == (case.meta["config"]["top_k"] if released else 1)
  assert_close("vq_loss", vq_loss.detach().numpy(), wanted["vq_loss"])
  loss = (frames - x).square().mean() + torch_sfp.VQ_WEIGHT * vq_loss
  loss.backward()
  assert_close("x", x.grad.numpy(), case.group("grad_input")["x"], GRADIENT_TOLERANCE)
  gradients = case.group("grad")
  largest = max(np.abs(gradient).max() for gradient in gradients.values())
  parameters = {n: p for n, p in twin.named_parameters() if p.requires_grad}
  assert parameters.keys() == gradients.keys()
  for name, gradient in gradients.items():
    found = parameters[name].grad.numpy()
    # Some are 0 but for rounding: those of biases in front of a norm.
    assert_close(name, found, gradient, GRADIENT_TOLERANCE, 1e-4 * largest)
  state = twin.state_dict()
  for name, value in case.group("after").items():
    assert_close(name, state[name].numpy(), value)


@both_ways
def test_a_training_step_has_the_released_loss_and_rate(released):
  case, twin = load("gwm_l2k3_train", released)
  gradients = case.group("grad")
  before = {n: p.detach().clone() for n, p in twin.named_parameters()}
  optimiser = torch_sfp.optimiser(twin)
  loss = torch_sfp.training_step(twin, optimiser, tensors(case, "input")["x"])
  assert_close("loss", loss.numpy(), case.group("check")["loss"])
  for name, parameter in twin.named_parameters():
    if name in gradients:
      # The first step of Adam has the size of its rate wherever there is a gradient.
      large = np.abs(gradients[name]) > 1e-4
      wanted = before[name].numpy() - 1e-3 * np.sign(gradients[name])
      found = parameter.detach().numpy()
      np.testing.assert_allclose(found[large], wanted[large], rtol=0, atol=2e-6)


@both_ways
def test_planners(released):
  case, twin = load("planner_gwm_state", released)
  inputs, wanted = tensors(case, "input"), case.group("output")
  history, action = inputs["s_t"][:, -1], inputs["action"]
  truth = inputs["ground_truth"][:, 0]
  for batched in (False, True):
    found = torch_sfp.imagine(twin, history, action, batched)
    assert_close("candidates", found.swapaxes(0, 1).numpy(), wanted["candidates"])
  rewards = torch_sfp.csi(found, truth, 0.5).T.numpy()
  assert_close("csi", rewards, wanted["rewards.csi"])
  planned = [
    plan(twin, history, action, truth, 0.5)
    for plan in (torch_sfp.plan_one_by_one, torch_sfp.plan_batched)
  ]
  best = rewards.argmax(1)
  expected = wanted["candidates"][np.arange(len(best)), best]
  for label in planned:
    assert_close("label", label.numpy(), expected)
