"""Long forecasts in pieces: the same numbers, and going on after a crash."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from test_train import build, plates

from stjax import forecast, train
from stjax.forecasting import chunks as chunks_lib
from stjax.forecasting import stability
from stjax.forecasting import store as store_lib
from stjax.methods import rollout as rollout_lib
from stjax.run import sources

HORIZON = 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("long")
  config = long_config(folder)
  train.train(build(folder, config))
  return folder


def long_config(folder, **changes):
  """Sequences of nine frames: 2 given, 2 trained, 7 forecast."""
  config = plates(folder, frames=9)
  config.update_from_flattened_dict(
    {
      "num_epochs": 1.0,
      "forecast.horizon": HORIZON,
      "forecast.batch_size": 1,
      "forecast.lead_chunk": 2,
    }
    | {k.replace("__", "."): v for k, v in changes.items()}
  )
  return config


def store_of(folder, **changes):
  run = build(folder, long_config(folder, **changes))
  path = forecast.forecast(run)
  with xr.open_zarr(path, chunks=None) as store:
    return store.load(), path


@pytest.mark.slow
def test_pieces_are_the_whole_forecast(trained):
  whole, _ = store_of(trained, forecast__lead_chunk=HORIZON)
  assert whole.sizes["lead_time"] == HORIZON
  for chunk in (1, 3, 4):
    pieces, path = store_of(trained, forecast__lead_chunk=chunk)
    xr.testing.assert_allclose(pieces, whole, rtol=1e-6)
  left = sorted(p.name for p in path.parent.iterdir())
  assert left == [
    "test.zarr",
    "test_drift.nc",
    "test_drift.png",
    "test_spectrum_channel_0.png",
  ]
  with xr.open_dataset(path.with_name("test_drift.nc")) as drift:
    np.testing.assert_allclose(
      drift["mean"][0],
      whole["channel_0"].mean(("member", "sample", "y", "x")),
      rtol=1e-5,
    )


def test_whole_blocks_make_a_piece(trained):
  run = build(trained, long_config(trained))
  frames = lambda wanted, horizon=HORIZON: chunks_lib.piece_frames(
    run, 1, 1, horizon, wanted
  )
  assert [frames(n) for n in (1, 2, 3, 7, 9)] == [2, 2, 4, 7, 7]
  assert frames(0) == HORIZON  # All of it is small.
  assert frames(0, 10**9) == 2**26 // 16 // 2 * 2


def test_a_crash_loses_one_piece_at_most(trained, monkeypatch):
  whole, path = store_of(trained)
  kept = xr.open_zarr(path, chunks=None)
  written = []
  write = store_lib.ForecastStore.write

  def failing(self, first, fields, lead=0):
    if len(written) == 5:
      raise KeyboardInterrupt
    written.append((first, lead))
    write(self, first, fields, lead)

  with monkeypatch.context() as patch:
    patch.setattr(store_lib.ForecastStore, "write", failing)
    with pytest.raises(KeyboardInterrupt):
      store_of(trained)
  # The old store is still there, and whole.
  xr.testing.assert_identical(kept.load(), whole)
  assert written == [(0, 0), (0, 2), (0, 4), (0, 6), (1, 0)]
  again = []
  with monkeypatch.context() as patch:
    patch.setattr(
      store_lib.ForecastStore,
      "write",
      lambda self, first, fields, lead=0: (
        again.append((first, lead)),
        write(self, first, fields, lead),
      ),
    )
    resumed, _ = store_of(trained)
  assert again == [(1, 2), (1, 4), (1, 6)]
  xr.testing.assert_identical(resumed, whole)


def test_another_forecast_does_not_go_on_from_a_draft(trained, monkeypatch):
  monkeypatch.setattr(store_lib.ForecastStore, "close", lambda self: None)
  monkeypatch.setattr(stability, "report", lambda *_: None)
  run = build(trained, long_config(trained))
  path = forecast.forecast(run)
  variables = sources.load_variables(run, run.workdir, "best")
  about = forecast._about(run, variables, 2)
  labels = run.forecast_split().labels
  reopen = lambda about: store_lib.ForecastStore(
    path, run.coordinates, labels, 1, {}, about=about
  )
  assert reopen(about).reached == (1, 6)
  for changes in ({"members": 2}, {"checkpoint": "latest"}):
    run.config.forecast.update(changes)
    assert forecast._about(run, variables, 2) != about
  progress = store_lib._progress_path(path)
  whole = progress.read_bytes()
  monkeypatch.setattr(store_lib.ForecastStore, "_create", lambda *_: None)
  for damaged in (whole[:-40], b"", b"no archive"):
    progress.write_bytes(damaged)
    assert reopen(about).reached is None
  progress.write_bytes(whole)
  assert reopen(forecast._about(run, variables, 2)).reached is None


def test_a_forecast_that_blows_up_says_when_and_keeps_what_came_before(
  trained, monkeypatch
):
  run = build(trained, long_config(trained, forecast__abort_above_std=20.0))
  plain = run.method.forecast

  def growing(self, variables, frozen, batch, key, members=1):
    fields = plain(variables, frozen, batch, key, members)
    return fields + 2 * abs(batch["inputs"][:, -1:]).max() + 1

  monkeypatch.setattr(type(run.method), "forecast", growing)
  with pytest.raises(forecast.BlownUp, match=r"\(frame 5\).*docs/rollouts"):
    forecast.forecast(run)
  draft = run.workdir / "forecast" / ".test.zarr.draft"
  with xr.open_zarr(draft, chunks=None, consolidated=False) as left:
    name = list(left)[0]
    finite = np.isfinite(left[name]).all(("y", "x"))
  np.testing.assert_array_equal(finite[0, 0], [True] * 4 + [False] * (HORIZON - 4))


@pytest.mark.slow
def test_members_that_devices_share_go_on_alike(make_run):
  """Three members on eight devices, three blocks, in pieces of one."""
  run = make_run(8)
  state = run.fresh_state()
  batch = {
    name: jnp.zeros(a.shape, a.dtype) for name, a in run.abstract_batch(1).items()
  }
  batch["inputs"] = jax.random.uniform(jax.random.key(0), batch["inputs"].shape)
  variables, key = state.variables(), chunks_lib.forecast_key(0)
  block = run.method.horizon
  rollout = chunks_lib.Rollout(run, 1, 3, 3 * block, block)
  pieces = list(rollout.pieces(variables, {}, batch, key))
  assert [piece.lead for piece in pieces] == [0, block, 2 * block]
  found = np.concatenate([np.asarray(p.fields) for p in pieces], axis=2)
  expected = run.to_physical(
    rollout_lib.rollout(run.method, variables, {}, batch, key, 3, 3 * block)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  # From a piece in the middle, as after a crash.
  histories = np.asarray(pieces[1].histories)
  again = rollout.pieces(variables, {}, batch, key, 2 * block, histories)
  np.testing.assert_array_equal(
    [np.asarray(p.fields) for p in again], [pieces[2].fields]
  )


@pytest.mark.slow
def test_a_forecast_can_begin_with_the_last_frame_of_the_data(trained):
  inside, _ = store_of(trained)
  beyond, _ = store_of(trained, forecast__past_data_end=True)
  # Nine frames, two given: eight starts a sequence, one with all its truth.
  assert inside.sizes["sample"] == 2
  assert beyond.sizes["sample"] == 16
  first = beyond.isel(sample=[0, 8])
  np.testing.assert_allclose(first["channel_0"], inside["channel_0"], rtol=1e-6)
  assert np.isfinite(beyond["channel_0"]).all()
