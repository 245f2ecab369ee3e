"""SynCast's denoiser, samplers and preference step in torch, to compare.

Written from a description of what the released code (arXiv 2510.21847) does. The
denoiser is DiffCast's (2312.06734): a recurrent encoder of the history, and a U-Net
to which the frames of the forecast are channels. The names in the state_dicts are
the original's. B examples, L frames of history, T of the forecast, one variable.

`recompute=True` is the released way: the history is encoded at each step of the
sampler, and in a preference step once for the winners and again for the losers.
Else it is encoded once.
"""

import copy

import torch
from torch import nn
from torch.nn import functional

from benchmarks import torch_blocks

STEPS, BETA_START, BETA_END = 1000, 1e-4, 0.02
CLIP = 13.0
HEADS, HEAD_FEATURES = 4, 32
BETA_DPO = 3000.0

Context = list[torch.Tensor]


class Block(nn.Module):
  """3x3 convolution, norm, perhaps a scale and a shift, SiLU."""

  def __init__(self, c_in: int, c_out: int):
    super().__init__()
    self.proj = nn.Conv2d(c_in, c_out, 3, padding=1)
    self.norm = nn.GroupNorm(8, c_out)

  def forward(
    self, x: torch.Tensor, change: tuple[torch.Tensor, torch.Tensor] | None = None
  ) -> torch.Tensor:
    x = self.norm(self.proj(x))
    if change is not None:
      scale, shift = change
      x = x * (scale + 1) + shift
    return functional.silu(x)


class ResnetBlock(nn.Module):
  """Two blocks and a shortcut; the embedding of the step changes the first."""

  def __init__(self, c_in: int, c_out: int, embedded: int = 0):
    super().__init__()
    if embedded:
      self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(embedded, 2 * c_out))
    self.block1 = Block(c_in, c_out)
    self.block2 = Block(c_out, c_out)
    self.res_conv = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

  def forward(
    self, x: torch.Tensor, embedding: torch.Tensor | None = None
  ) -> torch.Tensor:
    change = None
    if embedding is not None:
      change = self.mlp(embedding)[:, :, None, None].chunk(2, dim=1)
    return self.block2(self.block1(x, change)) + self.res_conv(x)


class RMSNorm(nn.Module):
  """Divides each pixel by the root mean square of its channels."""

  def __init__(self, width: int):
    super().__init__()
    self.g = nn.Parameter(torch.ones(1, width, 1, 1))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return functional.normalize(x, dim=1) * self.g * x.shape[1] ** 0.5


class Normed(nn.Module):
  """x + fn(norm(x)); twice `fn` in the names, as in the original."""

  def __init__(self, width: int, function: nn.Module):
    super().__init__()
    self.fn = nn.ModuleDict({"fn": function, "norm": RMSNorm(width)})

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + self.fn["fn"](self.fn["norm"](x))


class Attention(nn.Module):
  """Self-attention of all pixels."""

  def __init__(self, width: int):
    super().__init__()
    inner = HEADS * HEAD_FEATURES
    self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
    self.to_out = nn.Conv2d(inner, width, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    b, _, h, w = x.shape
    qkv = self.to_qkv(x).reshape(b, 3, HEADS, HEAD_FEATURES, h * w)
    y = functional.scaled_dot_product_attention(*qkv.transpose(3, 4).unbind(1))
    return self.to_out(y.transpose(2, 3).reshape(b, -1, h, w))


def gated(width: int) -> Normed:
  gate = torch_blocks.TemporalGate(width, "zeros")
  return Normed(width, torch_blocks.GatedAttention(width, gate))


def halved(c_in: int, c_out: int) -> nn.Sequential:
  return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * c_in, c_out, 1))


def doubled(c_in: int, c_out: int) -> nn.Sequential:
  return nn.Sequential(
    nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1)
  )


class ConvGRU(nn.Module):
  """One step of a convolutional gated recurrent unit."""

  def __init__(self, width: int):
    super().__init__()
    self.conv_gates = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1))
    self.conv_cans = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1))

  def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    gates = torch.sigmoid(self.conv_gates(torch.cat([x, state], 1)))
    reset, update = gates.chunk(2, dim=1)
    candidate = torch.tanh(self.conv_cans(torch.cat([x, reset * state], 1)))
    return (1 - update) * state + update * candidate


class ContextNet(nn.Module):
  """Encodes frames [B, L, 1, H, W] as the states of each level after the last one.

  Args:
    dim: channels of the finest level.
    dim_mults: channels behind each level over `dim`.
  """

  def __init__(self, dim: int, dim_mults: tuple[int, ...]):
    super().__init__()
    self.widths = [dim, *(dim * m for m in dim_mults)]
    self.init_conv = nn.Conv2d(1, dim, 7, padding=3)
    self.downs = nn.ModuleList()
    levels = len(dim_mults)
    for i in range(levels):
      width, wider = self.widths[i : i + 2]
      last = i == levels - 1
      down = nn.Identity() if last else halved(width, wider)
      layers = [ResnetBlock(width, width), ConvGRU(width), down]
      self.downs.append(nn.ModuleList(layers))

  def forward(self, frames: torch.Tensor) -> Context:
    b, _, _, h, w = frames.shape
    states = [
      frames.new_zeros(b, width, h >> i, w >> i)
      for i, width in enumerate(self.widths[:-1])
    ]
    for frame in frames.unbind(1):
      x = self.init_conv(frame)
      for i, (block, unit, down) in enumerate(self.downs):
        states[i] = unit(block(x), states[i])
        x = down(states[i])
    return states


