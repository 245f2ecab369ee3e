"""Blocks of SimVP's translators in torch, to compare with.

Written from the published descriptions: gSTA (Tan et al. 2022), TAU (Tan et
al. 2023), ConvNeXt (Liu et al. 2022), ViT (Dosovitskiy et al. 2021) and
Uniformer (Li et al. 2022). Attributes have OpenSTL's names, so that published
weights load.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

HEADS = 8


def he_fan_out(module: nn.Module) -> None:
  """Draws the weights of all convolutions below as the blocks do."""
  for child in module.modules():
    if isinstance(child, nn.Conv2d):
      fan_out = child.weight[:, 0].numel() / child.groups
      nn.init.normal_(child.weight, std=(2 / fan_out) ** 0.5)
      nn.init.zeros_(child.bias)
    elif isinstance(child, nn.Linear):
      nn.init.normal_(child.weight, std=0.02)
      if child.bias is not None:
        nn.init.zeros_(child.bias)


def depthwise(
  width: int, kernel_size: int, padding_mode: str, dilation: int = 1
) -> nn.Conv2d:
  """A convolution of each channel by itself that keeps the grid."""
  return nn.Conv2d(
    width,
    width,
    kernel_size,
    padding=dilation * (kernel_size - 1) // 2,
    dilation=dilation,
    groups=width,
    padding_mode=padding_mode,
  )


def scales(width: int, value: float) -> nn.Parameter:
  return nn.Parameter(torch.full((width,), value))


def tokens(x: torch.Tensor) -> torch.Tensor:
  """[B, C, h, w] to [B, h w, C]."""
  return x.flatten(2).transpose(1, 2)


class Gate(nn.Module):
  """The large-kernel convolution that both gates have."""

  def __init__(self, width: int, features: int, padding_mode: str):
    super().__init__()
    self.conv0 = depthwise(width, 5, padding_mode)
    self.conv_spatial = depthwise(width, 7, padding_mode, dilation=3)
    self.conv1 = nn.Conv2d(width, features, 1)

  def large_kernel(self, x: torch.Tensor) -> torch.Tensor:
    return self.conv1(self.conv_spatial(self.conv0(x)))


class SplitGate(Gate):
  """sigmoid(g) f, with f and g halves of the large kernel's result."""

  def __init__(self, width: int, padding_mode: str):
    super().__init__(width, 2 * width, padding_mode)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    f, g = self.large_kernel(x).chunk(2, dim=1)
    return torch.sigmoid(g) * f


class TemporalGate(Gate):
  """s x f, with s channel weights from the mean over the pixels."""

  def __init__(self, width: int, padding_mode: str):
    super().__init__(width, width, padding_mode)
    hidden = width // max(width // 16, 4)
    squeeze = nn.Linear(width, hidden, bias=False)
    excite = nn.Linear(hidden, width, bias=False)
    self.fc = nn.Sequential(squeeze, nn.ReLU(), excite, nn.Sigmoid())

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    weights = self.fc(x.mean((2, 3)))[:, :, None, None]
    return weights * self.large_kernel(x) * x


