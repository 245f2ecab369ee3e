"""Shared by all tests: eight fake devices, and small runs."""

import os

# Before jax is imported anywhere.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 "
    + os.environ.get("XLA_FLAGS", "")
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402
from small_runs import tiny_config  # noqa: E402

from stjax import run as run_lib  # noqa: E402


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
  """Builds a tiny run on the first device, or on `devices` of them."""

  def make(devices: int = 1, workdir=None, **changes) -> run_lib.Run:
    return run_lib.build(
        tiny_config(**changes),
        workdir or tmp_path_factory.mktemp("run"),
        devices=jax.devices()[:devices],
    )

  return make
