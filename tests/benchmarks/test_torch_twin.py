"""The torch networks of the benchmarks are those of stjax."""

import jax
import numpy as np
import pytest

from stjax import convert, models

torch = pytest.importorskip("torch")
torch_blocks = pytest.importorskip("benchmarks.torch_blocks")
torch_twin = pytest.importorskip("benchmarks.torch_twin")

IN_SHAPE = (2, 20, 24, 1)


def random_variables(network, x):
  """Variables of the network's shapes, none of them at 0 or 1."""
  shapes = jax.eval_shape(network.init, jax.random.key(0), x)
  leaves, tree = jax.tree.flatten_with_path(shapes)
  rng = np.random.default_rng(1)
  values = [
    rng.uniform(0.5, 1.5, leaf.shape)
    if path[-1].key in ("scale", "var", "scale_1", "scale_2")
    else 0.2 * rng.standard_normal(leaf.shape)
    for path, leaf in leaves
  ]
  return jax.tree.unflatten(tree, [v.astype(np.float32) for v in values])


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("translator", sorted(torch_blocks.BLOCKS))
def test_torch_twin_with_converted_weights_equals_stjax(translator, padding_mode):
  options = dict(
    spatial_features=8,
    temporal_features=24,
    spatial_depth=2,
    temporal_depth=3,
    mlp_ratio=2.0,
    translator=translator,
    padding_mode=padding_mode,
  )
  x = np.random.default_rng(0).standard_normal((2, *IN_SHAPE), np.float32)
  network = models.build("simvp", **options)
  variables = random_variables(network, x)
  want = network.apply(variables, x)
  weights = convert.to_torch("simvp", variables, in_shape=IN_SHAPE, **options)
  twin = torch_twin.SimVP(IN_SHAPE[0], IN_SHAPE[-1], **options).eval()
  twin.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
  with torch.no_grad():
    got = twin(torch.from_numpy(np.moveaxis(x, -1, 2))).numpy()
  scale = np.abs(want).max()
  np.testing.assert_allclose(
    np.moveaxis(got, 2, -1) / scale, want / scale, atol=1e-4, rtol=0
  )
