"""Converted weights give what the same network gives in torch."""

import jax
import numpy as np
import pytest
from torch_weights import NETWORKS, assert_same_weights, build, family_of

from torch_weights import to_stjax, to_torch  # isort: skip

torch = pytest.importorskip("torch")
import torch_twins  # noqa: E402

TWINS = [
  name for name in NETWORKS if name.startswith(("convlstm", "predrnn", "unet_d"))
]
TWINS = [name for name in TWINS if family_of(name) != "convlstm_states"]


def twin_of(name):
  torch.manual_seed(0)
  if family_of(name) == "unet_denoiser":
    twin = torch_twins.UNet(**NETWORKS[name])
  else:
    spatiotemporal = family_of(name) == "predrnn"
    twin = torch_twins.Recurrent(**NETWORKS[name], spatiotemporal=spatiotemporal)
  for parameter in twin.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
  return twin.eval()


@pytest.mark.parametrize("name", TWINS)
def test_the_forecast_is_that_of_torch(name):
  twin, module = twin_of(name), build(name)
  weights = {key: x.numpy() for key, x in twin.state_dict().items()}
  variables = to_stjax(name, weights)
  assert_same_weights(to_torch(name, variables), weights)
  generator = np.random.default_rng(0)
  draw = lambda *shape: generator.standard_normal(shape).astype(np.float32)
  inputs = [draw(2, *NETWORKS[name]["in_shape"])]
  if family_of(name) == "unet_denoiser":
    fields = (2, module.horizon, *NETWORKS[name]["in_shape"][1:])
    inputs = [draw(*fields), np.array([3, 700]), *inputs, draw(*fields)]
  with torch.no_grad():
    expected = twin(*map(torch.from_numpy, inputs)).numpy()
  params = {"params": variables["params"]}
  actual = jax.jit(module.apply)(params, *inputs)
  error = np.abs(actual - expected).max() / np.abs(expected).max()
  assert actual.shape == expected.shape and error < 1e-5
