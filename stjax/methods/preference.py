"""Preference optimisation of a diffusion: DPO, and SPO after it.

Sources: Wallace et al. 2024 (Diffusion-DPO, arXiv 2311.12908, equation 14); Xu et al.
2025 (SynCast, 2510.21847), whose second stage takes the sequential form of Lou et al.
2025 (SPO) to diffusion losses.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stjax import errors
from stjax.diffusion import preference as losses
from stjax.methods import base
from stjax.methods.diffusion import Diffusion

PyTree = Any
REFERENCE, PREVIOUS = "reference", "previous"
# What may differ between a policy and its reference: how forecasts are drawn, and
# what only the training of the reference read.
_FREE = ("sampling", "condition_dropout", "mean_dropout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference(base.Method):
  """Trains a diffusion to prefer the chosen of two forecasts of each window.

  With e(y) a network's denoising error of the forecast y, w the chosen and l the
  rejected forecast, and one draw of noise and step for both and for all networks,

      gap = [e(w) - e(l)] - [e_ref(w) - e_ref(l)]
      loss = -log sigmoid(-beta omega gap)                                (DPO)

  With `previous`, the result of a preference before this one, gap is taken against
  it, and its own gap against the reference is a margin without gradient:

      loss = -log sigmoid(-alpha beta omega gap + beta omega gap_previous)  (SPO)

  omega is the weight of the step in the variational bound; see
  `stjax.diffusion.preference.weight_table`. The variables are those of the policy.

  Attributes:
    horizon: frames T_out to forecast.
    policy: the diffusion that is trained.
    reference: the frozen diffusion that it started from.
    previous: the frozen diffusion that the preference before this one made, for SPO.
    beta: how strongly the policy is held to the reference; above 0.
    alpha: factor of the policy's own gap in SPO; above 0.
    weight: "clean" for omega as derived, "released" for that of SynCast's code,
      whose weight of step 0 has the wrong sign.
    anchor: factor of the policy's denoising error of what was observed, which is
      added to the loss; 0 leaves it out.
  """

  part_names: ClassVar[tuple[str, ...]] = (REFERENCE, PREVIOUS)

  horizon: int
  policy: Diffusion | None = None
  reference: Diffusion | None = None
  previous: Diffusion | None = None
  beta: float = 3000.0
  alpha: float = 0.5
  weight: str = "clean"
  anchor: float = 0.0

  def __post_init__(self):
    errors.pick("method.weight", self.weight, dict.fromkeys(losses.WEIGHTS))
    for name in ("beta", "alpha"):
      # Written so that NaN fails too.
      if not 0 < getattr(self, name) < float("inf"):
        raise errors.ConfigError(
          f"method.{name}={getattr(self, name)} must be above 0: with 0 no pair counts,"
          " and below 0 the rejected forecasts would be preferred."
        )
    if not 0 <= self.anchor < float("inf"):
      raise errors.ConfigError(f"method.anchor={self.anchor} must be 0 or more.")
    if not (isinstance(self.policy, Diffusion) and self.policy.trainable):
      raise errors.ConfigError(
        "method.policy must be a diffusion that is trained, such as"
        " {'name': 'diffusion', ...}: a preference compares denoising errors, which"
        f" {type(self.policy).__name__} does not have."
      )
    for name in (REFERENCE, PREVIOUS):
      if getattr(self, name) is not None:
        self._check_same(name, getattr(self, name))

  def _check_same(self, name, other):
    """Refuses a part that is not the policy's method and network."""
    if type(other) is not type(self.policy):
      raise errors.ConfigError(
        f"frozen.{name} was trained by {type(other).__name__}, but method.policy is"
        f" {type(self.policy).__name__}: their errors cannot be compared. Give the"
        " work directory that the policy starts from."
      )
    for where, ours, theirs in _differences(self.policy, other):
      raise errors.ConfigError(
        f"frozen.{name} is not the policy's network: {where} is {ours}, but there it"
        f" is {theirs}. Use the config with which it was trained."
      )

  @property
  def forecast_parts(self):
    # The policy reads the reference's own parts and constants, if it has any.
    fixed = type(self.policy).prepare is not base.Method.prepare
    return (REFERENCE,) if self.policy.parts or fixed else ()

  @property
  def member_chunk(self) -> int:
    return self.policy.member_chunk

  def for_horizon(self, horizon):
    return self.policy.for_horizon(horizon)

  def input_channels(self, variables: int, known: int) -> int:
    return self.policy.input_channels(variables, known)

  def undefined_mask(self, batch):
    return self.policy.undefined_mask(batch)

  def check_frozen(self, frozen, fetch):
    if self.previous is None or REFERENCE not in frozen or PREVIOUS not in frozen:
      return
    ours, theirs = frozen[REFERENCE]["frozen"], frozen[PREVIOUS]["frozen"]
    same = jax.tree.map(lambda a, b: np.array_equal(fetch(a), fetch(b)), ours, theirs)
    if not all(jax.tree.leaves(same)):
      raise errors.ConfigError(
        "frozen.previous reads other frozen parts than frozen.reference, so that the"
        " two diffuse different fields. Both must come from one base run."
      )

  @functools.cached_property
  def _weights(self) -> np.ndarray:
    return losses.weight_table(self.policy.noise_schedule, self.weight)

  @staticmethod
  def _of_policy(frozen: PyTree) -> PyTree:
    return frozen[REFERENCE]["frozen"] if REFERENCE in frozen else {}

  def init(self, key, batch):
    return self.policy.init(key, batch)

  def loss(self, variables, frozen, batch, key, train):
    if not train:
      own = self._of_policy(frozen)
      loss, outputs = self.policy.loss(variables, own, batch, key, train=False)
      if "chosen" in batch and REFERENCE in frozen:
        outputs = outputs.replace(scores=self._scores(variables, frozen, batch, key))
      return loss, outputs
    if "chosen" not in batch:
      raise errors.ConfigError(
        "Method 'preference' trains on pairs: give the folder that --mode=prefer has"
        " made, WORKDIR/preferences/NAME, in data.pairs."
      )
    pair, counts, scalars = self._compare(variables, frozen, batch, key)
    outputs = base.Outputs(
      {}, {name: x for name, x in variables.items() if name != "params"}, counts.sum()
    )

    def mean(x):
      return (counts * x).sum() / jnp.maximum(counts.sum(), 1.0)

    loss = mean(pair)
    scalars = {name: mean(x) for name, x in scalars.items()}
    if self.anchor:
      draws = self._draws(batch, key)
      error, _, collections = self.policy.errors(
        variables,
        self._of_policy(frozen),
        batch,
        batch["targets"][None],
        draws,
        train=True,
        key=key,
      )
      scalars |= {"preference_loss": loss, "observed_error": mean(error[0])}
      loss += self.anchor * scalars["observed_error"]
      outputs = outputs.replace(collections=collections)
    return loss, outputs.replace(scalars=scalars)

  def _draws(self, batch, key):
    shape = batch["targets"].shape[1:]
    draws = self.policy.draw(jax.random.fold_in(key, 2), batch, shape)
    # A forecast always sees its history.
    return draws.replace(keep=jnp.ones_like(draws.keep))

  def _compare(self, variables, frozen, batch, key):
    """Compares the pairs of a batch.

    Returns:
      The loss of each pair [B]; 1 for a pair and 0 for a row without one [B]; further
      values [B] for the log.
    """
    draws = self._draws(batch, key)
    fields = jnp.stack([batch["chosen"], batch["rejected"]])

    def errors_of(variables, parts):
      # Without dropout, so that at first policy and reference are the same.
      error, weight, _ = self.policy.errors(
        variables, parts, batch, fields, draws, train=False, key=key, units="epsilon"
      )
      return error, weight

    names = [name for name in (REFERENCE, PREVIOUS) if name in self.parts]
    held = [frozen[name] for name in names]
    found = [errors_of(part["variables"], part["frozen"])[0] for part in held]
    own, weight = errors_of(variables, self._of_policy(frozen))
    reference = found[0]
    # Before the first update the policy is what it is held to. Two calls in one
    # program round differently, and beta multiplies what that leaves in the gap.
    same = _equal(variables, held[-1]["variables"])
    own += jax.lax.stop_gradient(jnp.where(same, found[-1] - own, 0.0))
    omega = jnp.asarray(self._weights, jnp.float32)[draws.step]
    if self.previous is None:
      loss, gap = losses.dpo(own, reference, omega, self.beta)
      further = {}
    else:
      loss, gap, earlier = losses.spo(
        own, found[1], reference, omega, self.beta, self.alpha
      )
      further = {"previous_gap": earlier}
    counts = (batch["paired"] & batch["valid"] & (weight > 0)).astype(jnp.float32)
    return (
      loss,
      counts,
      {
        # How often the policy prefers the chosen one more than what it is held to.
        "implicit_accuracy": (gap < 0).astype(jnp.float32),
        "margin": -self.beta * omega * gap,
        "gap": gap,
        "chosen_error": own[0],
        "rejected_error": own[1],
        "reference_chosen_error": reference[0],
        "reference_rejected_error": reference[1],
        **further,
      },
    )

  def _scores(self, variables, frozen, batch, key):
    """The implicit accuracy and the margin of held-out pairs, as sums and weights."""
    _, counts, scalars = self._compare(variables, frozen, batch, key)
    return {
      name: ((counts * scalars[name]).sum(), counts.sum())
      for name in ("implicit_accuracy", "margin")
    }

  def forecast(self, variables, frozen, batch, key, members=1):
    return self.policy.forecast(variables, self._of_policy(frozen), batch, key, members)


def _equal(ours: PyTree, theirs: PyTree) -> jax.Array:
  """Whether two trees of the same structure hold the same numbers."""
  return jnp.stack(jax.tree.leaves(jax.tree.map(jnp.array_equal, ours, theirs))).all()


def _differences(policy: Diffusion, other: Diffusion):
  """Yields (config key, value, other value) of what makes two methods differ."""
  names = [f.name for f in dataclasses.fields(policy) if f.name not in _FREE]
  for name in names:
    ours, theirs = getattr(policy, name), getattr(other, name)
    if name != "network" and ours != theirs:
      yield f"method.policy.{name}", ours, theirs
  ours, theirs = policy.network, other.network
  if type(ours) is not type(theirs):
    yield "model.name", type(ours).__name__, type(theirs).__name__
  elif ours != theirs:
    for name in (f.name for f in dataclasses.fields(ours)):
      values = getattr(ours, name), getattr(theirs, name)
      if name not in ("parent", "name") and values[0] != values[1]:
        yield f"model.{name}", *values
