"""Where the files of CoST's data sets are, if they are anywhere."""

import os
import pathlib

_TESTS = pathlib.Path(__file__).parents[1]


def find(name: str) -> pathlib.Path | None:
  """The path of a data file, None if there is no such file.

  Looks in STJAX_COST_DATA, in data/cost beside the folder STJAX_GOLDENS, in
  data/cost of the repository, and in shared/data/cost beside that.
  """
  places = []
  if folder := os.environ.get("STJAX_COST_DATA"):
    places.append(pathlib.Path(folder))
  if goldens := os.environ.get("STJAX_GOLDENS"):
    places.append(pathlib.Path(goldens).parent / "data" / "cost")
  root = _TESTS.parent
  places += [root / "data" / "cost", root.parent / "shared" / "data" / "cost"]
  paths = (place / name for place in places)
  return next((path for path in paths if path.is_file()), None)
