"""How the frames of a window become channels, and back."""

import einops
import jax


def fold_frames(x: jax.Array) -> jax.Array:
  """Maps [B, T, H, W, C] to [B, H, W, T C], the channel innermost."""
  return einops.rearrange(x, "b t h w c -> b h w (t c)")


def unfold_frames(x: jax.Array, frames: int) -> jax.Array:
  """Maps [B, H, W, T C] to [B, T, H, W, C]; undoes `fold_frames`."""
  return einops.rearrange(x, "b h w (t c) -> b t h w c", t=frames)
