"""Checks of the options and inputs of networks.

Each function raises a `NetworkError` that names the option to change.
"""

import math
from collections.abc import Sequence

from flax import linen as nn

from stjax.errors import NetworkError, unknown_name

PADDING_MODES = ("zeros", "circular")


def at_least(network: nn.Module, **lowest: int) -> None:
  """Checks that options are not below a number; None passes.

  Args:
    network: network that has the options as attributes.
    **lowest: lowest value by the name of the option.
  """
  for option, least in lowest.items():
    value = getattr(network, option)
    if value is not None and value < least:
      raise NetworkError(f"model.{option} is {value}; expected at least {least}")


def rate(network: nn.Module, option: str) -> None:
  """Checks a share of values that is dropped: at least 0 and below 1."""
  value = getattr(network, option)
  if not 0 <= value < 1:
    raise NetworkError(f"model.{option} is {value}; expected 0 <= {option} < 1")


def odd(network: nn.Module, option: str) -> None:
  """Checks that a kernel size is odd, so that the grid keeps its size."""
  value = getattr(network, option)
  if value < 1 or value % 2 == 0:
    raise NetworkError(f"model.{option} is {value}; expected an odd number")


def one_of(network: nn.Module, option: str, known: tuple[str, ...]) -> None:
  """Checks that an option is one of the known names."""
  value = getattr(network, option)
  if value not in known:
    raise unknown_name(f"value of model.{option}", value, known)


def history(shape: tuple[int, ...]) -> None:
  """Checks that the input of a forecasting network has five axes."""
  if len(shape) != 5:
    raise NetworkError(f"the input has shape {shape}; expected [B, T, H, W, C]")


def multiple(grid: tuple[int, int], factor: int, option: str) -> None:
  """Checks that a grid can be halved several times without a remainder.

  Args:
    grid: (H, W) of the grid.
    factor: number that H and W must both be multiples of.
    option: name of the option that determines the factor.
  """
  h, w = grid
  if h % factor or w % factor:
    raise NetworkError(
      f"the grid is {h} x {w}; expected multiples of {factor} = "
      f"2 ** model.{option}: change model.{option}, crop the data, or pad them"
      f" (--config.method.pad_to_multiple={factor})"
    )


def multiple_of(network: nn.Module, option: str, divisor: str) -> None:
  """Checks that an option is a multiple of another one."""
  value, by = getattr(network, option), getattr(network, divisor)
  if value < 1 or value % by:
    raise NetworkError(
      f"model.{option} is {value}; expected a multiple of model.{divisor} = {by}"
    )


def pair(network: nn.Module, option: str, lowest: int = 1) -> tuple[int, int]:
  """Returns the two numbers, for H and W, of an option that is one or two.

  Args:
    network: network that has the option as an attribute.
    option: name of the option.
    lowest: lowest value that both numbers may have.
  """
  value = getattr(network, option)
  numbers = tuple(value) if isinstance(value, Sequence) else (value, value)
  if len(numbers) != 2 or min(numbers) < lowest:
    raise NetworkError(
      f"model.{option} is {value!r}; expected a number, at least {lowest}, or "
      "two of them, (H, W)"
    )
  return numbers


def tiled(grid: tuple[int, int], patch: tuple[int, int], where: str = "grid") -> None:
  """Checks that patches cover a grid without a remainder.

  Args:
    grid: (H, W) of the grid.
    patch: (H, W) of a patch, `model.patch_size`.
    where: name of the grid for the message.
  """
  if grid[0] % patch[0] or grid[1] % patch[1]:
    pad = "crop or pad the data"
    if where == "grid":
      multiple = math.lcm(*patch)
      pad = f"crop the data, or pad them (--config.method.pad_to_multiple={multiple})"
    raise NetworkError(
      f"the {where} is {grid[0]} x {grid[1]}; expected multiples of "
      f"model.patch_size = {patch[0]} x {patch[1]}: change it, or {pad}"
    )
