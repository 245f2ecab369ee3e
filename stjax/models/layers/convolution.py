"""Two-dimensional convolution, channels last, fast on CPU, GPU and TPU.

XLA's CPU backend runs depthwise and grouped convolutions through a slow
generic loop, and every convolution gradient that stands inside `lax.scan`
leaves its fast path. On CPU in float32 `conv2d` therefore writes these
out: depthwise convolutions as shifted multiply-adds, kernel gradients as loops
over rows or images with an accumulator that stays in cache, grouped
convolutions as one dense convolution per group. Everywhere else it is
`lax.conv_general_dilated`. The choice is made when the program is lowered, so
that one trace serves every platform.

`conv2d` has a hand-written reverse-mode derivative, so it cannot be
differentiated in forward mode.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from stjax import sharding
from stjax.errors import NetworkError, unknown_name
from stjax.models.layers import taps
from stjax.models.layers.taps import Pads, Pair

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Above this number of groups, compiling one convolution per group costs more
# time than the slow loop does.
_MAX_SPLIT_GROUPS = 64
_PADDING_MODES = ("zeros", "circular")
# By kernel size: pixels that a transposed convolution pads before and after
# the grid, and the (shifts, phases, taps) that say where each tap goes.
_TRANSPOSED_PADS = {2: (0, 0), 3: (0, 1), 4: (1, 1)}
_PHASES = {
  2: ((0, 0), (0, 1), (1, 0)),
  3: ((0, 0, 1), (0, 1, 1), (1, 0, 2)),
  4: ((0, 0, 1, 1), (0, 1, 0, 1), (1, 0, 3, 2)),
}


@dataclasses.dataclass(frozen=True)
class _Spec:
  """The static properties of a convolution, which are known while tracing."""

  stride: Pair
  pads: Pads
  dilation: Pair
  groups: int
  wrap: bool
  kind: str  # "dense", "depthwise", "grouped" or "ordinary".
  mesh: jax.sharding.Mesh | None


def conv2d(
  x: jax.Array,
  kernel: jax.Array,
  stride: int | Sequence[int] = 1,
  padding: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
  dilation: int | Sequence[int] = 1,
  groups: int = 1,
  padding_mode: str = "zeros",
) -> jax.Array:
  """Cross-correlates `x` with `kernel` over H and W.

  Args:
    x: [N, H, W, C_in].
    kernel: [kh, kw, C_in / groups, C_out]; it is cast to the dtype of `x`, and
      its gradient comes back in the kernel's own dtype.
    stride: one number or (H, W).
    padding: one number, (H, W) or ((top, bottom), (left, right)); None means
      dilation * (k - 1) // 2, which keeps the size at stride 1 and odd k.
    dilation: one number or (H, W).
    groups: number of channel groups; C_in groups make a depthwise convolution.
    padding_mode: "zeros", or "circular" for a torus.

  Returns:
    [N, H_out, W_out, C_out] in the dtype of `x`.

  Raises:
    NetworkError: if shapes and options do not fit together.
  """
  if x.ndim != 4 or kernel.ndim != 4:
    raise NetworkError(
      "conv2d takes x [N, H, W, C] and kernel [kh, kw, C / groups, C_out]; got "
      f"shapes {x.shape} and {kernel.shape}"
    )
  stride, dilation = _pair(stride, "stride"), _pair(dilation, "dilation")
  size = kernel.shape[:2]
  pads = _pads(padding, size, dilation)
  if padding_mode not in _PADDING_MODES:
    raise unknown_name("padding_mode", padding_mode, _PADDING_MODES)
  if x.shape[-1] != kernel.shape[2] * groups or kernel.shape[3] % groups:
    raise NetworkError(
      f"{x.shape[-1]} input channels and {groups} groups do not fit a kernel "
      f"of shape {kernel.shape}: both channel counts must be multiples of "
      "groups and C_in = groups * kernel.shape[2]"
    )
  wrap = padding_mode == "circular" and any(map(any, pads))
  keeps_size = stride == (1, 1) and all(
    sum(p) == d * (k - 1) for p, d, k in zip(pads, dilation, size, strict=True)
  )
  if wrap and not keeps_size:
    # The gradient of wrapped padding is only written out for results of the
    # input's size; otherwise JAX differentiates the pad as an operation of its
    # own, and the convolution itself sees no padding.
    x, pads, wrap = taps.pad(x, pads, True), ((0, 0), (0, 0)), False
  # A 1x1 kernel is a matrix product of each pixel, which is fast everywhere.
  if size == (1, 1) and groups == 1 and pads == ((0, 0), (0, 0)):
    return _pointwise(x[:, :: stride[0], :: stride[1]], kernel[0, 0])
  mesh = sharding.ambient_mesh()
  kind = _kind(x, kernel, stride, groups, mesh)
  spec = _Spec(stride, pads, dilation, groups, wrap, kind, mesh)
  return _convolution(x, kernel, spec)


def transposed_conv2d(
  x: jax.Array, kernel: jax.Array, padding_mode: str = "zeros"
) -> jax.Array:
  """Doubles the grid by a transposed convolution of stride 2.

  It equals torch's with padding 0 for a 2x2 kernel, with padding 1 and output
  padding 1 for 3x3, and with padding 1 for 4x4.

  Args:
    x: [N, H, W, C_in].
    kernel: [k, k, C_in, C_out] with k = 2, 3 or 4. It is the kernel of an
      ordinary convolution of the input with zeros between its rows and columns
      (torch's weights have their taps in reverse order).
    padding_mode: "zeros", or "circular" for a torus.

  Returns:
    [N, 2 H, 2 W, C_out] in the dtype of `x`.

  Raises:
    NetworkError: if shapes and options do not fit together.
  """
  if kernel.ndim != 4 or kernel.shape[:2] not in ((2, 2), (3, 3), (4, 4)):
    raise NetworkError(
      "transposed_conv2d takes a kernel [k, k, C_in, C_out] of k = 2, 3 or 4; "
      f"got shape {kernel.shape}"
    )
  low, high = _TRANSPOSED_PADS[kernel.shape[0]]
  padding = ((low, high),) * 2
  y = _interleave(
    conv2d(x, _phases(kernel), padding=padding, padding_mode=padding_mode)
  )
  # Where a pixel was padded before the first one, the result begins one place
  # early, and as much is cut off at both ends.
  return y[:, low : -low or None, low : -low or None]


def _pair(value: int | Sequence[int], name: str) -> Pair:
  pair = (value, value) if isinstance(value, int) else tuple(value)
  if len(pair) != 2 or min(pair) < 1:
    raise NetworkError(
      f"{name} is {value!r}; expected a number >= 1 or two of them (H, W)"
    )
  return pair


def _pads(padding, size: Pair, dilation: Pair) -> Pads:
  if padding is None:
    padding = tuple(d * (k - 1) // 2 for k, d in zip(size, dilation, strict=True))
  if isinstance(padding, int):
    padding = (padding, padding)
  pads = tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
  if len(pads) != 2 or any(len(p) != 2 or min(p) < 0 for p in pads):
    raise NetworkError(
      f"padding is {padding!r}; expected a number >= 0, (H, W) or "
      "((top, bottom), (left, right))"
    )
  return pads


def _kind(x, kernel, stride: Pair, groups: int, mesh) -> str:
  """Chooses the formulation that runs on CPU; other platforms ignore it."""
  # The written-out forms are for float32 only.
  if x.dtype != jnp.float32:
    return "ordinary"
  if mesh is not None and mesh.size > 1:
    # Shifted slices along a split H would turn into one exchange per tap, and
    # the loops over images need equally many of them on each device.
    shards = sharding.row_parts(mesh)
    if mesh.shape["space"] > 1 or x.shape[0] % shards:
      return "ordinary"
  if groups == 1:
    return "dense"
  if groups == x.shape[-1] == kernel.shape[-1]:
    return "depthwise" if stride == (1, 1) else "ordinary"
  return "grouped" if groups <= _MAX_SPLIT_GROUPS else "ordinary"


@jax.custom_vjp
def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return x @ kernel.astype(x.dtype)


def _float32_product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """Multiplies two arrays; sums over all pixels are not rounded to bfloat16."""
  product = functools.partial(jnp.einsum, equation, preferred_element_type=jnp.float32)
  if a.dtype == jnp.float32:
    return product(a, b)
  # XLA's CPU backend has no bfloat16 product into float32 for every shape.
  widened = lambda a, b: product(a.astype(jnp.float32), b.astype(jnp.float32))
  return lax.platform_dependent(a, b, cpu=widened, default=product)


def _pointwise_backward(residuals, g):
  x, kernel = residuals
  # XLA transposes the first factor, and computes again what the factor was
  # made from. The narrower array is the cheaper one to treat like that.
  if x.shape[-1] <= g.shape[-1]:
    kernel_gradient = _float32_product("...i,...o->io", x, g)
  else:
    kernel_gradient = _float32_product("...o,...i->oi", g, x).T
  return g @ kernel.astype(g.dtype).T, kernel_gradient.astype(kernel.dtype)


_pointwise.defvjp(lambda x, w: (_pointwise(x, w), (x, w)), _pointwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, kernel: jax.Array, spec: _Spec) -> jax.Array:
  ordinary = functools.partial(_ordinary, spec=spec)
  if spec.kind == "ordinary":
    return ordinary(x, kernel)
  return lax.platform_dependent(
    x, kernel, cpu=functools.partial(_forward, spec=spec), default=ordinary
  )


def _convolution_forward(x, kernel, spec: _Spec):
  return _convolution(x, kernel, spec), (x, kernel)


def _convolution_backward(spec: _Spec, residuals, g):
  ordinary = functools.partial(_ordinary_backward, spec=spec)
  if spec.kind == "ordinary":
    return ordinary(*residuals, g)
  written_out = functools.partial(_backward, spec=spec)
  return lax.platform_dependent(*residuals, g, cpu=written_out, default=ordinary)


_convolution.defvjp(_convolution_forward, _convolution_backward)


def _ordinary(x: jax.Array, kernel: jax.Array, spec: _Spec) -> jax.Array:
  pads = spec.pads
  if spec.wrap:
    # XLA's own convolution knows no circular padding.
    x, pads = taps.pad(x, pads, True), ((0, 0), (0, 0))
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    spec.stride,
    pads,
    rhs_dilation=spec.dilation,
    dimension_numbers=_DIMENSIONS,
    feature_group_count=spec.groups,
  )


def _ordinary_backward(x, kernel, g, spec: _Spec):
  _, transpose = jax.vjp(lambda x, w: _ordinary(x, w, spec), x, kernel)
  return transpose(g)


def _forward(x: jax.Array, kernel: jax.Array, spec: _Spec) -> jax.Array:
  """Convolves in the formulation that is fast on CPU."""
  if spec.kind == "depthwise":
    padded = taps.pad(x, spec.pads, spec.wrap)
    return taps.shifted_sum(padded, kernel, spec.dilation)
  if spec.kind == "grouped":
    parts = [_ordinary(*part) for part in _split(spec, x, kernel)]
    return jnp.concatenate(parts, -1)
  return _ordinary(x, kernel, spec)


def _backward(x, kernel, g, spec: _Spec):
  """Gradients with respect to `x` and `kernel`, in formulations fast on CPU."""
  kernel = kernel.astype(x.dtype)
  if spec.kind == "depthwise":
    # The input's gradient is a convolution of `g` with the turned kernel. Its
    # padding is what makes the result as large as the input; it may be
    # negative where the forward padding was wide.
    reach = [d * (k - 1) for d, k in zip(spec.dilation, kernel.shape[:2], strict=True)]
    pads = tuple(
      (r - low, n + low - m)
      for r, (low, _), n, m in zip(
        reach, spec.pads, x.shape[1:3], g.shape[1:3], strict=True
      )
    )
    x_gradient = taps.shifted_sum(
      taps.pad(g, pads, spec.wrap), kernel[::-1, ::-1], spec.dilation
    )
    gradient = taps.depthwise_kernel_gradient
  elif spec.kind == "grouped":
    x_gradient = jnp.concatenate(
      [
        _dense_input_gradient(g_part, kernel_part, x.shape[1:3], dense)
        for g_part, kernel_part, dense in _split(spec, g, kernel)
      ],
      -1,
    )
    gradient = taps.grouped_kernel_gradient
  else:
    x_gradient = _dense_input_gradient(g, kernel, x.shape[1:3], spec)
    gradient = taps.dense_kernel_gradient
  # The gradients of kernels are loops over images, so each device must run
  # them on its own images before the results are added.
  padded = taps.pad(x, spec.pads, spec.wrap)
  gradient = functools.partial(gradient, size=kernel.shape[:2], spec=spec)
  return x_gradient, sharding.sum_over_local_rows(gradient, spec.mesh)(padded, g)


def _split(spec: _Spec, x, kernel):
  """Cuts a grouped convolution into one dense convolution per group."""
  dense = dataclasses.replace(spec, groups=1, kind="dense")
  return [
    (x_part, kernel_part, dense)
    for x_part, kernel_part in zip(
      jnp.split(x, spec.groups, -1), jnp.split(kernel, spec.groups, -1), strict=True
    )
  ]


def _dense_input_gradient(g, kernel, shape: Pair, spec: _Spec) -> jax.Array:
  """Gradient [N, H, W, C_in] with respect to the input of a dense convolution.

  It is a convolution of the result's gradient with the turned kernel, with
  zeros between the pixels of that gradient if the forward one has a stride.

  Args:
    g: gradient of the result, [N, H_out, W_out, C_out].
    kernel: [kh, kw, C_in, C_out].
    shape: (H, W) of the input.
    spec: properties of the forward convolution.
  """
  size = kernel.shape[:2]
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  # This is the layer that halves grids: its gradient doubles them, which goes
  # faster by phases, without any product with the zeros.
  if (
    spec.stride == (2, 2)
    and size == (3, 3)
    and spec.dilation == (1, 1)
    and spec.pads == ((1, 1), (1, 1))
    and shape[0] % 2 == shape[1] % 2 == 0
  ):
    two = dataclasses.replace(spec, stride=(1, 1), pads=((0, 1), (0, 1)))
    return _interleave(_ordinary(g, _phases(flipped), two))
  plain = dataclasses.replace(spec, stride=(1, 1), pads=((0, 0), (0, 0)), wrap=False)
  reach = [d * (k - 1) for d, k in zip(spec.dilation, size, strict=True)]
  if spec.wrap:
    # The padding wraps around, and so does the gradient: none is lost at the edge.
    pads = tuple((r - low, low) for r, (low, _) in zip(reach, spec.pads, strict=True))
    return _ordinary(taps.pad(g, pads, True), flipped, plain)
  pads = tuple(
    (r - low, n + low - s * (m - 1) - 1)
    for r, (low, _), n, m, s in zip(
      reach, spec.pads, shape, g.shape[1:3], spec.stride, strict=True
    )
  )
  if spec.stride == (1, 1) and min(map(min, pads)) >= 0:
    return _ordinary(g, flipped, dataclasses.replace(plain, pads=pads))
  # `lax.pad` spreads the pixels by the stride, and cuts where a pad is negative.
  config = [(*p, s - 1) for p, s in zip(pads, spec.stride, strict=True)]
  spread = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *config, (0, 0, 0)])
  return _ordinary(spread, flipped, plain)


def _phases(kernel: jax.Array) -> jax.Array:
  """The kernel of a transposed convolution of stride 2, phase by phase.

  Pixels of the result with even and odd rows and columns (four phases) see
  different taps. One small convolution yields all four, so that no product is
  spent on the zeros that a stride puts between the pixels.

  Args:
    kernel: [k, k, C_in, C_out] that is applied to the spread input.

  Returns:
    [s, s, C_in, 4 C_out] that is applied to the input itself, with s = 1 for
    k = 2 and s = 2 otherwise. `_interleave` then brings the phases (row,
    column, C_out) to their places.
  """
  size = kernel.shape[0]
  places = _PHASES[size]
  # One-hot matrices [shift, phase, tap] select the tap of each place.
  share = jnp.zeros((max(places[0]) + 1, 2, size), kernel.dtype)
  share = share.at[places].set(1)
  phases = jnp.einsum("api,bqj,ijco->abcpqo", share, share, kernel)
  return phases.reshape(*share.shape[:1] * 2, kernel.shape[2], -1)


def _interleave(phases: jax.Array) -> jax.Array:
  """Maps phases [N, H, W, 4 C], channels innermost, to [N, 2 H, 2 W, C]."""
  n, h, w, c = phases.shape
  y = phases.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(n, 2 * h, 2 * w, c // 4)
