"""Labelled forecasts: a checkpoint and initial conditions -> a Zarr store."""

import functools
import math
import pathlib
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
import zarr
from absl import logging

from stjax import initialise, layouts
from stjax import run as run_lib
from stjax import sharding as sharding_lib
from stjax.methods import base
from stjax.models import layers

PyTree = Any
_CHUNK_VALUES = 2**20  # Of the store: whole forecasts, up to about 4 MB.
# Folded into the run's key, so that forecasts do not repeat training's draws.
FORECAST_STREAM = 1


def forecast_key(seed: int) -> jax.Array:
  """The base key of all forecasts of a run."""
  return jax.random.fold_in(jax.random.key(seed), FORECAST_STREAM)


def ensemble(
    run: run_lib.Run, batch_size: int, members: int, horizon: int
) -> Callable[..., jax.Array]:
  """Returns (variables, frozen, batch, key) -> normalised forecasts.

  The devices share the rows of the batch; where these do not divide, the
  members.

  Args:
    run: the run.
    batch_size: examples over all devices.
    members: ensemble members M.
    horizon: frames T_out; more than the trained ones are fed back.

  Returns:
    A function to [M, B, T_out, H, W, C].
  """

  def forecast(variables, frozen, batch, key, members):
    return base.rollout(
        run.method, variables, frozen, batch, key, members, horizon
    )

  if batch_size % sharding_lib.row_parts(run.mesh) == 0:
    return functools.partial(forecast, members=members)

  def own(*arguments):
    with layers.convolution_mesh(None):  # Each device holds whole arrays.
      return forecast(*arguments)

  return sharding_lib.over_members(own, run.mesh, members)


def compile_forecast(
    run: run_lib.Run, batch_size: int, members: int, horizon: int
) -> Callable[..., jax.Array]:
  """Compiles (variables, frozen, batch, key) -> forecast, physical units.

  Args:
    run: the run.
    batch_size: examples over all devices.
    members: ensemble members M.
    horizon: frames T_out; more than the trained ones are fed back.

  Returns:
    A function to [M, B, T_out, H, W, C].
  """
  batch = run.abstract_batch(batch_size)
  # What is known in advance goes on to the last lead time.
  longer = run.abstract_batch(
      batch_size, horizon=max(horizon, run.config.data.horizon)
  )
  batch |= {name: longer[name] for name in base.KNOWN if name in longer}
  shapes = {k: v.shape for k, v in batch.items()}
  out = (members, batch_size, horizon, *run.example_shape["inputs"][1:])
  sharding = sharding_lib.batch_shardings({"forecast": out}, run.mesh, 1)

  forecast = ensemble(run, batch_size, members, horizon)

  def function(variables, frozen, batch, key):
    return run.physical(forecast(variables, frozen, batch, key))

  with layers.convolution_mesh(run.mesh):
    return (
        jax.jit(
            function,
            in_shardings=(
                None,
                None,
                sharding_lib.batch_shardings(shapes, run.mesh),
                sharding_lib.replicated(run.mesh),
            ),
            out_shardings=sharding["forecast"],
        )
        .lower(
            run.abstract_variables,
            run.abstract_frozen,
            batch,
            jax.eval_shape(functools.partial(forecast_key, 0)),
        )
        .compile()
    )