class Sinusoids(nn.Module):
  """Sines and cosines of a number [B], as [B, features]."""

  def __init__(self, features: int):
    super().__init__()
    half = features // 2
    rates = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(1e4)) / (half - 1)))
    self.register_buffer("rates", rates, persistent=False)

  def forward(self, number: torch.Tensor) -> torch.Tensor:
    angles = number[:, None].float() * self.rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class UNet(nn.Module):
  """Predicts the noise of frames [B, T, 1, H, W].

  Args:
    dim: channels of the finest level.
    dim_mults: channels behind each level over `dim`.
    frames: T.
  """

  def __init__(self, dim: int, dim_mults: tuple[int, ...], frames: int):
    super().__init__()
    widths = [dim, *(dim * m for m in dim_mults)]
    levels = list(zip(widths, widths[1:], strict=False))
    last = len(levels) - 1
    hidden = 4 * dim
    embedded = 2 * hidden
    # Zeros stand in for a condition that the released configs do not have.
    self.init_conv = nn.Conv2d(2 * frames, dim, 7, padding=3)

    def numbers():
      layers = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden)
      return nn.Sequential(Sinusoids(dim), *layers)

    self.time_mlp, self.frag_idx_mlp = numbers(), numbers()
    self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
    for i, (width, wider) in enumerate(levels):
      conv = (
        nn.Conv2d(width, wider, 3, padding=1) if i == last else halved(width, wider)
      )
      blocks = (ResnetBlock(c, width, embedded) for c in (2 * width, width))
      self.downs.append(nn.ModuleList([*blocks, gated(width), conv]))
    self.mid_block1 = ResnetBlock(widths[-1], widths[-1], embedded)
    self.mid_attn = Normed(widths[-1], Attention(widths[-1]))
    self.mid_block2 = ResnetBlock(widths[-1], widths[-1], embedded)
    for i, (width, wider) in enumerate(reversed(levels)):
      conv = (
        nn.Conv2d(wider, width, 3, padding=1) if i == last else doubled(wider, width)
      )
      blocks = (ResnetBlock(wider + width, wider, embedded) for _ in range(2))
      self.ups.append(nn.ModuleList([*blocks, gated(wider), conv]))
    self.final_res_block = ResnetBlock(2 * dim, dim, embedded)
    self.final_conv = nn.Conv2d(dim, frames, 1)

  def forward(
    self, noisy: torch.Tensor, step: torch.Tensor, context: Context
  ) -> torch.Tensor:
    x = noisy.squeeze(2)
    embedding = torch.cat(
      [self.time_mlp(step), self.frag_idx_mlp(torch.zeros_like(step))], dim=-1
    )
    first = x = self.init_conv(torch.cat([torch.zeros_like(x), x], 1))
    skips = []
    for (block1, block2, gate, down), state in zip(self.downs, context, strict=True):
      x = block1(torch.cat([x, state], 1), embedding)
      skips.append(x)
      x = gate(block2(x, embedding))
      skips.append(x)
      x = down(x)
    x = self.mid_attn(self.mid_block1(x, embedding))
    x = self.mid_block2(x, embedding)
    for block1, block2, gate, up in self.ups:
      x = block1(torch.cat([x, skips.pop()], 1), embedding)
      x = up(gate(block2(torch.cat([x, skips.pop()], 1), embedding)))
    x = self.final_res_block(torch.cat([x, first], 1), embedding)
    return self.final_conv(x)[:, :, None]


class DiffCast(nn.Module):
  """Both networks; called as upstream, it encodes the history anew.

  Args:
    frames: T.
    dim: channels of the finest level.
    dim_mults: channels behind each level over `dim`.
  """

  def __init__(
    self, frames: int, dim: int = 64, dim_mults: tuple[int, ...] = (1, 2, 4, 8)
  ):
    super().__init__()
    self.unet = UNet(dim, dim_mults, frames)
    self.ctxNet = ContextNet(dim, dim_mults)

  def forward(
    self, noisy: torch.Tensor, step: torch.Tensor, history: torch.Tensor
  ) -> torch.Tensor:
    """Returns the noise [B, T, 1, H, W].

    Args:
      noisy: [B, T, 1, H, W].
      step: [B], from 0.
      history: [B, L, 1, H, W].
    """
    return self.unet(noisy, step, self.ctxNet(history))


def alpha_bar() -> torch.Tensor:
  """The share [STEPS] of the signal's variance that is left after each step."""
  return (1 - torch.linspace(BETA_START, BETA_END, STEPS)).cumprod(0)


