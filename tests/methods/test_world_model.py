import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sfp_runs
from sfp_runs import forecast, imagine, init, loss

from stjax import errors, methods, models, sharding
from stjax.models import vq
from stjax.run import build as build_lib
from stjax.training import state as state_lib
from stjax.training import step as step_lib


def first_state(method, batch):
  variables = init(method, jax.random.key(0), batch)
  return state_lib.create(jax.random.key(1), variables, optax.adam(1e-2), 0.0)


@functools.partial(jax.jit, static_argnames=("method", "parts"))
def train_step(state, batch, *, method, parts=1):
  return step_lib.train_step(
    state,
    batch,
    {},
    method=method,
    transformation=optax.adam(1e-2),
    learning_rate=lambda step: 1e-2,
    accumulation_steps=parts,
  )


def latents_of(method, variables, frames):
  return np.asarray(_encode(method.network, variables, frames)[0])


@functools.partial(jax.jit, static_argnums=0)
def _encode(network, variables, frames):
  return network.apply(variables, frames, method="encode")


@pytest.fixture(scope="module")
def started():
  """A method, a batch, and its states before and after the first step."""
  # Nothing is drawn at random after the first step.
  method = sfp_runs.world(skip_dropout=0.0, dead_below=0.0)
  batch = sfp_runs.batch()
  state = first_state(method, batch)
  return method, batch, state, *train_step(state, batch, method=method)


def test_the_first_step_places_all_codes_on_latents_and_averages_once(started):
  method, batch, before, after, scalars = started
  assert before.collections["codebook"]["counts"].sum() == 0
  latents = latents_of(method, before.variables(), batch["targets"]).reshape(-1, 4)
  # What the step placed, and what it then made of all that is nearest to it.
  key = jax.random.fold_in(before.key, 0)
  _, outputs = loss(method, before.variables(), {}, batch, key, True)
  book = vq.Codebook(**outputs.collections["codebook"])
  for code in np.asarray(book.embedding):
    assert np.abs(latents - code).max(-1).min() < 1e-6
  np.testing.assert_array_equal(book.counts, 1)
  numbers = np.square(latents[:, None] - book.embedding).sum(-1).argmin(-1)
  counts = np.bincount(numbers, minlength=8)
  assert counts.sum() == len(latents) == 4 * 2 * 16
  sums = np.stack([latents[numbers == n].sum(0) for n in range(8)])
  averaged = 0.99 + 0.01 * counts
  smooth = (averaged + 1e-5) / (averaged.sum() + 8e-5) * averaged.sum()
  found = after.collections["codebook"]
  np.testing.assert_allclose(found["counts"], smooth, rtol=1e-5)
  expected = (0.99 * book.embedding + 0.01 * sums) / smooth[:, None]
  np.testing.assert_allclose(found["embedding"], expected, rtol=1e-4, atol=1e-5)
  share = counts / counts.sum()
  entropy = -(share * np.log(share + 1e-10)).sum()
  np.testing.assert_allclose(scalars["perplexity"], np.exp(entropy), rtol=1e-5)


def test_no_gradient_and_no_moments_belong_to_the_codebook(started):
  method, batch, before, after, _ = started
  moments = {leaf.shape for leaf in jax.tree.leaves(before.opt_state)}
  assert (8, 4) not in moments
  assert len(jax.tree.leaves(before.opt_state[0].mu)) == len(
    jax.tree.leaves(before.params)
  )

  def of_codes(book):
    variables = {"params": after.params, "codebook": book}
    return method.loss(variables, {}, batch, jax.random.key(0), True)[0]

  gradient = jax.jit(jax.grad(of_codes))(after.collections["codebook"])
  jax.tree.map(lambda x: np.testing.assert_array_equal(x, 0), gradient)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
  assert all(x > 0 for x in jax.tree.leaves(moved["encoder"]))
  assert all(x > 0 for x in jax.tree.leaves(moved["pre_quantise"]))


