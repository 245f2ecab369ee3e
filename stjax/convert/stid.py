"""The names of the weights of CoST's two networks in torch and here."""

import numpy as np
from flax import linen as nn

from stjax.convert.layout import EMBEDDING, LAYER, PARAMETER, POINTWISE, unread_layout
from stjax.convert.mapping import Entry, NameMap
from stjax.errors import ConvertError

# The original's tables, in its order, and the calendar columns they are for.
TABLES = {
  "time_in_day_emb": ("slot_of_day", "hour_of_day"),
  "day_in_week_emb": ("day_of_week", "month"),
}
# The denoiser's wrapper puts this in front of its names.
DENOISER = "diffmodel."
# The wrapper holds a table of this many columns that nothing reads.
UNREAD_COLUMNS = 16


def table_names(calendar_names: tuple[str, ...]) -> dict[str, str]:
  """Finds the original's table of each column of a calendar.

  Raises:
    ConvertError: a column that the original has no table for, or columns in
      another order than its features.
  """
  tables = {column: table for table, columns in TABLES.items() for column in columns}
  found = {name: tables.get(name) for name in calendar_names}
  known = [table for table in TABLES if table in found.values()]
  if list(found.values()) != known:
    raise ConvertError(
      f"model.calendar_names is {calendar_names}; these weights have tables "
      "for "
      + ", then for ".join(" or ".join(columns) for columns in TABLES.values())
      + ", each at most once and in this order: change it and data.calendar"
    )
  return found


def _node_network(calendar_names: tuple[str, ...]) -> list[Entry]:
  return [
    Entry("node_emb", "node_embedding", PARAMETER),
    *(
      Entry(table, f"{name}_embedding", PARAMETER)
      for name, table in table_names(calendar_names).items()
    ),
    Entry("time_series_emb_layer", "window", POINTWISE),
    Entry("encoder.{i}.fc1", "block_{i}/expand", POINTWISE),
    Entry("encoder.{i}.fc2", "block_{i}/contract", POINTWISE),
    Entry("regression_layer", "readout", POINTWISE),
  ]


def mean_names(network: nn.Module) -> NameMap:
  """Maps the names of `stjax.models.stid.STID`."""
  return NameMap(_node_network(network.calendar_names))


def denoiser_names(network: nn.Module) -> NameMap:
  """Maps the names of `stjax.models.denoisers.stid.STIDDenoiser`."""
  entries = [
    *_node_network(network.calendar_names),
    Entry("diffusion_embedding.projection1", "step/first", LAYER),
    Entry("diffusion_embedding.projection2", "step/second", LAYER),
    Entry("diffusion_projection", "step_readout", LAYER),
  ]
  return NameMap(
    [entry._replace(torch=DENOISER + entry.torch) for entry in entries]
    + [Entry("embed_layer", "embed_layer", unread_layout(EMBEDDING))]
  )


def denoiser_unread(
  network: nn.Module, in_shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
  """Makes zeros for the wrapper's table of nodes, which nothing reads.

  Args:
    network: any denoiser.
    in_shape: (T, H, W, C) of one input.
  """
  del network
  _, h, w, _ = in_shape
  return {"embed_layer.weight": np.zeros((h * w, UNREAD_COLUMNS), np.float32)}
