"""What the options and inputs of networks are checked for.

Each function raises a `NetworkError` that names the option to change.
"""

from collections.abc import Sequence

from flax import linen as nn

from stjax.errors import NetworkError, unknown_name

PADDING_MODES = ("zeros", "circular")


def at_least(network: nn.Module, **lowest: int) -> None:
  """Options that must not be below a number; None passes.

  Args:
    network: has the options as attributes.
    **lowest: option and its lowest value.
  """
  for option, least in lowest.items():
    value = getattr(network, option)
    if value is not None and value < least:
      raise NetworkError(f"model.{option} is {value}; expected at least {least}")


def rate(network: nn.Module, option: str) -> None:
  """A share of values that is dropped."""
  value = getattr(network, option)
  if not 0 <= value < 1:
    raise NetworkError(f"model.{option} is {value}; expected 0 <= {option} < 1")


def odd(network: nn.Module, option: str) -> None:
  """A kernel size that keeps the grid."""
  value = getattr(network, option)
  if value < 1 or value % 2 == 0:
    raise NetworkError(f"model.{option} is {value}; expected an odd number")


def one_of(network: nn.Module, option: str, known: tuple[str, ...]) -> None:
  """An option that is one of some names."""
  value = getattr(network, option)
  if value not in known:
    raise unknown_name(f"value of model.{option}", value, known)


def history(shape: tuple[int, ...]) -> None:
  """The shape of a forecasting network's input."""
  if len(shape) != 5:
    raise NetworkError(f"the input has shape {shape}; expected [B, T, H, W, C]")


def multiple(shape: tuple[int, ...], factor: int, option: str) -> None:
  """A grid that must be halved several times without a rest.

  Args:
    shape: [B, T, H, W, C].
    factor: that both H and W must be multiples of.
    option: name of the option that the factor follows from.
  """
  h, w = shape[2:4]
  if h % factor or w % factor:
    raise NetworkError(
      f"the grid is {h} x {w}; expected multiples of {factor} = "
      f"2 ** model.{option}: change model.{option}, or crop or pad the data"
    )


def multiple_of(network: nn.Module, option: str, divisor: str) -> None:
  """An option that must be a multiple of another."""
  value, by = getattr(network, option), getattr(network, divisor)
  if value < 1 or value % by:
    raise NetworkError(
      f"model.{option} is {value}; expected a multiple of model.{divisor} = {by}"
    )


def pair(network: nn.Module, option: str, lowest: int = 1) -> tuple[int, int]:
  """An option that is one number or two, for H and W; returns two.

  Args:
    network: has the option as attribute.
    option: its name.
    lowest: lowest value of both.
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
  """A grid that patches must cover without a rest.

  Args:
    grid: (H, W).
    patch: (H, W) of a patch, `model.patch_size`.
    where: what the grid is.
  """
  if grid[0] % patch[0] or grid[1] % patch[1]:
    raise NetworkError(
      f"the {where} is {grid[0]} x {grid[1]}; expected multiples of "
      f"model.patch_size = {patch[0]} x {patch[1]}: change it, or crop or pad "
      "the data"
    )
