"""SFP's world model, planner and first training stage in torch, to compare.

Written from a description of what the released code (arXiv 2510.04020) does. The
names in the state_dicts are the original's. B examples of one frame each, C
variables, D channels of the latent, M codes, K candidates, N layers.

`released=True` is the released way: the codes are picked by products with one-hot
matrices [B h w, M], one for each candidate, and a training step decodes the nearest
codes twice and all others once, although its loss reads only the nearest. Else codes
are looked up, and a training step decodes only the nearest ones.
"""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_triton import FirstLayer

COMMITMENT, DECAY, EPSILON = 0.25, 0.99, 1e-5
VQ_WEIGHT = 0.1


def samplings(layers: int, change: str) -> list[str]:
  """Every second layer changes the grid; "down" or "up"."""
  return [change if i % 2 else "same" for i in range(layers)]


class Encoder(nn.Module):
  """Frames [B, C, H, W] to a latent [B, D, h, w] and the first layer's result."""

  def __init__(self, channels: int, width: int, layers: int):
    super().__init__()
    self.enc = nn.ModuleList(
      FirstLayer(width if i else channels, width, sampling)
      for i, sampling in enumerate(samplings(layers, "down"))
    )

  def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    skip = x = self.enc[0](x)
    for layer in self.enc[1:]:
      x = layer(x)
    return x, skip


class Quantizer(nn.Module):
  """The K nearest codes of every point of a latent."""

  def __init__(self, codes: int, width: int, top_k: int, released: bool):
    super().__init__()
    self.top_k, self.released = top_k, released
    self._embedding = nn.Embedding(codes, width)
    self._ema_w = nn.Parameter(torch.randn(codes, width))
    self.register_buffer("_ema_cluster_size", torch.zeros(codes))
    for table in (self._embedding.weight, self._ema_w):
      table.requires_grad_(False)

  def forward(self, z: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Returns K latents like z, the nearest codes first, and the loss.

    In training it then moves the codes towards the rows whose K-th nearest code
    they are, as released.
    """
    x = z.movedim(1, -1)
    rows, table = x.reshape(-1, x.shape[-1]), self._embedding.weight
    with torch.no_grad():
      distance = rows.square().sum(1, keepdim=True) + table.square().sum(1)
      distance = distance - 2 * rows @ table.T
      index = distance.topk(self.top_k, largest=False).indices
    if self.released:
      # All of them are kept until the end, as released.
      one_hots = [
        torch.zeros_like(distance).scatter_(1, of_rank[:, None], 1)
        for of_rank in index.unbind(1)
      ]
      found = [(one_hot @ table).reshape(x.shape) for one_hot in one_hots]
    else:
      # Candidates apart from the nearest take no part in training.
      wanted = 1 if self.training else self.top_k
      found = [table[index[:, k]].reshape(x.shape) for k in range(wanted)]
    loss = COMMITMENT * functional.mse_loss(found[0], x)
    if self.training:
      last = one_hots[-1] if self.released else index[:, -1]
      self._update(last, rows.detach())
    return [(x + (q - x).detach()).movedim(-1, 1) for q in found], loss

  @torch.no_grad()
  def _update(self, last: torch.Tensor, rows: torch.Tensor) -> None:
    """Moves codes, given one-hot rows [n, M] or the numbers of codes [n]."""
    if self.released:
      counts, sums = last.sum(0), last.T @ rows
    else:
      counts = torch.bincount(last, minlength=len(self._ema_w)).to(rows.dtype)
      sums = torch.zeros_like(self._ema_w).index_add_(0, last, rows)
    size = DECAY * self._ema_cluster_size + (1 - DECAY) * counts
    total = size.sum()
    size = (size + EPSILON) / (total + len(size) * EPSILON) * total
    self._ema_cluster_size.copy_(size)
    self._ema_w.mul_(DECAY).add_(sums, alpha=1 - DECAY)
    self._embedding.weight.copy_(self._ema_w / size[:, None])


class Decoder(nn.Module):
  """Latents [B, D, h, w] and the encoder's first result to frames [B, C, H, W]."""

  def __init__(self, channels: int, width: int, layers: int):
    super().__init__()
    *first, last = reversed(samplings(layers, "up"))
    self.dec = nn.ModuleList(FirstLayer(width, width, sampling) for sampling in first)
    self.dec.append(FirstLayer(2 * width, width, last))
    if width != channels:
      self.proj = nn.Conv2d(width, width, 1)
    self.readout = nn.Conv2d(width, channels, 1)

  def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    for layer in self.dec[:-1]:
      x = layer(x)
    if hasattr(self, "proj"):
      skip = self.proj(skip)
    return self.readout(self.dec[-1](torch.cat([x, skip], 1)))


class WorldModel(nn.Module):
  """The whole world model; see the parts.

  Args:
    channels: C.
    layers: N; every second one halves the grid.
    codes: M.
    width: D, even.
    top_k: K.
    released: see the module.
  """

  def __init__(
    self,
    channels: int,
    layers: int = 2,
    codes: int = 1024,
    width: int = 256,
    top_k: int = 10,
    released: bool = True,
  ):
    super().__init__()
    self.released = released
    parts = {
      "_encoder": Encoder(channels, width, layers),
      "_pre_vq_conv": nn.Conv2d(width, width, 1),
      "_vq_vae": Quantizer(codes, width, top_k, released),
      "_decoder": Decoder(channels, width, layers),
    }
    self.BV_module = nn.ModuleDict(parts)

  def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the latent [B, D, h, w] and the skip [B, D, H, W] of frames."""
    latent, skip = self.BV_module["_encoder"](x)
    return self.BV_module["_pre_vq_conv"](latent), skip

  def quantise(self, z: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    return self.BV_module["_vq_vae"](z)

  def decode(self, latent: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return self.BV_module["_decoder"](latent, skip)

  def forward(
    self, x: torch.Tensor
  ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Returns frames like x, those of each candidate, and the codes' loss."""
    z, skip = self.encode(x)
    found, loss = self.quantise(z)
    frames = self.decode(found[0], skip)
    every = [self.decode(q, skip) for q in found] if self.released else [frames]
    return frames, every, loss


def training_step(
  model: WorldModel, optimiser: torch.optim.Optimizer, x: torch.Tensor
) -> torch.Tensor:
  """One update of the first stage; returns the loss before it, on the device."""
  optimiser.zero_grad(set_to_none=True)
  frames, _, vq_loss = model(x)
  loss = functional.mse_loss(frames, x) + VQ_WEIGHT * vq_loss
  loss.backward()
  optimiser.step()
  return loss.detach()


def optimiser(model: WorldModel) -> torch.optim.Optimizer:
  """Adam as released."""
  return torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-3)


