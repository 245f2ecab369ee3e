"""Training does not depend on how many devices there are, nor on the mesh."""

import jax
import numpy as np
import pytest

from stjax import sharding


def train(run, steps=3):
  step = run.compile_train_step()
  state, losses = run.fresh_state(), []
  data = run.split("train", run.config.global_batch_size, train=True)
  for batch, _ in zip(data.batches, range(steps), strict=False):
    state, scalars = step(state, sharding.put_batch(batch, run.mesh), {})
    losses.append(scalars)
  return jax.device_get((state.params, state.collections, state.ema_params)), (
    jax.device_get(losses)
  )


# A mask and dropped paths, so that weights and random draws are split too.
CHANGES = dict(
  data__missing="mask",
  model__drop_path=0.3,
  ema_decay=0.9,
  optimizer__schedule__name="constant",
  optimizer__name="sgd",
  optimizer__learning_rate=0.05,
  model__temporal_features=32,  # Large enough for fsdp to split.
)


@pytest.fixture(scope="module")
def one_device(make_run):
  return train(make_run(1, **CHANGES))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 2, 2), (8, 1, 1), (2, 4, 1), (1, 2, 4)], ids=str)
def test_every_mesh_trains_like_one_device(make_run, one_device, shape):
  axes = dict(zip(("data", "fsdp", "space"), shape, strict=True))
  changes = CHANGES | {f"mesh__{axis}": n for axis, n in axes.items()}
  run = make_run(8, **changes)
  assert dict(run.mesh.shape) == axes
  specs = [a.sharding.spec for a in jax.tree.leaves(run.abstract_state)]
  assert any("fsdp" in spec for spec in specs) == (axes["fsdp"] > 1)
  (state, scalars), (expected, expected_scalars) = train(run), one_device
  for found, wanted in zip(scalars, expected_scalars, strict=True):
    for name in wanted:
      np.testing.assert_allclose(
        found[name], wanted[name], rtol=1e-4, atol=1e-7, err_msg=name
      )

  def close(path, a, b):
    scale = max(np.abs(b).max(), 1e-3)
    np.testing.assert_allclose(a / scale, b / scale, atol=1e-4, err_msg=str(path))

  jax.tree_util.tree_map_with_path(close, state, expected)
  moved = jax.tree.leaves(expected[0])[0]
  assert np.isfinite(moved).all()
