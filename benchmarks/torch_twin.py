"""SimVP and its train step in torch, to compare with.

Written from the published description (Gao et al. 2022; Tan et al. 2022). The
names in the state_dict are those of OpenSTL, so that published weights load.
"""

import collections

import torch
from torch import nn
from torch.nn import functional

from benchmarks import torch_blocks


class SampledConv(nn.Module):
  """3x3 convolution that may halve or double the grid, GroupNorm(2), SiLU."""

  def __init__(
    self, c_in: int, c_out: int, padding_mode: str, up: bool = False, down: bool = False
  ):
    super().__init__()
    conv = nn.Conv2d(
      c_in,
      c_out * (4 if up else 1),
      3,
      stride=2 if down else 1,
      padding=1,
      padding_mode=padding_mode,
    )
    nn.init.trunc_normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)
    layers = dict(
      conv=nn.Sequential(conv, nn.PixelShuffle(2)) if up else conv,
      norm=nn.GroupNorm(2, c_out),
    )
    self.conv = nn.Sequential(collections.OrderedDict(layers))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return functional.silu(self.conv(x))


class ResizedBlock(nn.Module):
  """A block, then a 1x1 convolution where the width changes."""

  def __init__(self, block: nn.Module, c_in: int, c_out: int):
    super().__init__()
    self.block = block
    if c_in != c_out:
      self.reduction = nn.Conv2d(c_in, c_out, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.block(x)
    return self.reduction(x) if hasattr(self, "reduction") else x


class SimVP(nn.Module):
  """Forecasts as many frames as it is shown; [B, T, C, H, W] to the same.

  Args:
    frames: T.
    channels: C.
    spatial_features: channels of encoder and decoder (hid_S), even.
    temporal_features: width inside the translator (hid_T).
    spatial_depth: layers of encoder and of decoder (N_S), even.
    temporal_depth: blocks of the translator (N_T).
    mlp_ratio: hidden width of a block's MLP over its width.
    translator: key of `torch_blocks.BLOCKS`.
    padding_mode: "zeros" or "circular".
  """

  def __init__(
    self,
    frames: int,
    channels: int,
    spatial_features: int = 64,
    temporal_features: int = 512,
    spatial_depth: int = 4,
    temporal_depth: int = 8,
    mlp_ratio: float = 8.0,
    translator: str = "gsta",
    padding_mode: str = "zeros",
  ):
    super().__init__()
    s = spatial_features
    halves = [i % 2 == 1 for i in range(spatial_depth)]
    self.enc = nn.ModuleDict()
    self.enc["enc"] = nn.ModuleList(
      SampledConv(s if i else channels, s, padding_mode, down=half)
      for i, half in enumerate(halves)
    )
    inner = [temporal_features] * (temporal_depth - 1)
    widths = [frames * s, *inner, frames * s]
    self.hid = nn.ModuleDict()
    self.hid["enc"] = nn.ModuleList()
    for i, (c_in, c_out) in enumerate(zip(widths, widths[1:], strict=False)):
      hidden = int(mlp_ratio * c_in)
      block = torch_blocks.BLOCKS[translator](
        i, c_in != c_out, c_in, hidden, padding_mode
      )
      self.hid["enc"].append(ResizedBlock(block, c_in, c_out))
    self.dec = nn.ModuleDict()
    self.dec["dec"] = nn.ModuleList(
      SampledConv(s, s, padding_mode, up=half) for half in halves[::-1]
    )
    self.dec["readout"] = nn.Conv2d(s, channels, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    b, t = x.shape[:2]
    first, *others = self.enc["enc"]
    skip = first(x.flatten(0, 1))
    latent = skip
    for layer in others:
      latent = layer(latent)
    n, s, h, w = latent.shape
    folded = latent.reshape(b, t * s, h, w)
    for block in self.hid["enc"]:
      folded = block(folded)
    y = folded.reshape(n, s, h, w)
    *others, last = self.dec["dec"]
    for layer in others:
      y = layer(y)
    y = self.dec["readout"](last(y + skip))
    return y.reshape(b, t, *y.shape[1:])


def train_step(
  network: nn.Module,
  optimiser: torch.optim.Optimizer,
  inputs: torch.Tensor,
  targets: torch.Tensor,
  precision: torch.dtype = torch.float32,
  clip_norm: float = 0.0,
) -> torch.Tensor:
  """One update by the mean squared error.

  Args:
    network: maps inputs to forecasts; train mode.
    optimiser: of the network's parameters.
    inputs: [B, T, C, H, W].
    targets: the same shape.
    precision: torch.bfloat16 turns on autocast.
    clip_norm: the gradients are scaled to this global norm; 0 leaves them.

  Returns:
    The loss before the update, on the device.
  """
  optimiser.zero_grad(set_to_none=True)
  lower = precision != torch.float32
  with torch.autocast(inputs.device.type, precision, enabled=lower):
    loss = functional.mse_loss(network(inputs).float(), targets)
  loss.backward()
  if clip_norm:
    nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
  optimiser.step()
  return loss.detach()
