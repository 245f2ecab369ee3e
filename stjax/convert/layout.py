"""How arrays of torch modules are laid out here, and back.

A layout lists a module's leaves by their torch names. Each leaf knows its
collection and name here and two functions that are exact inverses.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Collection of what torch holds and these networks do not use: counts of
# batches, and weights that nothing reads.
COUNTERS = "torch"


def kernel_from_torch(weight: np.ndarray) -> np.ndarray:
  """Kernel of a convolution, depthwise ones too, or of a linear layer.

  Args:
    weight: [O, I / groups, kh, kw] or [O, I].

  Returns:
    [kh, kw, I / groups, O] or [I, O].
  """
  return np.moveaxis(weight, (0, 1), (-1, -2))


def kernel_to_torch(kernel: np.ndarray) -> np.ndarray:
  """The inverse of `kernel_from_torch`."""
  return np.moveaxis(kernel, (-1, -2), (0, 1))


def transposed_from_torch(weight: np.ndarray) -> np.ndarray:
  """[I, O, kh, kw] of a transposed convolution to [kh, kw, I, O], turned.

  The result is the kernel of the ordinary convolution of the zero-dilated
  input, which is why its taps are in reverse order.
  """
  return weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)


def transposed_to_torch(kernel: np.ndarray) -> np.ndarray:
  """The inverse of `transposed_from_torch`."""
  return kernel.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]


def _same(array: np.ndarray) -> np.ndarray:
  return array


class Leaf(NamedTuple):
  """One array of a module.

  Attributes:
    torch: name in torch, "" for a parameter that is no module's.
    collection: collection here.
    name: name here, "" likewise.
    from_torch: maps torch's array to the one here.
    to_torch: its inverse.
  """

  torch: str
  collection: str
  name: str
  from_torch: Callable[[np.ndarray], np.ndarray] = _same
  to_torch: Callable[[np.ndarray], np.ndarray] = _same


BIAS = Leaf("bias", "params", "bias")

# Convolutions, depthwise and grouped ones too, and linear layers.
LAYER = (Leaf("weight", "params", "kernel", kernel_from_torch, kernel_to_torch), BIAS)
# Convolutions of kernel size 1 there that are linear layers here.
POINTWISE = (
  Leaf(
    "weight",
    "params",
    "kernel",
    lambda weight: weight.reshape(weight.shape[:2]).T,
    lambda kernel: kernel.T[:, :, None, None],
  ),
  BIAS,
)
TRANSPOSED = (
  Leaf("weight", "params", "kernel", transposed_from_torch, transposed_to_torch),
  BIAS,
)
# Transposed convolutions whose taps do not overlap, [I, O, kh, kw] in torch.
SPREAD = (
  Leaf(
    "weight",
    "params",
    "kernel",
    lambda weight: weight.transpose(2, 3, 0, 1),
    lambda kernel: kernel.transpose(2, 3, 0, 1),
  ),
  BIAS,
)
# Batch, group and layer norms; only the first has batch statistics.
NORM = (
  Leaf("weight", "params", "scale"),
  BIAS,
  Leaf("running_mean", "batch_stats", "mean"),
  Leaf("running_var", "batch_stats", "var"),
  Leaf("num_batches_tracked", COUNTERS, "num_batches_tracked"),
)
EMBEDDING = (Leaf("weight", "params", "embedding"),)
# A parameter of its own, of the same shape here and there.
PARAMETER = (Leaf("", "params", ""),)
# A parameter [1, L, C] in torch, [L, C] here.
TOKENS = (Leaf("", "params", "", lambda array: array[0], lambda array: array[None]),)
# A parameter [1, C, 1, 1] in torch, [C] here.
CHANNELS = (
  Leaf(
    "",
    "params",
    "",
    lambda array: array.reshape(-1),
    lambda array: array.reshape(1, -1, 1, 1),
  ),
)


def unread(layout: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
  """The layout of a module that nothing reads: kept for the way back."""
  return tuple(Leaf(leaf.torch, COUNTERS, leaf.torch or leaf.name) for leaf in layout)
