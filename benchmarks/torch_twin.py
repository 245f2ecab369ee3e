"""SimVP with the gSTA translator and its train step in torch, to compare with.

Written from the published description (Gao et al. 2022; Tan et al. 2022). The
names in the state_dict are those of OpenSTL, so that published weights load.
"""

import collections

import torch
from torch import nn
from torch.nn import functional


class SampledConv(nn.Module):
  """3x3 convolution that may halve or double the grid, GroupNorm(2), SiLU."""

  def __init__(self, c_in: int, c_out: int, sampling: str = "same"):
    super().__init__()
    up, stride = sampling == "up", 2 if sampling == "down" else 1
    conv = nn.Conv2d(c_in, c_out * (4 if up else 1), 3, stride, padding=1)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)
    layers = dict(
      conv=nn.Sequential(conv, nn.PixelShuffle(2)) if up else conv,
      norm=nn.GroupNorm(2, c_out),
    )
    self.conv = nn.Sequential(collections.OrderedDict(layers))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return functional.silu(self.conv(x))


class GatedAttention(nn.Module):
  """1x1 convolution, GELU, large-kernel gate, 1x1 convolution, shortcut."""

  def __init__(self, width: int):
    super().__init__()
    self.proj_1 = nn.Conv2d(width, width, 1)
    layers = dict(
      conv0=nn.Conv2d(width, width, 5, padding=2, groups=width),
      conv_spatial=nn.Conv2d(
        width, width, 7, padding=9, dilation=3, groups=width
      ),
      conv1=nn.Conv2d(width, 2 * width, 1),
    )
    self.spatial_gating_unit = nn.Sequential(collections.OrderedDict(layers))
    self.proj_2 = nn.Conv2d(width, width, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.spatial_gating_unit(functional.gelu(self.proj_1(x)))
    f, g = y.chunk(2, dim=1)
    return self.proj_2(torch.sigmoid(g) * f) + x


class Mlp(nn.Module):
  """1x1 convolution, depthwise 3x3 convolution, GELU, 1x1 convolution."""

  def __init__(self, width: int, hidden: int):
    super().__init__()
    self.fc1 = nn.Conv2d(width, hidden, 1)
    depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
    self.dwconv = nn.ModuleDict({"dwconv": depthwise})
    self.fc2 = nn.Conv2d(hidden, width, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.fc2(functional.gelu(self.dwconv["dwconv"](self.fc1(x))))


class Core(nn.Module):
  """Two residual branches behind batch norms, with channel scales."""

  def __init__(self, width: int, mlp_ratio: float):
    super().__init__()
    self.norm1 = nn.BatchNorm2d(width)
    self.attn = GatedAttention(width)
    self.norm2 = nn.BatchNorm2d(width)
    self.mlp = Mlp(width, int(mlp_ratio * width))
    self.layer_scale_1 = nn.Parameter(torch.full((width,), 1e-2))
    self.layer_scale_2 = nn.Parameter(torch.full((width,), 1e-2))
    for module in self.modules():
      if isinstance(module, nn.Conv2d):
        fan_out = module.weight[:, 0].numel() / module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        nn.init.zeros_(module.bias)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
    return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class Block(nn.Module):
  """A core, then a 1x1 convolution where the width changes."""

  def __init__(self, c_in: int, c_out: int, mlp_ratio: float):
    super().__init__()
    self.block = Core(c_in, mlp_ratio)
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
  ):
    super().__init__()
    s = spatial_features
    halves = [i % 2 == 1 for i in range(spatial_depth)]
    self.enc = nn.ModuleDict()
    self.enc["enc"] = nn.ModuleList(
      SampledConv(s if i else channels, s, "down" if half else "same")
      for i, half in enumerate(halves)
    )
    inner = [temporal_features] * (temporal_depth - 1)
    widths = [frames * s, *inner, frames * s]
    self.hid = nn.ModuleDict()
    self.hid["enc"] = nn.ModuleList(
      Block(c_in, c_out, mlp_ratio)
      for c_in, c_out in zip(widths, widths[1:], strict=False)
    )
    self.dec = nn.ModuleDict()
    self.dec["dec"] = nn.ModuleList(
      SampledConv(s, s, "up" if half else "same") for half in halves[::-1]
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
) -> torch.Tensor:
  """One update by the mean squared error.

  Args:
    network: maps inputs to forecasts; train mode.
    optimiser: of the network's parameters.
    inputs: [B, T, C, H, W].
    targets: the same shape.
    precision: torch.bfloat16 turns on autocast.

  Returns:
    The loss before the update, on the device.
  """
  optimiser.zero_grad(set_to_none=True)
  lower = precision != torch.float32
  with torch.autocast(inputs.device.type, precision, enabled=lower):
    loss = functional.mse_loss(network(inputs).float(), targets)
  loss.backward()
  optimiser.step()
  return loss.detach()