@pytest.mark.slow
def test_the_loss_is_that_of_the_paper(started):
  method, batch, _, after, _ = started
  variables = after.variables()
  value, outputs = loss(method, variables, {}, batch, jax.random.key(0), True)
  frames = batch["targets"]
  latents = latents_of(method, variables, frames)
  embedding = np.asarray(variables["codebook"]["embedding"])
  numbers = np.square(latents[..., None, :] - embedding).sum(-1).argmin(-1)
  codes = embedding[numbers]
  skip = _encode(method.network, variables, batch["inputs"][:, -1:])[1]
  decode = jax.jit(lambda *given: method.network.apply(*given, method="decode"))
  made = decode(variables, codes[None], skip)[0]
  error = np.square(made - frames).mean()
  distance = np.square(latents - codes).mean()
  np.testing.assert_allclose(outputs.scalars["reconstruction_error"], error, rtol=1e-4)
  np.testing.assert_allclose(value, error + 0.1 * 0.25 * distance, rtol=1e-4)


def test_dead_codes_are_replaced_and_others_are_not(started):
  method, batch, _, after, _ = started
  book = dict(after.collections["codebook"])
  book["embedding"] = book["embedding"].at[3].set(1e3)
  book["counts"] = book["counts"].at[3].set(0.4)
  variables = {"params": after.params, "codebook": book}

  def placed_by(method):
    _, outputs = loss(method, variables, {}, batch, jax.random.key(0), True)
    return outputs.collections["codebook"]

  placed = placed_by(dataclasses.replace(method, dead_below=0.5))
  latents = latents_of(method, variables, batch["targets"]).reshape(-1, 4)
  assert np.abs(latents - placed["embedding"][3]).max(-1).min() < 1e-6
  assert placed["counts"][3] == 1
  others = np.arange(8) != 3
  np.testing.assert_array_equal(placed["embedding"][others], book["embedding"][others])
  jax.tree.map(np.testing.assert_array_equal, placed_by(method), book)


@pytest.mark.slow
def test_random_codes_stay_where_they_are_drawn_at_first():
  method = sfp_runs.world(initial="random", dead_below=0.0, assignment="kth")
  batch = sfp_runs.batch()
  variables = init(method, jax.random.key(0), batch)
  book = variables["codebook"]
  assert np.std(book["embedding"]) > 0.5 and np.std(book["sums"]) > 0.5
  assert np.abs(book["embedding"] - book["sums"]).max() > 0.1
  _, outputs = loss(method, variables, {}, batch, jax.random.key(1), True)
  jax.tree.map(np.testing.assert_array_equal, outputs.collections["codebook"], book)
  # The code that is moved is the third nearest one, and the loss takes the nearest.
  latents = latents_of(method, variables, batch["targets"])
  numbers = np.square(latents[..., None, :] - book["embedding"]).sum(-1).argsort(-1)
  counts = np.bincount(numbers[..., 2].ravel(), minlength=8)
  np.testing.assert_array_equal(outputs.summed["counts"], counts)
  _, outputs = loss(method, variables, {}, batch, jax.random.key(1), False)
  counts = np.bincount(numbers[..., 0].ravel(), minlength=8)
  total, _ = outputs.scores["reconstruction/code_counts"]
  np.testing.assert_array_equal(total, counts)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False])
