"""The recurrent networks and the U-Net denoiser written in torch; for tests."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def _gates(inputs, outputs, kernel, frame):
  conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
  return nn.Sequential(conv, *([nn.LayerNorm([outputs, *frame])] if frame else []))


class Cell(nn.Module):
  """A cell of either network; ConvLSTM holds two convolutions that it never uses."""

  def __init__(self, inputs, features, kernel, frame, spatiotemporal):
    super().__init__()
    self.spatiotemporal = spatiotemporal
    self.conv_x = _gates(inputs, (7 if spatiotemporal else 4) * features, kernel, frame)
    self.conv_h = _gates(features, 4 * features, kernel, frame)
    if spatiotemporal:
      self.conv_m = _gates(features, 3 * features, kernel, frame)
    self.conv_o = _gates(2 * features, features, kernel, frame)
    self.conv_last = nn.Conv2d(2 * features, features, 1, bias=False)

  def forward(self, x, h, c, m):
    if not self.spatiotemporal:
      i, f, g, o = (self.conv_x(x) + self.conv_h(h)).chunk(4, 1)
      c = f.sigmoid() * c + i.sigmoid() * g.tanh()
      return o.sigmoid() * c.tanh(), c, m
    ix, fx, gx, ixm, fxm, gxm, ox = self.conv_x(x).chunk(7, 1)
    ih, fh, gh, oh = self.conv_h(h).chunk(4, 1)
    im, fm, gm = self.conv_m(m).chunk(3, 1)
    c = (fx + fh + 1).sigmoid() * c + (ix + ih).sigmoid() * (gx + gh).tanh()
    m = (fxm + fm + 1).sigmoid() * m + (ixm + im).sigmoid() * (gxm + gm).tanh()
    both = torch.cat([c, m], 1)
    h = (ox + oh + self.conv_o(both)).sigmoid() * self.conv_last(both).tanh()
    return h, c, m


class Recurrent(nn.Module):
  """ConvLSTM or PredRNN with the names of OpenSTL."""

  def __init__(
    self, *, in_shape, horizon, features, depth, kernel_size, patch_size,
    layer_norm=False, spatiotemporal,
  ):  # fmt: skip
    super().__init__()
    _, height, width, channels = in_shape
    self.horizon, self.patch = horizon, patch_size
    self.grid = (height // patch_size, width // patch_size)
    inner = channels * patch_size**2
    frame = self.grid if layer_norm else None
    self.features = features
    self.cell_list = nn.ModuleList(
      Cell(features if i else inner, features, kernel_size, frame, spatiotemporal)
      for i in range(depth)
    )
    self.conv_last = nn.Conv2d(features, inner, 1, bias=False)

  def forward(self, x):
    """Maps [B, T, H, W, C] to [B, horizon, H, W, C]."""
    batch, history, *_, channels = x.shape
    (h, w), p = self.grid, self.patch
    x = x.reshape(batch, history, h, p, w, p, channels).permute(0, 1, 3, 5, 6, 2, 4)
    x = x.reshape(batch, history, -1, h, w)
    zeros = x.new_zeros(batch, self.features, h, w)
    states = [(zeros, zeros) for _ in self.cell_list]
    memory, forecasts = zeros, []
    for t in range(history + self.horizon - 1):
      y = x[:, t] if t < history else forecasts[-1]
      for i, cell in enumerate(self.cell_list):
        y, c, memory = cell(y, *states[i], memory)
        states[i] = (y, c)
      forecasts.append(self.conv_last(y))
    y = torch.stack(forecasts[history - 1 :], 1)
    y = y.reshape(batch, self.horizon, p, p, channels, h, w)
    return y.permute(0, 1, 5, 2, 6, 3, 4).reshape(
      batch, self.horizon, h * p, w * p, channels
    )


class Block(nn.Module):
  """A residual block of diffusers' with scale and shift by the step."""

  def __init__(self, inputs, features, step, groups):
    super().__init__()
    self.norm1 = nn.GroupNorm(groups, inputs)
    self.conv1 = nn.Conv2d(inputs, features, 3, padding=1)
    self.time_emb_proj = nn.Linear(step, 2 * features)
    self.norm2 = nn.GroupNorm(groups, features)
    self.conv2 = nn.Conv2d(features, features, 3, padding=1)
    if inputs != features:
      self.conv_shortcut = nn.Conv2d(inputs, features, 1)

  def forward(self, x, step):
    h = self.conv1(F.silu(self.norm1(x)))
    scale, shift = self.time_emb_proj(F.silu(step))[:, :, None, None].chunk(2, 1)
    h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
    return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Level(nn.Module):
  """The blocks of a level, and the convolution that leads to the next one."""

  def __init__(self, widths, features, step, groups, **samplers):
    super().__init__()
    self.resnets = nn.ModuleList(Block(w, features, step, groups) for w in widths)
    for name, conv in samplers.items():
      module = nn.Module()
      module.conv = conv
      self.add_module(name, nn.ModuleList([module]))


