"""STID within a diffusion model, as CoST (arXiv 2502.11013) uses it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stjax.errors import NetworkError
from stjax.models.denoisers import common as denoisers
from stjax.models.denoisers.common import dense
from stjax.models.layers.folding import fold_frames, unfold_frames
from stjax.models.stid import NodeNetwork


class STIDDenoiser(denoisers.Denoiser, NodeNetwork):
  """Predicts a diffusion's noise from each node's own window.

  See `NodeNetwork` for the options that it shares with `STID`. The time is
  that of the window's last frame.

  Attributes:
    num_steps: steps of the diffusion, rows of the table of sines.
    step_dim: columns of that table and width of the layers behind it.
    step_table: "exact", or "float32" for CoST's released weights; see
      `denoisers.step_table`.
    full_window: the released layout: the window's T_in + T_out frames, each
      with the channels of [history | prior_shift] and those of [0 | noisy], and as
      many frames out, of which the last T_out are the prediction. Otherwise
      the features are those of history, prior_shift and noisy, one after the other,
      and only the prediction is computed.
  """

  embed_dim: int = 128
  num_layers: int = 8
  num_steps: int = 50
  step_dim: int = 128
  step_table: str = "exact"
  full_window: bool = False

  def __post_init__(self):
    if self.num_steps < 1:
      raise NetworkError(f"model.num_steps is {self.num_steps}; expected at least 1")
    denoisers.step_table(1, self.step_dim, self.step_table)
    super().__post_init__()

  def _first(self, in_features: int) -> denoisers.SplitLayer:
    """The layer from a node's window to `embed_dim` features."""
    return denoisers.SplitLayer(
      self.embed_dim, in_features, dtype=jnp.dtype(self.dtype), name="window"
    )

  def _rows(self, history_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which features of the window are the history's, and which come later.

    Those of prior_shift come before those of the noisy frames.
    """
    t_in, _, _, c = history_shape
    if self.full_window:
      frames = t_in + self.horizon
      known, unknown = np.arange(frames * 2 * c).reshape(frames, 2, c).swapaxes(0, 1)
      later = np.append(known[t_in:], unknown[t_in:])
      return known[:t_in].ravel(), later
    return np.split(np.arange((t_in + 2 * self.horizon) * c), [t_in * c])

  def _in_features(self, history_shape: tuple[int, ...]) -> int:
    t_in, _, _, c = history_shape
    return (t_in + 2 * self.horizon + self.full_window * t_in) * c

  def _step(self, step: jax.Array) -> jax.Array:
    """Features [B, 1, 1, embed_dim] of a step [B]; NaN for one without a row."""
    dtype = jnp.dtype(self.dtype)
    table = denoisers.step_table(self.num_steps, self.step_dim, self.step_table)
    sinusoids = (
      jnp.asarray(table)
      .at[step]
      .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    )
    x = denoisers.StepEmbedding(dtype, name="step")(sinusoids)
    x = dense(self.embed_dim, self.step_dim, dtype, name="step_readout")(x)
    return x[:, None, None]

  @nn.compact
  def encode(
    self, history: jax.Array, *, calendar: jax.Array | None = None
  ) -> denoisers.Context:
    """What the history, the node and the time contribute at every step.

    Args:
      history: [B, T_in, H, W, C], normalised.
      calendar: [B, T_in + T_out, K] integers, columns as `calendar_names`.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    denoisers.check_history(history)
    shape, frames = history.shape[1:], history.shape[1] + self.horizon
    if calendar is not None and self.calendar_names:
      if calendar.ndim != 3 or calendar.shape[1] != frames:
        raise NetworkError(
          f"the calendar has shape {calendar.shape}; expected [B, {frames}, "
          f"{len(self.calendar_sizes)}]: all frames of history and horizon, "
          "columns as model.calendar_names and data.calendar"
        )
    x = self._first(self._in_features(shape))(
      fold_frames(history), self._rows(shape)[0], use_bias=True
    )
    last = self.calendar_at(calendar, frames - 1)
    return denoisers.Context((x, self.identity(x.shape[:3], last)), shape)

  @nn.compact
  def denoise(
    self,
    noisy: jax.Array,
    step: jax.Array,
    context: denoisers.Context,
    prior_shift: jax.Array,
    train: bool = False,
  ) -> jax.Array:
    """Predicts what the diffusion is parameterised by, e.g. the noise.

    Args:
      noisy: [B, T_out, H, W, C] noisy residual.
      step: [B] (or []) integers, 0 .. num_steps - 1.
      context: of `encode`.
      prior_shift: [B, T_out, H, W, C], what the diffusion is shifted by; 0: nothing.
      train: use dropout (random stream "dropout").

    Returns:
      [B, T_out, H, W, C] float32.

    Raises:
      NetworkError: a shape that the network cannot take.
    """
    shape = context.history_shape
    step = denoisers.check_inputs(noisy, step, shape, prior_shift, self.horizon)
    x, identity = context.arrays
    later = jnp.concatenate([fold_frames(prior_shift), fold_frames(noisy)], axis=-1)
    x += self._first(self._in_features(shape))(
      later, self._rows(shape)[1], use_bias=False
    )
    frames = self.horizon + self.full_window * shape[0]
    y = self.decode(x + self._step(step), identity, frames * shape[-1], train)
    return unfold_frames(y, frames)[:, -self.horizon :]

  @nn.compact
  def window(
    self,
    x: jax.Array,
    step: jax.Array,
    out_features: int,
    train: bool = False,
    *,
    calendar: jax.Array | None = None,
  ) -> jax.Array:
    """The network on all features of each node's window at once.

    Args:
      x: [B, H, W, F].
      step: [B] integers.
      out_features: F_out.
      train: use dropout.
      calendar: [B, T_in + T_out, K] integers.

    Returns:
      [B, H, W, F_out] float32.
    """
    last = None if calendar is None else calendar.shape[1] - 1
    identity = self.identity(x.shape[:3], self.calendar_at(calendar, last))
    x = self._first(x.shape[-1])(x, slice(None), use_bias=True)
    return self.decode(x + self._step(step), identity, out_features, train)
