"""The Navier-Stokes simulator: exact flows, budgets, convergence, its store."""

import inspect
import os
import pickle

import jax
import numpy as np
import pytest

import input_pipeline
from input_pipeline import DataError
from input_pipeline.simulate import navier_stokes
from input_pipeline.simulate.navier_stokes import Flow
from input_pipeline.stores.navier_stokes import NavierStokesStore


@pytest.fixture
def double():
  with jax.enable_x64(True):
    yield


def _points(grid):
  """x [n, 1] and y [1, n]."""
  points = np.arange(grid) * (2 * np.pi / grid)
  return points[:, None], points[None, :]


def _advance(flow, fields, time_step, num_steps):
  """Fields [n, n] after some steps."""
  later = navier_stokes.advance(flow, np.fft.rfft2(fields)[None], time_step, num_steps)
  return np.fft.irfft2(later[0], s=fields.shape)


@pytest.mark.parametrize("grid", [24, 19])
def test_a_taylor_green_flow_decays_without_moving(double, grid):
  flow = Flow(grid=grid, viscosity=0.02, drag=0.3)
  x, y = _points(grid)
  # All waves of one length: a vorticity proportional to its stream function
  # is not advected, though each wave moves the others.
  initial = np.cos(3 * x + 4 * y) + 0.7 * np.sin(5 * x) - 1.3 * np.cos(5 * y)
  rate = 25 * 0.02 + 0.3
  later = _advance(flow, initial, 0.0025, 80)
  np.testing.assert_allclose(later, initial * np.exp(-rate * 0.2), atol=1e-7)


def test_a_force_sets_a_resting_flow_in_motion_up_to_its_drag(double):
  flow = Flow(
    grid=12, viscosity=0.1, drag=0.2, forcing_wavenumber=3, forcing_amplitude=2.0
  )
  _, y = _points(12)
  rate = 9 * 0.1 + 0.2
  # u = 2 sin(3 y) (1 - exp(-rate t)) / rate, and w = -du/dy.
  expected = -6 * np.cos(3 * y) * (1 - np.exp(-rate * 0.5)) / rate
  later = _advance(flow, np.zeros((12, 12)), 0.005, 100)
  np.testing.assert_allclose(later, np.broadcast_to(expected, (12, 12)),
                             atol=1e-5)  # fmt: skip


