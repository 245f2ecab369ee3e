"""How the frames of a history go through a network of single images."""

import jax
import jax.numpy as jnp

from stjax.models.stid import fold_frames, unfold_frames

# "channels": the frames of a history are the channels of one image, and those
# of the forecast the channels of the result. "batch": every frame is an image
# of its own; frame t of the forecast is made from frame t of the history.
FRAMES = ("channels", "batch")


def to_images(x: jax.Array, frames: str) -> jax.Array:
  """Maps [B, T, H, W, C] to images [B, H, W, T C] or [B T, H, W, C]."""
  if frames == "channels":
    return fold_frames(x)
  return x.reshape(-1, *x.shape[2:])


def image_channels(x: jax.Array, frames: str, out_channels: int | None) -> int:
  """Channels of the resulting images of a history [B, T, H, W, C].

  Args:
    x: the history.
    frames: one of `FRAMES`.
    out_channels: C_out of the forecast; None means C.
  """
  out_channels = out_channels or x.shape[-1]
  return out_channels * (x.shape[1] if frames == "channels" else 1)


def from_images(y: jax.Array, frames: str, history: int) -> jax.Array:
  """Undoes `to_images` for results: [B, T, H, W, C_out] float32.

  Args:
    y: images.
    frames: one of `FRAMES`.
    history: T.
  """
  y = y.astype(jnp.float32)
  if frames == "channels":
    return unfold_frames(y, history)
  return y.reshape(-1, history, *y.shape[1:])