def test_filler_rows_and_masked_points_do_not_count(train):
  """Neither in the loss and the scores, nor in the codes."""
  method = sfp_runs.world({"depth": 2}, candidates=2, dead_below=2.0)
  few, many = (sfp_runs.batch(rows=rows, grid=(8, 8)) for rows in (4, 6))
  # The first rows are the same, but for points that are masked: four whole cells of
  # the latents of each frame.
  mask = jnp.ones((6, 4, 8, 8, 1), bool).at[:, 2:, :2, :].set(False)
  many |= {k: many[k].at[:4].set(few[k]) for k in ("inputs", "targets")}
  many["valid"] = jnp.arange(6) < 4
  many["mask"] = mask
  few |= {"mask": mask[:4], "valid": jnp.ones(4, bool)}
  variables = sfp_runs.placed(method, few)
  (found, outputs), (expected, wanted) = (
    loss(method, variables, {}, b, jax.random.key(3), train) for b in (many, few)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert outputs.weight == 4 * 2 * 6 * 8
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, outputs.scores, wanted.scores)
  jax.tree.map(close, outputs.collections, wanted.collections)
  jax.tree.map(close, outputs.summed, wanted.summed)
  counts = (
    outputs.summed["counts"]
    if train
    else outputs.scores["reconstruction/code_counts"][0]
  )
  assert counts.sum() == 4 * 2 * 12  # Of 16 cells in each frame.


@pytest.mark.slow
def test_without_its_skip_a_reconstruction_knows_nothing_of_the_history(started):
  method, batch, _, after, _ = started

  @functools.partial(jax.jit, static_argnums=0)
  def of_inputs(method, variables, batch, key):
    return jax.grad(
      lambda x: method.loss(variables, {}, batch | {"inputs": x}, key, True)[0]
    )(batch["inputs"])

  def gradient(method):
    """How far the loss of each row depends on each frame of its history."""

    found = of_inputs(method, after.variables(), batch, jax.random.key(0))
    return np.abs(found).max((2, 3, 4))

  always = gradient(method)
  assert (always[:, -1] > 0).all()
  np.testing.assert_array_equal(always[:, :-1], 0)
  never = dataclasses.replace(method, skip_dropout=np.nextafter(1.0, 0.0))
  np.testing.assert_array_equal(gradient(never), 0)
  some = dataclasses.replace(method, skip_dropout=0.3)
  kept = some._keep({"index": jnp.arange(1000)}, jax.random.key(0))
  assert 0.65 < kept.mean() < 0.75


@pytest.mark.slow
def test_the_skip_is_dropped_in_training_only(started):
  method, batch, _, after, _ = started
  never = dataclasses.replace(method, skip_dropout=np.nextafter(1.0, 0.0))
  losses = [
    loss(m, after.variables(), {}, batch, jax.random.key(0), False)[0]
    for m in (method, never)
  ]
  assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["condition", "input"])
def test_futures_of_an_encoded_future_are_its_reconstructions(started, source):
  method, batch, _, after, _ = started
  method = dataclasses.replace(method, skip_source=source)
  variables = after.variables()
  made = forecast(method, variables, {}, batch, jax.random.key(0), jnp.arange(3))
  key = jax.random.key(0)
  futures = imagine(method, variables, {}, batch, batch["targets"], key, 3, False)
  assert futures.shape == made.shape == (3, *batch["targets"].shape)
  if source == "condition":
    np.testing.assert_allclose(futures, made, atol=1e-6)
    latents = latents_of(method, variables, batch["targets"])
    again = imagine(method, variables, {}, batch, latents, key, 3, True)
    np.testing.assert_allclose(futures, again, atol=1e-6)
    decoded = method.decode_latents(variables, batch["inputs"], latents)
    np.testing.assert_allclose(decoded, futures[0], atol=1e-5)
  else:
    assert np.abs(futures - made).max() > 1e-3
  # Each is made of other codes.
  assert np.abs(np.diff(made, axis=0)).max((1, 2, 3, 4, 5)).min() > 1e-4
  some = forecast(method, variables, {}, batch, key, jnp.asarray([2, 0]))
  np.testing.assert_array_equal(some, made[jnp.asarray([2, 0])])