def test_advection_keeps_energy_and_enstrophy_unless_it_aliases(double):
  grid = 32
  kept = navier_stokes.dealias_filter(grid)
  # The filter keeps one row more on one side, and none of a real field.
  kept[grid - grid // 3, :] = 0
  field = navier_stokes.initial_vorticity(0, grid=grid, peak_wavenumber=8)
  field_hat = np.fft.rfft2(field) * kept
  kx, ky = navier_stokes.wavenumbers(grid)
  square = np.maximum(kx**2 + ky**2, 1)
  twice = np.where((ky > 0) & (ky < grid // 2), 2, 1)

  def change(dealias):
    slope = navier_stokes.explicit_terms(Flow(grid=grid, dealias=dealias), field_hat)
    beyond = slope * (navier_stokes.dealias_filter(grid) == 0)
    assert np.any(beyond) != dealias
    product = (field_hat.conj() * np.asarray(slope)).real * twice
    scale = np.abs(product).sum()
    return (abs((product / square).sum()) / scale, abs(product.sum()) / scale)

  assert max(change(dealias=True)) < 1e-12
  # A field within the 2/3 aliases into nothing that it contains itself, so
  # both are kept without the filter; a fuller field loses them.
  field_hat = np.fft.rfft2(field)
  assert max(change(dealias=False)) > 1e-5


def test_energy_and_enstrophy_change_as_their_budgets_say(double):
  flow = Flow(grid=32, viscosity=0.02, drag=0.1, forcing_wavenumber=2)
  # Of a coarse grid: what lies beyond the 2/3 is cut off, energy and all.
  field = navier_stokes.initial_vorticity(1, grid=14, max_speed=2.0)
  field_hat = navier_stokes.resize(np.fft.rfft2(field), 14, 32)[None]
  found = []
  for _ in range(5):
    found.append(navier_stokes.budget(flow, field_hat[0]))
    field_hat = navier_stokes.advance(flow, field_hat, 0.005, 4)
  for name in ("energy", "enstrophy"):
    rates = np.array([budget[f"{name}_rate"] for budget in found])
    change = found[-1][name] - found[0][name]
    # Boole's rule over four spans of 0.02.
    integral = rates @ np.array([7, 32, 12, 32, 7]) * (2 * 0.02 / 45)
    np.testing.assert_allclose(change, integral, rtol=2e-5)
    assert abs(change) > 1e-3 * found[0][name]


def test_budgets_are_means_over_the_box(double):
  flow = Flow(grid=20)
  x, y = _points(20)
  # u = -sin(2 x) sin(y), v = -2 cos(2 x) cos(y), w = 5 psi.
  psi = np.sin(2 * x) * np.cos(y)
  found = navier_stokes.budget(flow, np.fft.rfft2(5 * psi))
  np.testing.assert_allclose(found["energy"], (1 / 4 + 4 / 4) / 2)
  np.testing.assert_allclose(found["enstrophy"], 25 / 4 / 2)
  np.testing.assert_allclose(found["palinstrophy"], 25 * 5 / 4 / 2)


def test_the_error_falls_quickly_with_the_grid_and_with_the_step(double):
  coarse = navier_stokes.initial_vorticity(2, grid=8, max_speed=1.5)
  coarse_hat = np.fft.rfft2(coarse)

  def solve(grid, num_steps):
    flow = Flow(grid=grid, viscosity=0.05)
    initial_hat = navier_stokes.resize(coarse_hat, 8, grid)[None]
    later = navier_stokes.advance(flow, initial_hat, 0.5 / num_steps, num_steps)
    return np.asarray(navier_stokes.resize(later[0], grid, 8)) / 8**2

  finest = solve(40, 24)
  by_grid = [np.abs(solve(grid, 24) - finest).max() for grid in (12, 24, 32)]
  assert by_grid[0] > 100 * by_grid[1] > 1000 * by_grid[2]
  by_step = [np.abs(solve(40, steps) - finest).max() for steps in (3, 6)]
  assert by_step[0] > 3.5 * by_step[1]


_FRAMES = dict(num_frames=3, frame_spacing=0.1, time_step=0.05)


def _initial(num_samples, grid=16, **changes):
  return np.stack(
    [
      navier_stokes.initial_vorticity(k, grid=grid, **changes)
      for k in range(num_samples)
    ]
  )


def test_both_precisions_agree_and_leave_the_global_flag_alone():
  before = jax.config.jax_enable_x64
  single, double = (
    navier_stokes.simulate(Flow(grid=16), _initial(2), precision=precision, **_FRAMES)
    for precision in navier_stokes.PRECISIONS
  )
  assert jax.config.jax_enable_x64 == before
  assert single.dtype == double.dtype == np.float32
  assert not np.array_equal(single, double)
  np.testing.assert_allclose(single, double, atol=2e-5)


def test_a_trajectory_does_not_depend_on_its_neighbours():
  flow, initial = Flow(grid=16), _initial(3)
  first = navier_stokes.simulate(flow, initial[:2], **_FRAMES)
  second = navier_stokes.simulate(flow, initial[1:], **_FRAMES)
  np.testing.assert_array_equal(first[1], second[0])
  np.testing.assert_array_equal(_initial(5)[:3], initial)
  assert not np.allclose(initial[0], initial[1])
  assert not np.allclose(initial[0], _initial(1, seed=1)[0])


def test_frames_are_pictures_of_the_flow_after_the_spin_up():
  flow, initial = Flow(grid=16), _initial(2)
  whole = navier_stokes.simulate(
    flow, initial, num_frames=5, frame_spacing=0.1, time_step=0.05
  )
  np.testing.assert_allclose(whole[1, 0, :, :, 0], initial[1].T, atol=1e-6)
  late = navier_stokes.simulate(flow, initial, spin_up=0.2, **_FRAMES)
  np.testing.assert_array_equal(late, whole[:, 2:])


def test_channels_are_those_asked_for_with_u_along_x():
  flow = Flow(grid=16)
  _, y = _points(16)
  initial = np.broadcast_to(np.sin(2 * y), (1, 16, 16))  # u = cos(2 y) / 2.
  frames = navier_stokes.simulate(
    flow,
    initial,
    num_frames=1,
    frame_spacing=1.0,
    time_step=1.0,
    variables=("v", "u", "vorticity"),
  )
  rows = 2 * np.arange(16) * (2 * np.pi / 16)
  for column in range(16):
    v, u, vorticity = frames[0, 0, :, column].T
    np.testing.assert_allclose(v, 0, atol=1e-6)
    np.testing.assert_allclose(u, np.cos(rows) / 2, atol=1e-6)
    np.testing.assert_allclose(vorticity, np.sin(rows), atol=1e-6)


def test_smaller_frames_show_what_they_can_or_are_interpolated():
  x, y = _points(24)
  initial = (np.cos(2 * x + y) + np.sin(9 * x))[None]

  def frame(size, downsample):
    return navier_stokes.simulate(
      Flow(grid=24),
      initial,
      num_frames=1,
      frame_spacing=0.1,
      time_step=0.1,
      image_size=size,
      downsample=downsample,
    )[0, 0, :, :, 0].T

  x, y = _points(8)
  np.testing.assert_allclose(frame(8, "spectral"), np.cos(2 * x + y), atol=1e-5)
  # Of three points the middle one; of four the mean of the two in the middle.
  np.testing.assert_allclose(frame(8, "bilinear"), initial[0, 1::3, 1::3], atol=1e-5)
  middle = (initial[0, 1::4] + initial[0, 2::4]) / 2
  middle = (middle[:, 1::4] + middle[:, 2::4]) / 2
  np.testing.assert_allclose(frame(6, "bilinear"), middle, atol=1e-5)
  spacing = 2 * np.pi / 24
  for size, first in ((8, 1.0), (6, 1.5)):
    axis = navier_stokes.frame_axis(24, size, "bilinear")
    np.testing.assert_allclose(axis[0], first * spacing)
    np.testing.assert_allclose(np.diff(axis), 2 * np.pi / size)


@pytest.mark.parametrize(
  ("flow", "noise", "scale"), [((32, 4, 1.0), 0, None), ((15, 6, 0.5), 1, 3.0)]
)
def test_initial_flows_have_the_energy_or_the_speed_asked_for(flow, noise, scale):
  grid, peak, tau = flow
  field = navier_stokes.initial_vorticity(
    noise, grid=grid, peak_wavenumber=peak, tau=tau, max_speed=scale or 0.0
  )
  field_hat = np.fft.rfft2(field)
  if scale is None:
    found = navier_stokes.budget(Flow(grid=grid), field_hat)
    np.testing.assert_allclose(found["energy"], 0.25, rtol=1e-5)
    return
  kx, ky = navier_stokes.wavenumbers(grid)
  psi_hat = field_hat / np.maximum(kx**2 + ky**2, 1)
  u, v = np.fft.irfft2([1j * ky * psi_hat, -1j * kx * psi_hat], s=(grid, grid))
  np.testing.assert_allclose(np.hypot(u, v).max(), scale)


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    (dict(grid=3), "data.grid"),
    (dict(grid=16.0), "whole number"),
    (dict(viscosity=-1.0), "data.viscosity"),
    (dict(viscosity=float("nan")), "data.viscosity"),
    (dict(drag="1"), "data.drag"),
    (dict(grid=12, forcing_wavenumber=4), "data.forcing_wavenumber"),
  ],
)
def test_a_flow_out_of_range_is_refused(changes, named):
  with pytest.raises(DataError, match=named):
    Flow(**changes)


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    (dict(num_frames=0), "data.num_frames"),
    (dict(frame_spacing=0.0), "data.frame_spacing"),
    (dict(time_step=0), "data.time_step"),
    (dict(spin_up=-1.0), "data.spin_up"),
    (dict(image_size=17), "data.image_size"),
    (dict(downsample="cubic"), "bilinear"),
    (dict(variables=("vorticty",)), "did you mean 'vorticity'"),
    (dict(variables=("u", "u")), "each once"),
    (dict(precision="bfloat16"), "float64"),
    (dict(initial=np.zeros((2, 15, 16))), "grid=16"),
  ],
)
def test_a_simulation_out_of_range_is_refused(changes, named):
  given = dict(initial=np.zeros((1, 16, 16))) | _FRAMES | changes
  with pytest.raises(DataError, match=named):
    navier_stokes.simulate(Flow(grid=16), given.pop("initial"), **given)


