"""How arrays of torch modules are laid out here, and the way back.

A layout lists a module's leaves by their torch names. Each leaf knows its
collection and name here and two functions that are exact inverses.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# This collection has what torch holds and these networks do not use: counts of
# batches, and weights that nothing reads.
COUNTERS = "torch"


def kernel_from_torch(weight: np.ndarray) -> np.ndarray:
  """Transposes the kernel of any convolution or of a linear layer.

  Args:
    weight: [O, I / groups, kh, kw] or [O, I].

  Returns:
    [kh, kw, I / groups, O] or [I, O].
  """
  return np.moveaxis(weight, (0, 1), (-1, -2))


def kernel_to_torch(kernel: np.ndarray) -> np.ndarray:
  """Inverts `kernel_from_torch`."""
  return np.moveaxis(kernel, (-1, -2), (0, 1))


def transposed_from_torch(weight: np.ndarray) -> np.ndarray:
  """Turns [I, O, kh, kw] of a transposed convolution into [kh, kw, I, O].

  The result is the kernel of the ordinary convolution of the zero-dilated
  input, which is why its taps are in reverse order.
  """
  return weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)


def transposed_to_torch(kernel: np.ndarray) -> np.ndarray:
  """Inverts `transposed_from_torch`."""
  return kernel.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]


def _same(array: np.ndarray) -> np.ndarray:
  return array


class Leaf(NamedTuple):
  """One array of a module.

  Attributes:
    torch: its name in torch, or "" for a parameter that belongs to no module.
    collection: its collection here.
    name: its name here, or "" for such a parameter.
    from_torch: maps torch's array to the one here.
    to_torch: the inverse of `from_torch`.
  """

  torch: str
  collection: str
  name: str
  from_torch: Callable[[np.ndarray], np.ndarray] = _same
  to_torch: Callable[[np.ndarray], np.ndarray] = _same


BIAS = Leaf("bias", "params", "bias")


def _kernel_and_bias(from_torch, to_torch) -> tuple[Leaf, Leaf]:
  return Leaf("weight", "params", "kernel", from_torch, to_torch), BIAS


# These are all convolutions, depthwise and grouped ones too, and linear layers.
LAYER = _kernel_and_bias(kernel_from_torch, kernel_to_torch)
# These are convolutions of kernel size 1 there and linear layers here.
POINTWISE = _kernel_and_bias(
  lambda weight: weight.reshape(weight.shape[:2]).T,
  lambda kernel: kernel.T[:, :, None, None],
)
# The same of convolutions along one axis.
POINTWISE_1D = _kernel_and_bias(
  lambda weight: weight[:, :, 0].T, lambda kernel: kernel.T[:, :, None]
)
TRANSPOSED = _kernel_and_bias(transposed_from_torch, transposed_to_torch)
# These are transposed convolutions whose taps do not overlap.
SPREAD = _kernel_and_bias(
  lambda weight: weight.transpose(2, 3, 0, 1),
  lambda kernel: kernel.transpose(2, 3, 0, 1),
)
# These are batch, group and layer norms; only the first has batch statistics.
NORM = (
  Leaf("weight", "params", "scale"),
  BIAS,
  Leaf("running_mean", "batch_stats", "mean"),
  Leaf("running_var", "batch_stats", "var"),
  Leaf("num_batches_tracked", COUNTERS, "num_batches_tracked"),
)
EMBEDDING = (Leaf("weight", "params", "embedding"),)
# This is a parameter of its own, of the same shape here and there.
PARAMETER = (Leaf("", "params", ""),)
# This is a parameter [1, L, C] in torch and [L, C] here.
TOKENS = (Leaf("", "params", "", lambda array: array[0], lambda array: array[None]),)
# This is a parameter [1, C, 1, 1] in torch and [C] here.
CHANNELS = (
  Leaf(
    "",
    "params",
    "",
    lambda array: array.reshape(-1),
    lambda array: array.reshape(1, -1, 1, 1),
  ),
)


def unread_layout(layout: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
  """Lays out a module that nothing reads, which is kept for the way back."""
  return tuple(Leaf(leaf.torch, COUNTERS, leaf.torch or leaf.name) for leaf in layout)
