"""The kinds of errors that a user of stjax can mend."""

import functools

from input_pipeline import errors
from input_pipeline.errors import DataError, UserError, near

__all__ = [
  "ConfigError", "ConvertError", "DataError", "MetricError", "NetworkError",
  "UserError", "check_options", "near", "pick", "unknown_name",
]  # fmt: skip


class ConfigError(UserError):
  """A config that cannot be run; the message says which key and why."""


class NetworkError(UserError):
  """A network whose options or inputs do not fit together."""


class ConvertError(UserError):
  """Torch weights that are not those of the network."""


class MetricError(UserError):
  """Scores that cannot be computed as asked."""


pick = functools.partial(errors.pick, error=ConfigError)
check_options = functools.partial(errors.check_options, error=ConfigError)
unknown_name = functools.partial(errors.unknown, error=NetworkError)