def csi(candidates: torch.Tensor, truth: torch.Tensor, threshold: float):
  """The reward [...] of frames [..., C, H, W]: the critical success index."""
  f, o = candidates > threshold, truth > threshold
  axes = (-3, -2, -1)
  hits, either = (x.sum(axes, dtype=torch.float32) for x in (f & o, f | o))
  return hits / (either + 1e-7)


@torch.no_grad()
def imagine(
  model: WorldModel, history: torch.Tensor, action: torch.Tensor, batched: bool
) -> torch.Tensor:
  """Returns the candidates [K, B, C, H, W] of forecasts.

  Args:
    model: in the mode for evaluation.
    history: the last frame before the forecasts [B, C, H, W].
    action: forecasts like history.
    batched: whether all candidates are decoded together.
  """
  _, skip = model.encode(history)
  found, _ = model.quantise(model.encode(action)[0])
  if not batched:
    return torch.stack([model.decode(q, skip) for q in found])
  skips = skip.expand(len(found), *skip.shape).flatten(0, 1)
  return model.decode(torch.cat(found), skips).unflatten(0, (len(found), -1))


@torch.no_grad()
def plan_one_by_one(
  model: WorldModel,
  history: torch.Tensor,
  action: torch.Tensor,
  truth: torch.Tensor,
  threshold: float,
) -> torch.Tensor:
  """Picks the best candidate of each example, as released: by loops over both.

  Returns:
    Pseudo-labels [B, C, H, W].
  """
  labels = []
  for frame, forecast, wanted in zip(history, action, truth, strict=True):
    candidates = imagine(model, frame[None], forecast[None], batched=False)
    best, highest = candidates[0, 0], -float("inf")
    for candidate in candidates[:, 0]:
      reward = csi(candidate, wanted, threshold).item()
      if reward > highest:
        best, highest = candidate, reward
    labels.append(best)
  return torch.stack(labels)


@torch.no_grad()
def plan_batched(
  model: WorldModel,
  history: torch.Tensor,
  action: torch.Tensor,
  truth: torch.Tensor,
  threshold: float,
) -> torch.Tensor:
  """The same for all examples and candidates at once."""
  candidates = imagine(model, history, action, batched=True)
  best = csi(candidates, truth, threshold).argmax(0)
  return candidates[best, torch.arange(len(best), device=best.device)]