def _time_step_named(error):
  return float(str(error.value).partition("data.time_step to ")[2].split()[0])


def test_a_step_that_is_too_long_is_refused_with_one_that_is_not():
  words = "time 0 the flow of trajectory 1 crosses.*data.time_step"
  initial = _initial(1, max_speed=4.0)
  with pytest.raises(DataError, match=words) as error:
    navier_stokes.simulate(
      Flow(grid=16),
      np.concatenate([initial / 9, initial]),
      num_frames=2,
      frame_spacing=0.5,
      time_step=0.5,
    )
  courant = _time_step_named(error) * 16 / (2 * np.pi) * np.array([4.0, 5.7])
  assert courant[0] <= 0.5 and courant[1] >= 0.45


def test_a_flow_that_blows_up_is_named_with_its_remedy(monkeypatch):
  monkeypatch.setattr(navier_stokes, "MAX_COURANT", 1e9)
  # Nobody stops it: the solution grows until it is no longer finite.
  with pytest.raises(DataError, match="trajectory 7.*finite at") as error:
    navier_stokes.simulate(
      Flow(grid=16, viscosity=0.0),
      100 * _initial(2),
      num_frames=20,
      frame_spacing=2.0,
      time_step=1.0,
      first=7,
    )
  assert "data.viscosity" in str(error.value)
  assert 0 < _time_step_named(error) < 1


