"""Several processes as one job: what has to happen before jax is used."""

import os

import jax
from absl import logging

from stjax import errors

# Set by launch/local.sh and by any launcher that numbers its processes.
_COORDINATOR = "STJAX_COORDINATOR"
_COUNT = "STJAX_NUM_PROCESSES"
_INDEX = "STJAX_PROCESS_ID"
# "auto": jax finds the others itself (TPU pod, Slurm, Kubernetes, MPI).
_DISTRIBUTED = "STJAX_DISTRIBUTED"


def initialise() -> None:
  """Joins the job's other processes, if the environment names any.

  Environment:
    STJAX_COORDINATOR=host:port, STJAX_NUM_PROCESSES, STJAX_PROCESS_ID: the
      three numbers given by hand.
    STJAX_DISTRIBUTED=auto: found by jax on clusters that it knows.

  Raises:
    ConfigError: the variables are incomplete or wrong.
  """
  if jax.distributed.is_initialized():
    return
  given = [os.environ.get(v) for v in (_COORDINATOR, _COUNT, _INDEX)]
  if os.environ.get(_DISTRIBUTED) == "auto":
    jax.distributed.initialize()
  elif any(given):
    try:
      coordinator, count, index = given[0], int(given[1]), int(given[2])
      if not coordinator or not 0 <= index < count:
        raise ValueError(given)
    except (TypeError, ValueError) as error:
      raise errors.ConfigError(
        f"{_COORDINATOR}={given[0]!r}, {_COUNT}={given[1]!r},"
        f" {_INDEX}={given[2]!r}: expected host:port and two whole numbers,"
        " the second smaller than the first."
      ) from error
    jax.distributed.initialize(coordinator, count, index)
  else:
    return
  logging.info("Process %d of %d", jax.process_index(), jax.process_count())
