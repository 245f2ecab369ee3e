import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import trees_equal

from stjax import errors, sharding
from stjax.training import checkpoint
from stjax.training import state as state_lib


def make_state(ema_decay=0.0, width=64, step=0):
  variables = {
    "params": {
      "kernel": jnp.arange(32.0 * width).reshape(32, width) + step,
      "bias": jnp.ones(width),
    },
    "batch_stats": {"mean": jnp.arange(4.0)},
  }
  return state_lib.create(
    jax.random.key(5), variables, optax.adam(1e-3), ema_decay
  ).replace(step=jnp.asarray(step, jnp.int32))


def abstract(state, mesh_shape=(1, 1, 1)):
  devices = jax.devices()[: int(np.prod(mesh_shape))]
  sizes = dict(zip(sharding.AXES, mesh_shape, strict=True))
  mesh = sharding.make_mesh(sizes, devices)
  shapes = jax.eval_shape(lambda: state)
  return jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
    shapes,
    sharding.state_shardings(shapes, mesh),
  )


def position(step):
  return checkpoint.Position(batches=step)


def test_a_state_comes_back_bit_for_bit_with_its_position(tmp_path):
  state = make_state(ema_decay=0.9, step=3)
  store = checkpoint.Checkpoints(tmp_path)
  store.save(3, state, position(3), {"loss": 0.5})
  found, where = store.restore(3, abstract(state))
  store.close()
  assert trees_equal(found, state)
  assert where == checkpoint.Position(batches=3)


@pytest.mark.parametrize("saved", [(1, 8, 1), (2, 4, 1)])
@pytest.mark.parametrize("wanted", [(1, 1, 1), (2, 4, 1), (8, 1, 1)])
def test_a_state_moves_to_another_mesh(tmp_path, saved, wanted):
  state = make_state()
  there = jax.device_put(
    state, jax.tree.map(lambda a: a.sharding, abstract(state, saved))
  )
  store = checkpoint.Checkpoints(tmp_path)
  store.save(1, there, position(1))
  found, _ = store.restore(1, abstract(state, wanted))
  store.close()
  assert trees_equal(found, state)
  expected = abstract(state, wanted).params["kernel"].sharding
  assert found.params["kernel"].sharding == expected


def test_the_latest_and_the_best_are_kept_and_survive_a_restart(tmp_path):
  options = dict(keep_latest=2, keep_best=1)
  store = checkpoint.Checkpoints(tmp_path, **options)
  state = make_state()
  for step, loss in enumerate([3.0, 1.0, 2.0, None, float("nan"), 5.0], 1):
    scores = None if loss is None else {"loss": loss}
    store.save(step, state, position(step), scores)
  store.close()
  store = checkpoint.Checkpoints(tmp_path, **options)
  assert store.all_steps() == [2, 5, 6]
  assert (store.best_step, store.latest_step) == (2, 6)
  assert store.step_named("best") == 2
  assert store.step_named("latest") == 6
  store.close()


def test_higher_can_be_better(tmp_path):
  store = checkpoint.Checkpoints(tmp_path, metric="csi", mode="max")
  for step, value in enumerate([0.1, 0.3, 0.2], 1):
    store.save(step, make_state(), position(step), {"csi": value})
  store.wait()
  assert store.best_step == 2
  store.close()


def test_saving_does_not_see_what_is_done_to_the_state_afterwards(tmp_path):
  state = make_state(width=512)
  expected = np.asarray(state.params["kernel"]).copy()
  spoil = jax.jit(
    lambda s: jax.tree.map(lambda x: x * 0 if x.dtype == jnp.float32 else x, s),
    donate_argnums=0,
  )
  store = checkpoint.Checkpoints(tmp_path)
  target = abstract(state)
  store.save(1, state, position(1))
  spoil(state)
  store.wait()
  found, _ = store.restore(1, target)
  store.close()
  np.testing.assert_array_equal(found.params["kernel"], expected)


def test_variables_come_without_the_optimiser_and_averaged(tmp_path):
  state = make_state(ema_decay=0.9)
  state = state.replace(ema_params=jax.tree.map(lambda x: x + 7, state.params))
  store = checkpoint.Checkpoints(tmp_path)
  store.save(1, state, position(1))
  store.close()
  store = checkpoint.Checkpoints(tmp_path)  # As another process would.
  other = make_state().replace(opt_state=())
  found = store.restore_variables(1, abstract(other).variables())
  store.close()
  assert trees_equal(found, state.variables(averaged=True))
  assert not trees_equal(found["params"], state.params)


def test_another_network_is_refused_by_name(tmp_path):
  store = checkpoint.Checkpoints(tmp_path)
  store.save(1, make_state(width=64), position(1))
  store.wait()
  with pytest.raises(errors.ConfigError) as error:
    store.restore_variables(1, abstract(make_state(width=32)).variables())
  assert "kernel: (32, 64) in the checkpoint, (32, 32)" in str(error.value)
  with pytest.raises(errors.ConfigError, match="cannot be restored"):
    store.restore(1, abstract(make_state(width=32)))
  store.close()


def test_an_unfinished_save_is_ignored(tmp_path):
  store = checkpoint.Checkpoints(tmp_path)
  store.save(1, make_state(), position(1), wait=True)
  store.close()
  half = tmp_path / "2.orbax-checkpoint-tmp"
  half.mkdir()
  (half / "junk").write_text("x")
  store = checkpoint.Checkpoints(tmp_path)
  assert store.latest_step == 1
  store.close()


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
  store = checkpoint.Checkpoints(tmp_path)
  state = make_state()
  for step in (1, 2):
    store.save(step, state, position(step), wait=True)
  (tmp_path / "2" / "position" / "metadata").write_text("{")
  with pytest.raises(errors.ConfigError) as error:
    store.restore(2, abstract(state))
  assert "delete that folder" in str(error.value)
  assert "step 1" in str(error.value)
  store.close()


def test_without_a_checkpoint_the_message_says_so(tmp_path):
  store = checkpoint.Checkpoints(tmp_path)
  with pytest.raises(errors.ConfigError, match="no checkpoint"):
    store.step_named("best")
  with pytest.raises(errors.ConfigError, match="'best' or 'latest'"):
    store.step_named("newest")
  store.close()


def test_a_position_is_plain_json(tmp_path):
  store = checkpoint.Checkpoints(tmp_path)
  store.save(1, make_state(), position(1), wait=True)
  store.close()
  content = json.loads((tmp_path / "1" / "position" / "metadata").read_text())
  assert content == {"batches": 1}
