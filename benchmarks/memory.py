"""How much memory one call of a program takes, whatever library it uses.

Imports neither jax nor torch, so that a process has only the one it measures.
"""

import concurrent.futures
import ctypes
import ctypes.util
import gc
import multiprocessing
import pathlib
from collections.abc import Callable

from benchmarks import timing

_PROCESS = pathlib.Path("/proc/self")
_M_ARENA_MAX = -8  # In glibc's malloc.h.


def _c_library() -> ctypes.CDLL:
  """With glibc's own functions, where it is glibc."""
  return ctypes.CDLL(ctypes.util.find_library("c"))


def _status(name: str) -> int:
  """Bytes in a line of /proc/self/status."""
  for line in (_PROCESS / "status").read_text().splitlines():
    key, _, value = line.partition(":")
    if key == name:
      return int(value.split()[0]) * 1024
  raise OSError(f"/proc/self/status has no line {name}")


def one_arena() -> None:
  """Before any thread starts: all of them share what malloc holds.

  `return_freed` cannot give back the last free block of another arena.
  """
  library = _c_library()
  if hasattr(library, "mallopt"):
    library.mallopt(_M_ARENA_MAX, 1)


def return_freed() -> None:
  """Hands what was freed back to the kernel, so that it counts if used again.

  Else a program that was compiled in this process would be given what its
  compiler has freed, and seem to take less than it does.
  """
  gc.collect()
  library = _c_library()
  if hasattr(library, "malloc_trim"):
    library.malloc_trim(0)


def resident_growth(call: Callable[[], object]) -> tuple[int, int]:
  """By how much a call raises the resident memory at its highest; Linux.

  Args:
    call: makes one step; it has run before, so that nothing is compiled, loaded
      or created for good in it.

  Returns:
    Bytes at the call's peak over what was resident before it, and all bytes
    that were resident at that peak.
  """
  return_freed()
  (_PROCESS / "clear_refs").write_text("5")  # The peak starts anew.
  before = _status("VmRSS")
  call()
  peak = _status("VmHWM")
  return peak - before, peak


def cells(library: str, contender: timing.Contender) -> dict[str, str]:
  """What a step takes, as cells of a table; it has run before.

  Args:
    library: "stjax" or "torch", which must be the only one in this process.
    contender: makes the step.
  """
  found = {}
  grown = _device_growth(library, contender.run)
  if grown is None:
    grown, peak = resident_growth(contender.run)
    found["process MiB"] = _mebibytes(peak)
  found["memory MiB"] = _mebibytes(grown)
  if contender.temporary_bytes is not None:
    found["XLA MiB"] = _mebibytes(contender.temporary_bytes)
  return found


def in_own_process(function: Callable, *arguments):
  """Calls a function in a fresh process; returns its result."""
  with concurrent.futures.ProcessPoolExecutor(
    1, mp_context=multiprocessing.get_context("spawn")
  ) as pool:
    return pool.submit(function, *arguments).result()


def _device_growth(library: str, step: Callable[[], object]) -> int | None:
  """Bytes that a step takes on the GPU at most; None without a GPU."""
  if library == "stjax":
    import jax

    device = jax.devices()[0]
    if device.platform != "gpu":
      return None
    before = device.memory_stats()["bytes_in_use"]
    step()
    return device.memory_stats()["peak_bytes_in_use"] - before
  import torch

  if not torch.cuda.is_available():
    return None
  torch.cuda.reset_peak_memory_stats()
  before = torch.cuda.memory_allocated()
  step()
  return torch.cuda.max_memory_allocated() - before


def _mebibytes(count: int) -> str:
  return f"{count / 2**20:.1f}"
