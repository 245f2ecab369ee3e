"""Convolutions on CPU, written out as one slice of the input per tap.

`spec` has the stride, dilation and groups of a convolution; see
`stjax.models.layers.convolution`. `padded` is the padded input, and `g` is the
gradient [N, H_out, W_out, C_out] of the result.
"""

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

# Rows of a depthwise convolution's result that are computed at a time.
_BLOCK_ROWS = 8


def pad(x: jax.Array, pads: Pads, wrap: bool) -> jax.Array:
  """Pads H and W of [N, H, W, C], by zeros or around a torus.

  Args:
    x: [N, H, W, C].
    pads: ((top, bottom), (left, right)); negative zero pads cut off.
    wrap: whether the grid wraps around.
  """
  if wrap:
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="wrap")
  config = [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)]
  return lax.pad(x, jnp.zeros((), x.dtype), config)


def shifted_sum(padded, kernel, dilation: Pair) -> jax.Array:
  """Depthwise convolution without padding, as one multiply-add per tap.

  The rows are computed in blocks by a loop, since XLA stores the result of a
  loop, while it would compute a plain sum again, slowly, inside each gradient
  that transposes it.
  """
  (kh, kw), (dh, dw) = kernel.shape[:2], dilation
  h = padded.shape[1] - dh * (kh - 1)
  w = padded.shape[2] - dw * (kw - 1)
  # There are at least two blocks, since XLA unrolls a loop of one.
  most = min(_BLOCK_ROWS, max(h // 2, 1))
  rows = max(n for n in range(1, most + 1) if h % n == 0)
  span = rows + dh * (kh - 1)

  def block(index, result):
    start = index * rows
    part = lax.dynamic_slice_in_dim(padded, start, span, 1)
    total = sum(
      part[:, i * dh : i * dh + rows, j * dw : j * dw + w] * kernel[i, j, 0]
      for i in range(kh)
      for j in range(kw)
    )
    return lax.dynamic_update_slice_in_dim(result, total, start, 1)

  empty = jnp.zeros((padded.shape[0], h, w, padded.shape[-1]), padded.dtype)
  return lax.fori_loop(0, h // rows, block, empty)


def depthwise_kernel_gradient(padded, g, size: Pair, spec):
  """Kernel gradient [kh, kw, 1, C] of a depthwise convolution.

  It is summed row by row, so that the accumulator stays in the cache.
  """
  (kh, kw), (dh, dw) = size, spec.dilation
  span_h, span_w = dh * (kh - 1) + 1, dw * (kw - 1) + 1
  n, h, w, c = g.shape
  # Blocks of 16 columns were fastest: narrower ones ran up to ten times longer,
  # and wider ones take longer to compile.
  columns = 16
  blocks = -(-w // columns)
  # Zeros behind the last column add nothing, and make all blocks alike.
  wider = ((0, 0), (0, 0), (0, blocks * columns - w), (0, 0))
  padded, g = jnp.pad(padded, wider), jnp.pad(g, wider)
  parts = _channel_parts(c)
  width = c // parts

  def one_part(part):
    def row(t, total):
      block, t = t % blocks, t // blocks
      at = (t // h, t % h, block * columns, part * width)
      g_row = lax.dynamic_slice(g, at, (1, 1, columns, width))[0, 0]
      shape = (1, span_h, columns + span_w - 1, width)
      x_rows = lax.dynamic_slice(padded, at, shape)[0, ::dh]
      return total + sum(
        x_rows[:, i : i + span_w : dw] * g_row[i] for i in range(columns)
      )

    zeros = jnp.zeros((kh, kw, width), jnp.float32)
    return lax.fori_loop(0, n * h * blocks, row, zeros)

  return jnp.concatenate([one_part(p) for p in range(parts)], -1)[:, :, None]


def _channel_parts(channels: int, most: int = 256) -> int:
  """Number of parts that the channels are cut into.

  There are at least two, since XLA runs independent loops on different threads.
  """
  least = max(2, -(-channels // most))
  candidates = range(least, 2 * (channels // most) + 3)
  return next((n for n in candidates if channels % n == 0), 1)


def dense_kernel_gradient(padded, g, size: Pair, spec):
  """Kernel gradient [kh, kw, C_in, C_out] of a dense convolution.

  It is the sum of one matrix product per image and tap.
  """
  (n, h, w, c_out), c_in = g.shape, padded.shape[-1]
  (sh, sw), (dh, dw) = spec.stride, spec.dilation

  def image(index, total):
    g_pixels = g[index].reshape(-1, c_out)
    taps = [
      padded[index, i : i + sh * (h - 1) + 1 : sh, j : j + sw * (w - 1) + 1 : sw]
      for i in range(0, dh * size[0], dh)
      for j in range(0, dw * size[1], dw)
    ]
    return total + jnp.stack([tap.reshape(-1, c_in).T @ g_pixels for tap in taps])

  def part(start, stop):
    zeros = jnp.zeros((size[0] * size[1], c_in, c_out), jnp.float32)
    return lax.fori_loop(start, stop, image, zeros)

  # Two independent loops run on two threads.
  total = part(0, n // 2) + part(n // 2, n)
  return total.reshape(*size, c_in, c_out)


def grouped_kernel_gradient(padded, g, size: Pair, spec):
  """Kernel gradient [kh, kw, C_in / groups, C_out] of a grouped convolution.

  It is one product per tap. The taps are looped over, since a product for each
  group and tap would take minutes to compile.
  """
  n, h, w, c_out = g.shape
  (kh, kw), (dh, dw) = size, spec.dilation
  (sh, sw), groups = spec.stride, spec.groups
  span = (n, sh * (h - 1) + 1, sw * (w - 1) + 1, padded.shape[-1])
  g_groups = g.reshape(-1, groups, c_out // groups).swapaxes(0, 1)

  def tap(index, total):
    at = (0, index // kw * dh, index % kw * dw, 0)
    pixels = lax.dynamic_slice(padded, at, span)[:, ::sh, ::sw]
    pixels = pixels.reshape(n * h * w, groups, -1)
    product = jnp.einsum("pgi,gpo->gio", pixels, g_groups)
    return lax.dynamic_update_index_in_dim(total, product, index, 0)

  c_in = padded.shape[-1] // groups
  zeros = jnp.zeros((kh * kw, groups, c_in, c_out // groups), jnp.float32)
  total = lax.fori_loop(0, kh * kw, tap, zeros)
  total = total.reshape(kh, kw, groups, c_in, -1).swapaxes(2, 3)
  return total.reshape(kh, kw, c_in, c_out)
