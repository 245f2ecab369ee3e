"""The generative world model: a vector-quantised autoencoder that imagines futures.

Sources: Wu et al. 2025 (SFP, arXiv 2510.04020); van den Oord et al. 2017 (VQ-VAE,
1711.00937).
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from stjax import errors
from stjax.methods import base, regression
from stjax.models import vq

PyTree = Any
CODEBOOK = "codebook"
_ASSIGNMENTS = ("nearest", "kth")
_INITIAL = ("data", "random")
_SKIPS = ("condition", "input")
# Draws of the skip's dropout, and of new places of dead codes.
_SKIP, _RESEED = 1, 2
_COUNTS = "code_counts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldModel(base.Method):
  """Reconstructs frames from codes, so that other codes give other futures.

  With z the latents of the frames, q_k the k-th nearest codes and s a skip,

      loss = mean (decode(q_0, s) - frames)^2
             + vq_weight commitment_cost mean (z - q_0)^2

  Gradients pass from q_0 straight to z; codes move by averages of the latents that
  are assigned to them. All T_out frames of the targets are encoded, each by itself.
  A grid that cannot be halved is padded by its last row and column.
  Latents without a point that was observed do not count.

  Attributes:
    horizon: frames T_out of the targets.
    network: network "vq".
    candidates: number K of nearest codes of a latent from which futures are made.
    commitment_cost: factor of the distance of the latents from their codes.
    vq_weight: factor of that term in the loss.
    decay: share of the moving averages that a step keeps.
    epsilon: what the averaged counts are smoothed by.
    assignment: "nearest", or "kth" to move the K-th nearest codes, as the released
      program does.
    initial: "data" for codes that are latents of the first step, "random" for normal
      numbers, as released.
    dead_below: codes with a smaller averaged count of latents are replaced by
      latents of the next step; 0 replaces none.
    skip_source: where the decoder's skip comes from: "condition", the newest frame
      of the history, as when it imagines; "input", the frame that is reconstructed,
      as released.
    skip_dropout: share of the examples that are trained without a skip, so that the
      codes must tell everything.
  """

  kind: ClassVar[str] = "reconstruction"

  horizon: int
  network: Any = None
  candidates: int = 10
  commitment_cost: float = 0.25
  vq_weight: float = 0.1
  decay: float = 0.99
  epsilon: float = 1e-5
  assignment: str = "nearest"
  initial: str = "data"
  dead_below: float = 0.5
  skip_source: str = "condition"
  skip_dropout: float = 0.1

  def __post_init__(self):
    regression.check_kind("model", self.network, "reconstructs")
    if self.network is None:
      raise errors.ConfigError(
        "model.name='none', but method 'world_model' needs the network 'vq'."
      )
    choices = {"assignment": _ASSIGNMENTS, "initial": _INITIAL, "skip_source": _SKIPS}
    for name, known in choices.items():
      errors.pick(f"method.{name}", getattr(self, name), dict.fromkeys(known))
    if not 1 <= self.candidates <= self.network.codes:
      raise errors.ConfigError(
        f"method.candidates={self.candidates} must be from 1 to model.codes="
        f"{self.network.codes}: each is made of another code."
      )
    for name, highest in (("decay", 1.0), ("skip_dropout", 1.0)):
      if not 0 <= getattr(self, name) < highest:
        raise errors.ConfigError(
          f"method.{name}={getattr(self, name)} must be in [0, 1)."
        )
    for name in ("commitment_cost", "vq_weight", "epsilon", "dead_below"):
      # Written so that NaN fails too.
      if not 0 <= getattr(self, name) < float("inf"):
        raise errors.ConfigError(
          f"method.{name}={getattr(self, name)} must be 0 or more."
        )

  def for_horizon(self, horizon: int) -> "WorldModel":
    # Each frame is encoded and decoded by itself.
    return dataclasses.replace(self, horizon=horizon)

  def init(self, key: jax.Array, batch: base.Batch) -> base.Variables:
    variables = dict(self.network.init(key, self._padded(batch["inputs"][:, -1:])))
    if self.initial == "data":
      # Without counts all codes are dead, so that the first step places them.
      book = variables[CODEBOOK]
      variables[CODEBOOK] = jax.tree.map(jnp.zeros_like, book)
    return variables

  def _call(self, variables, method, *arguments):
    return self.network.apply(variables, *arguments, method=method)

  def _encode(self, variables, frames):
    """Latents and skips of frames, whose grid is padded to what can be halved."""
    return self._call(variables, "encode", self._padded(frames))

  def _padded(self, frames: jax.Array) -> jax.Array:
    more = [(0, -size % self.network.factor) for size in frames.shape[2:4]]
    return jnp.pad(frames, ((0, 0), (0, 0), *more, (0, 0)), mode="edge")

  def _decode(self, variables, latents, skip, grid):
    """Frames [K, B, T, H, W, C] of quantised latents, on a grid of (H, W)."""
    made = self._call(variables, "decode", latents, skip)
    return made[:, :, :, : grid[0], : grid[1]]

  def _skip(self, variables, batch, frames_skip):
    """The skip [B, T or 1, H, W, D] of a batch."""
    if self.skip_source == "input":
      return frames_skip
    return self._encode(variables, batch["inputs"][:, -1:])[1]

  def loss(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, base.Outputs]:
    del frozen
    frames = batch["targets"][:, : self.horizon].astype(jnp.float32)
    weight = jnp.broadcast_to(regression.example_weights(batch, frames), frames.shape)
    latents, frames_skip = self._encode(variables, frames)
    cells = self._cells(weight)
    book = jax.lax.stop_gradient(vq.Codebook(**variables[CODEBOOK]))
    if train:
      book = self._placed(book, latents, cells, jax.random.fold_in(key, _RESEED))
    skip = self._skip(variables, batch, frames_skip)
    if train and self.skip_dropout:
      keep = self._keep(batch, jax.random.fold_in(key, _SKIP))
      skip = jnp.where(keep[:, None, None, None, None], skip, 0)
    several = self.assignment == "kth" and train
    numbers = vq.nearest_codes(
      jax.lax.stop_gradient(latents), book.embedding, self.candidates if several else 1
    )
    codes = book.embedding[numbers[..., 0]]
    straight = vq.straight_through(latents, codes)
    made = self._decode(variables, straight[None], skip, frames.shape[2:4])[0]
    count = weight.sum()
    error = (weight * jnp.square(made - frames)).sum() / jnp.where(count > 0, count, 1)
    distance = jnp.square(codes - latents).mean(-1)
    distance = (cells * distance).sum() / jnp.maximum(cells.sum(), 1)
    loss = error + self.vq_weight * self.commitment_cost * distance

    def assigned(which):
      fold = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
      return vq.assignments(
        jax.lax.stop_gradient(fold(latents)),
        fold(numbers[..., which]),
        fold(cells),
        self.network.codes,
      )

    counts, sums = assigned(-1)
    scalars = {"reconstruction_error": error, "commitment": distance}
    if not train:
      scores = self._scores(variables, batch, frames, weight, latents, error, skip)
      scores[f"reconstruction/{_COUNTS}"] = counts, counts.sum()
      return loss, base.Outputs(scalars, {}, count, scores=scores)
    nearest = assigned(0)[0] if several else counts
    scalars["perplexity"] = vq.perplexity(nearest)
    summed = {"counts": counts, "sums": sums}
    collections = {CODEBOOK: book._asdict()}
    return loss, base.Outputs(scalars, collections, count, summed)

  def _cells(self, weight: jax.Array) -> jax.Array:
    """Which latents [B, T, h, w] have a point that counts, of weights of points."""
    counted = self._padded((weight > 0).any(-1, keepdims=True))
    *front, height, width, _ = counted.shape
    side = self.network.factor
    blocks = counted.reshape(*front, height // side, side, width // side, side)
    return blocks.any((-3, -1))

  def _placed(self, book, latents, cells, key) -> vq.Codebook:
    """The codebook with dead codes where latents are."""
    dead = book.counts < self.dead_below
    if self.initial == "data":
      # At first, and only then, no code has a count.
      dead |= book.counts.sum() == 0
    elif not self.dead_below:
      return book
    else:
      dead &= book.counts.sum() > 0
    frames, cells = (x.reshape(-1, *x.shape[2:]) for x in (latents, cells))
    return vq.reseed(book, dead, jax.lax.stop_gradient(frames), cells, key)

  def _keep(self, batch, key) -> jax.Array:
    """Whether each example [B] is given its skip in training."""
    keys = base.example_keys(key, batch["index"])
    share = jax.vmap(jax.random.uniform)(keys)
    return share >= self.skip_dropout

  def update(
    self, collections: dict[str, PyTree], summed: dict[str, PyTree]
  ) -> dict[str, PyTree]:
    book = vq.moving_average(
      vq.Codebook(**collections[CODEBOOK]),
      summed["counts"],
      summed["sums"],
      self.decay,
      self.epsilon,
    )
    return collections | {CODEBOOK: book._asdict()}

  def _scores(self, variables, batch, frames, weight, latents, error, skip):
    """Sums and weights of the convention "reconstruction"; see docs/sfp.md."""
    count = weight.sum()

    def mean(values):
      return (weight * values).sum(), count

    grid = frames.shape[2:4]
    candidates = self._decoded(variables, latents, skip, self.candidates, grid)
    blank = self._decode(variables, jnp.zeros_like(latents)[None], skip, grid)[0]
    scores = {
      "error": (error * count, count),
      "error_without_latent": mean(jnp.square(blank - frames)),
    }
    for rank in range(1, self.candidates):
      apart = jnp.square(candidates[rank] - candidates[0])
      scores[f"spread_rank_{rank}"] = mean(apart)
    return {f"reconstruction/{name}": terms for name, terms in scores.items()}

  def own_scores(self, totals: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    totals = dict(totals)
    share, weight = totals.pop(f"reconstruction/{_COUNTS}")
    scores = super().own_scores(totals)
    # They are squares until the whole split is summed.
    for name in scores:
      if "spread" in name:
        scores[name] = scores[name] ** 0.5
    share = share / weight
    entropy = -(share * jnp.log(jnp.maximum(share, 1e-30))).sum()
    return scores | {
      "reconstruction/codes_in_use": (share > 0).sum(),
      "reconstruction/perplexity": jnp.exp(entropy),
    }

  def _decoded(self, variables, latents, skip, count, grid) -> jax.Array:
    """The futures [K, B, T, H, W, C] of the nearest codes of latents."""
    codes = self._call(variables, "quantise", latents, count)
    return self._decode(variables, codes, skip, grid)

  def imagine(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    action: jax.Array,
    key: jax.Array,
    count: int,
    latent: bool = False,
  ) -> jax.Array:
    """Imagines futures of a history.

    Rank k takes the k-th nearest code everywhere. The skip is that of the newest
    frame of the history, of which the candidates share one computation.

    Args:
      variables: of the world model.
      frozen: what it reads; nothing.
      batch: its "inputs" [B, T_in, H, W, C] are the history.
      action: what the futures are near to: frames [B, T, H, W, C], which are
        encoded, or latents [B, T, h, w, D].
      key: random key; nothing is random here.
      count: number K of futures.
      latent: whether the action is latents.

    Returns:
      [K, B, T, H, W, C], normalised, the nearest one first.
    """
    del frozen, key
    history = batch["inputs"]
    skip = self._encode(variables, history[:, -1:])[1]
    if not latent:
      action = self._encode(variables, action)[0]
    return self._decoded(variables, action, skip, count, history.shape[2:4])

  def decode_latents(
    self, variables: base.Variables, history: jax.Array, latents: jax.Array
  ) -> jax.Array:
    """Decodes the nearest codes of latents, and passes gradients on to these.

    Args:
      variables: of the world model.
      history: [B, T_in, H, W, C], whose newest frame gives the skip.
      latents: [B, T, h, w, D].

    Returns:
      [B, T, H, W, C], normalised.
    """
    skip = self._encode(variables, history[:, -1:])[1]
    codes = self._call(variables, "quantise", jax.lax.stop_gradient(latents), 1)
    straight = vq.straight_through(latents, codes)
    return self._decode(variables, straight, skip, history.shape[2:4])[0]

  def forecast(
    self,
    variables: base.Variables,
    frozen: PyTree,
    batch: base.Batch,
    key: jax.Array,
    members: base.Members = 1,
  ) -> jax.Array:
    """Returns reconstructions [M, B, T_out, H, W, C] of the targets.

    Member m is made of the m-th nearest codes.
    """
    del frozen, key
    number = len(base.numbers(members))
    if number > self.candidates:
      raise errors.ConfigError(
        f"forecast.members={number} is more than method.candidates={self.candidates}:"
        " members of a world model are reconstructions by further codes."
      )
    frames = batch["targets"][:, : self.horizon].astype(jnp.float32)
    latents, skip = self._encode(variables, frames)
    skip = self._skip(variables, batch, skip)
    grid = frames.shape[2:4]
    made = self._decoded(variables, latents, skip, self.candidates, grid)
    return made[base.numbers(members)]
