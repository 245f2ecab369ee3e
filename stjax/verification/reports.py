"""Diagrams as CSV files; metrics.json has the same diagrams."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import files
from input_pipeline.labels import lead_labels
from stjax.metrics.base import Diagrams
from stjax.verification.tables import BY_LEAD, BY_VARIABLE


def diagram_columns(
  diagram: Mapping[str, np.ndarray], *, variables: Sequence[str], lead_times: Sequence
) -> dict[str, np.ndarray]:
  """Returns the columns of a diagram's table, all of one length.

  Arrays by lead time or by variable become one column for each of these, such
  as "frequency +6 h" or "frequency sst". Single numbers are left out.

  Args:
    diagram: arrays by name; see `stjax.metrics.base.Diagrams`.
    variables: [C] names.
    lead_times: [T] timedelta64, or whole steps.
  """
  columns = {}
  for name, values in diagram.items():
    labels = None
    for ending, names in ((BY_LEAD, lead_labels(lead_times)), (BY_VARIABLE, variables)):
      if name.endswith(ending):
        stem, labels = name.removesuffix(ending), names
    if labels is None:
      if np.ndim(values):
        columns[name] = values
    elif np.ndim(values) > 1:
      columns |= {
        f"{stem} {label}": row for label, row in zip(labels, values, strict=True)
      }
  return columns


def write_diagrams(
  folder: str | os.PathLike,
  diagrams: Mapping[str, Diagrams],
  *,
  variables: Sequence[str],
  lead_times: Sequence,
) -> None:
  """Writes "<convention>_<diagram>.csv" for every diagram.

  Args:
    folder: existing folder for the files.
    diagrams: diagrams by convention, as `Accumulator.diagrams` returns them.
    variables: [C] names.
    lead_times: [T] timedelta64, or whole steps.
  """
  for convention, by_name in diagrams.items():
    for name, diagram in by_name.items():
      columns = diagram_columns(diagram, variables=variables, lead_times=lead_times)
      text = io.StringIO()
      table = csv.writer(text, lineterminator="\n")
      table.writerow(columns)
      table.writerows(
        ["" if x != x else x for x in row]  # Only NaN differs from itself.
        for row in zip(*(np.asarray(v).tolist() for v in columns.values()), strict=True)
      )
      files.write_atomically(
        pathlib.Path(folder) / f"{convention}_{name.replace('/', '_')}.csv",
        text.getvalue(),
      )