def diffused(
  fields: torch.Tensor, noise: torch.Tensor, step: torch.Tensor
) -> torch.Tensor:
  """Fields [B, T, 1, H, W] with noise of their steps [B]."""
  share = alpha_bar().to(fields.device)[step][:, None, None, None, None]
  return share.sqrt() * fields + (1 - share).sqrt() * noise


def base_loss(
  network: DiffCast,
  history: torch.Tensor,
  targets: torch.Tensor,
  noise: torch.Tensor,
  step: torch.Tensor,
) -> torch.Tensor:
  """Mean squared error of the predicted noise."""
  predicted = network(diffused(targets, noise, step), step, history)
  return functional.mse_loss(predicted, noise)


@torch.no_grad()
def sample(
  network: DiffCast,
  history: torch.Tensor,
  noise: torch.Tensor,
  steps: int = 20,
  recompute: bool = True,
) -> torch.Tensor:
  """Draws forecasts [B, T, 1, H, W] by DDIM without fresh noise.

  Args:
    network: the denoiser.
    history: [B, L, 1, H, W].
    noise: [B, T, 1, H, W] standard normal, with which it starts.
    steps: network calls, evenly spaced down to step 0.
    recompute: whether the history is encoded at each of them.
  """
  share = torch.cat([alpha_bar(), torch.ones(1)]).tolist()  # The last one is of -1.
  spacing = STEPS // steps
  context = None if recompute else network.ctxNet(history)
  x = noise
  for t in range(spacing * (steps - 1), -1, -spacing):
    if recompute:
      context = network.ctxNet(history)
    predicted = network.unet(
      x, torch.full((len(x),), float(t), device=x.device), context
    )
    now, then = share[t], share[max(t - spacing, -1)]
    clean = ((x - (1 - now) ** 0.5 * predicted) / now**0.5).clamp(-CLIP, CLIP)
    x = then**0.5 * clean + (1 - then) ** 0.5 * predicted
  return x


def preference_weights() -> torch.Tensor:
  """What a gap counts [STEPS], as released, where that of step 0 is negative."""
  share = alpha_bar()
  before = share.roll(1)
  alpha = share / (before + 1e-6)
  return 0.5 * (1 / alpha) * (1 - alpha) / (1 - before)


def dpo_loss(
  policy: torch.Tensor, reference: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
  """The mean loss of pairs.

  Args:
    policy: [2B] errors, of the winners and then of the losers.
    reference: the same of the frozen network.
    weight: [B], of the pairs' steps.
  """
  won, lost = (policy - reference).chunk(2)
  return -functional.logsigmoid(-BETA_DPO * weight * (won - lost)).mean()


def frozen_copy(network: DiffCast) -> DiffCast:
  return copy.deepcopy(network).requires_grad_(False)


def preference_optimiser(network: DiffCast) -> torch.optim.Optimizer:
  """AdamW as released."""
  return torch.optim.AdamW(
    network.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.01
  )


def preference_loss(
  network: DiffCast,
  reference: DiffCast,
  history: torch.Tensor,
  winners: torch.Tensor,
  losers: torch.Tensor,
  noise: torch.Tensor,
  step: torch.Tensor,
  recompute: bool = True,
) -> torch.Tensor:
  """The loss of DPO of pairs [B, T, 1, H, W].

  Args:
    network: the policy.
    reference: frozen.
    history: [B, L, 1, H, W].
    winners: the preferred forecasts.
    losers: the others.
    noise: like winners, and the same for both.
    step: [B], the same for both.
    recompute: whether the history is encoded for the winners and again for the
      losers.
  """
  fields, noises = torch.cat([winners, losers]), torch.cat([noise, noise])
  steps = torch.cat([step, step])
  noisy = diffused(fields, noises, steps)

  def errors(model):
    if recompute:
      predicted = model(noisy, steps, torch.cat([history, history]))
    else:
      context = [torch.cat([state, state]) for state in model.ctxNet(history)]
      predicted = model.unet(noisy, steps, context)
    return (predicted - noises).square().mean((1, 2, 3, 4))

  with torch.no_grad():
    fixed = errors(reference)
  weight = preference_weights().to(step.device)[step]
  return dpo_loss(errors(network), fixed, weight)


def preference_step(
  network: DiffCast,
  reference: DiffCast,
  optimiser: torch.optim.Optimizer,
  history: torch.Tensor,
  winners: torch.Tensor,
  losers: torch.Tensor,
  recompute: bool = True,
) -> torch.Tensor:
  """One update of the policy; see `preference_loss`.

  Returns:
    The loss before the update, on the device.
  """
  optimiser.zero_grad(set_to_none=True)
  step = torch.randint(STEPS, (len(winners),), device=winners.device)
  noise = torch.randn_like(winners)
  loss = preference_loss(
    network, reference, history, winners, losers, noise, step, recompute
  )
  loss.backward()
  optimiser.step()
  return loss.detach()
