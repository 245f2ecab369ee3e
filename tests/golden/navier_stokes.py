"""The Navier-Stokes solver, in double precision."""

import jax
import numpy as np

from golden import registry
from golden.case import Case, assert_close
from input_pipeline.simulate import navier_stokes

# This is a share of each array's scale. The goldens are in double precision,
# but the order of the sums differs.
TOLERANCE = 1e-11
# A slope is a difference over one short step.
SLOPE_TOLERANCE = 1e-9


@registry.runner("triton", "pseudo-spectral vorticity solver")
def solver(case: Case) -> None:
  """Compares the initial field of given noise, its slope, and later fields."""
  options, golden = case.meta["config"], case.group("output")
  noise, grid = case.group("input")["noise"], options["n"]
  psi = navier_stokes.random_stream_function(
    noise, options["peak_wavenumber"], options["tau"]
  )
  initial = navier_stokes.vorticity_of(psi)
  assert_close("psi0", psi, golden["psi0"], TOLERANCE)
  assert_close("w0", initial, golden["w0"], TOLERANCE)
  kept = navier_stokes.dealias_filter(grid)
  assert_close("dealias_filter", kept, golden["dealias_filter"], 0)
  flow = navier_stokes.Flow(
    grid=grid,
    viscosity=options["viscosity"],
    drag=options.get("drag", 0.0),
    dealias=options.get("smooth", True),
  )
  time_step, shape = options["dt"], (grid, grid)
  with jax.enable_x64(True):
    initial_hat = np.fft.rfft2(initial)
    slope = navier_stokes.explicit_terms(flow, initial_hat)
    for key, part in (("real", slope.real), ("imag", slope.imag)):
      key = f"explicit_{key}"
      assert_close(key, part, golden[key], TOLERANCE)
    for key in golden:
      number = key.removeprefix("w_after_")
      if number == key:
        continue
      later = navier_stokes.advance(flow, initial_hat[None], time_step, int(number))
      fields = np.fft.irfft2(later[0], s=shape)
      assert_close(key, fields, golden[key], TOLERANCE)
      if number == "1":
        rate = (fields - initial) / time_step
        assert_close("dwdt_1", rate, golden["dwdt_1"], SLOPE_TOLERANCE)
