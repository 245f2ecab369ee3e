import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stjax.models import vq


def nearest(latents, embedding, count):
  """All distances in float64, sorted so that lower numbers win ties."""
  latents, embedding = (np.asarray(x, np.float64) for x in (latents, embedding))
  distances = np.square(latents[..., None, :] - embedding).sum(-1)
  return np.argsort(distances, axis=-1, kind="stable")[..., :count]


@pytest.mark.parametrize(
  ("codes", "count"), [(1, 1), (7, 7), (256, 3), (300, 1), (300, 4), (300, 300)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_the_nearest_codes_are_those_of_a_full_sort(codes, count, ties):
  rng = np.random.default_rng(codes)
  latents = rng.standard_normal((2, 3, 5, 4))
  embedding = rng.standard_normal((codes, 4))
  if ties:  # Few whole numbers, whose distances are exact.
    latents, embedding = np.round(latents), np.round(embedding)
  # The distances are float32, in which none of these random ones are equal.
  latents, embedding = (np.asarray(x, np.float32) for x in (latents, embedding))
  found = jax.jit(vq.nearest_codes, static_argnums=2)(latents, embedding, count)
  assert found.dtype == jnp.int32
  expected = nearest(latents, embedding, count)
  if ties and codes > 1:
    distances = np.square(latents[..., None, :] - embedding).sum(-1)
    assert any(len(np.unique(row)) < codes for row in distances.reshape(-1, codes))
  np.testing.assert_array_equal(found, expected)


def test_assignments_equal_a_loop_and_leave_out_what_does_not_count():
  rng = np.random.default_rng(0)
  latents = rng.standard_normal((3, 2, 4, 5)).astype(np.float32)
  numbers = rng.integers(0, 6, (3, 2, 4)).astype(np.int32)
  weight = rng.random((3, 2, 4)) > 0.4
  counts, sums = np.zeros(7), np.zeros((7, 5))
  for place in np.ndindex(numbers.shape):
    counts[numbers[place]] += weight[place]
    sums[numbers[place]] += weight[place] * latents[place]
  found = vq.assignments(latents, numbers, jnp.asarray(weight), 7)
  np.testing.assert_array_equal(found[0], counts)
  np.testing.assert_allclose(found[1], sums, rtol=1e-6, atol=1e-6)
  rows = jnp.asarray([1.0, 0.0, 1.0])
  counts, _ = vq.assignments(latents, numbers, rows, 7)
  np.testing.assert_array_equal(counts, np.bincount(numbers[::2].ravel(), minlength=7))


@pytest.mark.parametrize("codes", [5, 12, 17])
def test_dead_codes_are_put_on_different_latents_that_count(codes):
  rng = np.random.default_rng(0)
  latents = rng.standard_normal((2, 3, 4, 2)).astype(np.float32)
  valid = np.zeros((2, 3, 4), bool)
  valid.flat[rng.permutation(24)[:17]] = True
  zeros = jnp.zeros((codes, 2))
  book = vq.Codebook(zeros - 9, zeros - 9, jnp.zeros(codes))
  dead = np.arange(codes) != 2
  reseed = jax.jit(vq.reseed)
  for seed in range(20):
    made = reseed(book, dead, latents, jnp.asarray(valid), jax.random.key(seed))
    places = [
      np.flatnonzero((latents.reshape(-1, 2) == code).all(-1)).tolist()
      for code in np.asarray(made.embedding)
    ]
    assert places.pop(2) == []  # It was not dead.
    taken = [place for (place,) in places]
    assert len(set(taken)) == len(taken)
    assert valid.reshape(-1)[taken].all()
    np.testing.assert_array_equal(made.sums[dead], made.embedding[dead])
    np.testing.assert_array_equal(made.counts, dead.astype(np.float32))


def test_without_any_latent_that_counts_no_code_is_moved():
  book = vq.Codebook(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.zeros(3))
  nothing = jnp.zeros((1, 2, 2), bool)
  latents = jnp.zeros((1, 2, 2, 2))
  made = jax.jit(vq.reseed)(
    book, jnp.ones(3, bool), latents, nothing, jax.random.key(0)
  )
  jax.tree.map(np.testing.assert_array_equal, made, book)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_candidates_decoded_at_once_equal_those_decoded_one_by_one(depth):
  network = vq.VQ(out_channels=2, features=4, depth=depth, codes=6)
  rng = np.random.default_rng(0)
  frames = jnp.asarray(rng.standard_normal((2, 3, 8, 4, 2)), jnp.float32)
  variables = network.init(jax.random.key(0), frames)
  latents, skip = network.apply(variables, frames, method="encode")
  side = network.factor
  assert latents.shape == (2, 3, 8 // side, 4 // side, 4)
  codes = network.apply(variables, latents, 3, method="quantise")
  decode = jax.jit(lambda *given: network.apply(variables, *given, method="decode"))
  for shared in (skip, skip[:, :1]):
    made = decode(codes, shared)
    assert made.shape == (3, *frames.shape)
    each = jnp.broadcast_to(shared, skip.shape)
    for code, one in zip(codes, made, strict=True):
      np.testing.assert_allclose(decode(code[None], each)[0], one, atol=1e-6)
