"""Candidate forecasts of every window of a split, kept for preferences.

A candidate is a member of the method's ensemble. Candidates are kept in normalised
units, before they are clipped, in the layout of `input_pipeline.pairs`.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import zarr
from absl import logging
from jax.experimental import multihost_utils

import input_pipeline
from input_pipeline import files, pairs
from stjax import sharding as sharding_lib
from stjax.forecasting import chunks
from stjax.run import run as run_lib

PyTree = Any
_PROGRESS = "progress.json"


def key_of(seed: int, number: int) -> jax.Array:
  """Returns the key of a round of candidates, the first of which is a forecast's.

  Args:
    seed: the run's.
    number: number of the round, from 1.
  """
  key = chunks.forecast_key(seed)
  return key if number == 1 else jax.random.fold_in(key, number)


class Candidates:
  """A folder of candidates, drawn window by window and gone on with after a kill.

  They are drafted beside their place. Each process writes whole windows; the first
  one keeps the record of how far all of them have come.

  Args:
    place: the folder that they shall have, WORKDIR/preferences/NAME.
    about: plain values that decide what the candidates are. Complete candidates of
      the same values are used again, whichever name they have.
  """

  def __init__(self, place: pathlib.Path, about: dict[str, Any]):
    self._place = place
    # As it comes back from a file.
    self._about = json.loads(json.dumps(about))
    self._draft = place.with_name(f".{place.name}.draft")
    self._whole = self._find_whole()
    self.folder = place if self._whole == place else self._draft

  def _find_whole(self) -> pathlib.Path | None:
    """The folder of complete candidates of the same values, if there is one."""
    others = sorted(p.parent for p in self._place.parent.glob(f"*/{pairs.MANIFEST}"))
    for folder in sorted(others, key=lambda p: p != self._place):
      try:
        manifest = pairs.read_manifest(folder)
      except input_pipeline.DataError:
        continue
      there = (folder / pairs.CANDIDATES).is_dir()
      if there and manifest.get("drawn") == self._about:
        return folder
    return None

  def draw(
    self,
    run: run_lib.Run,
    variables: PyTree,
    frozen: PyTree,
    count: int,
    splits: dict[str, input_pipeline.Split],
    open_split,
  ) -> None:
    """Draws what is missing.

    Args:
      run: the run.
      variables: of its method.
      frozen: what its method reads and never trains.
      count: number of candidates N of each window.
      splits: the splits by name, in order.
      open_split: function of a name and of the first batch that opens one.
    """
    options = run.config.prefer
    if self._whole == self._place:
      logging.info("The candidates in %s are used again", self._place)
      return
    done = self._begin(run, count, splits)
    if self._whole:
      return
    compiled = None
    key = key_of(run.config.seed, options.round)
    for name, data in splits.items():
      first = done.get(name, 0)
      if first >= data.num_batches:
        continue
      array = zarr.open_group(self._draft / pairs.CANDIDATES, mode="a")[name]
      compiled = compiled or _compile(run, options.batch_size, count)
      for number, host in enumerate(open_split(name, first).batches, first):
        batch = sharding_lib.put_batch(run.crop_to_training_window(host), run.mesh)
        fields = sharding_lib.fetch(compiled(variables, frozen, batch, key))
        # This process writes the rows that it has read.
        size = len(host["index"])
        part, _ = sharding_lib.process_rows(run.mesh)
        for row in range(size):
          if host["valid"][row]:
            window = number * options.batch_size + part * size + row
            array[window] = fields[:, part * size + row]
        done[name] = number + 1
        self._keep(done)
        logging.info(
          "%d of %d windows of the %s split have their %d candidates",
          min(done[name] * options.batch_size, data.num_examples),
          data.num_examples,
          name,
          count,
        )

  def _begin(self, run, count, splits) -> dict[str, int]:
    """Makes the draft, or finds it; returns how many batches of each split it has."""
    done = {}
    if jax.process_index() == 0:
      path = self._draft / _PROGRESS
      try:
        kept = json.loads(path.read_text())
        done = kept["done"] if kept["about"] == self._about else None
      except (OSError, ValueError, KeyError, TypeError):
        done = None
      if done is None or self._whole:
        done = {}
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir(parents=True)
        self._create(run, count, splits)
        self._write(done)
      elif done:
        logging.info("The run goes on with the candidates in %s", self._draft)
    if jax.process_count() > 1:
      numbers = np.asarray([done.get(name, 0) for name in splits])
      numbers = multihost_utils.broadcast_one_to_all(numbers)
      done = dict(zip(splits, map(int, numbers), strict=True))
    return done

  def _create(self, run, count, splits):
    place = self._draft / pairs.CANDIDATES
    if self._whole:
      logging.info("The candidates in %s are used again", self._whole)
      shutil.copytree(self._whole / pairs.CANDIDATES, place, copy_function=_link)
      return
    group = zarr.open_group(place, mode="w")
    shape = run.example_shape["targets"]
    for name, data in splits.items():
      group.create_array(
        name,
        shape=(data.num_examples, count, *shape),
        chunks=(1, count, *shape),
        dtype="float32",
        fill_value=float("nan"),
        dimension_names=("window", "candidate", "lead_time", "y", "x", "variable"),
      )

  def _keep(self, done):
    """Records, once every process has written its windows, how far all have come."""
    barrier("candidates")
    if jax.process_index() == 0:
      self._write(done)

  def _write(self, done):
    files.write_json(
      self._draft / _PROGRESS, {"about": self._about, "done": dict(done)}
    )

  def read(self, split: str, row: int) -> np.ndarray:
    """The candidates [N, T_out, H, W, C] of a window.

    Args:
      split: name of the split.
      row: number of the window among those that were drawn.
    """
    return zarr.open_group(self.folder / pairs.CANDIDATES, mode="r")[split][row]

  def close(self, manifest: dict[str, Any]) -> None:
    """Writes the manifest, and moves the folder to its place.

    Args:
      manifest: see `input_pipeline.pairs`.
    """
    barrier("candidates are scored")
    if jax.process_index() == 0:
      files.write_json(self.folder / pairs.MANIFEST, manifest | {"drawn": self._about})
      if self.folder != self._place:
        (self._draft / _PROGRESS).unlink(missing_ok=True)
        old = self._place.with_name(f".{self._place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._place.exists():
          self._place.rename(old)
        self._draft.rename(self._place)
        shutil.rmtree(old, ignore_errors=True)
    self.folder = self._place
    barrier("the manifest is written")


def barrier(name: str) -> None:
  """Waits for all processes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _link(source: str, target: str) -> None:
  """A second name for a file that never changes, or a copy where there is none."""
  try:
    os.link(source, target)
  except OSError:
    shutil.copy2(source, target)


def _compile(run: run_lib.Run, batch_size: int, count: int) -> jax.stages.Compiled:
  batch = run.abstract_batch(batch_size)
  made = chunks.ensemble(run, batch_size, count, run.config.data.horizon)
  shape = (count, batch_size, *run.example_shape["targets"])
  axes = ("member", "batch", "time", "height", "width", "variable")
  return sharding_lib.lower_and_compile(
    made,
    run.mesh,
    run.abstract_variables,
    run.for_forecast(run.abstract_frozen),
    batch,
    jax.eval_shape(lambda: key_of(0, 1)),
    out_shardings=sharding_lib.axes_sharding(axes, shape, run.mesh),
  )