_SMALL = dict(
  num_samples=3,
  num_frames=4,
  image_size=8,
  grid=12,
  time_step=0.05,
  spin_up=0.2,
  viscosity=0.05,
  group=2,
)


@pytest.fixture
def counted(monkeypatch):
  """Simulations instead of real ones: their sizes, and frames that differ."""
  sizes = []

  def simulate(flow, initial, *, num_frames, image_size, variables, first, **_):
    sizes.append(len(initial))
    shape = (num_frames, image_size, image_size, len(variables))
    numbers = np.arange(first, first + len(initial), dtype=np.float32)
    return np.broadcast_to(numbers[:, None, None, None, None], (len(initial), *shape))

  monkeypatch.setattr(navier_stokes, "simulate", simulate)
  return sizes


def test_the_store_gives_the_simulated_frames(tmp_path):
  settings = _SMALL | dict(forcing_wavenumber=2, variables="vorticity, u")
  store = NavierStokesStore(**settings, cache_dir=str(tmp_path))
  initial = np.stack([navier_stokes.initial_vorticity(k, grid=12) for k in range(3)])
  frames = navier_stokes.simulate(
    Flow(grid=12, viscosity=0.05, forcing_wavenumber=2),
    initial,
    num_frames=4,
    frame_spacing=0.1,
    time_step=0.05,
    spin_up=0.2,
    image_size=8,
    variables=("vorticity", "u"),
  )
  assert (store.num_sequences, store.length(1)) == (3, 4)
  assert store.times(1) is None
  for k in range(3):
    assert store.read(k, 1, 3).dtype == np.float32
    np.testing.assert_allclose(store.read(k, 1, 3), frames[k, 1:3], atol=1e-5)
  assert [v.name for v in store.variables] == ["vorticity", "u"]
  assert store.variables[0].attrs["units"] == "1"
  assert store.variables[0].attrs["frame_spacing"] == 0.1
  assert dict(store.space.sizes) == {"y": 8, "x": 8}
  np.testing.assert_allclose(store.space["y"][1], 2 * np.pi / 8)
  assert len({store.sample_id(k) for k in range(3)}) == 3


def test_groups_are_of_one_size_and_hold_every_trajectory_once(counted, tmp_path):
  for folder in (None, str(tmp_path)):
    store = NavierStokesStore(**_SMALL, cache_dir=folder)
    assert [store.read(k, 0, 1)[0, 0, 0, 0] for k in range(3)] == [0, 1, 2]
  assert counted == [2, 2, 2, 2]


