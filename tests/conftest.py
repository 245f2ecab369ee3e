"""Shared by all tests: eight fake devices, and small runs."""

import gc
import os
import pathlib
import tempfile

# Before jax is imported anywhere. Small programs that run for milliseconds
# need no optimised code, but they all have to be compiled.
os.environ["XLA_FLAGS"] = (
  "--xla_force_host_platform_device_count=8"
  " --xla_backend_optimization_level=0 " + os.environ.get("XLA_FLAGS", "")
)
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="stjax_tests_")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402
from small_runs import tiny_config  # noqa: E402

from stjax.run import build as build_lib
from stjax.run import run as run_lib


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
  """Frees compiled programs: a worker would grow to several gigabytes."""
  yield
  # Only now and then, since what a file compiled may serve the next one.
  if _resident_gib() > 1.0:
    jax.clear_caches()
    gc.collect()


def _resident_gib() -> float:
  statm = pathlib.Path("/proc/self/statm")
  if not statm.exists():
    return float("inf")
  return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
  """Builds a tiny run on the first device, or on `devices` of them."""

  def make(devices: int = 1, workdir=None, **changes) -> run_lib.Run:
    return build_lib.build(
      tiny_config(**changes),
      workdir or tmp_path_factory.mktemp("run"),
      devices=jax.devices()[:devices],
    )

  return make