class ForecastStore:
  """A Zarr store that forecasts are written into, batch by batch.

  It is written beside its place and moved there when it is complete, so that
  a crash never leaves half a store under the final name.

  Args:
    path: where the store goes, ending in .zarr.
    coordinates: variables, attributes, lead times and grid; see
      `input_pipeline.Split`.
    labels: names and times of the examples, on dimension "sample".
    members: ensemble members M.
    attributes: of the whole store.
    layout: its name; see `stjax.layouts`.

  Raises:
    ConfigError: the layout has no place for such data.
  """

  def __init__(
      self,
      path: pathlib.Path,
      coordinates: xr.Dataset,
      labels: xr.Dataset,
      members: int,
      attributes: dict[str, str],
      layout: str = "stjax",
  ):
    self._path = path
    self._draft = path.with_name(f".{path.name}.draft")
    if self._draft.exists():
      shutil.rmtree(self._draft)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._layout = layouts.build(layout, coordinates, labels, members)
    frame = self._layout.coords.assign_attrs(attributes)
    # Zarr has a stable type for strings of any length only.
    texts = [n for n, c in frame.coords.items() if c.dtype.kind == "U"]
    frame = frame.assign_coords({n: frame[n].astype(object) for n in texts})
    frame.to_zarr(self._draft, mode="w", consolidated=False)
    self._group = zarr.open_group(self._draft, mode="a")
    lead = coordinates.sizes["lead_time"]
    space = coordinates.attrs["spatial_dims"]
    grid = tuple(coordinates.sizes[d] for d in space)
    # Small fields of many members would be as many tiny files.
    together = max(_CHUNK_VALUES // (lead * math.prod(grid)), 1)
    for name, one in self._layout.arrays.items():
      inner = len(one.dims) - len(grid) - self._layout.by_member
      array = self._group.create_array(
          name,
          shape=one.sizes,
          chunks=(
              *((min(members, together),) if self._layout.by_member else ()),
              *(1, lead, 1)[:inner],  # Starts, lead times, levels.
              *grid,
          ),
          dtype="float32",
          fill_value=float("nan"),
          dimension_names=one.dims,
      )
      array.attrs.update(_plain(dict(one.attrs)))

  def write(self, first: int, forecast: np.ndarray) -> None:
    """Writes examples `first`, `first + 1`, ...

    Args:
      first: number of the first example.
      forecast: [M, B, T_out, H, W, C] in physical units.
    """
    rows = slice(first, first + forecast.shape[1])
    for name, index, values in self._layout.parts(forecast, rows):
      self._group[name][index] = values

  def close(self) -> None:
    """Completes the store and moves it to its place."""
    with warnings.catch_warnings():
      # Not in the Zarr 3 specification yet, but what xarray looks for.
      warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
      zarr.consolidate_metadata(self._draft)
    old = self._path.with_name(f".{self._path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if self._path.exists():
      self._path.rename(old)
    self._draft.rename(self._path)
    shutil.rmtree(old, ignore_errors=True)


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
  return {
      k: v.tolist() if isinstance(v, np.generic | np.ndarray) else v
      for k, v in attributes.items()
  }


def forecast(run: run_lib.Run) -> pathlib.Path:
  """Makes forecasts of a split and leaves them as a labelled store.

  Args:
    run: the run; `config.forecast` says which split, checkpoint, horizon and
      how many members.

  Returns:
    The path of the store: variables on (member, init_time or sample,
    lead_time, spatial dims) in physical units, or as `config.forecast.layout`
    has it.

  Raises:
    ConfigError: no checkpoint.
    DataError: the split has no window of this length.
  """
  options = run.config.forecast
  horizon = options.horizon or run.config.data.horizon
  variables = initialise.load_variables(run, run.workdir, options.checkpoint)
  frozen = initialise.frozen(run)
  data = run.split(
      options.split,
      options.batch_size,
      history=options.history,
      horizon=max(horizon, run.config.data.horizon),
  )
  function = compile_forecast(
      run, options.batch_size, options.members, horizon
  )
  path = run.workdir / "forecast" / f"{options.split}.zarr"
  store = None
  if jax.process_index() == 0:
    store = ForecastStore(
        path,
        data.coordinates.isel(lead_time=slice(horizon)),
        data.labels.isel(lead_time=slice(horizon))
        if "lead_time" in data.labels.dims
        else data.labels,
        options.members,
        {
            "Conventions": "CF-1.10",
            "source": f"stjax, {run.config.model.name}",
            "normalisation": run.statistics.kind,
        },
        options.layout,
    )
  key = forecast_key(run.config.seed)
  first = 0
  for batch in data.batches:
    batch = sharding_lib.put_batch(run.as_trained(batch), run.mesh)
    fields = sharding_lib.fetch(function(variables, frozen, batch, key))
    count = min(options.batch_size, data.num_examples - first)
    if store is not None:
      store.write(first, fields[:, :count])
    first += count
  if store is not None:
    store.close()
  logging.info(
      "%d forecasts of %d frames, %d member(s): %s",
      data.num_examples,
      horizon,
      options.members,
      path,
  )
  return path
