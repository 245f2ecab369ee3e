"""Triton and its rollouts in torch, to compare with.

Written from a description of Wu et al. 2025, arXiv 2505.19432. The names in
the state_dict are the original's.
"""

import collections
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils import checkpoint

from benchmarks import torch_blocks
from benchmarks.torch_twin import ResizedBlock


class FirstLayer(nn.Module):
  """3x3 convolution that may halve or double the grid, norm, LeakyReLU.

  Args:
    c_in: channels of the input.
    c_out: channels of the result, even.
    sampling: "same", "down" or "up" (transposed).
  """

  def __init__(self, c_in: int, c_out: int, sampling: str = "same"):
    super().__init__()
    if sampling == "up":
      conv = nn.ConvTranspose2d(c_in, c_out, 3, 2, padding=1, output_padding=1)
    else:
      conv = nn.Conv2d(c_in, c_out, 3, 2 if sampling == "down" else 1, 1)
    # The norm's gradient needs its input, not its result.
    activation = nn.LeakyReLU(0.2, inplace=True)
    layers = dict(conv=conv, norm=nn.GroupNorm(2, c_out), act=activation)
    self.conv = nn.Sequential(collections.OrderedDict(layers))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.conv(x)


class Triton(nn.Module):
  """Forecasts as many frames as it is shown.

  Maps [B, T, C, H, W] to [B, T, C_out, H, W] in float32.

  Args:
    frames: T.
    channels: C.
    out_channels: C_out; None means C.
    spatial_features: channels of encoder and decoder.
    temporal_features: width of the core between its first and last block.
    spatial_depth: layers of encoder and of decoder; every second one halves
      the grid.
    temporal_depth: blocks of the core, at least 2.
    core_first: "attention" or "conv", as `stjax.models.triton.Triton` has it.
    mlp_ratio: hidden width of a block's MLP over its width.
    drop_path: stochastic depth rate of the last block; the first has .01.
      0 means none anywhere.
  """

  def __init__(
    self,
    frames: int,
    channels: int,
    out_channels: int | None = None,
    spatial_features: int = 256,
    temporal_features: int = 512,
    spatial_depth: int = 4,
    temporal_depth: int = 8,
    core_first: str = "attention",
    mlp_ratio: float = 4.0,
    drop_path: float = 0.1,
  ):
    super().__init__()
    s = spatial_features
    halves = [i % 2 == 1 for i in range(spatial_depth)]
    self.atmospheric_encoder = nn.ModuleDict()
    self.atmospheric_encoder["enc"] = nn.ModuleList(
      FirstLayer(s if i else channels, s, "down" if half else "same")
      for i, half in enumerate(halves)
    )
    inner = [temporal_features] * (temporal_depth - 1)
    widths = [frames * s, *inner, frames * s]
    rates = np.linspace(0.01 if drop_path else 0.0, drop_path, temporal_depth)
    self.temporal_evolution = nn.ModuleDict()
    self.temporal_evolution["enc"] = nn.ModuleList()
    for i, rate in enumerate(rates.tolist()):
      c_in, c_out = widths[i : i + 2]
      sizes = c_in, int(mlp_ratio * c_in), "zeros"
      if core_first == "conv" and (i == 0 or c_in != c_out):
        block = torch_blocks.LocalUniformerBlock(*sizes, drop_path=rate)
      else:
        block = torch_blocks.TransformerBlock(*sizes, True, drop_path=rate)
      resized = ResizedBlock(block, c_in, c_out)
      self.temporal_evolution["enc"].append(resized)
    self.atmospheric_decoder = nn.ModuleDict()
    self.atmospheric_decoder["dec"] = nn.ModuleList(
      FirstLayer(
        # The last layer reads the skip beside the rest.
        s * (1 if i < spatial_depth - 1 else 2),
        s,
        "up" if half else "same",
      )
      for i, half in enumerate(halves[::-1])
    )
    readout = nn.Conv2d(s, out_channels or channels, 1)
    self.atmospheric_decoder["readout"] = readout

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    b, t = x.shape[:2]
    first, *others = self.atmospheric_encoder["enc"]
    skip = first(x.flatten(0, 1))
    latent = skip
    for layer in others:
      latent = layer(latent)
    n, s, h, w = latent.shape
    y = latent.reshape(b, t * s, h, w)
    for block in self.temporal_evolution["enc"]:
      y = block(y)
    y = y.reshape(n, s, h, w)
    *others, last = self.atmospheric_decoder["dec"]
    for layer in others:
      y = layer(y)
    y = self.atmospheric_decoder["readout"](last(torch.cat([y, skip], 1)))
    return y.reshape(b, t, *y.shape[1:]).float()


class Rollout(nn.Module):
  """Feeds a network its own forecast; gradients flow through all of it.

  Maps [B, T, C, H, W] to [B, horizon, C, H, W].

  Args:
    network: [B, T, C, H, W] to the same shape.
    horizon: frames to forecast.
    remat: keep each block's input only and compute the rest again in the
      backward pass.
  """

  def __init__(
    self,
    network: Callable[[torch.Tensor], torch.Tensor],
    horizon: int,
    remat: bool = False,
  ):
    super().__init__()
    self.network = network
    self.horizon = horizon
    self.remat = remat

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    forecasts = []
    for _ in range(-(-self.horizon // x.shape[1])):
      if self.remat:
        x = checkpoint.checkpoint(self.network, x, use_reentrant=False)
      else:
        x = self.network(x)
      forecasts.append(x)
    return torch.cat(forecasts, 1)[:, : self.horizon]
