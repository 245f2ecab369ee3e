"""Text files that list what belongs to each split, one name a line."""

from collections.abc import Mapping

from input_pipeline import errors
from input_pipeline.stores import base


def read(lists: Mapping[str, str]) -> dict[str, str]:
  """The split of each name that is listed.

  A line holds a name and perhaps more after a comma, such as "20090328, 0.31";
  empty lines and what follows a "#" are left out.

  Args:
    lists: the file of each split; "" for none.

  Returns:
    Names with their splits, in the order of the files and lines.

  Raises:
    DataError: if a file cannot be read or is empty, or a name is in two lines.
  """
  found = {}
  for split, path in lists.items():
    if not path:
      continue
    path = base.existing_path(path)
    try:
      with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise errors.DataError(
        f"{path} (data.{split}_list) is no readable text file ({error}). Expected "
        "one name a line; a pickled list is not read, so write it as text once."
      ) from error
    names = [line.partition("#")[0].partition(",")[0].strip() for line in lines]
    names = [name for name in names if name]
    if not names:
      raise errors.DataError(f"{path} (data.{split}_list) names nothing.")
    for name in names:
      if name in found:
        raise errors.DataError(
          f"{path} (data.{split}_list) names {name!r}, which is already listed for "
          f"the {found[name]} split. Expected every name once."
        )
      found[name] = split
  return found
