"""Scores as files (metrics.json, lead_time.csv) and as a table on the console.

`results` is always {source: {convention: {score: Score}}}. A source is
"forecast" or the name of a baseline.
"""

import csv
import functools
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from input_pipeline import files
from input_pipeline.labels import lead_labels
from stjax.metrics.base import Diagrams, Score
from stjax.plots import style

Results = Mapping[str, Mapping[str, Mapping[str, Score]]]

FORECAST = style.FORECAST
# Endings of the names of a diagram's arrays; see `stjax.metrics.base.Diagrams`.
BY_LEAD, BY_VARIABLE = "_by_lead", "_by_variable"
_ALL = "all"  # Name of the rows that are pooled over the variables.


# These scores repeat others but for a constant; metrics.json alone has them.
_REPEATED = "_spatialnorm"


def units(coordinates: xr.Dataset) -> dict[str, str]:
  """Returns the units of the variables by name, in the order of the data."""
  return {
    str(name): str(values.attrs.get("units", ""))
    for name, values in coordinates.data_vars.items()
  }


def mixed(units: Mapping[str, str]) -> bool:
  """Tells whether a mean over the variables would mix units."""
  return len({style.units(unit) for unit in units.values()}) > 1


def ordered(results: Results) -> dict:
  """Returns the results with the forecast first, whatever order they come in."""
  return (
    {FORECAST: results[FORECAST]} | dict(results)
    if FORECAST in results
    else {**results}
  )


def pooled_over(units: Mapping[str, str]) -> str:
  """Says what a score of all variables is taken over: "t (K), u (m s-1)"."""
  return ", ".join(style.with_units(name, unit) for name, unit in units.items())


def to_json(tree: Any, path: str = "") -> tuple[Any, list[str]]:
  """Makes a tree of numbers valid JSON.

  Args:
    tree: nested mappings and sequences of plain values and numpy arrays.
    path: path of the tree, for the notes.

  Returns:
    The tree as dicts, lists and plain values, with null for numbers that are
    not finite; and one note for each null, such as
    "openstl/psnr/overall is inf".
  """
  if isinstance(tree, Mapping):
    parts = {
      str(key): to_json(value, f"{path}/{key}" if path else str(key))
      for key, value in tree.items()
    }
    return (
      {key: value for key, (value, _) in parts.items()},
      [note for _, notes in parts.values() for note in notes],
    )
  if isinstance(tree, np.ndarray | np.generic):
    tree = tree.tolist()
  if isinstance(tree, list | tuple):
    parts = [to_json(x, f"{path}[{i}]") for i, x in enumerate(tree)]
    return [value for value, _ in parts], [n for _, ns in parts for n in ns]
  if isinstance(tree, float) and not math.isfinite(tree):
    return None, [f"{path} is {tree}"]
  return tree, []


def _score_tree(score: Score, variables: Sequence[str]) -> dict[str, Any]:
  tree = {"overall": score.overall}
  if score.by_variable is not None:
    tree["by_variable"] = dict(zip(variables, score.by_variable, strict=True))
  if score.by_lead is not None:
    tree["by_lead"] = score.by_lead
  if score.by_lead_and_variable is not None:
    tree["by_lead_and_variable"] = dict(
      zip(variables, score.by_lead_and_variable.T, strict=True)
    )
  return tree


def diagrams_tree(
  diagrams: Mapping[str, Diagrams], *, variables: Sequence[str]
) -> dict[str, Any]:
  """Returns the part "diagrams" of metrics.json.

  It is {convention: {diagram: {array: list}}}, where "<array>_by_variable" is a
  mapping from the variables' names. Missing values are null, such as the
  observed frequency of a probability that was never forecast.

  Args:
    diagrams: diagrams by convention, as `Accumulator.diagrams` returns them.
    variables: [C] names.
  """

  def named(name, values):
    if name.endswith(BY_VARIABLE):
      return dict(zip(variables, values, strict=True))
    return values

  tree = {
    convention: {
      name: {key: named(key, value) for key, value in diagram.items()}
      for name, diagram in by_name.items()
    }
    for convention, by_name in diagrams.items()
  }
  return to_json(tree)[0]