def test_a_group_is_as_large_as_memory_allows(counted, monkeypatch):
  monkeypatch.setattr(navier_stokes, "initial_vorticity", lambda *_, **__: np.zeros(()))
  settings = _SMALL | dict(num_samples=40, grid=512, image_size=64, group=0)
  NavierStokesStore(**settings)
  assert 2 <= counted[0] <= 8
  assert len(counted) == -(-40 // counted[0])


def test_a_cached_store_reads_its_file_and_survives_pickling(counted, tmp_path):
  first = NavierStokesStore(**_SMALL, cache_dir=str(tmp_path))
  made = len(counted)
  again = NavierStokesStore(**_SMALL, cache_dir=str(tmp_path))
  message = pickle.dumps(again)
  assert len(message) < 3000
  sent = pickle.loads(message)
  for k in range(3):
    np.testing.assert_array_equal(again.read(k, 0, 4), first.read(k, 0, 4))
    np.testing.assert_array_equal(sent.read(k, 0, 4), first.read(k, 0, 4))
  assert len(counted) == made
  assert len(list(tmp_path.iterdir())) == 1


def test_every_option_gives_a_cached_file_of_its_own(counted, tmp_path):
  changes = dict(
    num_samples=4,
    num_frames=5,
    image_size=6,
    grid=14,
    downsample="bilinear",
    variables=("u",),
    frame_spacing=0.2,
    time_step=0.04,
    spin_up=0.3,
    viscosity=0.0500000001,
    drag=0.1,
    forcing_wavenumber=2,
    forcing_amplitude=1.1,
    peak_wavenumber=5.0,
    initial_tau=2.0,
    initial_max_speed=1.0,
    precision="float64",
    simulation_seed=1,
    group=1,
  )
  options = inspect.signature(NavierStokesStore).parameters
  assert set(changes) == set(options) - {"cache_dir"}
  NavierStokesStore(**_SMALL, cache_dir=str(tmp_path))
  for name, value in changes.items():
    NavierStokesStore(**_SMALL | {name: value}, cache_dir=str(tmp_path))
  assert len(list(tmp_path.iterdir())) == 1 + len(changes)


def test_a_simulation_that_fails_leaves_no_file(counted, tmp_path, monkeypatch):
  simulate = navier_stokes.simulate

  def fail_later(*args, first, **options):
    if first:
      raise DataError("no longer finite")
    return simulate(*args, first=first, **options)

  monkeypatch.setattr(navier_stokes, "simulate", fail_later)
  with pytest.raises(DataError, match="no longer finite"):
    NavierStokesStore(**_SMALL, cache_dir=str(tmp_path))
  assert not os.listdir(tmp_path)


def test_a_damaged_cached_file_is_named_and_kept(counted, tmp_path):
  NavierStokesStore(**_SMALL, cache_dir=str(tmp_path))
  file = next(tmp_path.iterdir())
  for content in (b"nonsense", file.read_bytes()[:-100]):
    file.write_bytes(content)
    with pytest.raises(DataError, match=file.name):
      NavierStokesStore(**_SMALL, cache_dir=str(tmp_path))
  assert len(list(tmp_path.iterdir())) == 1


def test_splits_without_a_cache_dir_share_one_simulation(counted):
  config = dict(store="navier_stokes", history=1, horizon=1, **_SMALL)
  splits = [
    input_pipeline.build(config, name, batch_size=1) for name in ("train", "validation")
  ]
  assert splits[0].spec.shapes(1)["inputs"] == (1, 1, 8, 8, 1)
  assert len(counted) == 2


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    (dict(num_samples=0), "data.num_samples"),
    (dict(image_size=13), "data.grid"),
    (dict(peak_wavenumber=0.0), "data.peak_wavenumber"),
    (dict(initial_max_speed=-1.0), "data.initial_max_speed"),
    (dict(simulation_seed=-1), "data.simulation_seed"),
    (dict(group=-1), "data.group"),
  ],
)
def test_a_store_out_of_range_is_refused(changes, named):
  with pytest.raises(DataError, match=named):
    NavierStokesStore(**_SMALL | changes)
