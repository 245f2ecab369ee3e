"""Self-attention whose logits stay in the cache of a CPU.

XLA's CPU backend writes the logits of all heads to freshly allocated memory
several times, and transposes them for the gradients of keys and values. That
takes most of the time of a transformer block. Here a loop over heads and
blocks of queries holds few logits at a time, and no product transposes them.

Sources: Rabe & Staats 2021, "Self-attention Does Not Need O(n^2) Memory"; Dao
et al. 2022, "FlashAttention" (the backward pass, which needs only the
logarithms of the softmax's totals).
"""

import functools

import einops
import jax
import jax.numpy as jnp
from jax import lax

# Logits of one block, 4 MB: more do not fit the cache, and with fewer the loop
# itself costs time.
_BLOCK_LOGITS = 2**20


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Returns softmax(q k^T / sqrt(D)) v for each head; the softmax is in float32.

  On CPU it is the loop of this file, whose derivative is written by hand for
  reverse mode only; elsewhere it is `jax.nn.dot_product_attention`.

  Args:
    q: queries [N, L, heads, D].
    k: keys [N, L, heads, D].
    v: values [N, L, heads, D].

  Returns:
    [N, L, heads, D] in the dtype of `q`.
  """
  return lax.platform_dependent(
    q, k, v, cpu=_in_float32, default=jax.nn.dot_product_attention
  )


def _in_float32(*qkv: jax.Array) -> jax.Array:
  n, length = qkv[0].shape[:2]
  # Blocks of equal size need the least padding of the last one.
  blocks = -(-n * length**2 // _BLOCK_LOGITS)
  size = -(-length // min(blocks, length))
  y = blocked_attention(*(x.astype(jnp.float32) for x in qkv), size)
  return y.astype(qkv[0].dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def blocked_attention(q: jax.Array, k: jax.Array, v: jax.Array, size: int) -> jax.Array:
  """Computes `attention` in float32, by blocks of `size` queries."""
  return _forward(q, k, v, size)[0]


def _forward(q, k, v, size: int):
  def attend_head(head):
    queries, k, v = head

    def attend(q):
      logits = jnp.einsum("nqd,ndk->nqk", q, k)
      # Without its largest logit, no exponential of a row overflows.
      top = logits.max(-1, keepdims=True)
      weights = jnp.exp(logits - top)
      total = weights.sum(-1, keepdims=True)
      y = jnp.einsum("nqk,nkd->nqd", weights, v) / total
      # This one number of each query gives the weights again in the backward
      # pass, so that they need not be kept.
      return y, top + jnp.log(total)

    return lax.map(attend, queries)

  y, log_totals = lax.map(
    attend_head, (_into_blocks(_scaled(q), size), _transposed(k), _by_head(v))
  )
  y = _from_blocks(y, q.shape[1])
  return y, (q, k, v, y, log_totals)


def _backward(size: int, residuals, g):
  q, k, v, y, log_totals = residuals

  def head_gradients(_, head):
    k, k_transposed, v_transposed, *blocks = head

    def add_block(sums, block):
      q, g, along, log_total = block
      # Queries that pad the last block have g = 0, so they add nothing.
      logits = jnp.einsum("nqd,ndk->nqk", q, k_transposed)
      weights = jnp.exp(logits - log_total)
      gradient = jnp.einsum("nqd,ndk->nqk", g, v_transposed)
      gradient = weights * (gradient - along)
      k_sum, v_sum = sums
      k_sum = k_sum + jnp.einsum("nqd,nqk->ndk", q, gradient)
      v_sum = v_sum + jnp.einsum("nqd,nqk->ndk", g, weights)
      return (k_sum, v_sum), jnp.einsum("nqk,nkd->nqd", gradient, k)

    zeros = jnp.zeros_like(k_transposed), jnp.zeros_like(v_transposed)
    return None, lax.scan(add_block, zeros, tuple(blocks))

  heads = (
    _by_head(k),
    _transposed(k),
    _transposed(v),
    _into_blocks(_scaled(q), size),
    _into_blocks(g, size),
    # The weights of a query sum to 1, so the gradients of its logits must sum
    # to 0: this is the part that is taken off each of them.
    _into_blocks((g * y).sum(-1, keepdims=True), size),
    log_totals,
  )
  _, ((k_gradient, v_gradient), q_gradient) = lax.scan(head_gradients, None, heads)
  return (
    _scaled(_from_blocks(q_gradient, q.shape[1])),
    einops.rearrange(k_gradient, "h n d l -> n l h d"),
    einops.rearrange(v_gradient, "h n d l -> n l h d"),
  )


blocked_attention.defvjp(_forward, _backward)


def _scaled(q: jax.Array) -> jax.Array:
  return q * q.shape[-1] ** -0.5


def _by_head(x: jax.Array) -> jax.Array:
  return einops.rearrange(x, "n l h d -> h n l d")


def _transposed(x: jax.Array) -> jax.Array:
  return einops.rearrange(x, "n l h d -> h n d l")


def _into_blocks(x: jax.Array, size: int) -> jax.Array:
  """Maps [N, L, heads, D] to [heads, blocks, N, size, D], padded with 0."""
  x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0), (0, 0)))
  return einops.rearrange(x, "n (b l) h d -> h b n l d", l=size)


def _from_blocks(x: jax.Array, length: int) -> jax.Array:
  """Undoes `_into_blocks`."""
  return einops.rearrange(x, "h b n l d -> n (b l) h d")[:, :length]