def metrics_tree(
  results: Results,
  *,
  variables: Sequence[str],
  lead_times: Sequence,
  units: Mapping[str, str] | None = None,
  about: Mapping[str, Any] | None = None,
  diagrams: Mapping[str, Diagrams] | None = None,
  observed: np.ndarray | None = None,
  constant: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns the content of metrics.json.

  Of several variables, "overall_is_over" names those that "overall" and "by_lead"
  are taken over. The forecast's scores are {convention: {score: {"overall",
  "by_variable": {name: x}, "by_lead": [T], "by_lead_and_variable": {name:
  [T]}}}}. Those of
  every other source have the same form under "baselines". Beside them are
  "variables" with their units, "lead_times" as labels, "notes" on every null of
  a score, "reasons" with a sentence on why it is one by the null's path, such as
  "physical/rmse/by_variable/rain", and "diagrams" (see `diagrams_tree`) if there are
  any.

  Args:
    results: the scores by source, of which "forecast" must be one.
    variables: [C] names.
    lead_times: [T] timedelta64 or steps.
    units: units by variable.
    about: further plain values (number of samples, split, step, ...).
    diagrams: the forecast's diagrams by convention.
    observed: [T, C] numbers of observations; None knows of none that are missing.
    constant: variables with one value only in the training split.
  """

  def conventions(scores):
    return {
      convention: {
        name: _score_tree(score, variables) for name, score in by_name.items()
      }
      for convention, by_name in scores.items()
    }

  over = pooled_over({name: (units or {}).get(name, "") for name in variables})
  tree = {
    "about": dict(about or {}),
    **({"overall_is_over": over} if len(variables) > 1 else {}),
    "variables": {name: (units or {}).get(name, "") for name in variables},
    "lead_times": lead_labels(lead_times),
    **conventions(results[FORECAST]),
    "baselines": {
      source: conventions(scores)
      for source, scores in results.items()
      if source != FORECAST
    },
  }
  tree, notes = to_json(tree)
  if diagrams:
    tree["diagrams"] = diagrams_tree(diagrams, variables=variables)
  if observed is None:
    observed = np.ones((len(lead_times), len(variables)))
  why = functools.partial(
    _reason, variables=list(variables), observed=observed, constant=constant
  )
  return tree | {"notes": notes, "reasons": dict(map(why, notes))}


_WHERE = re.compile(
  r"/(?P<name>[^/]+)/(?P<pooling>overall|by_lead|by_variable|by_lead_and_variable)"
  r"(/(?P<variable>.+?))?(\[(?P<lead>\d+)\])?$"
)


def _reason(
  note: str, variables: list[str], observed: np.ndarray, constant: Sequence[str]
) -> tuple[str, str]:
  """The path of a null, out of its note, and why it is one."""
  path, _, value = note.rpartition(" is ")
  found = _WHERE.search(path)
  place = found.groupdict() if found else {"name": path}
  chosen, lead = variables, place.get("lead")
  if place.get("variable") in variables:
    chosen = [place["variable"]]
  # What is not by lead time is of all of them.
  rows = slice(None) if lead is None else slice(int(lead), int(lead) + 1)
  counts = {name: observed[rows, variables.index(name)].sum() for name in chosen}
  without = [name for name, count in counts.items() if not count]
  at = "" if lead is None else f" at lead time {int(lead) + 1}"
  ranged = [name for name in chosen if name in constant]
  if without and len(without) == len(chosen):
    return path, f"There is no observation of {', '.join(without)}{at} in this split."
  if without:
    return path, (
      f"It is over all variables, but there is no observation of {', '.join(without)}"
      f"{at} in this split."
    )
  if ranged and re.match("psnr|ssim", place["name"]):
    return path, (
      f"It refers to the range of the training split, in which {', '.join(ranged)} has "
      "one value only; set evaluation.data_range."
    )
  if "inf" in value:
    return path, (
      "It is without bound: what it divides by, or takes the logarithm of, is 0, such "
      "as the error of an exact forecast or the power of a constant field."
    )
  return path, (
    "It is 0/0: what it divides by is 0, such as the number of events that occur or "
    "the variability of a constant field."
  )


def write_metrics(path: str | os.PathLike, tree: Mapping[str, Any]) -> None:
  """Writes metrics.json with the content of `metrics_tree`."""
  files.write_atomically(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")


def lead_time_rows(
  results: Results,
  *,
  variables: Sequence[str],
  lead_times: Sequence,
  units: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
  """Returns one row for every source, variable and lead time.

  The columns are source, variable, step (1 is the first forecast frame),
  lead_time, and "<convention>/<score>" for every score. The forecast comes first.
  If there are several variables, rows of the variable "all" hold scores that are
  pooled over them; if these have different units, its name lists them, such as
  "all: t (K), u (m s-1)". A score without values by variable is empty in the
  other rows.

  Args:
    results: the scores by source.
    variables: [C] names.
    lead_times: [T] timedelta64 or steps.
    units: units by variable.
  """
  labels = lead_labels(lead_times)
  name = f"{_ALL}: {pooled_over(units)}" if units and mixed(units) else _ALL
  pooled = [(name, None)] if len(variables) > 1 else []
  rows = []
  for source, conventions in ordered(results).items():
    for variable, channel in [*((v, i) for i, v in enumerate(variables)), *pooled]:
      for lead, label in enumerate(labels):
        row = {
          "source": source,
          "variable": variable,
          "step": lead + 1,
          "lead_time": label,
        }
        for convention, scores in conventions.items():
          for name, score in scores.items():
            values = score.by_lead
            if channel is not None and score.by_lead_and_variable is not None:
              values = score.by_lead_and_variable[:, channel]
            elif channel is not None and len(variables) > 1:
              values = None
            row[f"{convention}/{name}"] = "" if values is None else float(values[lead])
        rows.append(row)
  return rows


def write_lead_times(
  path: str | os.PathLike,
  results: Results,
  *,
  variables: Sequence[str],
  lead_times: Sequence,
  units: Mapping[str, str] | None = None,
) -> None:
  """Writes lead_time.csv with the rows of `lead_time_rows`."""
  rows = lead_time_rows(
    results, variables=variables, lead_times=lead_times, units=units
  )
  text = io.StringIO()
  # A forecast may have scores that the other sources do not have.
  columns = dict.fromkeys(name for row in rows for name in row)
  table = csv.DictWriter(text, list(columns), lineterminator="\n", restval="")
  table.writeheader()
  for row in rows:
    # Only NaN differs from itself; metrics.json says why there is no score.
    table.writerow({key: "" if x != x else x for key, x in row.items()})
  files.write_atomically(path, text.getvalue())


def _cell(value: float) -> str:
  return "none" if math.isnan(value) else f"{value:.5g}"


def console_table(
  results: Results, title: str = "", units: Mapping[str, str] | None = None
) -> str:
  """Returns overall scores as text, with a row a score and a column a source.

  The forecast is the first column. Variables of different units have a row each,
  and a last line says what the scores of several variables are taken over. The
  scores "..._spatialnorm" are left out: they are others times a constant.

  Args:
    results: the scores by source.
    title: line above the table.
    units: units by variable, in the order of the data.
  """
  results, units = ordered(results), dict(units or {})
  apart = units if len(units) > 1 and mixed(units) else {}
  sources = list(results)
  rows, together = [["", *sources]], False
  for convention, scores in results[FORECAST].items():
    for name, score in scores.items():
      if name.endswith(_REPEATED):
        continue
      found = [results[s].get(convention, {}).get(name) for s in sources]
      if apart and score.by_variable is not None:
        lines = [
          (
            f"{convention} {name} {variable}",
            [None if c is None else c.by_variable[channel] for c in found],
          )
          for channel, variable in enumerate(apart)
        ]
      else:
        values = [None if c is None else c.overall for c in found]
        lines = [(f"{convention} {name}", values)]
        together = True
      rows += [
        [label] + ["" if v is None else _cell(float(v)) for v in values]
        for label, values in lines
      ]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = [
    "  ".join(
      [row[0].ljust(widths[0])]
      + [x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True)]
    ).rstrip()
    for row in rows
  ]
  lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
  if apart:
    lines.append(f"Units: {pooled_over(apart)}.")
  if together and len(units) > 1:
    rest = "Scores without a variable's name" if apart else "Scores"
    lines.append(f"{rest} are taken over {pooled_over(units)} together.")
  return "\n".join(([title] if title else []) + lines)
