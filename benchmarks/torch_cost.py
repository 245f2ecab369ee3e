"""CoST's two networks, its train step and its sampler in torch, to compare.

Written from a description of what the released code (arXiv 2502.11013) does,
and in its ways: every dense layer is a 1x1 convolution on [B, F, K, 1], the
denoiser predicts all frames of history and horizon, the mean network stays in
train mode and gets gradients that nobody uses, and samples are drawn one after
the other, a network call a step. K nodes, L frames of history, P of horizon;
`timepoints` are (day, slot). The names in the state_dicts are the original's.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Rows and columns of the table of diffusion steps.
STEPS, STEP_FEATURES = 50, 128
# The side information's divisors, of slot and day.
DIVISORS = (24, 7)


class Block(nn.Module):
  """x + fc2(dropout(relu(fc1(x))))."""

  def __init__(self, features: int, dropout: float):
    super().__init__()
    self.fc1 = nn.Conv2d(features, features, 1)
    self.fc2 = nn.Conv2d(features, features, 1)
    self.drop = nn.Dropout(dropout)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return x + self.fc2(self.drop(functional.relu(self.fc1(x))))


class NodeNetwork(nn.Module):
  """What the mean and the denoiser share: an MLP for each node.

  Args:
    nodes: K.
    in_features: of a node's flattened window.
    out_features: of a node.
    node_dim: features of a node's own.
    embed_dim: features of the window.
    num_layers: blocks.
    slots: rows and columns of the table of slots; None: there is none.
    days: the same of days, or months.
    dropout: rate within the blocks.
  """

  def __init__(
    self,
    nodes: int,
    in_features: int,
    out_features: int,
    *,
    node_dim: int,
    embed_dim: int,
    num_layers: int,
    slots: tuple[int, int] | None = None,
    days: tuple[int, int] | None = None,
    dropout: float = 0.15,
  ):
    super().__init__()
    self.slots, self.days = slots, days
    self.node_emb = self._table(nodes, node_dim)
    hidden = embed_dim + node_dim
    if slots:
      self.time_in_day_emb = self._table(*slots)
      hidden += slots[1]
    if days:
      self.day_in_week_emb = self._table(*days)
      hidden += days[1]
    self.time_series_emb_layer = nn.Conv2d(in_features, embed_dim, 1)
    self.encoder = nn.Sequential(*(Block(hidden, dropout) for _ in range(num_layers)))
    self.regression_layer = nn.Conv2d(hidden, out_features, 1)

  @staticmethod
  def _table(rows: int, features: int) -> nn.Parameter:
    table = nn.Parameter(torch.empty(rows, features))
    nn.init.xavier_uniform_(table)
    return table

  def nodes_forward(
    self,
    window: torch.Tensor,
    slot: torch.Tensor,
    day: torch.Tensor,
    step: torch.Tensor | None = None,
  ) -> torch.Tensor:
    """Maps windows [B, F, K, 1] to [B, F_out, K, 1].

    Args:
      window: the flattened windows.
      slot: [B, K], truncated to integers.
      day: the same.
      step: [B, embed_dim, 1, 1], added to the embedded windows.
    """
    x = self.time_series_emb_layer(window)
    if step is not None:
      x = x + step
    nodes = self.node_emb.T[None, :, :, None].expand(len(x), -1, -1, -1)
    times = []
    if self.slots:
      times.append(self.time_in_day_emb[slot.long()])
    if self.days:
      times.append(self.day_in_week_emb[day.long()])
    times = [time.transpose(1, 2).unsqueeze(-1) for time in times]
    known = torch.cat([x, nodes, *times], dim=1)
    return self.regression_layer(self.encoder(known))


class Mean(NodeNetwork):
  """[B, L, K, C] and timepoints [B, L, 2] to [B, P, K, 1]."""

  def __init__(
    self, nodes: int, history: int, horizon: int, channels: int = 1, **options
  ):
    super().__init__(nodes, history * channels, horizon, **options)

  def forward(self, x: torch.Tensor, timepoints: torch.Tensor) -> torch.Tensor:
    b, frames, nodes, channels = x.shape
    window = x.transpose(2, 3).reshape(b, frames * channels, nodes, 1)
    last = timepoints[:, -1, None, :].expand(-1, nodes, -1)
    return self.nodes_forward(window, last[..., 1], last[..., 0])


class StepEmbedding(nn.Module):
  """Sines and cosines of the step, through two layers."""

  def __init__(self):
    super().__init__()
    half = STEP_FEATURES // 2
    frequencies = 10.0 ** (torch.arange(half) / (half - 1) * 4.0)
    angles = torch.arange(STEPS)[:, None] * frequencies
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    self.register_buffer("table", table, persistent=False)
    self.projection1 = nn.Linear(STEP_FEATURES, STEP_FEATURES)
    self.projection2 = nn.Linear(STEP_FEATURES, STEP_FEATURES)

  def forward(self, step: torch.Tensor) -> torch.Tensor:
    x = functional.silu(self.projection1(self.table[step]))
    return functional.silu(self.projection2(x))


class Denoiser(NodeNetwork):
  """Predicts the noise on all frames of history and horizon."""

  def __init__(self, nodes: int, frames: int, *, embed_dim: int, **options):
    super().__init__(nodes, 2 * frames, frames, embed_dim=embed_dim, **options)
    self.diffusion_embedding = StepEmbedding()
    self.diffusion_projection = nn.Linear(STEP_FEATURES, embed_dim)

  def forward(
    self, x: torch.Tensor, side: torch.Tensor, step: torch.Tensor
  ) -> torch.Tensor:
    """Returns the noise [B, K, L + P].

    Args:
      x: [B, 2, K, L + P].
      side: [B, L + P, K, 3]: slot, day, mask.
      step: [B] or [1] integers.
    """
    b, channels, nodes, frames = x.shape
    window = x.permute(0, 3, 1, 2).reshape(b, frames * channels, nodes, 1)
    embedding = self.diffusion_projection(self.diffusion_embedding(step))
    y = self.nodes_forward(
      window, side[:, -1, :, 0], side[:, -1, :, 1], embedding[:, :, None, None]
    )
    return y.squeeze(-1).transpose(1, 2)


class Forecaster(nn.Module):
  """The diffusion of what the mean leaves over.

  Args:
    denoiser: of the noise.
    nodes: K.
    history: L.
    num_steps: of the diffusion.
    beta_start: first beta.
    beta_end: last beta; sqrt(beta) in equal steps.
  """

  def __init__(
    self,
    denoiser: Denoiser,
    nodes: int,
    history: int,
    num_steps: int = 50,
    beta_start: float = 1e-4,
    beta_end: float = 0.5,
  ):
    super().__init__()
    self.embed_layer = nn.Embedding(nodes, 16)  # Never read, as released.
    self.diffmodel = denoiser
    self.history = history
    self.beta = np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2
    self.alpha_bar = np.cumprod(1 - self.beta)

  def side_information(
    self, timepoints: torch.Tensor, mask: torch.Tensor
  ) -> torch.Tensor:
    """Slots, days and mask [B, L + P, K, 3]; both times scaled, as released.

    Args:
      timepoints: [B, L + P, 2].
      mask: [B, K, L + P], 1 on the history.
    """
    nodes = mask.shape[1]
    times = timepoints.flip(-1) / timepoints.new_tensor(DIVISORS)
    times = times[:, :, None].expand(-1, -1, nodes, -1)
    return torch.cat([times, mask.permute(0, 2, 1)[..., None]], dim=-1)

  def shift(self, scale: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """z [B, K, L + P]: 0 on the history.

    Args:
      scale: [B, K].
      sign: [B, K, P], -1 and 1.
    """
    return functional.pad(scale[..., None] * sign, (self.history, 0))

  def network_input(
    self,
    data: torch.Tensor,
    noisy: torch.Tensor,
    shift: torch.Tensor,
    mask: torch.Tensor,
  ) -> torch.Tensor:
    """[history | z] and [0 | noisy], [B, 2, K, L + P]."""
    return torch.stack([data * mask + shift, noisy * (1 - mask)], dim=1)

  def loss(
    self,
    residual: torch.Tensor,
    timepoints: torch.Tensor,
    mask: torch.Tensor,
    scale: torch.Tensor,
    *,
    step: torch.Tensor,
    noise: torch.Tensor,
    sign: torch.Tensor,
  ) -> torch.Tensor:
    """Mean squared error of the noise on the horizon.

    Args:
      residual: [B, K, L + P], on the horizon less the mean.
      timepoints: [B, L + P, 2].
      mask: [B, K, L + P], 1 on the history.
      scale: [B, K].
      step: [B].
      noise: like residual.
      sign: [B, K, P].
    """
    shift = self.shift(scale, sign)
    share = torch.as_tensor(self.alpha_bar, dtype=torch.float32, device=step.device)[
      step
    ][:, None, None]
    noisy = share.sqrt() * residual + (1 - share.sqrt()) * shift
    noisy = noisy + (1 - share).sqrt() * noise
    predicted = self.diffmodel(
      self.network_input(residual, noisy, shift, mask),
      self.side_information(timepoints, mask),
      step,
    )
    future = 1 - mask
    return (((noise - predicted) * future) ** 2).sum() / future.sum()

  @torch.no_grad()
  def reverse(
    self,
    data: torch.Tensor,
    side: torch.Tensor,
    mask: torch.Tensor,
    shift: torch.Tensor,
    draw: Callable[[torch.Tensor], torch.Tensor],
  ) -> torch.Tensor:
    """Draws one sample [B, K, L + P] of the residual.

    Args:
      data: [B, K, L + P], for its history.
      side: see `side_information`.
      mask: [B, K, L + P].
      shift: [B, K, L + P].
      draw: an array -> standard normal like it; called at the start and after
        each step but the last.
    """
    x = draw(data) + shift
    for t in reversed(range(len(self.beta))):
      predicted = self.diffmodel(
        self.network_input(data, x, shift, mask),
        side,
        torch.tensor([t], device=data.device),
      )
      share, beta = self.alpha_bar[t], self.beta[t]
      root = (1 - beta) ** -0.5
      x = root * (x - beta / (1 - share) ** 0.5 * predicted)
      x = x + (1 - root) * shift
      if t > 0:
        variance = beta * (1 - self.alpha_bar[t - 1]) / (1 - share)
        x = x + variance**0.5 * draw(x)
    return x


def less_mean(
  mean: nn.Module, observed: torch.Tensor, timepoints: torch.Tensor, history: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
  """Takes the mean off the horizon.

  Args:
    mean: maps [B, L, K, 1] and timepoints to [B, P, K, 1].
    observed: [B, L + P, K, 1].
    timepoints: [B, L + P, 2].
    history: L.

  Returns:
    The residual, the mean on the horizon and 0 before, and the mask that is 1
    on the history: [B, K, L + P] each.
  """
  forecast = mean(observed[:, :history], timepoints[:, :history])
  forecast = functional.pad(forecast.squeeze(-1).transpose(1, 2), (history, 0))
  data = observed.squeeze(-1).transpose(1, 2)
  mask = torch.zeros_like(data)
  mask[..., :history] = 1
  return data - forecast, forecast, mask


def random_signs(like: torch.Tensor) -> torch.Tensor:
  return torch.randint_like(like, 2) * 2 - 1


def train_step(
  forecaster: Forecaster,
  mean: Mean,
  optimiser: torch.optim.Optimizer,
  observed: torch.Tensor,
  timepoints: torch.Tensor,
  scale: torch.Tensor,
) -> torch.Tensor:
  """One update of the second stage, as released.

  Args:
    forecaster: train mode.
    mean: train mode; it gets gradients, and keeps adding them up.
    optimiser: of the forecaster's parameters.
    observed: [B, L + P, K, 1], normalised.
    timepoints: [B, L + P, 2].
    scale: [B, K].

  Returns:
    The loss before the update, on the device.
  """
  optimiser.zero_grad()
  history = forecaster.history
  residual, _, mask = less_mean(mean, observed, timepoints, history)
  steps = len(forecaster.beta)
  loss = forecaster.loss(
    residual,
    timepoints,
    mask,
    scale,
    step=torch.randint(steps, (len(residual),), device=residual.device),
    noise=torch.randn_like(residual),
    sign=random_signs(residual[..., history:]),
  )
  loss.backward()
  optimiser.step()
  return loss.detach()


@torch.no_grad()
def sample(
  forecaster: Forecaster,
  mean: Mean,
  observed: torch.Tensor,
  timepoints: torch.Tensor,
  scale: torch.Tensor,
  members: int,
) -> torch.Tensor:
  """Forecasts [B, n, K, P], one member after the other, as released.

  Args:
    forecaster: eval mode.
    mean: train mode, one draw of its dropout for all members.
    observed: [B, L + P, K, 1], normalised.
    timepoints: [B, L + P, 2].
    scale: [B, K].
    members: n.
  """
  history = forecaster.history
  residual, forecast, mask = less_mean(mean, observed, timepoints, history)
  side = forecaster.side_information(timepoints, mask)
  samples = []
  for _ in range(members):
    sign = random_signs(residual[..., history:])
    shift = forecaster.shift(scale, sign)
    drawn = forecaster.reverse(residual, side, mask, shift, torch.randn_like)
    samples.append((forecast + drawn)[..., history:])
  return torch.stack(samples, dim=1)