@pytest.mark.slow
def test_a_grid_that_cannot_be_halved_is_padded():
  method = sfp_runs.world({"depth": 2}, candidates=2)
  batch = sfp_runs.batch(grid=(7, 5))
  variables = sfp_runs.placed(method, batch)
  _, outputs = loss(method, variables, {}, batch, jax.random.key(0), False)
  assert outputs.weight == batch["targets"].size
  made = forecast(method, variables, {}, batch, jax.random.key(0), jnp.arange(2))
  assert made.shape == (2, *batch["targets"].shape)
  error = np.square(made[0] - batch["targets"]).sum()
  np.testing.assert_allclose(
    outputs.scores["reconstruction/error"][0], error, rtol=1e-5
  )


@pytest.mark.slow
def test_own_scores_are_those_of_all_batches_together(started):
  method, batch, _, after, _ = started
  variables = after.variables()
  other = sfp_runs.batch(seed=1)
  key = jax.random.key(0)
  parts = [loss(method, variables, {}, b, key, False)[1].scores for b in (batch, other)]
  totals = {
    name: tuple(np.asarray(a, np.float64) + b for a, b in zip(*terms, strict=True))
    for name, terms in ((n, [part[n] for part in parts]) for n in parts[0])
  }
  scores = method.own_scores(totals)
  both = np.concatenate([batch["targets"], other["targets"]])
  made = np.concatenate(
    [
      forecast(method, variables, {}, b, jax.random.key(0), jnp.arange(3))
      for b in (batch, other)
    ],
    1,
  )
  expected = {
    "error": np.square(made[0] - both).mean(),
    "spread_rank_1": np.sqrt(np.square(made[1] - made[0]).mean()),
    "spread_rank_2": np.sqrt(np.square(made[2] - made[0]).mean()),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(scores[f"reconstruction/{name}"], value, rtol=1e-4)
  embedding = variables["codebook"]["embedding"]
  latents = latents_of(method, variables, both)
  numbers = np.square(latents[..., None, :] - embedding).sum(-1).argmin(-1)
  share = np.bincount(numbers.ravel()) / numbers.size
  share = share[share > 0]
  assert scores["reconstruction/codes_in_use"] == len(share)
  perplexity = np.exp(-(share * np.log(share)).sum())
  np.testing.assert_allclose(scores["reconstruction/perplexity"], perplexity, rtol=1e-5)
  blank = scores["reconstruction/error_without_latent"]
  assert blank > 0 and not np.isclose(blank, expected["error"], rtol=1e-2)


def test_no_array_has_a_number_for_each_latent_and_code():
  method, batch = sfp_runs.world({"codes": 600}), sfp_runs.batch()
  variables = jax.eval_shape(method.init, jax.random.key(0), batch)

  def of(params, book):
    given = {"params": params, "codebook": book}
    return method.loss(given, {}, batch, jax.random.key(0), True)

  lowered = jax.jit(jax.value_and_grad(of, has_aux=True)).lower(
    variables["params"], variables["codebook"]
  )
  shapes = re.findall(r"tensor<((?:\d+x)+)[a-z]+\d+>", lowered.as_text())
  sizes = [np.prod([int(n) for n in s.split("x")[:-1]]) for s in shapes]
  latents = 4 * 2 * 16
  assert latents * 256 in sizes  # A block of codes.
  assert max(sizes) < latents * 600


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"candidates": 9}, "method.candidates=9.*model.codes=8"),
    ({"candidates": 0}, "method.candidates=0"),
    ({"decay": 1.0}, "method.decay=1.0"),
    ({"skip_dropout": 1.0}, "method.skip_dropout=1.0"),
    ({"vq_weight": float("nan")}, "method.vq_weight=nan"),
    ({"assignment": "nearst"}, "method.assignment='nearst'.*'nearest'"),
    ({"initial": "dat"}, "method.initial"),
    ({"skip_source": "inputs"}, "method.skip_source"),
    ({"candidate": 2}, "candidates"),
  ],
)
def test_options_that_cannot_be_are_refused(options, words):
  with pytest.raises(errors.ConfigError, match=words):
    sfp_runs.world(**options)


