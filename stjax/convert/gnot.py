"""The names of GNOT's weights in torch and here."""

from stjax.convert.layout import LAYER, NORM
from stjax.convert.mapping import Entry, NameMap, entries
from stjax.models.gnot import GNOT

MLP = (
  ("linear_pre", "first", LAYER),
  ("linears.{j}", "middle_{j}", LAYER),
  ("linear_post", "last", LAYER),
)
BLOCK = (
  *((f"ln{i}", f"norm_{i}", NORM) for i in (1, 3, 4, 5)),
  ("ln2_branch.{j}", "norm_branch_{j}", NORM),
  ("crossattn.query", "cross_attention/query", LAYER),
  ("crossattn.keys.{j}", "cross_attention/key_{j}", LAYER),
  ("crossattn.values.{j}", "cross_attention/value_{j}", LAYER),
  ("crossattn.proj", "cross_attention/project", LAYER),
  ("selfattn.query", "self_attention/query", LAYER),
  ("selfattn.key", "self_attention/key_0", LAYER),
  ("selfattn.value", "self_attention/value_0", LAYER),
  ("selfattn.proj", "self_attention/project", LAYER),
  # An activation, which has no weights, has every second number.
  *((f"gatenet.{2 * i}", f"gate/layer_{i}", LAYER) for i in range(3)),
  *(
    (f"moe_mlp{n}.{{j}}.{2 * i}", f"{name}_expert_{{j}}/layer_{i}", LAYER)
    for n, name in ((1, "first"), (2, "second"))
    for i in range(2)
  ),
)


def name_map(network: GNOT) -> NameMap:
  """Maps the names of a GNOT of any depth."""
  del network
  core: list[Entry] = [
    *entries("trunk_mlp.", "points/", MLP),
    *entries("branch_mlps.{i}.", "branch_{i}/", MLP),
    *entries("blocks.{i}.", "block_{i}/", BLOCK),
    *entries("out_mlp.", "readout/", MLP),
  ]
  return NameMap(entries("", "core/", core))
