"""Blocked attention against the plain formula, its memory, its platforms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from stjax.models.translators import blocked_attention as blocked


def plain(q, k, v):
  """The formula, written out."""
  logits = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(q.shape[-1])
  return jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(logits, -1), v)


def random_inputs(*shape, seed=0):
  """Queries, keys, values and a gradient."""
  rng = np.random.default_rng(seed)
  return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in "qkvg"]


def value_and_gradients(f, q, k, v, g):
  y, transpose = jax.vjp(f, q, k, v)
  return y, *transpose(g)


def assert_close(actual, expected, atol):
  for a, e in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, e, rtol=0, atol=atol)


@pytest.mark.parametrize("size", [1, 4, 5, 15, 16])
def test_blocks_of_any_size_give_the_values_and_gradients_of_the_formula(size):
  inputs = random_inputs(2, 15, 3, 7)
  actual = value_and_gradients(
    lambda q, k, v: blocked.blocked_attention(q, k, v, size), *inputs
  )
  assert_close(actual, value_and_gradients(plain, *inputs), 3e-6)


@pytest.mark.slow
def test_large_logits_neither_overflow_nor_lose_gradients():
  q, k, v, g = random_inputs(1, 11, 2, 5)
  q = 300 * q
  actual = value_and_gradients(blocked.attention, q, k, v, g)
  expected = value_and_gradients(plain, q, k, v, g)
  for a, e in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, e, rtol=0, atol=1e-3 * float(abs(e).max()))


@pytest.mark.slow
def test_bfloat16_comes_back_in_bfloat16_after_sums_in_float32():
  inputs = [x.astype(jnp.bfloat16) for x in random_inputs(2, 9, 2, 5)]
  actual = value_and_gradients(blocked.attention, *inputs)
  assert {x.dtype for x in actual} == {jnp.dtype(jnp.bfloat16)}
  exact = value_and_gradients(plain, *(x.astype(jnp.float32) for x in inputs))
  assert_close([x.astype(jnp.float32) for x in actual], exact, 3e-2)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="loops on CPU only")
def test_on_cpu_the_logits_of_all_heads_are_never_in_memory_together():
  inputs = random_inputs(1, 1200, 4, 2)
  step = jax.jit(lambda *x: value_and_gradients(blocked.attention, *x))
  memory = step.lower(*inputs).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4 * 4 * 1200**2


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_off_cpu_nothing_is_looped_over_or_computed_twice(platform):
  inputs = random_inputs(1, 10, 2, 4)
  step = jax.jit(lambda *x: value_and_gradients(blocked.attention, *x))
  module = export.export(step, platforms=[platform])(*inputs).mlir_module()
  assert "stablehlo.while" not in module
  # Two forward, and two gradients for each.
  assert module.count("stablehlo.dot_general") == 6


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 devices")
@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (2, 2)])
def test_split_batch_and_tokens_give_one_device_result(shape, monkeypatch):
  monkeypatch.setattr(blocked, "_BLOCK_LOGITS", 4 * 12 * 5)
  inputs = random_inputs(4, 12, 3, 2)
  mesh = jax.make_mesh(shape, ("data", "space"), (AxisType.Auto,) * 2)
  sharding = NamedSharding(mesh, PartitionSpec("data", "space"))
  step = jax.jit(
    lambda *x: value_and_gradients(blocked.attention, *x), in_shardings=sharding
  )
  assert_close(step(*inputs), value_and_gradients(plain, *inputs), 3e-6)