class UNet(nn.Module):
  """The U-Net denoiser with diffusers' names of modules."""

  def __init__(
    self, *, in_shape, horizon, features, groups, step_dim, depth=2, blocks=2
  ):
    super().__init__()
    frames, _, _, channels = in_shape
    self.horizon, self.step_dim, self.depth = horizon, step_dim, depth
    widths = [features * 2**level for level in range(depth + 1)]
    conv = lambda a, b, stride=1: nn.Conv2d(a, b, 3, stride, padding=1)
    self.conv_in = conv((frames + 2 * horizon) * channels, features)
    self.time_embedding = nn.Module()
    self.time_embedding.linear_1 = nn.Linear(step_dim, step_dim)
    self.time_embedding.linear_2 = nn.Linear(step_dim, step_dim)
    self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
    for level, width in enumerate(widths):
      samplers = {}
      if level < depth:
        samplers["downsamplers"] = conv(width, 2 * width, 2)
      self.down_blocks.append(
        Level([width] * blocks, width, step_dim, groups, **samplers)
      )
    for width in widths[-2::-1]:
      inputs = [2 * width, *[width] * (blocks - 1)]
      up = conv(2 * width, width)
      self.up_blocks.append(Level(inputs, width, step_dim, groups, upsamplers=up))
    self.conv_norm_out = nn.GroupNorm(groups, features)
    self.conv_out = conv(features, horizon * channels)

  def forward(self, noisy, step, history, prior_shift):
    """Arrays [B, T, H, W, C] and step [B] give [B, horizon, H, W, C]."""
    batch, _, height, width, channels = history.shape
    fold = lambda x: x.permute(0, 1, 4, 2, 3).reshape(batch, -1, height, width)
    half = self.step_dim // 2
    angles = step[:, None] * torch.exp(
      -math.log(1e4) * torch.arange(half, dtype=torch.float64) / (half - 1)
    )
    s = torch.cat([angles.sin(), angles.cos()], 1).float()
    s = self.time_embedding.linear_1(s)
    s = self.time_embedding.linear_2(F.silu(s))
    x = self.conv_in(torch.cat([fold(noisy), fold(history), fold(prior_shift)], 1))
    skips = []
    for level in self.down_blocks:
      for block in level.resnets:
        x = block(x, s)
      skips.append(x)
      if hasattr(level, "downsamplers"):
        x = level.downsamplers[0].conv(x)
    skips.pop()
    for level in self.up_blocks:
      skip = skips.pop()
      x = F.interpolate(x, scale_factor=2)[:, :, : skip.shape[2], : skip.shape[3]]
      x = torch.cat([level.upsamplers[0].conv(x), skip], 1)
      for block in level.resnets:
        x = block(x, s)
    y = self.conv_out(F.silu(self.conv_norm_out(x)))
    y = y.reshape(batch, self.horizon, channels, height, width)
    return y.permute(0, 1, 3, 4, 2)
