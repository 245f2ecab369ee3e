"""Networks that only SFP is compared with."""

import jax.numpy as jnp
from flax import linen as nn

from golden import originals, twins
from golden.case import Case
from golden.twins import SAME, Twin, twin
from stjax import convert, models
from stjax.models.gnot import GNOTCore


@twin("sfp", "CombinedModel")
def earthfarseer(case: Case) -> Twin:
  return twins.network(
    "earthfarseer", case, originals.earthfarseer(**case.meta["config"])
  )


class Graphs(nn.Module):
  """Graphs, each an array of points [N, F], as a batch of the core of GNOT.

  Shorter graphs are filled up with zeros. The result is that of the real points, one
  graph after the other.

  Attributes:
    core: a GNOTCore.
    count: the number of graphs, the first inputs; parameters and branches follow.
  """

  core: GNOTCore
  count: int

  def __call__(self, *inputs, train: bool = False):
    graphs, (parameters, *branches) = inputs[: self.count], inputs[self.count :]
    longest = max(map(len, graphs))
    points = jnp.stack([jnp.pad(x, ((0, longest - len(x)), (0, 0))) for x in graphs])
    y = self.core(points, branches, parameters, train)
    return jnp.concatenate([part[: len(x)] for part, x in zip(y, graphs, strict=True)])


@twin("sfp", "GNOT")
def gnot(case: Case) -> Twin:
  """The core alone: on a grid, all input functions have the same features."""
  options = originals.gnot(**case.meta["config"])
  count = sum(name.startswith("nodes") for name in case.meta["inputs"])
  names = convert.FAMILIES["gnot"].names(models.build("gnot"))
  return Twin(Graphs(GNOTCore(**options), count), names, axes=SAME)
