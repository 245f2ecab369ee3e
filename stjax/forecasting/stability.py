"""Drift of long forecasts: how their mean and spectrum change with lead time.

A stable model keeps the global mean and the spectrum of its fields. A model with
a slow error moves the mean, and one that blurs or becomes noisy changes the
spectrum.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from input_pipeline import files
from input_pipeline.labels import lead_labels
from stjax.forecasting import store as store_lib
from stjax.metrics import grid, spectra
from stjax.plots import curves
from stjax.plots import spectra as plots
from stjax.run import run as run_lib

_LEADS = ("lead_time", "prediction_timedelta")
_TOGETHER = 2**24  # Number of values that are read at a time.
_LINES = 4  # Number of variables in the figures.


@jax.jit
def _describe(fields: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
  """Returns mean, variance and power by lead time.

  Args:
    fields: [N, n, H, W] with n lead times; NaN where missing, such as on land.
    weight: [H, W] weights of the cells.

  Returns:
    "mean" [n] and "variance" [n] over the grid, and "power" [n, wavenumbers],
    each averaged over the N fields.
  """
  seen = jnp.isfinite(fields)
  share = jnp.where(seen, weight, 0)
  share = share / share.sum((-2, -1), keepdims=True)
  mean = (share * jnp.where(seen, fields, 0)).sum((-2, -1))
  # Missing points take the mean, so that they add neither variance nor power.
  departure = jnp.where(seen, fields - mean[..., None, None], 0)
  variance = (share * jnp.square(departure)).sum((-2, -1))
  waves = spectra.transform((departure + mean[..., None, None])[..., None])
  power = spectra.shell_sums(jnp.square(jnp.abs(waves)).mean(0) / 2)
  return {"mean": mean.mean(0), "variance": variance.mean(0), "power": power[..., 0]}


def describe(store: xr.Dataset, weights: np.ndarray | None) -> xr.Dataset:
  """Returns mean, standard deviation and spectrum of forecasts by lead time.

  Args:
    store: forecasts whose last two dimensions are rows and columns; NaN where
      they are missing.
    weights: weights of the cells [H] or [H, W], or None.

  Returns:
    `mean` and `deviation` on (variable, lead): over the grid (weighted) and
    over all starts and members, in physical units. `power` on (variable, lead,
    wavenumber); see `stjax.metrics.spectra.shell_sums`.
  """
  lead = next(name for name in _LEADS if name in store.dims)
  parts = {}
  for name, array in store.data_vars.items():
    if lead not in array.dims:
      continue  # It describes the map projection.
    name = array.attrs.get("original_name", name)
    levels = array["level"].values if "level" in array.dims else [None]
    for level in levels:
      one = array if level is None else array.sel(level=level)
      label = name if level is None else f"{name}@{level}"
      parts[label] = _by_lead(one.transpose(..., lead, *one.dims[-2:]), weights)
  whole = {
    key: np.stack([part[key] for part in parts.values()])
    for key in ("mean", "variance", "power")
  }
  dims = ("variable", lead)
  return xr.Dataset(
    {
      "mean": (dims, whole["mean"]),
      "deviation": (dims, np.sqrt(whole["variance"])),
      "power": ((*dims, "wavenumber"), whole["power"]),
    },
    coords={
      "variable": list(parts),
      lead: store[lead],
      "wavenumber": np.arange(whole["power"].shape[-1]),
    },
  )


def changes(drift: xr.Dataset) -> dict[str, dict[str, np.ndarray]]:
  """Returns the drift relative to the first lead time, for figures.

  Args:
    drift: result of `describe`.

  Returns:
    The changes [n] of "mean" and "deviation" by variable. They are divided by
    the standard deviation of the first lead time, or by 1 if that is 0.
  """
  first = drift["deviation"].values[:, :1]
  unit = np.where(first > 0, first, 1.0)
  found = {}
  for kind in ("mean", "deviation"):
    values = drift[kind].values
    rows = (values - values[:, :1]) / unit
    found[kind] = dict(zip(drift["variable"].values, rows, strict=True))
  return found


def _by_lead(array: xr.DataArray, weights) -> dict[str, np.ndarray]:
  *others, leads, height, width = array.shape
  cells = np.ones((height, width), np.float32)
  if weights is not None:
    cells = cells * weights.reshape(height, -1)
  size = int(np.prod(others)) * height * width
  step = max(_TOGETHER // size, 1)
  found = []
  for first in range(0, leads, step):
    part = array[..., first : first + step, :, :].values
    part = part.reshape(-1, *part.shape[-3:])
    found.append(jax.device_get(_describe(part, cells)))
  return {key: np.concatenate([f[key] for f in found]) for key in found[0]}


def report(run: run_lib.Run, path: pathlib.Path) -> None:
  """Writes the drift of a store beside it, as a netCDF file and as figures.

  Args:
    run: the run that made the store.
    path: path of the store; STORE_drift.nc, STORE_drift.png and
      STORE_spectrum_*.png are written beside it.
  """
  with store_lib.open_store(path) as store:
    weights = grid.cell_weights(
      "evaluation.area_weights", run.config.evaluation.area_weights, run.coordinates
    )
    drift = describe(store, weights)
  stem = path.with_suffix("")
  with files.replacing(stem.with_name(f"{stem.name}_drift.nc")) as partial:
    drift.to_netcdf(partial, engine="h5netcdf")
  lead = drift[drift["mean"].dims[1]]
  labels = lead_labels(lead)
  known = set(drift["variable"].values.tolist())
  # A store does not keep the order of the variables, but the data do.
  names = [name for name in run.coordinates.data_vars if name in known]
  names = names[:_LINES]
  curves.lead_time_curves(
    changes(drift.sel(variable=names)),
    stem.with_name(f"{stem.name}_drift.png"),
    lead_labels=labels,
    title="Change since the first lead time, in its standard deviations",
  )
  if min(run.example_shape["inputs"][1:3]) == 1:
    return  # Point data have no waves.
  for name in names:
    power = drift["power"].sel(variable=name).values[:, 1:]
    plots.power_spectrum(
      drift["wavenumber"].values[1:],
      power,
      np.broadcast_to(power[:1], power.shape),
      stem.with_name(f"{stem.name}_spectrum_{name}.png"),
      lead_labels=labels,
      title=name,
      dashed="first lead time",
    )