def test_networks_and_methods_of_other_kinds_are_refused():
  with pytest.raises(errors.ConfigError, match="frozen.mean: WorldModel"):
    frozen = {"mean": sfp_runs.world()}
    methods.build("residual_gaussian", None, frozen, horizon=2)
  forecaster = models.build("threshold_rule")
  with pytest.raises(
    errors.ConfigError, match="model.name.*ThresholdRule.*reconstruct"
  ):
    methods.build("world_model", forecaster, horizon=2)
  with pytest.raises(errors.ConfigError, match="model.name='none'"):
    methods.build("world_model", None, horizon=2)
  with pytest.raises(errors.ConfigError, match="model.name.*VQ.*network of forecasts"):
    methods.build("regression", models.build("vq"), horizon=2)


def make(config, workdir, devices=1):
  return build_lib.build(config, workdir, devices=jax.devices()[:devices])


def trained(config, workdir, devices, steps=3):
  """The state after some steps, and the codes of a batch of frames."""
  run = make(config, workdir, devices)
  step, state = run.compile_train_step(), run.fresh_state()
  data = run.split("train", run.config.global_batch_size, train=True)
  for batch, _ in zip(data.batches, range(steps), strict=False):
    batch = sharding.put_batch(batch, run.mesh)
    state, scalars = step(state, batch, {})

  def numbers(variables, frames):
    latents, _ = run.method.network.apply(variables, frames, method="encode")
    return vq.nearest_codes(latents, variables["codebook"]["embedding"], 3)

  with sharding.use_mesh(run.mesh):
    codes = jax.jit(numbers)(state.variables(), batch["targets"])
  kept = state.params, state.collections
  return run, *jax.device_get((kept, scalars, codes))


MESH = {
  "num_epochs": 3.0,
  "method__dead_below": 1.5,  # Some codes are replaced at each step.
  "model__features": 64,  # Large enough for fsdp to split.
  "model__codes": 40,
  "optimizer__schedule__name": "constant",
  "optimizer__name": "sgd",
  "optimizer__learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
  return trained(sfp_runs.tiny_world(**MESH), tmp_path_factory.mktemp("one"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["data", "fsdp", "space"])
def test_every_mesh_has_the_codes_of_one_device(axis, one_device, tmp_path):
  _, *expected = one_device
  sizes = {f"mesh__{name}": 1 for name in sharding.AXES} | {f"mesh__{axis}": 8}
  run, *found = trained(sfp_runs.tiny_world(**MESH, **sizes), tmp_path, 8)
  assert run.mesh.shape[axis] == 8
  split = [x.sharding.spec for x in jax.tree.leaves(run.abstract_state.params)]
  assert any("fsdp" in spec for spec in split) == (axis == "fsdp")
  book = jax.tree.leaves(run.abstract_state.collections)
  assert all(x.sharding.is_fully_replicated for x in book)

  def close(path, a, b):
    scale = max(np.abs(b).max(), 1e-3)
    np.testing.assert_allclose(a / scale, b / scale, atol=1e-5, err_msg=str(path))

  jax.tree_util.tree_map_with_path(close, found[:2], expected[:2])
  np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.slow
def test_microbatches_move_the_codes_like_one_batch(started):
  method, batch, _, after, _ = started
  whole, _ = train_step(after, batch, method=method)
  found, _ = train_step(after, batch, method=method, parts=2)
  assert jnp.abs(whole.collections["codebook"]["counts"]).sum() > 8
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, found.collections, whole.collections)


@pytest.mark.slow
def test_a_first_step_of_microbatches_places_the_codes_once(started):
  method, batch, before, _, _ = started
  after, _ = train_step(before, batch, method=method, parts=2)
  book = after.collections["codebook"]
  # Each has a count of one, and then all 128 latents are averaged at once.
  np.testing.assert_allclose(book["counts"].sum(), 8 * 0.99 + 0.01 * 128, rtol=1e-5)
  assert len(np.unique(np.asarray(book["embedding"]), axis=0)) == 8