class GatedAttention(nn.Module):
  """1x1 convolution, GELU, gate, 1x1 convolution, shortcut."""

  def __init__(self, width: int, gate: nn.Module):
    super().__init__()
    self.proj_1 = nn.Conv2d(width, width, 1)
    self.spatial_gating_unit = gate
    self.proj_2 = nn.Conv2d(width, width, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    gated = self.spatial_gating_unit(functional.gelu(self.proj_1(x)))
    return self.proj_2(gated) + x


class DepthwiseMlp(nn.Module):
  """1x1 convolution, depthwise 3x3 convolution, GELU, 1x1 convolution."""

  def __init__(self, width: int, hidden: int, padding_mode: str):
    super().__init__()
    self.fc1 = nn.Conv2d(width, hidden, 1)
    self.dwconv = nn.ModuleDict({"dwconv": depthwise(hidden, 3, padding_mode)})
    self.fc2 = nn.Conv2d(hidden, width, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.fc2(functional.gelu(self.dwconv["dwconv"](self.fc1(x))))


class DropPath(nn.Module):
  """Sets whole samples to 0 at some rate while training (Huang et al. 2016)."""

  def __init__(self, rate: float):
    super().__init__()
    self.rate = rate

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    if not self.training or not self.rate:
      return x
    keep = 1 - self.rate
    kept = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(keep)
    return x * (kept / keep)


class Mlp(nn.Module):
  """Two layers over the channels, pixels or tokens."""

  def __init__(self, width: int, hidden: int, pixels: bool = False):
    super().__init__()
    layer = (lambda a, b: nn.Conv2d(a, b, 1)) if pixels else nn.Linear
    self.fc1, self.fc2 = layer(width, hidden), layer(hidden, width)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.fc2(functional.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
  """Multi-head self-attention of all tokens."""

  def __init__(self, width: int):
    super().__init__()
    self.qkv = nn.Linear(width, 3 * width)
    self.proj = nn.Linear(width, width)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    b, n, width = x.shape
    qkv = self.qkv(x).reshape(b, n, 3, HEADS, width // HEADS)
    y = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
    return self.proj(y.transpose(1, 2).reshape(b, n, width))


class GatedBlock(nn.Module):
  """Two residual branches behind batch norms, with channel scales."""

  def __init__(self, width: int, hidden: int, padding_mode: str, gate: Callable):
    super().__init__()
    self.norm1 = nn.BatchNorm2d(width)
    self.norm2 = nn.BatchNorm2d(width)
    self.mlp = DepthwiseMlp(width, hidden, padding_mode)
    self.attn = GatedAttention(width, gate(width, padding_mode))
    self.layer_scale_1 = scales(width, 1e-2)
    self.layer_scale_2 = scales(width, 1e-2)
    # TAU's attention keeps torch's own initial values.
    he_fan_out(self if gate is SplitGate else self.mlp)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
    return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class ConvNeXtBlock(nn.Module):
  """x + gamma MLP(LN(depthwise 7x7 (x))), the norm over the channels."""

  def __init__(self, width: int, hidden: int, padding_mode: str):
    super().__init__()
    self.gamma = scales(width, 1e-6)
    self.conv_dw = depthwise(width, 7, padding_mode)
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.mlp = Mlp(width, hidden, pixels=True)
    he_fan_out(self)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return x + self.gamma[:, None, None] * self.mlp(y)


class TransformerBlock(nn.Module):
  """Self-attention and MLP behind layer norms.

  Uniformer's has a depthwise convolution in front and channel scales.
  """

  def __init__(
    self,
    width: int,
    hidden: int,
    padding_mode: str,
    uniformer: bool = False,
    drop_path: float = 0.0,
  ):
    super().__init__()
    self.uniformer = uniformer
    self.drop_path = DropPath(drop_path)
    self.norm1 = nn.LayerNorm(width, eps=1e-5)
    self.attn = SelfAttention(width)
    self.norm2 = nn.LayerNorm(width, eps=1e-5)
    self.mlp = Mlp(width, hidden)
    he_fan_out(self)
    if uniformer:
      self.pos_embed = depthwise(width, 3, padding_mode)
      self.gamma_1 = scales(width, 1e-6)
      self.gamma_2 = scales(width, 1e-6)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    shape = x.shape
    scale_1 = scale_2 = 1
    if self.uniformer:
      x = x + self.pos_embed(x)
      scale_1, scale_2 = self.gamma_1, self.gamma_2
    y = tokens(x)
    y = y + self.drop_path(scale_1 * self.attn(self.norm1(y)))
    y = y + self.drop_path(scale_2 * self.mlp(self.norm2(y)))
    return y.transpose(1, 2).reshape(shape)


class LocalUniformerBlock(nn.Module):
  """Uniformer's block with a depthwise 5x5 convolution as its mixer."""

  def __init__(
    self, width: int, hidden: int, padding_mode: str, drop_path: float = 0.0
  ):
    super().__init__()
    self.drop_path = DropPath(drop_path)
    self.pos_embed = depthwise(width, 3, padding_mode)
    self.norm1 = nn.BatchNorm2d(width)
    self.conv1 = nn.Conv2d(width, width, 1)
    self.attn = depthwise(width, 5, padding_mode)
    self.conv2 = nn.Conv2d(width, width, 1)
    self.norm2 = nn.BatchNorm2d(width)
    self.mlp = Mlp(width, hidden, pixels=True)
    he_fan_out(self)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = x + self.pos_embed(x)
    y = self.conv2(self.attn(self.conv1(self.norm1(x))))
    x = x + self.drop_path(y)
    return x + self.drop_path(self.mlp(self.norm2(x)))


def gsta(index: int, resized: bool, *sizes) -> nn.Module:
  del index, resized
  return GatedBlock(*sizes, SplitGate)


def tau(index: int, resized: bool, *sizes) -> nn.Module:
  del index, resized
  return GatedBlock(*sizes, TemporalGate)


def convnext(index: int, resized: bool, *sizes) -> nn.Module:
  del index, resized
  return ConvNeXtBlock(*sizes)


def vit(index: int, resized: bool, *sizes) -> nn.Module:
  del index, resized
  return TransformerBlock(*sizes)


def uniformer(index: int, resized: bool, *sizes) -> nn.Module:
  if index == 0 or resized:
    return LocalUniformerBlock(*sizes)
  return TransformerBlock(*sizes, uniformer=True)


# (index of the block, whether it changes the width, width, hidden width of
# its MLP, padding mode) -> the block.
BLOCKS: dict[str, Callable[..., nn.Module]] = {
  "convnext": convnext,
  "gsta": gsta,
  "tau": tau,
  "uniformer": uniformer,
  "vit": vit,
}
