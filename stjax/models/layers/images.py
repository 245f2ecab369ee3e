"""Networks of single images, and how the frames of a history go through them."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from stjax.models.layers import checks
from stjax.models.layers.folding import fold_frames, unfold_frames

# "channels": the frames of the history are the channels of one image, and
# those of the forecast are the channels of the result. "batch": every frame is
# an image of its own, and frame t of the forecast comes from frame t of the
# history alone.
FRAMES = ("channels", "batch")


class ImageNetwork(nn.Module):
  """Base of networks that map images and forecast as many frames as they see.

  Subclasses implement `map_images`, and may refuse grids in `check_grid`.

  Attributes:
    out_channels: channels of the forecast; None means those of the input.
    frames: "channels" or "batch"; see `FRAMES`.
    dtype: compute dtype; parameters and the result stay float32.
  """

  out_channels: int | None = None
  frames: str = "channels"
  dtype: str | jnp.dtype = "float32"

  def __post_init__(self):
    checks.at_least(self, out_channels=1)
    checks.one_of(self, "frames", FRAMES)
    super().__post_init__()

  def check_grid(self, h: int, w: int) -> None:
    """Raises NetworkError for an h x w grid that the network cannot take."""

  def map_images(self, x: jax.Array, features: int, train: bool) -> jax.Array:
    """Maps images [N, H, W, C] in the compute dtype to [N, H, W, features]."""
    raise NotImplementedError

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Forecasts the frames that follow.

    Args:
      x: [B, T, H, W, C] history, normalised.
      train: whether to normalise by the batch's own statistics, and to use
        dropout and stochastic depth (random stream "dropout"); this concerns
        the networks that have them.

    Returns:
      [B, T, H, W, C_out] float32 forecast, normalised, not clipped.

    Raises:
      NetworkError: the network cannot take this shape.
    """
    checks.history(x.shape)
    _, length, *grid, channels = x.shape
    self.check_grid(*grid)
    together = self.frames == "channels"
    images = fold_frames(x) if together else x.reshape(-1, *grid, channels)
    features = (self.out_channels or channels) * (length if together else 1)
    y = self.map_images(images.astype(jnp.dtype(self.dtype)), features, train)
    y = y.astype(jnp.float32)
    if together:
      return unfold_frames(y, length)
    return y.reshape(-1, length, *y.shape[1:])


class ConvolutionalNetwork(ImageNetwork):
  """Base of the image networks whose convolutions may wrap around.

  Attributes:
    padding_mode: "zeros", or "circular" for fields that wrap around.
    remat: whether the backward pass recomputes the blocks, to save memory.
  """

  padding_mode: str = "zeros"
  remat: bool = False

  def __post_init__(self):
    checks.one_of(self, "padding_mode", checks.PADDING_MODES)
    super().__post_init__()
